use std::collections::BTreeMap;
use std::path::PathBuf;

use banger_core::vm::VmState;
use banger_core::vmm::NetworkPlan;
use banger_core::volume::Volume;
use banger_core::{Explain as _, Timestamp, VolumeId};
use proptest::prelude::*;

use super::*;
use crate::config::{Quotas, Ratio};

const CAPACITY: Capacity = Capacity {
    cpu_count: 2,
    memory_mib: 4096,
    memory_available_mib: 4096,
    disk_mib: 10_000,
};

/// 4 vCPUs, 2000 MiB of memory, 9000 MiB of disk, 6 VMs and 3 volumes.
fn config() -> AppConfig {
    AppConfig {
        max_vms: 6,
        max_volumes: 3,
        memory_reserve_mib: 2096,
        disk_reserve_mib: 1000,
        memory_overcommit: Ratio::of_whole(1),
        vcpu_overcommit: Ratio::of_whole(2),
        disk_overcommit: Ratio::of_whole(1),
        max_parallel_boots: 2,
        boot_queue_max: 100,
        ..AppConfig::new(PathBuf::new(), PathBuf::new())
    }
}

pub(in crate::vm) fn vm(uid: u32, (vcpu_count, memory_mib, disk_mib): (u32, u64, u64)) -> Vm {
    let spec = VmSpec {
        volumes: Vec::new(),
        init: banger_core::setup::InitMode::Agent,
        identity: banger_core::setup::VmIdentity::default(),
        keep_logs: false,
        name: "web".parse().unwrap(),
        labels: BTreeMap::new(),
        image: "web:1".into(),
        kernel: String::new(),
        vcpu_count,
        memory_mib,
        disk_mib,
        env: BTreeMap::new(),
        network: NetworkPlan::None,
        ephemeral: false,
        ttl: None,
        idle_timeout: None,
        restart_policy: banger_core::vm::RestartPolicy::Never,
    };
    Vm {
        id: VmId::new(),
        spec,
        image: None,
        kernel: None,
        owner: Owner::of_uid(uid),
        state: VmState::Creating,
        shape: None,
        restart_count: 0,
        generation: 1,
        boot_timing: Vec::new(),
        last_stop: None,
        create_time: Timestamp::now(),
        start_time: None,
        stop_time: None,
        stuck: None,
    }
}

fn volume(uid: u32, size_mib: u64) -> Volume {
    Volume {
        id: VolumeId::new(),
        name: "data".parse().unwrap(),
        labels: BTreeMap::new(),
        size_mib,
        seed: None,
        owner: Owner::of_uid(uid),
        generation: 1,
        create_time: Timestamp::UNIX_EPOCH,
    }
}

fn promised(admission: &Admission) -> Promised {
    admission.account(&CAPACITY).host.promised
}

fn refusal(result: Result<impl std::fmt::Debug, AppError>) -> (String, &'static str) {
    let error = result.unwrap_err();
    (error.to_string(), error.reason())
}

#[test]
fn each_limit_of_the_host_is_refused_with_its_numbers() {
    let table = [
        (
            (5, 100, 100),
            "the host has no room for 5 vCPUs more: 0 of 4 are in use",
        ),
        (
            (1, 2001, 100),
            "the host has no room for 2001 MiB of memory more: 0 of 2000 are in use",
        ),
        (
            (1, 100, 9001),
            "the host has no room for 9001 MiB of disk more: 0 of 9000 are in use",
        ),
    ];
    let admission = Admission::new(&config());
    for (shape, text) in table {
        let refused = refusal(admission.create(&vm(1, shape), &CAPACITY));
        assert_eq!(refused, (text.to_owned(), "HOST_EXHAUSTED"));
    }
    assert_eq!(promised(&admission), Promised::default());
    let small = || admission.create(&vm(1, (0, 96, 64)), &CAPACITY);
    let kept: Vec<Admitted> = (0..6).map(|_| small().unwrap()).collect();
    let text = "the host has no room for 1 VMs more: 6 of 6 are in use";
    assert_eq!(refusal(small()), (text.to_owned(), "TOO_MANY_VMS"));
    drop(kept);
    assert_eq!(promised(&admission), Promised::default());
}

