from banger.v1 import export_pb2 as _export_pb2
from banger.v1 import image_pb2 as _image_pb2
from banger.v1 import operation_pb2 as _operation_pb2
from banger.v1 import vm_pb2 as _vm_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PullImageRequest(_message.Message):
    __slots__ = ("reference", "platform", "auth", "request_id", "kernel", "replace", "source")
    class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SOURCE_UNSPECIFIED: _ClassVar[PullImageRequest.Source]
        SOURCE_CATALOG: _ClassVar[PullImageRequest.Source]
        SOURCE_REGISTRY: _ClassVar[PullImageRequest.Source]
    SOURCE_UNSPECIFIED: PullImageRequest.Source
    SOURCE_CATALOG: PullImageRequest.Source
    SOURCE_REGISTRY: PullImageRequest.Source
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    AUTH_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    reference: str
    platform: str
    auth: BasicAuth
    request_id: str
    kernel: str
    replace: bool
    source: PullImageRequest.Source
    def __init__(self, reference: _Optional[str] = ..., platform: _Optional[str] = ..., auth: _Optional[_Union[BasicAuth, _Mapping]] = ..., request_id: _Optional[str] = ..., kernel: _Optional[str] = ..., replace: bool = ..., source: _Optional[_Union[PullImageRequest.Source, str]] = ...) -> None: ...

class BasicAuth(_message.Message):
    __slots__ = ("username", "password", "identity_token")
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    username: str
    password: str
    identity_token: str
    def __init__(self, username: _Optional[str] = ..., password: _Optional[str] = ..., identity_token: _Optional[str] = ...) -> None: ...

