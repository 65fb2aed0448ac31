//! What the reading commands print: tables, names, and JSON that keeps its shape.

use serde_json::{Value, json};

use super::fake::Fake;
use super::*;

fn json_of(fake: &Fake, arguments: &[&str]) -> Value {
    let read = output(fake, &[arguments, &["--output", "json"]].concat());
    assert_eq!(code(&read), 0, "{}", text(&read.stderr));
    serde_json::from_slice(&read.stdout).unwrap()
}

#[test]
fn a_vm_in_json_keeps_its_shape() {
    let fake = Fake::start();
    let arguments = [
        "vm", "create", "debian", "--name", "web", "-l", "team=web", "-m", "1G", "-q",
    ];
    assert_eq!(code(&output(&fake, &arguments)), 0);
    let expected = json!({
        "id": "00000000-0000-7000-8000-000000000001",
        "name": "web",
        "state": "running",
        "image": "debian",
        "image_id": "image-ofdebian",
        "kernel": "",
        "kernel_id": "kernel-1",
        "vcpu_count": 0,
        "memory_mib": 1024,
        "disk_mib": 0,
        "network": "unspecified",
        "volumes": [],
        "ephemeral": false,
        "keep_logs": false,
        "ttl_seconds": null,
        "idle_timeout_seconds": null,
        "restart_policy": "unspecified",
        "restart_count": 0,
        "init": "unspecified",
        "git_name": "",
        "git_email": "",
        "ssh_authorized_keys": [],
        "credentials": [],
        "owner": "",
        "pending_fields": [],
        "labels": { "team": "web" },
        "env": {},
        "failure": null,
        "boot_timing": [
            {
                "name": "disks", "item": "", "start_time": "2023-11-14T22:13:20Z",
                "end_time": "2023-11-14T22:13:21Z", "took_ms": 1000.0, "done_bytes": 0, "total_bytes": null
            },
            {
                "name": "guest-mount", "item": "", "start_time": "2023-11-14T22:13:21Z",
                "end_time": "2023-11-14T22:13:22Z", "took_ms": 1000.0, "done_bytes": 0, "total_bytes": null
            }
        ],
        "last_stop": null,
        "etag": fake.state.vms.lock().unwrap().values().next().unwrap().etag,
        "create_time": "2023-11-14T22:13:20Z",
        "start_time": "2023-11-14T22:13:22Z",
        "stop_time": null
    });
    assert_eq!(json_of(&fake, &["vm", "inspect", "web"]), expected);
    assert_eq!(
        json_of(&fake, &["vm", "list", "--label", "team=web"]),
        json!([expected])
    );
    assert_eq!(
        json_of(&fake, &["vms", "ls", "--label", "team=db"]),
        json!([])
    );
}

#[test]
fn lists_are_tables_names_or_json_over_all_pages() {
    let fake = Fake::start();
    for name in ["a", "b", "c"] {
        output(&fake, &["vm", "create", "debian", "--name", name, "-q"]);
    }
    assert_eq!(
        text(&output(&fake, &["vm", "list", "-q"]).stdout),
        "a\nb\nc\n"
    );
    let table = output(&fake, &["vm", "list"]);
    let lines: Vec<&str> = text(&table.stdout).lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(
        lines[0].starts_with("NAME   STATE     IMAGE"),
        "{}",
        lines[0]
    );
    assert!(
        lines[1].starts_with("a      running   debian"),
        "{}",
        lines[1]
    );
    assert_eq!(json_of(&fake, &["vm", "list"]).as_array().unwrap().len(), 3);
    assert!(output(&fake, &["image", "list", "-q"]).stdout.is_empty());
}

#[test]
fn verbs_print_the_vm_and_an_unknown_one_is_an_error_with_a_remedy() {
    let fake = with_vm();
    assert_eq!(text(&output(&fake, &["vm", "stop", "web"]).stdout), "web\n");
    assert_eq!(json_of(&fake, &["vm", "start", "web"])["state"], "running");
    assert_eq!(text(&output(&fake, &["vm", "kill", "web"]).stdout), "web\n");
    assert_eq!(text(&output(&fake, &["vm", "rm", "web"]).stdout), "web\n");
    let unknown = output(&fake, &["vm", "inspect", "web"]);
    assert_eq!(code(&unknown), 125);
    let expected = "error: no VM is called `web`\nremedy: List the VMs: banger vm list.\n";
    assert_eq!(text(&unknown.stderr), expected);
    let unknown = output(&fake, &["vm", "inspect", "web", "--output", "json"]);
    let error: Value = serde_json::from_slice(&unknown.stderr).unwrap();
    let expected = json!({
        "code": "NOT_FOUND",
        "reason": "VM_NOT_FOUND",
        "message": "no VM is called `web`",
        "remedy": "List the VMs: banger vm list.",
        "metadata": { "vm": "web" },
        "code_ran": "no"
    });
    assert_eq!(error, expected);
}

