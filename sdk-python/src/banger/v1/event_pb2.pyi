import datetime

from banger.v1 import operation_pb2 as _operation_pb2
from banger.v1 import vm_pb2 as _vm_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Event(_message.Message):
    __slots__ = ("sequence", "time", "kind", "vm", "operation", "image", "kernel")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Event.Kind]
        KIND_VM_CREATED: _ClassVar[Event.Kind]
        KIND_VM_STATE_CHANGED: _ClassVar[Event.Kind]
        KIND_VM_DELETED: _ClassVar[Event.Kind]
        KIND_VM_UPDATED: _ClassVar[Event.Kind]
        KIND_OPERATION_BEGUN: _ClassVar[Event.Kind]
        KIND_OPERATION_ENDED: _ClassVar[Event.Kind]
        KIND_IMAGE_ADDED: _ClassVar[Event.Kind]
        KIND_IMAGE_REMOVED: _ClassVar[Event.Kind]
        KIND_KERNEL_ADDED: _ClassVar[Event.Kind]
        KIND_KERNEL_REMOVED: _ClassVar[Event.Kind]
    KIND_UNSPECIFIED: Event.Kind
    KIND_VM_CREATED: Event.Kind
    KIND_VM_STATE_CHANGED: Event.Kind
    KIND_VM_DELETED: Event.Kind
    KIND_VM_UPDATED: Event.Kind
    KIND_OPERATION_BEGUN: Event.Kind
    KIND_OPERATION_ENDED: Event.Kind
    KIND_IMAGE_ADDED: Event.Kind
    KIND_IMAGE_REMOVED: Event.Kind
    KIND_KERNEL_ADDED: Event.Kind
    KIND_KERNEL_REMOVED: Event.Kind
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VM_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    kind: Event.Kind
    vm: VmEvent
    operation: OperationEvent
    image: ImageEvent
    kernel: KernelEvent
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[Event.Kind, str]] = ..., vm: _Optional[_Union[VmEvent, _Mapping]] = ..., operation: _Optional[_Union[OperationEvent, _Mapping]] = ..., image: _Optional[_Union[ImageEvent, _Mapping]] = ..., kernel: _Optional[_Union[KernelEvent, _Mapping]] = ...) -> None: ...

class VmEvent(_message.Message):
    __slots__ = ("id", "name", "from_state", "to_state", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FROM_STATE_FIELD_NUMBER: _ClassVar[int]
    TO_STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    from_state: _vm_pb2.Vm.State
    to_state: _vm_pb2.Vm.State
    reason: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., from_state: _Optional[_Union[_vm_pb2.Vm.State, str]] = ..., to_state: _Optional[_Union[_vm_pb2.Vm.State, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class OperationEvent(_message.Message):
    __slots__ = ("id", "operation_kind", "target", "state", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    OPERATION_KIND_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    operation_kind: _operation_pb2.Operation.Kind
    target: str
    state: _operation_pb2.Operation.State
    reason: str
    def __init__(self, id: _Optional[str] = ..., operation_kind: _Optional[_Union[_operation_pb2.Operation.Kind, str]] = ..., target: _Optional[str] = ..., state: _Optional[_Union[_operation_pb2.Operation.State, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class ImageEvent(_message.Message):
    __slots__ = ("id", "reference")
    ID_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    reference: str
    def __init__(self, id: _Optional[str] = ..., reference: _Optional[str] = ...) -> None: ...

class KernelEvent(_message.Message):
    __slots__ = ("id", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class EventsSnapshot(_message.Message):
    __slots__ = ("epoch", "sequence", "vms")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    VMS_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    sequence: int
    vms: _containers.RepeatedCompositeFieldContainer[VmSummary]
    def __init__(self, epoch: _Optional[str] = ..., sequence: _Optional[int] = ..., vms: _Optional[_Iterable[_Union[VmSummary, _Mapping]]] = ...) -> None: ...

class VmSummary(_message.Message):
    __slots__ = ("id", "name", "state")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    state: _vm_pb2.Vm.State
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[_vm_pb2.Vm.State, str]] = ...) -> None: ...
