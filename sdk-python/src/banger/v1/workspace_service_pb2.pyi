from banger.v1 import operation_pb2 as _operation_pb2
from banger.workspace.v1 import snapshot_pb2 as _snapshot_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PrepareWorkspaceRequest(_message.Message):
    __slots__ = ("start", "part")
    START_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    start: PrepareWorkspaceStart
    part: _snapshot_pb2.Part
    def __init__(self, start: _Optional[_Union[PrepareWorkspaceStart, _Mapping]] = ..., part: _Optional[_Union[_snapshot_pb2.Part, _Mapping]] = ...) -> None: ...

class PrepareWorkspaceStart(_message.Message):
    __slots__ = ("vm", "user", "path", "overwrite", "replaces_state", "author_name", "author_email", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_FIELD_NUMBER: _ClassVar[int]
    REPLACES_STATE_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_NAME_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_EMAIL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    overwrite: bool
    replaces_state: bytes
    author_name: str
    author_email: str
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., overwrite: bool = ..., replaces_state: _Optional[bytes] = ..., author_name: _Optional[str] = ..., author_email: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class PrepareWorkspaceResponse(_message.Message):
    __slots__ = ("known", "needed", "progress_bytes", "prepared", "heartbeat")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    NEEDED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_BYTES_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    known: _snapshot_pb2.Known
    needed: _snapshot_pb2.Needed
    progress_bytes: int
    prepared: PreparedWorkspace
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, known: _Optional[_Union[_snapshot_pb2.Known, _Mapping]] = ..., needed: _Optional[_Union[_snapshot_pb2.Needed, _Mapping]] = ..., progress_bytes: _Optional[int] = ..., prepared: _Optional[_Union[PreparedWorkspace, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class PreparedWorkspace(_message.Message):
    __slots__ = ("path", "state", "notes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    path: str
    state: bytes
    notes: _containers.RepeatedCompositeFieldContainer[_snapshot_pb2.Note]
    def __init__(self, path: _Optional[str] = ..., state: _Optional[bytes] = ..., notes: _Optional[_Iterable[_Union[_snapshot_pb2.Note, _Mapping]]] = ...) -> None: ...

class ExportWorkspaceRequest(_message.Message):
    __slots__ = ("vm", "user", "path", "base", "max_bytes", "accepted_encodings")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_ENCODINGS_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    base: _snapshot_pb2.Base
    max_bytes: int
    accepted_encodings: _containers.RepeatedScalarFieldContainer[_snapshot_pb2.Content.Encoding]
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., base: _Optional[_Union[_snapshot_pb2.Base, _Mapping]] = ..., max_bytes: _Optional[int] = ..., accepted_encodings: _Optional[_Iterable[_Union[_snapshot_pb2.Content.Encoding, str]]] = ...) -> None: ...

class ExportWorkspaceResponse(_message.Message):
    __slots__ = ("part", "heartbeat")
    PART_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    part: _snapshot_pb2.Part
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, part: _Optional[_Union[_snapshot_pb2.Part, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class GetWorkspaceStatusRequest(_message.Message):
    __slots__ = ("vm", "user", "path", "base")
    VM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    vm: str
    user: str
    path: str
    base: _snapshot_pb2.Base
    def __init__(self, vm: _Optional[str] = ..., user: _Optional[str] = ..., path: _Optional[str] = ..., base: _Optional[_Union[_snapshot_pb2.Base, _Mapping]] = ...) -> None: ...

class GetWorkspaceStatusResponse(_message.Message):
    __slots__ = ("status", "base")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    status: _snapshot_pb2.Status
    base: _snapshot_pb2.Base
    def __init__(self, status: _Optional[_Union[_snapshot_pb2.Status, _Mapping]] = ..., base: _Optional[_Union[_snapshot_pb2.Base, _Mapping]] = ...) -> None: ...
