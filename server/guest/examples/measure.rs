//! Measures a guest that has just been started, through the unix socket of its agent's port:
//! `measure SOCKET [FILE]`. Prints hello, warm `exec` of /bin/true and the throughput of `cat FILE`.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use banger_core::guest::{AttachTarget, Guest, GuestConfig, GuestConnector};
use banger_core::session::{AttachOptions, Backpressure, SessionEvent, SessionSpec};
use banger_core::vmm::Accelerator;
use banger_core::{SessionId, VmId};
use banger_guest::Connector;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

/// Rounds of each latency.
const ROUNDS: usize = 50;
/// Rounds of the throughput.
const CATS: usize = 3;
/// How often the hello line is repeated.
const HELLO_EVERY: Duration = Duration::from_secs(1);
/// The host's word; any will do.
const NONCE: &str = "0123456789abcdef0123456789abcdef";

type Error = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().collect();
    let socket = arguments.get(1).ok_or("usage: measure SOCKET [FILE]")?;
    let started = Instant::now();
    let channel = connect(socket).await?;
    println!("ready line after {:?}", started.elapsed());
    let (guest, info) = Connector::default()
        .connect(VmId::new(), Box::new(channel), Accelerator::Tcg)
        .await?;
    println!("hello after {:?}: {info:?}", started.elapsed());
    let step = Instant::now();
    guest.configure(&config()).await?;
    println!("configure {:?}", step.elapsed());
    latency(&guest).await?;
    if let Some(file) = arguments.get(2) {
        for _ in 0..CATS {
            throughput(&guest, file).await?;
        }
    }
    if let Some(script) = arguments.get(4) {
        let mut text = Vec::new();
        run_into(&guest, &["/bin/bash", "-c", script], &mut text).await?;
        println!("{}", String::from_utf8_lossy(&text));
    }
    if arguments.get(3).is_some_and(|word| word == "off") {
        guest.power_off(Duration::ZERO).await?;
        let step = Instant::now();
        guest.closed().await;
        println!("power off {:?}", step.elapsed());
    }
    Ok(())
}

fn config() -> GuestConfig {
    GuestConfig {
        keep_pristine: false,
        hostname: "measured".into(),
        network: Some(banger_core::guest::GuestNetwork {
            address: "10.0.2.15/24".into(),
            gateway: "10.0.2.2".into(),
            dns: vec!["10.0.2.3".into()],
        }),
        ..GuestConfig::default()
    }
}

/// The handshake of the port, as a driver does it.
async fn connect(path: &str) -> io::Result<UnixStream> {
    let mut stream = loop {
        match UnixStream::connect(path).await {
            Ok(stream) => break stream,
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    };
    let hello = format!("HELLO {NONCE}\n");
    let ready = format!("READY {NONCE}\n");
    let mut seen = Vec::new();
    stream.write_all(hello.as_bytes()).await?;
    loop {
        let mut byte = [0];
        match timeout(HELLO_EVERY, stream.read_exact(&mut byte)).await {
            Ok(read) => {
                read?;
                seen.push(byte[0]);
            }
            Err(_) => stream.write_all(hello.as_bytes()).await?,
        }
        if seen.ends_with(ready.as_bytes()) {
            return Ok(stream);
        }
        if seen.ends_with(b"AGENT\n") {
            stream.write_all(hello.as_bytes()).await?;
        }
    }
}

async fn latency(guest: &Arc<dyn Guest>) -> Result<(), Error> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let step = Instant::now();
        run(guest, &["/bin/true"]).await?;
        times.push(step.elapsed());
    }
    println!("first exec {:?}", times[0]);
    times.sort();
    println!(
        "exec of /bin/true: min {:?} median {:?}",
        times[0],
        times[ROUNDS / 2]
    );
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let step = Instant::now();
        guest.list_sessions().await?;
        times.push(step.elapsed());
    }
    times.sort();
    println!(
        "unary call: min {:?} median {:?}",
        times[0],
        times[ROUNDS / 2]
    );
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // a rate, for people
async fn throughput(guest: &Arc<dyn Guest>, file: &str) -> Result<(), Error> {
    let before = agent_ticks(guest).await?;
    let step = Instant::now();
    let (bytes, events) = run(guest, &["/bin/cat", file]).await?;
    let rate = bytes as f64 / step.elapsed().as_secs_f64() / 1e6;
    println!(
        "cat of {bytes} bytes in {:?}: {rate:.1} MB/s, {events} events",
        step.elapsed()
    );
    let after = agent_ticks(guest).await?;
    println!(
        "  the agent spent {} ms in user and {} ms in kernel mode",
        10 * (after.0 - before.0),
        10 * (after.1 - before.1)
    );
    Ok(())
}

/// The agent's processor time in hundredths of a second, user and kernel.
async fn agent_ticks(guest: &Arc<dyn Guest>) -> Result<(u64, u64), Error> {
    let mut text = Vec::new();
    run_into(guest, &["/bin/cat", "/proc/1/stat"], &mut text).await?;
    let text = String::from_utf8(text)?;
    let fields: Vec<&str> = text.split(' ').collect();
    Ok((fields[13].parse()?, fields[14].parse()?))
}

async fn run(guest: &Arc<dyn Guest>, command: &[&str]) -> Result<(u64, u64), Error> {
    run_into(guest, command, &mut io::sink()).await
}

async fn run_into(
    guest: &Arc<dyn Guest>,
    command: &[&str],
    output: &mut (impl io::Write + Send),
) -> Result<(u64, u64), Error> {
    let spec = SessionSpec {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        env: std::collections::BTreeMap::default(),
        working_dir: String::new(),
        user: String::new(),
        terminal: None,
        stdin: false,
        timeout: None,
        ..SessionSpec::default()
    };
    let target = AttachTarget::Start {
        id: SessionId::new(),
        spec: Box::new(spec),
        remove_after_exit: true,
    };
    let options = AttachOptions {
        backpressure: Backpressure::HoldProcess,
        ..AttachOptions::default()
    };
    let input = futures::stream::pending().boxed();
    let mut events = guest.attach(target, options, input).await?;
    let (mut bytes, mut count) = (0, 0);
    while let Some(event) = events.next().await {
        count += 1;
        if let SessionEvent::Output { data, .. } = event? {
            bytes += data.len() as u64;
            output.write_all(&data)?;
        }
    }
    Ok((bytes, count))
}