#[test]
fn images_are_pulled_imported_and_removed() {
    let fake = Fake::start();
    let pulled = output(&fake, &["image", "pull", "debian"]);
    assert_eq!((text(&pulled.stdout), code(&pulled)), ("debian\n", 0));
    assert!(
        text(&pulled.stderr).contains("upload"),
        "{}",
        text(&pulled.stderr)
    );
    assert!(
        output(&fake, &["image", "pull", "-q", "debian"])
            .stderr
            .is_empty()
    );
    let refused = output(&fake, &["image", "pull", "private"]);
    assert!(text(&refused.stderr).contains("remedy: Give --username"));
    let login = [
        "image",
        "pull",
        "--username",
        "me",
        "--password-stdin",
        "private",
    ];
    assert_eq!(code(&output_with_stdin(&fake, &login, b"secret\n")), 0);
    let imported = output_with_stdin(&fake, &["image", "import", "-", "app:1"], b"archive");
    assert_eq!(text(&imported.stdout), "app:1\n");
    assert_eq!(fake.state.uploads.lock().unwrap()["app:1"], b"archive");
    assert_eq!(
        json_of(&fake, &["image", "inspect", "app:1"])["layers"][0]["size_bytes"],
        1000
    );
    assert_eq!(code(&output(&fake, &["image", "remove", "app:1"])), 0);
    assert_eq!(code(&output(&fake, &["image", "inspect", "app:1"])), 125);
}

#[test]
fn kernels_are_imported_from_files_and_packages() {
    let fake = Fake::start();
    let package = [
        "kernel",
        "import",
        "--debian-package",
        "linux-image-cloud-amd64",
        "--default",
    ];
    assert_eq!(text(&output(&fake, &package).stdout), "6-1-0\n");
    let file = fake.dir().join("vmlinux");
    std::fs::write(&file, b"kernel").unwrap();
    let import = ["kernel", "import", file.to_str().unwrap(), "--name", "mine"];
    assert_eq!(text(&output(&fake, &import).stdout), "mine\n");
    assert_eq!(fake.state.uploads.lock().unwrap()["kernel"], b"kernel");
    let kernels = json_of(&fake, &["kernel", "list"]);
    assert_eq!(kernels[0]["is_default"], true);
    assert_eq!(kernels[0]["origin"], "linux-image-cloud-amd64");
    assert_eq!(
        json_of(&fake, &["kernel", "inspect", "mine"])["modules"],
        json!(["virtio_blk"])
    );
    assert_eq!(code(&output(&fake, &["kernel", "rm", "mine"])), 0);
    assert_eq!(code(&output(&fake, &["kernel", "import"])), 125);
}

#[test]
fn the_host_the_console_and_operations_are_shown() {
    let fake = with_vm();
    let info = json_of(&fake, &["host", "info"]);
    assert_eq!(
        (&info["driver"], &info["cpu_count"]),
        (&json!("fake"), &json!(2))
    );
    let table = output(&fake, &["host", "info"]);
    assert!(
        text(&table.stdout).contains("Warning:          no KVM here"),
        "{}",
        text(&table.stdout)
    );
    let console = output(&fake, &["vm", "console", "web"]);
    assert_eq!(
        text(&console.stdout),
        "Linux version 6.1\r\nagent ready\r\n"
    );
    let id = text(&output(&fake, &["operation", "list", "-q"]).stdout)
        .trim()
        .to_owned();
    assert_eq!(
        json_of(&fake, &["operation", "inspect", &id])["kind"],
        "create-vm"
    );
    let watched = output(&fake, &["operation", "watch", &id, "--output", "json"]);
    let last = text(&watched.stdout).lines().last().unwrap().to_owned();
    assert_eq!(
        serde_json::from_str::<Value>(&last).unwrap()["state"],
        "succeeded"
    );
    let watched = output(&fake, &["vm", "watch", "web", "--output", "json"]);
    assert_eq!(
        text(&watched.stdout).lines().last(),
        Some(r#"{"type":"deleted"}"#)
    );
}

#[test]
fn verbose_creation_ends_with_the_stages() {
    let fake = Fake::start();
    let created = output(&fake, &["vm", "create", "debian", "-v"]);
    assert_eq!(text(&created.stdout), "generated\n");
    let stages = text(&created.stderr);
    assert!(
        stages.contains("fetch 0123456789ab  1000.0 ms  976.56 KiB"),
        "{stages}"
    );
    assert!(stages.contains("guest-mount   1000.0 ms"), "{stages}");
}
