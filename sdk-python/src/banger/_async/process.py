"""A process that one is attached to, over as many connections as it takes.

    exec ──started──▶ live ──exited──▶ ended
    attach ─attached─▶ │ ▲
                 break ▼ │ attached, from the next byte
                      broken ──window over──▶ error

Nobody reads in the background: whoever waits for something (a reader for output, a writer for room) receives
messages until it is there, one at a time; the others wait for what it receives.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, TypeVar

import grpc

from banger import _methods, _outbox, errors, v1
from banger._async import _io
from banger._async._call import Caller, new_request_id
from banger._outbox import Outbox, Over
from banger._position import Event, Exited, Output, Position, Screen, Start, output_of
from banger._result import Exit, exit_of

T = TypeVar("T")

# Output that is kept for a reader while somebody else receives. Beyond it, writers wait for a reader.
_KEPT_BYTES = 8 << 20


class Process:
    """A process that one is attached to: its output by iterating over it, and its input. Any number of threads or
    tasks may use it at once.
    """

    def __init__(
        self,
        caller: Caller,
        *,
        start: Start,
        hold: bool,
        is_exec: bool,
        writing: v1.Writing = v1.WRITING_SHARED,
        writer: str = "",
    ) -> None:
        self._caller = caller
        self._changes = _io.Changes()
        self._outbox = Outbox()
        self._start = start
        self._position = Position(start.offset)
        self._writing = writing
        self.writer = writer
        """Whose bytes are written: who attaches by the same later goes on where it was. Empty for an exec."""
        self._hold = hold
        self._is_exec = is_exec
        self._stream: _io.Stream[Any] | None = None
        self._retry = caller.retry()
        self._is_receiving = False
        self._is_closed = False
        self._was_lost = False
        self._events: deque[Event] = deque()
        self._kept = 0
        self._error: errors.BangerError | None = None
        self._exit: Exit | None = None
        self.reconnects = 0
        """How often the connection was lost and came back."""
        # Where this reader and this writer begin.
        self._begin = v1.AttachSessionResponse()
        self.session = v1.Session()
        """The session, as it was when the connection was made."""

    @classmethod
    async def exec(cls, caller: Caller, vm: str, spec: v1.SessionSpec) -> Process:
        """Starts a process that ends with its caller."""
        process = cls(caller, start=Start(offset=0), hold=True, is_exec=True)
        start = v1.ExecRequest(start=v1.ExecStart(vm=vm, spec=spec))
        requests = process._requests(start, lambda sent: v1.ExecRequest(**_message(sent)), carries_signals=True)
        process._stream = caller.channel.stream(_methods.EXEC, requests)
        try:
            session = await process._first("started")
        except BaseException:
            await process.close()
            raise
        process._attached(session, 0)
        return process

    @classmethod
    async def attach(
        cls,
        caller: Caller,
        session: str,
        *,
        start: Start,
        hold: bool,
        writing: v1.Writing = v1.WRITING_SHARED,
        writer: str | None = None,
    ) -> Process:
        """Attaches to a session that goes on without its caller."""
        process = cls(
            caller, start=start, hold=hold, is_exec=False, writing=writing, writer=writer or str(uuid.uuid4())
        )
        process.session.id = session
        try:
            while process._stream is None:
                try:
                    await process._connect()
                except errors.BangerError as error:
                    await process._lost(error)
        except BaseException:
            await process.close()
            raise
        return process

    def _requests(
        self, start: Any, wrap: Callable[[_outbox.Sent], Any], *, carries_signals: bool
    ) -> AsyncIterator[Any]:
        with self._changes.change():
            number = self._outbox.connect(carries_signals=carries_signals)
        return self._send(number, start, wrap)

    async def _send(self, number: int, start: Any, wrap: Callable[[_outbox.Sent], Any]) -> AsyncIterator[Any]:
        yield start
        while True:
            got = await self._changes.wait(partial(self._next_sent, number))
            if got is None or isinstance(got[0], Over):
                return
            yield wrap(got[0])

    def _next_sent(self, number: int) -> tuple[_outbox.Sent | Over] | None:
        sent = self._outbox.next(number)
        return None if sent is None else (sent,)

    async def _connect(self) -> None:
        """Attaches, at the next byte."""
        options = self._start.options(self._position.next, self._hold)
        start = v1.AttachSessionStart(
            session=self.session.id, options=options, writing=self._writing, writer=self.writer
        )
        requests = self._requests(
            v1.AttachSessionRequest(start=start),
            lambda sent: v1.AttachSessionRequest(**_message(sent)),
            carries_signals=False,
        )
        self._stream = self._caller.channel.stream(_methods.ATTACH_SESSION, requests)
        try:
            session = await self._first("attached")
        except BaseException:
            self._drop()
            raise
        if self._position.next is None:
            self._position.next = self._begin.start_offset
        if self._writing == v1.WRITING_STEAL:
            # Who comes back has taken over already.
            self._writing = v1.WRITING_SHARED
        told = self._begin.HasField("stdin_offset")
        self._attached(session, self._begin.stdin_offset if told else session.stdin_offset)

    async def _first(self, name: str) -> v1.Session:
        """The session that a connection begins with."""
        during = "Exec" if name == "started" else "AttachSession"
        while self._stream is not None:
            message = await self._stream.read()
            if message is None:
                break
            which = message.WhichOneof("message")
            if which == name:
                if isinstance(message, v1.AttachSessionResponse):
                    self._begin = message
                session: v1.Session = getattr(message, name)
                return session
            if which != "heartbeat":
                raise errors.ProtocolError(during, "output before the session")
        raise errors.ConnectionLost(during)

    def _attached(self, session: v1.Session, accepted: int) -> None:
        with self._changes.change():
            self.session = session
            self._outbox.open(accepted)
            self._retry.established()

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    async def _lost(self, error: errors.BangerError) -> None:
        """Waits before the next try."""
        self._drop()
        self._was_lost = True
        if self._is_closed:
            raise error
        error.session_id = self.session.id or None
        error.output_offset = self._position.next
        error.stdin_offset = self._outbox.accepted
        if isinstance(error, errors.ConnectionLost):
            error.code_ran = errors.CodeRan.YES
        await self._retry.after(error)

    async def _receive(self) -> None:
        """Takes one message, or a new connection."""
        try:
            if self._stream is None:
                await self._reconnect()
                return
            message = await self._stream.read()
            if message is None:
                raise errors.ConnectionLost("Exec" if self._is_exec else "AttachSession")
            with self._changes.change():
                self._take(message)
        except errors.BangerError as error:
            if error.code_ran is errors.CodeRan.NO:
                # It ran, whatever a refusal to attach to it says of itself.
                error.code_ran = errors.CodeRan.YES
            try:
                await self._lost(error)
            except errors.BangerError:
                with self._changes.change():
                    self._error = error
                    self._outbox.end()
                raise
        except BaseException:
            # The message is lost, and comes again with a new connection.
            self._drop()
            raise

    async def _reconnect(self) -> None:
        try:
            await self._connect()
        except errors.RefusedError as error:
            if self._is_exec and error.code is grpc.StatusCode.NOT_FOUND:
                # The daemon has ended it with the connection.
                lost = errors.ConnectionLost("Exec", code_ran=errors.CodeRan.YES)
                lost.session_id = self.session.id
                self._is_closed = True
                raise lost from error
            raise
        self.reconnects += 1
        while (number := self._outbox.take_signal()) is not None:
            # Of a process that has ended meanwhile the events tell.
            with contextlib.suppress(errors.BangerError):
                await self._signal(number)

    def _take(self, message: Any) -> None:
        during = "Exec" if self._is_exec else "AttachSession"
        which = message.WhichOneof("message")
        if which == "output":
            self._keep(self._position.output(output_of(message.output, during)))
        elif which == "gap":
            self._keep(list(self._position.gap(message.gap)))
        elif which == "screen":
            if message.screen.data:
                self._keep([Screen(message.screen.offset, message.screen.data)])
        elif which == "stdin_ack":
            self._outbox.accept(message.stdin_ack)
        elif which == "exited":
            self._exit = exit_of(message.exited.exit, during)
            self._outbox.end()
            self._keep([Exited(self._exit)])
            self._drop()
        elif which is None:
            raise errors.ProtocolError(during, "an empty message")
        self._retry.established()

    def _keep(self, events: list[Event]) -> None:
        self._events.extend(events)
        self._kept += sum(len(event.data) for event in events if isinstance(event, Output))

    async def _until(self, ready: Callable[[], T | None], *, reads: bool) -> T:
        """Receives until `ready` gives something."""

        def step() -> tuple[T | None, bool] | None:
            value = ready()
            if value is not None:
                return value, False
            if self._error is not None:
                raise self._error
            if self._is_closed:
                raise errors.InputClosed()
            if self._is_receiving or (self._kept >= _KEPT_BYTES and not reads):
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
                await self._receive()
            finally:
                with self._changes.change():
                    self._is_receiving = False

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """The next event; the last one is the exit."""
        event = await self._until(self._next_event, reads=True)
        if event is Over.OVER:
            raise StopAsyncIteration
        return event  # type: ignore[return-value]

    def _next_event(self) -> Event | Over | None:
        if self._events:
            event = self._events.popleft()
            if isinstance(event, Output):
                self._kept -= len(event.data)
            return event
        return Over.OVER if self._exit is not None or self._is_closed else None

    async def next_or_room(self, wants_room: bool) -> Event | None:
        """The next event, None after the last one; None also where there is room to write and that is wanted."""

        def ready() -> Event | Over | None:
            event = self._next_event()
            if event is None and wants_room and self._outbox.room() > 0:
                return Over.OVER
            return event

        event = await self._until(ready, reads=True)
        return None if event is Over.OVER else event  # type: ignore[return-value]

    def offer(self, data: bytes) -> int:
        """Writes what there is room for, without waiting; how many bytes that is."""
        with self._changes.change():
            return 0 if self._outbox.ended else self._outbox.write(data)

    async def write(self, data: bytes | str) -> None:
        """Writes standard input. Returns when it is queued; waits while a megabyte is not acknowledged, and then keeps
        output for a reader, 8 MiB at most.

        Raises:
            InputClosed: When the process has ended or its input was closed.
        """
        rest = data.encode() if isinstance(data, str) else data

        def ready() -> int | None:
            if self._outbox.ended or self._outbox.closed:
                raise errors.InputClosed()
            return self._outbox.write(rest) or None

        while rest:
            taken = await self._until(ready, reads=False)
            rest = rest[taken:]
            with self._changes.change():
                pass  # the sender has something to send

    async def flush(self) -> None:
        """Waits until the guest has taken all that was written, or the process has ended."""
        await self._until(lambda: self._outbox.is_flushed or None, reads=False)

    def close_stdin(self) -> None:
        """Ends standard input, after what was written."""
        with self._changes.change():
            self._outbox.closed = True

    def resize(self, rows: int, columns: int) -> None:
        """Sets the terminal's size."""
        with self._changes.change():
            self._outbox.resize(rows, columns)

    async def signal(self, number: int) -> None:
        """Sends a signal, 1 to 64, to the process group."""
        with self._changes.change():
            if self._outbox.signal(number):
                return
        await self._signal(number)

    async def _signal(self, number: int) -> None:
        request = v1.SignalSessionRequest(session=self.session.id, signal=number)
        await self._caller.channel.unary(_methods.SIGNAL_SESSION, request)

    async def close(self) -> None:
        """Detaches. What was begun by `exec` and has not ended is killed."""
        with self._changes.change():
            # By the end of its own connection a guest knows that the caller is gone; of one that was lost it thinks
            # that the caller comes back.
            goes_on = self._is_exec and self._was_lost and self._exit is None and self._error is None
            goes_on = goes_on and not self._is_closed
            self._is_closed = True
            self._outbox.end()
        self._drop()
        if goes_on:
            with contextlib.suppress(errors.BangerError):
                await self._delete()

    async def _delete(self) -> None:
        """Kills and removes it, over a connection of its own: the client's may have been interrupted anywhere."""
        request = v1.DeleteSessionRequest(session=self.session.id, request_id=new_request_id(None))
        async with self._caller.again() as caller:
            await caller.channel.unary(_methods.DELETE_SESSION, request)

    async def __aenter__(self) -> Process:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _message(sent: _outbox.Sent) -> dict[str, Any]:
    """The field of a request that says it."""
    if isinstance(sent, _outbox.Stdin):
        return {"stdin": v1.Stdin(offset=sent.offset, data=sent.data)}
    if isinstance(sent, _outbox.Close):
        return {"close_stdin": v1.CloseStdin()}
    if isinstance(sent, _outbox.Resize):
        return {"resize": v1.TerminalSize(rows=sent.rows, columns=sent.columns)}
    return {"signal": sent.number}
