//! What a call costs that does next to nothing: alone, many at once, and a command by Python beside one by Rust.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command as Program, Stdio};
use std::time::{Duration, Instant};

use banger_e2e::binaries::workspace;
use banger_e2e::scratch::MARK;
use banger_sdk::{Client, Command, Credentials, Host};
use futures::TryStreamExt as _;
use tokio::task::JoinSet;

use crate::stand::{Stand, VM, block};
use crate::table::{Figures, Table};

/// Rounds, in turns.
const ROUNDS: usize = 5;
/// Calls in a round, one after the other.
const CALLS: usize = 2000;
/// Connections of the many, and calls under way on each.
const CONNECTIONS: usize = 4;
const UNDER_WAY: usize = 16;
/// How long the many call in a round.
const CROWD: Duration = Duration::from_secs(2);
/// Commands in a round.
const COMMANDS: usize = 30;
/// Asked by a line for a round, tells a line of milliseconds for it.
const PYTHON: &str = "\
import sys, time, banger
with banger.connect(sys.argv[1]) as client:
    vm = client.vms.get(sys.argv[2])
    for _ in sys.stdin:
        took = []
        for _ in range(int(sys.argv[3])):
            begin = time.perf_counter()
            vm.run('true')
            took.append((time.perf_counter() - begin) * 1e3)
        print(*took, flush=True)
";

pub(crate) fn measure(stand: &Stand, table: &mut Table) {
    alone(stand, table);
    crowd(stand, table);
    python(stand, table);
}

async fn by_tls(stand: &Stand) -> Client {
    let host: Host = format!("https://{}", stand.daemon.tcp_address())
        .parse()
        .unwrap();
    let credentials = Credentials::directory(&stand.client);
    Client::connect(host.with_credentials(credentials))
        .await
        .unwrap()
}

/// GetVm, over one connection of each kind.
fn alone(stand: &Stand, table: &mut Table) {
    let (mut socket, mut tls) = (Figures::default(), Figures::default());
    block(async {
        let clients = [stand.daemon.client().await, by_tls(stand).await];
        for round in 0..=ROUNDS {
            for (client, figures) in clients.iter().zip([&mut socket, &mut tls]) {
                for _ in 0..CALLS {
                    let begin = Instant::now();
                    client.vms().get(VM).await.unwrap();
                    if round > 0 {
                        figures.add(begin.elapsed().as_secs_f64() * 1e6);
                    }
                }
            }
        }
    });
    for (how, figures) in [("the unix socket", socket), ("loopback mTLS", tls)] {
        table.line(
            &format!("GetVm over {how}, from the Rust SDK"),
            figures.text("µs"),
            format!("p99 {:.0} µs", figures.at(0.99)),
            String::new(),
        );
    }
}

/// ListVms, by as many as keep the daemon busy.
fn crowd(stand: &Stand, table: &mut Table) {
    let mut rates = Figures::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(stand.daemon.client().await);
        }
        for round in 0..=ROUNDS {
            let begin = Instant::now();
            let mut callers = JoinSet::new();
            for client in clients.iter().cycle().take(CONNECTIONS * UNDER_WAY) {
                callers.spawn(call_until(client.clone(), begin + CROWD));
            }
            let count: u32 = callers.join_all().await.into_iter().sum();
            if round > 0 {
                rates.add(f64::from(count) / begin.elapsed().as_secs_f64());
            }
        }
    });
    table.line(
        &format!("ListVms over {CONNECTIONS} connections, {UNDER_WAY} at once on each"),
        rates.text("calls/s"),
        String::new(),
        String::new(),
    );
}

/// How many calls were answered.
async fn call_until(client: Client, end: Instant) -> u32 {
    let mut count = 0;
    while Instant::now() < end {
        let vms: Vec<_> = client.vms().list().try_collect().await.unwrap();
        assert!(!vms.is_empty());
        count += 1;
    }
    count
}

/// A Python program that runs commands when it is asked to.
struct Python {
    child: Child,
    ask: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Python {
    fn start(stand: &Stand) -> Self {
        let target = std::env::current_exe().unwrap();
        let target = target.ancestors().nth(2).unwrap();
        let python: PathBuf = target.join("python/bin/python");
        assert!(
            python.is_file(),
            "{} is missing: run scripts/python-env.sh",
            python.display()
        );
        let mut child = Program::new(python)
            .args(["-c", PYTHON, &stand.daemon.host(), VM])
            .arg(COMMANDS.to_string())
            .env(MARK, stand.scratch.mark())
            .current_dir(workspace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            ask: child.stdin.take().unwrap(),
            told: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn round(&mut self) -> Vec<f64> {
        writeln!(self.ask).unwrap();
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        line.split_whitespace()
            .map(|took| took.parse().unwrap())
            .collect()
    }

    fn end(self) {
        drop(self.ask);
        let mut child = self.child;
        assert!(child.wait().unwrap().success());
    }
}

fn python(stand: &Stand, table: &mut Table) {
    let mut python = Python::start(stand);
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    block(async {
        let client = stand.daemon.client().await;
        for round in 0..=ROUNDS {
            for _ in 0..COMMANDS {
                let begin = Instant::now();
                let command = Command::new(["/bin/sh", "-c", "true"]);
                let process = client.sessions().exec(VM, command).await.unwrap();
                process.output().await.unwrap();
                if round > 0 {
                    theirs.add_ms(begin.elapsed());
                }
            }
            let took = python.round();
            if round > 0 {
                took.into_iter().for_each(|took| ours.add(took));
            }
        }
    });
    python.end();
    let more = ours.median() - theirs.median();
    table.line(
        "vm.run(\"true\") by Python",
        ours.text("ms"),
        format!("by the Rust SDK {}", theirs.text("ms")),
        format!("{more:.2} ms more"),
    );
}
