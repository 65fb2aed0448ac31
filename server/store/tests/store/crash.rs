use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use banger_core::VmId;
use banger_core::vm::VmState;
use banger_core::vmm::ProcessIdentity;
use banger_store::Store;

use crate::support::{file_in, operation, raw, vm};

/// Names the database to the child.
const CHILD: &str = "BANGER_STORE_CRASH_FILE";

#[tokio::test]
#[ignore = "the child of a_killed_writer_loses_nothing_that_it_acknowledged"]
async fn child_that_writes_until_it_is_killed() {
    let Some(file) = std::env::var_os(CHILD) else {
        return;
    };
    let store = Store::open(Path::new(&file)).await.unwrap();
    loop {
        let id = VmId::new();
        let mut vm = vm(&format!("vm-{}", id.to_string().replace('-', "x")));
        vm.id = id;
        store.insert_vm(&vm).await.unwrap();
        let identity = ProcessIdentity {
            pid: 1,
            start_ticks: 1,
            executable: "/x".into(),
            host_boot_id: String::new(),
        };
        store.put_process(id, &identity).await.unwrap();
        vm.generation = 2;
        vm.state = VmState::Running;
        store.update_vm(&vm).await.unwrap();
        store.insert_operation(&operation(), None).await.unwrap();
        writeln!(std::io::stdout(), "vm {id}").unwrap();
    }
}

/// Runs the child until it has acknowledged `count` VMs, kills it, and returns all that it acknowledged.
fn killed_after(file: &Path, count: usize) -> Vec<VmId> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "crash::child_that_writes_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD, file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    for line in lines.by_ref().map_while(Result::ok) {
        if let Some((_, id)) = line.split_once("vm ") {
            acknowledged.push(id.parse().unwrap());
        }
        if acknowledged.len() == count {
            child.kill().unwrap();
            break;
        }
    }
    // What it wrote before the signal reached it; the last line may be cut.
    let rest = lines.map_while(Result::ok);
    acknowledged.extend(rest.filter_map(|line| line.strip_prefix("vm ")?.parse::<VmId>().ok()));
    child.wait().unwrap();
    acknowledged
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let mut acknowledged = Vec::new();
    for count in [1, 7, 40, 111] {
        let more = killed_after(&file, count);
        assert!(more.len() >= count, "the child ended early");
        acknowledged.extend(more);
        let store = Store::open(&file).await.unwrap();
        for id in &acknowledged {
            let vm = store.get_vm(*id).await.unwrap().expect("acknowledged");
            assert_eq!(vm.state, VmState::Running);
            assert!(store.get_process(*id).await.unwrap().is_some());
        }
        store.close().await;
        let mut connection = raw(&file).await;
        let report: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check")
            .fetch_all(&mut connection)
            .await
            .unwrap();
        assert_eq!(report, ["ok"]);
        let orphans = sqlx::query("PRAGMA foreign_key_check")
            .fetch_all(&mut connection)
            .await
            .unwrap();
        assert!(orphans.is_empty());
    }
}
