import datetime

from banger.v1 import operation_pb2 as _operation_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ForwardRequest(_message.Message):
    __slots__ = ("start", "data", "end", "taken")
    START_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    start: ForwardStart
    data: bytes
    end: TunnelEnd
    taken: int
    def __init__(self, start: _Optional[_Union[ForwardStart, _Mapping]] = ..., data: _Optional[bytes] = ..., end: _Optional[_Union[TunnelEnd, _Mapping]] = ..., taken: _Optional[int] = ...) -> None: ...

class ForwardStart(_message.Message):
    __slots__ = ("vm", "tcp", "unix_path", "ssh", "connect_timeout")
    VM_FIELD_NUMBER: _ClassVar[int]
    TCP_FIELD_NUMBER: _ClassVar[int]
    UNIX_PATH_FIELD_NUMBER: _ClassVar[int]
    SSH_FIELD_NUMBER: _ClassVar[int]
    CONNECT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    vm: str
    tcp: TcpTarget
    unix_path: str
    ssh: SshTarget
    connect_timeout: _duration_pb2.Duration
    def __init__(self, vm: _Optional[str] = ..., tcp: _Optional[_Union[TcpTarget, _Mapping]] = ..., unix_path: _Optional[str] = ..., ssh: _Optional[_Union[SshTarget, _Mapping]] = ..., connect_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class TcpTarget(_message.Message):
    __slots__ = ("address", "port")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    address: str
    port: int
    def __init__(self, address: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class SshTarget(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TunnelEnd(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ForwardResponse(_message.Message):
    __slots__ = ("connected", "data", "end", "taken", "heartbeat")
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    connected: TunnelConnected
    data: bytes
    end: TunnelEnd
    taken: int
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, connected: _Optional[_Union[TunnelConnected, _Mapping]] = ..., data: _Optional[bytes] = ..., end: _Optional[_Union[TunnelEnd, _Mapping]] = ..., taken: _Optional[int] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class TunnelConnected(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
