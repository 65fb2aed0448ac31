import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Stream(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STREAM_UNSPECIFIED: _ClassVar[Stream]
    STREAM_STDOUT: _ClassVar[Stream]
    STREAM_STDERR: _ClassVar[Stream]
STREAM_UNSPECIFIED: Stream
STREAM_STDOUT: Stream
STREAM_STDERR: Stream

class Session(_message.Message):
    __slots__ = ("id", "vm_id", "spec", "state", "exit", "pid", "start_time", "end_time", "log_start_offset", "log_end_offset", "stdin_offset")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Session.State]
        STATE_RUNNING: _ClassVar[Session.State]
        STATE_EXITED: _ClassVar[Session.State]
    STATE_UNSPECIFIED: Session.State
    STATE_RUNNING: Session.State
    STATE_EXITED: Session.State
    ID_FIELD_NUMBER: _ClassVar[int]
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    LOG_START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LOG_END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    STDIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    id: str
    vm_id: str
    spec: SessionSpec
    state: Session.State
    exit: Exit
    pid: int
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    log_start_offset: int
    log_end_offset: int
    stdin_offset: int
    def __init__(self, id: _Optional[str] = ..., vm_id: _Optional[str] = ..., spec: _Optional[_Union[SessionSpec, _Mapping]] = ..., state: _Optional[_Union[Session.State, str]] = ..., exit: _Optional[_Union[Exit, _Mapping]] = ..., pid: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., log_start_offset: _Optional[int] = ..., log_end_offset: _Optional[int] = ..., stdin_offset: _Optional[int] = ...) -> None: ...

class SessionSpec(_message.Message):
    __slots__ = ("command", "env", "working_dir", "user", "terminal", "stdin", "timeout")
    class EnvEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    WORKING_DIR_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TERMINAL_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    command: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.ScalarMap[str, str]
    working_dir: str
    user: str
    terminal: TerminalSize
    stdin: bool
    timeout: _duration_pb2.Duration
    def __init__(self, command: _Optional[_Iterable[str]] = ..., env: _Optional[_Mapping[str, str]] = ..., working_dir: _Optional[str] = ..., user: _Optional[str] = ..., terminal: _Optional[_Union[TerminalSize, _Mapping]] = ..., stdin: bool = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class TerminalSize(_message.Message):
    __slots__ = ("rows", "columns")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...

class Exit(_message.Message):
    __slots__ = ("code", "signal", "out_of_memory", "deadline", "vm_gone")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    VM_GONE_FIELD_NUMBER: _ClassVar[int]
    code: int
    signal: int
    out_of_memory: bool
    deadline: bool
    vm_gone: bool
    def __init__(self, code: _Optional[int] = ..., signal: _Optional[int] = ..., out_of_memory: bool = ..., deadline: bool = ..., vm_gone: bool = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("offset", "stream", "time", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    stream: Stream
    time: _timestamp_pb2.Timestamp
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., stream: _Optional[_Union[Stream, str]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Gap(_message.Message):
    __slots__ = ("offset", "lost_bytes")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    offset: int
    lost_bytes: int
    def __init__(self, offset: _Optional[int] = ..., lost_bytes: _Optional[int] = ...) -> None: ...

class Exited(_message.Message):
    __slots__ = ("exit", "end_offset")
    EXIT_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    exit: Exit
    end_offset: int
    def __init__(self, exit: _Optional[_Union[Exit, _Mapping]] = ..., end_offset: _Optional[int] = ...) -> None: ...

class Stdin(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class CloseStdin(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadOptions(_message.Message):
    __slots__ = ("offset", "end", "hold_process")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    HOLD_PROCESS_FIELD_NUMBER: _ClassVar[int]
    offset: int
    end: bool
    hold_process: bool
    def __init__(self, offset: _Optional[int] = ..., end: bool = ..., hold_process: bool = ...) -> None: ...
