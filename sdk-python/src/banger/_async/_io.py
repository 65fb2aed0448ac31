"""What touches asyncio: the transport, waiting, files, sockets. `banger._sync._io` has the same names for threads."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from banger import _channel, errors
from banger._host import Address
from banger._method import Method, Req, Res

T = TypeVar("T")

now = time.monotonic
sleep = asyncio.sleep


async def blocking(function: Callable[..., T], *arguments: Any) -> T:
    """Runs what waits for disks, elsewhere."""
    return await asyncio.to_thread(function, *arguments)


async def _finish(function: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Runs what must be done although the caller is given up, for so long at most. Neither another cancellation of the
    caller nor a second Ctrl-C of `asyncio.run`, which strikes any task and then cancels all, ends it: it begins anew.
    """
    deadline = now() + seconds
    task = asyncio.ensure_future(function())
    while (left := deadline - now()) > 0:
        with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
            await asyncio.wait([task], timeout=left)
        if not task.done():
            continue
        failed = None if task.cancelled() else task.exception()
        if not task.cancelled() and (failed is None or isinstance(failed, Exception)):
            if failed is not None and not isinstance(failed, errors.BangerError):
                raise failed
            return
        task = asyncio.ensure_future(function())
    task.cancel()


async def making(make: Callable[[], Awaitable[T]], give_up: Callable[[], Awaitable[object]], seconds: float) -> T:
    """Makes something. A caller that is interrupted, at any instant until it has it, gets its exception when it is
    given up, or after so long.
    """
    try:
        # Nothing is awaited between its end and the caller's next line: a cancellation cannot come there.
        return await make()
    except errors.BangerError:
        raise
    except BaseException:
        await _finish(give_up, seconds)
        raise


def entered(owner: object) -> None:
    """A block begins, at whose end `owner` is removed."""


