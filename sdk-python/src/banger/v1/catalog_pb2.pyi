import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Catalog(_message.Message):
    __slots__ = ("name", "url", "public_key", "version", "entry_count", "expire_time", "create_time", "refresh_time", "refresh_error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ENTRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TIME_FIELD_NUMBER: _ClassVar[int]
    REFRESH_ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    url: str
    public_key: str
    version: int
    entry_count: int
    expire_time: _timestamp_pb2.Timestamp
    create_time: _timestamp_pb2.Timestamp
    refresh_time: _timestamp_pb2.Timestamp
    refresh_error: _status_pb2.Status
    def __init__(self, name: _Optional[str] = ..., url: _Optional[str] = ..., public_key: _Optional[str] = ..., version: _Optional[int] = ..., entry_count: _Optional[int] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., refresh_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., refresh_error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class CatalogEntry(_message.Message):
    __slots__ = ("catalog", "kind", "name", "version", "architecture", "description", "size_bytes", "sha256", "kernel", "rootfs_size_bytes")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[CatalogEntry.Kind]
        KIND_BUNDLE: _ClassVar[CatalogEntry.Kind]
        KIND_KERNEL: _ClassVar[CatalogEntry.Kind]
    KIND_UNSPECIFIED: CatalogEntry.Kind
    KIND_BUNDLE: CatalogEntry.Kind
    KIND_KERNEL: CatalogEntry.Kind
    CATALOG_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    ROOTFS_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    catalog: str
    kind: CatalogEntry.Kind
    name: str
    version: str
    architecture: str
    description: str
    size_bytes: int
    sha256: str
    kernel: str
    rootfs_size_bytes: int
    def __init__(self, catalog: _Optional[str] = ..., kind: _Optional[_Union[CatalogEntry.Kind, str]] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., architecture: _Optional[str] = ..., description: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., kernel: _Optional[str] = ..., rootfs_size_bytes: _Optional[int] = ...) -> None: ...
