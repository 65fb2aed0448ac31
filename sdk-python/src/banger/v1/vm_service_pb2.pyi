import datetime

from banger.v1 import operation_pb2 as _operation_pb2
from banger.v1 import port_pb2 as _port_pb2
from banger.v1 import stats_pb2 as _stats_pb2
from banger.v1 import vm_pb2 as _vm_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateVmRequest(_message.Message):
    __slots__ = ("spec", "pull_if_missing", "request_id", "files")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PULL_IF_MISSING_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    spec: _vm_pb2.VmSpec
    pull_if_missing: bool
    request_id: str
    files: _containers.RepeatedCompositeFieldContainer[VmFile]
    def __init__(self, spec: _Optional[_Union[_vm_pb2.VmSpec, _Mapping]] = ..., pull_if_missing: bool = ..., request_id: _Optional[str] = ..., files: _Optional[_Iterable[_Union[VmFile, _Mapping]]] = ...) -> None: ...

class VmFile(_message.Message):
    __slots__ = ("path", "content", "mode", "owner")
    PATH_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    path: str
    content: bytes
    mode: int
    owner: str
    def __init__(self, path: _Optional[str] = ..., content: _Optional[bytes] = ..., mode: _Optional[int] = ..., owner: _Optional[str] = ...) -> None: ...

