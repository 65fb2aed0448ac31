//! Between the domain and the messages of the protocol. From the guest everything is checked on the way.

use std::time::Duration;

use banger_core::guest::{GuestConfig, GuestError, GuestIdentity, GuestInfo, GuestVolume};
use banger_core::session::{
    AttachOptions, Backpressure, Exit, ReadFrom, Resource, ResourceLimit, Session, SessionInput,
    SessionSpec, SessionState, SessionUsage, SignalTarget, Stream, TerminalSize, Writing,
};
use banger_core::size::counted;
use banger_core::{SessionId, Timestamp, VmId};
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::attach_session_request::Message as Sent;
use banger_proto::guest::v1::exit::How;
use banger_proto::guest::v1::read_options::From as From_;

use crate::judge::{bounded, broken};
use crate::limits::{
    AMOUNT_MAX_BYTES, BOOT_STEPS_MAX, LABEL_MAX_BYTES, PROCESSES_MAX, SESSIONS_MAX, TEXT_MAX_BYTES,
    TIME_MAX,
};

type Checked<T> = Result<T, GuestError>;

/// An offset in the form of the protocol. Offsets come from the guest or count bytes, so none is larger.
pub(crate) fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

/// An offset of the guest's.
pub(crate) fn offset(value: i64, what: &str) -> Checked<u64> {
    u64::try_from(value).map_err(|_| broken(format!("{what} is negative")))
}

pub(crate) fn required<T>(field: Option<T>, what: &str) -> Checked<T> {
    field.ok_or_else(|| broken(format!("{what} is missing")))
}

pub(crate) fn config(config: &GuestConfig, now: Timestamp) -> proto::ConfigureRequest {
    proto::ConfigureRequest {
        hostname: config.hostname.clone(),
        env: config.env.clone(),
        keep_pristine: config.keep_pristine,
        user: config.user.clone(),
        working_dir: config.working_dir.clone(),
        network: config.network.as_ref().map(|network| proto::Network {
            address: network.address.clone(),
            gateway: network.gateway.clone(),
            dns: network.dns.clone(),
        }),
        time: Some(prost_types::Timestamp {
            seconds: now.as_second(),
            nanos: now.subsec_nanosecond(),
        }),
        volumes: config.volumes.iter().map(volume).collect(),
    }
}

fn volume(volume: &GuestVolume) -> proto::VolumeMount {
    proto::VolumeMount {
        serial: volume.serial.clone(),
        path: volume.path.clone(),
        read_only: volume.read_only,
    }
}

pub(crate) fn identity(identity: &GuestIdentity) -> proto::SetIdentityRequest {
    let files = identity.files.iter().map(|file| proto::IdentityFile {
        path: file.path.clone(),
        mode: file.mode.into(),
        content: file.content.reveal().clone(),
    });
    proto::SetIdentityRequest {
        user: identity.user.clone(),
        git_name: identity.git_name.clone(),
        git_email: identity.git_email.clone(),
        authorized_keys: identity.ssh_authorized_keys.clone(),
        files: files.collect(),
    }
}

pub(crate) fn spec(spec: &SessionSpec) -> proto::SessionSpec {
    proto::SessionSpec {
        command: spec.command.clone(),
        env: spec.env.clone(),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        terminal: spec.terminal.map(size),
        stdin: spec.stdin,
        // Longer than the protocol can say is never.
        timeout: spec
            .timeout
            .and_then(|timeout| prost_types::Duration::try_from(timeout).ok()),
        merge_output: spec.merge_output,
        umask: spec.umask.map(Into::into),
        limits: spec.limits.iter().map(limit).collect(),
        keep_children: spec.keep_children,
    }
}

/// Whether an agent of the first generation would start something else than what is asked.
pub(crate) fn needs_second_generation(spec: &SessionSpec) -> bool {
    spec.merge_output || spec.umask.is_some() || !spec.limits.is_empty() || spec.keep_children
}

fn limit(limit: &ResourceLimit) -> proto::ResourceLimit {
    proto::ResourceLimit {
        resource: limit.resource.number(),
        soft: limit.soft,
        hard: limit.hard,
    }
}

fn size(size: TerminalSize) -> proto::TerminalSize {
    proto::TerminalSize {
        rows: size.rows.into(),
        columns: size.columns.into(),
    }
}

