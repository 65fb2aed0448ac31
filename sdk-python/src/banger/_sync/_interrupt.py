"""Ctrl-C while something is made that nobody has yet, or is removed.

    making ──made──▶ handed over ──▶ the caller's ──▶ removing ──▶ gone
      given up         removed          as ever       told at its end

Python raises KeyboardInterrupt between any two steps of the main thread: also when a VM has come and its caller's
`with` has not begun, and in the middle of a removal. So a handler stands before the program's own while something is
made, handed over, or is in a `with` block; it does first what must be done, for a bounded time, and then lets the
program's handler go on. In other threads, and where the program has no handler in Python, nothing is ever interrupted.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType
from typing import Any, TypeVar

from banger import errors

T = TypeVar("T")

# Functions of this package through which what was made goes to its caller.
_HANDING_OVER = frozenset({"make", "making", "follow", "create", "create_from"})
_PACKAGE = "banger._sync"


def finish(function: Callable[[], object], seconds: float) -> None:
    """Runs what must be done although the caller is given up, for so long at most."""

    def run() -> None:
        with contextlib.suppress(errors.BangerError):
            function()

    # In a thread of its own: another Ctrl-C ends the waiting at most, never the work.
    thread = threading.Thread(target=run, name="banger-finish", daemon=True)
    thread.start()
    thread.join(seconds)


def _ours(frame: FrameType | None) -> list[FrameType]:
    """The functions of this package that were interrupted, the innermost first."""
    found = []
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(_PACKAGE):
        found.append(frame)
        frame = frame.f_back
    return found


def _is_within(frame: FrameType | None, call: FrameType | None) -> bool:
    """Whether what was interrupted is this call, or one that it made."""
    while frame is not None and frame is not call:
        frame = frame.f_back
    return call is not None and frame is call


class _Fresh:
    """Something that was made, and may not have reached its caller."""

    def __init__(self, give_up: Callable[[], object], seconds: float, frame: FrameType | None) -> None:
        self.give_up = give_up
        self.seconds = seconds
        # Where the caller waits for it. Not the frame itself, which would keep what the caller has.
        ours = _ours(frame)
        caller = ours[-1].f_back if ours else frame
        self._caller = (id(caller), caller.f_lasti) if caller is not None else None

    def is_on_its_way(self, frame: FrameType | None) -> bool:
        """Whether the caller does not have it yet, where it was interrupted there."""
        ours = _ours(frame)
        if not ours:
            return frame is not None and (id(frame), frame.f_lasti) == self._caller
        return any(one.f_code.co_name in _HANDING_OVER for one in ours)


class Interrupts:
    """See the module. There is one, and only the main thread changes it."""

    def __init__(self) -> None:
        self._before: Callable[[int, FrameType | None], Any] | None = None
        # Whatever has a block that is entered, and is removed at its end.
        self._blocks: set[int] = set()
        # The call that makes something, and the one that gives it up.
        self._making: FrameType | None = None
        self._giving_up: FrameType | None = None
        self._is_finishing = False
        self._fresh: _Fresh | None = None
        self._removals: list[SimpleQueue[bool]] = []
        self._is_told = False

    def _stand(self) -> bool:
        """Stands before the program's handler; whether it does."""
        if threading.current_thread() is not threading.main_thread():
            return False
        current = signal.getsignal(signal.SIGINT)
        if current == self._handle:
            return True
        if not callable(current):
            return False
        self._before = current
        try:
            signal.signal(signal.SIGINT, self._handle)
        except ValueError:
            return False  # a sub-interpreter's main thread, which gets no signals
        return True

    def _leave(self) -> None:
        """Leaves the program's handler alone again, if nothing needs this one."""
        if self._blocks or self._making is not None or self._removals or self._fresh is not None:
            return
        if self._before is not None and signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._removals:
            # A removal goes on; who waits for it learns that it has a bound now.
            self._is_told = True
            self._removals[-1].put(False)
            return
        if self._is_finishing or _is_within(frame, self._giving_up):
            return  # it is raised, when what must be done is done
        fresh, self._fresh = self._fresh, None
        if fresh is not None and fresh.is_on_its_way(frame):
            self._finish(fresh.give_up, fresh.seconds)
        elif _is_within(frame, self._making):
            # Until `making` has given up what it makes, no other one disturbs it.
            self._giving_up = self._making
        else:
            for one in _ours(frame):
                owner: Any = one.f_locals.get("self")
                if one.f_code.co_name in ("__enter__", "__exit__") and hasattr(owner, "_throw_away"):
                    self._finish(owner._throw_away, owner._THROW_AWAY_SECONDS)
                    self._blocks.discard(id(owner))
            self._leave()
        self._go_on(number, frame)
        self._giving_up = None  # the program's handler raises nothing

    def _go_on(self, number: int, frame: FrameType | None) -> None:
        if self._before is not None:
            self._before(number, frame)

    def _finish(self, function: Callable[[], object], seconds: float) -> None:
        self._is_finishing = True
        try:
            finish(function, seconds)
        finally:
            self._is_finishing = False

    def settle(self) -> None:
        """The caller has what was made: it uses the package again."""
        if self._fresh is None or self._making is not None or threading.current_thread() is not threading.main_thread():
            return
        self._fresh = None
        self._leave()

    def making(self, make: Callable[[], T], give_up: Callable[[], object], seconds: float, frame: FrameType) -> T:
        """Makes something. A caller that is interrupted, at any instant until it has it, gets its exception when it is
        given up, or after so long.
        """
        if not self._stand():
            try:
                return make()
            except errors.BangerError:
                raise
            except BaseException:
                finish(give_up, seconds)
                raise
        self._fresh = None
        try:
            self._making = sys._getframe()
            made = make()
            # From here on it is the handler that gives it up.
            self._fresh = _Fresh(give_up, seconds, frame)
            self._making = None
            return made
        except errors.BangerError:
            raise
        except BaseException:
            if self._making is not None:
                self._giving_up = self._making
                finish(give_up, seconds)
            raise
        finally:
            self._making = None
            self._giving_up = None
            self._leave()

    def entered(self, owner: object) -> None:
        """A `with` block begins, at whose end `owner` is removed."""
        if self._stand():
            self._blocks.add(id(owner))

    def removing(self, owner: object, remove: Callable[[], object], seconds: float) -> None:
        """Removes `owner` at the end of its block. A caller that is interrupted gets its exception when it is gone, or
        after so long.
        """
        if not self._stand():
            remove()
            return
        failed: list[BaseException] = []
        ended: SimpleQueue[bool] = SimpleQueue()

        def run() -> None:
            try:
                remove()
            except BaseException as error:
                failed.append(error)
            ended.put(True)

        self._removals.append(ended)
        try:
            thread = threading.Thread(target=run, name="banger-remove", daemon=True)
            thread.start()
            if not ended.get():
                thread.join(seconds)
        finally:
            self._removals.remove(ended)
            self._blocks.discard(id(owner))
            is_told, self._is_told = self._is_told, False
            self._leave()
        if is_told:
            self._go_on(signal.SIGINT, None)
        if failed:
            raise failed[0]


INTERRUPTS = Interrupts()