#[test]
fn a_quota_is_each_owners_own() {
    let default = Limits {
        running_vms: Some(1),
        ..Limits::default()
    };
    let owners = BTreeMap::from([(
        Owner::of_uid(7),
        Limits {
            running_vms: Some(2),
            memory_mib: Some(500),
            ..Limits::default()
        },
    )]);
    let admission = Admission::new(&AppConfig {
        quotas: Quotas { default, owners },
        ..config()
    });
    let create = |uid, memory| admission.create(&vm(uid, (1, memory, 64)), &CAPACITY);
    let _one = create(1, 96).unwrap();
    let text = "`uid:1` may not have 1 running VMs more: 1 of 1 are in use";
    assert_eq!(refusal(create(1, 96)), (text.to_owned(), "QUOTA_EXCEEDED"));
    let _seven = create(7, 300).unwrap();
    let text = "`uid:7` may not have 201 MiB of memory more: 300 of 500 are in use";
    assert_eq!(refusal(create(7, 201)), (text.to_owned(), "QUOTA_EXCEEDED"));
    let _another = create(7, 200).unwrap();
}

#[test]
fn volumes_share_the_disk_with_vms_and_count_until_they_are_removed() {
    let admission = Admission::new(&config());
    let _vm = admission.create(&vm(1, (1, 100, 4000)), &CAPACITY).unwrap();
    let data = volume(1, 3000);
    admission.create_volume(&data, &CAPACITY).unwrap().keep();
    let text = "the host has no room for 2001 MiB of disk more: 7000 of 9000 are in use";
    let too_large = volume(1, 2001);
    let refused = refusal(admission.create_volume(&too_large, &CAPACITY));
    assert_eq!(refused, (text.to_owned(), "HOST_EXHAUSTED"));
    assert_eq!(
        refusal(admission.create(&vm(1, (1, 100, 2001)), &CAPACITY)).0,
        text
    );
    let grown = |size_mib| Volume {
        size_mib,
        ..data.clone()
    };
    let text = "the host has no room for 2001 MiB of disk more: 7000 of 9000 are in use";
    assert_eq!(
        refusal(admission.resize_volume(&grown(5001), &CAPACITY)).0,
        text
    );
    admission.resize_volume(&grown(5000), &CAPACITY).unwrap();
    assert_eq!(promised(&admission).disk_mib, 9000);
    admission.restore_volume(&data);
    assert_eq!(promised(&admission).disk_mib, 7000);
    // One whose making fails was never there.
    drop(
        admission
            .create_volume(&volume(1, 2000), &CAPACITY)
            .unwrap(),
    );
    let now = promised(&admission);
    assert_eq!((now.volumes, now.disk_mib), (1, 7000));
    drop(admission.take_down_volume(data.id));
    let now = promised(&admission);
    assert_eq!((now.volumes, now.disk_mib), (0, 4000));
}