class CreateVmResponse(_message.Message):
    __slots__ = ("operation", "vm", "heartbeat")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    VM_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    operation: _operation_pb2.Operation
    vm: _vm_pb2.Vm
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, operation: _Optional[_Union[_operation_pb2.Operation, _Mapping]] = ..., vm: _Optional[_Union[_vm_pb2.Vm, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class GetVmRequest(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: str
    def __init__(self, vm: _Optional[str] = ...) -> None: ...

class GetVmResponse(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: _vm_pb2.Vm
    def __init__(self, vm: _Optional[_Union[_vm_pb2.Vm, _Mapping]] = ...) -> None: ...

class GetSshHostKeyRequest(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: str
    def __init__(self, vm: _Optional[str] = ...) -> None: ...

class GetSshHostKeyResponse(_message.Message):
    __slots__ = ("public_key",)
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    public_key: str
    def __init__(self, public_key: _Optional[str] = ...) -> None: ...

class ListVmsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ListVmsResponse(_message.Message):
    __slots__ = ("vms", "next_page_token")
    VMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    vms: _containers.RepeatedCompositeFieldContainer[_vm_pb2.Vm]
    next_page_token: str
    def __init__(self, vms: _Optional[_Iterable[_Union[_vm_pb2.Vm, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateVmRequest(_message.Message):
    __slots__ = ("vm", "spec", "update_mask", "etag", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    spec: _vm_pb2.VmSpec
    update_mask: _field_mask_pb2.FieldMask
    etag: str
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., spec: _Optional[_Union[_vm_pb2.VmSpec, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class UpdateVmResponse(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: _vm_pb2.Vm
    def __init__(self, vm: _Optional[_Union[_vm_pb2.Vm, _Mapping]] = ...) -> None: ...

class StartVmRequest(_message.Message):
    __slots__ = ("vm", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class StartVmResponse(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: _vm_pb2.Vm
    def __init__(self, vm: _Optional[_Union[_vm_pb2.Vm, _Mapping]] = ...) -> None: ...

class StopVmRequest(_message.Message):
    __slots__ = ("vm", "request_id", "keep_logs")
    VM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    KEEP_LOGS_FIELD_NUMBER: _ClassVar[int]
    vm: str
    request_id: str
    keep_logs: bool
    def __init__(self, vm: _Optional[str] = ..., request_id: _Optional[str] = ..., keep_logs: bool = ...) -> None: ...

class StopVmResponse(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: _vm_pb2.Vm
    def __init__(self, vm: _Optional[_Union[_vm_pb2.Vm, _Mapping]] = ...) -> None: ...

class RestartVmRequest(_message.Message):
    __slots__ = ("vm", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RestartVmResponse(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: _vm_pb2.Vm
    def __init__(self, vm: _Optional[_Union[_vm_pb2.Vm, _Mapping]] = ...) -> None: ...

class PauseVmRequest(_message.Message):
    __slots__ = ("vm", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class PauseVmResponse(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: _vm_pb2.Vm
    def __init__(self, vm: _Optional[_Union[_vm_pb2.Vm, _Mapping]] = ...) -> None: ...

class ResumeVmRequest(_message.Message):
    __slots__ = ("vm", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ResumeVmResponse(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: _vm_pb2.Vm
    def __init__(self, vm: _Optional[_Union[_vm_pb2.Vm, _Mapping]] = ...) -> None: ...

class KillVmRequest(_message.Message):
    __slots__ = ("vm", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class KillVmResponse(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: _vm_pb2.Vm
    def __init__(self, vm: _Optional[_Union[_vm_pb2.Vm, _Mapping]] = ...) -> None: ...

class DeleteVmRequest(_message.Message):
    __slots__ = ("vm", "request_id")
    VM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vm: str
    request_id: str
    def __init__(self, vm: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteVmResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchVmRequest(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: str
    def __init__(self, vm: _Optional[str] = ...) -> None: ...

class WatchVmResponse(_message.Message):
    __slots__ = ("sequence", "dropped_count", "vm", "deleted", "heartbeat")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    VM_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    dropped_count: int
    vm: _vm_pb2.Vm
    deleted: VmDeleted
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, sequence: _Optional[int] = ..., dropped_count: _Optional[int] = ..., vm: _Optional[_Union[_vm_pb2.Vm, _Mapping]] = ..., deleted: _Optional[_Union[VmDeleted, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class VmDeleted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetVmStatsRequest(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: str
    def __init__(self, vm: _Optional[str] = ...) -> None: ...

class GetVmStatsResponse(_message.Message):
    __slots__ = ("stats",)
    STATS_FIELD_NUMBER: _ClassVar[int]
    stats: _stats_pb2.VmStats
    def __init__(self, stats: _Optional[_Union[_stats_pb2.VmStats, _Mapping]] = ...) -> None: ...

class WatchVmStatsRequest(_message.Message):
    __slots__ = ("vm", "interval")
    VM_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    vm: str
    interval: _duration_pb2.Duration
    def __init__(self, vm: _Optional[str] = ..., interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchVmStatsResponse(_message.Message):
    __slots__ = ("sequence", "stats", "round", "deleted", "heartbeat")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    stats: _stats_pb2.VmStats
    round: StatsRound
    deleted: VmDeleted
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, sequence: _Optional[int] = ..., stats: _Optional[_Union[_stats_pb2.VmStats, _Mapping]] = ..., round: _Optional[_Union[StatsRound, _Mapping]] = ..., deleted: _Optional[_Union[VmDeleted, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class StatsRound(_message.Message):
    __slots__ = ("vm_count",)
    VM_COUNT_FIELD_NUMBER: _ClassVar[int]
    vm_count: int
    def __init__(self, vm_count: _Optional[int] = ...) -> None: ...

class ListPortsRequest(_message.Message):
    __slots__ = ("vm", "probe")
    VM_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    vm: str
    probe: bool
    def __init__(self, vm: _Optional[str] = ..., probe: bool = ...) -> None: ...

class ListPortsResponse(_message.Message):
    __slots__ = ("ports", "is_truncated")
    PORTS_FIELD_NUMBER: _ClassVar[int]
    IS_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    ports: _containers.RepeatedCompositeFieldContainer[_port_pb2.Port]
    is_truncated: bool
    def __init__(self, ports: _Optional[_Iterable[_Union[_port_pb2.Port, _Mapping]]] = ..., is_truncated: bool = ...) -> None: ...

class ReadConsoleRequest(_message.Message):
    __slots__ = ("vm", "offset", "follow", "tail_lines")
    VM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    vm: str
    offset: int
    follow: bool
    tail_lines: int
    def __init__(self, vm: _Optional[str] = ..., offset: _Optional[int] = ..., follow: bool = ..., tail_lines: _Optional[int] = ...) -> None: ...

class ReadConsoleResponse(_message.Message):
    __slots__ = ("output", "heartbeat")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    output: ConsoleOutput
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, output: _Optional[_Union[ConsoleOutput, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class ConsoleOutput(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...
