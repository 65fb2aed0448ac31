//! The API from outside: grpcurl with reflection, the SDK's example, completion.

use std::path::PathBuf;
use std::time::Duration;

use banger_e2e::{Case, Done, Lane, Run, Verdict};

use crate::suite::{LONG, Suite, VM};

/// The grpcurl that is built where Go is.
const GRPCURL: &str = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3";
/// Building it from source, on a busy machine.
const GRPCURL_BUILD: Duration = Duration::from_secs(400);

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "grpcurl_finds_and_calls_everything_by_reflection",
            lane: Lane::Shared,
            test: grpcurl,
        },
        Case {
            name: "the_sdks_example_runs_a_command_in_a_vm_of_its_own",
            lane: Lane::Shared,
            test: example,
        },
        Case {
            name: "completion_scripts_are_valid",
            lane: Lane::Shared,
            test: completion,
        },
        Case {
            name: "every_reader_prints_json",
            lane: Lane::Shared,
            test: json,
        },
    ]
}

/// grpcurl: the host's, else built once with the host's Go.
fn find_grpcurl(suite: &Suite) -> Result<PathBuf, String> {
    if let Ok(path) = std::env::var("PATH") {
        let found = std::env::split_paths(&path)
            .map(|dir| dir.join("grpcurl"))
            .find(|path| path.is_file());
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let bin = suite.cache.join("bin");
    let program = bin.join("grpcurl");
    if program.is_file() {
        return Ok(program);
    }
    let is_there = std::process::Command::new("go")
        .arg("version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !is_there {
        return Err("neither grpcurl nor Go is installed".into());
    }
    let done = Run::new("go")
        .args(["install", GRPCURL])
        .env("GOBIN", &bin)
        .timeout(GRPCURL_BUILD)
        .done();
    if done.status.success() {
        Ok(program)
    } else {
        Err(format!("grpcurl could not be built: {}", done.err()))
    }
}

fn grpcurl(suite: &Suite) -> Verdict {
    let program = match find_grpcurl(suite) {
        Ok(program) => program,
        Err(why) => return Verdict::Skipped(why),
    };
    suite.vm();
    let socket = suite.daemon().host();
    let call = |words: &[&str], data: &str| -> Done {
        let run = Run::new(&program).args(["-plaintext"]).timeout(LONG);
        let run = if data.is_empty() {
            run
        } else {
            run.args(["-d", data])
        };
        run.arg(&socket).args(words).done()
    };
    let listed = call(&["list"], "").out();
    for service in [
        "ImageService",
        "KernelService",
        "VmService",
        "SessionService",
        "TunnelService",
        "OperationService",
        "HostService",
    ] {
        assert!(listed.contains(&format!("banger.v1.{service}")), "{listed}");
    }
    assert!(
        listed.contains("grpc.health.v1.Health") && !listed.contains("banger.guest"),
        "{listed}"
    );
    assert!(
        call(&["describe", "banger.v1.VmService"], "")
            .out()
            .contains("rpc CreateVm")
    );
    assert!(
        call(&["grpc.health.v1.Health/Check"], "{}")
            .out()
            .contains("SERVING")
    );
    let info = call(&["banger.v1.HostService/GetInfo"], "{}").json();
    assert!(info["info"]["driver"].is_string(), "{info}");
    let exec = format!(
        r#"{{"start":{{"vm":"{VM}","spec":{{"command":["sh","-c","echo by grpcurl; exit 4"]}}}}}}"#
    );
    let done = call(&["banger.v1.SessionService/Exec"], &exec);
    // base64 of "by grpcurl\n"
    assert!(
        done.out().contains("YnkgZ3JwY3VybAo=") && done.out().contains("\"code\": 4"),
        "{}",
        done.said()
    );
    let refused = call(&["banger.v1.VmService/GetVm"], r#"{"vm":"nobody"}"#);
    assert!(
        refused.err().contains("Code: NotFound") && refused.err().contains("google.rpc.ErrorInfo"),
        "{}",
        refused.said()
    );
    Verdict::Passed
}

fn example(suite: &Suite) -> Verdict {
    let program = std::env::current_exe()
        .unwrap()
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/run");
    if !program.is_file() {
        return Verdict::Skipped("the example is built by `cargo test --workspace` only".into());
    }
    let reference = suite.reference();
    let run = Run::new(program)
        .env("BANGER_HOST", suite.daemon().host())
        .timeout(LONG);
    let done = run
        .args([&reference, "sh", "-c", "echo hello from the sdk; exit 6"])
        .done();
    assert_eq!(
        (done.code(), done.out()),
        (6, "hello from the sdk".into()),
        "{}",
        done.said()
    );
    Verdict::Passed
}

fn completion(suite: &Suite) -> Verdict {
    let mut unchecked = Vec::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = suite.banger(["completion", shell]).ok().stdout;
        assert!(!script.is_empty());
        let is_there = std::process::Command::new(shell)
            .args(["-c", ":"])
            .output()
            .is_ok();
        if is_there {
            Run::new(shell)
                .arg("-n")
                .arg("/dev/stdin")
                .stdin(script)
                .ok();
        } else {
            unchecked.push(shell);
        }
    }
    if !unchecked.is_empty() {
        println!(
            "  not checked for want of the shell: {}",
            unchecked.join(", ")
        );
    }
    Verdict::Passed
}

fn json(suite: &Suite) -> Verdict {
    suite.vm();
    let reference = suite.reference();
    let readers: [&[&str]; 9] = [
        &["image", "list"],
        &["image", "inspect", &reference],
        &["kernel", "list"],
        &["vm", "list"],
        &["vm", "inspect", VM],
        &["session", "list", VM],
        &["operation", "list"],
        &["host", "info"],
        &["vm", "list", "--label", "no=such"],
    ];
    for words in readers {
        let value = suite
            .banger(words.iter().copied())
            .args(["--output", "json"])
            .ok()
            .json();
        assert!(value.is_array() || value.is_object(), "{words:?}: {value}");
        suite.banger(words.iter().copied()).ok();
    }
    Verdict::Passed
}
