import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Image(_message.Message):
    __slots__ = ("id", "references", "digest", "platform", "config", "layers", "rootfs_size_bytes", "rootfs_allocated_bytes", "create_time", "origin", "kernel")
    ID_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    ROOTFS_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROOTFS_ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    id: str
    references: _containers.RepeatedScalarFieldContainer[str]
    digest: str
    platform: str
    config: ImageConfig
    layers: _containers.RepeatedCompositeFieldContainer[ImageLayer]
    rootfs_size_bytes: int
    rootfs_allocated_bytes: int
    create_time: _timestamp_pb2.Timestamp
    origin: str
    kernel: str
    def __init__(self, id: _Optional[str] = ..., references: _Optional[_Iterable[str]] = ..., digest: _Optional[str] = ..., platform: _Optional[str] = ..., config: _Optional[_Union[ImageConfig, _Mapping]] = ..., layers: _Optional[_Iterable[_Union[ImageLayer, _Mapping]]] = ..., rootfs_size_bytes: _Optional[int] = ..., rootfs_allocated_bytes: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., origin: _Optional[str] = ..., kernel: _Optional[str] = ...) -> None: ...

class ImageConfig(_message.Message):
    __slots__ = ("env", "user", "working_dir", "entrypoint", "cmd", "exposed_ports", "labels", "stop_signal")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENV_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    WORKING_DIR_FIELD_NUMBER: _ClassVar[int]
    ENTRYPOINT_FIELD_NUMBER: _ClassVar[int]
    CMD_FIELD_NUMBER: _ClassVar[int]
    EXPOSED_PORTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STOP_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    env: _containers.RepeatedScalarFieldContainer[str]
    user: str
    working_dir: str
    entrypoint: _containers.RepeatedScalarFieldContainer[str]
    cmd: _containers.RepeatedScalarFieldContainer[str]
    exposed_ports: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.ScalarMap[str, str]
    stop_signal: str
    def __init__(self, env: _Optional[_Iterable[str]] = ..., user: _Optional[str] = ..., working_dir: _Optional[str] = ..., entrypoint: _Optional[_Iterable[str]] = ..., cmd: _Optional[_Iterable[str]] = ..., exposed_ports: _Optional[_Iterable[str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., stop_signal: _Optional[str] = ...) -> None: ...

class ImageLayer(_message.Message):
    __slots__ = ("digest", "size_bytes")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    digest: str
    size_bytes: int
    def __init__(self, digest: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class ImageUsage(_message.Message):
    __slots__ = ("image", "references", "rootfs_bytes", "blob_bytes", "shared_bytes", "reclaimable_bytes", "shared_with", "vms")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    ROOTFS_BYTES_FIELD_NUMBER: _ClassVar[int]
    BLOB_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECLAIMABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARED_WITH_FIELD_NUMBER: _ClassVar[int]
    VMS_FIELD_NUMBER: _ClassVar[int]
    image: str
    references: _containers.RepeatedScalarFieldContainer[str]
    rootfs_bytes: int
    blob_bytes: int
    shared_bytes: int
    reclaimable_bytes: int
    shared_with: _containers.RepeatedScalarFieldContainer[str]
    vms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, image: _Optional[str] = ..., references: _Optional[_Iterable[str]] = ..., rootfs_bytes: _Optional[int] = ..., blob_bytes: _Optional[int] = ..., shared_bytes: _Optional[int] = ..., reclaimable_bytes: _Optional[int] = ..., shared_with: _Optional[_Iterable[str]] = ..., vms: _Optional[_Iterable[str]] = ...) -> None: ...
