"""How calls are made: what is repeated when the connection breaks, what is followed, what comes in pages."""

from __future__ import annotations

import contextlib
import random
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import grpc

from banger import errors, v1
from banger._async import _io
from banger._method import Method, Req, Res

T = TypeVar("T")

_BACKOFF_FIRST = 0.05
_BACKOFF_MAX = 2.0
# A connection that is lost for so long is made anew: gRPC's own tries may go on failing when the way there is back.
_RENEW_SECONDS = 2.0
# The reason of a daemon that is about to end; another one follows it.
_DRAINING = "DRAINING"
# The reason of a daemon that hears nothing of a guest, which may be back soon.
_AGENT_SILENT = "AGENT_SILENT"
# Asked for per page; the daemon's default.
PAGE_SIZE = 100
# Chunks that are read ahead of the connection: a megabyte.
_AHEAD = 4
# How long what was begun is given up, when its caller is gone.
_GIVE_UP_SECONDS = 30.0

Progress = Callable[[v1.Operation], object]


class CallbackFailed(Exception):
    """A caller's callback raised an error of this package, which is not one of the call itself."""

    def __init__(self, why: errors.BangerError) -> None:
        super().__init__(str(why))
        self.why = why


class Retry:
    """Tries in a row to get a lost connection back."""

    def __init__(self, channel: _io.Channel) -> None:
        """For as long after the first failure as the channel's limits say."""
        self._window = channel.limits.reconnect
        self._channel = channel
        self._deadline: float | None = None
        self._pause = _BACKOFF_FIRST
        self._is_established = False

    async def after(self, error: errors.BangerError) -> None:
        """Waits before the next try, or raises `error`: it does not pass, or the window is over."""
        passes = isinstance(error, errors.ConnectionLost)
        if isinstance(error, errors.RefusedError):
            is_away = error.code is grpc.StatusCode.UNAVAILABLE or error.reason == _AGENT_SILENT
            passes = error.reason == _DRAINING or (self._is_established and is_away)
        if not passes:
            raise error
        now = _io.now()
        if self._deadline is None:
            self._deadline = now + self._window
        if now >= self._deadline:
            if isinstance(error, errors.ConnectionLost):
                await self._channel.explain(error)
            raise error
        if isinstance(error, errors.ConnectionLost) and now - (self._deadline - self._window) > _RENEW_SECONDS:
            self._channel.renew()
        await _io.sleep(min(self._pause, self._deadline - now))
        self._pause = min(self._pause * 2, _BACKOFF_MAX)

    def established(self) -> None:
        """It works: the next failure starts a new count, and a guest that is not ready yet is waited for too."""
        self._deadline = None
        self._pause = _BACKOFF_FIRST
        self._is_established = True


# Refusals of a host, an owner or a queue that is full: others end and make room.
_FULL = frozenset({"HOST_EXHAUSTED", "TOO_MANY_VMS", "QUOTA_EXCEEDED", "BOOT_QUEUE_FULL"})
_FULL_PAUSE_FIRST = 0.2
_FULL_PAUSE_MAX = 5.0


class Room:
    """Waits for room where all of it is taken."""

    def __init__(self, seconds: float) -> None:
        self._deadline = _io.now() + seconds
        self._pause = _FULL_PAUSE_FIRST

    async def after(self, error: errors.RefusedError) -> None:
        """Waits before the next try, or raises `error`: it does not pass, or the time is over."""
        left = self._deadline - _io.now()
        if error.reason not in _FULL or left <= 0:
            raise error
        # Not all at once: those that wait were refused at the same time.
        pause = error.retry_after if error.retry_after is not None else self._pause * random.uniform(0.5, 1)
        await _io.sleep(min(pause, left))
        self._pause = min(self._pause * 2, _FULL_PAUSE_MAX)


def operation_to(on_progress: Progress | None) -> Callable[[Any], None]:
    """Tells of the operation each time it has changed."""

    def tell(message: Any) -> None:
        if on_progress is not None and message.WhichOneof("message") == "operation":
            on_progress(message.operation)

    return tell


def new_request_id(given: str | uuid.UUID | None) -> str:
    """The id under which a change is done once."""
    return str(uuid.uuid4() if given is None else given)


class Outgoing:
    """The messages of a streaming request, a few ahead of the connection at most."""

    def __init__(self) -> None:
        self._changes = _io.Changes()
        self._waiting: deque[Any] = deque()
        self._is_ended = False
        self._is_stopped = False

    async def put(self, message: Any) -> bool:
        """Sends it; whether the call still goes on."""

        def ready() -> bool | None:
            if self._is_stopped:
                return False
            if len(self._waiting) >= _AHEAD:
                return None
            self._waiting.append(message)
            return True

        went = await self._changes.wait(ready)
        with self._changes.change():
            pass  # there is something to send
        return bool(went)

    async def messages(self) -> AsyncIterator[Any]:
        """What is sent, to the end."""

        def ready() -> tuple[Any] | bool | None:
            if self._is_stopped:
                return False
            if self._waiting:
                return (self._waiting.popleft(),)
            return False if self._is_ended else None

        while got := await self._changes.wait(ready):
            with self._changes.change():
                pass  # there is room
            if isinstance(got, tuple):
                yield got[0]

    def end(self) -> None:
        """Nothing follows what was put."""
        with self._changes.change():
            self._is_ended = True

    def stop(self) -> None:
        """The call is over."""
        with self._changes.change():
            self._is_stopped = True


