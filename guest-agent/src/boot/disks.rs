//! Finds the disks of a VM: the read-only base, the writable upper one, and those of its volumes.

use std::io;
use std::time::Duration;

use super::uevent::{Uevents, names, text};
use super::{BootError, During, Kernel};
use crate::vmm::Wishes;

/// The serial number of the base disk.
const BASE: &str = "base";
/// The serial number of the upper disk.
const UPPER: &str = "upper";
/// How long a disk that the bus has may take until it can be used.
const DISKS_WITHIN: Duration = Duration::from_secs(20);
/// In which the kernel counts disks, whatever the disk itself has.
const SECTOR_BYTES: u64 = 512;
/// The id of a block device on the virtio bus.
const VIRTIO_BLOCK: &str = "0x0002";

/// Paths of the devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disks {
    pub(super) base: String,
    pub(super) upper: String,
}

/// Waits for the disks; none where the machine has no disk at all.
pub(super) fn find(
    kernel: &Kernel,
    uevents: &Uevents,
    wishes: &Wishes,
) -> Result<Option<Disks>, BootError> {
    if look(kernel, wishes).is_none() && !has_disks(kernel) {
        return Ok(None);
    }
    uevents
        .wait_for(DISKS_WITHIN, || look(kernel, wishes))
        .during("waiting for the base and the upper disk")
        .map(Some)
}

fn has_disks(kernel: &Kernel) -> bool {
    let bus = "bus/virtio/devices";
    names(&kernel.sys, bus).into_iter().any(|name| {
        text(&kernel.sys, &format!("{bus}/{name}/device")).as_deref() == Some(VIRTIO_BLOCK)
    })
}

fn look(kernel: &Kernel, wishes: &Wishes) -> Option<Disks> {
    choose(&all(kernel, wishes))
}

/// Each disk, and what it is known as: by what the VMM tells of it, or by its serial number.
fn all(kernel: &Kernel, wishes: &Wishes) -> Vec<(String, String)> {
    names(&kernel.sys, "block")
        .into_iter()
        .filter(|name| name.starts_with("vd"))
        .map(|name| {
            let told = wishes.drive_name(&name).map(str::to_owned);
            let serial = || text(&kernel.sys, &format!("block/{name}/serial"));
            let known_as = told.or_else(serial).unwrap_or_default();
            (name, known_as)
        })
        .collect()
}

/// Waits for the disk that is known as `serial`; returns the name of its device.
///
/// # Errors
/// If it does not appear.
pub fn disk_of(kernel: &Kernel, serial: &str) -> io::Result<String> {
    let wishes = Wishes::read();
    let find = || {
        let disks = all(kernel, &wishes);
        disks.into_iter().find(|disk| disk.1 == serial)
    };
    let (name, _) = Uevents::open()?.wait_for(DISKS_WITHIN, find)?;
    Ok(name)
}

/// Waits until a disk has at least so many bytes.
///
/// # Errors
/// If it stays smaller.
pub fn wait_for_size(kernel: &Kernel, device: &str, bytes: u64) -> io::Result<()> {
    let is_there = || {
        let sectors = text(&kernel.sys, &format!("block/{device}/size"))?;
        let size = sectors.parse::<u64>().ok()?.saturating_mul(SECTOR_BYTES);
        (size >= bytes).then_some(())
    };
    Uevents::open()?.wait_for(DISKS_WITHIN, is_there)
}

/// By serial number, or the name that the VMM tells instead; where no disk has one of ours, the order counts.
fn choose(disks: &[(String, String)]) -> Option<Disks> {
    let by_serial = |serial: &str| disks.iter().find(|disk| disk.1 == serial);
    let by_name = |name: &str| disks.iter().find(|disk| disk.0 == name);
    let (base, upper) = match (by_serial(BASE), by_serial(UPPER)) {
        (Some(base), Some(upper)) => (base, upper),
        (None, None) => (by_name("vda")?, by_name("vdb")?),
        _ => return None,
    };
    Some(Disks {
        base: format!("/dev/{}", base.0),
        upper: format!("/dev/{}", upper.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(disks: &[(&str, &str)]) -> Option<(String, String)> {
        let disks: Vec<_> = disks
            .iter()
            .map(|(name, serial)| ((*name).to_owned(), (*serial).to_owned()))
            .collect();
        choose(&disks).map(|disks| (disks.base, disks.upper))
    }

    #[test]
    fn serial_numbers_decide() {
        let disks = [("vda", "upper"), ("vdb", "volume"), ("vdc", "base")];
        assert_eq!(chosen(&disks), Some(("/dev/vdc".into(), "/dev/vda".into())));
    }

    #[test]
    fn without_serial_numbers_the_order_decides() {
        let disks = [("vdb", ""), ("vda", "")];
        assert_eq!(chosen(&disks), Some(("/dev/vda".into(), "/dev/vdb".into())));
    }

    #[test]
    fn one_of_two_is_not_enough() {
        assert_eq!(chosen(&[("vda", "base")]), None);
        assert_eq!(chosen(&[("vda", "")]), None);
        assert_eq!(chosen(&[]), None);
    }
}
