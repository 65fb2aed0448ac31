"""Makes commits of what was not committed, and checks that all that came hangs together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from banger._workspace.carried import landed
from banger._workspace.deepen import deepened
from banger._workspace.failure import doing, refused, unsafe
from banger._workspace.git import GitError, fields, lines
from banger._workspace.limits import GITLINK
from banger._workspace.names import is_beneath, stash_number
from banger._workspace.quarantine import Coming, Contents, strict
from banger._workspace.script import Change, Script
from banger.workspace import v1 as wire

_WHAT = "make commits of what was not committed"
# Marks of commits and of what is kept about them lie above those of files.
_STATES = 10_000_000
_INDEX, _UNTRACKED, _WORKTREE, _TREE, _CONFLICTS, _LANDING = range(_STATES, _STATES + 6)
# Blobs of what is kept about the states.
_FIELDS = _STATES + 100
_NAMED = {
    _INDEX: "state/index",
    _WORKTREE: "state/worktree",
    _TREE: "state/tree",
    _CONFLICTS: "state/conflicts",
    _LANDING: "state/landing",
}
_USUAL = (b"heads/", b"tags/", b"remotes/", b"notes/")


@dataclass
class Built:
    """What a repository becomes."""

    refs: list[tuple[str, str]]
    """Names beneath the VM's prefix, with what they lead to."""
    deepened: set[str] = field(default_factory=set)
    """Commits at which its history is cut no more."""
    new_commits: int = 0
    staged: int = 0
    changed: int = 0
    untracked: int = 0
    conflicted: int = 0


@dataclass(frozen=True)
class Around:
    """What is known of all of the workspace."""

    inside: Sequence[bytes]
    """The places of repositories inside."""
    state: bytes
    """The digest of all its state."""
    notes: Sequence[wire.Note]
    """What the VM said."""
    notes_left_out: int
    """Notes that were left out because there were too many."""
    carried: bytes | None
    """What is remembered of the directory as it was carried."""
    is_directory: bool
    """It is a directory without git here."""


def build(coming: Coming, contents: Contents, base_head: str, around: Around) -> Built:
    """Checks what came for a repository, and makes commits of its states. `base_head` is the commit that it was
    prepared at, or empty.
    """
    built = Built(_named(coming))
    _check_objects(coming)
    built.deepened = deepened(coming)
    built.new_commits = _connect(coming, built.refs)
    if coming.message.kind == wire.Repository.KIND_GIT:
        head = coming.message.head_commit
    else:
        # The files of one whose `.git` has gone are told against what it was prepared with.
        head = (coming.store.resolve(base_head + "^{commit}") if base_head else None) or ""
    states = _States(coming, contents, head)
    states.take(around)
    states.fields.append(("state", around.state))
    built.staged = len(states.index)
    built.changed = len(states.worktree)
    built.untracked = len(states.untracked)
    built.conflicted = states.conflicted
    built.refs += states.write(base_head)
    return built


def _named(coming: Coming) -> list[tuple[str, str]]:
    """The references that came, by the names that they get. What is no text gets a name of its bytes."""
    named: dict[str, str] = {}
    if coming.message.head_commit:
        named["HEAD"] = coming.message.head_commit
    for found in coming.refs:
        if found.kind == wire.Ref.KIND_STASH:
            name = f"stash/{stash_number(found.name)}"
        elif found.kind == wire.Ref.KIND_LOST:
            name = f"lost/{found.object_id}"
        elif coming.store.resolve(found.name) == found.object_id:
            continue  # it is here
        else:
            name = _name_of(found.name)
        named.setdefault(name, found.object_id)
    return sorted(named.items())


def _name_of(name: bytes) -> str:
    try:
        name.decode()
    except UnicodeDecodeError:
        return f"other/{name.hex()}"
    rest = name.removeprefix(b"refs/")
    return rest.decode() if rest.startswith(_USUAL) else f"other/{rest.decode()}"


def _check_objects(coming: Coming) -> None:
    """Blobs of the index are there, and are blobs."""
    ids = sorted({entry.object_id for entry in coming.index if entry.mode not in (0, GITLINK)})
    if not ids:
        return
    words = ("cat-file", "--buffer", "--batch-check=%(objecttype)")
    try:
        types = strict(coming.quarantine).run(*words, feed=lines(ids)).decode().splitlines()
    except GitError as error:
        raise refused("entries of the index", coming.message.path, error) from error
    for name, found in zip(ids, types, strict=False):
        if found != "blob":
            raise unsafe(name, "is in the index, and no blob")
    if len(types) < len(ids):
        raise unsafe(ids[len(types)], "is in the index, and git says nothing of it")


