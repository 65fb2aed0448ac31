"""Every error of this package.

    BangerError
    ├── HostError              the address is no daemon's
    ├── ConnectError           nobody answers there
    │   └── TlsError           the two sides do not know each other by their certificates
    ├── RefusedError           the daemon said no; `code`, `reason` and `remedy` say why
    │   ├── NotFoundError
    │   ├── AlreadyExistsError
    │   ├── InvalidRequestError
    │   ├── WrongStateError
    │   ├── ExhaustedError
    │   └── CommandNotStarted  nothing of the command ran: a repeat is safe
    ├── ConnectionLost         the connection broke and did not come back
    ├── ProtocolError          the daemon said what the API does not allow
    ├── CommandFailed          the command ran
    │   ├── NonZeroExit
    │   ├── CommandTimeout
    │   ├── CommandOutOfMemory
    │   ├── VmGone
    │   └── OutputTooLong
    ├── InputClosed            the process takes no more standard input
    ├── OutputLost             output is no longer kept where it was to be read
    ├── FileTooLong
    ├── UnsafeDownload         the VM sent what no honest VM sends
    ├── ArchiveDamaged
    ├── WorkspaceError         a workspace could not be collected here, or could not land
    │   ├── ApplyRefused       something of yours is where something of the VM's would go
    │   ├── ApplyHalfway       some of it may have been applied; `way_back` says what leads back
    │   └── UnsafeWorkspace    the VM sent what no honest VM sends
    ├── LocalFileError         a file of this machine could not be read or written
    └── ForkedError            a client was used in a process forked from the one that made it

Programs decide by the class, by `reason` (docs/status-codes.md) and by `code_ran`, never by the text.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from banger._result import Result

__all__ = [
    "AlreadyExistsError",
    "ApplyRefused",
    "ArchiveDamaged",
    "BangerError",
    "CodeRan",
    "CommandFailed",
    "CommandNotStarted",
    "CommandOutOfMemory",
    "CommandTimeout",
    "ConnectError",
    "ConnectionLost",
    "ExhaustedError",
    "FileTooLong",
    "ForkedError",
    "HostError",
    "InputClosed",
    "InvalidRequestError",
    "LocalFileError",
    "NonZeroExit",
    "NotFoundError",
    "OutputLost",
    "OutputTooLong",
    "ProtocolError",
    "RefusedError",
    "TlsError",
    "UnsafeDownload",
    "UnsafeWorkspace",
    "Violation",
    "VmGone",
    "WorkspaceError",
    "WrongStateError",
]

_DETAILS_KEY = "grpc-status-details-bin"
# Codes that gRPC itself gives when a connection fails. The daemon's own errors always carry details.
_BREAKS = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED}
)
# Codes under which nothing ran, where the daemon does not say.
_NOTHING_RAN = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class CodeRan(enum.Enum):
    """Whether the code that the caller wanted run has run: decides if a repeat is safe."""

    NO = "no"
    MAYBE = "maybe"
    YES = "yes"


@dataclass(frozen=True)
class Violation:
    """A field at fault."""

    field: str
    description: str


class BangerError(Exception):
    """Anything that this package raises."""

    reason: str = ""
    """A stable word for programs."""
    code_ran: CodeRan = CodeRan.NO
    """Whether the code that the caller wanted run has run."""
    retryable: bool = False
    """Whether the same call may be made again, and may then succeed."""
    retry_after: float | None = None
    """Seconds to wait before a repeat, if the daemon said so."""
    request_id: str | None = None
    """The request id that was sent: a repeat with the same one is the same change, done once."""
    session_id: str | None = None
    """The session that it was about."""
    output_offset: int | None = None
    """The offset after the last byte of output that came of a command that was lost."""
    stdin_offset: int | None = None
    """How many bytes of its standard input the guest is known to have taken."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self._remedy = remedy
        self.metadata: dict[str, str] = {}
        """The dynamic words of the message."""

    @property
    def remedy(self) -> str | None:
        """What to do about it, as a sentence; None where nobody can know."""
        return self._remedy

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}. {self.remedy}"


class HostError(BangerError):
    """The address of the daemon cannot be used."""

    reason = "HOST_INVALID"


class ConnectError(BangerError):
    """No connection to the daemon was made."""

    reason = "DAEMON_UNREACHABLE"
    retryable = True


class TlsError(ConnectError):
    """The client and a daemon on another host do not know each other by their certificates; `reason` says why.

    One of TLS_SERVER_UNTRUSTED, TLS_SERVER_NAME_WRONG, TLS_SERVER_EXPIRED, TLS_CLIENT_UNTRUSTED, TLS_CLIENT_EXPIRED,
    TLS_CLIENT_REVOKED, TLS_CLIENT_REFUSED, TLS_NOT_SPOKEN, TLS_TURNED_AWAY.
    """

    reason = "TLS_CLIENT_REFUSED"
    retryable = False


