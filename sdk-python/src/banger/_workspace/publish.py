"""Puts what was checked into the store: first objects, then, in one transaction, the references to them."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from banger._workspace.build import Built
from banger._workspace.failure import doing
from banger._workspace.git import lines
from banger._workspace.quarantine import Coming
from banger._workspace.store import Store
from banger.errors import LocalFileError, WorkspaceError
from banger.workspace import v1 as wire

_WHAT = "write the references"
# Beneath a VM's prefix: what banger keeps of before.
_KEPT = ("earlier/", "before/")
_KEEP = b"banger\n"


@dataclass
class LandedRepository:
    """A repository that has landed."""

    path: bytes
    """Beneath the workspace; empty for the workspace itself."""
    store: Path
    """The git directory that has it."""
    is_own_store: bool
    """That is one of banger's own, because there is no such repository here."""
    head_ref: bytes
    """The branch that was checked out; empty for none."""
    head: str
    """The commit that was checked out; empty for none."""
    refs: dict[str, str]
    """References that are there now, with what they lead to."""
    kept: list[str]
    """Where earlier values of references are kept that nothing leads to any more."""
    new_commits: int
    """Commits that came."""
    staged: int
    """Paths that were staged."""
    changed: int
    """Tracked files that were changed."""
    untracked: int
    """Files that are not tracked."""
    conflicted: int
    """Paths in conflict."""
    unfinished: list[wire.Unfinished] = field(default_factory=list)
    """Merges, rebases and the like that had not ended."""


class CannotLand(Exception):
    """One of the repositories cannot land."""

    def __init__(self, coming: Coming, cause: WorkspaceError | LocalFileError) -> None:
        self.coming = coming
        self.cause = cause


