import datetime

from banger.v1 import audit_pb2 as _audit_pb2
from banger.v1 import event_pb2 as _event_pb2
from banger.v1 import operation_pb2 as _operation_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchAuditRequest(_message.Message):
    __slots__ = ("after", "owner", "since", "method", "failed")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    after: int
    owner: str
    since: _timestamp_pb2.Timestamp
    method: str
    failed: bool
    def __init__(self, after: _Optional[int] = ..., owner: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., method: _Optional[str] = ..., failed: bool = ...) -> None: ...

class WatchAuditResponse(_message.Message):
    __slots__ = ("started", "record", "heartbeat")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    started: int
    record: _audit_pb2.AuditRecord
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, started: _Optional[int] = ..., record: _Optional[_Union[_audit_pb2.AuditRecord, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class ListAuditRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "owner", "since", "method", "failed")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    owner: str
    since: _timestamp_pb2.Timestamp
    method: str
    failed: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., owner: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., method: _Optional[str] = ..., failed: bool = ...) -> None: ...

class ListAuditResponse(_message.Message):
    __slots__ = ("records", "next_page_token")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_audit_pb2.AuditRecord]
    next_page_token: str
    def __init__(self, records: _Optional[_Iterable[_Union[_audit_pb2.AuditRecord, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetInfoResponse(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: HostInfo
    def __init__(self, info: _Optional[_Union[HostInfo, _Mapping]] = ...) -> None: ...

class GetUsageRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetUsageResponse(_message.Message):
    __slots__ = ("usage",)
    USAGE_FIELD_NUMBER: _ClassVar[int]
    usage: HostUsage
    def __init__(self, usage: _Optional[_Union[HostUsage, _Mapping]] = ...) -> None: ...

class HostUsage(_message.Message):
    __slots__ = ("promises", "owners", "memory_used_bytes", "memory_available_bytes", "disk_used_bytes", "disk_available_bytes", "unmeasured_vm_count", "booting_count", "max_parallel_boots", "waiting_count", "boot_queue_max", "unmeasured_disk_count")
    PROMISES_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNMEASURED_VM_COUNT_FIELD_NUMBER: _ClassVar[int]
    BOOTING_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_PARALLEL_BOOTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_COUNT_FIELD_NUMBER: _ClassVar[int]
    BOOT_QUEUE_MAX_FIELD_NUMBER: _ClassVar[int]
    UNMEASURED_DISK_COUNT_FIELD_NUMBER: _ClassVar[int]
    promises: Promises
    owners: _containers.RepeatedCompositeFieldContainer[OwnerUsage]
    memory_used_bytes: int
    memory_available_bytes: int
    disk_used_bytes: int
    disk_available_bytes: int
    unmeasured_vm_count: int
    booting_count: int
    max_parallel_boots: int
    waiting_count: int
    boot_queue_max: int
    unmeasured_disk_count: int
    def __init__(self, promises: _Optional[_Union[Promises, _Mapping]] = ..., owners: _Optional[_Iterable[_Union[OwnerUsage, _Mapping]]] = ..., memory_used_bytes: _Optional[int] = ..., memory_available_bytes: _Optional[int] = ..., disk_used_bytes: _Optional[int] = ..., disk_available_bytes: _Optional[int] = ..., unmeasured_vm_count: _Optional[int] = ..., booting_count: _Optional[int] = ..., max_parallel_boots: _Optional[int] = ..., waiting_count: _Optional[int] = ..., boot_queue_max: _Optional[int] = ..., unmeasured_disk_count: _Optional[int] = ...) -> None: ...

class OwnerUsage(_message.Message):
    __slots__ = ("owner", "promises")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    PROMISES_FIELD_NUMBER: _ClassVar[int]
    owner: str
    promises: Promises
    def __init__(self, owner: _Optional[str] = ..., promises: _Optional[_Union[Promises, _Mapping]] = ...) -> None: ...

class Promises(_message.Message):
    __slots__ = ("vms", "running_vms", "vcpus", "memory_mib", "disk_mib", "volumes")
    VMS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_VMS_FIELD_NUMBER: _ClassVar[int]
    VCPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    DISK_MIB_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    vms: Promise
    running_vms: Promise
    vcpus: Promise
    memory_mib: Promise
    disk_mib: Promise
    volumes: Promise
    def __init__(self, vms: _Optional[_Union[Promise, _Mapping]] = ..., running_vms: _Optional[_Union[Promise, _Mapping]] = ..., vcpus: _Optional[_Union[Promise, _Mapping]] = ..., memory_mib: _Optional[_Union[Promise, _Mapping]] = ..., disk_mib: _Optional[_Union[Promise, _Mapping]] = ..., volumes: _Optional[_Union[Promise, _Mapping]] = ...) -> None: ...

class Promise(_message.Message):
    __slots__ = ("promised", "limit")
    PROMISED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    promised: int
    limit: int
    def __init__(self, promised: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class HostInfo(_message.Message):
    __slots__ = ("version", "driver", "vmm_version", "accelerator", "accelerator_warning", "cpu_count", "memory_bytes", "memory_available_bytes", "state_dir", "state_dir_available_bytes", "vm_count", "running_vm_count", "image_count", "default_kernel", "pid")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    VMM_VERSION_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_WARNING_FIELD_NUMBER: _ClassVar[int]
    CPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATE_DIR_FIELD_NUMBER: _ClassVar[int]
    STATE_DIR_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    VM_COUNT_FIELD_NUMBER: _ClassVar[int]
    RUNNING_VM_COUNT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_KERNEL_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    version: str
    driver: str
    vmm_version: str
    accelerator: str
    accelerator_warning: str
    cpu_count: int
    memory_bytes: int
    memory_available_bytes: int
    state_dir: str
    state_dir_available_bytes: int
    vm_count: int
    running_vm_count: int
    image_count: int
    default_kernel: str
    pid: int
    def __init__(self, version: _Optional[str] = ..., driver: _Optional[str] = ..., vmm_version: _Optional[str] = ..., accelerator: _Optional[str] = ..., accelerator_warning: _Optional[str] = ..., cpu_count: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., memory_available_bytes: _Optional[int] = ..., state_dir: _Optional[str] = ..., state_dir_available_bytes: _Optional[int] = ..., vm_count: _Optional[int] = ..., running_vm_count: _Optional[int] = ..., image_count: _Optional[int] = ..., default_kernel: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class DoctorRequest(_message.Message):
    __slots__ = ("fix", "checks")
    FIX_FIELD_NUMBER: _ClassVar[int]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    fix: bool
    checks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, fix: bool = ..., checks: _Optional[_Iterable[str]] = ...) -> None: ...

class DoctorResponse(_message.Message):
    __slots__ = ("sequence", "check", "summary", "heartbeat")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    check: DoctorCheck
    summary: DoctorSummary
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, sequence: _Optional[int] = ..., check: _Optional[_Union[DoctorCheck, _Mapping]] = ..., summary: _Optional[_Union[DoctorSummary, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class DoctorCheck(_message.Message):
    __slots__ = ("id", "subject", "title", "status", "found", "cause", "remedy", "command", "fixable", "changed", "took", "position")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[DoctorCheck.Status]
        STATUS_OK: _ClassVar[DoctorCheck.Status]
        STATUS_WARNING: _ClassVar[DoctorCheck.Status]
        STATUS_PROBLEM: _ClassVar[DoctorCheck.Status]
        STATUS_SKIPPED: _ClassVar[DoctorCheck.Status]
        STATUS_FIXED: _ClassVar[DoctorCheck.Status]
    STATUS_UNSPECIFIED: DoctorCheck.Status
    STATUS_OK: DoctorCheck.Status
    STATUS_WARNING: DoctorCheck.Status
    STATUS_PROBLEM: DoctorCheck.Status
    STATUS_SKIPPED: DoctorCheck.Status
    STATUS_FIXED: DoctorCheck.Status
    ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    FIXABLE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    TOOK_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    id: str
    subject: str
    title: str
    status: DoctorCheck.Status
    found: str
    cause: str
    remedy: str
    command: str
    fixable: bool
    changed: str
    took: _duration_pb2.Duration
    position: int
    def __init__(self, id: _Optional[str] = ..., subject: _Optional[str] = ..., title: _Optional[str] = ..., status: _Optional[_Union[DoctorCheck.Status, str]] = ..., found: _Optional[str] = ..., cause: _Optional[str] = ..., remedy: _Optional[str] = ..., command: _Optional[str] = ..., fixable: bool = ..., changed: _Optional[str] = ..., took: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., position: _Optional[int] = ...) -> None: ...

class DoctorSummary(_message.Message):
    __slots__ = ("ok_count", "warning_count", "problem_count", "skipped_count", "fixed_count", "took")
    OK_COUNT_FIELD_NUMBER: _ClassVar[int]
    WARNING_COUNT_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    FIXED_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOOK_FIELD_NUMBER: _ClassVar[int]
    ok_count: int
    warning_count: int
    problem_count: int
    skipped_count: int
    fixed_count: int
    took: _duration_pb2.Duration
    def __init__(self, ok_count: _Optional[int] = ..., warning_count: _Optional[int] = ..., problem_count: _Optional[int] = ..., skipped_count: _Optional[int] = ..., fixed_count: _Optional[int] = ..., took: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ("kinds", "vm", "kept", "after")
    KINDS_FIELD_NUMBER: _ClassVar[int]
    VM_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    kinds: _containers.RepeatedScalarFieldContainer[_event_pb2.Event.Kind]
    vm: str
    kept: bool
    after: EventPosition
    def __init__(self, kinds: _Optional[_Iterable[_Union[_event_pb2.Event.Kind, str]]] = ..., vm: _Optional[str] = ..., kept: bool = ..., after: _Optional[_Union[EventPosition, _Mapping]] = ...) -> None: ...

class EventPosition(_message.Message):
    __slots__ = ("epoch", "sequence")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    sequence: int
    def __init__(self, epoch: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class WatchEventsResponse(_message.Message):
    __slots__ = ("dropped_count", "snapshot", "event", "heartbeat")
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    dropped_count: int
    snapshot: _event_pb2.EventsSnapshot
    event: _event_pb2.Event
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, dropped_count: _Optional[int] = ..., snapshot: _Optional[_Union[_event_pb2.EventsSnapshot, _Mapping]] = ..., event: _Optional[_Union[_event_pb2.Event, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...
