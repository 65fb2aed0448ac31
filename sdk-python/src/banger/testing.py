"""A fake daemon in this process, for unit tests of code that uses banger.

    with banger.testing.FakeDaemon() as daemon:
        daemon.on("pytest -q", stdout="1 passed\\n")
        with banger.connect(daemon.host) as client:
            ...
        assert daemon.commands[0].text == "pytest -q"

It speaks the real API over a real socket, so that the client is the real one, asyncio or not. VMs are names, commands
are replies, and files are kept in memory. It says UNIMPLEMENTED to what it does not have: tunnels, trees of files,
volumes, catalogs. A reply can break the connection, to see how code takes that.
"""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from banger import _methods, v1
from banger._method import Method

__all__ = ["Command", "FakeDaemon", "Reply"]

_CHUNK = 64 << 10
_WORKERS = 32


@dataclass
class Command:
    """A command that was run in a fake VM."""

    vm: str
    """The VM's name."""
    spec: v1.SessionSpec
    stdin: bytearray = field(default_factory=bytearray)
    """What it was given until now; each byte once."""

    @property
    def words(self) -> list[str]:
        """Program and arguments."""
        return list(self.spec.command)

    @property
    def text(self) -> str:
        """What the shell was given, or the words with spaces between."""
        words = self.words
        return words[2] if words[:2] == ["/bin/sh", "-c"] and len(words) == 3 else " ".join(words)


@dataclass
class Reply:
    """What a command does. With neither `code`, `signal` nor one of the others it ends with 0."""

    stdout: bytes | str = b""
    stderr: bytes | str = b""
    code: int = 0
    signal: int | None = None
    out_of_memory: bool = False
    deadline: bool = False
    vm_gone: bool = False
    echo: bool = False
    """Writes what it reads, and ends when its input ends."""
    hang: bool = False
    """Ends only when it is killed."""
    refuse: str = ""
    """Does not start, with this reason."""
    break_after: int | None = None
    """Once, after so many bytes of output, the connection breaks."""
    lost: int = 0
    """So many bytes of output, the first, are no longer kept."""

    def exit(self) -> v1.Exit:
        """As the API has it."""
        if self.signal is not None:
            return v1.Exit(signal=self.signal)
        for name in ("out_of_memory", "deadline", "vm_gone"):
            if getattr(self, name):
                return v1.Exit(**{name: True})
        return v1.Exit(code=self.code)


Answer = Reply | Callable[[Command], Reply]


