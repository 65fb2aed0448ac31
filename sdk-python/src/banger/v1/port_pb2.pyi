from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Port(_message.Message):
    __slots__ = ("protocol", "address", "port", "uid", "process", "http")
    class Protocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PROTOCOL_UNSPECIFIED: _ClassVar[Port.Protocol]
        PROTOCOL_TCP: _ClassVar[Port.Protocol]
        PROTOCOL_UDP: _ClassVar[Port.Protocol]
    PROTOCOL_UNSPECIFIED: Port.Protocol
    PROTOCOL_TCP: Port.Protocol
    PROTOCOL_UDP: Port.Protocol
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    protocol: Port.Protocol
    address: str
    port: int
    uid: int
    process: PortProcess
    http: PortAnswer
    def __init__(self, protocol: _Optional[_Union[Port.Protocol, str]] = ..., address: _Optional[str] = ..., port: _Optional[int] = ..., uid: _Optional[int] = ..., process: _Optional[_Union[PortProcess, _Mapping]] = ..., http: _Optional[_Union[PortAnswer, _Mapping]] = ...) -> None: ...

class PortProcess(_message.Message):
    __slots__ = ("pid", "name", "uid")
    PID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    pid: int
    name: str
    uid: int
    def __init__(self, pid: _Optional[int] = ..., name: _Optional[str] = ..., uid: _Optional[int] = ...) -> None: ...

class PortAnswer(_message.Message):
    __slots__ = ("status", "title")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    status: int
    title: str
    def __init__(self, status: _Optional[int] = ..., title: _Optional[str] = ...) -> None: ...
