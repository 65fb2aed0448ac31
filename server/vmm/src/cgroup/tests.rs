use super::place::Surroundings;
use super::*;

/// The pid of no process.
const NOBODY: u32 = u32::MAX;
const LIMITS: ProcessLimits = ProcessLimits {
    memory_mib: 768,
    thread_count: 130,
    cpu_weight: 200,
};

/// A laid-out hierarchy. What the kernel does by itself is done here: files appear with a directory.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(controllers: &str) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.appear(tree.root(), controllers);
        tree
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn appear(&self, dir: &Path, controllers: &str) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("cgroup.controllers"), controllers).unwrap();
        // As if what is offered had been handed on already: a plain file does not understand `+memory`.
        fs::write(dir.join("cgroup.subtree_control"), controllers).unwrap();
        fs::write(dir.join("cgroup.procs"), "").unwrap();
        for file in ["memory.max", "memory.events", "pids.max", "cpu.weight"] {
            let (controller, _) = file.split_once('.').unwrap();
            if controllers.contains(controller) {
                fs::write(dir.join(file), "").unwrap();
            }
        }
    }

    fn mounts(&self) -> String {
        format!(
            "24 1 8:1 / / rw - ext4 /dev/a rw\n25 24 0:22 / {} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
            self.root().display()
        )
    }

    fn place(&self, own: &str, is_root: bool) -> Option<place::Place> {
        let mounts = self.mounts();
        let surroundings = Surroundings {
            mounts: &mounts,
            own,
            is_root,
        };
        surroundings.place(Path::new("/nonexistent/state"))
    }

    fn cgroups(&self) -> Cgroups {
        Cgroups {
            place: self.place("4:memory:/x\n0::/\n", true),
            told: Mutex::default(),
        }
    }

    fn ours(&self) -> PathBuf {
        self.cgroups().place.unwrap().ours().to_owned()
    }
}

#[test]
fn ceilings_are_set_in_a_cgroup_of_the_vms_own() {
    let tree = Tree::new("cpuset cpu memory pids");
    let vm = VmId::new();
    let dir = tree.ours().join(vm.to_string());
    tree.appear(&tree.ours(), "cpu memory pids");
    tree.appear(&dir, "cpu memory pids");
    let cgroup = tree.cgroups().make(vm, &LIMITS).unwrap();
    let said = ["memory.max", "pids.max", "cpu.weight"].map(|file| read(&dir, file).unwrap());
    assert_eq!(said, [(768 << 20).to_string(), "130".into(), "200".into()]);
    assert!(cgroup.limits_memory());
    assert_eq!(tree.cgroups().of(vm, NOBODY).unwrap().memory_mib, Some(768));
}

#[test]
fn a_controller_that_is_not_given_is_left_out() {
    let tree = Tree::new("pids");
    let vm = VmId::new();
    let dir = tree.ours().join(vm.to_string());
    tree.appear(&tree.ours(), "pids");
    tree.appear(&dir, "pids");
    let cgroups = tree.cgroups();
    let cgroup = cgroups.make(vm, &LIMITS).unwrap();
    assert!(!cgroup.limits_memory());
    assert_eq!(read(&dir, "pids.max").unwrap(), "130");
    assert!(!dir.join("memory.max").exists(), "no file is made");
    let told = cgroups.told.lock().unwrap();
    assert_eq!(told.iter().copied().collect::<Vec<_>>(), ["cpu", "memory"]);
}

#[test]
fn a_kill_at_the_ceiling_is_told_with_the_ceiling() {
    let tree = Tree::new("memory");
    let vm = VmId::new();
    let dir = tree.ours().join(vm.to_string());
    tree.appear(&tree.ours(), "memory");
    tree.appear(&dir, "memory");
    let cgroup = tree.cgroups().make(vm, &LIMITS).unwrap();
    let events =
        |kills| format!("low 0\nhigh 0\nmax 12\noom 1\noom_kill {kills}\noom_group_kill 0\n");
    fs::write(dir.join("memory.events"), events(0)).unwrap();
    assert_eq!(cgroup.killed_at_mib(), None);
    fs::write(dir.join("memory.events"), events(1)).unwrap();
    assert_eq!(cgroup.killed_at_mib(), Some(768));
}

