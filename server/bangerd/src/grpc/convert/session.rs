//! Sessions: what to run, what is said, what is asked.

use banger_core::WriterId;
use banger_core::session::{
    AttachOptions, Backpressure, Exit, ReadFrom, Resource, ResourceLimit, Session, SessionEvent,
    SessionInput, SessionSpec, SessionState, SignalTarget, Stream, TerminalSize, Writing,
};
use banger_proto::v1;

use super::field::{self, int, span, time};
use crate::grpc::request::RequestError;

/// The signals that exist: signal(7).
const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;

pub(crate) fn session(session: &Session) -> v1::Session {
    use v1::session::State;
    let (state, exit) = match session.state {
        SessionState::Running => (State::Running, None),
        SessionState::Exited(exit) => (State::Exited, Some(self::exit(exit))),
    };
    v1::Session {
        id: session.id.to_string(),
        vm_id: session.vm.to_string(),
        spec: Some(spec(&session.spec)),
        state: state.into(),
        exit,
        pid: i32::try_from(session.pid).unwrap_or(0),
        start_time: Some(time(session.start_time)),
        end_time: session.end_time.map(time),
        log_start_offset: int(session.log_start_offset),
        log_end_offset: int(session.log_end_offset),
        stdin_offset: int(session.stdin_offset),
        usage: session.usage.map(|usage| v1::SessionUsage {
            cpu_time: Some(span(usage.cpu_time)),
            memory_bytes: int(usage.memory_bytes),
            process_count: i32::try_from(usage.process_count).unwrap_or(i32::MAX),
        }),
        spec_shortened: session.is_spec_shortened,
    }
}

fn spec(spec: &SessionSpec) -> v1::SessionSpec {
    let size = |size: TerminalSize| v1::TerminalSize {
        rows: size.rows.into(),
        columns: size.columns.into(),
    };
    v1::SessionSpec {
        command: spec.command.clone(),
        env: spec.env.clone(),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        terminal: spec.terminal.map(size),
        stdin: spec.stdin,
        timeout: spec.timeout.map(span),
        merge_output: spec.merge_output,
        umask: spec.umask.map(Into::into),
        limits: spec.limits.iter().map(limit).collect(),
        keep_children: spec.keep_children,
    }
}

pub(crate) fn exit(exit: Exit) -> v1::Exit {
    use v1::exit::How;
    let how = match exit {
        Exit::Code(code) => How::Code(code),
        Exit::Signal(signal) => How::Signal(signal),
        Exit::OutOfMemory => How::OutOfMemory(true),
        Exit::Deadline => How::Deadline(true),
        Exit::VmGone => How::VmGone(true),
    };
    v1::Exit { how: Some(how) }
}

/// What a caller wants to have run. Sizes of command and environment are the service's to check.
pub(crate) fn parse_spec(
    field: &'static str,
    spec: Option<v1::SessionSpec>,
) -> Result<SessionSpec, RequestError> {
    let spec = spec.ok_or_else(|| RequestError::missing(field))?;
    if spec.user.len() > field::CHUNK_MAX || spec.user.contains('\0') {
        return Err(RequestError::invalid(
            "spec.user",
            "is too long or has a zero byte",
        ));
    }
    Ok(SessionSpec {
        command: spec.command,
        env: spec.env,
        working_dir: spec.working_dir,
        user: spec.user,
        terminal: spec
            .terminal
            .map(|size| terminal_size("spec.terminal", size))
            .transpose()?,
        stdin: spec.stdin,
        timeout: spec
            .timeout
            .map(|timeout| field::positive_span("spec.timeout", &timeout))
            .transpose()?,
        merge_output: spec.merge_output,
        umask: spec.umask.map(umask).transpose()?,
        limits: limits(&spec.limits)?,
        keep_children: spec.keep_children,
    })
}

fn umask(umask: i32) -> Result<u16, RequestError> {
    let bits = u16::try_from(umask).ok().filter(|&umask| umask <= 0o777);
    bits.ok_or_else(|| {
        RequestError::invalid("spec.umask", format!("is {umask}, and may be 0 to 511"))
    })
}

const RESOURCES: [(v1::resource_limit::Resource, Resource); 9] = {
    use v1::resource_limit::Resource as Said;
    [
        (Said::Cpu, Resource::Cpu),
        (Said::Fsize, Resource::Fsize),
        (Said::Data, Resource::Data),
        (Said::Stack, Resource::Stack),
        (Said::Core, Resource::Core),
        (Said::Nofile, Resource::Nofile),
        (Said::As, Resource::As),
        (Said::Nproc, Resource::Nproc),
        (Said::Memlock, Resource::Memlock),
    ]
};

