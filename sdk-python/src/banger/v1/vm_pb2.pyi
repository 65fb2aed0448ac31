import datetime

from banger.v1 import operation_pb2 as _operation_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Vm(_message.Message):
    __slots__ = ("id", "spec", "state", "failure", "image_id", "kernel_id", "etag", "boot_timing", "last_stop", "create_time", "start_time", "stop_time", "owner", "pending_fields", "restart_count")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Vm.State]
        STATE_CREATING: _ClassVar[Vm.State]
        STATE_STARTING: _ClassVar[Vm.State]
        STATE_RUNNING: _ClassVar[Vm.State]
        STATE_STOPPING: _ClassVar[Vm.State]
        STATE_STOPPED: _ClassVar[Vm.State]
        STATE_FAILED: _ClassVar[Vm.State]
        STATE_DELETING: _ClassVar[Vm.State]
        STATE_PAUSING: _ClassVar[Vm.State]
        STATE_PAUSED: _ClassVar[Vm.State]
        STATE_RESUMING: _ClassVar[Vm.State]
    STATE_UNSPECIFIED: Vm.State
    STATE_CREATING: Vm.State
    STATE_STARTING: Vm.State
    STATE_RUNNING: Vm.State
    STATE_STOPPING: Vm.State
    STATE_STOPPED: Vm.State
    STATE_FAILED: Vm.State
    STATE_DELETING: Vm.State
    STATE_PAUSING: Vm.State
    STATE_PAUSED: Vm.State
    STATE_RESUMING: Vm.State
    ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    BOOT_TIMING_FIELD_NUMBER: _ClassVar[int]
    LAST_STOP_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    STOP_TIME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELDS_FIELD_NUMBER: _ClassVar[int]
    RESTART_COUNT_FIELD_NUMBER: _ClassVar[int]
    id: str
    spec: VmSpec
    state: Vm.State
    failure: _status_pb2.Status
    image_id: str
    kernel_id: str
    etag: str
    boot_timing: _containers.RepeatedCompositeFieldContainer[_operation_pb2.Stage]
    last_stop: StopOutcome
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    stop_time: _timestamp_pb2.Timestamp
    owner: str
    pending_fields: _containers.RepeatedScalarFieldContainer[str]
    restart_count: int
    def __init__(self, id: _Optional[str] = ..., spec: _Optional[_Union[VmSpec, _Mapping]] = ..., state: _Optional[_Union[Vm.State, str]] = ..., failure: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., image_id: _Optional[str] = ..., kernel_id: _Optional[str] = ..., etag: _Optional[str] = ..., boot_timing: _Optional[_Iterable[_Union[_operation_pb2.Stage, _Mapping]]] = ..., last_stop: _Optional[_Union[StopOutcome, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., stop_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., owner: _Optional[str] = ..., pending_fields: _Optional[_Iterable[str]] = ..., restart_count: _Optional[int] = ...) -> None: ...

class VmSpec(_message.Message):
    __slots__ = ("name", "labels", "image", "kernel", "vcpu_count", "memory_mib", "disk_mib", "env", "network_mode", "ephemeral", "ttl", "idle_timeout", "restart_policy", "init_mode", "init_path", "identity", "volumes", "keep_logs")
    class NetworkMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NETWORK_MODE_UNSPECIFIED: _ClassVar[VmSpec.NetworkMode]
        NETWORK_MODE_NONE: _ClassVar[VmSpec.NetworkMode]
        NETWORK_MODE_USER: _ClassVar[VmSpec.NetworkMode]
    NETWORK_MODE_UNSPECIFIED: VmSpec.NetworkMode
    NETWORK_MODE_NONE: VmSpec.NetworkMode
    NETWORK_MODE_USER: VmSpec.NetworkMode
    class RestartPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RESTART_POLICY_UNSPECIFIED: _ClassVar[VmSpec.RestartPolicy]
        RESTART_POLICY_NEVER: _ClassVar[VmSpec.RestartPolicy]
        RESTART_POLICY_ON_FAILURE: _ClassVar[VmSpec.RestartPolicy]
        RESTART_POLICY_ALWAYS: _ClassVar[VmSpec.RestartPolicy]
    RESTART_POLICY_UNSPECIFIED: VmSpec.RestartPolicy
    RESTART_POLICY_NEVER: VmSpec.RestartPolicy
    RESTART_POLICY_ON_FAILURE: VmSpec.RestartPolicy
    RESTART_POLICY_ALWAYS: VmSpec.RestartPolicy
    class InitMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        INIT_MODE_UNSPECIFIED: _ClassVar[VmSpec.InitMode]
        INIT_MODE_AGENT: _ClassVar[VmSpec.InitMode]
        INIT_MODE_IMAGE: _ClassVar[VmSpec.InitMode]
    INIT_MODE_UNSPECIFIED: VmSpec.InitMode
    INIT_MODE_AGENT: VmSpec.InitMode
    INIT_MODE_IMAGE: VmSpec.InitMode
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class EnvEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    VCPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    DISK_MIB_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    NETWORK_MODE_FIELD_NUMBER: _ClassVar[int]
    EPHEMERAL_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RESTART_POLICY_FIELD_NUMBER: _ClassVar[int]
    INIT_MODE_FIELD_NUMBER: _ClassVar[int]
    INIT_PATH_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    KEEP_LOGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    image: str
    kernel: str
    vcpu_count: int
    memory_mib: int
    disk_mib: int
    env: _containers.ScalarMap[str, str]
    network_mode: VmSpec.NetworkMode
    ephemeral: bool
    ttl: _duration_pb2.Duration
    idle_timeout: _duration_pb2.Duration
    restart_policy: VmSpec.RestartPolicy
    init_mode: VmSpec.InitMode
    init_path: str
    identity: VmIdentity
    volumes: _containers.RepeatedCompositeFieldContainer[VolumeMount]
    keep_logs: bool
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., image: _Optional[str] = ..., kernel: _Optional[str] = ..., vcpu_count: _Optional[int] = ..., memory_mib: _Optional[int] = ..., disk_mib: _Optional[int] = ..., env: _Optional[_Mapping[str, str]] = ..., network_mode: _Optional[_Union[VmSpec.NetworkMode, str]] = ..., ephemeral: bool = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., idle_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., restart_policy: _Optional[_Union[VmSpec.RestartPolicy, str]] = ..., init_mode: _Optional[_Union[VmSpec.InitMode, str]] = ..., init_path: _Optional[str] = ..., identity: _Optional[_Union[VmIdentity, _Mapping]] = ..., volumes: _Optional[_Iterable[_Union[VolumeMount, _Mapping]]] = ..., keep_logs: bool = ...) -> None: ...

class VmIdentity(_message.Message):
    __slots__ = ("git_name", "git_email", "ssh_authorized_keys", "credentials")
    GIT_NAME_FIELD_NUMBER: _ClassVar[int]
    GIT_EMAIL_FIELD_NUMBER: _ClassVar[int]
    SSH_AUTHORIZED_KEYS_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    git_name: str
    git_email: str
    ssh_authorized_keys: _containers.RepeatedScalarFieldContainer[str]
    credentials: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, git_name: _Optional[str] = ..., git_email: _Optional[str] = ..., ssh_authorized_keys: _Optional[_Iterable[str]] = ..., credentials: _Optional[_Iterable[str]] = ...) -> None: ...