class _Refused(Exception):
    def __init__(self, code: grpc.StatusCode, reason: str, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.metadata = code, reason, metadata


class _Session:
    """A command, its log and its input."""

    def __init__(self, command: Command, vm_id: str, reply: Reply | None, answer: Callable[[Command], Reply]) -> None:
        self.id = str(uuid.uuid4())
        self.vm_id = vm_id
        self.command = command
        self.changed = threading.Condition()
        self.log: list[tuple[v1.Stream, bytes]] = []
        self.length = 0
        self.exit: v1.Exit | None = None
        self.broken = False
        self.is_closed = not (command.spec.stdin or command.spec.HasField("terminal"))
        self._answer = answer
        self.reply = reply or Reply()
        self._is_decided = reply is not None
        self._go_on()

    def info(self) -> v1.Session:
        state = v1.Session.STATE_RUNNING if self.exit is None else v1.Session.STATE_EXITED
        return v1.Session(
            id=self.id,
            vm_id=self.vm_id,
            spec=self.command.spec,
            state=state,
            exit=self.exit,
            log_end_offset=self.length,
            stdin_offset=len(self.command.stdin),
        )

    def _write(self, stream: v1.Stream, data: bytes | str) -> None:
        data = data.encode() if isinstance(data, str) else data
        for at in range(0, len(data), _CHUNK):
            self.log.append((stream, data[at : at + _CHUNK]))
        self.length += len(data)

    def _go_on(self) -> None:
        """Ends, if all of its input has come."""
        if self.exit is not None or not self.is_closed:
            return
        if not self._is_decided:
            self.reply = self._answer(self.command)
            self._is_decided = True
        if self.reply.hang:
            return
        self._write(v1.STREAM_STDOUT, self.reply.stdout)
        self._write(v1.STREAM_STDERR, self.reply.stderr)
        self.exit = self.reply.exit()

    def input(self, offset: int, data: bytes) -> None:
        with self.changed:
            have = len(self.command.stdin)
            if offset > have:
                raise _Refused(grpc.StatusCode.FAILED_PRECONDITION, "STDIN_REFUSED", "standard input left a hole")
            new = data[have - offset :]
            self.command.stdin += new
            if self.reply.echo:
                self._write(v1.STREAM_STDOUT, new)
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.is_closed = True
            self._go_on()
            self.changed.notify_all()

    def kill(self, number: int) -> None:
        with self.changed:
            if self.exit is None:
                self.exit = v1.Exit(signal=number)
            self.changed.notify_all()


class FakeDaemon:
    """See the module. As a context manager it serves; it serves on a socket of its own in a temporary directory."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.attachments: list[v1.AttachSessionStart] = []
        """How sessions were attached to, in order."""
        """Every command that was run, oldest first."""
        self.vms: dict[str, v1.Vm] = {}
        """Every VM that there is, by id."""
        self.files: dict[tuple[str, str], bytes] = {}
        """The files of VMs, by the VM's name and the path."""
        self.images: dict[str, v1.Image] = {}
        """Every image that there is, by reference."""
        self.calls: list[str] = []
        """The name of every call that was made, oldest first."""
        self._lock = threading.RLock()
        self._answers: list[tuple[Callable[[Command], bool], Answer]] = []
        self._faults: dict[str, list[_Refused | None]] = {}
        self._sessions: dict[str, _Session] = {}
        self._requests: dict[str, Any] = {}
        self._directory = tempfile.mkdtemp(prefix="banger-fake-")
        self._server: grpc.Server | None = None

    @property
    def host(self) -> str:
        """Where it serves, for `connect`."""
        return f"unix://{self._directory}/s"

    def on(
        self,
        command: str | Sequence[str] | Callable[[Command], bool],
        reply: Answer | None = None,
        **fields: Any,
    ) -> None:
        """What a command does: given as the shell gets it, as words, or as a function that says whether it is meant.
        `reply`, or the fields of one; a function that makes one gets the command with all its input. The last one that
        is meant counts. Other commands end with 0.
        """
        if callable(command):
            meant = command
        elif isinstance(command, str):
            text = command

            def meant(run: Command) -> bool:
                return run.text == text
        else:
            words = list(command)

            def meant(run: Command) -> bool:
                return run.words == words

        self._answers.append((meant, reply if reply is not None else Reply(**fields)))

    def fail(
        self, call: str, code: grpc.StatusCode, reason: str, message: str = "it was told to fail", **metadata: str
    ) -> None:
        """The next call of this name, such as `CreateVm`, fails like that."""
        self._faults.setdefault(call, []).append(_Refused(code, reason, message, **metadata))

    def lose(self, call: str, times: int = 1) -> None:
        """The connection breaks at the next calls of this name."""
        self._faults.setdefault(call, []).extend([None] * times)

    def start(self) -> FakeDaemon:
        """Serves."""
        self._server = grpc.server(futures.ThreadPoolExecutor(_WORKERS))
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        self._server.add_insecure_port(f"unix:{self._directory}/s")
        self._server.start()
        return self

    def stop(self) -> None:
        """Stops serving, and removes the socket."""
        for session in list(self._sessions.values()):
            session.kill(9)
        if self._server is not None:
            self._server.stop(None).wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> FakeDaemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # The calls.

    def _vm(self, name: str) -> v1.Vm:
        for vm in self.vms.values():
            if name in (vm.id, vm.spec.name):
                return vm
        raise _Refused(grpc.StatusCode.NOT_FOUND, "VM_NOT_FOUND", f"no VM is named `{name}`", vm=name)

    def _session(self, session: str) -> _Session:
        try:
            return self._sessions[session]
        except KeyError:
            raise _Refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND", "there is no such session") from None

    def _begin(self, vm: str, spec: v1.SessionSpec) -> _Session:
        found = self._vm(vm)
        if found.state != v1.Vm.STATE_RUNNING:
            raise _Refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE", f"VM {found.spec.name} is not running")
        command = Command(found.spec.name, spec)
        with self._lock:
            self.commands.append(command)
            answers = [answer for meant, answer in self._answers if meant(command)]
        answer = answers[-1] if answers else Reply()
        if isinstance(answer, Reply):
            if answer.refuse:
                raise _Refused(grpc.StatusCode.FAILED_PRECONDITION, answer.refuse, "it did not start", code_ran="no")
            session = _Session(command, found.id, answer, lambda _: Reply())
        else:
            session = _Session(command, found.id, None, answer)
        self._sessions[session.id] = session
        return session

    def GetInfo(self, _: v1.GetInfoRequest) -> v1.GetInfoResponse:  # noqa: N802, D102
        return v1.GetInfoResponse(info=v1.HostInfo(version="fake", driver="fake", vm_count=len(self.vms)))

    def CreateVm(self, request: v1.CreateVmRequest) -> Iterator[v1.CreateVmResponse]:  # noqa: N802, D102
        with self._lock:
            vm = self._requests.get(request.request_id)
            if vm is None:
                vm = v1.Vm(id=str(uuid.uuid4()), spec=request.spec, state=v1.Vm.STATE_RUNNING, owner="uid:0")
                vm.spec.name = vm.spec.name or f"fake-{vm.id[:8]}"
                if any(other.spec.name == vm.spec.name for other in self.vms.values()):
                    raise _Refused(grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN", f"`{vm.spec.name}` is taken")
                self.vms[vm.id] = self._requests[request.request_id] = vm
                for file in request.files:
                    self.files[vm.spec.name, file.path] = file.content
        operation = v1.Operation(id=request.request_id, target=vm.id, state=v1.Operation.STATE_RUNNING)
        yield v1.CreateVmResponse(operation=operation)
        yield v1.CreateVmResponse(vm=vm)

    def CancelOperation(  # noqa: N802, D102
        self, request: v1.CancelOperationRequest
    ) -> v1.CancelOperationResponse:
        vm = self._requests.get(request.operation)
        operation = v1.Operation(id=request.operation, state=v1.Operation.STATE_SUCCEEDED)
        operation.target = vm.id if vm is not None else ""
        return v1.CancelOperationResponse(operation=operation)

    def GetVm(self, request: v1.GetVmRequest) -> v1.GetVmResponse:  # noqa: N802, D102
        return v1.GetVmResponse(vm=self._vm(request.vm))

    def ListVms(self, request: v1.ListVmsRequest) -> v1.ListVmsResponse:  # noqa: N802, D102
        wanted = dict(request.labels).items()
        found = [vm for vm in reversed(self.vms.values()) if wanted <= dict(vm.spec.labels).items()]
        first = int(request.page_token or 0)
        size = request.page_size or 100
        token = str(first + size) if len(found) > first + size else ""
        return v1.ListVmsResponse(vms=found[first : first + size], next_page_token=token)

    def _to(self, name: str, state: v1.Vm.State) -> v1.Vm:
        vm = self._vm(name)
        vm.state = state
        return vm

    def StartVm(self, request: v1.StartVmRequest) -> v1.StartVmResponse:  # noqa: N802, D102
        return v1.StartVmResponse(vm=self._to(request.vm, v1.Vm.STATE_RUNNING))

    def StopVm(self, request: v1.StopVmRequest) -> v1.StopVmResponse:  # noqa: N802, D102
        return v1.StopVmResponse(vm=self._to(request.vm, v1.Vm.STATE_STOPPED))

    def DeleteVm(self, request: v1.DeleteVmRequest) -> v1.DeleteVmResponse:  # noqa: N802, D102
        vm = self._vm(request.vm)
        del self.vms[vm.id]
        for session in [s for s in self._sessions.values() if s.vm_id == vm.id]:
            session.kill(9)
        return v1.DeleteVmResponse()

    def PullImage(self, request: v1.PullImageRequest) -> Iterator[v1.PullImageResponse]:  # noqa: N802, D102
        image = v1.Image(id=str(uuid.uuid4()), references=[request.reference])
        image = self.images.setdefault(request.reference, image)
        yield v1.PullImageResponse(operation=v1.Operation(id=request.request_id, target=request.reference))
        yield v1.PullImageResponse(image=image)

    def GetImage(self, request: v1.GetImageRequest) -> v1.GetImageResponse:  # noqa: N802, D102
        if request.image not in self.images:
            raise _Refused(grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND", f"no image is named `{request.image}`")
        return v1.GetImageResponse(image=self.images[request.image])

    def ListImages(self, _: v1.ListImagesRequest) -> v1.ListImagesResponse:  # noqa: N802, D102
        return v1.ListImagesResponse(images=list(self.images.values()))

    def ReadConsole(self, request: v1.ReadConsoleRequest) -> Iterator[v1.ReadConsoleResponse]:  # noqa: N802, D102
        self._vm(request.vm)
        if request.offset == 0:
            yield v1.ReadConsoleResponse(output=v1.ConsoleOutput(offset=0, data=b"a console of a fake VM\n"))

    def Exec(self, requests: Iterator[v1.ExecRequest]) -> Iterator[v1.ExecResponse]:  # noqa: N802, D102
        start = next(requests).start
        session = self._begin(start.vm, start.spec)
        for name, message in self._attached(session, requests, 0):
            yield v1.ExecResponse(**{"started" if name == "attached" else name: message})
        self._sessions.pop(session.id, None)

    def StartSession(self, request: v1.StartSessionRequest) -> v1.StartSessionResponse:  # noqa: N802, D102
        with self._lock:
            session = self._requests.get(request.request_id)
            if session is None:
                session = self._requests[request.request_id] = self._begin(request.vm, request.spec)
        return v1.StartSessionResponse(session=session.info())

    def AttachSession(  # noqa: N802, D102
        self, requests: Iterator[v1.AttachSessionRequest]
    ) -> Iterator[v1.AttachSessionResponse]:
        start = next(requests).start
        self.attachments.append(start)
        session = self._session(start.session)
        for name, message in self._attached(session, requests, start.options.offset):
            yield v1.AttachSessionResponse(**{name: message})

    def ReadSessionLog(  # noqa: N802, D102
        self, request: v1.ReadSessionLogRequest
    ) -> Iterator[v1.ReadSessionLogResponse]:
        session = self._session(request.session)
        for name, message in self._attached(session, iter(()), request.options.offset, request.follow):
            if name != "stdin_ack":
                yield v1.ReadSessionLogResponse(**{name: message})

    def _attached(
        self, session: _Session, requests: Iterator[Any], offset: int, follow: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Output from an offset on, and acknowledgements."""
        yield "attached", session.info()
        if offset < session.reply.lost:
            yield "gap", v1.Gap(offset=offset, lost_bytes=session.reply.lost - offset)
            offset = session.reply.lost
        acks: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
        threading.Thread(target=self._take_input, args=(session, requests, acks), daemon=True).start()
        acked = 0
        while True:
            with session.changed:
                if session.length <= offset and session.exit is None and acks.empty() and follow:
                    session.changed.wait(timeout=2)
                new = b"".join(data for _, data in session.log)[offset:] if session.length > offset else b""
                pieces = list(_from(session.log, offset)) if new else []
                ended = session.exit if session.length == offset + sum(len(d) for _, _, d in pieces) else None
            while not acks.empty():
                ack = acks.get()
                if isinstance(ack, Exception):
                    raise ack
                acked = ack
                yield "stdin_ack", acked
            for at, stream, data in pieces:
                breaks = session.reply.break_after
                if breaks is not None and not session.broken and at + len(data) > breaks:
                    session.broken = True
                    if breaks > at:
                        yield "output", v1.Output(offset=at, stream=stream, data=data[: breaks - at])
                    raise ConnectionResetError
                yield "output", v1.Output(offset=at, stream=stream, data=data)
                offset = at + len(data)
            if ended is not None:
                yield "exited", v1.Exited(exit=ended, end_offset=offset)
                return
            if not follow:
                return
            if not pieces:
                yield "heartbeat", v1.Heartbeat()

    @staticmethod
    def _take_input(session: _Session, requests: Iterator[Any], acks: queue.SimpleQueue[int | Exception]) -> None:
        try:
            for request in requests:
                which = request.WhichOneof("message")
                if which == "stdin":
                    session.input(request.stdin.offset, request.stdin.data)
                    acks.put(len(session.command.stdin))
                elif which == "close_stdin":
                    session.close()
                elif which == "signal":
                    session.kill(request.signal)
                with session.changed:
                    session.changed.notify_all()
        except _Refused as error:
            acks.put(error)
        except Exception:
            return  # the caller hung up

    def GetSession(self, request: v1.GetSessionRequest) -> v1.GetSessionResponse:  # noqa: N802, D102
        return v1.GetSessionResponse(session=self._session(request.session).info())

    def ListSessions(self, request: v1.ListSessionsRequest) -> v1.ListSessionsResponse:  # noqa: N802, D102
        vm = self._vm(request.vm)
        return v1.ListSessionsResponse(sessions=[s.info() for s in self._sessions.values() if s.vm_id == vm.id])

    def SignalSession(self, request: v1.SignalSessionRequest) -> v1.SignalSessionResponse:  # noqa: N802, D102
        self._session(request.session).kill(request.signal)
        return v1.SignalSessionResponse()

    def WaitSession(self, request: v1.WaitSessionRequest) -> v1.WaitSessionResponse:  # noqa: N802, D102
        session = self._session(request.session)
        with session.changed:
            session.changed.wait_for(lambda: session.exit is not None)
        return v1.WaitSessionResponse(exit=session.exit)

    def DeleteSession(self, request: v1.DeleteSessionRequest) -> v1.DeleteSessionResponse:  # noqa: N802, D102
        self._session(request.session).kill(9)
        self._sessions.pop(request.session, None)
        return v1.DeleteSessionResponse()

    def _file(self, vm: str, path: str) -> bytes:
        try:
            return self.files[self._vm(vm).spec.name, path]
        except KeyError:
            raise _Refused(grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND", f"`{path}` is not there") from None

    @staticmethod
    def _about(path: str, content: bytes) -> v1.FileInfo:
        return v1.FileInfo(path=path, kind=v1.FileInfo.KIND_FILE, mode=0o644, size_bytes=len(content))

    def ReadFile(self, request: v1.ReadFileRequest) -> Iterator[v1.ReadFileResponse]:  # noqa: N802, D102
        content = self._file(request.vm, request.path)
        yield v1.ReadFileResponse(file=self._about(request.path, content))
        content = content[request.offset :]
        if request.HasField("length"):
            content = content[: request.length]
        for at in range(0, len(content), _CHUNK):
            yield v1.ReadFileResponse(chunk=content[at : at + _CHUNK])

    def WriteFile(self, requests: Iterator[v1.WriteFileRequest]) -> Iterator[v1.WriteFileResponse]:  # noqa: N802, D102
        start = next(requests).start
        name = self._vm(start.vm).spec.name
        content = bytearray()
        for request in requests:
            if request.WhichOneof("message") == "end":
                break
            content += request.chunk
        else:
            raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, "CUT_SHORT", "the content is not whole", written="no")
        if start.mode == v1.WriteFileStart.MODE_APPEND:
            content = bytearray(self.files.get((name, start.path), b"")) + content
        self.files[name, start.path] = bytes(content)
        yield v1.WriteFileResponse(file=self._about(start.path, bytes(content)))

    def StatFile(self, request: v1.StatFileRequest) -> v1.StatFileResponse:  # noqa: N802, D102
        return v1.StatFileResponse(file=self._about(request.path, self._file(request.vm, request.path)))

    def RemoveFile(self, request: v1.RemoveFileRequest) -> v1.RemoveFileResponse:  # noqa: N802, D102
        name = self._vm(request.vm).spec.name
        removed = self.files.pop((name, request.path), None) is not None
        if not removed and not request.allow_missing:
            self._file(request.vm, request.path)
        return v1.RemoveFileResponse(removed_count=int(removed))


def _from(log: list[tuple[v1.Stream, bytes]], offset: int) -> Iterator[tuple[int, v1.Stream, bytes]]:
    """What follows an offset."""
    at = 0
    for stream, data in log:
        if at + len(data) > offset:
            skip = max(offset - at, 0)
            yield at + skip, stream, data[skip:]
        at += len(data)


class _Handlers(grpc.GenericRpcHandler):
    """Leads calls to the methods of their names."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon
        self._methods = {method.path: method for method in _methods.ALL if hasattr(daemon, method.name)}

    def service(self, details: Any) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = self._methods.get(details.method)
        if method is None:
            return None
        make = getattr(
            grpc,
            f"{'stream' if method.client_streams else 'unary'}_{'stream' if method.server_streams else 'unary'}"
            "_rpc_method_handler",
        )
        behave = self._stream(method) if method.server_streams else self._unary(method)
        handler: grpc.RpcMethodHandler[Any, Any] = make(
            behave, method.request.FromString, method.response.SerializeToString
        )
        return handler

    def _begin(self, method: Method[Any, Any]) -> None:
        self._daemon.calls.append(method.name)
        faults = self._daemon._faults.get(method.name)
        if faults:
            fault = faults.pop(0)
            raise fault if fault is not None else ConnectionResetError

    def _unary(self, method: Method[Any, Any]) -> Callable[[Any, Any], Any]:
        def behave(request: Any, context: Any) -> Any:
            try:
                self._begin(method)
                return getattr(self._daemon, method.name)(request)
            except (_Refused, ConnectionResetError) as error:
                _abort(context, error)

        return behave

    def _stream(self, method: Method[Any, Any]) -> Callable[[Any, Any], Iterator[Any]]:
        def behave(request: Any, context: Any) -> Iterator[Any]:
            try:
                self._begin(method)
                yield from getattr(self._daemon, method.name)(request)
            except (_Refused, ConnectionResetError) as error:
                _abort(context, error)

        return behave


def _abort(context: Any, error: _Refused | ConnectionResetError) -> None:
    """Ends a call with an error; without details it is what a broken connection looks like."""
    if isinstance(error, ConnectionResetError):
        context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")
        return
    status = status_pb2.Status(code=error.code.value[0], message=str(error))
    metadata = dict(error.metadata)
    details: list[Any] = []
    if "retry_after" in metadata:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(float(metadata.pop("retry_after")) * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    details.append(error_details_pb2.ErrorInfo(reason=error.reason, domain="banger.dev", metadata=metadata))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(error.code, str(error))
