"""Output in order: each byte once, each lost byte told."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace

from banger import errors, v1
from banger._result import Exit

_OFFSET_MAX = (1 << 63) - 1


@dataclass(frozen=True)
class Output:
    """Output, in order, no byte twice."""

    offset: int
    """Of the first byte, in the output of all streams together."""
    is_stderr: bool
    """Whether it is file descriptor 2."""
    data: bytes
    """At least one byte."""
    time: datetime.datetime | None = None
    """When the guest read it, by its own clock; None where that is no time."""

    @property
    def text(self) -> str:
        """As text; what is no UTF-8 is replaced, also where a character is cut in two."""
        return self.data.decode(errors="replace")


@dataclass(frozen=True)
class Gap:
    """Output that is no longer kept."""

    offset: int
    """Of the first lost byte."""
    lost_bytes: int


@dataclass(frozen=True)
class Screen:
    """What a terminal shows: the first event, where it was asked for and the guest knows."""

    offset: int
    """The output after it changes it."""
    data: bytes
    """What makes a cleared terminal of its size show the same."""


@dataclass(frozen=True)
class Exited:
    """The process has ended and all its output came before; the last event."""

    exit: Exit


Event = Output | Gap | Screen | Exited


@dataclass(frozen=True)
class Start:
    """Where a reader begins; nothing said means at the oldest byte that is kept."""

    offset: int | None = None
    tail_lines: int | None = None
    tail_bytes: int | None = None
    since: datetime.datetime | None = None
    end: bool = False
    screen: bool = False

    def __post_init__(self) -> None:
        told = [self.offset, self.tail_lines, self.tail_bytes, self.since]
        if sum(one is not None for one in told) + self.end + self.screen > 1:
            raise ValueError(
                "a reader begins in one place: give one of offset, tail_lines, tail_bytes, since, end, screen"
            )

    def options(self, resume: int | None, hold: bool) -> v1.ReadOptions:
        """As the API has it; `resume` is the next byte of a reader that comes back."""
        options = v1.ReadOptions(hold_process=hold)
        if resume is not None:
            options.offset = resume
        elif self.offset is not None:
            options.offset = self.offset
        elif self.tail_lines is not None:
            options.tail_lines = self.tail_lines
        elif self.tail_bytes is not None:
            options.tail_bytes = self.tail_bytes
        elif self.since is not None:
            options.since.FromDatetime(self.since)
        elif self.end:
            options.end = True
        elif self.screen:
            options.screen = True
        return options


def output_of(message: v1.Output, during: str) -> Output:
    """From the API's form."""
    if message.offset < 0 or message.offset + len(message.data) > _OFFSET_MAX:
        raise errors.ProtocolError(during, "an impossible offset")
    time = None
    if message.HasField("time"):
        try:
            time = message.time.ToDatetime(datetime.timezone.utc)
        except (ValueError, OverflowError):
            time = None  # the guest's clock is the guest's word
    return Output(message.offset, message.stream == v1.STREAM_STDERR, message.data, time)


class Position:
    """The place in a session's output."""

    def __init__(self, start: int | None) -> None:
        """Begins at an offset, or at the oldest byte that is kept."""
        self.next: int | None = start
        """The offset of the next byte; None until the first is known."""

    def output(self, output: Output) -> list[Event]:
        """What is new in it, after the gap before it."""
        if self.next is None:
            self.next = output.offset
        end = output.offset + len(output.data)
        if end <= self.next:
            return []
        events: list[Event] = []
        if output.offset > self.next:
            events.append(Gap(self.next, output.offset - self.next))
        elif output.offset < self.next:
            output = replace(output, offset=self.next, data=output.data[self.next - output.offset :])
        self.next = end
        return [*events, output]

    def gap(self, gap: v1.Gap) -> list[Event]:
        """What is new in it."""
        end = gap.offset + max(gap.lost_bytes, 0)
        if self.next is None:
            self.next = gap.offset
        if end <= self.next:
            return []
        told = Gap(self.next, end - self.next)
        self.next = end
        return [told]
