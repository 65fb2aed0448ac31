"""What git-fast-import(1) is told: blobs, and commits that differ from others in some paths."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

# Who is said to have made the states that banger makes commits of.
_WHO = b"banger <banger@localhost>"


@dataclass(frozen=True)
class Change:
    """What is at a path of a tree: nothing, or an object with git's mode and its id, or `:mark`."""

    path: bytes
    mode: int = 0
    object: str = ""


class Script:
    """Writes a script."""

    def __init__(self, to: BinaryIO, time: int) -> None:
        """One whose commits have a time, in seconds since 1970."""
        self._to = to
        self._time = time

    def file(self, mark: int, content: bytes) -> None:
        """A blob of a file's content."""
        with open(content, "rb") as file:
            self.content(mark, os.fstat(file.fileno()).st_size, file)

    def content(self, mark: int, size: int, content: BinaryIO) -> bytes:
        """A blob of so many bytes of a file; its SHA-256."""
        digest = hashlib.sha256()
        self._to.write(b"blob\nmark :%d\ndata %d\n" % (mark, size))
        while size > 0 and (piece := content.read(min(size, 1 << 20))):
            self._to.write(piece)
            digest.update(piece)
            size -= len(piece)
        if size:
            raise OSError("a file has changed while it was read")
        self._to.write(b"\n")
        return digest.digest()

    def blob(self, mark: int, content: bytes) -> None:
        """A blob of these bytes."""
        self._to.write(b"blob\nmark :%d\ndata %d\n" % (mark, len(content)))
        self._to.write(content + b"\n")

    def commit(self, name: str, mark: int, message: str, parents: Sequence[str], changes: Sequence[Change]) -> None:
        """A commit, and the reference it gets. The first parent has the tree that changes."""
        ref, words = name.encode(), message.encode()
        self._to.write(b"reset %s\ncommit %s\nmark :%d\n" % (ref, ref, mark))
        self._to.write(b"committer %s %d +0000\ndata %d\n%s\n" % (_WHO, self._time, len(words), words))
        for number, parent in enumerate(parents):
            self._to.write(b"%s %s\n" % (b"merge" if number else b"from", parent.encode()))
        # Removals come first: a file may take the place of a directory, and the other way round.
        for change in changes:
            if not change.mode:
                self._to.write(b"D " + _quoted(change.path))
        for change in changes:
            if change.mode:
                self._to.write(b"M %o %s %s" % (change.mode, change.object.encode(), _quoted(change.path)))
        self._to.write(b"\n")

    def end(self) -> None:
        """Nothing follows."""
        self._to.write(b"done\n")
        self._to.flush()


def _quoted(path: bytes) -> bytes:
    """A path between quotes: any bytes but those that would end it."""
    escaped = path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"\n'
