"""A client of one daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from banger import _methods, errors, v1
from banger._async import _io
from banger._async._call import PAGE_SIZE, Caller
from banger._async.images import Catalogs, Images, Kernels, Volumes
from banger._async.session import Session
from banger._async.vm import Vms
from banger._channel import Limits
from banger._host import PathLike, address


class Operations:
    """Long work, watched from anywhere. Operations are kept for a while after their end."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def get(self, operation: str) -> v1.Operation:
        """The one with this id."""
        request = v1.GetOperationRequest(operation=operation)
        return (await self._caller.repeat(_methods.GET_OPERATION, request)).operation

    async def list(self) -> AsyncIterator[v1.Operation]:
        """All that are kept, newest first."""
        pages = self._caller.pages(
            _methods.LIST_OPERATIONS,
            lambda token: v1.ListOperationsRequest(page_size=PAGE_SIZE, page_token=token),
            lambda page: page.operations,
        )
        async for operation in pages:
            yield operation

    async def watch(self, operation: str) -> AsyncIterator[v1.Operation]:
        """The operation now, then each change, until it has ended. Goes on over broken connections."""
        retry = self._caller.retry()
        while True:
            stream = self._caller.channel.stream(
                _methods.WATCH_OPERATION, v1.WatchOperationRequest(operation=operation)
            )
            try:
                while (message := await stream.read()) is not None:
                    retry.established()
                    if message.WhichOneof("message") == "operation":
                        yield message.operation
                        if message.operation.state != v1.Operation.STATE_RUNNING:
                            return
                raise errors.ConnectionLost("WatchOperation")
            except errors.BangerError as error:
                await retry.after(error)
            finally:
                stream.cancel()

    async def cancel(self, operation: str) -> v1.Operation:
        """Gives it up: it is undone, unless it ends before. Returns when it has ended."""
        request = v1.CancelOperationRequest(operation=operation)
        return (await self._caller.repeat(_methods.CANCEL_OPERATION, request)).operation


class Client:
    """A client of one daemon. As a context manager it hangs up at the end.

    Any number of threads may use one blocking client; an asyncio client belongs to its event loop. Neither survives
    fork(2): a forked process gets a `ForkedError`, and connects anew.
    """

    def __init__(self, channel: _io.Channel) -> None:
        self._channel = channel
        self._caller = Caller(channel)
        self.vms = Vms(self._caller)
        """VMs."""
        self.images = Images(self._caller)
        """Images."""
        self.kernels = Kernels(self._caller)
        """Kernels."""
        self.catalogs = Catalogs(self._caller)
        """Catalogs."""
        self.volumes = Volumes(self._caller)
        """Volumes."""
        self.operations = Operations(self._caller)
        """Long work."""

    def __repr__(self) -> str:
        return f"<banger.Client {self.host}>"

    @property
    def socket(self) -> Path | None:
        """The socket it is connected to; None for a daemon on another host."""
        return self._channel.address.socket

    @property
    def host(self) -> str:
        """The daemon it is connected to: a socket's path, or https://HOST:PORT."""
        return str(self._channel.address)

    async def session(self, session: str) -> Session:
        """The session with this id, of whatever VM."""
        answer = await self._caller.repeat(_methods.GET_SESSION, v1.GetSessionRequest(session=session))
        return Session(self._caller, answer.session)

    async def info(self) -> v1.HostInfo:
        """What the host is and can do."""
        return (await self._caller.repeat(_methods.GET_INFO, v1.GetInfoRequest())).info

    async def usage(self) -> v1.HostUsage:
        """What VMs were promised, what they take, and the limits."""
        return (await self._caller.repeat(_methods.GET_USAGE, v1.GetUsageRequest())).usage

    async def doctor(self, *, fix: bool = False, checks: Iterable[str] = ()) -> AsyncIterator[v1.DoctorCheck]:
        """Looks whether the host is fit; each check is told when it ends."""
        stream = self._channel.stream(_methods.DOCTOR, v1.DoctorRequest(fix=fix, checks=checks))
        try:
            while (message := await stream.read()) is not None:
                which = message.WhichOneof("message")
                if which == "check":
                    yield message.check
                elif which == "summary":
                    return
            raise errors.ConnectionLost("Doctor")
        finally:
            stream.cancel()

    async def events(
        self, *, kinds: Iterable[v1.Event.Kind] = (), vm: str = "", kept: bool = False
    ) -> AsyncIterator[v1.Event | v1.EventsSnapshot]:
        """What happens on the host: a snapshot, then each event; with `kept` first the events that are still kept. Goes
        on after the last event when the connection breaks; where events were lost, another snapshot comes.
        """
        request = v1.WatchEventsRequest(kinds=list(kinds), vm=vm)
        if kept:
            request.kept = True
        epoch = ""
        retry = self._caller.retry()
        while True:
            stream = self._channel.stream(_methods.WATCH_EVENTS, request)
            try:
                while (message := await stream.read()) is not None:
                    retry.established()
                    which = message.WhichOneof("message")
                    if which == "snapshot":
                        epoch = message.snapshot.epoch
                        request.after.CopyFrom(v1.EventPosition(epoch=epoch, sequence=message.snapshot.sequence))
                        yield message.snapshot
                    elif which == "event":
                        if epoch:
                            request.after.CopyFrom(v1.EventPosition(epoch=epoch, sequence=message.event.sequence))
                        yield message.event
                raise errors.ConnectionLost("WatchEvents")
            except errors.BangerError as error:
                await retry.after(error)
            finally:
                stream.cancel()

    async def close(self) -> None:
        """Hangs up. What runs goes on."""
        await self._channel.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def connect(
    host: str | None = None,
    *,
    cert: PathLike | None = None,
    key: PathLike | None = None,
    ca: PathLike | None = None,
    connect_timeout: float = 5.0,
    silence: float = 10.0,
    reconnect_window: float = 30.0,
) -> Client:
    """Connects to the daemon at `host`, a unix socket or https://HOST:PORT; else to that of BANGER_HOST, else to this
    machine's.

    To another host, `cert` and `key` are shown, and the word of the authorities in `ca` for the daemon counts: PEM
    files; or `cert` is a directory that `banger cert issue` made, which has all three. Without them, BANGER_CERT,
    BANGER_KEY and BANGER_CA name them.

    `silence` is how long a stream may say nothing before it counts as dead, `reconnect_window` how long a lost
    connection is tried again before the caller learns of it; all in seconds.

    Raises:
        HostError: If the address cannot be used.
        ConnectError: If nobody answers there; a `TlsError` if the two sides do not know each other.
    """
    channel = _io.Channel(address(host, cert, key, ca), Limits(connect_timeout, silence, reconnect_window))
    await channel.connect()
    return Client(channel)
