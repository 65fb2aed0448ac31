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

class Writing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WRITING_UNSPECIFIED: _ClassVar[Writing]
    WRITING_SHARED: _ClassVar[Writing]
    WRITING_STEAL: _ClassVar[Writing]
    WRITING_NONE: _ClassVar[Writing]
STREAM_UNSPECIFIED: Stream
STREAM_STDOUT: Stream
STREAM_STDERR: Stream
WRITING_UNSPECIFIED: Writing
WRITING_SHARED: Writing
WRITING_STEAL: Writing
WRITING_NONE: Writing

class Session(_message.Message):
    __slots__ = ("id", "vm_id", "spec", "state", "exit", "pid", "start_time", "end_time", "log_start_offset", "log_end_offset", "stdin_offset", "usage", "spec_shortened")
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
    USAGE_FIELD_NUMBER: _ClassVar[int]
    SPEC_SHORTENED_FIELD_NUMBER: _ClassVar[int]
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
    usage: SessionUsage
    spec_shortened: bool
    def __init__(self, id: _Optional[str] = ..., vm_id: _Optional[str] = ..., spec: _Optional[_Union[SessionSpec, _Mapping]] = ..., state: _Optional[_Union[Session.State, str]] = ..., exit: _Optional[_Union[Exit, _Mapping]] = ..., pid: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., log_start_offset: _Optional[int] = ..., log_end_offset: _Optional[int] = ..., stdin_offset: _Optional[int] = ..., usage: _Optional[_Union[SessionUsage, _Mapping]] = ..., spec_shortened: bool = ...) -> None: ...

class SessionUsage(_message.Message):
    __slots__ = ("cpu_time", "memory_bytes", "process_count")
    CPU_TIME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROCESS_COUNT_FIELD_NUMBER: _ClassVar[int]
    cpu_time: _duration_pb2.Duration
    memory_bytes: int
    process_count: int
    def __init__(self, cpu_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., memory_bytes: _Optional[int] = ..., process_count: _Optional[int] = ...) -> None: ...

class SessionSpec(_message.Message):
    __slots__ = ("command", "env", "working_dir", "user", "terminal", "stdin", "timeout", "merge_output", "umask", "limits", "keep_children")
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
    MERGE_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    UMASK_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    KEEP_CHILDREN_FIELD_NUMBER: _ClassVar[int]
    command: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.ScalarMap[str, str]
    working_dir: str
    user: str
    terminal: TerminalSize
    stdin: bool
    timeout: _duration_pb2.Duration
    merge_output: bool
    umask: int
    limits: _containers.RepeatedCompositeFieldContainer[ResourceLimit]
    keep_children: bool
    def __init__(self, command: _Optional[_Iterable[str]] = ..., env: _Optional[_Mapping[str, str]] = ..., working_dir: _Optional[str] = ..., user: _Optional[str] = ..., terminal: _Optional[_Union[TerminalSize, _Mapping]] = ..., stdin: bool = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., merge_output: bool = ..., umask: _Optional[int] = ..., limits: _Optional[_Iterable[_Union[ResourceLimit, _Mapping]]] = ..., keep_children: bool = ...) -> None: ...

class ResourceLimit(_message.Message):
    __slots__ = ("resource", "soft", "hard")
    class Resource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RESOURCE_UNSPECIFIED: _ClassVar[ResourceLimit.Resource]
        RESOURCE_CPU: _ClassVar[ResourceLimit.Resource]
        RESOURCE_FSIZE: _ClassVar[ResourceLimit.Resource]
        RESOURCE_DATA: _ClassVar[ResourceLimit.Resource]
        RESOURCE_STACK: _ClassVar[ResourceLimit.Resource]
        RESOURCE_CORE: _ClassVar[ResourceLimit.Resource]
        RESOURCE_NOFILE: _ClassVar[ResourceLimit.Resource]
        RESOURCE_AS: _ClassVar[ResourceLimit.Resource]
        RESOURCE_NPROC: _ClassVar[ResourceLimit.Resource]
        RESOURCE_MEMLOCK: _ClassVar[ResourceLimit.Resource]
    RESOURCE_UNSPECIFIED: ResourceLimit.Resource
    RESOURCE_CPU: ResourceLimit.Resource
    RESOURCE_FSIZE: ResourceLimit.Resource
    RESOURCE_DATA: ResourceLimit.Resource
    RESOURCE_STACK: ResourceLimit.Resource
    RESOURCE_CORE: ResourceLimit.Resource
    RESOURCE_NOFILE: ResourceLimit.Resource
    RESOURCE_AS: ResourceLimit.Resource
    RESOURCE_NPROC: ResourceLimit.Resource
    RESOURCE_MEMLOCK: ResourceLimit.Resource
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    SOFT_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    resource: ResourceLimit.Resource
    soft: int
    hard: int
    def __init__(self, resource: _Optional[_Union[ResourceLimit.Resource, str]] = ..., soft: _Optional[int] = ..., hard: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("offset", "end", "tail_bytes", "tail_lines", "since", "screen", "hold_process")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TAIL_BYTES_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    SCREEN_FIELD_NUMBER: _ClassVar[int]
    HOLD_PROCESS_FIELD_NUMBER: _ClassVar[int]
    offset: int
    end: bool
    tail_bytes: int
    tail_lines: int
    since: _timestamp_pb2.Timestamp
    screen: bool
    hold_process: bool
    def __init__(self, offset: _Optional[int] = ..., end: bool = ..., tail_bytes: _Optional[int] = ..., tail_lines: _Optional[int] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., screen: bool = ..., hold_process: bool = ...) -> None: ...

class Screen(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...
