"""What is in a working tree, ignored things left out."""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from banger._glob import expression
from banger._workspace import limits, names
from banger._workspace.failure import bad_pattern
from banger._workspace.names import BadName, join, shown
from banger.workspace import v1 as wire

_MODE_KEPT = 0o777


class FoundKind(enum.Enum):
    """What something in a tree is."""

    FILE = 0
    SYMLINK = 1
    EMPTY_DIRECTORY = 2
    REPOSITORY = 3


@dataclass
class Found:
    """Something in a tree."""

    path: bytes
    """Beneath the repository."""
    kind: FoundKind
    mode: int
    size: int


class _Ignored(enum.Enum):
    NO = 0
    YES = 1
    # It is, but a pattern wants it, with all that is beneath.
    INCLUDED = 2


Include = Callable[[bytes], bool]


def includes(patterns: Iterable[str]) -> Include | None:
    """Whether a path fits one of these patterns: `*` stops at slashes, `**` does not. None where there are none."""
    found = []
    for pattern in patterns:
        trimmed = pattern.rstrip("/").removeprefix("./")
        try:
            found.append(expression(trimmed))
        except ValueError:
            raise bad_pattern(pattern) from None
    if not found:
        return None
    return lambda path: any(one.fullmatch(os.fsdecode(path)) for one in found)


def note(kind: wire.Note.Kind, path: bytes, detail: str, is_loss: bool) -> wire.Note:
    """A note, its words within their bound."""
    words = shown(detail.encode(errors="replace")).encode()[: limits.NOTE_MAX_BYTES].decode(errors="ignore")
    return wire.Note(kind=kind, path=path, detail=words, is_loss=is_loss)


@dataclass
class Walk:
    """Walks one working tree."""

    top: bytes
    prefix: bytes
    """The repository beneath the workspace, for notes and patterns."""
    ignored: set[bytes]
    """Ignored files and directories."""
    include: Include | None
    """Which of those are told all the same."""
    is_git: bool
    """It is a repository's, and others may lie in it."""
    found: list[Found] = field(default_factory=list)
    """In the order of the paths' bytes."""
    notes: list[wire.Note] = field(default_factory=list)

    def run(self) -> Walk:
        """Walks it."""
        self._directory(b"", _Ignored.NO, 0)
        self.found.sort(key=lambda one: one.path)
        return self

    def _directory(self, inside: bytes, ignored: _Ignored, depth: int) -> bool:
        """Whether anything in it was told."""
        try:
            entries = os.listdir(os.path.join(self.top, inside))
        except OSError as error:
            self._unreadable(inside, error)
            return True
        told = False
        for name in entries:
            told |= self._one(join(inside, name), name, ignored, depth)
        return told

    def _one(self, at: bytes, name: bytes, above: _Ignored, depth: int) -> bool:
        if self.is_git and name == b".git":
            return False
        try:
            status = os.lstat(os.path.join(self.top, at))
        except FileNotFoundError:
            return False  # it was removed meanwhile
        except OSError as error:
            self._unreadable(at, error)
            return True
        ignored = self._is_ignored(at, above)
        is_directory = stat.S_ISDIR(status.st_mode)
        if ignored is _Ignored.YES and (not is_directory or self.include is None):
            return False
        try:
            names.check(at)
            is_bad = depth >= limits.DEPTH_MAX
        except BadName:
            is_bad = True
        if is_bad:
            detail = "the name is one of git's own, or too long or too deep"
            self._note(wire.Note.KIND_BAD_NAME, at, detail, True)
            return True
        return self._beneath(at, status, ignored, depth) if is_directory else self._leaf(at, status)

    def _is_ignored(self, at: bytes, above: _Ignored) -> _Ignored:
        if above is _Ignored.INCLUDED or (above is _Ignored.NO and at not in self.ignored):
            return above
        wanted = self.include is not None and self.include(join(self.prefix, at))
        return _Ignored.INCLUDED if wanted else _Ignored.YES

    def _beneath(self, at: bytes, status: os.stat_result, ignored: _Ignored, depth: int) -> bool:
        if self.is_git and ignored is not _Ignored.YES and os.path.lexists(os.path.join(self.top, at, b".git")):
            self._tell(at, FoundKind.REPOSITORY, status)
            return True
        told = self._directory(at, ignored, depth + 1)
        if told or ignored is _Ignored.YES:
            return told
        self._tell(at, FoundKind.EMPTY_DIRECTORY, status)
        return True

    def _leaf(self, at: bytes, status: os.stat_result) -> bool:
        if stat.S_ISREG(status.st_mode):
            self._tell(at, FoundKind.FILE, status)
        elif stat.S_ISLNK(status.st_mode):
            self._tell(at, FoundKind.SYMLINK, status)
        else:
            self._note(wire.Note.KIND_SPECIAL_FILE, at, "a socket, pipe or device", False)
        return True

    def _tell(self, at: bytes, kind: FoundKind, status: os.stat_result) -> None:
        self.found.append(Found(at, kind, status.st_mode & _MODE_KEPT, status.st_size))

    def _unreadable(self, at: bytes, error: OSError) -> None:
        self._note(wire.Note.KIND_UNREADABLE, at, error.strerror or str(error), True)

    def _note(self, kind: wire.Note.Kind, at: bytes, detail: str, is_loss: bool) -> None:
        self.notes.append(note(kind, join(self.prefix, at), detail, is_loss))