#[test]
fn a_quota_counts_volumes_and_their_size_with_the_disks_of_vms() {
    let default = Limits {
        volumes: Some(2),
        disk_mib: Some(1000),
        ..Limits::default()
    };
    let owners = BTreeMap::new();
    let admission = Admission::new(&AppConfig {
        quotas: Quotas { default, owners },
        ..config()
    });
    let _vm = admission.create(&vm(1, (1, 100, 600)), &CAPACITY).unwrap();
    let text = "`uid:1` may not have 401 MiB of disk more: 600 of 1000 are in use";
    let refused = refusal(admission.create_volume(&volume(1, 401), &CAPACITY));
    assert_eq!(refused, (text.to_owned(), "QUOTA_EXCEEDED"));
    for _ in 0..2 {
        let made = admission.create_volume(&volume(1, 100), &CAPACITY);
        made.unwrap().keep();
    }
    let text = "`uid:1` may not have 1 volumes more: 2 of 2 are in use";
    let refused = refusal(admission.create_volume(&volume(1, 100), &CAPACITY));
    assert_eq!(refused, (text.to_owned(), "QUOTA_EXCEEDED"));
    let text = "`uid:1` may not have 201 MiB of disk more: 800 of 1000 are in use";
    assert_eq!(
        refusal(admission.create(&vm(1, (1, 100, 201)), &CAPACITY)).0,
        text
    );
    // The host's own limit holds for all owners together.
    let last = admission.create_volume(&volume(2, 100), &CAPACITY).unwrap();
    let text = "the host has no room for 1 volumes more: 3 of 3 are in use";
    let refused = refusal(admission.create_volume(&volume(2, 100), &CAPACITY));
    assert_eq!(refused, (text.to_owned(), "TOO_MANY_VOLUMES"));
    drop(last);
    let owners = admission.account(&CAPACITY).owners;
    let own: Vec<_> = owners
        .iter()
        .map(|(owner, share)| (owner.as_str(), share.promised.volumes))
        .collect();
    assert_eq!(own, [("uid:1", 2)]);
}

#[test]
fn a_stopped_vm_keeps_its_disk_and_nothing_else() {
    let admission = Admission::new(&config());
    let mut made = admission.create(&vm(1, (2, 500, 700)), &CAPACITY).unwrap();
    made.lease = None;
    let left = Promised {
        vms: 1,
        disk_mib: 700,
        ..Promised::default()
    };
    assert_eq!(promised(&admission), left);
    let shape = vm(1, (2, 500, 700)).spec.shape();
    let (lease, _ticket) = made.seat.start(shape, &CAPACITY).unwrap();
    assert_eq!(promised(&admission).memory_mib, 500);
    drop(lease);
    assert_eq!(promised(&admission), left);
}

#[test]
fn what_boots_counts_against_the_memory_that_is_free_now() {
    let admission = Admission::new(&config());
    let tight = Capacity {
        memory_available_mib: 2096 + 300,
        ..CAPACITY
    };
    let create = |memory| admission.create(&vm(1, (1, memory, 64)), &tight);
    let first = create(200).unwrap();
    let text = "not enough memory: 301 MiB are needed, 300 MiB are free above the reserve";
    assert_eq!(refusal(create(101)), (text.to_owned(), "HOST_EXHAUSTED"));
    // Its guest is up: what it takes is missing in what is free.
    let spec = vm(1, (1, 200, 64)).spec;
    first.seat.settle(spec.shape(), &spec);
    assert!(create(300).is_ok());
}

#[test]
fn growth_is_promised_at_once_and_kept_until_the_next_start() {
    let admission = Admission::new(&config());
    let before = vm(1, (1, 500, 64)).spec;
    let made = admission.create(&vm(1, (1, 500, 64)), &CAPACITY).unwrap();
    made.seat.settle(before.shape(), &before);
    let resize = |memory_mib| {
        let spec = VmSpec {
            memory_mib,
            ..before.clone()
        };
        made.seat.resize(&spec, Some(before.shape()), &CAPACITY)
    };
    let text = "the host has no room for 1501 MiB of memory more: 500 of 2000 are in use";
    assert_eq!(refusal(resize(2001)).0, text);
    assert_eq!(promised(&admission).memory_mib, 500);
    resize(1500).unwrap();
    assert_eq!(promised(&admission).memory_mib, 1500);
    // Its machine has what it has until it is made anew.
    resize(100).unwrap();
    assert_eq!(promised(&admission).memory_mib, 500);
    made.seat.put_back(&before, Some(before.shape()));
    assert_eq!(promised(&admission).memory_mib, 500);
}

