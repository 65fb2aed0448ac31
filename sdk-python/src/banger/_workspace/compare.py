"""Which files of a working tree are not what the index says, byte for byte.

git takes a file for unchanged that has what it would make of the object: other line ends, an expanded `$Id$`. The
receiver must have the same bytes, and its git makes its own of an object, so such a file is told too. Whatever a filter
program makes is not: the receiver has no such program, and gets what the repository has.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import IO, BinaryIO

from banger._workspace.failure import doing
from banger._workspace.git import fields, lines
from banger._workspace.repository import LocalRepository
from banger._workspace.walk import Found, FoundKind

_WHAT = "compare the working tree with the index"
_PIECE_BYTES = 256 << 10
# Attributes that make a file differ from its object.
_ATTRIBUTES = ("filter", "text", "eol", "ident", "working-tree-encoding")
_LEAVES = (FoundKind.FILE, FoundKind.SYMLINK)


@dataclass(frozen=True)
class Indexed:
    """An entry of the index."""

    mode: int
    id: str


@dataclass
class Index:
    """The entries of an index, and those of its conflicts."""

    entries: dict[bytes, Indexed] = field(default_factory=dict)
    conflicts: list[tuple[bytes, int, Indexed]] = field(default_factory=list)
    """Path, stage, entry."""

    @classmethod
    def read(cls, repository: LocalRepository) -> Index:
        """As git tells it."""
        index = cls()
        with doing("read the index"):
            answer = repository.git.run("ls-files", "--stage", "-z")
        for line in fields(answer):
            words, _, path = line.partition(b"\t")
            mode, name, stage = words.decode().split(" ")
            entry = Indexed(int(mode, 8), name)
            if stage == "0":
                index.entries[path] = entry
            else:
                index.conflicts.append((path, int(stage), entry))
        return index


@dataclass
class Changed:
    """What of a working tree is not the index's."""

    numbers: set[int] = field(default_factory=set)
    """Among what was found."""
    missing: list[bytes] = field(default_factory=list)
    """Tracked files that are not there."""


def changed(repository: LocalRepository, index: Index, found: list[Found]) -> Changed:
    """What among `found` is tracked and not what the index says, and what is tracked and not there."""
    with doing(_WHAT):
        words = ("-z", "--name-only", "--ignore-submodules=all", "--no-renames")
        # Paths that git takes for changed, or has not looked at since they were touched.
        by_git = set(fields(repository.git.run("diff-files", *words)))
        converted = _Converted.of(repository, index)
        conflicts = {path for path, _, _ in index.conflicts}
        there = {one.path for one in found if one.kind is not FoundKind.REPOSITORY}
        candidates = []
        result = Changed()
        for number, one in enumerate(found):
            if one.path in conflicts:
                result.numbers.add(number)
            if one.path in converted.on_the_way_out and one.kind is FoundKind.FILE:
                result.numbers.add(number)
                continue
            entry = index.entries.get(one.path)
            is_asked = one.path in by_git or one.path in converted.on_the_way_in
            if entry is not None and is_asked and one.kind in _LEAVES:
                candidates.append((number, entry))
        result.missing = [path for path in by_git if (path in index.entries or path in conflicts) and path not in there]
        result.numbers.update(_differing(repository, found, candidates))
        return result