@contextlib.contextmanager
def of(coming: Coming) -> Iterator[None]:
    """Says which repository something failed for."""
    try:
        yield
    except (WorkspaceError, LocalFileError) as error:
        raise CannotLand(coming, error) from error


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """Lets one landing after the other write to a store."""
    with doing("lock the repository"):
        directory = os.open(store.own_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with doing("lock the repository"):
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def publish(
    everything: Sequence[Coming], built: Sequence[Built], vacated: Store | None, prefix: str
) -> list[LandedRepository]:
    """Puts all of it into the stores, the workspace's own repository last: it is the one that is looked at. In
    `vacated` nothing of the VM's is any more.

    Raises:
        CannotLand: If one cannot be taken: the workspace's own is not written to then.
    """
    for coming, made in zip(everything, built, strict=True):
        with of(coming), doing("move objects to the repository"):
            _move_objects(coming.quarantine, coming.store)
            if coming.is_own_store:
                _cut_history(coming.store, coming.message.shallow, made.deepened)
    landed = []
    for coming, made in reversed(list(zip(everything, built, strict=True))):
        try:
            with of(coming):
                kept = _write_refs(coming.store, prefix, dict(made.refs))
        finally:
            # References lead to the packs now, or never will: git may treat them as any others.
            _unkeep(coming.store)
        landed.append(
            LandedRepository(
                path=coming.message.path,
                store=Path(os.fsdecode(coming.store.directory)),
                is_own_store=coming.is_own_store,
                head_ref=coming.message.head_ref,
                head=coming.message.head_commit,
                refs={prefix + name: found for name, found in made.refs},
                kept=kept,
                new_commits=made.new_commits,
                staged=made.staged,
                changed=made.changed,
                untracked=made.untracked,
                conflicted=made.conflicted,
                unfinished=list(coming.message.unfinished),
            )
        )
    if vacated is not None:
        _write_refs(vacated, prefix, {})
    return landed[::-1]


def _move_objects(source: Store, target: Store) -> None:
    """Moves packs and loose objects. git sees a pack when its index is there, so that comes last; a `.keep` holds it
    until references lead to it.
    """
    here, there = os.path.join(source.directory, b"objects"), os.path.join(target.directory, b"objects")
    for name in os.listdir(here):
        directory = os.path.join(there, name)
        if name == b"pack":
            files = sorted(os.listdir(os.path.join(here, name)), key=lambda file: file.endswith(b".idx"))
            for file in files:
                if file.endswith(b".keep"):
                    continue
                if file.endswith(b".idx"):
                    with open(os.path.join(directory, file.removesuffix(b".idx") + b".keep"), "wb") as keep:
                        keep.write(_KEEP)
                _move(os.path.join(here, name, file), os.path.join(directory, file))
        elif len(name) == 2:
            os.makedirs(directory, exist_ok=True)
            for file in os.listdir(os.path.join(here, name)):
                _move(os.path.join(here, name, file), os.path.join(directory, file))


def _move(source: bytes, target: bytes) -> None:
    """A file of the same name has the same content: its name is a digest."""
    if os.path.exists(target):
        return
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = target + b".tmp-banger"
        shutil.copyfile(source, temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.rename(temporary, target)


def _cut_history(store: Store, shallow: Iterable[str], deepened: set[str]) -> None:
    """Where the history that came ends, so that git does not miss what is before. The owner's own repositories have all
    of it. At `deepened` it ends no more: what lies behind has come.
    """
    had = store.cut()
    cut = (had | set(shallow)) - deepened
    if cut != had:
        store.set_cut(cut)


def _unkeep(store: Store) -> None:
    packs = os.path.join(store.directory, b"objects/pack")
    for name in os.listdir(packs):
        # One that stays costs room, and nothing else.
        with contextlib.suppress(OSError):
            if name.endswith(b".keep"):
                at = os.path.join(packs, name)
                with open(at, "rb") as file:
                    is_ours = file.read(16) == _KEEP
                if is_ours:
                    os.unlink(at)


def _write_refs(store: Store, prefix: str, refs: dict[str, str]) -> list[str]:
    """Makes the references beneath `prefix` those of `refs`, at once. What nothing would lead to any more is kept
    beneath `earlier/`; those names are returned.
    """
    new = {prefix + name: found for name, found in refs.items()}

    def stays(name: str) -> bool:
        rest = name.removeprefix(prefix)
        # What only a log leads to in the VM is told once.
        return rest.startswith(_KEPT) or (rest.startswith("lost/") and name not in new)

    there = store.refs(prefix)
    kept = [found for name, found in there if stays(name)]
    old = {name: found for name, found in there if not stays(name)}
    changed = {name: found for name, found in old.items() if new.get(name) != found}
    lost = _unreachable(store, set(changed.values()), [*new.values(), *kept])
    landing = moment(store, prefix)
    earlier = {name: f"{prefix}earlier/{landing}/{name.removeprefix(prefix)}" for name in changed}
    script = Transaction()
    names = []
    for name, found in sorted(changed.items()):
        if found in lost:
            script.line("create", earlier[name], found)
            names.append(earlier[name])
    removed = {name: found for name, found in changed.items() if name not in new}
    for name, found in removed.items():
        script.line("delete", name, found)
    if any(one.startswith(name + "/") or name.startswith(one + "/") for name in removed for one in new):
        # git cannot, in one transaction, make a directory of a name and remove the name. What goes is kept by then:
        # also, until the new leads there, what the new will lead to.
        until_then = {earlier[name]: found for name, found in removed.items() if found not in lost}
        for name, found in until_then.items():
            script.line("create", name, found)
        script.run(store)
        for name, found in until_then.items():
            script.line("delete", name, found)
    for name, found in sorted(new.items()):
        if name not in old:
            script.line("create", name, found)
        elif old[name] != found:
            script.line("update", name, found, old[name])
    script.run(store)
    return sorted(names)


def _unreachable(store: Store, old: set[str], new: Sequence[str]) -> set[str]:
    """The ids among `old` that nothing in `new` leads to."""
    if not old:
        return set()
    what = "compare with what was exported before"
    feed = lines([*sorted(old), *(f"^{name}" for name in sorted(set(new)))])
    found = set(store.feed(what, "rev-list", "--stdin", feed=feed).decode().splitlines())
    # Tags are no commits, and cost nothing to keep.
    commits = set(store.has([f"{name}^{{commit}}" for name in sorted(old)]))
    return found | {name for name in old if name not in commits}


def now() -> int:
    """Seconds since 1970."""
    return int(datetime.datetime.now(datetime.timezone.utc).timestamp())


def moment(store: Store, prefix: str) -> str:
    """A name for now, in the order of time, that is not there yet."""
    here = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    taken = {
        name.removeprefix(prefix).split("/")[1] for beginning in _KEPT for name, _ in store.refs(prefix + beginning)
    }
    name, number = here, 2
    while name in taken:
        name = f"{here}-{number}"
        number += 1
    return name


class Transaction:
    """Changes of references that happen together."""

    def __init__(self) -> None:
        self._script = bytearray()

    def line(self, word: str, name: str, *ids: str) -> None:
        """A change: a word of git-update-ref(1), a name, and ids."""
        self._script += f"{word} {name}\0".encode() + b"".join(found.encode() + b"\0" for found in ids)

    def run(self, store: Store) -> None:
        """Makes the changes, all or none, and is empty then."""
        whole = bytes(self._script)
        self._script.clear()
        if not whole:
            return

        def feed(to: BinaryIO) -> None:
            to.write(whole)

        store.feed(_WHAT, "update-ref", "--stdin", "-z", "--no-deref", feed=feed)
