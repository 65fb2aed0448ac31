import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kernel(_message.Message):
    __slots__ = ("id", "name", "release", "digest", "size_bytes", "modules", "origin", "is_default", "create_time", "inspection")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODULES_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    INSPECTION_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    release: str
    digest: str
    size_bytes: int
    modules: _containers.RepeatedScalarFieldContainer[str]
    origin: str
    is_default: bool
    create_time: _timestamp_pb2.Timestamp
    inspection: KernelInspection
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., release: _Optional[str] = ..., digest: _Optional[str] = ..., size_bytes: _Optional[int] = ..., modules: _Optional[_Iterable[str]] = ..., origin: _Optional[str] = ..., is_default: bool = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., inspection: _Optional[_Union[KernelInspection, _Mapping]] = ...) -> None: ...

class KernelInspection(_message.Message):
    __slots__ = ("format", "architecture", "banner", "evidence", "features")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    BANNER_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    format: str
    architecture: str
    banner: str
    evidence: str
    features: _containers.RepeatedCompositeFieldContainer[KernelFeature]
    def __init__(self, format: _Optional[str] = ..., architecture: _Optional[str] = ..., banner: _Optional[str] = ..., evidence: _Optional[str] = ..., features: _Optional[_Iterable[_Union[KernelFeature, _Mapping]]] = ...) -> None: ...

class KernelFeature(_message.Message):
    __slots__ = ("name", "options", "state", "is_required", "purpose")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[KernelFeature.State]
        STATE_BUILT_IN: _ClassVar[KernelFeature.State]
        STATE_MODULE: _ClassVar[KernelFeature.State]
        STATE_MISSING: _ClassVar[KernelFeature.State]
    STATE_UNSPECIFIED: KernelFeature.State
    STATE_BUILT_IN: KernelFeature.State
    STATE_MODULE: KernelFeature.State
    STATE_MISSING: KernelFeature.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    IS_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    name: str
    options: _containers.RepeatedScalarFieldContainer[str]
    state: KernelFeature.State
    is_required: bool
    purpose: str
    def __init__(self, name: _Optional[str] = ..., options: _Optional[_Iterable[str]] = ..., state: _Optional[_Union[KernelFeature.State, str]] = ..., is_required: bool = ..., purpose: _Optional[str] = ...) -> None: ...
