//! The two halves as processes of their own, so that one can be killed: each speaks over its standard input.
//!
//! A half is this test's own program, asked by variables to be one. What goes over the socket are frames: a byte that
//! says what, the length, a message.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use banger_workspace::client::collect::{Options, Source};
use banger_workspace::client::land::{Landing, Limits};
use banger_workspace::client::{Error, Result};
use banger_workspace::command::{Cancel, HostLauncher};
use banger_workspace::guest::{self, Answer, Export, Restore};
use banger_workspace::wire::{Base, Known, Needed, Part};
use prost::Message;

use super::{Bench, VM, send};

/// Which half a process is to be.
const HALF: &str = "BANGER_WORKSPACE_HALF";
/// The directory of its bench.
const BENCH: &str = "BANGER_WORKSPACE_BENCH";
/// The name of the test that becomes the half.
const ENTRY: &str = "kill::a_half_of_a_workspace_when_it_is_asked_for";
/// What is prepared, beside the bench: what an export is told as its base.
const BASE: &str = "base";

const PART: u8 = 1;
const KNOWN: u8 = 2;
const NEEDED: u8 = 3;
const BASE_TOLD: u8 = 4;
const DONE: u8 = 5;
const FRAME_MAX: usize = 64 << 20;

/// What two halves do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// The client sends, the guest makes the tree.
    Prepare,
    /// The guest sends, the client lands it.
    Export,
}

/// Starts a half with `socket` to speak over; its end is told by `status`.
pub(crate) fn start(work: Work, side: &str, bench: &Bench, socket: UnixStream) -> Child {
    let word = match work {
        Work::Prepare => "prepare",
        Work::Export => "export",
    };
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", ENTRY])
        .env(HALF, format!("{word} {side}"))
        .env(BENCH, bench.directory.path())
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Remembers what was prepared.
pub(crate) fn remember(bench: &Bench, base: &Base) {
    std::fs::write(bench.directory.path().join(BASE), base.encode_to_vec()).unwrap();
}

/// Becomes a half, where this process was started to be one; it ends then.
pub(crate) fn become_one() {
    let Ok(half) = std::env::var(HALF) else {
        return;
    };
    let directory = PathBuf::from(std::env::var_os(BENCH).unwrap());
    let socket = io::stdin().as_fd().try_clone_to_owned().unwrap();
    let socket = UnixStream::from(socket);
    let done = match &half[..] {
        "prepare client" => prepare_client(&directory, &socket),
        "prepare guest" => prepare_guest(&directory, &socket),
        "export client" => export_client(&directory, &socket),
        "export guest" => export_guest(&directory, &socket),
        other => panic!("{other} is no half"),
    };
    std::process::exit(i32::from(!done));
}

fn put(mut socket: &UnixStream, kind: u8, message: &[u8]) -> bool {
    let mut frame = vec![kind];
    frame.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
    frame.extend(message);
    socket.write_all(&frame).is_ok()
}

/// The next frame; none where the stream was cut.
fn take(mut socket: &UnixStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    socket.read_exact(&mut head).ok()?;
    let length = u32::from_le_bytes(head[1..].try_into().unwrap());
    let length = usize::try_from(length).unwrap();
    assert!(length <= FRAME_MAX);
    let mut message = vec![0; length];
    socket.read_exact(&mut message).ok()?;
    Some((head[0], message))
}

fn part(socket: &UnixStream) -> Option<Part> {
    match take(socket)? {
        (PART, message) => Part::decode(&message[..]).ok(),
        _ => None,
    }
}

fn prepare_client(directory: &Path, socket: &UnixStream) -> bool {
    let bench = Bench::at(directory);
    let mut source = Source::open(&bench.here, &Options::default(), &Cancel::default()).unwrap();
    let (answers, told) = sync_channel(64);
    std::thread::scope(|scope| {
        let listening = scope.spawn(move || {
            loop {
                let answer = match take(socket) {
                    Some((KNOWN, message)) => Answer::Known(Known::decode(&message[..]).unwrap()),
                    Some((NEEDED, message)) => {
                        Answer::Needed(Needed::decode(&message[..]).unwrap())
                    }
                    Some((DONE, _)) => return true,
                    _ => return false,
                };
                // Whoever sends may have failed.
                let _ = answers.send(answer);
            }
        });
        let mut sink = |part: Part| match put(socket, PART, &part.encode_to_vec()) {
            true => Ok(()),
            false => Err(Error::Gone),
        };
        let sent = send(&mut source, &told, &mut sink);
        listening.join().unwrap() && sent.is_ok()
    })
}

fn prepare_guest(directory: &Path, socket: &UnixStream) -> bool {
    let bench = Bench::at(directory);
    let request = Restore {
        overwrite: !bench.keeps_states(),
        ..Restore::default()
    };
    let mut parts = || part(socket);
    let mut answer = |answer| match answer {
        Answer::Known(known) => put(socket, KNOWN, &known.encode_to_vec()),
        Answer::Needed(needed) => put(socket, NEEDED, &needed.encode_to_vec()),
        Answer::Progress(_) => true,
    };
    let made = guest::restore(&bench.guest_place(), &request, &mut parts, &mut answer);
    made.is_ok_and(|made| put(socket, DONE, &made.state))
}

fn export_client(directory: &Path, socket: &UnixStream) -> bool {
    let bench = Bench::at(directory);
    let prepared = std::fs::read(directory.join(BASE)).unwrap();
    let prepared = Base::decode(&prepared[..]).unwrap();
    let place = bench.place();
    let landed = || -> Result<()> {
        let base = place.base(VM, &prepared)?;
        put(socket, BASE_TOLD, &base.encode_to_vec());
        let mut landing = Landing::begin(&place, VM, &base, Limits::default())?;
        while let Some(part) = part(socket) {
            landing.part(part)?;
        }
        landing.finish().map(drop)
    };
    landed().is_ok()
}

fn export_guest(directory: &Path, socket: &UnixStream) -> bool {
    let bench = Bench::at(directory);
    let Some((BASE_TOLD, base)) = take(socket) else {
        return false;
    };
    let place = guest::Place {
        launcher: Arc::new(HostLauncher),
        cancel: Cancel::default(),
        path: bench.guest.clone(),
    };
    let request = Export {
        base: Base::decode(&base[..]).unwrap(),
        had_git: true,
        max_bytes: 0,
    };
    let mut deliver = |part: Part| put(socket, PART, &part.encode_to_vec());
    let told = guest::export(&place, &request, &mut deliver);
    told.is_ok()
}
