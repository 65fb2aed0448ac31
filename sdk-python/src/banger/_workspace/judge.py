"""Looks at every part of a snapshot before it is used, as in `workspace/src/wire/judge.rs`.

    ┌─► repository ─► refs* ─► index* ─► pack* ─► entries* ─┐
    └───────────────────────────────────────────────────────┴─► manifest end ─► (content | note)* ─► end

Names ascend, so that nothing is told twice. Of the entries only the sizes of files are kept.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

from banger._workspace import limits, names
from banger._workspace.limits import SETTINGS
from banger._workspace.names import BadName, shown
from banger.workspace import v1 as wire

_SHA256_BYTES = 32
_MODES = (0o100_644, 0o100_755, 0o120_000, limits.GITLINK)


class Fault(ValueError):
    """What is wrong with a snapshot: nothing of it may be used."""


class Cut(Fault):
    """The stream ended before the snapshot did."""

    def __init__(self) -> None:
        super().__init__("the snapshot was cut")


class _Phase(enum.IntEnum):
    START = 0
    REPOSITORY = 1
    REFS = 2
    INDEX = 3
    PACK = 4
    PACK_ENDED = 5
    ENTRIES = 6
    CONTENTS = 7
    ENDED = 8


def _at_most(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise Fault(f"there are more than {limit} {what}")


def _not_allowed(what: str) -> Fault:
    return Fault(f"{what} is not allowed here")


def _name(name: bytes) -> None:
    try:
        names.check(name)
    except BadName as error:
        raise Fault(f"{error} (`{shown(name)}`)") from None


def _reference(name: bytes) -> None:
    try:
        names.check_ref(name)
    except BadName as error:
        raise Fault(f"{error} (`{shown(name)}`)") from None


def _unfinished(things: Any, digits: int) -> None:
    _at_most("unfinished things", len(things), limits.UNFINISHED_MAX)
    for thing in things:
        _at_most("commits of something unfinished", len(thing.commits), limits.UNFINISHED_COMMITS_MAX)
        known = wire.Unfinished.KIND_MERGE <= thing.kind <= wire.Unfinished.KIND_BISECT
        if not known or not all(names.is_object_id(commit) and len(commit) == digits for commit in thing.commits):
            raise Fault("something unfinished is of no kind or of no commit")


def _note(note: wire.Note) -> None:
    known = note.kind in wire.Note.Kind.values() and note.kind != wire.Note.KIND_UNSPECIFIED
    fits = len(note.path) <= limits.PATH_MAX_BYTES and len(note.detail.encode()) <= limits.NOTE_MAX_BYTES
    if not known or not fits:
        raise Fault("a note says nothing, or too much")


class Judge:
    """Judges one snapshot, part by part."""

    def __init__(self, bytes_max: int = limits.SNAPSHOT_MAX_BYTES) -> None:
        """One that may have so many bytes of packs and contents."""
        self._phase = _Phase.START
        self._bytes_max = min(bytes_max, limits.SNAPSHOT_MAX_BYTES)
        self._repositories = 0
        self._repository = b""
        self._is_plain = True
        self._digits = 40
        self._refs = 0
        self._last_ref: tuple[int, bytes] | None = None
        self._index_entries = 0
        self._last_index: tuple[bytes, int] | None = None
        self._last_entry: bytes | None = None
        # Sizes of files; None for other entries.
        self._entries: list[int | None] = []
        self._names_bytes = 0
        self._notes = 0
        self._bytes = 0
        # The entry whose content comes, and how many bytes of it came.
        self._content: tuple[int, int] | None = None
        self._next_content = 0

    def part(self, part: wire.Part) -> None:
        """Judges the next part.

        Raises:
            Fault: What is wrong with it.
        """
        which = part.WhichOneof("part")
        if which is None:
            raise Fault("a part is empty")
        getattr(self, f"_on_{which}")(getattr(part, which))

    def end(self) -> None:
        """Judges the end of the stream.

        Raises:
            Cut: If the snapshot was cut.
        """
        if self._phase is not _Phase.ENDED:
            raise Cut

    def _on_manifest_end(self, end: wire.ManifestEnd) -> None:
        self._close_repository()
        if end.entry_count != len(self._entries):
            raise Fault("the count of the entries is not theirs")
        self._phase = _Phase.CONTENTS

    def _on_note(self, note: wire.Note) -> None:
        if self._phase is not _Phase.CONTENTS:
            raise _not_allowed("a note")
        self._notes += 1
        _at_most("notes", self._notes, limits.NOTES_MAX)
        _note(note)

    def _on_end(self, end: wire.End) -> None:
        if self._phase is not _Phase.CONTENTS or self._content is not None:
            raise _not_allowed("the end")
        self._phase = _Phase.ENDED
        if len(end.state) not in (0, _SHA256_BYTES):
            raise Fault("a state is no digest")

    def _on_repository(self, repository: wire.Repository) -> None:
        is_first = self._phase is _Phase.START
        if not is_first:
            self._close_repository()
        path = repository.path
        if is_first != (not path):
            raise _not_allowed("a repository")
        if not is_first:
            self._count(path)
            _name(path)
            if path <= self._repository:
                raise _not_allowed("a repository")
        self._repositories += 1
        _at_most("repositories", self._repositories, limits.REPOSITORIES_MAX)
        if repository.kind not in (wire.Repository.KIND_GIT, wire.Repository.KIND_PLAIN):
            raise Fault("a repository has no kind")
        self._is_plain = repository.kind == wire.Repository.KIND_PLAIN
        self._digits = 64 if repository.object_format == wire.Repository.OBJECT_FORMAT_SHA256 else 40
        self._check_repository(repository)
        self._repository = path
        self._last_ref = self._last_index = self._last_entry = None
        self._phase = _Phase.REPOSITORY

    def _check_repository(self, repository: wire.Repository) -> None:
        has_git = repository.head_ref or repository.head_commit or repository.shallow or repository.unfinished
        if self._is_plain and (has_git or self._repositories > 1):
            raise Fault("a directory has what only a repository has")
        if not self._is_plain and not repository.head_ref and not repository.head_commit:
            raise Fault("a repository has no HEAD")
        if repository.head_ref:
            _reference(repository.head_ref)
        if repository.head_commit:
            self._id(repository.head_commit)
        _at_most("shallow commits", len(repository.shallow), limits.SHALLOW_MAX)
        for commit in repository.shallow:
            self._id(commit)
        _unfinished(repository.unfinished, self._digits)
        for name, value in repository.settings.items():
            if value not in SETTINGS.get(name, ()):
                raise Fault("a setting is none that a repository may bring")

    def _close_repository(self) -> None:
        if self._phase in (_Phase.START, _Phase.CONTENTS, _Phase.ENDED):
            raise _not_allowed("this part")
        if self._phase is _Phase.PACK:
            raise _not_allowed("anything but the rest of the pack")

    def _enter(self, phase: _Phase, what: str) -> None:
        """Parts of a repository come in the order of the phases."""
        is_late = self._phase is _Phase.START or self._phase > phase
        cuts_pack = self._phase is _Phase.PACK and phase is not _Phase.PACK
        if is_late or cuts_pack or (phase is not _Phase.ENTRIES and self._is_plain):
            raise _not_allowed(what)
        self._phase = phase

    def _on_refs(self, refs: wire.Refs) -> None:
        self._enter(_Phase.REFS, "references")
        self._refs += len(refs.refs)
        _at_most("references", self._refs, limits.REFS_MAX)
        for found in refs.refs:
            self._count(found.name)
            self._id(found.object_id)
            if found.kind == wire.Ref.KIND_REF:
                _reference(found.name)
            elif found.kind == wire.Ref.KIND_STASH and names.stash_number(found.name) is not None:
                pass
            elif found.kind != wire.Ref.KIND_LOST or found.name != found.object_id.encode():
                raise Fault("a reference's name is not of its kind")
            if found.symbolic_target:
                _reference(found.symbolic_target)
            key = (found.kind, found.name)
            # Entries of the stash come as they are numbered, and 10 comes after 9.
            numbered = self._last_ref is not None and self._last_ref[0] == found.kind == wire.Ref.KIND_STASH
            if not numbered and self._last_ref is not None and self._last_ref >= key:
                raise _not_allowed("a reference")
            self._last_ref = key

    def _on_index(self, index: wire.IndexEntries) -> None:
        self._enter(_Phase.INDEX, "an index")
        self._index_entries += len(index.entries)
        _at_most("index entries", self._index_entries, limits.INDEX_ENTRIES_MAX)
        for entry in index.entries:
            self._count(entry.path)
            _name(entry.path)
            if entry.mode in _MODES and entry.stage <= 3:
                self._id(entry.object_id)
            elif entry.mode or entry.stage or entry.object_id:
                raise Fault("an index entry has no such mode and stage")
            key = (entry.path, entry.stage)
            if self._last_index is not None and self._last_index >= key:
                raise _not_allowed("an index entry")
            self._last_index = key

    def _on_pack(self, pack: wire.PackData) -> None:
        if self._phase is _Phase.PACK_ENDED:
            raise _not_allowed("a second pack")
        self._enter(_Phase.PACK, "a pack")
        self._data(len(pack.data))
        if pack.is_last:
            self._phase = _Phase.PACK_ENDED

    def _on_entries(self, entries: wire.Entries) -> None:
        self._enter(_Phase.ENTRIES, "entries")
        _at_most("entries", len(self._entries) + len(entries.entries), limits.ENTRIES_MAX)
        for entry in entries.entries:
            self._count(entry.path)
            _name(entry.path)
            if not names.is_beneath(entry.path, self._repository):
                raise Fault("an entry lies outside of its repository")
            if self._last_entry is not None and self._last_entry >= entry.path:
                raise _not_allowed("an entry")
            self._last_entry = entry.path
            self._entries.append(self._entry(entry))

    def _entry(self, entry: wire.Entry) -> int | None:
        is_file = entry.kind == wire.Entry.KIND_FILE
        is_link = entry.kind == wire.Entry.KIND_SYMLINK
        known = wire.Entry.KIND_FILE <= entry.kind <= wire.Entry.KIND_REMOVED
        digest = len(entry.sha256)
        fits = (is_file or entry.size == 0) and (digest == 0 or (is_file and digest == _SHA256_BYTES))
        if entry.size < 0:
            raise Fault("a size is negative")
        if not known or not fits or entry.mode > 0o777:
            raise Fault("an entry is not as its kind is")
        target = entry.link_target
        if is_link != bool(target) or len(target) > limits.PATH_MAX_BYTES or b"\0" in target:
            raise Fault("a link's target is none")
        self._count(target)
        _at_most("bytes", entry.size, self._bytes_max)
        return entry.size if is_file else None

    def _on_content(self, content: wire.Content) -> None:
        number = content.entry
        if self._phase is not _Phase.CONTENTS:
            raise _not_allowed("content")
        # Sizes are those of the bytes as they are.
        if content.encoding:
            raise Fault("content is encoded where it must not be")
        if self._content is not None and self._content[0] == number:
            came = self._content[1]
        elif self._content is None and number >= self._next_content:
            came = 0
        else:
            raise _not_allowed("content")
        size = self._entries[number] if number < len(self._entries) else None
        if size is None:
            raise Fault("content is of no file")
        came += len(content.data)
        if came > size:
            raise Fault("a file is longer than its entry says")
        self._data(len(content.data))
        if not content.is_last:
            self._content = (number, came)
            return
        if len(content.sha256) != _SHA256_BYTES:
            raise Fault("content has no digest")
        self._content = None
        self._next_content = number + 1

    def _data(self, length: int) -> None:
        _at_most("bytes in a piece", length, limits.DATA_MAX_BYTES)
        self._bytes += length
        _at_most("bytes", self._bytes, self._bytes_max)

    def _id(self, text: str) -> None:
        if not names.is_object_id(text) or len(text) != self._digits:
            raise Fault("an object's id is none")

    def _count(self, name: bytes) -> None:
        self._names_bytes += len(name)
        _at_most("bytes of names", self._names_bytes, limits.NAMES_MAX_BYTES)


def _place(name: bytes) -> None:
    if name:
        _name(name)


def _ids(ids: Iterable[str]) -> None:
    if not all(names.is_object_id(text) for text in ids):
        raise Fault("an object's id is none")


def check_known(known: wire.Known, before: int) -> int:
    """Judges what a receiver says that it has already, of which `before` commits were told before; how many now.

    Raises:
        Fault: What is wrong with it.
    """
    count = before
    _at_most("repositories", len(known.repositories), limits.REPOSITORIES_MAX)
    for repository in known.repositories:
        _place(repository.path)
        count += len(repository.commits)
        _at_most("known commits", count, limits.KNOWN_COMMITS_MAX)
        _ids(repository.commits)
    return count


def check_base(base: wire.Base) -> None:
    """Judges where a history is to begin.

    Raises:
        Fault: What is wrong with it.
    """
    _at_most("repositories", len(base.repositories), limits.REPOSITORIES_MAX)
    count = 0
    for repository in base.repositories:
        _place(repository.path)
        count += len(repository.commits)
        _at_most("known commits", count, limits.KNOWN_COMMITS_MAX)
        _ids(repository.commits)
        if repository.head_commit:
            _ids([repository.head_commit])
        _at_most("shallow commits", len(repository.shallow), limits.SHALLOW_MAX)
        _ids(repository.shallow)


def check_notes(notes: Any) -> None:
    """Judges notes.

    Raises:
        Fault: What is wrong with one.
    """
    _at_most("notes", len(notes), limits.NOTES_MAX)
    for note in notes:
        _note(note)


def check_status(status: wire.Status) -> None:
    """Judges what is said of a workspace.

    Raises:
        Fault: What is wrong with it.
    """
    _at_most("repositories", len(status.repositories), limits.REPOSITORIES_MAX)
    check_notes(status.notes)
    for repository in status.repositories:
        _place(repository.path)
        if repository.head_ref:
            _reference(repository.head_ref)
        if repository.head_commit:
            _ids([repository.head_commit])
        _unfinished(repository.unfinished, len(repository.head_commit) or 40)
        _at_most("changed paths", len(repository.changed_paths), limits.STATUS_PATHS_MAX)
        for name in repository.changed_paths:
            _name(name)
        counts = [value for field, value in repository.ListFields() if field.name.endswith(("_count", "_bytes"))]
        if any(count < 0 for count in counts):
            raise Fault("a count is negative")
