//! A real systemd: a user's instance in a mount namespace and cgroups of its own, which needs no systemd as process 1.
//! It has the units of its bus and nothing else.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;

/// Where Debian and Fedora have it.
const PROGRAM: &str = "/usr/lib/systemd/systemd";
/// How long it may take for anything here; by itself it takes some tens of milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where cgroups may be: of systemd's own hierarchy and the unified one, or of the only one.
const MOUNTS: [&str; 3] = [
    "/sys/fs/cgroup/systemd",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup",
];
/// systemd wants to be told that the system runs by it; what it makes in `/run` is seen by nobody else.
const START: &str = "\
    mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && \
    exec /usr/lib/systemd/systemd --user --unit=default.target";
const UNITS: [(&str, &str); 4] = [
    (
        "default.target",
        "[Unit]\nDefaultDependencies=no\nWants=dbus.socket dbus.service\n",
    ),
    ("shutdown.target", "[Unit]\nDefaultDependencies=no\n"),
    (
        "dbus.socket",
        "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=%t/bus\n",
    ),
    (
        "dbus.service",
        "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\n\
         ExecStart=dbus-daemon --session --address=systemd: --nofork --nopidfile --systemd-activation\n",
    ),
];

/// Ends with its test, and all that runs in its cgroups.
struct Systemd {
    dir: tempfile::TempDir,
    child: Child,
    cgroups: Vec<PathBuf>,
}

impl Systemd {
    /// `Err` says why there is none here.
    fn start() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can give systemd cgroups of its own".into());
        }
        if !Path::new(PROGRAM).exists() {
            return Err("systemd is not installed".into());
        }
        let dir = tempfile::tempdir().unwrap();
        let units = dir.path().join("units");
        fs::create_dir(&units).unwrap();
        for (name, text) in UNITS {
            fs::write(units.join(name), text).unwrap();
        }
        let name = format!("banger-test-{}", VmId::new());
        let mounts = MOUNTS.iter().map(Path::new);
        let cgroups: Vec<PathBuf> = mounts
            .filter(|mount| mount.join("cgroup.procs").exists())
            .map(|mount| mount.join(&name))
            .collect();
        let made = cgroups.iter().try_for_each(fs::create_dir);
        let child = made.map_err(|error| format!("no cgroup can be made: {error}"));
        let child = child.and_then(|()| {
            Command::new("unshare")
                .args(["--mount", "sh", "-c"])
                .arg(format!("{}{START}", enter(&cgroups)))
                .env("XDG_RUNTIME_DIR", dir.path())
                .env("HOME", dir.path())
                .env("SYSTEMD_UNIT_PATH", &units)
                .env(
                    "DBUS_SESSION_BUS_ADDRESS",
                    format!("unix:path={}/bus", dir.path().display()),
                )
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|error| format!("unshare cannot be run: {error}"))
        });
        match child {
            Ok(child) => Ok(Self {
                dir,
                child,
                cgroups,
            }),
            Err(why) => {
                for cgroup in cgroups {
                    let _ = fs::remove_dir(cgroup);
                }
                Err(why)
            }
        }
    }

    fn address(&self) -> String {
        format!("unix:path={}/bus", self.dir.path().display())
    }

    /// A connection to it, once it is there; `None` where it has ended before.
    async fn connected(&mut self) -> Option<Connection> {
        while self.child.try_wait().unwrap().is_none() {
            let address = self.address();
            let connected = async {
                let connection = connection::Builder::address(address.as_str())
                    .build()
                    .await?;
                let units = UnitsProxy::new(&connection).await?;
                units.get_unit("default.target").await?;
                zbus::Result::Ok(connection)
            };
            if let Ok(connection) = connected.await {
                return Some(connection);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// A process among its own, that does nothing.
    fn idler(&self) -> Child {
        let script = format!("{}exec sleep 600", enter(&self.cgroups));
        Command::new("sh").args(["-c", &script]).spawn().unwrap()
    }

    fn processes(&self) -> Vec<i32> {
        let mut ahead = self.cgroups.clone();
        let mut found = Vec::new();
        while let Some(cgroup) = ahead.pop() {
            let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            found.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()));
            let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
            let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            ahead.extend(below.map(|entry| entry.path()));
        }
        found
    }
}

/// Words for a shell to enter cgroups.
fn enter(cgroups: &[PathBuf]) -> String {
    let enter = |cgroup: &PathBuf| format!("echo $$ > {}/cgroup.procs && ", cgroup.display());
    cgroups.iter().map(enter).collect()
}

/// The deepest first: a cgroup with others in it cannot be removed.
fn remove(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let begin = std::time::Instant::now();
        while begin.elapsed() < PATIENCE {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for pid in left.into_iter().filter_map(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.cgroups.iter().for_each(|cgroup| remove(cgroup));
    }
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Units {
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Scope",
    default_service = "org.freedesktop.systemd1"
)]
trait Scope {
    #[zbus(property)]
    fn slice(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn memory_max(&self) -> zbus::Result<u64>;
    #[zbus(property)]
    fn tasks_max(&self) -> zbus::Result<u64>;
    #[zbus(property, name = "CPUWeight")]
    fn cpu_weight(&self) -> zbus::Result<u64>;
}

#[tokio::test]
async fn a_real_systemd_makes_the_scope_that_is_asked_for_and_lets_it_go_with_the_vmm() {
    let rule = "a_real_systemd_makes_the_scope_that_is_asked_for_and_lets_it_go_with_the_vmm";
    let mut systemd = match Systemd::start() {
        Ok(systemd) => systemd,
        Err(why) => return crate::skipped(rule, &why),
    };
    let connected = tokio::time::timeout(PATIENCE, systemd.connected()).await;
    let Some(connection) = connected.expect("systemd comes up") else {
        return crate::skipped(rule, "systemd does not run in a namespace here");
    };
    let mut vmm = systemd.idler();
    let until_there = async {
        while !systemd
            .processes()
            .contains(&i32::try_from(vmm.id()).unwrap())
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_there).await.unwrap();
    let scopes = Scopes::new(ScopeChoice::Bus(systemd.address()));
    let vm = VmId::new();
    assert!(scopes.take(vm, vmm.id(), Some(&LIMITS)).await);

    let name = unit_name(vm, vmm.id());
    let place = fs::read_to_string(format!("/proc/{}/cgroup", vmm.id())).unwrap();
    let ours = format!("/banger.slice/{name}");
    assert!(place.lines().any(|line| line.ends_with(&ours)), "{place}");
    let units = UnitsProxy::new(&connection).await.unwrap();
    let path = units.get_unit(&name).await.unwrap();
    let scope = ScopeProxy::builder(&connection).path(path).unwrap();
    let scope = scope.build().await.unwrap();
    assert_eq!(scope.slice().await.unwrap(), SLICE);
    assert_eq!(scope.memory_max().await.unwrap(), LIMITS.memory_mib << 20);
    assert_eq!(
        (
            scope.tasks_max().await.unwrap(),
            scope.cpu_weight().await.unwrap()
        ),
        (LIMITS.thread_count.into(), LIMITS.cpu_weight.into())
    );

    vmm.kill().unwrap();
    vmm.wait().unwrap();
    let until_gone = async {
        while units.get_unit(&name).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let gone = tokio::time::timeout(PATIENCE, until_gone).await;
    assert!(gone.is_ok(), "the scope outlives its VMM");
}
