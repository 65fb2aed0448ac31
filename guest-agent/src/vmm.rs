//! What the VMM wants of the agent, in words on the kernel command line. Without them everything is as on QEMU.
//!
//! ```text
//! banger.channel=vsock       the agent dials the host, instead of waiting for it at a virtio-serial port
//! banger.power_off=reset     the machine ends by a reset, before which the agent says farewell
//! banger.drives=base,upper   the disks' names in their order, where the VMM cannot give them serials
//! ```

use crate::agent::kernel_text;

/// By what the agent and its host reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// A virtio-serial port.
    #[default]
    Port,
    /// A socket to the host.
    Vsock,
}

/// How the machine is powered off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PowerOff {
    /// By the kernel's own way.
    #[default]
    Kernel,
    /// By a reset: the VMM has nothing else, and ends on it.
    Reset,
}

/// The words, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wishes {
    /// The channel.
    pub transport: Transport,
    /// The end.
    pub power_off: PowerOff,
    /// The disks' names, in the order in which the kernel numbers them; empty where serials tell.
    pub drives: Vec<String>,
}

impl Wishes {
    /// Those of this machine's VMM. `/proc` must be mounted.
    #[must_use]
    pub fn read() -> Self {
        Self::parse(&kernel_text("/proc/cmdline"))
    }

    fn parse(line: &str) -> Self {
        let mut wishes = Self::default();
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some(("banger.channel", "vsock")) => wishes.transport = Transport::Vsock,
                Some(("banger.power_off", "reset")) => wishes.power_off = PowerOff::Reset,
                Some(("banger.drives", names)) => {
                    wishes.drives = names.split(',').map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        wishes
    }

    /// The name of the disk that the kernel calls `vda`, `vdb`, …; `None` where its serial tells.
    #[must_use]
    pub fn drive_name(&self, device: &str) -> Option<&str> {
        let letter = match device.strip_prefix("vd")?.as_bytes() {
            [letter @ b'a'..=b'z'] => *letter,
            _ => return None,
        };
        let index = usize::from(letter - b'a');
        self.drives.get(index).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_others_are_not() {
        let line = "console=ttyS0 banger.channel=vsock banger.power_off=reset banger.drives=base,upper,v1 banger.x";
        let wishes = Wishes::parse(line);
        assert_eq!(wishes.transport, Transport::Vsock);
        assert_eq!(wishes.power_off, PowerOff::Reset);
        assert_eq!(wishes.drive_name("vda"), Some("base"));
        assert_eq!(wishes.drive_name("vdc"), Some("v1"));
        for device in ["vdd", "vdaa", "sda", "vd"] {
            assert_eq!(wishes.drive_name(device), None, "{device}");
        }
        assert_eq!(
            Wishes::parse("banger.channel=serial quiet"),
            Wishes::default()
        );
    }
}
