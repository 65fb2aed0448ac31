//! docs/grpcurl.md as it stands: every block of it, by the real grpcurl, over the socket and by TCP, by reflection alone
//! and by the proto files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_e2e::binaries::workspace;
use banger_e2e::web::WebServer;
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Pki, Verdict};
use serde_json::Value;

use crate::suite::{LONG, Suite};

/// One run of the page, on a busy machine.
const PAGE: Duration = Duration::from_secs(480);
/// Blocks that say how to reach the daemon, in the page's order: the socket, TCP, the proto files.
const WAYS: usize = 3;
/// The request id of the page, which each run has its own of.
const REQUEST_ID: &str = "0b2c5a5e-95f2-4a4b-9b0e-2f3d5f7f8a10";
/// What only reflection knows.
const REFLECTION_ONLY: &str = "grpc.health.v1";

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![Case {
        name: "grpcurl_does_all_that_its_page_shows_over_socket_and_tcp_by_reflection_and_protos",
        lane: Lane::Own,
        test: page,
    }]
}

/// grpcurl: the host's, or the one that `make setup` built.
fn find_grpcurl(suite: &Suite) -> Result<PathBuf, String> {
    let searched = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&searched)
        .chain([suite.cache.join("bin")])
        .map(|dir| dir.join("grpcurl"))
        .find(|path| path.is_file())
        .ok_or_else(|| "grpcurl is not installed, and `make setup` had no Go to build it".into())
}

/// A block of the page that is run, and the lines that its answer must have, in this order.
#[derive(Debug, Clone)]
struct Block {
    script: String,
    answer: Vec<String>,
}

/// The blocks of the page: those that are `sh`, each with the `json` that follows it.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            continue;
        };
        let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match language {
            "sh" => blocks.push(Block {
                script: inside.join("\n"),
                answer: Vec::new(),
            }),
            "json" => {
                let block = blocks.last_mut().expect("an answer follows a block");
                block.answer = inside.iter().map(|line| line.trim().to_owned()).collect();
            }
            other => panic!("`{other}` is no language of this page"),
        }
    }
    blocks
}

fn page(suite: &Suite) -> Verdict {
    let program = match find_grpcurl(suite) {
        Ok(program) => program,
        Err(why) => return Verdict::Skipped(why),
    };
    let text = fs::read_to_string(workspace().join("docs/grpcurl.md")).unwrap();
    every_service_is_called(&text);
    let blocks = blocks(&text);
    let pki = Pki::make(&suite.scratch, &suite.binaries, "own/grpcurl-pki");
    let ci = pki.client("ci", "admin");
    let options = DaemonOptions {
        config: pki.config(),
        ..DaemonOptions::default()
    };
    let daemon = suite.own_daemon("own/grpcurl", options);
    let (catalog, key) = catalog(suite, &daemon);
    let stand = [
        ("unix:///run/banger/bangerd.sock", daemon.host()),
        ("sandbox.example.com:7443", daemon.tcp_address()),
        ("ci/", format!("{}/", ci.display())),
        ("debian:bookworm", suite.reference()),
        (
            "/boot/vmlinuz",
            suite.kernel().bzimage.display().to_string(),
        ),
        ("https://catalog.example.com/", catalog.url.clone()),
        ("PUBLIC-KEY", key),
    ];
    let (ways, calls) = blocks.split_at(WAYS);
    let [socket, tcp, protos] = ways else {
        panic!("the page begins with the ways to the daemon");
    };
    for (number, (way, has_protos)) in [(socket, false), (tcp, true), (socket, true), (tcp, false)]
        .into_iter()
        .enumerate()
    {
        let reach = [Some(way), has_protos.then_some(protos)];
        let wanted = calls
            .iter()
            .filter(|block| !(has_protos && block.script.contains(REFLECTION_ONLY)));
        let blocks: Vec<Block> = reach
            .into_iter()
            .flatten()
            .chain(wanted)
            .map(|block| on(&stand, block, number))
            .collect();
        let place = suite.scratch.dir(&format!("own/grpcurl-page-{number}"));
        run(suite, &program, &place, &blocks);
        assert_eq!(daemon.vms(), Vec::<String>::new(), "VMs that the page left");
    }
    daemon.clear();
    Verdict::Passed
}

