"""Trees of files of this machine as a tar archive: modes, times, symbolic and hard links, extended
attributes, and holes by the GNU format 1.0. Owners are left out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from banger._glob import Ignored
from banger.errors import LocalFileError

CHUNK_BYTES = 256 << 10
"""The length of a chunk: a quarter of what the API allows."""


_BLOCK = 512
# The parts between the holes of a file that are told.
_RANGES_MAX = 16_384
# Of extended attributes those that mean the same in a VM.
_ATTRIBUTES_KEPT = ("security.capability", "user.", "system.posix_acl_")


def pack(local: str | os.PathLike[str]) -> Iterator[bytes]:
    """A file, or a directory with all that is in it, whose last name is the top of the archive. Sockets, pipes and
    devices are left out.

    Raises:
        LocalFileError: If a file cannot be read, or changes meanwhile.
    """
    path = Path(local)
    name = path.name if path.name not in ("", "..") else path.resolve().name
    seen: dict[tuple[int, int], str] = {}
    try:
        yield from _entry(path, name or ".", seen)
    except OSError as error:
        if isinstance(error, LocalFileError):
            raise
        raise LocalFileError(str(error.filename or path), "read", error) from error
    yield bytes(1024)


def pack_content(directory: str | os.PathLike[str], ignored: Ignored | None = None) -> Iterator[bytes]:
    """What is in a directory, without what is ignored; the directory itself is no entry.

    Raises:
        LocalFileError: If a file cannot be read, or changes meanwhile.
    """
    try:
        for name in sorted(os.listdir(directory)):
            yield from _entry(Path(directory) / name, name, {}, ignored)
    except OSError as error:
        if isinstance(error, LocalFileError):
            raise
        raise LocalFileError(str(error.filename or directory), "read", error) from error
    yield bytes(1024)


def _entry(path: Path, name: str, seen: dict[tuple[int, int], str], ignored: Ignored | None = None) -> Iterator[bytes]:
    found = os.lstat(path)
    info = tarfile.TarInfo(name)
    info.mode = stat.S_IMODE(found.st_mode)
    info.mtime = found.st_mtime_ns / 1e9
    is_ignored = ignored is not None and name in ignored
    if stat.S_ISDIR(found.st_mode):
        info.type = tarfile.DIRTYPE
        if not is_ignored:
            info.pax_headers = _attributes(path)
            yield _header(info)
        if not is_ignored or (ignored is not None and ignored.takes_back):
            for child in sorted(os.listdir(path)):
                yield from _entry(path / child, f"{name}/{child}", seen, ignored)
    elif is_ignored:
        return
    elif stat.S_ISLNK(found.st_mode):
        info.type = tarfile.SYMTYPE
        info.linkname = os.readlink(path)
        yield _header(info)
    elif stat.S_ISREG(found.st_mode):
        first = seen.get((found.st_dev, found.st_ino)) if found.st_nlink > 1 else None
        if first is not None:
            info.type = tarfile.LNKTYPE
            info.linkname = first
            yield _header(info)
            return
        seen[found.st_dev, found.st_ino] = name
        info.pax_headers = _attributes(path)
        yield from _file(path, info)


def _attributes(path: Path) -> dict[str, str]:
    """Extended attributes, as records of the archive."""
    try:
        names = [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith(_ATTRIBUTES_KEPT)]
    except OSError:
        return {}  # a file system that has none
    found = {}
    for name in names:
        # One that went meanwhile, or may not be read, is not there.
        with contextlib.suppress(OSError):
            value = os.getxattr(path, name, follow_symlinks=False)
            found[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    return found


def _file(path: Path, info: tarfile.TarInfo) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        ranges = _ranges(file.fileno(), found)
        told = b""
        if ranges is None:
            ranges = [(0, found.st_size)]
        else:
            numbers = [len(ranges), *(number for one in ranges for number in one)]
            told = "".join(f"{number}\n" for number in numbers).encode()
            told += bytes(-len(told) % _BLOCK)
            info.pax_headers = {
                **info.pax_headers,
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": info.name,
                "GNU.sparse.realsize": str(found.st_size),
            }
        info.size = len(told) + sum(length for _, length in ranges)
        yield _header(info)
        if told:
            yield told
        for at, left in ranges:
            file.seek(at)
            while left:
                data = file.read(min(left, CHUNK_BYTES))
                if not data:
                    raise LocalFileError(str(path), "read", OSError(None, "it became shorter while it was read"))
                left -= len(data)
                yield data
        yield bytes(-info.size % _BLOCK)


def _ranges(file: int, found: os.stat_result) -> list[tuple[int, int]] | None:
    """Where a file has data: offset and length; None where it has no holes, or too many to tell."""
    if found.st_blocks * _BLOCK >= found.st_size:
        return None
    ranges: list[tuple[int, int]] = []
    at = 0
    while at < found.st_size and len(ranges) <= _RANGES_MAX:
        try:
            begin = os.lseek(file, at, os.SEEK_DATA)
            at = min(os.lseek(file, begin, os.SEEK_HOLE), found.st_size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # only a hole is left
            return None
        if at > begin:
            ranges.append((begin, at - begin))
        elif begin < found.st_size:
            return None  # it changes while it is looked at
    is_told = len(ranges) <= _RANGES_MAX and sum(length for _, length in ranges) < found.st_size
    return ranges if is_told else None


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in chunks for the wire."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer[:CHUNK_BYTES])
            del buffer[:CHUNK_BYTES]
    if buffer:
        yield bytes(buffer)


def chunks_of(archive: str | os.PathLike[str] | BinaryIO) -> Iterator[bytes]:
    """A file, by its path or by what it reads, in chunks for the wire.

    Raises:
        LocalFileError: If it cannot be read.
    """
    if not isinstance(archive, (str, os.PathLike)):
        yield from iter(lambda: archive.read(CHUNK_BYTES), b"")
        return
    try:
        with open(archive, "rb", buffering=0) as file:
            yield from iter(lambda: file.read(CHUNK_BYTES), b"")
    except OSError as error:
        raise LocalFileError(os.fspath(archive), "read", error) from error