pub(crate) fn options(options: AttachOptions) -> proto::ReadOptions {
    proto::ReadOptions {
        from: match options.from {
            ReadFrom::Start => None,
            ReadFrom::End => Some(From_::End(true)),
            ReadFrom::Offset(offset) => Some(From_::Offset(signed(offset))),
            ReadFrom::TailBytes(bytes) => Some(From_::TailBytes(signed(bytes))),
            ReadFrom::TailLines(lines) => Some(From_::TailLines(signed(lines))),
            ReadFrom::Since(since) => Some(From_::Since(prost_types::Timestamp {
                seconds: since.as_second(),
                nanos: since.subsec_nanosecond(),
            })),
            ReadFrom::Screen => Some(From_::Screen(true)),
        },
        hold_process: options.backpressure == Backpressure::HoldProcess,
    }
}

/// Whether an agent of the first generation would serve a reader otherwise than it asks.
pub(crate) fn needs_newer_reader(options: AttachOptions) -> bool {
    use ReadFrom::{End, Offset, Start};
    !matches!(options.from, Start | End | Offset(_)) || options.writing != Writing::Shared
}

pub(crate) fn writing(writing: Writing) -> proto::Writing {
    match writing {
        Writing::Shared => proto::Writing::Unspecified,
        Writing::Steal => proto::Writing::Steal,
        Writing::Nobody => proto::Writing::None,
    }
}

pub(crate) fn input(input: SessionInput) -> proto::AttachSessionRequest {
    let message = match input {
        SessionInput::Stdin { offset, data } => Sent::Stdin(proto::Stdin {
            offset: signed(offset),
            data,
        }),
        SessionInput::CloseStdin => Sent::CloseStdin(proto::CloseStdin {}),
        SessionInput::Resize(to) => Sent::Resize(size(to)),
    };
    proto::AttachSessionRequest {
        message: Some(message),
    }
}

pub(crate) fn target(target: SignalTarget) -> proto::SignalTarget {
    match target {
        SignalTarget::Group => proto::SignalTarget::Group,
        SignalTarget::Leader => proto::SignalTarget::Leader,
        SignalTarget::All => proto::SignalTarget::All,
    }
}

pub(crate) fn info(hello: proto::HelloResponse, generation: u32) -> Checked<GuestInfo> {
    if hello.boot_steps.len() > BOOT_STEPS_MAX {
        return Err(broken("it tells of too many boot steps"));
    }
    let steps = hello.boot_steps.into_iter().map(|step| {
        let time = duration(required(step.duration, "a boot step's duration")?)?;
        Ok((label(step.name, "a boot step's name")?, time))
    });
    Ok(GuestInfo {
        generation,
        boot_steps: steps.collect::<Checked<_>>()?,
        agent_version: label(hello.agent_version, "the agent's version")?,
        kernel_release: label(hello.kernel_release, "the kernel's release")?,
        boot_id: label(hello.boot_id, "the boot id")?,
        is_configured: hello.is_configured,
    })
}

fn label(text: String, what: &str) -> Checked<String> {
    if text.len() > LABEL_MAX_BYTES {
        return Err(broken(format!("{what} is too long")));
    }
    Ok(bounded(&text))
}

fn duration(duration: prost_types::Duration) -> Checked<Duration> {
    Duration::try_from(duration).map_err(|_| broken("a duration is negative"))
}

pub(crate) fn time(time: prost_types::Timestamp) -> Checked<Timestamp> {
    if !(0..1_000_000_000).contains(&time.nanos) {
        return Err(broken("a time is malformed"));
    }
    Timestamp::new(time.seconds, time.nanos).map_err(|_| broken("a time is out of range"))
}

pub(crate) fn stream(number: i32, has_terminal: bool) -> Checked<Stream> {
    match proto::Stream::try_from(number) {
        Ok(proto::Stream::Stdout) => Ok(Stream::Stdout),
        Ok(proto::Stream::Stderr) if !has_terminal => Ok(Stream::Stderr),
        _ => Err(broken("output is of an impossible stream")),
    }
}

pub(crate) fn exit(exit: proto::Exit) -> Checked<Exit> {
    match required(exit.how, "how a session ended")? {
        How::Code(code @ 0..=255) => Ok(Exit::Code(code)),
        How::Signal(signal @ 1..=64) => Ok(Exit::Signal(signal)),
        How::OutOfMemory(_) => Ok(Exit::OutOfMemory),
        How::Deadline(_) => Ok(Exit::Deadline),
        How::Code(_) | How::Signal(_) => Err(broken("a session ended in an impossible way")),
    }
}