/// Whoever adds a service shows how it is called.
fn every_service_is_called(page: &str) {
    let protos = fs::read_dir(workspace().join("proto/banger/v1")).unwrap();
    for proto in protos {
        let text = fs::read_to_string(proto.unwrap().path()).unwrap();
        let services = text
            .lines()
            .filter_map(|line| line.strip_prefix("service "));
        for service in services {
            let name = service.trim_end_matches(" {");
            assert!(
                page.contains(&format!("banger.v1.{name}/")),
                "docs/grpcurl.md calls nothing of {name}"
            );
        }
    }
}

/// A catalog of the daemon's own kernel, served, and the key that signed it.
fn catalog(suite: &Suite, daemon: &Daemon) -> (WebServer, String) {
    let home = suite.scratch.dir("own/grpcurl-catalog");
    let (directory, key) = (home.join("catalog"), home.join("key"));
    let kernels = daemon.banger(["kernel", "list", "--output", "json"]);
    let kernels: Value = kernels.ok().json();
    let kernel = kernels[0]["name"].as_str().unwrap();
    let words = ["catalog", "build", directory.to_str().unwrap(), "--name"];
    let built = daemon
        .banger(words)
        .args(["e2e", "--kernel", kernel, "--output", "json", "--key"])
        .arg(&key)
        .timeout(LONG)
        .ok()
        .json();
    let server = WebServer::serve(&suite.scratch, &directory);
    (server, built["public_key"].as_str().unwrap().to_owned())
}

/// A block with the names that things have here.
fn on(stand: &[(&str, String)], block: &Block, number: usize) -> Block {
    let mut script = block.script.clone();
    for (shown, real) in stand {
        script = script.replace(shown, real);
    }
    let own = format!("{}{number}", &REQUEST_ID[..REQUEST_ID.len() - 1]);
    Block {
        script: script.replace(REQUEST_ID, &own),
        answer: block.answer.clone(),
    }
}

/// Runs the blocks in one shell, each with an output of its own, and looks for the answers.
fn run(suite: &Suite, program: &Path, place: &Path, blocks: &[Block]) {
    symlink(workspace().join("proto"), place.join("proto")).unwrap();
    let mut script = "set -eu\n".to_owned();
    for (number, block) in blocks.iter().enumerate() {
        script.push_str(&format!("exec >{number}.out 2>{number}.err\n"));
        script.push_str(&block.script);
        script.push('\n');
    }
    let file = place.join("page.sh");
    fs::write(&file, script).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let bin = program.parent().unwrap().display();
    let done = suite
        .scratch
        .run("bash")
        .arg(&file)
        .env("PATH", format!("{bin}:{path}"))
        .in_dir(place)
        .timeout(PAGE)
        .done();
    for (number, block) in blocks.iter().enumerate() {
        let read = |ending: &str| fs::read(place.join(format!("{number}.{ending}")));
        let Ok(out) = read("out") else { break };
        let out = String::from_utf8_lossy(&out).into_owned();
        let said = String::from_utf8_lossy(&read("err").unwrap_or_default()).into_owned();
        let mut rest = out.as_str();
        for line in &block.answer {
            let Some(at) = rest.find(line.as_str()) else {
                panic!(
                    "`{line}` is not in the answer of\n{}\n-- its answer\n{out}\n-- it said\n{said}",
                    block.script
                );
            };
            rest = &rest[at + line.len()..];
        }
        assert!(
            said.is_empty(),
            "{}\n-- its answer\n{out}\n-- it said\n{said}",
            block.script
        );
    }
    assert_eq!(done.code(), 0, "the page ended early: {}", done.said());
}
