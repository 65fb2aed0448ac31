import datetime

from banger.v1 import vm_pb2 as _vm_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VmStats(_message.Message):
    __slots__ = ("vm", "name", "state", "time", "host", "guest", "guest_error", "disk_size_bytes", "disk_allocated_bytes", "disk_error")
    VM_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    GUEST_FIELD_NUMBER: _ClassVar[int]
    GUEST_ERROR_FIELD_NUMBER: _ClassVar[int]
    DISK_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_ERROR_FIELD_NUMBER: _ClassVar[int]
    vm: str
    name: str
    state: _vm_pb2.Vm.State
    time: _timestamp_pb2.Timestamp
    host: HostStats
    guest: GuestStats
    guest_error: _status_pb2.Status
    disk_size_bytes: int
    disk_allocated_bytes: int
    disk_error: _status_pb2.Status
    def __init__(self, vm: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[_vm_pb2.Vm.State, str]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., host: _Optional[_Union[HostStats, _Mapping]] = ..., guest: _Optional[_Union[GuestStats, _Mapping]] = ..., guest_error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., disk_size_bytes: _Optional[int] = ..., disk_allocated_bytes: _Optional[int] = ..., disk_error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class HostStats(_message.Message):
    __slots__ = ("cpu_time", "cpu_percent", "rss_bytes", "pss_bytes", "thread_count", "drives", "read_bytes_per_second", "written_bytes_per_second")
    CPU_TIME_FIELD_NUMBER: _ClassVar[int]
    CPU_PERCENT_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    PSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    THREAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    DRIVES_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    cpu_time: _duration_pb2.Duration
    cpu_percent: float
    rss_bytes: int
    pss_bytes: int
    thread_count: int
    drives: _containers.RepeatedCompositeFieldContainer[DriveStats]
    read_bytes_per_second: float
    written_bytes_per_second: float
    def __init__(self, cpu_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., cpu_percent: _Optional[float] = ..., rss_bytes: _Optional[int] = ..., pss_bytes: _Optional[int] = ..., thread_count: _Optional[int] = ..., drives: _Optional[_Iterable[_Union[DriveStats, _Mapping]]] = ..., read_bytes_per_second: _Optional[float] = ..., written_bytes_per_second: _Optional[float] = ...) -> None: ...

class DriveStats(_message.Message):
    __slots__ = ("name", "read_bytes", "written_bytes", "read_count", "write_count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    READ_COUNT_FIELD_NUMBER: _ClassVar[int]
    WRITE_COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    read_bytes: int
    written_bytes: int
    read_count: int
    write_count: int
    def __init__(self, name: _Optional[str] = ..., read_bytes: _Optional[int] = ..., written_bytes: _Optional[int] = ..., read_count: _Optional[int] = ..., write_count: _Optional[int] = ...) -> None: ...

class GuestStats(_message.Message):
    __slots__ = ("memory_total_bytes", "memory_available_bytes", "memory_cached_bytes", "load_1m", "load_5m", "load_15m", "uptime", "cpu", "disk_total_bytes", "disk_used_bytes", "process_count", "interfaces")
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_CACHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOAD_1M_FIELD_NUMBER: _ClassVar[int]
    LOAD_5M_FIELD_NUMBER: _ClassVar[int]
    LOAD_15M_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    DISK_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROCESS_COUNT_FIELD_NUMBER: _ClassVar[int]
    INTERFACES_FIELD_NUMBER: _ClassVar[int]
    memory_total_bytes: int
    memory_available_bytes: int
    memory_cached_bytes: int
    load_1m: float
    load_5m: float
    load_15m: float
    uptime: _duration_pb2.Duration
    cpu: GuestCpuTimes
    disk_total_bytes: int
    disk_used_bytes: int
    process_count: int
    interfaces: _containers.RepeatedCompositeFieldContainer[NetworkStats]
    def __init__(self, memory_total_bytes: _Optional[int] = ..., memory_available_bytes: _Optional[int] = ..., memory_cached_bytes: _Optional[int] = ..., load_1m: _Optional[float] = ..., load_5m: _Optional[float] = ..., load_15m: _Optional[float] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., cpu: _Optional[_Union[GuestCpuTimes, _Mapping]] = ..., disk_total_bytes: _Optional[int] = ..., disk_used_bytes: _Optional[int] = ..., process_count: _Optional[int] = ..., interfaces: _Optional[_Iterable[_Union[NetworkStats, _Mapping]]] = ...) -> None: ...

class GuestCpuTimes(_message.Message):
    __slots__ = ("user", "system", "idle", "io_wait", "steal")
    USER_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    IO_WAIT_FIELD_NUMBER: _ClassVar[int]
    STEAL_FIELD_NUMBER: _ClassVar[int]
    user: _duration_pb2.Duration
    system: _duration_pb2.Duration
    idle: _duration_pb2.Duration
    io_wait: _duration_pb2.Duration
    steal: _duration_pb2.Duration
    def __init__(self, user: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., system: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., idle: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., io_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., steal: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class NetworkStats(_message.Message):
    __slots__ = ("name", "received_bytes", "sent_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    received_bytes: int
    sent_bytes: int
    def __init__(self, name: _Optional[str] = ..., received_bytes: _Optional[int] = ..., sent_bytes: _Optional[int] = ...) -> None: ...
