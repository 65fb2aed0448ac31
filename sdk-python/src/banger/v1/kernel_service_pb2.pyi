from banger.v1 import export_pb2 as _export_pb2
from banger.v1 import kernel_pb2 as _kernel_pb2
from banger.v1 import operation_pb2 as _operation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ImportKernelRequest(_message.Message):
    __slots__ = ("start", "kernel_chunk", "modules_chunk", "config_chunk")
    START_FIELD_NUMBER: _ClassVar[int]
    KERNEL_CHUNK_FIELD_NUMBER: _ClassVar[int]
    MODULES_CHUNK_FIELD_NUMBER: _ClassVar[int]
    CONFIG_CHUNK_FIELD_NUMBER: _ClassVar[int]
    start: ImportKernelStart
    kernel_chunk: bytes
    modules_chunk: bytes
    config_chunk: bytes
    def __init__(self, start: _Optional[_Union[ImportKernelStart, _Mapping]] = ..., kernel_chunk: _Optional[bytes] = ..., modules_chunk: _Optional[bytes] = ..., config_chunk: _Optional[bytes] = ...) -> None: ...

class ImportKernelStart(_message.Message):
    __slots__ = ("name", "debian_package", "make_default", "replace", "request_id", "file_name")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEBIAN_PACKAGE_FIELD_NUMBER: _ClassVar[int]
    MAKE_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    debian_package: str
    make_default: bool
    replace: bool
    request_id: str
    file_name: str
    def __init__(self, name: _Optional[str] = ..., debian_package: _Optional[str] = ..., make_default: bool = ..., replace: bool = ..., request_id: _Optional[str] = ..., file_name: _Optional[str] = ...) -> None: ...

class ImportKernelResponse(_message.Message):
    __slots__ = ("operation", "kernel", "heartbeat")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    operation: _operation_pb2.Operation
    kernel: _kernel_pb2.Kernel
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, operation: _Optional[_Union[_operation_pb2.Operation, _Mapping]] = ..., kernel: _Optional[_Union[_kernel_pb2.Kernel, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class PullKernelRequest(_message.Message):
    __slots__ = ("kernel", "name", "make_default", "replace", "request_id")
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAKE_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    kernel: str
    name: str
    make_default: bool
    replace: bool
    request_id: str
    def __init__(self, kernel: _Optional[str] = ..., name: _Optional[str] = ..., make_default: bool = ..., replace: bool = ..., request_id: _Optional[str] = ...) -> None: ...

class PullKernelResponse(_message.Message):
    __slots__ = ("operation", "kernel", "heartbeat")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    operation: _operation_pb2.Operation
    kernel: _kernel_pb2.Kernel
    heartbeat: _operation_pb2.Heartbeat
    def __init__(self, operation: _Optional[_Union[_operation_pb2.Operation, _Mapping]] = ..., kernel: _Optional[_Union[_kernel_pb2.Kernel, _Mapping]] = ..., heartbeat: _Optional[_Union[_operation_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class ExportKernelRequest(_message.Message):
    __slots__ = ("kernel",)
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    kernel: str
    def __init__(self, kernel: _Optional[str] = ...) -> None: ...

class ExportKernelResponse(_message.Message):
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

class GetKernelRequest(_message.Message):
    __slots__ = ("kernel",)
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    kernel: str
    def __init__(self, kernel: _Optional[str] = ...) -> None: ...

class GetKernelResponse(_message.Message):
    __slots__ = ("kernel",)
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    kernel: _kernel_pb2.Kernel
    def __init__(self, kernel: _Optional[_Union[_kernel_pb2.Kernel, _Mapping]] = ...) -> None: ...

class ListKernelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListKernelsResponse(_message.Message):
    __slots__ = ("kernels", "next_page_token")
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    kernels: _containers.RepeatedCompositeFieldContainer[_kernel_pb2.Kernel]
    next_page_token: str
    def __init__(self, kernels: _Optional[_Iterable[_Union[_kernel_pb2.Kernel, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteKernelRequest(_message.Message):
    __slots__ = ("kernel", "request_id")
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    kernel: str
    request_id: str
    def __init__(self, kernel: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteKernelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
