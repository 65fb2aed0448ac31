//! Process 1 of the guests in this crate's tests: the guest's side of the agent handshake, then an echo.
//!
//! The tests compile it alone, statically, with the standard library only. What it does is chosen by
//! `banger.test=<word>` on the kernel's command line, and later by lines `!<word>` on the channel.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// System calls that the standard library does not offer.
mod sys {
    use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
    use std::os::fd::AsRawFd;

    unsafe extern "C" {
        fn mount(
            source: *const c_char,
            target: *const c_char,
            kind: *const c_char,
            flags: c_ulong,
            data: *const c_void,
        ) -> c_int;
        fn reboot(how: c_int) -> c_int;
        fn sync();
        fn ioctl(file: c_int, number: c_ulong, ...) -> c_int;
        fn fcntl(file: c_int, number: c_int, ...) -> c_int;
        fn syscall(number: c_long, ...) -> c_long;
        fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
        fn connect(socket: c_int, address: *const c_void, length: u32) -> c_int;
    }

    /// Connects to a port of the host's over vsock.
    pub fn dial(port: u32) -> Option<std::fs::File> {
        use std::os::fd::FromRawFd;
        const VSOCK: c_int = 40;
        const STREAM: c_int = 1;
        const HOST: u32 = 2;
        // struct sockaddr_vm: family, reserved, port, cid, padding.
        let mut address = [0_u8; 16];
        address[..2].copy_from_slice(&40_u16.to_ne_bytes());
        address[4..8].copy_from_slice(&port.to_ne_bytes());
        address[8..12].copy_from_slice(&HOST.to_ne_bytes());
        // SAFETY: plain numbers, then an address that lives over the call; the descriptor is nobody else's.
        unsafe {
            let fd = socket(VSOCK, STREAM, 0);
            if fd < 0 {
                return None;
            }
            let file = std::fs::File::from_raw_fd(fd);
            (connect(fd, address.as_ptr().cast(), 16) == 0).then_some(file)
        }
    }

    /// Gives a pipe the room that an ordinary user's may have.
    pub fn widen(pipe: &impl AsRawFd) {
        const SET_PIPE_SIZE: c_int = 1031;
        const BYTES: c_int = 1 << 20;
        // SAFETY: an open descriptor and plain numbers.
        unsafe { fcntl(pipe.as_raw_fd(), SET_PIPE_SIZE, BYTES) };
    }

    const FINIT_MODULE: c_long = 313;

