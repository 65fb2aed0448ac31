//! What the C library's allocator does with memory that is free again.
#![allow(unsafe_code)]

/// Pieces of at least this many bytes are given back to the host as soon as they are free.
const GIVE_BACK_BYTES: libc::c_int = 1 << 20;
/// Threads that work at the same time share so many heaps; each keeps what its threads have let go of.
const HEAPS_MAX: libc::c_int = 2;

/// Keeps the memory of work that is done from staying with the daemon. Left alone the allocator takes the largest piece
/// that was ever let go of, up to 32 MiB, for a usual size, keeps pieces of it, and has eight heaps for each core: after
/// an image or a kernel the daemon would have several times what it uses. **Before any thread is started.**
pub fn give_back() {
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, GIVE_BACK_BYTES),
        (libc::M_TRIM_THRESHOLD, GIVE_BACK_BYTES),
        (libc::M_ARENA_MAX, HEAPS_MAX),
    ] {
        // SAFETY: `mallopt` takes any numbers, and no other thread is there that could allocate meanwhile. What it does
        // not know it refuses, and all goes on as before.
        unsafe { libc::mallopt(parameter, value) };
    }
}
