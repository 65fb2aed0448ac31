//! Sessions and what they write.

use std::collections::BTreeMap;

use banger_sdk::types::{self, exit::How};
use banger_sdk::{Event, VmEvent};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;

use super::{Vm, age, bytes, pairs, timestamp, word};
use crate::output::Row;
use crate::value::signal_name;

/// A session.
#[derive(Debug, Serialize)]
pub(crate) struct Session {
    id: String,
    vm_id: String,
    state: String,
    command: Vec<String>,
    env: BTreeMap<String, String>,
    working_dir: String,
    user: String,
    terminal: Option<Terminal>,
    stdin: bool,
    exit: Option<Exit>,
    pid: i32,
    start_time: Option<Timestamp>,
    end_time: Option<Timestamp>,
    log_start_offset: i64,
    log_end_offset: i64,
    stdin_offset: i64,
    usage: Option<Usage>,
}

/// What a session's processes use.
#[derive(Debug, Serialize)]
struct Usage {
    cpu_seconds: f64,
    memory_bytes: i64,
    process_count: i32,
}

impl Usage {
    fn cpu(&self) -> String {
        format!("{:.1} s", self.cpu_seconds)
    }

    fn memory(&self) -> String {
        bytes(self.memory_bytes)
    }
}

impl From<types::SessionUsage> for Usage {
    fn from(usage: types::SessionUsage) -> Self {
        let cpu = usage.cpu_time.unwrap_or_default();
        let cpu = std::time::Duration::try_from(cpu).unwrap_or_default();
        Self {
            cpu_seconds: cpu.as_secs_f64(),
            memory_bytes: usage.memory_bytes,
            process_count: usage.process_count,
        }
    }
}

/// The size of a terminal, in characters.
#[derive(Debug, Serialize)]
struct Terminal {
    rows: i32,
    columns: i32,
}

/// How a session ended: exactly one of the words `code`, `signal`, `out-of-memory`, `deadline`,
/// `vm-gone`, `unknown`, and the number of the first two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Exit {
    how: &'static str,
    code: Option<i32>,
    signal: Option<String>,
}

impl From<&types::Exit> for Exit {
    fn from(exit: &types::Exit) -> Self {
        let (how, code, signal) = match exit.how {
            Some(How::Code(code)) => ("code", Some(code), None),
            Some(How::Signal(signal)) => ("signal", None, Some(signal_name(signal))),
            Some(How::OutOfMemory(_)) => ("out-of-memory", None, None),
            Some(How::Deadline(_)) => ("deadline", None, None),
            Some(How::VmGone(_)) => ("vm-gone", None, None),
            None => ("unknown", None, None),
        };
        Self { how, code, signal }
    }
}

impl Exit {
    fn text(&self) -> String {
        match (&self.code, &self.signal) {
            (Some(code), _) => format!("code {code}"),
            (_, Some(signal)) => signal.clone(),
            _ => self.how.to_owned(),
        }
    }
}

impl From<types::Session> for Session {
    fn from(session: types::Session) -> Self {
        let state = word(session.state().as_str_name(), "STATE_");
        let spec = session.spec.unwrap_or_default();
        let terminal = |size: types::TerminalSize| Terminal {
            rows: size.rows,
            columns: size.columns,
        };
        Self {
            id: session.id,
            vm_id: session.vm_id,
            state,
            command: spec.command,
            env: spec.env.into_iter().collect(),
            working_dir: spec.working_dir,
            user: spec.user,
            terminal: spec.terminal.map(terminal),
            stdin: spec.stdin,
            exit: session.exit.as_ref().map(Exit::from),
            pid: session.pid,
            start_time: timestamp(session.start_time),
            end_time: timestamp(session.end_time),
            log_start_offset: session.log_start_offset,
            log_end_offset: session.log_end_offset,
            stdin_offset: session.stdin_offset,
            usage: session.usage.map(Usage::from),
        }
    }
}

impl Row for Session {
    const HEADINGS: &'static [&'static str] = &[
        "ID", "STATE", "EXIT", "CPU", "MEMORY", "COMMAND", "OUTPUT", "STARTED",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.state.clone(),
            self.exit.as_ref().map(Exit::text).unwrap_or_default(),
            self.usage.as_ref().map(Usage::cpu).unwrap_or_default(),
            self.usage.as_ref().map(Usage::memory).unwrap_or_default(),
            self.command.join(" ").escape_debug().to_string(),
            bytes(self.log_end_offset),
            age(self.start_time),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let size = |t: &Terminal| format!("{} rows, {} columns", t.rows, t.columns);
        vec![
            ("Id", self.id.clone()),
            ("VM", self.vm_id.clone()),
            ("State", self.state.clone()),
            (
                "Exit",
                self.exit.as_ref().map(Exit::text).unwrap_or_default(),
            ),
            ("Command", self.command.join(" ").escape_debug().to_string()),
            ("Directory", self.working_dir.clone()),
            ("User", self.user.clone()),
            ("Environment", pairs(&self.env)),
            (
                "Terminal",
                self.terminal.as_ref().map(size).unwrap_or_default(),
            ),
            ("Started", age(self.start_time)),
            ("Ended", age(self.end_time)),
            (
                "Processor time",
                self.usage.as_ref().map(Usage::cpu).unwrap_or_default(),
            ),
            (
                "Memory",
                self.usage.as_ref().map(Usage::memory).unwrap_or_default(),
            ),
            ("Output", bytes(self.log_end_offset)),
        ]
    }
}

/// One line of a stream in JSON, told apart by `type`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum StreamItem {
    /// Output of a session.
    Output {
        offset: i64,
        stream: String,
        time: Option<Timestamp>,
        data_base64: String,
    },
    /// Output of a console.
    Console { offset: i64, data_base64: String },
    /// Output that is no longer kept.
    Gap { offset: i64, lost_bytes: i64 },
    /// What a session's terminal shows.
    Screen { offset: i64, data_base64: String },
    /// The end of a session.
    Exited { exit: Exit },
    /// A VM as it is now.
    Vm { vm: Box<Vm> },
    /// The VM is deleted.
    Deleted,
}

impl From<Event> for StreamItem {
    fn from(event: Event) -> Self {
        match event {
            Event::Output(output) => Self::Output {
                offset: output.offset,
                stream: word(output.stream().as_str_name(), "STREAM_"),
                time: timestamp(output.time),
                data_base64: STANDARD.encode(&output.data),
            },
            Event::Gap(gap) => Self::Gap {
                offset: gap.offset,
                lost_bytes: gap.lost_bytes,
            },
            Event::Screen(screen) => Self::Screen {
                offset: screen.offset,
                data_base64: STANDARD.encode(&screen.data),
            },
            Event::Exited(exit) => Self::Exited {
                exit: Exit::from(&exit),
            },
        }
    }
}

impl From<types::ConsoleOutput> for StreamItem {
    fn from(output: types::ConsoleOutput) -> Self {
        Self::Console {
            offset: output.offset,
            data_base64: STANDARD.encode(&output.data),
        }
    }
}

impl From<VmEvent> for StreamItem {
    fn from(event: VmEvent) -> Self {
        match event {
            VmEvent::State(vm) => Self::Vm {
                vm: Box::new((*vm).into()),
            },
            VmEvent::Deleted => Self::Deleted,
        }
    }
}