class VolumeMount(_message.Message):
    __slots__ = ("volume", "path", "read_only")
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    volume: str
    path: str
    read_only: bool
    def __init__(self, volume: _Optional[str] = ..., path: _Optional[str] = ..., read_only: bool = ...) -> None: ...

class StopOutcome(_message.Message):
    __slots__ = ("rung", "took", "kept_logs")
    class Rung(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RUNG_UNSPECIFIED: _ClassVar[StopOutcome.Rung]
        RUNG_ALREADY_GONE: _ClassVar[StopOutcome.Rung]
        RUNG_AGENT: _ClassVar[StopOutcome.Rung]
        RUNG_POWER_BUTTON: _ClassVar[StopOutcome.Rung]
        RUNG_TERMINATE: _ClassVar[StopOutcome.Rung]
        RUNG_KILL: _ClassVar[StopOutcome.Rung]
    RUNG_UNSPECIFIED: StopOutcome.Rung
    RUNG_ALREADY_GONE: StopOutcome.Rung
    RUNG_AGENT: StopOutcome.Rung
    RUNG_POWER_BUTTON: StopOutcome.Rung
    RUNG_TERMINATE: StopOutcome.Rung
    RUNG_KILL: StopOutcome.Rung
    RUNG_FIELD_NUMBER: _ClassVar[int]
    TOOK_FIELD_NUMBER: _ClassVar[int]
    KEPT_LOGS_FIELD_NUMBER: _ClassVar[int]
    rung: StopOutcome.Rung
    took: _duration_pb2.Duration
    kept_logs: KeptLogs
    def __init__(self, rung: _Optional[_Union[StopOutcome.Rung, str]] = ..., took: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., kept_logs: _Optional[_Union[KeptLogs, _Mapping]] = ...) -> None: ...

class KeptLogs(_message.Message):
    __slots__ = ("session_count", "size_bytes", "problem")
    SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    session_count: int
    size_bytes: int
    problem: str
    def __init__(self, session_count: _Optional[int] = ..., size_bytes: _Optional[int] = ..., problem: _Optional[str] = ...) -> None: ...