    pub fn mount_kind(kind: &str, target: &str) {
        let _ = std::fs::create_dir_all(target);
        let kind = CString::new(kind).unwrap();
        let target = CString::new(target).unwrap();
        // SAFETY: three strings that live over the call; the last argument may be null.
        unsafe { mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    }

    pub fn load_module(file: &std::fs::File) -> bool {
        // SAFETY: an open descriptor, an empty string that lives over the call, no flags.
        unsafe { syscall(FINIT_MODULE, file.as_raw_fd(), c"".as_ptr(), 0) == 0 }
    }

    pub fn power_off() {
        // SAFETY: two calls without pointers.
        unsafe {
            sync();
            reboot(0x4321_fedc);
        }
    }

    /// Gives `eth0` the address 10.0.2.15/24 and brings it up. No route is needed for its own net.
    pub fn network_up() -> bool {
        let Ok(socket) = std::net::UdpSocket::bind("0.0.0.0:0") else { return false };
        let inet = |address: [u8; 4]| {
            let [a, b, c, d] = address;
            [2, 0, 0, 0, a, b, c, d]
        };
        let up_and_running = [0x41, 0, 0, 0, 0, 0, 0, 0];
        let requests: [(c_ulong, [u8; 8]); 3] = [
            (0x8916, inet([10, 0, 2, 15])),
            (0x891c, inet([255, 255, 255, 0])),
            (0x8914, up_and_running),
        ];
        requests.iter().all(|(number, value)| {
            // struct ifreq: a name of 16 bytes, then a union of 24.
            let mut request = [0_u8; 40];
            request[..4].copy_from_slice(b"eth0");
            request[16..24].copy_from_slice(value);
            // SAFETY: the kernel reads one `ifreq`, which lives over the call.
            unsafe { ioctl(socket.as_raw_fd(), *number, request.as_ptr()) == 0 }
        })
    }

    pub fn reset() {
        // SAFETY: a call without pointers.
        unsafe { reboot(0x0123_4567) };
    }
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(CAT) {
        return cat();
    }
    sys::mount_kind("devtmpfs", "/dev");
    sys::mount_kind("proc", "/proc");
    sys::mount_kind("sysfs", "/sys");
    load_modules();
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let word = command_line.split_whitespace().find_map(|word| word.strip_prefix("banger.test="));
    say("test guest: up");
    if let Some(word) = word {
        perform(word, None);
    }
    if is_vsock() {
        loop {
            match sys::dial(1024) {
                Some(mut host) => converse(&mut host),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
    let path = port();
    loop {
        // Opened anew for each conversation, as the real agent may.
        if let Ok(mut port) = OpenOptions::new().read(true).write(true).open(&path) {
            converse(&mut port);
        }
    }
}

fn is_vsock() -> bool {
    fs::read_to_string("/proc/cmdline").is_ok_and(|line| line.contains("banger.channel=vsock"))
}

/// As the VMM wants it: under Firecracker a reset after a farewell.
fn power_off() {
    if is_vsock() {
        let _farewell = sys::dial(1025);
        sys::reset();
    }
    sys::power_off();
}

fn say(line: &str) {
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = writeln!(console, "{line}");
    }
}

/// Loads whatever can be loaded until nothing more can: no order needs to be known.
fn load_modules() {
    let Ok(entries) = fs::read_dir("/banger/modules") else { return };
    let mut left: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    loop {
        let before = left.len();
        left.retain(|path| !File::open(path).is_ok_and(|file| sys::load_module(&file)));
        if left.is_empty() || left.len() == before {
            return;
        }
    }
}

fn port() -> PathBuf {
    loop {
        for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim() == "banger.agent" {
                return PathBuf::from("/dev").join(entry.file_name());
            }
        }
        // The driver makes the port a moment after it is loaded.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One conversation: the handshake, then an echo, until the host is gone or starts over.
fn converse(port: &mut File) {
    // Blocks until the host is connected. Only then is anything read, so that it comes before READY.
    if port.write_all(b"AGENT\n").is_err() {
        return;
    }
    let mut lines = Vec::new();
    let mut chunk = [0; 65536];
    let mut answered: Option<Vec<u8>> = None;
    let mut is_talking = false;
    loop {
        let count = match port.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        for piece in chunk[..count].split_inclusive(|&byte| byte == b'\n') {
            lines.extend_from_slice(piece);
            if lines.last() != Some(&b'\n') && (answered.is_none() || lines.starts_with(b"HELLO")) {
                continue;
            }
            let line = std::mem::take(&mut lines);
            match line.strip_prefix(b"HELLO ") {
                Some(nonce) if answered.as_deref() == Some(nonce) => {}
                // The real agent's HTTP/2 fails on such a line, and it starts over.
                Some(_) if is_talking => return,
                Some(nonce) => {
                    let _ = port.write_all(&[b"READY ", nonce].concat());
                    answered = Some(nonce.to_vec());
                }
                None if answered.is_none() => {}
                None => {
                    is_talking = true;
                    match line.strip_prefix(b"!") {
                        Some(word) => perform(&String::from_utf8_lossy(word), Some(port)),
                        None => drop(port.write_all(&line)),
                    }
                }
            }
        }
    }
}

fn perform(line: &str, port: Option<&mut File>) {
    let words: Vec<&str> = line.split_whitespace().flat_map(|word| word.split(',')).collect();
    match words[..] {
        ["poweroff"] => power_off(),
        ["reset"] => sys::reset(),
        ["panic"] => panic!("the test asked for it: last words"),
        ["mute"] => loop {
            std::thread::park();
        },
        ["flood"] => loop {
            say(&"flood ".repeat(200));
        },
        ["garbage"] => garbage(),
        ["copy"] => answer(port, &copy()),
        ["keep", count] => keep(port, count.parse().unwrap_or_default()),
        ["give"] => give(port),
        ["pipe"] => pipe(port),
        ["say", word] => say(word),
        ["connect", address] => answer(port, &connect(address)),
        ["write", disk] => answer(port, write(disk)),
        ["size", disk] => {
            answer(port, fs::read_to_string(format!("/sys/block/{disk}/size")).unwrap_or_default().trim());
        }
        ["serial", disk] => {
            answer(port, &fs::read_to_string(format!("/sys/block/{disk}/serial")).unwrap_or_default());
        }
        _ => answer(port, "unknown"),
    }
}

fn answer(port: Option<&mut File>, text: &str) {
    if let Some(port) = port {
        let _ = port.write_all(format!("{text}\n").as_bytes());
    }
}

/// Floods the channel with what is no line of the handshake.
fn garbage() {
    let opened = match is_vsock() {
        true => sys::dial(1024),
        false => OpenOptions::new().write(true).open(port()).ok(),
    };
    let Some(mut port) = opened else { return };
    let bytes: Vec<u8> = (0..=255_u8).cycle().take(65536).collect();
    loop {
        let _ = port.write_all(&bytes);
    }
}

/// Where a file is kept, in memory.
const KEPT: &str = "/kept";

/// Takes so many bytes from the channel into a file, and says when they may come and when it has them all.
fn keep(port: Option<&mut File>, count: u64) {
    let Some(port) = port else { return };
    answer(Some(&mut *port), "go on");
    let taken = File::create(KEPT).and_then(|mut file| std::io::copy(&mut port.take(count), &mut file));
    answer(Some(port), &taken.map_or_else(|error| error.to_string(), |taken| taken.to_string()));
}

/// Sends the file that was kept.
fn give(port: Option<&mut File>) {
    let (Some(port), Ok(mut file)) = (port, File::open(KEPT)) else { return };
    let mut chunk = vec![0; 256 << 10];
    while let Ok(count @ 1..) = file.read(&mut chunk) {
        if port.write_all(&chunk[..count]).is_err() {
            return;
        }
    }
}

/// The word by which this program is [`cat`].
const CAT: &str = "cat";
/// What is read and written at once where a process's output is carried.
const OUTPUT_BYTES: usize = 128 << 10;

/// Sends what a process that reads the kept file writes into a pipe.
fn pipe(port: Option<&mut File>) {
    let Some(port) = port else { return };
    let started = Command::new("/init").arg(CAT).stdout(Stdio::piped()).spawn();
    let Ok(mut process) = started else { return answer(Some(port), "no process") };
    if let Some(mut output) = process.stdout.take() {
        sys::widen(&output);
        let _ = carry(&mut output, port);
    }
    let _ = process.wait();
}

/// Writes the kept file to standard output, by ordinary reads and writes.
fn cat() {
    let output = std::io::stdout().as_fd().try_clone_to_owned();
    if let (Ok(mut file), Ok(output)) = (File::open(KEPT), output) {
        let _ = carry(&mut file, &mut File::from(output));
    }
}

fn carry(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut chunk = vec![0; OUTPUT_BYTES];
    loop {
        match from.read(&mut chunk)? {
            0 => return to.flush(),
            count => to.write_all(&chunk[..count])?,
        }
    }
}

/// The first line that whoever listens there says.
fn connect(address: &str) -> String {
    if !sys::network_up() {
        return "no network".into();
    }
    let said = std::net::TcpStream::connect(address).and_then(|mut stream| {
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    said.map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
}

fn write(disk: &str) -> &'static str {
    let written = OpenOptions::new().write(true).open(format!("/dev/{disk}")).and_then(|mut file| {
        file.write_all(b"written")?;
        file.sync_all()
    });
    if written.is_ok() { "written" } else { "refused" }
}

/// How fast the guest's kernel copies memory, in MB/s: reads of a file in memory.
fn copy() -> String {
    let _ = fs::write("/copied", vec![7_u8; 8 << 20]);
    let mut buffer = vec![0_u8; 1 << 20];
    let begin = Instant::now();
    let mut total = 0;
    while begin.elapsed() < Duration::from_secs(2) {
        let Ok(mut file) = File::open("/copied") else { break };
        while let Ok(count @ 1..) = file.read(&mut buffer) {
            total += count;
        }
    }
    format!("{:.0} MB/s", total as f64 / begin.elapsed().as_secs_f64() / 1e6)
}
