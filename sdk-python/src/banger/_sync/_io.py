"""What touches threads: the transport, waiting, files, sockets. `banger._async._io` has the same names for asyncio."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import grpc

from banger import _channel, errors
from banger._host import Address
from banger._method import Method, Req, Res
from banger._sync._interrupt import INTERRUPTS

T = TypeVar("T")

now = time.monotonic
sleep = time.sleep


def blocking(function: Callable[..., T], *arguments: Any) -> T:
    """Runs what waits for disks."""
    return function(*arguments)


def making(make: Callable[[], T], give_up: Callable[[], object], seconds: float) -> T:
    """Makes something. A caller that is interrupted, at any instant until it has it, gets its exception when it is
    given up, or after so long.
    """
    return INTERRUPTS.making(make, give_up, seconds, sys._getframe())


def entered(owner: object) -> None:
    """A block begins, at whose end `owner` is removed."""
    INTERRUPTS.entered(owner)


def removing(owner: object, remove: Callable[[], object], seconds: float) -> None:
    """Removes `owner` at the end of its block. A caller that is interrupted gets its exception when it is gone, or
    after so long.
    """
    INTERRUPTS.removing(owner, remove, seconds)


def together(*functions: Callable[[], None]) -> None:
    """Runs them at the same time, to the end of all."""
    failed: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


class Changes:
    """A state that changes, and those who wait for it. Everything that belongs to the state is done in `change` or in
    the function given to `wait`.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Changes the state."""
        with self._condition:
            yield
            self._condition.notify_all()

    def wait(self, ready: Callable[[], T | None], seconds: float | None = None) -> T | None:
        """What `ready` gives that is not None; asked again after each change. None when the time is over."""
        deadline = None if seconds is None else now() + seconds
        with self._condition:
            while (value := ready()) is None:
                left = None if deadline is None else deadline - now()
                if left is not None and left <= 0:
                    return None
                self._condition.wait(left)
            return value


class _Watchdog:
    """Ends the calls of a channel on which the daemon is silent for too long, by one thread."""

    def __init__(self, silence: float) -> None:
        self.silence = silence
        self._condition = threading.Condition()
        # In the order of their deadlines, which are all as far away.
        self._waiting: dict[Stream[Any], float] = {}
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @contextlib.contextmanager
    def watch(self, stream: Stream[Any]) -> Iterator[None]:
        """Watches it meanwhile."""
        with self._condition:
            self._waiting[stream] = now() + self.silence
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._run, name="banger-watchdog", daemon=True)
                self._thread.start()
            elif len(self._waiting) == 1:
                self._condition.notify()
        try:
            yield
        finally:
            with self._condition:
                self._waiting.pop(stream, None)

    def _run(self) -> None:
        with self._condition:
            while not self._is_closed:
                first = next(iter(self._waiting.items()), None)
                if first is None:
                    self._condition.wait()
                    continue
                stream, deadline = first
                left = deadline - now()
                if left > 0:
                    self._condition.wait(left)
                    continue
                del self._waiting[stream]
                stream.on_silence()

    def close(self) -> None:
        """Ends the thread."""
        with self._condition:
            self._is_closed = True
            self._condition.notify()


class Stream(Generic[Res]):
    """The answers to a call, which fails when the daemon is silent for too long."""

    def __init__(self, call: Any, during: str, watchdog: _Watchdog) -> None:
        self._call = call
        self._during = during
        self._watchdog = watchdog
        self._is_silent = False

    def on_silence(self) -> None:
        """The daemon was silent for too long."""
        self._is_silent = True
        self._call.cancel()

    def read(self) -> Res | None:
        """The next answer; None at the end."""
        try:
            with self._watchdog.watch(self):
                answer: Res = next(self._call)
        except StopIteration:
            return None
        except grpc.RpcError as error:
            if self._is_silent:
                raise errors.ConnectionLost(self._during, silent=self._watchdog.silence) from None
            raise errors.from_rpc_error(error, self._during) from error
        return answer

    def cancel(self) -> None:
        """Gives the call up."""
        self._call.cancel()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Calls back when the call has ended, however it ended."""
        if not self._call.add_callback(callback):
            callback()


