//! What banger makes of the agent channel, beside the channel itself with a program on it that only echoes.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use banger_e2e::Run;
use banger_e2e::binaries::workspace;
use banger_e2e::command::until;
use banger_sdk::{Command, Event};
use futures::StreamExt as _;

use crate::bare::{Bare, Change, copy_sparse};
use crate::stand::{Stand, VM, block};
use crate::table::{Figures, Table};

/// Rounds of exchanges, in turns.
const ROUNDS: usize = 9;
/// Exchanges per round.
const EXCHANGES: usize = 40;
/// What is read in bulk.
const BULK_BYTES: usize = 256 << 20;
/// What is sent through the echo, which is slower.
const ECHO_BULK_BYTES: usize = 32 << 20;
/// What is written or read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// The length of an echoed message.
const ECHO_BYTES: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// A guest with a test's process 1, which echoes lines or floods the channel.
pub(crate) struct RawGuest {
    child: Child,
    port: UnixStream,
}

impl RawGuest {
    pub(crate) fn boot(stand: &Stand, name: &str, kernel_words: &str) -> Self {
        let bare = Bare::of(&stand.daemon, VM);
        let path = |end: &str| stand.scratch.path().join(format!("{name}-{end}"));
        let (socket, upper) = (path("sock"), path("upper.ext4"));
        let _ = fs::remove_file(&socket);
        copy_sparse(&bare.directory.join("upper.ext4"), &upper);
        let initramfs = Some(
            initramfs(stand, bare.value("-initrd"))
                .to_string_lossy()
                .into_owned(),
        );
        let mut child = bare.start(
            &stand.scratch,
            kernel_words,
            &Change {
                socket: socket.clone(),
                upper,
                initramfs,
            },
        );
        let mut console = child.stdout.take().unwrap();
        std::thread::spawn(move || drop(std::io::copy(&mut console, &mut std::io::sink())));
        until("the raw guest's socket is there", PATIENCE, || {
            socket.exists()
        });
        let port = UnixStream::connect(&socket).unwrap();
        port.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { child, port }
    }

    /// Lets the guest begin, by the handshake of the channel.
    pub(crate) fn greet(&mut self) {
        let mut lines = String::new();
        let mut greeted = false;
        let mut byte = [0];
        while !lines.contains("READY bench\n") {
            self.port.read_exact(&mut byte).unwrap();
            lines.push(char::from(byte[0]));
            if !greeted && lines.contains("AGENT\n") {
                self.port.write_all(b"HELLO bench\n").unwrap();
                greeted = true;
            }
        }
    }

    pub(crate) fn echo(&mut self) -> Duration {
        let mut message = [b'x'; ECHO_BYTES];
        message[ECHO_BYTES - 1] = b'\n';
        let begin = Instant::now();
        self.port.write_all(&message).unwrap();
        self.port.read_exact(&mut message).unwrap();
        begin.elapsed()
    }

    /// Sends bytes through the guest's echo, and returns how long it took until all were back.
    fn echo_bulk(&mut self, bytes: usize) -> Duration {
        let mut port = self.port.try_clone().unwrap();
        let begin = Instant::now();
        let writer = std::thread::spawn(move || {
            let chunk = vec![0; CHUNK_BYTES];
            for _ in 0..bytes / CHUNK_BYTES {
                port.write_all(&chunk).unwrap();
            }
        });
        self.read(bytes);
        writer.join().unwrap();
        begin.elapsed()
    }

    /// Sends bytes that the guest keeps in a file in its memory.
    pub(crate) fn keep(&mut self, bytes: usize) -> Duration {
        let command = format!("!keep,{bytes}\n");
        let begin = Instant::now();
        self.port.write_all(command.as_bytes()).unwrap();
        // What came before would be read with the command.
        self.hear("go on\n");
        let chunk = vec![b'x'; CHUNK_BYTES];
        for _ in 0..bytes / CHUNK_BYTES {
            self.port.write_all(&chunk).unwrap();
        }
        self.hear(&format!("{bytes}\n"));
        begin.elapsed()
    }

    fn hear(&mut self, line: &str) {
        let mut answer = vec![0; line.len()];
        self.port.read_exact(&mut answer).unwrap();
        assert_eq!(answer, line.as_bytes());
    }

    /// Receives the file that the guest has kept, into what takes it.
    pub(crate) fn give(&mut self, bytes: usize, mut into: impl Write) -> Duration {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut left = bytes;
        let begin = Instant::now();
        self.port.write_all(b"!give\n").unwrap();
        while left > 0 {
            let count = self.port.read(&mut chunk).unwrap();
            assert!(count > 0, "the raw guest ended");
            into.write_all(&chunk[..count]).unwrap();
            left = left.saturating_sub(count);
        }
        begin.elapsed()
    }

    /// Receives what a process in the guest, which reads the kept file, writes into a pipe.
    fn pipe(&mut self, bytes: usize) -> Duration {
        let begin = Instant::now();
        self.port.write_all(b"!pipe\n").unwrap();
        self.read(bytes);
        begin.elapsed()
    }

    fn read(&mut self, bytes: usize) -> Duration {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut left = bytes;
        let begin = Instant::now();
        while left > 0 {
            let count = self.port.read(&mut chunk).unwrap();
            assert!(count > 0, "the raw guest ended");
            left = left.saturating_sub(count);
        }
        begin.elapsed()
    }
}