pub(crate) fn sessions(list: Vec<proto::Session>, vm: VmId) -> Checked<Vec<Session>> {
    if list.len() > SESSIONS_MAX {
        return Err(broken("it lists too many sessions"));
    }
    list.into_iter().map(|one| session(one, vm, None)).collect()
}

/// A session of the guest's; `expected` is the id that was asked for.
pub(crate) fn session(
    session: proto::Session,
    vm: VmId,
    expected: Option<SessionId>,
) -> Checked<Session> {
    let id = session
        .id
        .parse()
        .map_err(|_| broken("a session's id is malformed"))?;
    if expected.is_some_and(|expected| expected != id) {
        return Err(broken("it answers for another session"));
    }
    let log_start_offset = offset(session.log_start_offset, "a log's start")?;
    let log_end_offset = offset(session.log_end_offset, "a log's end")?;
    if log_start_offset > log_end_offset {
        return Err(broken("a log ends before it starts"));
    }
    let state = match session.exit {
        None => SessionState::Running,
        Some(how) => SessionState::Exited(exit(how)?),
    };
    Ok(Session {
        id,
        vm,
        spec: guest_spec(required(session.spec, "a session's spec")?)?,
        state,
        pid: u32::try_from(session.pid).map_err(|_| broken("a pid is negative"))?,
        start_time: time(required(session.start_time, "a session's start")?)?,
        end_time: session.end_time.map(time).transpose()?,
        log_start_offset,
        log_end_offset,
        stdin_offset: offset(session.stdin_offset, "a standard input offset")?,
        usage: session.usage.map(usage).transpose()?,
        is_spec_shortened: session.is_spec_shortened,
    })
}

fn usage(usage: proto::SessionUsage) -> Checked<SessionUsage> {
    let cpu_time = duration(required(usage.cpu_time, "a processor time")?)?;
    let memory_bytes = offset(usage.memory_bytes, "an amount of memory")?;
    let process_count = u32::try_from(usage.process_count).ok();
    let process_count = process_count.filter(|&count| count <= PROCESSES_MAX);
    if cpu_time > TIME_MAX || memory_bytes > AMOUNT_MAX_BYTES {
        return Err(broken("a session uses more than there is"));
    }
    Ok(SessionUsage {
        cpu_time,
        memory_bytes,
        process_count: process_count
            .ok_or_else(|| broken("a number of processes is impossible"))?,
    })
}

/// A limit that was asked for, told again.
fn guest_limit(limit: &proto::ResourceLimit) -> Checked<ResourceLimit> {
    let known = Resource::ALL
        .into_iter()
        .find(|known| known.number() == limit.resource);
    Ok(ResourceLimit {
        resource: known.ok_or_else(|| broken("a limit is of no resource"))?,
        soft: limit.soft,
        hard: limit.hard,
    })
}

fn guest_spec(spec: proto::SessionSpec) -> Checked<SessionSpec> {
    if spec.command.is_empty() {
        return Err(broken("a session's command has an impossible length"));
    }
    let words = spec.command.iter().map(String::len);
    let variables = spec.env.iter();
    let variables = variables.map(|(name, value)| name.len() + value.len());
    let others = [spec.working_dir.len(), spec.user.len()];
    if counted(words.chain(variables).chain(others)) > TEXT_MAX_BYTES {
        return Err(broken("a session's spec is too long"));
    }
    if spec.limits.len() > Resource::ALL.len() {
        return Err(broken("a session has too many limits"));
    }
    let umask = spec.umask.map(|umask| {
        let bits = u16::try_from(umask).ok().filter(|&umask| umask <= 0o777);
        bits.ok_or_else(|| broken("a umask is impossible"))
    });
    Ok(SessionSpec {
        merge_output: spec.merge_output,
        umask: umask.transpose()?,
        limits: spec
            .limits
            .iter()
            .map(guest_limit)
            .collect::<Checked<_>>()?,
        keep_children: spec.keep_children,
        command: spec.command,
        env: spec.env,
        working_dir: spec.working_dir,
        user: spec.user,
        terminal: spec.terminal.map(guest_size).transpose()?,
        stdin: spec.stdin,
        timeout: spec.timeout.map(duration).transpose()?,
    })
}

fn guest_size(size: proto::TerminalSize) -> Checked<TerminalSize> {
    let cells = |count: i32| {
        u16::try_from(count)
            .ok()
            .filter(|&count| count > 0)
            .ok_or_else(|| broken("a terminal has an impossible size"))
    };
    Ok(TerminalSize {
        rows: cells(size.rows)?,
        columns: cells(size.columns)?,
    })
}
