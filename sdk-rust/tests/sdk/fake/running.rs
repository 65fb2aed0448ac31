//! What runs in a session: processes of a few lines each, by the name of their program.

use std::sync::Mutex;

use banger_proto::v1;
use bytes::Bytes;
use tokio::sync::watch;
use tonic::{Code, Status};
use v1::exit::How;

use super::{refuse, time};

/// The length of a message of output.
const CHUNK: usize = 64 << 10;

/// A session.
pub struct Running {
    pub session: Mutex<v1::Session>,
    pub log: Mutex<Vec<v1::Output>>,
    pub changed: watch::Sender<u64>,
    /// What was written to it.
    pub input: Mutex<Vec<u8>>,
    pub signals: Mutex<Vec<i32>>,
}

/// What a client sent, of Exec and of AttachSession.
pub enum Sent {
    Stdin(v1::Stdin),
    Close,
    Resize(v1::TerminalSize),
    Signal(i32),
    Nothing,
}

/// What is answered, to both.
pub enum Told {
    /// The session, and where its reader begins.
    Session(Box<v1::Session>, i64),
    Output(v1::Output),
    Gap(v1::Gap),
    Ack(i64),
    Idle,
    Exited(v1::Exited),
}

impl Running {
    pub fn new(id: String, vm_id: String, spec: v1::SessionSpec) -> Self {
        let session = v1::Session {
            id,
            vm_id,
            spec: Some(spec),
            state: v1::session::State::Running.into(),
            pid: 7,
            start_time: time(3),
            ..v1::Session::default()
        };
        Self {
            session: Mutex::new(session),
            log: Mutex::default(),
            changed: watch::Sender::new(0),
            input: Mutex::default(),
            signals: Mutex::default(),
        }
    }

    pub fn command(&self) -> Vec<String> {
        self.session
            .lock()
            .unwrap()
            .spec
            .as_ref()
            .unwrap()
            .command
            .clone()
    }

