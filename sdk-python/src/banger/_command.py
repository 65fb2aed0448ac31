"""What to run and how, as callers say it."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf import duration_pb2

from banger import v1

Command = str | Sequence[str]
"""A text for `/bin/sh -c`, or a program and its arguments."""
Lines = Callable[[str], object]
"""Called with each line, without its end."""

# A line that is longer comes in parts.
_LINE_MAX = 64 << 10


def duration(seconds: float) -> duration_pb2.Duration:
    """As the API has it."""
    made = duration_pb2.Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


Limit = int | tuple[int | None, int | None] | None
"""A limit of the kernel: of soft and hard both, or each; None is no limit."""

_RESOURCES = {
    "cpu": v1.ResourceLimit.RESOURCE_CPU,
    "fsize": v1.ResourceLimit.RESOURCE_FSIZE,
    "data": v1.ResourceLimit.RESOURCE_DATA,
    "stack": v1.ResourceLimit.RESOURCE_STACK,
    "core": v1.ResourceLimit.RESOURCE_CORE,
    "nofile": v1.ResourceLimit.RESOURCE_NOFILE,
    "as": v1.ResourceLimit.RESOURCE_AS,
    "nproc": v1.ResourceLimit.RESOURCE_NPROC,
    "memlock": v1.ResourceLimit.RESOURCE_MEMLOCK,
}


def limit_of(name: str, limit: Limit) -> v1.ResourceLimit:
    """As the API has it."""
    if name not in _RESOURCES:
        raise ValueError(f"{name!r} is no resource that can be limited; these are: {', '.join(_RESOURCES)}")
    soft, hard = limit if isinstance(limit, tuple) else (limit, limit)
    return v1.ResourceLimit(resource=_RESOURCES[name], soft=soft, hard=hard)


def spec_of(
    command: Command,
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    timeout: float | None = None,
    stdin: bool = False,
    pty: bool | tuple[int, int] = False,
    merge_output: bool = False,
    umask: int | None = None,
    keep_children: bool = False,
    limits: Mapping[str, Limit] | None = None,
) -> v1.SessionSpec:
    """As the API has it."""
    if timeout is not None and timeout <= 0:
        raise ValueError("timeout must be more than 0; None means no limit")
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    spec = v1.SessionSpec(
        command=words,
        env=dict(env or {}),
        working_dir=cwd or "",
        user=user or "",
        stdin=stdin,
        merge_output=merge_output,
        keep_children=keep_children,
        limits=[limit_of(name, limit) for name, limit in (limits or {}).items()],
    )
    if umask is not None:
        spec.umask = umask
    if timeout is not None:
        spec.timeout.CopyFrom(duration(timeout))
    if pty is not False:
        rows, columns = (24, 80) if pty is True else pty
        spec.terminal.CopyFrom(v1.TerminalSize(rows=rows, columns=columns))
    return spec


class LineSplitter:
    """Makes lines of pieces of output."""

    def __init__(self, callback: Lines | None) -> None:
        self._callback = callback
        self._decoder: Any = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""

    def feed(self, data: bytes, final: bool = False) -> None:
        """Calls back with the lines that are whole; at the end also with what is left."""
        if self._callback is None:
            return
        self._text += self._decoder.decode(data, final)
        *lines, self._text = self._text.split("\n")
        for line in lines:
            self._callback(line.removesuffix("\r"))
        while len(self._text) > _LINE_MAX:
            self._callback(self._text[:_LINE_MAX])
            self._text = self._text[_LINE_MAX:]
        if final and self._text:
            self._callback(self._text)
            self._text = ""
