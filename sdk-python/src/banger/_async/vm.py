"""VMs: from an image to a running machine, and away with it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from google.protobuf import field_mask_pb2

from banger import _methods, errors, v1
from banger._async import _io
from banger._async._call import PAGE_SIZE, Caller, Progress, Room, new_request_id
from banger._async.files import Files
from banger._async.session import Session, Sessions, run
from banger._async.tunnel import Forward, Tunnel, forward
from banger._async.workspace import Workspace
from banger._command import Command, Limit, Lines, duration, spec_of
from banger._mount import NETWORKS, Mount, Network, VmFile
from banger._result import Result

_OUTPUT_MAX = 256 << 20

RestartPolicy = Literal["never", "on-failure", "always"]
_POLICIES = {
    "never": v1.VmSpec.RESTART_POLICY_NEVER,
    "on-failure": v1.VmSpec.RESTART_POLICY_ON_FAILURE,
    "always": v1.VmSpec.RESTART_POLICY_ALWAYS,
}


@dataclass(frozen=True)
class ConsoleOutput:
    """Bytes of a console."""

    offset: int
    """Of the first byte; larger than where the piece before ended if bytes between are no longer kept."""
    data: bytes


class Vm:
    """A VM. As a context manager it is thrown away at the end, however the block ends."""

    # How long it is thrown away, when its caller is gone.
    _THROW_AWAY_SECONDS = 60.0

    def __init__(self, caller: Caller, info: v1.Vm) -> None:
        self._caller = caller
        self._workspace: Workspace | None = None
        self.info = info
        """As it was last seen."""

    @property
    def id(self) -> str:
        """A UUID."""
        return self.info.id

    @property
    def name(self) -> str:
        """A DNS label, unique among the living."""
        return self.info.spec.name

    @property
    def state(self) -> str:
        """Where it was when it was last seen: `RUNNING`, `STOPPED`, …"""
        return v1.Vm.State.Name(self.info.state).removeprefix("STATE_")

    def __repr__(self) -> str:
        return f"<banger.Vm {self.name} {self.state}>"

    @property
    def files(self) -> Files:
        """Its files, as its default user."""
        return Files(self._caller, self.id)

    @property
    def sessions(self) -> Sessions:
        """Its sessions."""
        return Sessions(self._caller, self.id)

    @property
    def workspace(self) -> Workspace:
        """Its workspace: a repository of this machine, and what was done there."""
        if self._workspace is None:
            self._workspace = self.workspace_at("")
        return self._workspace

    def workspace_at(self, path: str, *, user: str = "") -> Workspace:
        """The workspace at a path of the VM, absolute or relative to the user's home; for more than one of them."""
        return Workspace(self._caller, self.id, self.name, path, user)

    async def run(
        self,
        command: Command,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        timeout: float | None = None,
        stdin: bytes | str | None = None,
        merge_output: bool = False,
        umask: int | None = None,
        limits: Mapping[str, Limit] | None = None,
        on_stdout: Lines | None = None,
        on_stderr: Lines | None = None,
        check: bool = False,
        max_output_bytes: int = _OUTPUT_MAX,
    ) -> Result:
        """Runs a command to its end. A text is run by `/bin/sh -c`. `timeout` is in seconds, and kills all of its
        processes; None means no limit. The callbacks get each line without its end, as it comes. `merge_output` makes
        both streams one, in the order in which they are written. `limits` are those of setrlimit(2) by name, such as
        `{"nofile": 1024, "stack": None}`: a number for soft and hard, a pair for each, None for none.

        Raises:
            CommandNotStarted: Nothing ran: no such program, user or directory. A repeat is safe.
            NonZeroExit: With `check`, when it did not end with 0.
            CommandTimeout, CommandOutOfMemory, VmGone, OutputTooLong: It ran; `result` has what it wrote until then.
            ConnectionLost: The connection broke for good; `code_ran` says whether it ran.
        """
        data = stdin.encode() if isinstance(stdin, str) else stdin
        spec = spec_of(
            command,
            cwd=cwd,
            env=env,
            user=user,
            timeout=timeout,
            stdin=data is not None,
            merge_output=merge_output,
            umask=umask,
            limits=limits,
        )
        return await run(
            self._caller,
            self.id,
            spec,
            stdin=data,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
            check=check,
            max_output_bytes=max_output_bytes,
        )

    async def start(
        self,
        command: Command = (),
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        timeout: float | None = None,
        stdin: bool = True,
        pty: bool | tuple[int, int] = False,
        merge_output: bool = False,
        umask: int | None = None,
        limits: Mapping[str, Limit] | None = None,
        keep_children: bool = False,
        request_id: str | uuid.UUID | None = None,
    ) -> Session:
        """Starts a command that goes on without its caller, with open standard input; `pty` gives it a terminal, of 24
        rows and 80 columns or of this size. No command means the image's own. With `keep_children` processes that the
        first one leaves behind go on after its end, until the session is removed. `limits` are as those of `run`.
        """
        spec = spec_of(
            command,
            cwd=cwd,
            env=env,
            user=user,
            timeout=timeout,
            stdin=stdin,
            pty=pty,
            merge_output=merge_output,
            umask=umask,
            limits=limits,
            keep_children=keep_children,
        )
        return await self.sessions.start(spec, request_id)

    async def tunnel(
        self,
        port: int | None = None,
        *,
        address: str = "",
        unix_path: str | None = None,
        connect_timeout: float = 10,
    ) -> Tunnel:
        """Connects to a TCP port, by default of the guest's loopback, or a unix socket in it."""
        return await Tunnel.open(
            self._caller,
            self.id,
            port=port,
            address=address,
            unix_path=unix_path,
            connect_timeout=connect_timeout,
        )

    async def forward(
        self,
        guest_port: int | None = None,
        *,
        address: str = "",
        unix_path: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        connect_timeout: float = 10,
    ) -> Forward:
        """Listens on a TCP port of this machine (0: any that is free) and leads each connection to a socket in the
        guest.
        """

        async def open_tunnel() -> Tunnel:
            return await self.tunnel(guest_port, address=address, unix_path=unix_path, connect_timeout=connect_timeout)

        return await forward(open_tunnel, host, port)

    async def refresh(self) -> v1.Vm:
        """As it is now."""
        self.info = (await self._caller.repeat(_methods.GET_VM, v1.GetVmRequest(vm=self.id))).vm
        return self.info

    async def power_on(self) -> v1.Vm:
        """Boots it where it is stopped; returns when its agent answers."""
        request = v1.StartVmRequest(vm=self.id, request_id=new_request_id(None))
        self.info = (await self._caller.repeat(_methods.START_VM, request)).vm
        return self.info

    async def stop(self, *, keep_logs: bool = False) -> v1.Vm:
        """Shuts it down; returns when it is off. `info.last_stop` tells how it went. With `keep_logs` the output of its
        sessions is copied out of it first, and read as before; `info.last_stop.kept_logs` tells what was.
        """
        request = v1.StopVmRequest(vm=self.id, request_id=new_request_id(None), keep_logs=keep_logs)
        self.info = (await self._caller.repeat(_methods.STOP_VM, request)).vm
        return self.info

    async def restart(self) -> v1.Vm:
        """Shuts it down and boots it again."""
        request = v1.RestartVmRequest(vm=self.id, request_id=new_request_id(None))
        self.info = (await self._caller.repeat(_methods.RESTART_VM, request)).vm
        return self.info

    async def pause(self) -> v1.Vm:
        """Holds its vCPUs; its memory is kept, its sessions stand still."""
        request = v1.PauseVmRequest(vm=self.id, request_id=new_request_id(None))
        self.info = (await self._caller.repeat(_methods.PAUSE_VM, request)).vm
        return self.info

    async def resume(self) -> v1.Vm:
        """Lets its vCPUs go on."""
        request = v1.ResumeVmRequest(vm=self.id, request_id=new_request_id(None))
        self.info = (await self._caller.repeat(_methods.RESUME_VM, request)).vm
        return self.info

    async def kill(self) -> v1.Vm:
        """Ends it at once; its disks are kept."""
        request = v1.KillVmRequest(vm=self.id, request_id=new_request_id(None))
        self.info = (await self._caller.repeat(_methods.KILL_VM, request)).vm
        return self.info

    async def delete(self) -> None:
        """Throws it and its disks away; returns when nothing is left. One that is gone is no error."""
        request = v1.DeleteVmRequest(vm=self.id, request_id=new_request_id(None))
        try:
            await self._caller.repeat(_methods.DELETE_VM, request)
        except errors.NotFoundError:
            return

    async def update(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: float | None = None,
        idle_timeout: float | None = None,
        restart_policy: RestartPolicy | None = None,
        vcpu_count: int | None = None,
        memory_mib: int | None = None,
        disk_mib: int | None = None,
        etag: str = "",
    ) -> v1.Vm:
        """Changes what is given. vCPUs and memory hold from the next start on (`info.pending_fields`); a disk can only
        grow. With an `etag` it is refused if the VM was changed since.
        """
        spec = v1.VmSpec()
        paths = []
        if labels is not None:
            spec.labels.update(labels)
            paths.append("labels")
        if ttl is not None:
            spec.ttl.CopyFrom(duration(ttl))
            paths.append("ttl")
        if idle_timeout is not None:
            spec.idle_timeout.CopyFrom(duration(idle_timeout))
            paths.append("idle_timeout")
        if restart_policy is not None:
            spec.restart_policy = _POLICIES[restart_policy]
            paths.append("restart_policy")
        for name, value in (("vcpu_count", vcpu_count), ("memory_mib", memory_mib), ("disk_mib", disk_mib)):
            if value is not None:
                setattr(spec, name, value)
                paths.append(name)
        request = v1.UpdateVmRequest(
            vm=self.id,
            spec=spec,
            update_mask=field_mask_pb2.FieldMask(paths=paths),
            etag=etag,
            request_id=new_request_id(None),
        )
        self.info = (await self._caller.repeat(_methods.UPDATE_VM, request)).vm
        return self.info

    async def watch(self) -> AsyncIterator[v1.Vm]:
        """The VM now, then after each change, until it is deleted. Goes on over broken connections."""
        retry = self._caller.retry()
        while True:
            stream = self._caller.channel.stream(_methods.WATCH_VM, v1.WatchVmRequest(vm=self.id))
            try:
                while (message := await stream.read()) is not None:
                    retry.established()
                    which = message.WhichOneof("message")
                    if which == "deleted":
                        return
                    if which == "vm":
                        self.info = message.vm
                        yield message.vm
                raise errors.ConnectionLost("WatchVm")
            except errors.BangerError as error:
                await retry.after(error)
            finally:
                stream.cancel()

    async def stats(self) -> v1.VmStats:
        """How much it uses. Takes a quarter of a second, over which what changes is measured."""
        return (await self._caller.repeat(_methods.GET_VM_STATS, v1.GetVmStatsRequest(vm=self.id))).stats

    async def watch_stats(self, *, interval: float = 1.0) -> AsyncIterator[v1.VmStats]:
        """How much it uses, again and again (0.5 to 60 s), until it is deleted."""
        request = v1.WatchVmStatsRequest(vm=self.id, interval=duration(interval))
        stream = self._caller.channel.stream(_methods.WATCH_VM_STATS, request)
        try:
            while (message := await stream.read()) is not None:
                which = message.WhichOneof("message")
                if which == "deleted":
                    return
                if which == "stats":
                    yield message.stats
        finally:
            stream.cancel()

    async def ports(self, *, probe: bool = False) -> list[v1.Port]:
        """Who listens in it; `probe` asks each for its page by HTTP."""
        answer = await self._caller.repeat(_methods.LIST_PORTS, v1.ListPortsRequest(vm=self.id, probe=probe))
        return list(answer.ports)

    async def console(
        self, *, offset: int | None = None, tail_lines: int | None = None, follow: bool = False
    ) -> AsyncIterator[ConsoleOutput]:
        """Its console: from an offset, so many lines before the end, or the oldest that is kept; with `follow` also
        what comes until it stops.
        """
        request = v1.ReadConsoleRequest(vm=self.id, follow=follow)
        if offset is not None:
            request.offset = offset
        if tail_lines is not None:
            request.tail_lines = tail_lines
        retry = self._caller.retry()
        while True:
            stream = self._caller.channel.stream(_methods.READ_CONSOLE, request)
            try:
                while (message := await stream.read()) is not None:
                    retry.established()
                    if message.WhichOneof("message") == "output":
                        output = message.output
                        request.ClearField("tail_lines")
                        request.offset = output.offset + len(output.data)
                        yield ConsoleOutput(output.offset, output.data)
                return
            except errors.BangerError as error:
                await retry.after(error)
            finally:
                stream.cancel()

    async def _throw_away(self) -> None:
        """Deletes it over a connection of its own: the client's may have been interrupted anywhere."""
        async with self._caller.again() as caller:
            await Vm(caller, self.info).delete()

    async def __aenter__(self) -> Vm:
        _io.entered(self)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_interrupted = kind is not None and not issubclass(kind, Exception)
        await _io.removing(self, self._throw_away if is_interrupted else self.delete, self._THROW_AWAY_SECONDS)


