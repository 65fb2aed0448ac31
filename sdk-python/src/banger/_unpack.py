"""Unpacks what came out of a VM, beneath one directory and nowhere else.

The guest is hostile, and so is what it sends. Every directory on the way to an entry is opened name by name from the
handle of the one directory, and no symbolic link is followed; files are made under names of their own, by handle, and
take their names when they are whole. So `..`, absolute names, links that were planted before (by the archive or by
others), and names that repeat lead nowhere. Devices and pipes are not made. Owners, setuid, setgid and sticky are
dropped. Hard links are made to files beneath the directory only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from banger import v1
from banger._tar import DamagedArchive, Entry, TarReader
from banger.errors import ArchiveDamaged, BangerError, LocalFileError, UnsafeDownload

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
T = TypeVar("T")

# Of extended attributes those that mean nothing to this machine, but for what overlayfs makes of some.
_ATTRIBUTES_KEPT = b"user."
_ATTRIBUTES_DROPPED = b"user.overlay."
_TOLD_MAX = 20
_TIME_MAX_NS = (1 << 63) - 1
_BEHIND_LINK = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EMLINK})


@dataclass
class Downloaded:
    """What was unpacked."""

    entries: int = 0
    """Files, directories and links that were made."""
    content_bytes: int = 0
    """Bytes of contents that were written."""
    skipped: int = 0
    """Devices and pipes, which are not made."""
    skipped_names: list[str] = field(default_factory=list)
    """The first names of those."""
    omissions: v1.Omissions = field(default_factory=v1.Omissions)
    """What did not come out of the VM, or not as it is there, as the VM tells it: `count`, and the `first` of them with
    `path` and `reason`."""


def shown(path: bytes) -> str:
    """A name of the guest's, so that a terminal can take it."""
    return path.decode("utf-8", "backslashreplace").encode("unicode_escape").decode()[:500]


