//! The one place with unsafe code.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// `EXT4_IOC_SHUTDOWN` of the kernel's fs/ext4/ext4.h.
const SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: what is not on the disk yet never gets there.
const NO_LOG_FLUSH: u32 = 2;

/// Ends the ext4 file system on which `directory` is: from now on every call on its files fails with EIO.
///
/// # Errors
/// If it is another file system, or we may not.
pub(crate) fn shut_down(directory: &File) -> io::Result<()> {
    // SAFETY: the kernel reads one `u32` from where the argument points, which is one.
    let done = unsafe { ioctl(directory, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) };
    Ok(done?)
}
