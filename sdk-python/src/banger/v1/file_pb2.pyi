import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FileInfo(_message.Message):
    __slots__ = ("path", "kind", "mode", "size_bytes", "allocated_bytes", "uid", "gid", "user", "group", "mtime", "link_count", "link_target", "is_unreadable", "raw_path")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[FileInfo.Kind]
        KIND_FILE: _ClassVar[FileInfo.Kind]
        KIND_DIRECTORY: _ClassVar[FileInfo.Kind]
        KIND_SYMLINK: _ClassVar[FileInfo.Kind]
        KIND_FIFO: _ClassVar[FileInfo.Kind]
        KIND_SOCKET: _ClassVar[FileInfo.Kind]
        KIND_CHAR_DEVICE: _ClassVar[FileInfo.Kind]
        KIND_BLOCK_DEVICE: _ClassVar[FileInfo.Kind]
    KIND_UNSPECIFIED: FileInfo.Kind
    KIND_FILE: FileInfo.Kind
    KIND_DIRECTORY: FileInfo.Kind
    KIND_SYMLINK: FileInfo.Kind
    KIND_FIFO: FileInfo.Kind
    KIND_SOCKET: FileInfo.Kind
    KIND_CHAR_DEVICE: FileInfo.Kind
    KIND_BLOCK_DEVICE: FileInfo.Kind
    PATH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    MTIME_FIELD_NUMBER: _ClassVar[int]
    LINK_COUNT_FIELD_NUMBER: _ClassVar[int]
    LINK_TARGET_FIELD_NUMBER: _ClassVar[int]
    IS_UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    RAW_PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    kind: FileInfo.Kind
    mode: int
    size_bytes: int
    allocated_bytes: int
    uid: int
    gid: int
    user: str
    group: str
    mtime: _timestamp_pb2.Timestamp
    link_count: int
    link_target: str
    is_unreadable: bool
    raw_path: bytes
    def __init__(self, path: _Optional[str] = ..., kind: _Optional[_Union[FileInfo.Kind, str]] = ..., mode: _Optional[int] = ..., size_bytes: _Optional[int] = ..., allocated_bytes: _Optional[int] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., user: _Optional[str] = ..., group: _Optional[str] = ..., mtime: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., link_count: _Optional[int] = ..., link_target: _Optional[str] = ..., is_unreadable: bool = ..., raw_path: _Optional[bytes] = ...) -> None: ...

class FileEvent(_message.Message):
    __slots__ = ("kind", "path", "is_directory", "rename_id")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[FileEvent.Kind]
        KIND_CREATED: _ClassVar[FileEvent.Kind]
        KIND_MODIFIED: _ClassVar[FileEvent.Kind]
        KIND_WRITTEN: _ClassVar[FileEvent.Kind]
        KIND_ATTRIBUTES: _ClassVar[FileEvent.Kind]
        KIND_REMOVED: _ClassVar[FileEvent.Kind]
        KIND_MOVED_FROM: _ClassVar[FileEvent.Kind]
        KIND_MOVED_TO: _ClassVar[FileEvent.Kind]
        KIND_ROOT_GONE: _ClassVar[FileEvent.Kind]
    KIND_UNSPECIFIED: FileEvent.Kind
    KIND_CREATED: FileEvent.Kind
    KIND_MODIFIED: FileEvent.Kind
    KIND_WRITTEN: FileEvent.Kind
    KIND_ATTRIBUTES: FileEvent.Kind
    KIND_REMOVED: FileEvent.Kind
    KIND_MOVED_FROM: FileEvent.Kind
    KIND_MOVED_TO: FileEvent.Kind
    KIND_ROOT_GONE: FileEvent.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    IS_DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    RENAME_ID_FIELD_NUMBER: _ClassVar[int]
    kind: FileEvent.Kind
    path: str
    is_directory: bool
    rename_id: int
    def __init__(self, kind: _Optional[_Union[FileEvent.Kind, str]] = ..., path: _Optional[str] = ..., is_directory: bool = ..., rename_id: _Optional[int] = ...) -> None: ...