@dataclass
class _Converted:
    """What git makes of objects when it writes files, filters left out."""

    on_the_way_out: set[bytes] = field(default_factory=set)
    """Files that it would write other than their objects are."""
    on_the_way_in: set[bytes] = field(default_factory=set)
    """Files that it takes for their objects though they may be other."""

    @classmethod
    def of(cls, repository: LocalRepository, index: Index) -> _Converted:
        automatic = (repository.setting("core.autocrlf") or "").lower()
        is_true = automatic in ("true", "yes", "on", "1")
        is_dos = is_true or (automatic != "input" and (repository.setting("core.eol") or "").lower() == "crlf")
        is_automatic = is_true or automatic == "input"
        converted = cls()
        has_attributes = os.path.exists(os.path.join(repository.common_dir, b"info/attributes")) or any(
            path.endswith(b".gitattributes") for path in index.entries
        )
        if not is_automatic and not has_attributes:
            return converted

        def feed(to: BinaryIO) -> None:
            for path in index.entries:
                to.write(path + b"\0")

        answer = repository.git.run("check-attr", "-z", "--stdin", *_ATTRIBUTES, feed=feed)
        told = answer.split(b"\0")[:-1]
        # Path, attribute and value, for each attribute of each path.
        width = 3 * len(_ATTRIBUTES)
        for at in range(0, len(told) - width + 1, width):
            converted._add(told[at], told[at + 2 : at + width : 3], is_automatic, is_dos)
        return converted

    def _add(self, path: bytes, values: list[bytes], is_automatic: bool, dos_by_setting: bool) -> None:
        none = (b"unspecified", b"unset")
        filtered, text, eol, ident, encoding = values
        if filtered not in none:
            return
        is_text = text != b"unset"
        if text == b"unspecified":
            is_text = is_automatic or eol not in none
        is_dos = {b"crlf": True, b"lf": False}.get(eol, dos_by_setting)
        if (is_text and is_dos) or ident not in none or encoding not in none:
            self.on_the_way_out.add(path)
        elif is_text:
            self.on_the_way_in.add(path)


def _differing(repository: LocalRepository, found: list[Found], candidates: list[tuple[int, Indexed]]) -> list[int]:
    """The candidates whose content or kind is not the index's."""
    differing = [number for number, entry in candidates if not _has_mode(found[number], entry.mode)]
    alike = [one for one in candidates if _has_mode(found[one[0]], one[1].mode)]
    if not alike:
        return differing
    feed = lines(entry.id for _, entry in alike)
    sizes = repository.git.run("cat-file", "--buffer", "--batch-check=%(objectsize)", feed=feed).decode().splitlines()
    same = []
    for (number, entry), size in zip(alike, sizes, strict=False):
        if size == str(found[number].size):
            same.append((number, entry))
        else:
            differing.append(number)
    feed = lines(entry.id for _, entry in same)
    with repository.git.pipe("cat-file", "--buffer", "--batch=%(objectsize)", feed=feed) as output:
        for number, _ in same:
            left = int(output.readline())
            file = os.path.join(repository.top, found[number].path)
            if not _is_same(file, found[number].kind, output, left):
                differing.append(number)
            output.read(1)
    return differing


def _has_mode(found: Found, mode: int) -> bool:
    """Whether the file is of the index's kind, and executable as there."""
    if found.kind is FoundKind.SYMLINK:
        return mode == 0o120_000
    return found.kind is FoundKind.FILE and mode == (0o100_755 if found.mode & 0o100 else 0o100_644)


def _is_same(file: bytes, kind: FoundKind, content: IO[bytes], size: int) -> bool:
    """Whether a file has the next `size` bytes of `content`, which are read in any case."""
    if kind is FoundKind.SYMLINK:
        target = content.read(size)
        try:
            return os.readlink(file) == target
        except OSError:
            return False
    # What cannot be read is told as unreadable later.
    try:
        here: BinaryIO | None = open(file, "rb", buffering=0)  # noqa: SIM115
    except OSError:
        here = None
    same = here is not None
    try:
        while size:
            one = content.read(min(size, _PIECE_BYTES))
            if not one:
                raise OSError("git's answer was cut short")
            size -= len(one)
            if same and here is not None:
                same = _exactly(here, len(one)) == one
        return same and here is not None and not here.read(1)
    finally:
        if here is not None:
            here.close()


def _exactly(file: BinaryIO, length: int) -> bytes:
    data = bytearray()
    while len(data) < length and (piece := file.read(length - len(data))):
        data += piece
    return bytes(data)