def _connect(coming: Coming, refs: Iterable[tuple[str, str]]) -> int:
    """Walks all that is new: every object that a reference leads to is there. Returns how many commits are new."""
    head = coming.message.head_commit
    tips = {name for _, name in refs} | ({head} if head else set())
    if not tips:
        return 0
    known = {name for _, name in coming.store.refs("refs/")}
    here = coming.store.resolve("HEAD^{commit}")
    if here is not None:
        known.add(here)
    feed = lines([*sorted(tips), *(f"^{name}" for name in sorted(known))])
    git = strict(coming.quarantine)
    try:
        git.run("rev-list", "--objects", "--quiet", "--stdin", feed=feed)
        counted = git.run("rev-list", "--count", "--stdin", feed=feed)
    except GitError as error:
        raise refused("the objects", coming.message.path, error) from error
    if head and not git.test("cat-file", "-e", head + "^{commit}"):
        raise unsafe(head, "is checked out, and no commit")
    return int(counted)


@dataclass
class _States:
    """What is not committed, as changes of trees."""

    coming: Coming
    contents: Contents
    head: str
    index: list[Change] = field(default_factory=list)
    worktree: list[Change] = field(default_factory=list)
    """Of tracked files."""
    untracked: list[Change] = field(default_factory=list)
    conflicts: list[Change] = field(default_factory=list)
    conflicted: int = 0
    fields: list[tuple[str, bytes]] = field(default_factory=list)
    """Names and contents of what a tree cannot say."""
    links: list[tuple[int, bytes]] = field(default_factory=list)
    """Marks and targets of symbolic links."""

    def take(self, around: Around) -> None:
        """Sorts what came."""
        tracked: set[bytes] = set()
        if self.head:
            with doing(_WHAT):
                words = ("ls-tree", "-r", "-z", "--name-only", self.head)
                tracked = set(fields(strict(self.coming.quarantine).run(*words)))
        self._take_index(tracked)
        self._take_entries(tracked)
        if self.coming.message.kind == wire.Repository.KIND_PLAIN:
            self._take_untold(tracked, around)
            if around.is_directory:
                self._take_directory(around)
        self._take_notes(around.notes)

    def _take_index(self, tracked: set[bytes]) -> None:
        conflicted = set()
        for entry in self.coming.index:
            if entry.mode == 0:
                tracked.discard(entry.path)
                self.index.append(Change(entry.path))
            elif entry.stage == 0:
                tracked.add(entry.path)
                self.index.append(Change(entry.path, entry.mode, entry.object_id))
            else:
                side = b"%d/%s" % (entry.stage, entry.path)
                self.conflicts.append(Change(side, entry.mode, entry.object_id))
                conflicted.add(entry.path)
        self.conflicted = len(conflicted)
        tracked |= conflicted

    def _take_entries(self, tracked: set[bytes]) -> None:
        place = self.coming.message.path
        directories, modes = bytearray(), bytearray()
        for number, entry in self.coming.entries:
            path = entry.path[len(place) + 1 :] if place and is_beneath(entry.path, place) else entry.path
            mark = f":{number + 1}"
            if entry.kind == wire.Entry.KIND_FILE and self.contents.has(number):
                mode = 0o100_755 if entry.mode & 0o100 else 0o100_644
                if entry.mode != mode & 0o777:
                    modes += b"%o %s\0" % (entry.mode, path)
                change = Change(path, mode, mark)
            elif entry.kind == wire.Entry.KIND_SYMLINK:
                self.links.append((number + 1, entry.link_target))
                change = Change(path, 0o120_000, mark)
            elif entry.kind == wire.Entry.KIND_REMOVED:
                change = Change(path)
            elif entry.kind == wire.Entry.KIND_DIRECTORY:
                directories += b"%o %s\0" % (entry.mode, path)
                if path not in tracked:
                    continue
                change = Change(path)
            else:
                continue
            (self.worktree if path in tracked else self.untracked).append(change)
        self.fields += [("directories", bytes(directories)), ("modes", bytes(modes))]

    def _take_untold(self, tracked: set[bytes], around: Around) -> None:
        """Of a tree without git all files are told: those that are not are gone, but for what could not be taken, and
        for what lies in a repository inside.
        """
        told = {entry.path for _, entry in self.coming.entries}
        elsewhere = {note.path for note in around.notes if note.is_loss and note.path} | set(around.inside)
        for path in sorted(tracked - told):
            names = path.split(b"/")
            if not any(b"/".join(names[:end]) in elsewhere for end in range(1, len(names) + 1)):
                self.worktree.append(Change(path))

    def _take_directory(self, around: Around) -> None:
        """What an apply to a directory without git compares: what came, what was carried, and of which paths nothing is
        told.
        """
        entries = []
        for number, entry in self.coming.entries:
            told = wire.Entry()
            told.CopyFrom(entry)
            told.sha256 = self.contents.digest(number)
            entries.append(told)
        self.fields.append(("entries", landed(entries)))
        self.fields.append(("carried", around.carried or b""))
        untold = [note.path for note in around.notes if note.is_loss] + list(around.inside)
        if around.notes_left_out > 0:
            untold.append(b"")
        self.fields.append(("untold", b"".join((path or b".") + b"\0" for path in untold)))

    def _take_notes(self, notes: Sequence[wire.Note]) -> None:
        told = bytearray()
        for note in notes if not self.coming.message.path else ():
            kind = wire.Note.Kind.Name(note.kind).encode()
            word = b"loss" if note.is_loss else b"note"
            told += b"%s %s %s %s\0" % (word, kind, note.path, note.detail.encode())
        unfinished = bytearray()
        for thing in self.coming.message.unfinished:
            unfinished += " ".join([wire.Unfinished.Kind.Name(thing.kind), *thing.commits]).encode() + b"\0"
        self.fields += [
            ("notes", bytes(told)),
            ("unfinished", bytes(unfinished)),
            ("head", self.coming.message.head_ref),
        ]

    def write(self, base_head: str) -> list[tuple[str, str]]:
        """The commits by the names they get."""
        self.fields.append(("base", base_head.encode()))
        self.fields = [(name, content) for name, content in self.fields if content]
        git = strict(self.coming.quarantine)
        marks = os.path.join(self.coming.quarantine.directory, b"marks")
        with doing(_WHAT):
            time = 0
            if self.head:
                told = git.line("log", "-1", "--no-show-signature", "--format=%ct", self.head)
                time = int(told) if told.isdigit() else 0

            def feed(to: BinaryIO) -> None:
                script = Script(to, time)
                self._blobs(script)
                self._commits(script)
                script.end()

            words = ("fast-import", "--quiet", "--done", "--date-format=raw", "--force", b"--export-marks=" + marks)
            git.run(*words, feed=feed)
            with open(marks, encoding="ascii") as file:
                made = dict(line.rstrip("\n").removeprefix(":").split(" ") for line in file)
        return [(name, made[str(mark)]) for mark, name in _NAMED.items() if str(mark) in made]

    def _blobs(self, to: Script) -> None:
        for number, entry in self.coming.entries:
            if entry.kind == wire.Entry.KIND_FILE and self.contents.has(number):
                to.file(number + 1, self.contents.at(number))
        for mark, target in self.links:
            to.blob(mark, target)
        for number, (_, content) in enumerate(self.fields):
            to.blob(_FIELDS + number, content)

    def _commits(self, to: Script) -> None:
        head = [self.head] if self.head else []
        if self.untracked:
            to.commit("refs/state/untracked", _UNTRACKED, "Untracked files in the VM", [], self.untracked)
        if self.index or self.worktree or self.untracked:
            to.commit("refs/state/index", _INDEX, "Staged in the VM", head, self.index)
            # The form of a stash: HEAD, the index, what is untracked.
            parents = [*head, f":{_INDEX}"]
            if self.untracked:
                parents.append(f":{_UNTRACKED}")
            changes = _last_of_each(self.index, self.worktree)
            to.commit("refs/state/worktree", _WORKTREE, "Uncommitted work in the VM", parents, changes)
            changes = _last_of_each(self.index, self.worktree, self.untracked)
            to.commit("refs/state/tree", _TREE, "All files in the VM", head, changes)
        if self.conflicts:
            message = "The sides of conflicts in the VM"
            to.commit("refs/state/conflicts", _CONFLICTS, message, head, self.conflicts)
        kept = [
            Change(name.encode(), 0o100_644, f":{_FIELDS + number}") for number, (name, _) in enumerate(self.fields)
        ]
        to.commit("refs/state/landing", _LANDING, "What trees cannot say", [], kept)


def _last_of_each(*lists: Sequence[Change]) -> list[Change]:
    """The changes of all, where several are about a path the last."""
    last = {change.path: change for changes in lists for change in changes}
    return [last[path] for path in sorted(last)]
