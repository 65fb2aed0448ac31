"""A directory of the owner's: looked at and changed by descriptors, without following a link.

What is replaced or removed is first moved aside and looked at once more: what somebody wrote since it was compared is
put back, and told.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO

from banger._workspace.failure import doing
from banger._workspace.limits import DEPTH_MAX
from banger.workspace import v1 as wire

DIRECTORY = wire.Entry.KIND_DIRECTORY
_FILE = wire.Entry.KIND_FILE
_SYMLINK = wire.Entry.KIND_SYMLINK
_WAY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True)
class Leaf:
    """What is at a path: its kind, permissions, and the digest of a file or the target of a link."""

    kind: int
    mode: int = 0
    content: bytes = b""

    @classmethod
    def of(cls, entry: wire.Entry) -> Leaf:
        content = entry.link_target if entry.kind == _SYMLINK else entry.sha256
        return cls(entry.kind, entry.mode if entry.kind != _SYMLINK else 0, content)

    def entry(self, path: bytes) -> wire.Entry:
        """The entry that says it."""
        if self.kind == _SYMLINK:
            return wire.Entry(path=path, kind=_SYMLINK, link_target=self.content)
        return wire.Entry(path=path, kind=self.kind, mode=self.mode, sha256=self.content)  # type: ignore[arg-type]


def same(one: Leaf | None, other: Leaf | None) -> bool:
    """Whether the same is at both places, nothing included. A directory's permissions are no difference, and what is
    not known is like nothing, not even itself.
    """
    if one is None or other is None:
        return one is other
    if wire.Entry.KIND_UNSPECIFIED in (one.kind, other.kind):
        return False
    return one == other or one.kind == other.kind == DIRECTORY


Mark = tuple[int, int, int, int]
"""What tells that somebody wrote to a file."""


@dataclass(frozen=True)
class Here:
    """What is at a path here."""

    leaf: Leaf
    mark: Mark


def _mark(found: os.stat_result) -> Mark:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class Disk:
    """The directory."""

    def __init__(self, top: bytes) -> None:
        with doing("look at"):
            self._root = os.open(top, _WAY)

    def close(self) -> None:
        os.close(self._root)

    @contextlib.contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The directory that something at a path lies in, and its name there."""
        *above, name = path.split(b"/")
        at = os.dup(self._root)
        try:
            for one in above:
                inner = os.open(one, _WAY, dir_fd=at)
                os.close(at)
                at = inner
            yield at, name
        finally:
            os.close(at)

    def _stat(self, path: bytes) -> os.stat_result | None:
        with doing("look at"):
            try:
                with self._parent(path) as (parent, name):
                    return os.stat(name, dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    raise
                return None

    def look(self, path: bytes) -> Here | None:
        """What is at a path; None where nothing is, or a link or file is on the way."""
        found = self._stat(path)
        if found is None:
            return None
        mode = stat.S_IMODE(found.st_mode) & 0o777
        if stat.S_ISREG(found.st_mode):
            with self.read(path) as file, doing("look at"):
                found, digest = os.fstat(file.fileno()), hashlib.sha256()
                while piece := file.read(1 << 20):
                    digest.update(piece)
            return Here(Leaf(_FILE, stat.S_IMODE(found.st_mode) & 0o777, digest.digest()), _mark(found))
        if stat.S_ISLNK(found.st_mode):
            with doing("look at"), self._parent(path) as (parent, name):
                return Here(Leaf(_SYMLINK, 0, os.readlink(name, dir_fd=parent)), _mark(found))
        kind = DIRECTORY if stat.S_ISDIR(found.st_mode) else wire.Entry.KIND_UNSPECIFIED
        return Here(Leaf(kind, mode), _mark(found))

    def is_leaf(self, path: bytes) -> bool:
        """Whether something is at a path that is no directory."""
        found = self._stat(path)
        return found is not None and not stat.S_ISDIR(found.st_mode)

    def read(self, path: bytes) -> BinaryIO:
        """A file, to be read."""
        with doing("look at"), self._parent(path) as (parent, name):
            # A pipe that took the file's place is not waited for.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.fdopen(os.open(name, flags, dir_fd=parent), "rb")

    def _names(self, path: bytes) -> list[tuple[bytes, bool]]:
        """What is in a directory, and whether it is one."""
        with doing("look at"), self._parent(path) as (parent, name):
            inner = os.open(name, _WAY, dir_fd=parent)
            try:
                with os.scandir(inner) as found:
                    return [(os.fsencode(one.name), one.is_dir(follow_symlinks=False)) for one in found]
            finally:
                os.close(inner)

    def has_others(self, path: bytes, goes: Callable[[bytes], bool]) -> bool:
        """Whether there is anything but directories in a directory that does not go."""
        for name, is_directory in self._names(path):
            inside = path + b"/" + name
            if is_directory:
                if inside.count(b"/") >= DEPTH_MAX or self.has_others(inside, goes):
                    return True
            elif not goes(inside):
                return True
        return False

    def remove(self, path: bytes, mark: Mark) -> bool:
        """Removes a file or link that is what was looked at. Whether it was."""
        with doing("change"), self._parent(path) as (parent, name):
            aside = _aside()
            try:
                os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
            except FileNotFoundError:
                return False
            if _is(parent, aside, mark):
                os.unlink(aside, dir_fd=parent)
                return True
            _name(parent, aside, name)
            return False

    def put_file(self, path: bytes, mode: int, content: IO[bytes], size: int, former: Mark | None) -> bool:
        """Puts a file there; `former` is what was looked at there, None where nothing may be there. Whether it was so.
        All of the content is read either way.
        """
        with doing("change"), self._parent(path) as (parent, name):
            aside = _aside()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                with os.fdopen(os.open(aside, flags, 0o600, dir_fd=parent), "wb") as file:
                    while size > 0 and (piece := content.read(min(size, 1 << 20))):
                        file.write(piece)
                        size -= len(piece)
                    if size:
                        raise OSError("a content ends early")
                    file.flush()
                    os.fchmod(file.fileno(), mode & 0o777)
                return _place(parent, aside, name, former)
            finally:
                _drop(parent, aside)

    def put_link(self, path: bytes, target: bytes, former: Mark | None) -> bool:
        """The same of a link."""
        with doing("change"), self._parent(path) as (parent, name):
            aside = _aside()
            try:
                os.symlink(target, aside, dir_fd=parent)
                return _place(parent, aside, name, former)
            finally:
                _drop(parent, aside)

    def make_directory(self, path: bytes) -> bool:
        """Makes a directory and those on the way; one that is there stays. Whether it was made."""
        names = path.split(b"/")
        is_new = False
        for end in range(1, len(names) + 1):
            with doing("change"), self._parent(b"/".join(names[:end])) as (parent, name):
                try:
                    os.mkdir(name, 0o777, dir_fd=parent)
                    is_new = True
                except FileExistsError:
                    is_new = False
        return is_new

    def set_mode(self, path: bytes, mode: int) -> None:
        """Sets a directory's permissions."""
        with doing("change"), self._parent(path) as (parent, name):
            inner = os.open(name, _WAY, dir_fd=parent)
            try:
                os.fchmod(inner, mode & 0o777)
            finally:
                os.close(inner)

    def remove_directory(self, path: bytes) -> bool:
        """Removes a directory, if nothing is in it. Whether it is gone."""
        with doing("change"):
            try:
                with self._parent(path) as (parent, name):
                    os.rmdir(name, dir_fd=parent)
                    return True
            except OSError as error:
                if error.errno not in (*_NOT_THERE, errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return False

    def remove_directories(self, path: bytes) -> bool:
        """Removes a directory in which there are only directories; that it is gone already is as good."""
        if self._stat(path) is None:
            return True
        for name, is_directory in self._names(path):
            if is_directory:
                self.remove_directories(path + b"/" + name)
        return self.remove_directory(path)


def _aside() -> bytes:
    """A name for something on its way."""
    return f".banger-{uuid.uuid4()}".encode()


def _is(parent: int, name: bytes, mark: Mark) -> bool:
    try:
        return _mark(os.stat(name, dir_fd=parent, follow_symlinks=False)) == mark
    except OSError:
        return False


def _drop(parent: int, aside: bytes) -> None:
    with contextlib.suppress(OSError):
        os.unlink(aside, dir_fd=parent)


def _name(parent: int, aside: bytes, name: bytes) -> bool:
    """Gives what is aside a name that nothing has; one that is taken stays whose it is."""
    try:
        os.link(aside, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        # A file system without second names.
        if error.errno not in (errno.EPERM, errno.ENOTSUP):
            raise
        try:
            os.stat(name, dir_fd=parent, follow_symlinks=False)
            return False
        except FileNotFoundError:
            os.rename(aside, name, src_dir_fd=parent, dst_dir_fd=parent)
            return True
    os.unlink(aside, dir_fd=parent)
    return True


def _place(parent: int, aside: bytes, name: bytes, former: Mark | None) -> bool:
    """Gives what was made aside its name."""
    if former is None:
        return _name(parent, aside, name)
    old = _aside()
    try:
        os.rename(name, old, src_dir_fd=parent, dst_dir_fd=parent)
    except FileNotFoundError:
        return False
    if _is(parent, old, former) and _name(parent, aside, name):
        os.unlink(old, dir_fd=parent)
        return True
    # Whoever has taken the name meanwhile keeps it, and what was there stays beside it.
    _name(parent, old, name)
    return False