    /// Writes output.
    pub fn write(&self, stream: v1::Stream, data: &[u8]) {
        let mut session = self.session.lock().unwrap();
        for data in data.chunks(CHUNK) {
            let offset = session.log_end_offset;
            session.log_end_offset += i64::try_from(data.len()).unwrap();
            let data = Bytes::copy_from_slice(data);
            let output = v1::Output {
                offset,
                stream: stream.into(),
                time: time(4),
                data,
            };
            self.log.lock().unwrap().push(output);
        }
        drop(session);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Forgets output before this offset.
    pub fn evict(&self, before: i64) {
        self.log
            .lock()
            .unwrap()
            .retain(|output| output.offset >= before);
        self.session.lock().unwrap().log_start_offset = before;
    }

    pub fn end(&self, how: How) {
        let mut session = self.session.lock().unwrap();
        if session.exit.is_none() {
            session.exit = Some(v1::Exit { how: Some(how) });
            session.end_time = time(5);
            session.set_state(v1::session::State::Exited);
        }
        drop(session);
        self.changed.send_modify(|n| *n += 1);
    }

    pub fn start(&self) {
        let command = self.command();
        let argument = command.get(1).map(String::as_str).unwrap_or_default();
        let number = argument.parse::<i32>().unwrap_or_default();
        let stdout = |text: &str| self.write(v1::Stream::Stdout, text.as_bytes());
        match command
            .first()
            .map(String::as_str)
            .unwrap_or("image-command")
        {
            "echo" => stdout(&(command[1..].join(" ") + "\n")),
            "both" => {
                stdout("out\n");
                self.write(v1::Stream::Stderr, b"err\n");
            }
            "image-command" => stdout("the image's command\n"),
            "/bin/sh" if command.len() == 1 => stdout("a shell\n"),
            "env" => {
                let spec = self.session.lock().unwrap().spec.clone().unwrap();
                for (key, value) in &spec.env {
                    stdout(&format!("{key}={value}\n"));
                }
                stdout(&format!("user={} dir={}\n", spec.user, spec.working_dir));
            }
            "bytes" => {
                let length = usize::try_from(number).unwrap();
                self.write(v1::Stream::Stdout, &pattern(length));
            }
            "exit" => return self.end(How::Code(number)),
            "die" => return self.end(How::Signal(number)),
            "oom" => return self.end(How::OutOfMemory(true)),
            "deadline" => return self.end(How::Deadline(true)),
            "vm-gone" => return self.end(How::VmGone(true)),
            "terminal" => {
                let size = self.session.lock().unwrap().spec.as_ref().unwrap().terminal;
                match size {
                    Some(size) => stdout(&format!("size {} {}\r\n", size.rows, size.columns)),
                    None => stdout("no terminal\n"),
                }
                if size.is_some() {
                    return;
                }
            }
            "cat" | "sink" if self.session.lock().unwrap().spec.as_ref().unwrap().stdin => return,
            "cat" | "sink" => {}
            "sleep" => return stdout("ready\n"),
            other => panic!("no program called {other}"),
        }
        self.end(How::Code(0));
    }

    /// Takes standard input; how much was taken in all.
    pub fn stdin(&self, stdin: &v1::Stdin) -> Result<i64, Status> {
        let mut session = self.session.lock().unwrap();
        let skip = session.stdin_offset - stdin.offset;
        let Ok(skip) = usize::try_from(skip) else {
            return Err(refuse(
                Code::InvalidArgument,
                "STDIN_REFUSED",
                "a hole",
                &[],
            ));
        };
        let new = stdin.data.get(skip..).unwrap_or_default();
        session.stdin_offset += i64::try_from(new.len()).unwrap();
        let accepted = session.stdin_offset;
        drop(session);
        self.input.lock().unwrap().extend_from_slice(new);
        match self.command()[0].as_str() {
            "cat" => self.write(v1::Stream::Stdout, new),
            "terminal" => {
                self.write(v1::Stream::Stdout, new);
                if new.contains(&b'q') {
                    self.end(How::Code(0));
                }
            }
            _ => {}
        }
        Ok(accepted)
    }

    pub fn sent(&self, sent: Sent) -> Result<Option<i64>, Status> {
        match sent {
            Sent::Stdin(stdin) => return self.stdin(&stdin).map(Some),
            Sent::Close => {
                if self.command()[0] == "sink" {
                    let length = self.input.lock().unwrap().len();
                    self.write(v1::Stream::Stdout, format!("{length}\n").as_bytes());
                }
                if self.command()[0] != "sleep" {
                    self.end(How::Code(0));
                }
            }
            Sent::Resize(size) => {
                let text = format!("size {} {}\r\n", size.rows, size.columns);
                self.write(v1::Stream::Stdout, text.as_bytes());
            }
            Sent::Signal(signal) => self.signal(signal),
            Sent::Nothing => {}
        }
        Ok(None)
    }

    pub fn signal(&self, signal: i32) {
        self.signals.lock().unwrap().push(signal);
        if self.command().get(1).map(String::as_str) == Some("trap") && signal != 9 {
            return self.write(v1::Stream::Stdout, format!("signal {signal}\n").as_bytes());
        }
        self.end(How::Signal(signal));
    }

    /// What follows `offset`, or the exit; `None` if there is nothing yet.
    pub fn told(&self, offset: &mut i64) -> Option<Told> {
        let session = self.session.lock().unwrap();
        if *offset < session.log_start_offset {
            let gap = v1::Gap {
                offset: *offset,
                lost_bytes: session.log_start_offset - *offset,
            };
            *offset = session.log_start_offset;
            return Some(Told::Gap(gap));
        }
        let log = self.log.lock().unwrap();
        let index = log.partition_point(|output| output.offset + length(output) <= *offset);
        if let Some(output) = log.get(index) {
            let mut output = output.clone();
            let known = usize::try_from(*offset - output.offset).unwrap();
            drop(output.data.split_to(known));
            output.offset = *offset;
            *offset += length(&output);
            return Some(Told::Output(output));
        }
        let exit = session.exit?;
        Some(Told::Exited(v1::Exited {
            exit: Some(exit),
            end_offset: session.log_end_offset,
        }))
    }
}

fn length(output: &v1::Output) -> i64 {
    i64::try_from(output.data.len()).unwrap()
}

/// Bytes of every value, in an order that shows what is missing.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| u8::try_from((i * 31 + i / 256) % 256).unwrap())
        .collect()
}