class PullImageResponse(_message.Message):
    __slots__ = ("operation", "image", "heartbeat")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    operation: _operation_pb2.Operation
    image: _image_pb2.Image
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, operation: _Optional[_Union[_operation_pb2.Operation, _Mapping]] = ..., image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class RegisterImageRequest(_message.Message):
    __slots__ = ("start", "chunk")
    START_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    start: RegisterImageStart
    chunk: bytes
    def __init__(self, start: _Optional[_Union[RegisterImageStart, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class RegisterImageStart(_message.Message):
    __slots__ = ("reference", "format", "config", "platform", "request_id", "kernel", "image", "replace")
    class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FORMAT_UNSPECIFIED: _ClassVar[RegisterImageStart.Format]
        FORMAT_OCI_LAYOUT: _ClassVar[RegisterImageStart.Format]
        FORMAT_DOCKER_ARCHIVE: _ClassVar[RegisterImageStart.Format]
        FORMAT_ROOTFS_TAR: _ClassVar[RegisterImageStart.Format]
        FORMAT_BUNDLE: _ClassVar[RegisterImageStart.Format]
        FORMAT_EXT4: _ClassVar[RegisterImageStart.Format]
    FORMAT_UNSPECIFIED: RegisterImageStart.Format
    FORMAT_OCI_LAYOUT: RegisterImageStart.Format
    FORMAT_DOCKER_ARCHIVE: RegisterImageStart.Format
    FORMAT_ROOTFS_TAR: RegisterImageStart.Format
    FORMAT_BUNDLE: RegisterImageStart.Format
    FORMAT_EXT4: RegisterImageStart.Format
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    reference: str
    format: RegisterImageStart.Format
    config: _image_pb2.ImageConfig
    platform: str
    request_id: str
    kernel: str
    image: str
    replace: bool
    def __init__(self, reference: _Optional[str] = ..., format: _Optional[_Union[RegisterImageStart.Format, str]] = ..., config: _Optional[_Union[_image_pb2.ImageConfig, _Mapping]] = ..., platform: _Optional[str] = ..., request_id: _Optional[str] = ..., kernel: _Optional[str] = ..., image: _Optional[str] = ..., replace: bool = ...) -> None: ...

class RegisterImageResponse(_message.Message):
    __slots__ = ("operation", "image", "heartbeat")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    operation: _operation_pb2.Operation
    image: _image_pb2.Image
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, operation: _Optional[_Union[_operation_pb2.Operation, _Mapping]] = ..., image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class GetImageRequest(_message.Message):
    __slots__ = ("image",)
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    image: str
    def __init__(self, image: _Optional[str] = ...) -> None: ...

class GetImageResponse(_message.Message):
    __slots__ = ("image",)
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    image: _image_pb2.Image
    def __init__(self, image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ...) -> None: ...

class ListImagesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListImagesResponse(_message.Message):
    __slots__ = ("images", "next_page_token")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_image_pb2.Image]
    next_page_token: str
    def __init__(self, images: _Optional[_Iterable[_Union[_image_pb2.Image, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteImageRequest(_message.Message):
    __slots__ = ("image", "request_id")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    image: str
    request_id: str
    def __init__(self, image: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteImageResponse(_message.Message):
    __slots__ = ("removed_references", "image_removed", "freed_bytes", "deferred")
    REMOVED_REFERENCES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_REMOVED_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEFERRED_FIELD_NUMBER: _ClassVar[int]
    removed_references: _containers.RepeatedScalarFieldContainer[str]
    image_removed: bool
    freed_bytes: int
    deferred: bool
    def __init__(self, removed_references: _Optional[_Iterable[str]] = ..., image_removed: bool = ..., freed_bytes: _Optional[int] = ..., deferred: bool = ...) -> None: ...

class TagImageRequest(_message.Message):
    __slots__ = ("image", "reference", "replace", "request_id")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    image: str
    reference: str
    replace: bool
    request_id: str
    def __init__(self, image: _Optional[str] = ..., reference: _Optional[str] = ..., replace: bool = ..., request_id: _Optional[str] = ...) -> None: ...

class TagImageResponse(_message.Message):
    __slots__ = ("image",)
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    image: _image_pb2.Image
    def __init__(self, image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ...) -> None: ...

class PruneImagesRequest(_message.Message):
    __slots__ = ("all", "older_than_seconds", "build_cache", "dry_run", "request_id")
    ALL_FIELD_NUMBER: _ClassVar[int]
    OLDER_THAN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BUILD_CACHE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    all: bool
    older_than_seconds: int
    build_cache: bool
    dry_run: bool
    request_id: str
    def __init__(self, all: bool = ..., older_than_seconds: _Optional[int] = ..., build_cache: bool = ..., dry_run: bool = ..., request_id: _Optional[str] = ...) -> None: ...

class PruneImagesResponse(_message.Message):
    __slots__ = ("images", "removed_files", "removed_build_steps", "freed_bytes", "deferred")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FILES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_BUILD_STEPS_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEFERRED_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_image_pb2.Image]
    removed_files: int
    removed_build_steps: int
    freed_bytes: int
    deferred: bool
    def __init__(self, images: _Optional[_Iterable[_Union[_image_pb2.Image, _Mapping]]] = ..., removed_files: _Optional[int] = ..., removed_build_steps: _Optional[int] = ..., freed_bytes: _Optional[int] = ..., deferred: bool = ...) -> None: ...

class ListImageUsageRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListImageUsageResponse(_message.Message):
    __slots__ = ("images", "next_page_token", "total_rootfs_bytes", "total_blob_bytes", "unreferenced_bytes", "build_cache_bytes")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_ROOTFS_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BLOB_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNREFERENCED_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUILD_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_image_pb2.ImageUsage]
    next_page_token: str
    total_rootfs_bytes: int
    total_blob_bytes: int
    unreferenced_bytes: int
    build_cache_bytes: int
    def __init__(self, images: _Optional[_Iterable[_Union[_image_pb2.ImageUsage, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_rootfs_bytes: _Optional[int] = ..., total_blob_bytes: _Optional[int] = ..., unreferenced_bytes: _Optional[int] = ..., build_cache_bytes: _Optional[int] = ...) -> None: ...

class ExportBundleRequest(_message.Message):
    __slots__ = ("image", "name", "version", "kernel")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    image: str
    name: str
    version: str
    kernel: str
    def __init__(self, image: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., kernel: _Optional[str] = ...) -> None: ...

class ExportBundleResponse(_message.Message):
    __slots__ = ("start", "chunk", "end", "heartbeat")
    START_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    start: _export_pb2.ExportStart
    chunk: bytes
    end: _export_pb2.ExportEnd
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, start: _Optional[_Union[_export_pb2.ExportStart, _Mapping]] = ..., chunk: _Optional[bytes] = ..., end: _Optional[_Union[_export_pb2.ExportEnd, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class ExportOciLayoutRequest(_message.Message):
    __slots__ = ("image",)
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    image: str
    def __init__(self, image: _Optional[str] = ...) -> None: ...

class ExportOciLayoutResponse(_message.Message):
    __slots__ = ("start", "chunk", "end", "heartbeat")
    START_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    start: _export_pb2.ExportStart
    chunk: bytes
    end: _export_pb2.ExportEnd
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, start: _Optional[_Union[_export_pb2.ExportStart, _Mapping]] = ..., chunk: _Optional[bytes] = ..., end: _Optional[_Union[_export_pb2.ExportEnd, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class BuildImageRequest(_message.Message):
    __slots__ = ("start", "chunk")
    START_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    start: BuildImageStart
    chunk: bytes
    def __init__(self, start: _Optional[_Union[BuildImageStart, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class BuildImageStart(_message.Message):
    __slots__ = ("reference", "dockerfile", "debian", "no_cache", "vcpu_count", "memory_mib", "disk_size_bytes", "network", "kernel", "request_id", "auths")
    class AuthsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: BasicAuth
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[BasicAuth, _Mapping]] = ...) -> None: ...
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    DOCKERFILE_FIELD_NUMBER: _ClassVar[int]
    DEBIAN_FIELD_NUMBER: _ClassVar[int]
    NO_CACHE_FIELD_NUMBER: _ClassVar[int]
    VCPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    DISK_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHS_FIELD_NUMBER: _ClassVar[int]
    reference: str
    dockerfile: DockerfileRecipe
    debian: DebianRecipe
    no_cache: bool
    vcpu_count: int
    memory_mib: int
    disk_size_bytes: int
    network: _vm_pb2.VmSpec.NetworkMode
    kernel: str
    request_id: str
    auths: _containers.MessageMap[str, BasicAuth]
    def __init__(self, reference: _Optional[str] = ..., dockerfile: _Optional[_Union[DockerfileRecipe, _Mapping]] = ..., debian: _Optional[_Union[DebianRecipe, _Mapping]] = ..., no_cache: bool = ..., vcpu_count: _Optional[int] = ..., memory_mib: _Optional[int] = ..., disk_size_bytes: _Optional[int] = ..., network: _Optional[_Union[_vm_pb2.VmSpec.NetworkMode, str]] = ..., kernel: _Optional[str] = ..., request_id: _Optional[str] = ..., auths: _Optional[_Mapping[str, BasicAuth]] = ...) -> None: ...

class DockerfileRecipe(_message.Message):
    __slots__ = ("text", "name", "build_args", "target")
    class BuildArgsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BUILD_ARGS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    text: str
    name: str
    build_args: _containers.ScalarMap[str, str]
    target: str
    def __init__(self, text: _Optional[str] = ..., name: _Optional[str] = ..., build_args: _Optional[_Mapping[str, str]] = ..., target: _Optional[str] = ...) -> None: ...

class DebianRecipe(_message.Message):
    __slots__ = ("suite", "variant", "include")
    SUITE_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    suite: str
    variant: str
    include: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, suite: _Optional[str] = ..., variant: _Optional[str] = ..., include: _Optional[_Iterable[str]] = ...) -> None: ...

class BuildImageResponse(_message.Message):
    __slots__ = ("operation", "log", "image", "heartbeat")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    operation: _operation_pb2.Operation
    log: BuildLog
    image: _image_pb2.Image
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, operation: _Optional[_Union[_operation_pb2.Operation, _Mapping]] = ..., log: _Optional[_Union[BuildLog, _Mapping]] = ..., image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class BuildLog(_message.Message):
    __slots__ = ("step", "stream", "data", "dropped_bytes")
    class Stream(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STREAM_UNSPECIFIED: _ClassVar[BuildLog.Stream]
        STREAM_STDOUT: _ClassVar[BuildLog.Stream]
        STREAM_STDERR: _ClassVar[BuildLog.Stream]
    STREAM_UNSPECIFIED: BuildLog.Stream
    STREAM_STDOUT: BuildLog.Stream
    STREAM_STDERR: BuildLog.Stream
    STEP_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DROPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    step: str
    stream: BuildLog.Stream
    data: bytes
    dropped_bytes: int
    def __init__(self, step: _Optional[str] = ..., stream: _Optional[_Union[BuildLog.Stream, str]] = ..., data: _Optional[bytes] = ..., dropped_bytes: _Optional[int] = ...) -> None: ...