#[test]
fn a_stopped_vm_cannot_grow_beyond_what_could_ever_start() {
    let admission = Admission::new(&config());
    let mut made = admission.create(&vm(1, (1, 500, 64)), &CAPACITY).unwrap();
    made.lease = None;
    let _other = admission.create(&vm(1, (1, 1900, 64)), &CAPACITY).unwrap();
    let wanted = |memory| vm(1, (1, memory, 64)).spec;
    let resize = |memory| made.seat.resize(&wanted(memory), None, &CAPACITY);
    let text = "the host has no room for 2001 MiB of memory more: 0 of 2000 are in use";
    assert_eq!(refusal(resize(2001)).0, text);
    resize(2000).unwrap();
    let start = made.seat.start(wanted(2000).shape(), &CAPACITY);
    let text = "the host has no room for 2000 MiB of memory more: 1900 of 2000 are in use";
    assert_eq!(refusal(start).0, text);
}

#[test]
fn of_many_at_once_exactly_those_that_fit_are_accepted() {
    let admission = Admission::new(&config());
    let accepted: Vec<Admitted> = std::thread::scope(|scope| {
        let create = || admission.create(&vm(1, (1, 300, 64)), &CAPACITY).ok();
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(create)).collect();
        let joined = threads
            .into_iter()
            .filter_map(|thread| thread.join().unwrap());
        joined.collect()
    });
    // The processors are enough for four, the memory for six.
    assert_eq!(accepted.len(), 4);
    assert_eq!(promised(&admission).memory_mib, 1200);
    drop(accepted);
    assert_eq!(promised(&admission), Promised::default());
}

#[test]
fn a_starting_daemon_counts_what_it_finds_even_beyond_a_limit() {
    let admission = Admission::new(&config());
    let mut shrunk = vm(1, (1, 100, 64));
    shrunk.shape = Some(vm(1, (2, 3000, 64)).spec.shape());
    let adopted = admission.restore(&shrunk, true);
    let rests = admission.restore(&vm(1, (4, 900, 64)), false);
    let now = promised(&admission);
    assert_eq!((now.vms, now.running_vms), (2, 1));
    assert_eq!((now.vcpus, now.memory_mib), (2, 3000));
    assert!(admission.create(&vm(1, (1, 96, 64)), &CAPACITY).is_err());
    drop((adopted, rests));
    assert_eq!(promised(&admission), Promised::default());
}