fn limit(limit: &ResourceLimit) -> v1::ResourceLimit {
    let said = RESOURCES
        .iter()
        .find(|(_, resource)| *resource == limit.resource);
    v1::ResourceLimit {
        resource: said.map_or(0, |(said, _)| i32::from(*said)),
        soft: limit.soft.map(int),
        hard: limit.hard.map(int),
    }
}

fn limits(asked: &[v1::ResourceLimit]) -> Result<Vec<ResourceLimit>, RequestError> {
    const FIELD: &str = "spec.limits";
    let mut limits = Vec::<ResourceLimit>::new();
    for limit in asked {
        let known = RESOURCES
            .iter()
            .find(|(said, _)| i32::from(*said) == limit.resource);
        let Some((_, resource)) = known else {
            return Err(RequestError::invalid(FIELD, "has one of no resource"));
        };
        if limits.iter().any(|other| other.resource == *resource) {
            return Err(RequestError::invalid(FIELD, "has two of one resource"));
        }
        let natural = |side: Option<i64>| side.map(|side| field::natural(FIELD, side)).transpose();
        let (soft, hard) = (natural(limit.soft)?, natural(limit.hard)?);
        if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            return Err(RequestError::invalid(
                FIELD,
                "has one whose soft side is above the hard one",
            ));
        }
        limits.push(ResourceLimit {
            resource: *resource,
            soft,
            hard,
        });
    }
    Ok(limits)
}

fn terminal_size(
    field: &'static str,
    size: v1::TerminalSize,
) -> Result<TerminalSize, RequestError> {
    let default = TerminalSize::default();
    let side = |given: i32, default: u16| match u16::try_from(given) {
        Ok(0) => Ok(default),
        Ok(side) => Ok(side),
        Err(_) => Err(RequestError::invalid(
            field,
            format!("has a side of {given}, and sides are 1 to 65535"),
        )),
    };
    Ok(TerminalSize {
        rows: side(size.rows, default.rows)?,
        columns: side(size.columns, default.columns)?,
    })
}

/// Where a reader begins.
pub(crate) fn options(options: Option<v1::ReadOptions>) -> Result<AttachOptions, RequestError> {
    use v1::read_options::From;
    let Some(options) = options else {
        return Ok(AttachOptions::default());
    };
    let from = match options.from {
        None | Some(From::End(false) | From::Screen(false)) => ReadFrom::Start,
        Some(From::End(true)) => ReadFrom::End,
        Some(From::Offset(offset)) => ReadFrom::Offset(field::natural("options.offset", offset)?),
        Some(From::TailBytes(bytes)) => {
            ReadFrom::TailBytes(field::natural("options.tail_bytes", bytes)?)
        }
        Some(From::TailLines(lines)) => ReadFrom::TailLines(tail_lines(lines)?),
        Some(From::Since(since)) => ReadFrom::Since(instant("options.since", since)?),
        Some(From::Screen(true)) => ReadFrom::Screen,
    };
    let backpressure = if options.hold_process {
        Backpressure::HoldProcess
    } else {
        Backpressure::DropOldest
    };
    Ok(AttachOptions {
        from,
        backpressure,
        ..AttachOptions::default()
    })
}

/// Where a reader of a log begins, which has no screen.
pub(crate) fn log_options(options: Option<v1::ReadOptions>) -> Result<AttachOptions, RequestError> {
    let options = self::options(options)?;
    if options.from == ReadFrom::Screen {
        let problem = "is for attaching only";
        return Err(RequestError::invalid("options.screen", problem));
    }
    Ok(options)
}

fn tail_lines(lines: i64) -> Result<u64, RequestError> {
    const FIELD: &str = "options.tail_lines";
    let lines = field::natural(FIELD, lines)?;
    let most = ReadFrom::LINES_MAX;
    if lines > most {
        let problem = format!("is {lines}, and may be {most}");
        return Err(RequestError::invalid(FIELD, problem));
    }
    Ok(lines)
}

fn instant(
    field: &'static str,
    time: prost_types::Timestamp,
) -> Result<banger_core::Timestamp, RequestError> {
    let known = banger_core::Timestamp::new(time.seconds, time.nanos);
    known.map_err(|_| RequestError::invalid(field, "is not a time"))
}