class Unpacker:
    """Is fed an archive, and makes what is in it."""

    def __init__(self, local: str | os.PathLike[str], top: str, max_entries: int, max_bytes: int) -> None:
        """Into `local` if it is a directory or ends with a slash, and otherwise by that name, as cp(1) has it. Every
        name in the archive must begin with `top`; with an empty one it is what is in `local`.
        """
        text = os.fspath(local)
        target = Path(text)
        self._top = os.fsencode(top)
        self._becomes: bytes | None = None
        if not top:
            directory = target
            if not target.is_dir():
                self._local(target, "make", lambda: target.mkdir())
        elif target.is_dir() or text.endswith("/"):
            directory = target
            self._becomes = self._top
            if not target.is_dir():
                self._local(target, "make", lambda: target.mkdir(parents=True))
        else:
            directory = target.parent
            self._becomes = os.fsencode(target.name)
        self._directory = directory
        self._root = self._local(directory, "open", lambda: os.open(directory, os.O_RDONLY | os.O_DIRECTORY))
        # A caller that is given up closes it while a thread still feeds it.
        self._lock = threading.Lock()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._seen_bytes = 0
        self._seen_entries = 0
        self._reader = TarReader()
        self._file: _File | None = None
        # Directories that were made: their attributes, modes and times come last.
        self._made: list[tuple[bytes, int, int, dict[bytes, bytes]]] = []
        self.done = Downloaded()

    @staticmethod
    def _local(path: Path, verb: str, function: Callable[[], T]) -> T:
        try:
            return function()
        except OSError as error:
            raise LocalFileError(str(path), verb, error) from error

    def feed(self, data: bytes) -> None:
        """The next bytes of the archive."""
        with self._lock:
            if self._root >= 0:
                self._feed(data)

    def _feed(self, data: bytes) -> None:
        try:
            for piece in self._reader.feed(data):
                if isinstance(piece, Entry):
                    self._entry(piece)
                elif self._file is not None:
                    self._file.write(piece)
                    self.done.content_bytes += len(piece)
        except DamagedArchive as error:
            raise ArchiveDamaged(str(error)) from error

    def finish(self, omissions: v1.Omissions | None = None) -> Downloaded:
        """All has come, but for `omissions`."""
        with self._lock:
            if omissions is not None:
                self.done.omissions = omissions
            return self._finish()

    def _finish(self) -> Downloaded:
        self._publish()
        # The deepest first: what is set in a directory does not change those above it, and needs the way to it.
        for path, mode, mtime_ns, attributes in reversed(self._made):
            with self._failing(path):
                handle = self._open_directory(path.split(b"/"))
                try:
                    _set_attributes(handle, attributes)
                    os.utime(handle, ns=(mtime_ns, mtime_ns))
                    os.fchmod(handle, mode)
                finally:
                    os.close(handle)
        return self.done

    def close(self) -> None:
        """Lets go; a file that is not whole goes."""
        with self._lock:
            if self._file is not None:
                self._file.discard()
                self._file = None
            if self._root >= 0:
                os.close(self._root)
                self._root = -1

    def _failing(self, path: bytes) -> _Failing:
        return _Failing(os.fsdecode(os.path.join(os.fsencode(self._directory), path)))

    def _path(self, entry: Entry) -> list[bytes] | None:
        """The names on the way to an entry; None for the directory itself."""
        path = entry.path.removesuffix(b"/")
        if path.startswith(b"/"):
            raise UnsafeDownload(shown(entry.path), "has an absolute name")
        names = [name for name in path.split(b"/") if name not in (b"", b".")]
        if b".." in names:
            raise UnsafeDownload(shown(entry.path), "leads out of the target")
        if self._top:
            if not names or names[0] != self._top:
                raise UnsafeDownload(shown(entry.path), "is not beneath what was asked for")
            names = [self._becomes or self._top, *names[1:]]
        return names or None

    def _open_directory(self, names: list[bytes]) -> int:
        """The directory at these names; no link is followed."""
        handle = os.dup(self._root)
        try:
            for name in names:
                below = os.open(name, _DIRECTORY, dir_fd=handle)
                os.close(handle)
                handle = below
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _parent(self, names: list[bytes], entry: Entry) -> int:
        try:
            return self._open_directory(names[:-1])
        except OSError as error:
            if error.errno in _BEHIND_LINK:
                raise UnsafeDownload(shown(entry.path), "lies behind a link or a file") from error
            if error.errno == errno.ENOENT:
                raise UnsafeDownload(shown(entry.path), "lies in a directory that did not come") from error
            raise LocalFileError(shown(entry.path), "open", error) from error

    def _entry(self, entry: Entry) -> None:
        self._publish()
        self._seen_entries += 1
        self._seen_bytes += entry.size
        if self._seen_entries > self._max_entries:
            raise UnsafeDownload(shown(entry.path), "is one more than may come (max_entries)")
        if self._seen_bytes > self._max_bytes:
            raise UnsafeDownload(shown(entry.path), "is larger than may come (max_bytes)")
        names = self._path(entry)
        if names is None:
            if entry.kind != "directory":
                raise UnsafeDownload(shown(entry.path), "is no directory")
            return
        if entry.kind == "other":
            self.done.skipped += 1
            if len(self.done.skipped_names) < _TOLD_MAX:
                self.done.skipped_names.append(shown(entry.path))
            return
        parent = self._parent(names, entry)
        try:
            with self._failing(b"/".join(names)):
                self._make(parent, names, entry)
        except BaseException:
            if self._file is None or self._file.parent != parent:
                os.close(parent)
            raise
        if self._file is None:
            os.close(parent)
        self.done.entries += 1

    def _make(self, parent: int, names: list[bytes], entry: Entry) -> None:
        name = names[-1]
        mtime_ns = max(-_TIME_MAX_NS, min(entry.mtime_ns, _TIME_MAX_NS))
        if entry.kind == "directory":
            self._directory_entry(parent, names, entry, mtime_ns)
            return
        _refuse_directory(parent, name)
        if entry.kind == "file":
            self._file = _File(parent, name, entry, mtime_ns)
            return
        temporary = _temporary()
        if entry.kind == "symlink":
            if not entry.link:
                raise UnsafeDownload(shown(entry.path), "leads nowhere")
            os.symlink(entry.link, temporary, dir_fd=parent)
        else:
            self._hard_link(parent, temporary, entry)
        try:
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        finally:
            # Of two names of one file, rename(2) does nothing and leaves both.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)

    def _directory_entry(self, parent: int, names: list[bytes], entry: Entry, mtime_ns: int) -> None:
        mode = entry.mode & 0o777
        try:
            os.mkdir(names[-1], mode | stat.S_IRWXU, dir_fd=parent)
        except FileExistsError:
            found = os.stat(names[-1], dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                raise
            return  # one that is there stays as it is
        self._made.append((b"/".join(names), mode, mtime_ns, entry.attributes))

    def _hard_link(self, parent: int, temporary: str, entry: Entry) -> None:
        names = self._path(Entry(entry.link, "hard link", 0, 0, 0))
        if names is None:
            raise UnsafeDownload(shown(entry.path), "is a link to a directory")
        source = self._parent(names, entry)
        try:
            # By the file itself, so that nobody changes the name in between.
            handle = os.open(names[-1], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
            try:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise UnsafeDownload(shown(entry.path), "is a link to what is no file")
                os.link(f"/proc/self/fd/{handle}", temporary, dst_dir_fd=parent, follow_symlinks=True)
            finally:
                os.close(handle)
        finally:
            os.close(source)

    def _publish(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with self._failing(file.name):
                file.publish()


class _File:
    """A file that goes again unless it gets its name."""

    def __init__(self, parent: int, name: bytes, entry: Entry, mtime_ns: int) -> None:
        self.parent = parent
        self.name = name
        self._entry = entry
        self._mtime_ns = mtime_ns
        self._temporary = _temporary()
        self._handle = os.open(self._temporary, _NEW_FILE, 0o600, dir_fd=parent)
        self._ranges = list(reversed(entry.ranges))
        self._at = 0
        self._left = 0

    def write(self, data: bytes) -> None:
        """The next bytes of its content, which go where its ranges say."""
        rest = memoryview(data)
        while rest:
            if not self._left:
                self._at, self._left = self._ranges.pop()
            wrote = os.pwrite(self._handle, rest[: self._left], self._at)
            self._at += wrote
            self._left -= wrote
            rest = rest[wrote:]

    def publish(self) -> None:
        """It is whole: it gets its name."""
        try:
            if self._left or any(length for _, length in self._ranges):
                raise UnsafeDownload(shown(self._entry.path), "is cut short")
            os.ftruncate(self._handle, self._entry.size)
            _set_attributes(self._handle, self._entry.attributes)
            os.fchmod(self._handle, self._entry.mode & 0o777)
            os.utime(self._handle, ns=(self._mtime_ns, self._mtime_ns))
            os.rename(self._temporary, self.name, src_dir_fd=self.parent, dst_dir_fd=self.parent)
        except BaseException:
            self.discard()
            raise
        os.close(self._handle)
        os.close(self.parent)

    def discard(self) -> None:
        """It goes."""
        with contextlib.suppress(OSError):
            os.unlink(self._temporary, dir_fd=self.parent)
        os.close(self._handle)
        os.close(self.parent)


class _Failing:
    """Says which file could not be written."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, BangerError):
            raise LocalFileError(self._path, "write", error) from error


def _refuse_directory(parent: int, name: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def _set_attributes(handle: int, attributes: dict[bytes, bytes]) -> None:
    for name, value in attributes.items():
        if name.startswith(_ATTRIBUTES_KEPT) and not name.startswith(_ATTRIBUTES_DROPPED) and b"\0" not in name:
            # A file system that takes none, or not as many, keeps the file without.
            with contextlib.suppress(OSError):
                os.setxattr(handle, name, value)


def _temporary() -> str:
    return f".banger-{uuid.uuid4().hex}.part"