#[test]
fn a_user_without_a_cgroup_of_its_own_gets_none() {
    let tree = Tree::new("memory pids");
    assert!(
        tree.place("0::/user.slice/session-1.scope\n", false)
            .is_none()
    );
    assert!(tree.place("4:memory:/\n", true).is_none(), "no cgroup v2");
}

#[test]
fn what_a_user_may_write_was_given_to_it() {
    let tree = Tree::new("memory pids");
    for (unit, own) in [
        ("user.slice/run-1.scope", "user.slice/run-1.scope"),
        (
            "user.slice/bangerd.service",
            "user.slice/bangerd.service/banger-daemon",
        ),
    ] {
        tree.appear(&tree.root().join(unit), "memory pids");
        let place = tree.place(&format!("0::/{own}\n"), false).unwrap();
        let parent = tree.root().join(unit);
        assert_eq!(place.ours().parent(), Some(parent.as_path()), "{own}");
    }
}

#[test]
fn a_service_whose_cgroup_the_daemon_itself_is_in_is_left_as_it_is() {
    let tree = Tree::new("memory pids");
    let unit = "user.slice/bangerd.service";
    tree.appear(&tree.root().join(unit), "memory pids");
    assert!(tree.place(&format!("0::/{unit}\n"), false).is_none());
}

#[test]
fn root_that_was_given_nothing_uses_the_root_of_the_hierarchy() {
    let tree = Tree::new("memory pids");
    let unit = tree.root().join("system.slice/bangerd.service");
    tree.appear(&unit, "memory pids");
    let place = tree
        .place("0::/system.slice/bangerd.service\n", true)
        .unwrap();
    assert_eq!(place.ours().parent(), Some(tree.root()));
}

#[test]
fn two_state_directories_never_share_a_cgroup() {
    let tree = Tree::new("memory");
    let mounts = tree.mounts();
    let of = |state: &str| {
        let surroundings = Surroundings {
            mounts: &mounts,
            own: "0::/\n",
            is_root: true,
        };
        surroundings
            .place(Path::new(state))
            .unwrap()
            .ours()
            .to_owned()
    };
    assert_ne!(of("/nonexistent/a"), of("/nonexistent/b"));
}

/// On the hierarchy of this machine, whatever controllers it has.
#[test]
fn a_process_joins_leaves_by_its_end_and_nothing_is_left() {
    let state = tempfile::tempdir().unwrap();
    let cgroups = Cgroups::find(state.path(), CgroupChoice::Auto);
    let Some(place) = &cgroups.place else {
        eprintln!("skipped: this host gives us no cgroup v2");
        return;
    };
    let ours = place.ours().to_owned();
    let (vm, other) = (VmId::new(), VmId::new());
    let cgroup = cgroups.make(vm, &LIMITS).unwrap();
    cgroups.make(other, &LIMITS).unwrap();
    let mut command = std::process::Command::new("sleep");
    command.arg("60").stdin(std::process::Stdio::piped());
    let door = Some(cgroup.door().unwrap());
    let limits = vec![(rustix::process::Resource::Core, 0)];
    crate::sys::confine(&mut command, crate::sys::Confinement { door, limits });
    let mut child = command.spawn().unwrap();
    let joined = read(&ours.join(vm.to_string()), "cgroup.procs").unwrap();
    assert_eq!(joined, child.id().to_string());
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // One is in use, the other is a leftover.
    assert_eq!(cgroups.sweep(), 1);
    assert!(cgroups.of(vm, NOBODY).is_some() && cgroups.of(other, NOBODY).is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    cgroup.remove();
    assert!(!ours.exists(), "{}", ours.display());
}