class ForkedError(BangerError):
    """A client was used in a process that was forked from the one that made it.

    Connections do not survive fork(2). Connect after the fork, or start processes by `spawn`.
    """

    reason = "CLIENT_FORKED"


class RefusedError(BangerError):
    """The daemon answered with an error."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        remedy: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.code = code
        """gRPC's status code."""
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = list(violations)
        """Each field at fault."""
        self.retry_after = retry_after
        self.result: Result | None = None
        """What the command had written, where it was lost while output was collected."""
        said = self.metadata.get("code_ran")
        if said is None:
            self.code_ran = CodeRan.NO if code in _NOTHING_RAN else CodeRan.MAYBE
        else:
            self.code_ran = {"no": CodeRan.NO, "yes": CodeRan.YES}.get(said, CodeRan.MAYBE)
        self.retryable = retry_after is not None or code is grpc.StatusCode.UNAVAILABLE


class NotFoundError(RefusedError):
    """There is nothing of this name or id."""


class AlreadyExistsError(RefusedError):
    """The name is taken."""


class InvalidRequestError(RefusedError):
    """A field is missing or wrong; `violations` names it."""


class WrongStateError(RefusedError):
    """A state forbids it."""


class ExhaustedError(RefusedError):
    """Memory, disk or a count is used up."""


class CommandNotStarted(RefusedError):
    """Nothing of the command ran, and the daemon knows it: no such program, user or directory, or no room for it."""


class ConnectionLost(BangerError):
    """The connection broke, or nothing was heard over it, and it did not come back within the reconnect window.

    Where that is because of certificates, `reason` is that of the `TlsError` which a new client would get.
    """

    reason = "CONNECTION_LOST"
    code_ran = CodeRan.MAYBE

    def __init__(self, during: str, *, silent: float | None = None, code_ran: CodeRan = CodeRan.MAYBE) -> None:
        if silent is None:
            message = f"the connection to bangerd was lost during {during}"
        else:
            message = f"nothing was heard from bangerd for {silent:g} s during {during}"
            self.reason = "CONNECTION_SILENT"
        super().__init__(
            message,
            remedy="Check that bangerd runs and look at its log. VMs and sessions outlive it: "
            "list them before repeating.",
        )
        self.code_ran = code_ran
        self.metadata = {"during": during}
        self.result: Result | None = None
        """What the command had written, where output was collected."""

    def because(self, refused: TlsError) -> None:
        """It does not come back for this reason."""
        self.reason = refused.reason
        self.message = f"{self.message}: {refused.message}"
        self._remedy = refused.remedy
        self.metadata = {**self.metadata, **refused.metadata}


class ProtocolError(BangerError):
    """The daemon said something that the API does not allow."""

    reason = "PROTOCOL_BROKEN"
    code_ran = CodeRan.MAYBE

    def __init__(self, during: str, detail: str) -> None:
        super().__init__(
            f"bangerd broke the protocol during {during} ({detail})",
            remedy="Use a client and a daemon of the same version.",
        )
        self.metadata = {"during": during}


class CommandFailed(BangerError):
    """The command ran, at least in part, and did not end as it should have."""

    code_ran = CodeRan.YES

    def __init__(self, message: str, result: Result, *, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.result = result
        """What it wrote until then, and how it ended."""
        self.session_id = result.session_id


class NonZeroExit(CommandFailed):
    """It ended with another exit code than 0, or by a signal. Raised only where that was asked for."""

    reason = "NON_ZERO_EXIT"


class CommandTimeout(CommandFailed, TimeoutError):
    """Its time was over, and all its processes were killed."""

    reason = "COMMAND_TIMEOUT"


class CommandOutOfMemory(CommandFailed):
    """The guest's kernel killed it for want of memory."""

    reason = "COMMAND_OUT_OF_MEMORY"


class VmGone(CommandFailed):
    """The VM stopped while it ran: its result is unknown."""

    reason = "VM_GONE"
    code_ran = CodeRan.MAYBE


class OutputTooLong(CommandFailed):
    """It wrote more than was to be collected, and was killed."""

    reason = "OUTPUT_TOO_LONG"


class InputClosed(BangerError):
    """Standard input was written after the process ended or its input was closed."""

    reason = "INPUT_CLOSED"
    code_ran = CodeRan.YES

    def __init__(self) -> None:
        super().__init__("the process takes no more standard input")


class OutputLost(BangerError):
    """Output that was to be read is no longer kept. What follows it can be read."""

    reason = "OUTPUT_LOST"
    code_ran = CodeRan.YES

    def __init__(self, offset: int, lost_bytes: int) -> None:
        super().__init__(
            f"{lost_bytes} bytes of output, from offset {offset} on, are no longer kept",
            remedy="Read on for what follows, or attach with `hold`, so that the process waits for its reader.",
        )
        self.offset = offset
        """Of the first lost byte."""
        self.lost_bytes = lost_bytes
        self.metadata = {"offset": str(offset), "lost_bytes": str(lost_bytes)}


class FileTooLong(BangerError):
    """A file that was to be read at once is longer than the caller's bound."""

    reason = "FILE_TOO_LONG"

    def __init__(self, path: str, limit_bytes: int) -> None:
        super().__init__(
            f"`{path}` has more than {limit_bytes} bytes", remedy="Read the file in parts, or as a stream."
        )
        self.metadata = {"path": path, "limit_bytes": str(limit_bytes)}


class UnsafeDownload(BangerError):
    """What came out of a VM is what no honest VM sends, or more than may come."""

    reason = "DOWNLOAD_UNSAFE"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(
            f"the VM sent `{path}`, which {problem}",
            remedy="Nothing was written outside of the target. Look at the files in the VM before you take them.",
        )
        self.metadata = {"path": path}


class ArchiveDamaged(BangerError):
    """An archive that came from the daemon is damaged."""

    reason = "ARCHIVE_DAMAGED"

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"the archive of the files is damaged: {detail}",
            remedy="Get the files again; what was whole before is there.",
        )


