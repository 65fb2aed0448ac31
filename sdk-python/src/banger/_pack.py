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
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from banger import v1
from banger._glob import Ignored
from banger.errors import LocalFileError

CHUNK_BYTES = 256 << 10
"""The length of a chunk: a quarter of what the API allows."""


_BLOCK = 512
# The parts between the holes of a file that are told.
_RANGES_MAX = 16_384
# Omissions that are told one by one, as a VM tells them.
_OMISSIONS_TOLD = 64
# Of extended attributes those that mean the same in a VM.
_ATTRIBUTES_KEPT = ("security.capability", "user.", "system.posix_acl_")


def pack(local: str | os.PathLike[str], omissions: v1.Omissions) -> Iterator[bytes]:
    """A file, or a directory with all that is in it, whose last name is the top of the archive. A symbolic link here is
    followed; those below are kept. Devices are left out. The tree may be in use: what goes meanwhile and sockets are
    left out, and what becomes shorter is filled with zeros, as tar(1) does. All of that is told in `omissions`,
    whole at the end.

    Raises:
        LocalFileError: If a file cannot be read, or the top is not there.
    """
    path = Path(local)
    name = path.name if path.name not in ("", "..") else path.resolve().name
    try:
        yield from _Packer(omissions=omissions).entry(Path(os.path.realpath(path)), name or ".")
    except OSError as error:
        if isinstance(error, LocalFileError):
            raise
        raise LocalFileError(str(error.filename or path), "read", error) from error
    yield bytes(1024)


def pack_content(directory: str | os.PathLike[str], ignored: Ignored | None = None) -> Iterator[bytes]:
    """What is in a directory, without what is ignored; the directory itself is no entry. Sockets, pipes and devices are
    left out. What is made of it must be of all of it, so that nothing may go meanwhile but what is ignored.

    Raises:
        LocalFileError: If a file cannot be read, goes or becomes shorter meanwhile.
    """
    try:
        for name in sorted(os.listdir(directory)):
            packer = _Packer(ignored)
            try:
                yield from packer.entry(Path(directory) / name, name)
            except FileNotFoundError as error:
                packer.gone(Path(directory) / name, name, error)
    except OSError as error:
        if isinstance(error, LocalFileError):
            raise
        raise LocalFileError(str(error.filename or directory), "read", error) from error
    yield bytes(1024)


class _Packer:
    """Makes the entries of a tree, one after the other."""

    def __init__(self, ignored: Ignored | None = None, omissions: v1.Omissions | None = None) -> None:
        self._ignored = ignored
        # Of a tree that may be in use; without, what goes meanwhile is an error.
        self._omissions = omissions
        # The first name of each file that has several.
        self._links: dict[tuple[int, int], str] = {}

    def _omit(self, name: str, reason: v1.Omission.Reason) -> None:
        if self._omissions is not None:
            self._omissions.count += 1
            if len(self._omissions.first) < _OMISSIONS_TOLD:
                self._omissions.first.add(path=os.fsencode(name).decode("utf-8", "replace"), reason=reason)

    def _is_ignored(self, name: str) -> bool:
        return self._ignored is not None and name in self._ignored

    def gone(self, path: Path, name: str, error: FileNotFoundError) -> None:
        """What was listed is not there when its turn comes.

        Raises:
            LocalFileError: If it may not go.
        """
        if self._omissions is None and not self._is_ignored(name):
            raise LocalFileError(str(path), "read", error) from error
        self._omit(name, v1.Omission.REASON_VANISHED)

    def entry(self, path: Path, name: str) -> Iterator[bytes]:
        """One entry and what is beneath it."""
        found = os.lstat(path)
        info = _info(name, found)
        is_ignored = self._is_ignored(name)
        if stat.S_ISDIR(found.st_mode):
            if not is_ignored:
                info.type = tarfile.DIRTYPE
                info.pax_headers = _attributes(path)
                yield _header(info)
            if not is_ignored or (self._ignored is not None and self._ignored.takes_back):
                for child in sorted(os.listdir(path)):
                    inside = f"{name}/{child}"
                    try:
                        yield from self.entry(path / child, inside)
                    except FileNotFoundError as error:
                        self.gone(path / child, inside, error)
        elif is_ignored:
            return
        elif stat.S_ISLNK(found.st_mode):
            info.type = tarfile.SYMTYPE
            info.linkname = os.readlink(path)
            yield _header(info)
        elif stat.S_ISREG(found.st_mode):
            first = self._links.get((found.st_dev, found.st_ino)) if found.st_nlink > 1 else None
            if first is None:
                yield from self._file(path, name)
                return
            info.type = tarfile.LNKTYPE
            info.linkname = first
            yield _header(info)
        elif stat.S_ISSOCK(found.st_mode):
            self._omit(name, v1.Omission.REASON_SOCKET)
        elif stat.S_ISFIFO(found.st_mode) and self._omissions is not None:
            info.type = tarfile.FIFOTYPE
            yield _header(info)

    def _file(self, path: Path, name: str) -> Iterator[bytes]:
        with open(path, "rb", buffering=0, opener=_open) as file:
            # It may be another one than was looked at.
            found = os.fstat(file.fileno())
            if found.st_nlink > 1:
                # Not before it is open: of one that is gone, another name has the content.
                self._links[found.st_dev, found.st_ino] = name
            info = _info(name, found)
            info.pax_headers = _attributes(file.fileno())
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
            is_short = False
            for at, left in ranges:
                while left:
                    data = _read(file, path, at, min(left, CHUNK_BYTES))
                    if not data:
                        if self._omissions is None:
                            raise LocalFileError(str(path), "read", OSError(None, "it became shorter meanwhile"))
                        is_short = True
                        data = bytes(min(left, CHUNK_BYTES))
                    at += len(data)
                    left -= len(data)
                    yield data
            yield bytes(-info.size % _BLOCK)
            # Where only a hole went, no byte was missed.
            if is_short or os.fstat(file.fileno()).st_size < found.st_size:
                self._omit(name, v1.Omission.REASON_SHRANK)


def _info(name: str, found: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = stat.S_IMODE(found.st_mode)
    info.mtime = found.st_mtime_ns / 1e9
    return info


def _attributes(of: Path | int) -> dict[str, str]:
    """Extended attributes of a directory, or of an open file, as records of the archive."""
    is_open = isinstance(of, int)
    try:
        names = [name for name in os.listxattr(of, follow_symlinks=is_open) if name.startswith(_ATTRIBUTES_KEPT)]
    except OSError:
        return {}  # a file system that has none
    found = {}
    for name in names:
        # One that went meanwhile, or may not be read, is not there.
        with contextlib.suppress(OSError):
            value = os.getxattr(of, name, follow_symlinks=is_open)
            found[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    return found


def _open(path: str, flags: int) -> int:
    """What was a file may be another thing now: no link is followed, and no pipe waited for. Then it is not there any
    more.
    """
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise FileNotFoundError(errno.ENOENT, "it is no file any more", path) from error
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise FileNotFoundError(errno.ENOENT, "it is no file any more", path)


def _read(file: FileIO, path: Path, at: int, length: int) -> bytes:
    try:
        return os.pread(file.fileno(), length, at)
    except OSError as error:
        # Whatever it is: its entry has begun, and can no longer be left out.
        raise LocalFileError(str(path), "read", error) from error


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
