//! On a bus of their own, with a manager that only says what it was asked.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use zbus::object_server::SignalEmitter;
use zbus::{OwnedVariant, connection, interface};

use super::*;

/// A bus that ends with its test; `None` where there is no program for one.
struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    fn start(rule: &str) -> Option<Self> {
        let daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address=1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut daemon) = daemon else {
            crate::skipped(rule, "dbus-daemon is not installed");
            return None;
        };
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        let address = address.trim().to_owned();
        Some(Self { daemon, address })
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// A unit as it was asked for: its name, the mode, its properties.
type Asked = (String, String, HashMap<String, OwnedVariant>);

#[derive(Clone)]
struct FakeManager {
    asked: Arc<Mutex<Vec<Asked>>>,
    /// How its jobs end; no job ends where there is no word.
    result: &'static str,
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeManager {
    fn subscribe(&self) {}

    async fn start_transient_unit(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        name: String,
        mode: String,
        properties: Vec<(String, OwnedVariant)>,
        _aux: Vec<(String, Vec<(String, OwnedVariant)>)>,
    ) -> zbus::fdo::Result<OwnedObjectPath> {
        let job = |id: u32| ObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{id}"));
        let asked = (name.clone(), mode, properties.into_iter().collect());
        self.asked.lock().unwrap().push(asked);
        if !self.result.is_empty() {
            // Others' jobs end, too; and the end may come before the answer.
            let (other, ours) = (job(1).unwrap(), job(2).unwrap());
            Self::job_removed(&emitter, 1, other, "other.service", "failed").await?;
            Self::job_removed(&emitter, 2, ours, &name, self.result).await?;
        }
        Ok(job(2).unwrap().into())
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

const LIMITS: ProcessLimits = ProcessLimits {
    memory_mib: 768,
    thread_count: 98,
    cpu_weight: 200,
};

/// What a manager whose jobs end as `result` is asked for, and whether there was a scope.
async fn taken(rule: &str, result: &'static str) -> Option<(VmId, bool, Vec<Asked>)> {
    let bus = Bus::start(rule)?;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let manager = FakeManager {
        asked: asked.clone(),
        result,
    };
    let _served = connection::Builder::address(bus.address.as_str())
        .name("org.freedesktop.systemd1")
        .serve_at("/org/freedesktop/systemd1", manager)
        .build()
        .await
        .unwrap();
    let scopes = Scopes::new(ScopeChoice::Bus(bus.address.clone()));
    let vm = VmId::new();
    let is_taken = scopes.take(vm, 4321, Some(&LIMITS)).await;
    let asked = asked.lock().unwrap().drain(..).collect();
    Some((vm, is_taken, asked))
}

#[tokio::test]
async fn a_vmm_gets_a_scope_with_its_ceilings() {
    let Some((vm, is_taken, asked)) = taken("a_vmm_gets_a_scope_with_its_ceilings", "done").await
    else {
        return;
    };
    assert!(is_taken);
    let [(name, mode, properties)] = &asked[..] else {
        panic!("{asked:?}");
    };
    assert_eq!(*name, format!("banger-vm-{vm}-4321.scope"));
    assert_eq!(mode, "fail");
    let number = |name: &str| u64::try_from(&*properties[name]).unwrap();
    assert_eq!(number("MemoryMax"), 768 << 20);
    assert_eq!((number("TasksMax"), number("CPUWeight")), (98, 200));
    let text = |name: &str| <&str>::try_from(&*properties[name]).unwrap().to_owned();
    assert_eq!(text("Slice"), "banger.slice");
    assert_eq!(text("CollectMode"), "inactive-or-failed");
    assert_eq!(
        properties["PIDs"].to_string(),
        Variant::from(vec![4321_u32]).to_string()
    );
    assert_eq!(properties.len(), 7);
}

#[tokio::test]
async fn a_job_that_fails_is_told_and_leaves_the_vmm_where_it_is() {
    let rule = "a_job_that_fails_is_told_and_leaves_the_vmm_where_it_is";
    if let Some((_, is_taken, asked)) = taken(rule, "failed").await {
        assert!(!is_taken);
        assert_eq!(asked.len(), 1);
    }
}

#[tokio::test]
async fn without_a_manager_or_a_bus_there_is_no_scope() {
    let rule = "without_a_manager_or_a_bus_there_is_no_scope";
    let take = async |choice| {
        let scopes = Scopes::new(choice);
        scopes.take(VmId::new(), 1, None).await
    };
    assert!(!take(ScopeChoice::Off).await);
    let nowhere = "unix:path=/nonexistent/bus".to_owned();
    assert!(!take(ScopeChoice::Bus(nowhere)).await);
    if let Some(bus) = Bus::start(rule) {
        assert!(!take(ScopeChoice::Bus(bus.address.clone())).await);
    }
}
