"""Commands and terminals in running VMs."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import AsyncIterator

from banger import _methods, errors, v1
from banger._async import _io
from banger._async._call import PAGE_SIZE, Caller, new_request_id
from banger._async.process import Process
from banger._command import Command, Lines, LineSplitter, spec_of
from banger._position import Event, Exited, Gap, Output, Position, Start, output_of
from banger._result import Exit, Result, checked, exit_of


async def run(
    caller: Caller,
    vm: str,
    spec: v1.SessionSpec,
    *,
    stdin: bytes | None,
    on_stdout: Lines | None,
    on_stderr: Lines | None,
    check: bool,
    max_output_bytes: int,
) -> Result:
    """Starts a command, gives it its input, collects its output, and waits for its end."""
    process = await Process.exec(caller, vm, spec)
    out, err = bytearray(), bytearray()
    lines = {False: LineSplitter(on_stdout), True: LineSplitter(on_stderr)}
    lost_bytes = 0
    rest = memoryview(stdin or b"")
    is_closed = False
    how: Exit | None = None

    def result() -> Result:
        return Result(bytes(out), bytes(err), how, process.session.id, lost_bytes)

    try:
        while True:
            # As much as there is room for; the answers make room.
            while rest and (taken := process.offer(bytes(rest[: 128 << 10]))):
                rest = rest[taken:]
            if not rest and spec.stdin and not is_closed:
                is_closed = True
                process.close_stdin()
            event = await process.next_or_room(len(rest) > 0)
            if isinstance(event, Output):
                if len(out) + len(err) + len(event.data) > max_output_bytes:
                    raise errors.OutputTooLong(
                        f"the command wrote more than {max_output_bytes} bytes and was killed",
                        result(),
                        remedy="Read the output as a stream instead (vm.start), or raise max_output_bytes.",
                    )
                (err if event.is_stderr else out).extend(event.data)
                lines[event.is_stderr].feed(event.data)
            elif isinstance(event, Gap):
                lost_bytes += event.lost_bytes
            elif isinstance(event, Exited):
                how = event.exit
                break
    except (errors.ConnectionLost, errors.RefusedError) as error:
        error.result = result()
        raise
    finally:
        await process.close()
    for splitter in lines.values():
        splitter.feed(b"", final=True)
    return checked(result(), check)


class Session:
    """A process tree in a VM that goes on without its caller, with its log. Iterate over it for its output.

    As a context manager it is killed, and removed with its log, at the end.
    """

    # How long it is removed, when its caller is gone.
    _THROW_AWAY_SECONDS = 15.0

    def __init__(self, caller: Caller, info: v1.Session) -> None:
        self._caller = caller
        self._lock = _io.Changes()
        self._process: Process | None = None
        self._is_attaching = False
        self.info = info
        """As it was last seen."""

    @property
    def id(self) -> str:
        """A UUID."""
        return self.info.id

    def __repr__(self) -> str:
        return f"<banger.Session {self.id}>"

    async def attach(
        self,
        *,
        offset: int | None = None,
        tail_lines: int | None = None,
        tail_bytes: int | None = None,
        since: datetime.datetime | None = None,
        end: bool = False,
        screen: bool = False,
        hold: bool = False,
        steal: bool = False,
        read_only: bool = False,
        writer: str | None = None,
    ) -> Process:
        """Another reader and writer: from the oldest output that is kept, an offset, so many lines or bytes before the
        end, a time by the guest's clock, or the end; with `screen` from the end, after what the terminal shows.

        With `hold` the process waits for it as on a pipe, where else the oldest output goes and a gap tells so. `steal`
        detaches everybody else who may write, `read_only` only looks on. `writer` is that of a `Process` from before,
        to go on after the input that the guest has of it.
        """
        if steal and read_only:
            raise ValueError("who only reads takes over nothing: give steal or read_only")
        start = Start(offset, tail_lines, tail_bytes, since, end, screen)
        writing = v1.WRITING_STEAL if steal else v1.WRITING_NONE if read_only else v1.WRITING_SHARED
        return await Process.attach(self._caller, self.id, start=start, hold=hold, writing=writing, writer=writer)

    async def _attached(self) -> Process:
        """The session's own reader and writer, attached when first needed."""

        def step() -> Process | bool | None:
            if self._process is not None:
                return self._process
            if self._is_attaching:
                return None
            self._is_attaching = True
            return True

        got = await self._lock.wait(step)
        if isinstance(got, Process):
            return got
        try:
            process = await self.attach()
            with self._lock.change():
                self._process = process
        finally:
            with self._lock.change():
                self._is_attaching = False
        return process

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Output, gaps, and at the end the exit. Goes on over broken connections, no byte lost or twice."""
        process = await self._attached()
        async for event in process:
            yield event

    async def lines(self) -> AsyncIterator[str]:
        """The lines of all output, without their ends.

        Raises:
            OutputLost: Where output is no longer kept. To call it again goes on after that.
        """
        ready: list[str] = []
        splitter = LineSplitter(ready.append)
        async for event in self:
            if isinstance(event, Output):
                splitter.feed(event.data)
            elif isinstance(event, Gap):
                splitter.feed(b"", final=True)
            for line in ready:
                yield line
            ready.clear()
            if isinstance(event, Gap):
                raise errors.OutputLost(event.offset, event.lost_bytes)
        splitter.feed(b"", final=True)
        for line in ready:
            yield line

    async def read_until(self, text: str | bytes, *, max_bytes: int = 8 << 20) -> bytes:
        """Output up to `text`, which is in it. What came with it and follows is dropped, so that it serves for prompts.

        Raises:
            EOFError: If the process ended before.
            OutputLost: If output before it is no longer kept.
            ValueError: If more than `max_bytes` came before.
        """
        wanted = text.encode() if isinstance(text, str) else text
        got = bytearray()
        process = await self._attached()
        while wanted not in got:
            if len(got) > max_bytes:
                raise ValueError(f"{text!r} did not come within {max_bytes} bytes")
            event = await process.next_or_room(False)
            if event is None or isinstance(event, Exited):
                raise EOFError(
                    f"the process ended, and {text!r} did not come; the last it wrote: {bytes(got[-200:])!r}"
                )
            if isinstance(event, Gap):
                raise errors.OutputLost(event.offset, event.lost_bytes)
            if isinstance(event, Output):
                got += event.data
        return bytes(got[: got.index(wanted) + len(wanted)])

    async def write(self, data: bytes | str) -> None:
        """Writes standard input. Numbered and acknowledged: not a byte is lost or written twice when the connection
        breaks. Waits while a megabyte is not acknowledged.
        """
        process = await self._attached()
        await process.write(data)

    async def flush(self) -> None:
        """Waits until the guest has taken all that was written."""
        process = await self._attached()
        await process.flush()

    async def close_stdin(self) -> None:
        """Ends standard input, after what was written; on a terminal, its end-of-file character."""
        process = await self._attached()
        process.close_stdin()
        await process.flush()

    async def resize(self, rows: int, columns: int) -> None:
        """Sets the terminal's size."""
        process = await self._attached()
        process.resize(rows, columns)

    async def signal(self, number: int, *, leader_only: bool = False, everyone: bool = False) -> None:
        """Sends a signal, 1 to 64: to the process group, the first process alone, or every process of the session. Not
        repeated when the connection breaks: it may have been sent.
        """
        target = v1.SignalSessionRequest.TARGET_GROUP
        if leader_only:
            target = v1.SignalSessionRequest.TARGET_LEADER
        elif everyone:
            target = v1.SignalSessionRequest.TARGET_ALL
        request = v1.SignalSessionRequest(session=self.id, signal=number, target=target)
        await self._caller.channel.unary(_methods.SIGNAL_SESSION, request)

    async def kill(self) -> None:
        """Kills every process of it."""
        await self.signal(9, everyone=True)

    async def wait(self) -> Exit:
        """Waits for its end, as long as it takes. Raises nothing for how it ended: look at the exit."""
        request = v1.WaitSessionRequest(session=self.id)
        answer = await self._caller.repeat(_methods.WAIT_SESSION, request)
        return exit_of(answer.exit, "WaitSession")

    async def refresh(self) -> v1.Session:
        """As it is now."""
        answer = await self._caller.repeat(_methods.GET_SESSION, v1.GetSessionRequest(session=self.id))
        self.info = answer.session
        return self.info

    async def log(
        self,
        *,
        offset: int | None = None,
        tail_lines: int | None = None,
        tail_bytes: int | None = None,
        since: datetime.datetime | None = None,
        follow: bool = False,
    ) -> AsyncIterator[Event]:
        """What it wrote: from an offset, so many lines or bytes before the end, a time by the guest's clock, or the
        oldest that is kept; with `follow` also what comes until its end. Of a VM that was stopped, what the stop kept.
        """
        start = Start(offset, tail_lines, tail_bytes, since)
        position = Position(offset)
        retry = self._caller.retry()
        while True:
            options = start.options(position.next, False)
            request = v1.ReadSessionLogRequest(session=self.id, options=options, follow=follow)
            stream = self._caller.channel.stream(_methods.READ_SESSION_LOG, request)
            try:
                while (message := await stream.read()) is not None:
                    retry.established()
                    events: list[Event] = []
                    which = message.WhichOneof("message")
                    if which == "attached" and position.next is None:
                        position.next = message.start_offset
                    elif which == "output":
                        events = position.output(output_of(message.output, "ReadSessionLog"))
                    elif which == "gap":
                        events = list(position.gap(message.gap))
                    elif which == "exited":
                        events = [Exited(exit_of(message.exited.exit, "ReadSessionLog"))]
                    for event in events:
                        yield event
                    if which == "exited":
                        return
                if not follow:
                    return
                raise errors.ConnectionLost("ReadSessionLog", code_ran=errors.CodeRan.YES)
            except errors.BangerError as error:
                error.session_id = self.id
                await retry.after(error)
            finally:
                stream.cancel()

    async def detach(self) -> None:
        """Lets go of it; it goes on."""
        process, self._process = self._process, None
        if process is not None:
            await process.close()

    async def remove(self) -> None:
        """Kills what is left of it and removes it with its log."""
        await self.detach()
        request = v1.DeleteSessionRequest(session=self.id, request_id=new_request_id(None))
        await self._caller.repeat(_methods.DELETE_SESSION, request)

    async def _remove_if_there(self) -> None:
        try:
            await self.remove()
        except errors.NotFoundError:
            await self.detach()

    async def _throw_away(self) -> None:
        """Removes it over a connection of its own: the client's may have been interrupted anywhere."""
        async with self._caller.again() as caller:
            await Session(caller, self.info)._remove_if_there()

    async def __aenter__(self) -> Session:
        _io.entered(self)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_interrupted = kind is not None and not issubclass(kind, Exception)
        remove = self._throw_away if is_interrupted else self._remove_if_there
        await _io.removing(self, remove, self._THROW_AWAY_SECONDS)


class Sessions:
    """The sessions of a VM."""

    def __init__(self, caller: Caller, vm: str) -> None:
        self._caller = caller
        self._vm = vm

    async def start(self, spec: v1.SessionSpec, request_id: str | uuid.UUID | None = None) -> Session:
        """Starts one and leaves it running."""
        request = v1.StartSessionRequest(vm=self._vm, spec=spec, request_id=new_request_id(request_id))
        answer = await self._caller.repeat(_methods.START_SESSION, request)
        return Session(self._caller, answer.session)

    async def get(self, session: str) -> Session:
        """The one with this id."""
        answer = await self._caller.repeat(_methods.GET_SESSION, v1.GetSessionRequest(session=session))
        return Session(self._caller, answer.session)

    async def list(self) -> AsyncIterator[Session]:
        """All of them, oldest first."""
        pages = self._caller.pages(
            _methods.LIST_SESSIONS,
            lambda token: v1.ListSessionsRequest(vm=self._vm, page_size=PAGE_SIZE, page_token=token),
            lambda page: page.sessions,
        )
        async for info in pages:
            yield Session(self._caller, info)


__all__ = ["Command", "Session", "Sessions", "run", "spec_of"]