impl Drop for RawGuest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The daemon's initramfs with another process 1 on top: of two members of one name the later counts.
fn initramfs(stand: &Stand, original: &str) -> PathBuf {
    let root = stand.scratch.dir("raw-init");
    let source = workspace().join("server/vmm/tests/guest/init.rs");
    let flags = [
        "--edition",
        "2024",
        "-O",
        "-C",
        "target-feature=+crt-static",
        "-C",
        "panic=abort",
        "-o",
    ];
    Run::new("rustc")
        .args(flags)
        .arg(root.join("init"))
        .arg(source)
        .ok();
    // The test's process 1 looks for uncompressed modules in one directory, as the daemon's initramfs has them.
    let addition = Run::new("/bin/busybox")
        .args(["cpio", "-o", "-H", "newc"])
        .in_dir(&root)
        .stdin("init\n")
        .ok()
        .stdout;
    let mut bytes = fs::read(original).unwrap();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend_from_slice(&addition);
    let path = stand.scratch.path().join("raw.cpio");
    fs::write(&path, bytes).unwrap();
    path
}

/// Puts what was measured beside calls to the agent that are answered at once.
pub(crate) fn beside_calls(table: &mut Table, ours: &Figures, calls: &Figures) {
    table.line(
        "the same",
        ours.text("ms"),
        format!(
            "one message to the agent and back, through the same connections {}",
            calls.text("ms")
        ),
        format!("{:.1} ×", ours.median() / calls.median()),
    );
}

pub(crate) fn exec(stand: &Stand, table: &mut Table) {
    let mut raw = RawGuest::boot(stand, "echo", "");
    raw.greet();
    let (mut ours, mut theirs, mut calls) =
        (Figures::default(), Figures::default(), Figures::default());
    block(async {
        let client = stand.daemon.client().await;
        for round in 0..=ROUNDS {
            for _ in 0..EXCHANGES {
                let begin = Instant::now();
                assert!(client.sessions().list(VM).next().await.is_none());
                if round > 0 {
                    calls.add_ms(begin.elapsed());
                }
            }
            for _ in 0..EXCHANGES {
                let begin = Instant::now();
                let process = client
                    .sessions()
                    .exec(VM, Command::new(["/bin/true"]))
                    .await
                    .unwrap();
                process.wait().await.unwrap();
                let took = begin.elapsed();
                if round > 0 {
                    ours.add_ms(took);
                }
            }
            for _ in 0..EXCHANGES {
                let took = raw.echo();
                if round > 0 {
                    theirs.add_ms(took);
                }
            }
        }
    });
    let ratio = format!("{:.0} ×", ours.median() / theirs.median());
    let theirs = format!("raw {ECHO_BYTES}-byte echo {}", theirs.text("ms"));
    table.line(
        "warm exec of /bin/true through the SDK",
        ours.text("ms"),
        theirs,
        ratio,
    );
    beside_calls(table, &ours, &calls);
    let begin = Instant::now();
    let loops = stand.sh("i=0; while [ $i -lt 50 ]; do /bin/true; i=$((i+1)); done; echo over");
    assert_eq!(loops, "over");
    let inside = begin.elapsed().as_secs_f64() * 1e3 / 50.0;
    table.line(
        "of which: fork and exec by a shell in the guest",
        format!("{inside:.1} ms each"),
        String::new(),
        String::new(),
    );
}

pub(crate) fn bulk(stand: &Stand, table: &mut Table) {
    let mut raw = RawGuest::boot(stand, "flood", "banger.test=garbage");
    raw.read(1 << 20);
    let mut echo = RawGuest::boot(stand, "echo", "");
    echo.greet();
    let mut cat = RawGuest::boot(stand, "cat", "");
    cat.greet();
    cat.keep(BULK_BYTES);
    stand.sh(&format!("mkdir -p /dev/shm; mount -t tmpfs -o size=300m tmpfs /mnt 2>/dev/null || mkdir -p /mnt; head -c {BULK_BYTES} /dev/zero > /mnt/bulk"));
    let rate = |bytes: usize, took: Duration| bytes as f64 / took.as_secs_f64() / 1e6;
    let [mut ours, mut theirs, mut most, mut piped]: [Figures; 4] = Default::default();
    block(async {
        let client = stand.daemon.client().await;
        for round in 0..=7 {
            let begin = Instant::now();
            let command = Command::new(["cat", "/mnt/bulk"]);
            let mut process = client.sessions().exec(VM, command).await.unwrap();
            let mut total = 0;
            while let Some(event) = process.next().await.unwrap() {
                if let Event::Output(output) = event {
                    total += output.data.len();
                }
            }
            assert_eq!(total, BULK_BYTES);
            let took = begin.elapsed();
            let echoed = echo.echo_bulk(ECHO_BULK_BYTES);
            let flooded = raw.read(BULK_BYTES);
            let carried = cat.pipe(BULK_BYTES);
            if round > 0 {
                ours.add(rate(BULK_BYTES, took));
                theirs.add(rate(ECHO_BULK_BYTES, echoed));
                most.add(rate(BULK_BYTES, flooded));
                piped.add(rate(BULK_BYTES, carried));
            }
        }
    });
    let ratio = |beside: &Figures| format!("{:.2} ×", ours.median() / beside.median());
    let what = "cat of 256 MiB out of a session";
    table.line(
        what,
        ours.text("MB/s"),
        format!("raw echo {}", theirs.text("MB/s")),
        ratio(&theirs),
    );
    let same = format!("raw channel, a process and a pipe, {}", piped.text("MB/s"));
    table.line("the same", ours.text("MB/s"), same, ratio(&piped));
    let flood = format!("raw flood, nothing read or copied, {}", most.text("MB/s"));
    table.line("the same", ours.text("MB/s"), flood, ratio(&most));
    stand.sh("rm -f /mnt/bulk");
}
