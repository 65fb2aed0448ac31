from banger.v1 import operation_pb2 as _operation_pb2
from banger.v1 import session_pb2 as _session_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StartSessionRequest(_message.Message):
    __slots__ = ("vm", "spec", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    spec: _session_pb2.SessionSpec
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., spec: _Optional[_Union[_session_pb2.SessionSpec, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class StartSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.Session
    def __init__(self, session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ...) -> None: ...

class GetSessionRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class GetSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.Session
    def __init__(self, session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("vm", "page_size", "page_token")
    VM_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    vm: str
    page_size: int
    page_token: str
    def __init__(self, vm: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[_session_pb2.Session]
    next_page_token: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[_session_pb2.Session, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class AttachSessionRequest(_message.Message):
    __slots__ = ("start", "stdin", "close_stdin", "resize")
    START_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_STDIN_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    start: AttachSessionStart
    stdin: _session_pb2.Stdin
    close_stdin: _session_pb2.CloseStdin
    resize: _session_pb2.TerminalSize
    def __init__(self, start: _Optional[_Union[AttachSessionStart, _Mapping]] = ..., stdin: _Optional[_Union[_session_pb2.Stdin, _Mapping]] = ..., close_stdin: _Optional[_Union[_session_pb2.CloseStdin, _Mapping]] = ..., resize: _Optional[_Union[_session_pb2.TerminalSize, _Mapping]] = ...) -> None: ...

class AttachSessionStart(_message.Message):
    __slots__ = ("session", "options", "writing", "writer")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    WRITING_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    session: str
    options: _session_pb2.ReadOptions
    writing: _session_pb2.Writing
    writer: str
    def __init__(self, session: _Optional[str] = ..., options: _Optional[_Union[_session_pb2.ReadOptions, _Mapping]] = ..., writing: _Optional[_Union[_session_pb2.Writing, str]] = ..., writer: _Optional[str] = ...) -> None: ...

class AttachSessionResponse(_message.Message):
    __slots__ = ("attached", "output", "gap", "stdin_ack", "heartbeat", "exited", "screen", "start_offset", "stdin_offset")
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    STDIN_ACK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    EXITED_FIELD_NUMBER: _ClassVar[int]
    SCREEN_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    STDIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    attached: _session_pb2.Session
    output: _session_pb2.Output
    gap: _session_pb2.Gap
    stdin_ack: int
    heartbeat: _operation_pb2.Heartbeat
    exited: _session_pb2.Exited
    screen: _session_pb2.Screen
    start_offset: int
    stdin_offset: int
    def __init__(self, attached: _Optional[_Union[_session_pb2.Session, _Mapping]] = ..., output: _Optional[_Union[_session_pb2.Output, _Mapping]] = ..., gap: _Optional[_Union[_session_pb2.Gap, _Mapping]] = ..., stdin_ack: _Optional[int] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ..., exited: _Optional[_Union[_session_pb2.Exited, _Mapping]] = ..., screen: _Optional[_Union[_session_pb2.Screen, _Mapping]] = ..., start_offset: _Optional[int] = ..., stdin_offset: _Optional[int] = ...) -> None: ...

class ReadSessionLogRequest(_message.Message):
    __slots__ = ("session", "options", "follow")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    session: str
    options: _session_pb2.ReadOptions
    follow: bool
    def __init__(self, session: _Optional[str] = ..., options: _Optional[_Union[_session_pb2.ReadOptions, _Mapping]] = ..., follow: bool = ...) -> None: ...

class ReadSessionLogResponse(_message.Message):
    __slots__ = ("attached", "output", "gap", "heartbeat", "exited", "start_offset")
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    EXITED_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    attached: _session_pb2.Session
    output: _session_pb2.Output
    gap: _session_pb2.Gap
    heartbeat: _operation_pb2.Heartbeat
    exited: _session_pb2.Exited
    start_offset: int
    def __init__(self, attached: _Optional[_Union[_session_pb2.Session, _Mapping]] = ..., output: _Optional[_Union[_session_pb2.Output, _Mapping]] = ..., gap: _Optional[_Union[_session_pb2.Gap, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ..., exited: _Optional[_Union[_session_pb2.Exited, _Mapping]] = ..., start_offset: _Optional[int] = ...) -> None: ...

class SignalSessionRequest(_message.Message):
    __slots__ = ("session", "signal", "target")
    class Target(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TARGET_UNSPECIFIED: _ClassVar[SignalSessionRequest.Target]
        TARGET_GROUP: _ClassVar[SignalSessionRequest.Target]
        TARGET_LEADER: _ClassVar[SignalSessionRequest.Target]
        TARGET_ALL: _ClassVar[SignalSessionRequest.Target]
    TARGET_UNSPECIFIED: SignalSessionRequest.Target
    TARGET_GROUP: SignalSessionRequest.Target
    TARGET_LEADER: SignalSessionRequest.Target
    TARGET_ALL: SignalSessionRequest.Target
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    session: str
    signal: int
    target: SignalSessionRequest.Target
    def __init__(self, session: _Optional[str] = ..., signal: _Optional[int] = ..., target: _Optional[_Union[SignalSessionRequest.Target, str]] = ...) -> None: ...

class SignalSessionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WaitSessionRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class WaitSessionResponse(_message.Message):
    __slots__ = ("exit",)
    EXIT_FIELD_NUMBER: _ClassVar[int]
    exit: _session_pb2.Exit
    def __init__(self, exit: _Optional[_Union[_session_pb2.Exit, _Mapping]] = ...) -> None: ...

class DeleteSessionRequest(_message.Message):
    __slots__ = ("session", "request_id")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session: str
    request_id: str
    def __init__(self, session: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteSessionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExecRequest(_message.Message):
    __slots__ = ("start", "stdin", "close_stdin", "resize", "signal")
    START_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_STDIN_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    start: ExecStart
    stdin: _session_pb2.Stdin
    close_stdin: _session_pb2.CloseStdin
    resize: _session_pb2.TerminalSize
    signal: int
    def __init__(self, start: _Optional[_Union[ExecStart, _Mapping]] = ..., stdin: _Optional[_Union[_session_pb2.Stdin, _Mapping]] = ..., close_stdin: _Optional[_Union[_session_pb2.CloseStdin, _Mapping]] = ..., resize: _Optional[_Union[_session_pb2.TerminalSize, _Mapping]] = ..., signal: _Optional[int] = ...) -> None: ...

class ExecStart(_message.Message):
    __slots__ = ("vm", "spec")
    VM_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    vm: str
    spec: _session_pb2.SessionSpec
    def __init__(self, vm: _Optional[str] = ..., spec: _Optional[_Union[_session_pb2.SessionSpec, _Mapping]] = ...) -> None: ...

class ExecResponse(_message.Message):
    __slots__ = ("started", "output", "stdin_ack", "heartbeat", "exited")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    STDIN_ACK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    EXITED_FIELD_NUMBER: _ClassVar[int]
    started: _session_pb2.Session
    output: _session_pb2.Output
    stdin_ack: int
    heartbeat: _operation_pb2.Heartbeat
    exited: _session_pb2.Exited
    def __init__(self, started: _Optional[_Union[_session_pb2.Session, _Mapping]] = ..., output: _Optional[_Union[_session_pb2.Output, _Mapping]] = ..., stdin_ack: _Optional[int] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ..., exited: _Optional[_Union[_session_pb2.Exited, _Mapping]] = ...) -> None: ...