class WorkspaceError(BangerError):
    """A workspace could not be collected on this machine, or could not land on it; `reason` says why.

    One of GIT_MISSING, GIT_FAILED, NO_REPOSITORY, REVISION_UNKNOWN, PATTERN_INVALID, WORKSPACE_MOVED, VM_NAME_INVALID,
    NOTHING_EXPORTED.
    """

    def __init__(self, message: str, *, reason: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


class ApplyRefused(WorkspaceError):
    """Something of the owner's is where something of the VM's would go; nothing was changed. `reason` is
    APPLY_REFUSED.
    """

    def __init__(self, message: str, *, remedy: str, paths: Sequence[str] = ()) -> None:
        super().__init__(message, reason="APPLY_REFUSED", remedy=remedy)
        self.paths = list(paths)
        """What is in the way, escaped."""


class ApplyHalfway(WorkspaceError):
    """An apply that had begun did not come to its end; some of it may have been applied. What was there is kept.
    `reason` is what it failed of, as GIT_FAILED.
    """

    def __init__(self, error: BangerError, way_back: Sequence[str]) -> None:
        commands = ", then ".join(f"`{command}`" for command in way_back)
        super().__init__(
            f"not all of the VM's work was applied, and some of it may have been: {error.message}",
            reason=error.reason,
            remedy=f"What was there is kept. The way back: {commands}.",
        )
        self.way_back = list(way_back)
        """Commands that lead back."""
        self.metadata = {"way_back": "\n".join(way_back)}


class UnsafeWorkspace(WorkspaceError):
    """What came of a workspace is what no honest VM sends, or more than may come; nothing of it is in the repository.

    `reason` is WORKSPACE_UNSAFE, or WORKSPACE_OBJECTS_REFUSED where git refused the objects.
    """


class LocalFileError(BangerError, OSError):
    """A file of this machine could not be read or written."""

    reason = "LOCAL_FILE"

    def __init__(self, path: str, verb: str, error: OSError) -> None:
        BangerError.__init__(self, f"could not {verb} `{path}`: {error.strerror or error}")
        self.errno = error.errno
        self.filename = path


_CLASSES: dict[grpc.StatusCode, type[RefusedError]] = {
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.FAILED_PRECONDITION: WrongStateError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExhaustedError,
}
_NOT_STARTED = frozenset(
    {
        "PROGRAM_NOT_FOUND",
        "PROGRAM_NOT_EXECUTABLE",
        "USER_NOT_FOUND",
        "WORKING_DIRECTORY_UNUSABLE",
        "ARGUMENTS_TOO_LONG",
        "PROCESS_NOT_STARTED",
        "TOO_MANY_SESSIONS",
    }
)


def from_status(status: Any) -> RefusedError:
    """The error that a `google.rpc.Status` stands for: of a failed operation, VM or call."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    reason = ""
    metadata: dict[str, str] = {}
    violations: list[Violation] = []
    retry_after: float | None = None
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
            metadata = dict(info.metadata)
        elif detail.Unpack(bad):
            violations = [Violation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    remedy = metadata.pop("remedy", None) or None
    kind = CommandNotStarted if reason in _NOT_STARTED else _CLASSES.get(code, RefusedError)
    return kind(
        status.message or code.value[1],
        code=code,
        reason=reason,
        remedy=remedy,
        metadata=metadata,
        violations=violations,
        retry_after=retry_after,
    )


def from_rpc_error(error: Any, during: str) -> BangerError:
    """The daemon's answer, or the break of the connection, that gRPC's error stands for."""
    code: grpc.StatusCode = error.code()
    trailing = error.trailing_metadata() or ()
    for key, value in trailing:
        if key == _DETAILS_KEY:
            status = status_pb2.Status()
            try:
                status.ParseFromString(value)
            except Exception:  # bytes that are no status: the code is all there is
                break
            return from_status(status)
    if code in _BREAKS:
        return ConnectionLost(during)
    status = status_pb2.Status(code=code.value[0], message=error.details() or "")
    return from_status(status)