/// Whether who attaches writes.
pub(crate) fn writing(writing: i32) -> Result<Writing, RequestError> {
    match v1::Writing::try_from(writing) {
        Ok(v1::Writing::Unspecified | v1::Writing::Shared) => Ok(Writing::Shared),
        Ok(v1::Writing::Steal) => Ok(Writing::Steal),
        Ok(v1::Writing::None) => Ok(Writing::Nobody),
        Err(_) => Err(RequestError::invalid("start.writing", "is unknown")),
    }
}

/// Whose bytes are numbered by themselves.
pub(crate) fn writer(writer: &str) -> Result<Option<WriterId>, RequestError> {
    match writer {
        "" => Ok(None),
        writer => field::id("start.writer", writer).map(Some),
    }
}

/// A signal's number.
pub(crate) fn signal(field: &'static str, signal: i32) -> Result<i32, RequestError> {
    if SIGNALS.contains(&signal) {
        return Ok(signal);
    }
    Err(RequestError::invalid(
        field,
        format!("is {signal}, and signals are 1 to 64"),
    ))
}

/// Whom a signal is for.
pub(crate) fn signal_target(target: i32) -> Result<SignalTarget, RequestError> {
    use v1::signal_session_request::Target;
    match Target::try_from(target) {
        Ok(Target::Unspecified | Target::Group) => Ok(SignalTarget::Group),
        Ok(Target::Leader) => Ok(SignalTarget::Leader),
        Ok(Target::All) => Ok(SignalTarget::All),
        Err(_) => Err(RequestError::invalid("target", "is not a target")),
    }
}

/// A piece of standard input.
pub(crate) fn stdin(stdin: v1::Stdin) -> Result<SessionInput, RequestError> {
    Ok(SessionInput::Stdin {
        offset: field::natural("stdin.offset", stdin.offset)?,
        data: field::chunk("stdin.data", stdin.data)?,
    })
}

/// A new terminal size.
pub(crate) fn resize(size: v1::TerminalSize) -> Result<SessionInput, RequestError> {
    Ok(SessionInput::Resize(terminal_size("resize", size)?))
}

fn output(
    offset: u64,
    stream: Stream,
    at: banger_core::Timestamp,
    data: bytes::Bytes,
) -> v1::Output {
    let stream = match stream {
        Stream::Stdout => v1::Stream::Stdout,
        Stream::Stderr => v1::Stream::Stderr,
    };
    v1::Output {
        offset: int(offset),
        stream: stream.into(),
        time: Some(time(at)),
        data,
    }
}

fn exited(exit: Exit, end_offset: u64) -> v1::Exited {
    v1::Exited {
        exit: Some(self::exit(exit)),
        end_offset: int(end_offset),
    }
}

fn gap(offset: u64, lost_bytes: u64) -> v1::Gap {
    v1::Gap {
        offset: int(offset),
        lost_bytes: int(lost_bytes),
    }
}

/// What an attached reader is told.
pub(crate) fn attach_event(event: SessionEvent) -> v1::AttachSessionResponse {
    use v1::attach_session_response::Message;
    let (mut start_offset, mut stdin_offset) = (0, None);
    let message = match event {
        SessionEvent::Attached(attached) => {
            start_offset = int(attached.start_offset);
            stdin_offset = Some(int(attached.stdin_offset));
            Message::Attached(self::session(&attached.session))
        }
        SessionEvent::Screen { offset, data } => Message::Screen(v1::Screen {
            offset: int(offset),
            data,
        }),
        SessionEvent::Output {
            offset,
            stream,
            time,
            data,
        } => Message::Output(output(offset, stream, time, data)),
        SessionEvent::Gap { offset, lost_bytes } => Message::Gap(gap(offset, lost_bytes)),
        SessionEvent::StdinAck { offset } => Message::StdinAck(int(offset)),
        SessionEvent::Heartbeat => Message::Heartbeat(v1::Heartbeat {}),
        SessionEvent::Exited { exit, end_offset } => Message::Exited(exited(exit, end_offset)),
    };
    v1::AttachSessionResponse {
        message: Some(message),
        start_offset,
        stdin_offset,
    }
}

/// What a reader of a log is told; it writes nothing, so nothing is acknowledged.
pub(crate) fn log_event(event: SessionEvent) -> v1::ReadSessionLogResponse {
    use v1::read_session_log_response::Message;
    let mut start_offset = 0;
    let message = match event {
        SessionEvent::Attached(attached) => {
            start_offset = int(attached.start_offset);
            Message::Attached(self::session(&attached.session))
        }
        SessionEvent::Output {
            offset,
            stream,
            time,
            data,
        } => Message::Output(output(offset, stream, time, data)),
        SessionEvent::Gap { offset, lost_bytes } => Message::Gap(gap(offset, lost_bytes)),
        SessionEvent::StdinAck { .. } | SessionEvent::Screen { .. } | SessionEvent::Heartbeat => {
            Message::Heartbeat(v1::Heartbeat {})
        }
        SessionEvent::Exited { exit, end_offset } => Message::Exited(exited(exit, end_offset)),
    };
    v1::ReadSessionLogResponse {
        message: Some(message),
        start_offset,
    }
}

