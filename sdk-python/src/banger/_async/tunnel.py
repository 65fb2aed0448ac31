"""Connections to sockets in running VMs, over the API alone."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from banger import _methods, errors, v1
from banger._async import _io
from banger._async._call import Caller
from banger._command import duration

T = TypeVar("T")

# Bytes of one direction that may be under way, as the API has it.
_WINDOW_BYTES = 256 << 10
# The daemon is told after so many bytes that they were read.
_TELL_BYTES = _WINDOW_BYTES // 4
# The longest message.
_CHUNK_BYTES = 64 << 10


class Tunnel:
    """A connection to a socket in a VM. One reader and one writer may use it at once.

    Closing it before `end` resets the connection in the guest.
    """

    def __init__(self, caller: Caller, start: v1.ForwardStart) -> None:
        self._changes = _io.Changes()
        self._out: deque[bytes] = deque()
        self._written = 0
        self._taken = 0
        self._is_ended = False
        self._end_sent = False
        self._end_taken = False
        self._in: deque[bytes] = deque()
        self._read = 0
        self._told = 0
        self._has_ended = False
        self._is_over = False
        self._is_connected = False
        self._is_receiving = False
        self._error: errors.BangerError | None = None
        self._stream = caller.channel.stream(_methods.FORWARD, self._send(start))

    @classmethod
    async def open(
        cls, caller: Caller, vm: str, *, port: int | None, address: str, unix_path: str | None, connect_timeout: float
    ) -> Tunnel:
        """Connects."""
        if (port is None) == (unix_path is None):
            raise ValueError("give either a port or a unix_path")
        start = v1.ForwardStart(vm=vm, connect_timeout=duration(connect_timeout))
        if unix_path is not None:
            start.unix_path = unix_path
        elif port is not None:
            start.tcp.CopyFrom(v1.TcpTarget(address=address, port=port))
        tunnel = cls(caller, start)
        try:
            await tunnel._until(lambda: tunnel._is_connected or None)
        except BaseException:
            await tunnel.close()
            raise
        return tunnel

    async def _send(self, start: v1.ForwardStart) -> AsyncIterator[v1.ForwardRequest]:
        yield v1.ForwardRequest(start=start)
        while (request := await self._changes.wait(self._next)) is not None:
            if not request.WhichOneof("message"):
                return
            yield request

    def _next(self) -> v1.ForwardRequest | None:
        """The next message; an empty one where nothing follows."""
        if self._is_over:
            return v1.ForwardRequest()
        if self._read - self._told >= _TELL_BYTES:
            self._told = self._read
            return v1.ForwardRequest(taken=self._read)
        if self._out:
            return v1.ForwardRequest(data=self._out.popleft())
        if self._is_ended and not self._end_sent:
            self._end_sent = True
            return v1.ForwardRequest(end=v1.TunnelEnd())
        return None

    async def _until(self, ready: Callable[[], T | None]) -> T:
        """Receives until `ready` gives something."""

        def step() -> tuple[T | None, bool] | None:
            value = ready()
            if value is not None:
                return value, False
            if self._error is not None:
                raise self._error
            if self._is_over:
                raise errors.ConnectionLost("Forward")
            if self._is_receiving:
                return None
            self._is_receiving = True
            return None, True

        while True:
            got = await self._changes.wait(step)
            if got is None:
                continue
            value, ours = got
            if not ours:
                assert value is not None
                return value
            try:
                answer = await self._stream.read()
                with self._changes.change():
                    self._take(answer)
            except errors.BangerError as error:
                with self._changes.change():
                    self._error = error
                    self._is_over = True
                raise
            finally:
                with self._changes.change():
                    self._is_receiving = False

    def _take(self, answer: v1.ForwardResponse | None) -> None:
        if answer is None:
            self._is_over = True
            if not self._has_ended:
                raise errors.ConnectionLost("Forward")
            self._end_taken = True
            return
        which = answer.WhichOneof("message")
        if which == "connected":
            self._is_connected = True
        elif which == "data":
            if sum(map(len, self._in)) + len(answer.data) > _WINDOW_BYTES:
                raise errors.ProtocolError("Forward", "more bytes than the window has")
            self._in.append(answer.data)
        elif which == "end":
            self._has_ended = True
        elif which == "taken":
            # The end counts as one more byte.
            most = self._written + (1 if self._end_sent else 0)
            if not self._taken <= answer.taken <= most:
                raise errors.ProtocolError("Forward", "bytes taken that were not sent")
            self._taken = min(answer.taken, self._written)
            self._end_taken = answer.taken > self._written

    async def read(self) -> bytes:
        """What comes next; empty at the end.

        Raises:
            RefusedError: With the reason TUNNEL_RESET where the connection was reset in the guest.
        """

        def ready() -> bytes | None:
            if self._in:
                return self._in.popleft()
            return b"" if self._has_ended else None

        data = await self._until(ready)
        with self._changes.change():
            self._read += len(data)
        return data

    async def write(self, data: bytes) -> None:
        """Sends it; waits while the guest has not taken what was sent before."""
        rest = data

        def ready() -> int | None:
            if self._is_ended:
                raise errors.InputClosed()
            length = min(len(rest), _CHUNK_BYTES, _WINDOW_BYTES - (self._written - self._taken))
            if length <= 0:
                return None
            self._out.append(rest[:length])
            self._written += length
            return length

        while rest:
            taken = await self._until(ready)
            rest = rest[taken:]
            with self._changes.change():
                pass  # the sender has something to send

    async def end(self) -> None:
        """Ends what is written, and leaves what is read as it is. Returns when the guest's socket has taken it all."""
        with self._changes.change():
            self._is_ended = True
        await self._until(lambda: self._end_taken or None)

    async def close(self) -> None:
        """Ends the connection, in the guest too."""
        with self._changes.change():
            self._is_over = True
        self._stream.cancel()

    async def __aenter__(self) -> Tunnel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Forward:
    """A TCP port of this machine that leads to a socket in a VM, for as many connections as come."""

    def __init__(self, listener: _io.Listener) -> None:
        self._listener = listener

    @property
    def host(self) -> str:
        """The address here."""
        return self._listener.address[0]

    @property
    def port(self) -> int:
        """The port here."""
        return self._listener.address[1]

    async def close(self) -> None:
        """Ends it and all its connections."""
        await self._listener.close()

    async def __aenter__(self) -> Forward:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def carry(connection: _io.Connection, tunnel: Tunnel) -> None:
    """Carries bytes both ways until both have ended; an end of one direction leaves the other as it is."""

    async def outward() -> None:
        try:
            while data := await connection.read(_CHUNK_BYTES):
                await tunnel.write(data)
            await tunnel.end()
        except BaseException:
            await tunnel.close()
            raise

    async def inward() -> None:
        try:
            while data := await tunnel.read():
                await connection.write(data)
            connection.end()
        except BaseException:
            connection.abort()
            raise

    await _io.together(outward, inward)


async def forward(open_tunnel: Callable[[], Awaitable[Tunnel]], host: str, port: int) -> Forward:
    """Listens here, and opens a tunnel for each connection."""

    async def serve(connection: _io.Connection) -> None:
        async with await open_tunnel() as tunnel:
            await carry(connection, tunnel)

    listener = _io.Listener(serve)
    await listener.open(host, port)
    return Forward(listener)