class Vms:
    """All VMs."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(
        self,
        image: str,
        *,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        kernel: str = "",
        vcpu_count: int = 0,
        memory_mib: int = 0,
        disk_mib: int = 0,
        env: Mapping[str, str] | None = None,
        network: Network = "default",
        ephemeral: bool = False,
        keep_logs: bool = False,
        ttl: float | None = None,
        idle_timeout: float | None = None,
        restart_policy: RestartPolicy | None = None,
        init: bool | str = False,
        identity: v1.VmIdentity | None = None,
        volumes: Mapping[str, str | Mount] | None = None,
        files: Mapping[str, bytes | str | VmFile] | None = None,
        pull_if_missing: bool = True,
        wait: float = 0,
        on_progress: Progress | None = None,
        request_id: str | uuid.UUID | None = None,
    ) -> Vm:
        """Makes a VM and boots it; returns when its agent answers. 0 and nothing mean the daemon's defaults: 1 vCPU,
        512 MiB of memory, a sparse disk of 8 GiB.

        `init` boots the image's own init instead of the agent alone. `volumes` are mounted by path: a volume's name,
        or a `Mount`. `files` are written before it runs, by path. Where host, quota or queue are full, `wait` is how
        many seconds it may take until others have made room; by itself that is refused at once. With a `request_id` a
        repeat joins the first. A caller that is interrupted leaves nothing behind. With `keep_logs` every orderly stop
        keeps them as `stop` does.
        """
        spec = v1.VmSpec(
            name=name,
            labels=dict(labels or {}),
            image=image,
            kernel=kernel,
            vcpu_count=vcpu_count,
            memory_mib=memory_mib,
            disk_mib=disk_mib,
            env=dict(env or {}),
            network_mode=NETWORKS[network],
            ephemeral=ephemeral,
            keep_logs=keep_logs,
            identity=identity,
        )
        if ttl is not None:
            spec.ttl.CopyFrom(duration(ttl))
        if idle_timeout is not None:
            spec.idle_timeout.CopyFrom(duration(idle_timeout))
        if restart_policy is not None:
            spec.restart_policy = _POLICIES[restart_policy]
        if init:
            spec.init_mode = v1.VmSpec.INIT_MODE_IMAGE
            spec.init_path = "" if init is True else init
        for path, volume in (volumes or {}).items():
            mount = volume if isinstance(volume, Mount) else Mount(volume)
            spec.volumes.add(volume=mount.volume, path=path, read_only=mount.read_only)
        return await self.create_from(
            spec,
            files=[VmFile.of(file).message(path) for path, file in (files or {}).items()],
            pull_if_missing=pull_if_missing,
            wait=wait,
            on_progress=on_progress,
            request_id=request_id,
        )

    async def create_from(
        self,
        spec: v1.VmSpec,
        *,
        files: Iterable[v1.VmFile] = (),
        pull_if_missing: bool = True,
        wait: float = 0,
        on_progress: Progress | None = None,
        request_id: str | uuid.UUID | None = None,
    ) -> Vm:
        """The same, with all of the specification as the API has it."""
        given = list(files)

        async def undo(caller: Caller, vm: str) -> None:
            await Vm(caller, v1.Vm(id=vm)).delete()

        room = Room(wait)
        while True:
            request = v1.CreateVmRequest(
                spec=spec, files=given, pull_if_missing=pull_if_missing, request_id=new_request_id(request_id)
            )
            try:
                return await self._caller.follow(_methods.CREATE_VM, request, "vm", on_progress, Vm, undo)
            except errors.RefusedError as error:
                await room.after(error)

    async def get(self, vm: str) -> Vm:
        """The one with this id or name."""
        return Vm(self._caller, (await self._caller.repeat(_methods.GET_VM, v1.GetVmRequest(vm=vm))).vm)

    async def list(self, *, labels: Mapping[str, str] | None = None) -> AsyncIterator[Vm]:
        """Those that have all of these labels, newest first."""
        wanted = dict(labels or {})
        pages = self._caller.pages(
            _methods.LIST_VMS,
            lambda token: v1.ListVmsRequest(page_size=PAGE_SIZE, page_token=token, labels=wanted),
            lambda page: page.vms,
        )
        async for info in pages:
            yield Vm(self._caller, info)
