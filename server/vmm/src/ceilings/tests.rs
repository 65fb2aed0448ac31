use std::path::Path;

use banger_core::VmId;
use banger_core::vmm::{NetworkPlan, ProcessLimits};

use super::*;
use crate::cgroup::CgroupChoice;

const LIMITS: ProcessLimits = ProcessLimits {
    memory_mib: 768,
    thread_count: 98,
    cpu_weight: 200,
};

fn plan(dir: &Path) -> LaunchPlan {
    LaunchPlan {
        vm: VmId::new(),
        dir: dir.to_owned(),
        kernel: "k".into(),
        initramfs: "i".into(),
        kernel_args: Vec::new(),
        vcpu_count: 2,
        memory_mib: 512,
        drives: Vec::new(),
        network: NetworkPlan::None,
        limits: Some(LIMITS),
    }
}

/// What a child says of its own limit: soft and hard.
fn limit_of(user: User, row: &str) -> Option<(String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let cgroups = Cgroups::find(dir.path(), CgroupChoice::Off);
    let plan = plan(dir.path());
    let ceilings = Ceilings::of(&cgroups, &plan, user);
    let mut command = Command::new("cat");
    command
        .arg("/proc/self/limits")
        .stdout(std::process::Stdio::piped());
    let child = ceilings.spawn(&mut command, &plan).unwrap();
    let said = child.wait_with_output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    let row = said.lines().find_map(|line| line.strip_prefix(row))?;
    let mut words = row.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.to_owned()))
}

#[test]
fn without_a_cgroup_the_limits_of_the_process_hold() {
    let both = |number: u64| Some((number.to_string(), number.to_string()));
    let memory = (768 + 98 * STACK_MIB) << 20;
    for user in [User::Shared, User::Own] {
        assert_eq!(limit_of(user, "Max data size"), both(memory));
        assert_eq!(limit_of(user, "Max core file size"), both(0));
    }
    assert_eq!(limit_of(User::Own, "Max processes"), both(98));
    // It would count the daemon and every other VM.
    assert_ne!(limit_of(User::Shared, "Max processes"), both(98));
}