class Caller:
    """Makes calls over a channel."""

    def __init__(self, channel: _io.Channel) -> None:
        self.channel = channel

    def retry(self) -> Retry:
        """A fresh count of tries."""
        return Retry(self.channel)

    async def repeat(self, method: Method[Req, Res], request: Req) -> Res:
        """Makes a call that is safe to repeat until it is answered or the reconnect window ends."""
        retry = self.retry()
        while True:
            try:
                return await self.channel.unary(method, request)
            except errors.BangerError as error:
                error.request_id = getattr(request, "request_id", None) or None
                await retry.after(error)

    async def pages(
        self, method: Method[Req, Res], request: Callable[[str], Req], items: Callable[[Res], Any]
    ) -> AsyncIterator[Any]:
        """The items of a list, over all its pages, fetched as they are needed."""
        token = ""
        while True:
            page = await self.repeat(method, request(token))
            for item in items(page):
                yield item
            token = getattr(page, "next_page_token", "")
            if not token:
                return

    @contextlib.asynccontextmanager
    async def again(self) -> AsyncIterator[Caller]:
        """Calls over a connection of their own, for what must be done when a call of this one was interrupted."""
        channel = self.channel.again()
        try:
            yield Caller(channel)
        finally:
            await channel.close()

    async def follow(
        self,
        method: Method[Req, Res],
        request: Req,
        result: str,
        on_progress: Progress | None,
        wrap: Callable[[Caller, Any], T],
        undo: Callable[[Caller, str], Awaitable[object]] | None = None,
    ) -> T:
        """Makes a long call and follows it to its result, over broken connections: a repeat with the same request id
        joins the first. A caller that is interrupted gives it up, and with `undo` also what was made meanwhile, at
        any instant until it has what `wrap` makes of it. So does one whose callback fails.
        """

        async def make() -> T:
            return wrap(self, await self._follow(method, request, result, on_progress))

        async def give_up() -> None:
            async with self.again() as caller:
                await caller._give_up(method, request, result, undo)

        try:
            return await _io.making(make, give_up, _GIVE_UP_SECONDS)
        except errors.BangerError as error:
            error.request_id = getattr(request, "request_id", None) or None
            raise
        except CallbackFailed as error:
            raise error.why from None

    async def _follow(self, method: Method[Req, Res], request: Req, result: str, on_progress: Progress | None) -> Any:
        retry = self.retry()
        while True:
            try:
                stream = self.channel.stream(method, request)
                try:
                    while (answer := await stream.read()) is not None:
                        message: Any = answer
                        retry.established()
                        which = message.WhichOneof("message")
                        if which == result:
                            return getattr(message, result)
                        if which == "operation" and on_progress is not None:
                            try:
                                on_progress(message.operation)
                            except errors.BangerError as error:
                                # Not of this call, which goes on.
                                raise CallbackFailed(error) from error
                        elif which is None:
                            raise errors.ProtocolError(method.name, "an empty message")
                finally:
                    stream.cancel()
                raise errors.ConnectionLost(method.name)
            except errors.BangerError as error:
                await retry.after(error)

    async def _give_up(
        self,
        method: Method[Req, Res],
        request: Req,
        result: str,
        undo: Callable[[Caller, str], Awaitable[object]] | None,
    ) -> None:
        """Ends what a request has begun, also if it has not reached the daemon yet, and undoes what it has made."""
        retry = self.retry()
        while True:
            try:
                made = await self._cancel(method, request, result)
                break
            except errors.BangerError as error:
                await retry.after(error)
        if made and undo is not None:
            await undo(self, made)

    async def _cancel(self, method: Method[Req, Res], request: Req, result: str) -> str:
        """Joins the operation by its request id and gives it up; the id of what it has made before."""
        from banger import _methods

        stream = self.channel.stream(method, request)
        try:
            while (answer := await stream.read()) is not None:
                message: Any = answer
                which = message.WhichOneof("message")
                if which == result:
                    return str(getattr(message, result).id)
                if which == "operation":
                    cancel = v1.CancelOperationRequest(operation=message.operation.id)
                    operation = (await self.channel.unary(_methods.CANCEL_OPERATION, cancel)).operation
                    return operation.target if operation.state == v1.Operation.STATE_SUCCEEDED else ""
            raise errors.ConnectionLost(method.name)
        finally:
            stream.cancel()

    async def upload(
        self,
        method: Method[Any, Any],
        start: Any,
        chunks: Iterator[Any],
        wrap: Callable[[Any], Any],
        end: Any,
        result: str,
        on_message: Callable[[Any], object],
    ) -> Any:
        """Sends a start, chunks and, where there is one, an end, and reads to the result. A reading that fails gives
        the call up, so that the daemon never takes a part for the whole. Not repeated.
        """
        outgoing = Outgoing()
        stream = self.channel.stream(method, outgoing.messages())
        stream.when_over(outgoing.stop)
        try:
            await outgoing.put(start)
            while (chunk := await _io.blocking(next, chunks, None)) is not None:
                if not await outgoing.put(wrap(chunk)):
                    break
            else:
                if end is not None:
                    await outgoing.put(end)
                outgoing.end()
            while (message := await stream.read()) is not None:
                which = message.WhichOneof("message")
                if which == result:
                    return getattr(message, result)
                on_message(message)
            raise errors.ConnectionLost(method.name)
        finally:
            outgoing.stop()
            stream.cancel()
