"""What goes to a process, kept until the guest has it.

Standard input is numbered and stays here until it is acknowledged, so that a new connection resends exactly what the
guest does not have. At most `WINDOW_BYTES` are kept. Pure state: whoever owns it takes care of waiting.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

WINDOW_BYTES = 1 << 20
"""Standard input that is written and not yet acknowledged."""
CHUNK_BYTES = 128 << 10
"""The length of one message of standard input: an eighth of the API's bound."""
_SIGNALS_MAX = 16


class Over(enum.Enum):
    """The connection is over: nothing follows."""

    OVER = 0


@dataclass(frozen=True)
class Stdin:
    """Standard input."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class Close:
    """Its end."""


@dataclass(frozen=True)
class Resize:
    """A new terminal size."""

    rows: int
    columns: int


@dataclass(frozen=True)
class Signal:
    """A signal for the process group."""

    number: int


Sent = Stdin | Close | Resize | Signal


class Outbox:
    """See the module."""

    def __init__(self) -> None:
        self._connection = 0
        # Whether this connection knows what the guest has, and may send.
        self._is_open = False
        self.ended = False
        """The process has ended."""
        self.closed = False
        """Nothing more is written."""
        self._accepted = 0
        self._written = 0
        # From `_accepted` to `_written`.
        self._chunks: deque[bytes] = deque()
        # How many of them this connection has sent.
        self._sent = 0
        self._close_sent = False
        self._size: Resize | None = None
        self._size_sent = False
        self._carries_signals = True
        self._signals: deque[int] = deque()

    def connect(self, *, carries_signals: bool) -> int:
        """Begins a connection, of this number; an older one is over. Nothing is sent until `open`."""
        self._connection += 1
        self._carries_signals = carries_signals
        self._is_open = False
        return self._connection

    def open(self, accepted: int) -> None:
        """The guest has so many bytes: send what follows. A first connection to a session that others wrote to begins
        there.
        """
        if self._written == 0 and not self._chunks:
            self._written = self._accepted = accepted
        self.accept(accepted)
        self._sent = 0
        self._close_sent = False
        self._size_sent = False
        self._is_open = True

    def room(self) -> int:
        """How many bytes can be written now."""
        return WINDOW_BYTES - (self._written - self._accepted)

    @property
    def accepted(self) -> int:
        """How many bytes the guest is known to have."""
        return self._accepted

    @property
    def is_flushed(self) -> bool:
        """Whether the guest has all that was written."""
        return self.ended or self._accepted >= self._written

    def write(self, data: bytes) -> int:
        """Takes what there is room for; how many bytes that is."""
        taken = min(len(data), self.room(), CHUNK_BYTES)
        if taken > 0:
            self._chunks.append(data[:taken])
            self._written += taken
        return max(taken, 0)

    def resize(self, rows: int, columns: int) -> None:
        """The terminal has this size; sent again on every connection."""
        self._size = Resize(rows, columns)
        self._size_sent = False

    def signal(self, number: int) -> bool:
        """Sends a signal; whether the connection is one that carries signals. More than a few that wait are not worth
        keeping.
        """
        if self._carries_signals and len(self._signals) < _SIGNALS_MAX:
            self._signals.append(number)
        return self._carries_signals

    def take_signal(self) -> int | None:
        """A signal that waits for a connection which carries it, to be sent otherwise."""
        return self._signals.popleft() if self._signals else None

    def end(self) -> None:
        """The process has ended."""
        self.ended = True
        self._chunks.clear()

    def next(self, connection: int) -> Sent | Over | None:
        """The next message of a connection; None where there is none yet. Signals and sizes overtake standard input,
        which may be blocked.
        """
        if self.ended or connection != self._connection:
            return Over.OVER
        if not self._is_open:
            return None
        if self._signals and self._carries_signals:
            return Signal(self._signals.popleft())
        if self._size is not None and not self._size_sent:
            self._size_sent = True
            return self._size
        if self._sent < len(self._chunks):
            offset = self._accepted + sum(len(self._chunks[at]) for at in range(self._sent))
            self._sent += 1
            return Stdin(offset, self._chunks[self._sent - 1])
        if self.closed and not self._close_sent:
            self._close_sent = True
            return Close()
        return None

    def accept(self, accepted: int) -> None:
        """The guest has so many bytes. A number beyond what was written, or below what was accepted before, is the
        guest's lie and changes nothing.
        """
        if accepted > self._written:
            return
        while self._chunks and accepted > self._accepted:
            chunk = self._chunks[0]
            have = accepted - self._accepted
            if have < len(chunk):
                # The part that is left keeps its place: it was sent with the whole.
                self._chunks[0] = chunk[have:]
                self._accepted = accepted
                return
            self._accepted += len(chunk)
            self._chunks.popleft()
            self._sent = max(self._sent - 1, 0)
