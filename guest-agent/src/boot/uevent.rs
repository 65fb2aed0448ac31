//! Waits for devices: the kernel tells of each by a message, so nothing is looked for in a loop.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::Kernel;
use crate::port;

/// The group that the kernel's own messages go to.
const KERNEL_GROUP: u32 = 1;
/// Longest message.
const MESSAGE_BYTES: usize = 8 << 10;
/// Longest small file that is read.
const TEXT_BYTES: usize = 256;
/// How long the channel's port may take to appear.
const PORT_WITHIN: Duration = Duration::from_secs(60);

/// The kernel's messages about devices.
#[derive(Debug)]
pub(super) struct Uevents(OwnedFd);

impl Uevents {
    /// Listens from now on.
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(KOBJECT_UEVENT),
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self(socket))
    }

    /// Calls `look` now and after each message until it finds something, or time is over.
    pub(super) fn wait_for<T>(
        &self,
        limit: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> io::Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.message(left)?;
        }
    }

    /// Waits for messages and drops them: what they tell is read from /sys.
    fn message(&self, limit: Duration) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = vec![0; MESSAGE_BYTES];
        // Until there is none; that some were lost is one as well.
        while recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty()).is_ok() {}
        Ok(())
    }
}

/// The names in a directory of the kernel's.
pub(super) fn names(parent: impl AsFd, path: &str) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = openat(parent, path, flags, Mode::empty()).and_then(Dir::new);
    let Ok(entries) = entries else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
        .filter(|name| !name.starts_with('.'))
        .collect()
}

/// A small text file of the kernel's, without the newline.
pub(super) fn text(parent: impl AsFd, path: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(parent, path, flags, Mode::empty()).ok()?;
    let mut buffer = [0; TEXT_BYTES];
    let length = rustix::io::read(&file, &mut buffer).ok()?;
    let text = str::from_utf8(&buffer[..length]).ok()?;
    Some(text.trim_end_matches(['\n', '\0']).to_owned())
}

/// Waits for the agent channel's port and opens it.
///
/// # Errors
/// If it does not appear, or cannot be opened.
pub fn find_port(kernel: &Kernel) -> io::Result<OwnedFd> {
    let uevents = Uevents::open()?;
    let ports = "class/virtio-ports";
    let device = uevents.wait_for(PORT_WITHIN, || {
        names(&kernel.sys, ports).into_iter().find(|name| {
            text(&kernel.sys, &format!("{ports}/{name}/name")).as_deref() == Some(port::NAME)
        })
    })?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let device = openat(&kernel.dev, device, flags, Mode::empty())?;
    port::open(File::from(device))
}

/// Waits until the vsock device can be used.
///
/// # Errors
/// If it does not appear.
pub fn wait_for_vsock(kernel: &Kernel) -> io::Result<()> {
    let uevents = Uevents::open()?;
    let driver = "bus/virtio/drivers/vmw_vsock_virtio_transport";
    uevents.wait_for(PORT_WITHIN, || {
        // A device that the driver has taken is a link named after it.
        let mut devices = names(&kernel.sys, driver).into_iter();
        devices.find(|name| name.starts_with("virtio")).map(drop)
    })
}