async def removing(owner: object, remove: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Removes `owner` at the end of its block. A caller that is interrupted gets its exception when it is gone, or
    after so long.
    """
    task = asyncio.ensure_future(remove())
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:

        async def rest() -> None:
            if task.done():
                await remove()
            else:
                await asyncio.shield(task)

        await _finish(rest, seconds)
        raise


async def together(*functions: Callable[[], Awaitable[None]]) -> None:
    """Runs them at the same time, to the end of all."""
    await asyncio.gather(*(function() for function in functions))


class Changes:
    """A state that changes, and those who wait for it. Everything that belongs to the state is done in `change` or in
    the function given to `wait`.
    """

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Changes the state."""
        yield
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait(self, ready: Callable[[], T | None], seconds: float | None = None) -> T | None:
        """What `ready` gives that is not None; asked again after each change. None when the time is over."""
        deadline = None if seconds is None else now() + seconds
        while (value := ready()) is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                left = None if deadline is None else deadline - now()
                if left is not None and left <= 0:
                    return None
                await asyncio.wait([waiter], timeout=left)
            finally:
                self._waiters.discard(waiter)
        return value


class Stream(Generic[Res]):
    """The answers to a call, which fails when the daemon is silent for too long."""

    def __init__(self, call: Any, during: str, silence: float) -> None:
        self._call = call
        self._during = during
        self._silence = silence
        self._is_silent = False

    def _on_silence(self) -> None:
        self._is_silent = True
        self._call.cancel()

    async def read(self) -> Res | None:
        """The next answer; None at the end."""
        timer = asyncio.get_running_loop().call_later(self._silence, self._on_silence)
        try:
            answer: Any = await self._call.read()
        except grpc.RpcError as error:
            raise errors.from_rpc_error(error, self._during) from error
        except asyncio.CancelledError:
            if not self._is_silent:
                raise
            raise errors.ConnectionLost(self._during, silent=self._silence) from None
        finally:
            timer.cancel()
        return None if answer is grpc.aio.EOF else answer

    def cancel(self) -> None:
        """Gives the call up."""
        self._call.cancel()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Calls back when the call has ended, however it ended."""
        self._call.add_done_callback(lambda _: callback())


class Channel:
    """The connection to a daemon; made again by itself when it is lost."""

    def __init__(self, address: Address, limits: _channel.Limits) -> None:
        self.limits = limits
        self.address = address
        self._owner = _channel.Owner()
        self._calls: dict[str, Any] = {}
        # The one in use is the last.
        self._channels: list[Any] = []
        self._opened = 0.0
        self._shown = _channel.stamp(address)
        self._open()

    def _open(self) -> None:
        self._channels.append(_channel.open_channel(self.address, grpc.aio.secure_channel, grpc.aio.insecure_channel))
        self._opened = now()
        self._calls = {}

    def _follow_files(self) -> None:
        """Another connection for the calls that follow where the certificates were renewed: gRPC reads them once."""
        shown = _channel.stamp(self.address)
        if shown is not None and shown != self._shown:
            with contextlib.suppress(errors.HostError):  # one of them is just being replaced
                self._open()
                self._shown = shown

    async def explain(self, error: errors.ConnectionLost) -> None:
        """Says of a connection that does not come back why, where certificates are the reason: gRPC hides it."""
        if self.address.socket is not None:
            return
        try:
            await blocking(_channel.look_at, self.address, self.limits.connect)
        except errors.TlsError as refused:
            if refused.reason != "TLS_TURNED_AWAY":
                error.because(refused)
        except (errors.ConnectError, errors.HostError):
            pass  # all that is known

    def renew(self) -> None:
        """Another connection for the calls that follow, unless this one is as new. Those that go on keep theirs."""
        if now() - self._opened > _channel.RENEW_SECONDS:
            self._open()

    async def connect(self) -> None:
        """Waits until the daemon answers."""
        try:
            await blocking(_channel.look_at, self.address, self.limits.connect)
            try:
                await _channel.check_health(self._channels[-1])(b"", timeout=self.limits.connect, wait_for_ready=True)
            except grpc.RpcError as error:
                if not _channel.is_answer(error):
                    # gRPC hides why, and the daemon may have changed its mind since the first look.
                    await blocking(_channel.look_at, self.address, self.limits.connect)
                    raise _channel.connect_error(self.address, None) from None
        except (errors.ConnectError, errors.HostError):
            await self.close()
            raise

    def again(self) -> Channel:
        """Another connection to the same daemon, which shares nothing with this one: for what must be done when a call
        of this one was interrupted anywhere.
        """
        return Channel(self.address, self.limits)

    def _call(self, method: Method[Any, Any]) -> Any:
        self._owner.check()
        self._follow_files()
        call = self._calls.get(method.path)
        if call is None:
            kind = ("stream" if method.client_streams else "unary") + ("_stream" if method.server_streams else "_unary")
            make = getattr(self._channels[-1], kind)
            call = make(method.path, method.request.SerializeToString, method.response.FromString)
            self._calls[method.path] = call
        return call

    async def unary(self, method: Method[Req, Res], request: Req) -> Res:
        """One question, one answer."""
        try:
            answer: Res = await self._call(method)(request)
        except grpc.RpcError as error:
            raise errors.from_rpc_error(error, method.name) from error
        return answer

    def stream(self, method: Method[Req, Res], request: Req | AsyncIterator[Req]) -> Stream[Res]:
        """A question, or many, and many answers."""
        return Stream(self._call(method)(request), method.name, self.limits.silence)

    async def close(self) -> None:
        """Hangs up."""
        for channel in self._channels:
            await channel.close()


class Connection:
    """A connection of a socket here."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, length: int) -> bytes:
        """What comes next, so many bytes at most; empty at the end."""
        return await self._reader.read(length)

    async def write(self, data: bytes) -> None:
        """Sends it."""
        self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        """Sends the end."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def abort(self) -> None:
        """Breaks it off, in both directions."""
        self._writer.transport.abort()


class Listener:
    """A TCP socket that listens here, and calls `serve` for each connection."""

    def __init__(self, serve: Callable[[Connection], Awaitable[None]]) -> None:
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.address: tuple[str, int] = ("", 0)

    async def open(self, host: str, port: int) -> None:
        """Begins to listen."""
        self._server = await asyncio.start_server(self._accept, host, port)
        name = self._server.sockets[0].getsockname()
        self.address = (name[0], name[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        connection = Connection(reader, writer)
        try:
            await self._serve(connection)
            writer.close()
        except (errors.BangerError, OSError):
            connection.abort()
        except asyncio.CancelledError:
            connection.abort()

    async def close(self) -> None:
        """Ends listening and all connections."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
