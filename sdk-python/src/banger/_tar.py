"""Reads a tar archive as it comes: ustar with PAX records, and holes by the GNU format 1.0.

Every length is bounded; nothing is written. The daemon makes the archive, and the guest chooses what is in it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

_BLOCK = 512
# What PAX records of one entry may take.
_PAX_MAX = 1 << 20
# What the record of an extended attribute begins with, before its name.
_ATTRIBUTE = b"SCHILY.xattr."
# What the map of a file's holes may take.
_MAP_MAX = 16 << 20
_NUMBER_MAX = (1 << 63) - 1


class DamagedArchive(ValueError):
    """It is no archive, or a damaged one."""


@dataclass
class Entry:
    """A file, directory or link."""

    path: bytes
    kind: str
    """`file`, `directory`, `symlink`, `hard link`, or `other`."""
    mode: int
    mtime_ns: int
    """Since 1970."""
    size: int
    """Of the content, holes included."""
    link: bytes = b""
    ranges: list[tuple[int, int]] = field(default_factory=list)
    """Where the data goes that follows: offset and length."""
    attributes: dict[bytes, bytes] = field(default_factory=dict)
    """Extended attributes."""


_KINDS = {b"0": "file", b"\0": "file", b"5": "directory", b"2": "symlink", b"1": "hard link"}


def _number(data: bytes, what: str) -> int:
    if data[:1] == b"\x80":
        return int.from_bytes(data[1:], "big")
    text = data.strip(b" \0")
    try:
        value = int(text or b"0", 8)
    except ValueError:
        raise DamagedArchive(f"{what} is no number") from None
    if value < 0:
        raise DamagedArchive(f"{what} is negative")
    return value


def _decimal(text: bytes, what: str) -> int:
    if not text.isdigit() or len(text) > 19:
        raise DamagedArchive(f"{what} is no number")
    value = int(text)
    if value > _NUMBER_MAX:
        raise DamagedArchive(f"{what} is too large")
    return value


def _time(text: bytes) -> int:
    """Seconds with a fraction, as nanoseconds."""
    seconds, _, fraction = text.removeprefix(b"-").partition(b".")
    value = _decimal(seconds, "a time") * 10**9
    if fraction:
        value += _decimal(fraction[:9].ljust(9, b"0"), "a time")
    return -value if text.startswith(b"-") else value


def _records(data: bytes) -> dict[bytes, bytes]:
    """PAX records: `LENGTH KEY=VALUE\\n`, one after the other."""
    records = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        if space < 0:
            raise DamagedArchive("a record has no length")
        end = at + _decimal(data[at:space], "a record's length")
        record = data[space + 1 : end]
        if end > len(data) or not record.endswith(b"\n") or b"=" not in record:
            raise DamagedArchive("a record is cut short")
        key, _, value = record[:-1].partition(b"=")
        records[key] = value
        at = end
    return records


class TarReader:
    """Is fed bytes, and gives entries and their data."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._pax: dict[bytes, bytes] = {}
        self._steps = self._run()
        self._is_over = False
        next(self._steps)

    def feed(self, data: bytes) -> Iterator[Entry | bytes]:
        """What `data` completes. Data belongs to the entry before it.

        Raises:
            DamagedArchive: If it is no archive.
        """
        if self._is_over:
            return
        self._buffer += data
        while True:
            made = next(self._steps)
            if made is None:
                return
            yield made

    @property
    def is_whole(self) -> bool:
        """Whether the mark at the end has come."""
        return self._is_over

    def _take(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

    def _run(self) -> Generator[Entry | bytes | None, None, None]:
        yield None
        while True:
            while len(self._buffer) < _BLOCK:
                yield None
            header = self._take(_BLOCK)
            if header == bytes(_BLOCK):
                self._is_over = True
                self._buffer.clear()
                while True:
                    yield None
            self._check(header)
            size = _number(header[124:136], "a size")
            kind = header[156:157]
            if kind in (b"x", b"g"):
                if size > _PAX_MAX:
                    raise DamagedArchive("the records of an entry are too long")
                padded = -(-size // _BLOCK) * _BLOCK
                while len(self._buffer) < padded:
                    yield None
                records = _records(self._take(padded)[:size])
                if kind == b"x":
                    self._pax = records
                continue
            entry, stored = self._entry(header, kind, size)
            left = stored
            if b"GNU.sparse.major" in self._pax:
                used = yield from self._map(entry, left)
                left -= used
            elif entry.kind == "file":
                entry.ranges = [(0, entry.size)]
            if sum(length for _, length in entry.ranges) > left:
                raise DamagedArchive("a file is longer than what follows")
            self._pax = {}
            yield entry
            content = sum(length for _, length in entry.ranges)
            skip = left - content + (-stored) % _BLOCK
            while content or skip:
                if not self._buffer:
                    yield None
                    continue
                if content:
                    data = self._take(min(content, len(self._buffer)))
                    content -= len(data)
                    yield data
                else:
                    skip -= len(self._take(min(skip, len(self._buffer))))

    @staticmethod
    def _check(header: bytes) -> None:
        wanted = _number(header[148:156], "a checksum")
        if sum(header[:148]) + 8 * 32 + sum(header[156:]) != wanted:
            raise DamagedArchive("a checksum is wrong")

    def _entry(self, header: bytes, kind: bytes, size: int) -> tuple[Entry, int]:
        """The entry, and how many bytes follow it."""
        pax = self._pax
        prefix = header[345:500].split(b"\0", 1)[0] if header[257:262] == b"ustar" else b""
        name = header[:100].split(b"\0", 1)[0]
        path = pax.get(b"path", prefix + b"/" + name if prefix else name)
        path = pax.get(b"GNU.sparse.name", path)
        stored = _decimal(pax[b"size"], "a size") if b"size" in pax else size
        link = pax.get(b"linkpath", header[157:257].split(b"\0", 1)[0])
        mtime_ns = _time(pax[b"mtime"]) if b"mtime" in pax else _number(header[136:148], "a time") * 10**9
        real = _decimal(pax[b"GNU.sparse.realsize"], "a size") if b"GNU.sparse.realsize" in pax else stored
        if b"\0" in path or b"\0" in link:
            raise DamagedArchive("a name has a zero byte")
        what = _KINDS.get(kind, "other")
        if what in ("symlink", "hard link", "directory"):
            stored = real = 0
        made = Entry(path, what, _number(header[100:108], "a mode") & 0o7777, mtime_ns, real, link)
        made.attributes = {
            key.removeprefix(_ATTRIBUTE): value for key, value in pax.items() if key.startswith(_ATTRIBUTE)
        }
        return made, stored

    def _map(self, entry: Entry, left: int) -> Generator[None, None, int]:
        """Reads the map of a file's holes: decimal numbers, each on a line, padded to a block."""
        text = bytearray()
        numbers: list[int] = []
        used = 0
        while not numbers or len(numbers) < 1 + 2 * numbers[0]:
            if used + _BLOCK > min(left, _MAP_MAX):
                raise DamagedArchive("the map of a file's holes is cut short, or too long")
            while len(self._buffer) < _BLOCK:
                yield None
            text += self._take(_BLOCK)
            used += _BLOCK
            *lines, rest = bytes(text).split(b"\n")
            text = bytearray(rest)
            for line in lines:
                if not numbers or len(numbers) < 1 + 2 * numbers[0]:
                    numbers.append(_decimal(line, "a hole"))
            if len(text) > _BLOCK:
                raise DamagedArchive("the map of a file's holes is none")
        end = 0
        for at in range(numbers[0]):
            offset, length = numbers[1 + 2 * at], numbers[2 + 2 * at]
            if offset < end or offset + length > entry.size:
                raise DamagedArchive("the map of a file's holes is none")
            end = offset + length
            if length:
                entry.ranges.append((offset, length))
        return used
