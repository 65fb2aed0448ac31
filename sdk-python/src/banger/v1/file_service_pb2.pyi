import datetime

from banger.v1 import file_pb2 as _file_pb2
from banger.v1 import operation_pb2 as _operation_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReadFileRequest(_message.Message):
    __slots__ = ("vm", "user", "path", "offset", "length")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    offset: int
    length: int
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class ReadFileResponse(_message.Message):
    __slots__ = ("file", "chunk", "heartbeat")
    FILE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    file: _file_pb2.FileInfo
    chunk: bytes
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, file: _Optional[_Union[_file_pb2.FileInfo, _Mapping]] = ..., chunk: _Optional[bytes] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class WriteFileRequest(_message.Message):
    __slots__ = ("start", "chunk", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: WriteFileStart
    chunk: bytes
    end: WriteFileEnd
    def __init__(self, start: _Optional[_Union[WriteFileStart, _Mapping]] = ..., chunk: _Optional[bytes] = ..., end: _Optional[_Union[WriteFileEnd, _Mapping]] = ...) -> None: ...

class WriteFileEnd(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WriteFileStart(_message.Message):
    __slots__ = ("vm", "user", "path", "mode", "offset", "truncate", "permissions", "owner", "mtime", "make_parents")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[WriteFileStart.Mode]
        MODE_REPLACE: _ClassVar[WriteFileStart.Mode]
        MODE_CREATE: _ClassVar[WriteFileStart.Mode]
        MODE_APPEND: _ClassVar[WriteFileStart.Mode]
        MODE_AT: _ClassVar[WriteFileStart.Mode]
    MODE_UNSPECIFIED: WriteFileStart.Mode
    MODE_REPLACE: WriteFileStart.Mode
    MODE_CREATE: WriteFileStart.Mode
    MODE_APPEND: WriteFileStart.Mode
    MODE_AT: WriteFileStart.Mode
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    MTIME_FIELD_NUMBER: _ClassVar[int]
    MAKE_PARENTS_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    mode: WriteFileStart.Mode
    offset: int
    truncate: bool
    permissions: int
    owner: str
    mtime: _timestamp_pb2.Timestamp
    make_parents: bool
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., mode: _Optional[_Union[WriteFileStart.Mode, str]] = ..., offset: _Optional[int] = ..., truncate: bool = ..., permissions: _Optional[int] = ..., owner: _Optional[str] = ..., mtime: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., make_parents: bool = ...) -> None: ...

class WriteFileResponse(_message.Message):
    __slots__ = ("progress_bytes", "file", "heartbeat")
    PROGRESS_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    progress_bytes: int
    file: _file_pb2.FileInfo
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, progress_bytes: _Optional[int] = ..., file: _Optional[_Union[_file_pb2.FileInfo, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class StatFileRequest(_message.Message):
    __slots__ = ("vm", "user", "path", "follow")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    follow: bool
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., follow: bool = ...) -> None: ...

class StatFileResponse(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: _file_pb2.FileInfo
    def __init__(self, file: _Optional[_Union[_file_pb2.FileInfo, _Mapping]] = ...) -> None: ...

class ListFilesRequest(_message.Message):
    __slots__ = ("vm", "user", "path", "depth", "page_size", "page_token")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    depth: int
    page_size: int
    page_token: str
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., depth: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListFilesResponse(_message.Message):
    __slots__ = ("files", "next_page_token")
    FILES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[_file_pb2.FileInfo]
    next_page_token: str
    def __init__(self, files: _Optional[_Iterable[_Union[_file_pb2.FileInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class MakeDirectoryRequest(_message.Message):
    __slots__ = ("vm", "user", "path", "permissions", "make_parents", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    MAKE_PARENTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    permissions: int
    make_parents: bool
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., permissions: _Optional[int] = ..., make_parents: bool = ..., request_id: _Optional[str] = ...) -> None: ...

class MakeDirectoryResponse(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: _file_pb2.FileInfo
    def __init__(self, file: _Optional[_Union[_file_pb2.FileInfo, _Mapping]] = ...) -> None: ...

class RemoveFileRequest(_message.Message):
    __slots__ = ("vm", "user", "path", "recursive", "allow_missing", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RECURSIVE_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    recursive: bool
    allow_missing: bool
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., recursive: bool = ..., allow_missing: bool = ..., request_id: _Optional[str] = ...) -> None: ...

class RemoveFileResponse(_message.Message):
    __slots__ = ("removed_count",)
    REMOVED_COUNT_FIELD_NUMBER: _ClassVar[int]
    removed_count: int
    def __init__(self, removed_count: _Optional[int] = ...) -> None: ...

class RenameFileRequest(_message.Message):
    __slots__ = ("vm", "user", "path", "new_path", "no_replace", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    NEW_PATH_FIELD_NUMBER: _ClassVar[int]
    NO_REPLACE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    new_path: str
    no_replace: bool
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., new_path: _Optional[str] = ..., no_replace: bool = ..., request_id: _Optional[str] = ...) -> None: ...

class RenameFileResponse(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: _file_pb2.FileInfo
    def __init__(self, file: _Optional[_Union[_file_pb2.FileInfo, _Mapping]] = ...) -> None: ...

class SetFileAttributesRequest(_message.Message):
    __slots__ = ("vm", "user", "path", "no_follow", "permissions", "owner", "mtime", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    NO_FOLLOW_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    MTIME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    no_follow: bool
    permissions: int
    owner: str
    mtime: _timestamp_pb2.Timestamp
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., no_follow: bool = ..., permissions: _Optional[int] = ..., owner: _Optional[str] = ..., mtime: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class SetFileAttributesResponse(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: _file_pb2.FileInfo
    def __init__(self, file: _Optional[_Union[_file_pb2.FileInfo, _Mapping]] = ...) -> None: ...

class MakeSymlinkRequest(_message.Message):
    __slots__ = ("vm", "user", "path", "target", "replace", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    target: str
    replace: bool
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., target: _Optional[str] = ..., replace: bool = ..., request_id: _Optional[str] = ...) -> None: ...

class MakeSymlinkResponse(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: _file_pb2.FileInfo
    def __init__(self, file: _Optional[_Union[_file_pb2.FileInfo, _Mapping]] = ...) -> None: ...

class WatchFilesRequest(_message.Message):
    __slots__ = ("vm", "user", "path", "recursive")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RECURSIVE_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    recursive: bool
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., recursive: bool = ...) -> None: ...

class WatchFilesResponse(_message.Message):
    __slots__ = ("started", "event", "overflow", "heartbeat")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    OVERFLOW_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    started: WatchStarted
    event: _file_pb2.FileEvent
    overflow: WatchOverflow
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, started: _Optional[_Union[WatchStarted, _Mapping]] = ..., event: _Optional[_Union[_file_pb2.FileEvent, _Mapping]] = ..., overflow: _Optional[_Union[WatchOverflow, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class WatchStarted(_message.Message):
    __slots__ = ("directory_count",)
    DIRECTORY_COUNT_FIELD_NUMBER: _ClassVar[int]
    directory_count: int
    def __init__(self, directory_count: _Optional[int] = ...) -> None: ...

class WatchOverflow(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UploadFilesRequest(_message.Message):
    __slots__ = ("start", "chunk", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: UploadFilesStart
    chunk: bytes
    end: UploadFilesEnd
    def __init__(self, start: _Optional[_Union[UploadFilesStart, _Mapping]] = ..., chunk: _Optional[bytes] = ..., end: _Optional[_Union[UploadFilesEnd, _Mapping]] = ...) -> None: ...

class UploadFilesEnd(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UploadFilesStart(_message.Message):
    __slots__ = ("vm", "user", "path", "names_entry", "keep_owners")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    NAMES_ENTRY_FIELD_NUMBER: _ClassVar[int]
    KEEP_OWNERS_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    names_entry: bool
    keep_owners: bool
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., names_entry: bool = ..., keep_owners: bool = ...) -> None: ...

class UploadFilesResponse(_message.Message):
    __slots__ = ("progress_bytes", "done", "heartbeat")
    PROGRESS_BYTES_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    progress_bytes: int
    done: FilesMoved
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, progress_bytes: _Optional[int] = ..., done: _Optional[_Union[FilesMoved, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class FilesMoved(_message.Message):
    __slots__ = ("entry_count", "content_bytes", "omissions")
    ENTRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    OMISSIONS_FIELD_NUMBER: _ClassVar[int]
    entry_count: int
    content_bytes: int
    omissions: Omissions
    def __init__(self, entry_count: _Optional[int] = ..., content_bytes: _Optional[int] = ..., omissions: _Optional[_Union[Omissions, _Mapping]] = ...) -> None: ...

class Omissions(_message.Message):
    __slots__ = ("count", "first")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    count: int
    first: _containers.RepeatedCompositeFieldContainer[Omission]
    def __init__(self, count: _Optional[int] = ..., first: _Optional[_Iterable[_Union[Omission, _Mapping]]] = ...) -> None: ...

class Omission(_message.Message):
    __slots__ = ("path", "reason")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Omission.Reason]
        REASON_SOCKET: _ClassVar[Omission.Reason]
        REASON_VANISHED: _ClassVar[Omission.Reason]
        REASON_MOUNT_POINT: _ClassVar[Omission.Reason]
        REASON_ATTRIBUTES: _ClassVar[Omission.Reason]
        REASON_SHRANK: _ClassVar[Omission.Reason]
    REASON_UNSPECIFIED: Omission.Reason
    REASON_SOCKET: Omission.Reason
    REASON_VANISHED: Omission.Reason
    REASON_MOUNT_POINT: Omission.Reason
    REASON_ATTRIBUTES: Omission.Reason
    REASON_SHRANK: Omission.Reason
    PATH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    path: str
    reason: Omission.Reason
    def __init__(self, path: _Optional[str] = ..., reason: _Optional[_Union[Omission.Reason, str]] = ...) -> None: ...

class DownloadFilesRequest(_message.Message):
    __slots__ = ("vm", "user", "path")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class DownloadFilesResponse(_message.Message):
    __slots__ = ("chunk", "done", "heartbeat")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    done: FilesMoved
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, chunk: _Optional[bytes] = ..., done: _Optional[_Union[FilesMoved, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...