/// What the caller of an exec is told. Its process is held for a slow reader, so a gap breaks the promise.
pub(crate) fn exec_event(event: SessionEvent) -> Result<v1::ExecResponse, RequestError> {
    use v1::exec_response::Message;
    let message = match event {
        SessionEvent::Attached(attached) => Message::Started(self::session(&attached.session)),
        SessionEvent::Output {
            offset,
            stream,
            time,
            data,
        } => Message::Output(output(offset, stream, time, data)),
        SessionEvent::Gap { lost_bytes, .. } => {
            return Err(RequestError::OutputLost { lost_bytes });
        }
        SessionEvent::StdinAck { offset } => Message::StdinAck(int(offset)),
        // An exec begins at its first byte, where no screen is asked for.
        SessionEvent::Screen { .. } | SessionEvent::Heartbeat => {
            Message::Heartbeat(v1::Heartbeat {})
        }
        SessionEvent::Exited { exit, end_offset } => Message::Exited(exited(exit, end_offset)),
    };
    Ok(v1::ExecResponse {
        message: Some(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T>(result: Result<T, RequestError>) -> String {
        result
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn terminal_sizes_have_defaults_and_limits() {
        let size = |rows, columns| terminal_size("resize", v1::TerminalSize { rows, columns });
        assert_eq!(
            size(0, 0),
            Ok(TerminalSize {
                rows: 24,
                columns: 80
            })
        );
        assert_eq!(
            size(65535, 1),
            Ok(TerminalSize {
                rows: 65535,
                columns: 1
            })
        );
        assert_eq!(
            text(size(65536, 1)),
            "resize has a side of 65536, and sides are 1 to 65535"
        );
        assert!(size(1, -1).is_err());
    }

    #[test]
    fn signals_are_one_to_sixty_four() {
        assert_eq!((signal("signal", 1), signal("signal", 64)), (Ok(1), Ok(64)));
        for number in [0, -9, 65] {
            assert_eq!(
                text(signal("signal", number)),
                format!("signal is {number}, and signals are 1 to 64")
            );
        }
        assert_eq!(text(signal_target(9)), "target is not a target");
    }

    #[test]
    fn input_is_numbered_and_bounded() {
        let piece = |offset, length| {
            stdin(v1::Stdin {
                offset,
                data: vec![0; length].into(),
            })
        };
        assert!(piece(0, field::CHUNK_MAX).is_ok());
        assert_eq!(
            text(piece(0, field::CHUNK_MAX + 1)),
            "stdin.data has 1048577 bytes, and may have 1048576"
        );
        assert_eq!(
            text(piece(-1, 1)),
            "stdin.offset is -1, which is out of range"
        );
    }

    #[test]
    fn a_reader_begins_where_it_says() {
        use v1::read_options::From;
        let from = |from| {
            options(Some(v1::ReadOptions {
                from,
                hold_process: false,
            }))
            .map(|options| options.from)
        };
        assert_eq!(from(None), Ok(ReadFrom::Start));
        assert_eq!(from(Some(From::End(true))), Ok(ReadFrom::End));
        assert_eq!(from(Some(From::Offset(7))), Ok(ReadFrom::Offset(7)));
        assert_eq!(
            text(from(Some(From::Offset(-1)))),
            "options.offset is -1, which is out of range"
        );
    }

    #[test]
    fn output_is_not_copied() {
        let data = bytes::Bytes::from(vec![1, 2, 3]);
        let event = SessionEvent::Output {
            offset: 0,
            stream: Stream::Stdout,
            time: banger_core::Timestamp::UNIX_EPOCH,
            data: data.clone(),
        };
        let Some(v1::attach_session_response::Message::Output(output)) =
            attach_event(event).message
        else {
            panic!("output")
        };
        assert_eq!(output.data.as_ptr(), data.as_ptr());
    }

    #[test]
    fn lost_output_of_an_exec_is_an_error() {
        let gap = SessionEvent::Gap {
            offset: 0,
            lost_bytes: 5,
        };
        assert_eq!(
            exec_event(gap),
            Err(RequestError::OutputLost { lost_bytes: 5 })
        );
    }
}