/// What may happen to VMs.
#[derive(Debug, Clone)]
enum Step {
    Create(u32, (u32, u64, u64)),
    Start(usize),
    Up(usize),
    Stop(usize),
    Update(usize, (u32, u64, u64)),
    Delete(usize),
    MakeVolume(u32, u64),
    GrowVolume(usize, u64),
    DeleteVolume(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let shape = || (1..4_u32, 96..900_u64, 64..4000_u64);
    let which = || 0..8_usize;
    let step = prop_oneof![
        4 => (0..3_u32, shape()).prop_map(|(uid, shape)| Step::Create(uid, shape)),
        3 => which().prop_map(Step::Start),
        3 => which().prop_map(Step::Up),
        2 => which().prop_map(Step::Stop),
        3 => (which(), shape()).prop_map(|(at, shape)| Step::Update(at, shape)),
        2 => which().prop_map(Step::Delete),
        3 => (0..3_u32, 64..4000_u64).prop_map(|(uid, mib)| Step::MakeVolume(uid, mib)),
        2 => (which(), 64..4000_u64).prop_map(|(at, mib)| Step::GrowVolume(at, mib)),
        2 => which().prop_map(Step::DeleteVolume),
    ];
    prop::collection::vec(step, 1..60)
}

/// A VM as its runner has it.
struct Model {
    vm: Vm,
    admitted: Admitted,
}

impl Model {
    fn take(&mut self, step: &Step) {
        let Admitted {
            seat,
            lease,
            ticket,
        } = &mut self.admitted;
        match *step {
            Step::Start(_) if lease.is_none() => {
                if let Ok((held, boots)) = seat.start(self.vm.spec.shape(), &CAPACITY) {
                    (*lease, *ticket) = (Some(held), Some(boots));
                }
            }
            Step::Up(_) if lease.is_some() && self.vm.shape.is_none() => {
                self.vm.shape = Some(self.vm.spec.shape());
                seat.settle(self.vm.spec.shape(), &self.vm.spec);
                *ticket = None;
            }
            Step::Stop(_) => {
                (*lease, *ticket) = (None, None);
                self.vm.shape = None;
            }
            Step::Update(_, (vcpu_count, memory_mib, disk_mib)) => {
                let spec = VmSpec {
                    vcpu_count,
                    memory_mib,
                    disk_mib: disk_mib.max(self.vm.spec.disk_mib),
                    ..self.vm.spec.clone()
                };
                if seat.resize(&spec, self.vm.shape, &CAPACITY).is_ok() {
                    self.vm.spec = spec;
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_limit_is_exceeded_and_in_the_end_nothing_is_promised(steps in steps()) {
        let limits = Limits {
            vms: Some(4),
            vcpus: Some(3),
            memory_mib: Some(1200),
            volumes: Some(2),
            ..Limits::default()
        };
        let admission = Admission::new(&AppConfig {
            quotas: Quotas { default: limits, owners: BTreeMap::new() },
            ..config()
        });
        let mut vms: Vec<Model> = Vec::new();
        let mut volumes: Vec<Volume> = Vec::new();
        for step in steps {
            match step {
                Step::Create(uid, shape) => {
                    let vm = vm(uid, shape);
                    if let Ok(admitted) = admission.create(&vm, &CAPACITY) {
                        vms.push(Model { vm, admitted });
                    }
                }
                Step::Delete(at) if at < vms.len() => drop(vms.swap_remove(at)),
                Step::Start(at) | Step::Up(at) | Step::Stop(at) | Step::Update(at, _) => {
                    if let Some(vm) = vms.get_mut(at) {
                        vm.take(&step);
                    }
                }
                Step::MakeVolume(uid, mib) => {
                    let volume = volume(uid, mib);
                    if let Ok(shelf) = admission.create_volume(&volume, &CAPACITY) {
                        shelf.keep();
                        volumes.push(volume);
                    }
                }
                Step::GrowVolume(at, mib) if at < volumes.len() => {
                    let size_mib = mib.max(volumes[at].size_mib);
                    let grown = Volume { size_mib, ..volumes[at].clone() };
                    if admission.resize_volume(&grown, &CAPACITY).is_ok() {
                        volumes[at] = grown;
                    }
                }
                Step::DeleteVolume(at) if at < volumes.len() => {
                    let gone = volumes.swap_remove(at);
                    drop(admission.take_down_volume(gone.id));
                }
                Step::Delete(_) | Step::GrowVolume(..) | Step::DeleteVolume(_) => {}
            }
            let account = admission.account(&CAPACITY);
            let shares = account.owners.iter().map(|(_, share)| share).chain([&account.host]);
            for share in shares {
                for resource in Resource::ALL {
                    prop_assert_eq!(share.exceeded_by(resource, 0), None, "{:?}", resource);
                }
            }
            let now = account.host.promised;
            prop_assert_eq!(now.vms, vms.len() as u64);
            prop_assert_eq!(now.running_vms, vms.iter().filter(|vm| vm.admitted.lease.is_some()).count() as u64);
            prop_assert_eq!(now.volumes, volumes.len() as u64);
            let disks = vms.iter().map(|vm| vm.vm.spec.disk_mib);
            let disks = disks.chain(volumes.iter().map(|volume| volume.size_mib));
            prop_assert_eq!(now.disk_mib, disks.sum::<u64>());
            let least: u64 = vms.iter().filter_map(|vm| vm.vm.shape).map(|shape| shape.memory_mib).sum();
            prop_assert!(now.memory_mib >= least);
        }
        drop(vms);
        for volume in volumes {
            drop(admission.take_down_volume(volume.id));
        }
        let end = admission.account(&CAPACITY);
        prop_assert_eq!(end.host.promised, Promised::default());
        prop_assert_eq!((end.queue.booting, end.queue.waiting), (0, 0));
    }
}