class Channel:
    """The connection to a daemon; made again by itself when it is lost."""

    def __init__(self, address: Address, limits: _channel.Limits) -> None:
        self.limits = limits
        self.address = address
        self._owner = _channel.Owner()
        self._watchdog = _Watchdog(limits.silence)
        self._calls: dict[str, Any] = {}
        # The one in use is the last.
        self._channels: list[Any] = []
        self._opened = 0.0
        self._shown = _channel.stamp(address)
        self._open()

    def _open(self) -> None:
        self._channels.append(_channel.open_channel(self.address, grpc.secure_channel, grpc.insecure_channel))
        self._opened = now()
        self._calls = {}

    def _follow_files(self) -> None:
        """Another connection for the calls that follow where the certificates were renewed: gRPC reads them once."""
        shown = _channel.stamp(self.address)
        if shown is not None and shown != self._shown:
            with contextlib.suppress(errors.HostError):  # one of them is just being replaced
                self._open()
                self._shown = shown

    def explain(self, error: errors.ConnectionLost) -> None:
        """Says of a connection that does not come back why, where certificates are the reason: gRPC hides it."""
        if self.address.socket is not None:
            return
        try:
            _channel.look_at(self.address, self.limits.connect)
        except errors.TlsError as refused:
            if refused.reason != "TLS_TURNED_AWAY":
                error.because(refused)
        except (errors.ConnectError, errors.HostError):
            pass  # all that is known

    def renew(self) -> None:
        """Another connection for the calls that follow, unless this one is as new. Those that go on keep theirs."""
        if now() - self._opened > _channel.RENEW_SECONDS:
            self._open()

    def connect(self) -> None:
        """Waits until the daemon answers."""
        try:
            _channel.look_at(self.address, self.limits.connect)
            try:
                _channel.check_health(self._channels[-1])(b"", timeout=self.limits.connect, wait_for_ready=True)
            except grpc.RpcError as error:
                if not _channel.is_answer(error):
                    # gRPC hides why, and the daemon may have changed its mind since the first look.
                    _channel.look_at(self.address, self.limits.connect)
                    raise _channel.connect_error(self.address, None) from None
        except (errors.ConnectError, errors.HostError):
            self.close()
            raise

    def again(self) -> Channel:
        """Another connection to the same daemon, which shares nothing with this one: for what must be done when a call
        of this one was interrupted anywhere.
        """
        return Channel(self.address, self.limits)

    def _call(self, method: Method[Any, Any]) -> Any:
        self._owner.check()
        INTERRUPTS.settle()
        self._follow_files()
        call = self._calls.get(method.path)
        if call is None:
            kind = ("stream" if method.client_streams else "unary") + ("_stream" if method.server_streams else "_unary")
            make = getattr(self._channels[-1], kind)
            call = make(method.path, method.request.SerializeToString, method.response.FromString)
            self._calls[method.path] = call
        return call

    def unary(self, method: Method[Req, Res], request: Req) -> Res:
        """One question, one answer."""
        try:
            answer: Res = self._call(method)(request)
        except grpc.RpcError as error:
            raise errors.from_rpc_error(error, method.name) from error
        return answer

    def stream(self, method: Method[Req, Res], request: Req | Iterator[Req]) -> Stream[Res]:
        """A question, or many, and many answers."""
        return Stream(self._call(method)(request), method.name, self._watchdog)

    def close(self) -> None:
        """Hangs up."""
        self._watchdog.close()
        for channel in self._channels:
            channel.close()


class Connection:
    """A connection of a socket here."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read(self, length: int) -> bytes:
        """What comes next, so many bytes at most; empty at the end."""
        return self._socket.recv(length)

    def write(self, data: bytes) -> None:
        """Sends it."""
        self._socket.sendall(data)

    def end(self) -> None:
        """Sends the end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Breaks it off, in both directions."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Lets go of it."""
        self._socket.close()


class Listener:
    """A TCP socket that listens here, and calls `serve` for each connection."""

    def __init__(self, serve: Callable[[Connection], None]) -> None:
        self._serve = serve
        self._socket: socket.socket | None = None
        self._threads: set[threading.Thread] = set()
        self._connections: set[Connection] = set()
        self._lock = threading.Lock()
        self.address: tuple[str, int] = ("", 0)

    def open(self, host: str, port: int) -> None:
        """Begins to listen."""
        self._socket = socket.create_server((host, port))
        name = self._socket.getsockname()
        self.address = (name[0], name[1])
        threading.Thread(target=self._listen, args=(self._socket,), name="banger-listen", daemon=True).start()

    def _listen(self, listening: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            connection = Connection(accepted)
            thread = threading.Thread(target=self._run, args=(connection,), name="banger-forward", daemon=True)
            with self._lock:
                if self._socket is None:
                    connection.close()
                    return
                self._connections.add(connection)
                self._threads.add(thread)
            thread.start()

    def _run(self, connection: Connection) -> None:
        try:
            self._serve(connection)
        except (errors.BangerError, OSError):
            connection.abort()
        finally:
            connection.close()
            with self._lock:
                self._connections.discard(connection)
                self._threads.discard(threading.current_thread())

    def close(self) -> None:
        """Ends listening and all connections."""
        with self._lock:
            listening, self._socket = self._socket, None
            connections, threads = list(self._connections), list(self._threads)
        if listening is not None:
            # Wakes the thread that accepts.
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        for connection in connections:
            connection.abort()
        for thread in threads:
            thread.join(10)
