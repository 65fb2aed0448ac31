"""Directories without git: what they were when they were carried, and what of a VM's becomes part of them; as
`workspace/src/client/plain` in Rust, in the same files and with the same rules.

Three trees are compared path by path: the directory as it was carried into the VM, as it came back, and as it is now.
What was changed in the VM alone is taken, what was changed here alone stays, and what was changed on both sides, each
otherwise, is refused unless the owner says whose it is to be. Before anything is changed, what was there is kept in
the directory's store, and `go_back` puts it back by the same comparison.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, BinaryIO, Literal

from banger._workspace import publish
from banger._workspace.carried import UNSURE, Carried, Tree, decoded, encoded
from banger._workspace.disk import DIRECTORY, Disk, Here, Leaf, same
from banger._workspace.failure import doing, moved, nothing_landed, refuse
from banger._workspace.git import lines
from banger._workspace.names import is_beneath, shown
from banger._workspace.script import Change, Script
from banger._workspace.store import Place, Store, prefix_of
from banger.errors import BangerError
from banger.workspace import v1 as wire

Both = Literal["refuse", "mine", "theirs"]
"""Whose files are taken that were changed on both sides, each otherwise."""

_COMMIT = 20_000_000
_FIELDS = 10_000_000


@dataclass
class AppliedFiles:
    """What was applied to a directory without git."""

    written: int = 0
    """Files, links and directories that came, or are as in the VM now."""
    removed: int = 0
    """Those that went."""
    moved: list[str] = field(default_factory=list)
    """Paths that somebody changed meanwhile, escaped: they are as they were left."""
    left: list[str] = field(default_factory=list)
    """Paths here of which the VM does not tell whether they are to go, escaped: they stay."""
    before: str | None = None
    """The reference, in the directory's store, to what was there before; `go_back` takes it."""
    way_back: list[str] = field(default_factory=list)
    """Commands that lead back."""


@dataclass
class _Plan:
    """What is to be done: per path what is there and what comes there."""

    changes: dict[bytes, tuple[Here | None, Leaf | None]] = field(default_factory=dict)
    left: set[bytes] = field(default_factory=set)

    def goes(self, path: bytes) -> bool:
        """Whether what is at a path goes away, or becomes a directory."""
        if path not in self.changes:
            return False
        target = self.changes[path][1]
        return target is None or target.kind == DIRECTORY

    def in_the_way(self, disk: Disk) -> dict[bytes, set[bytes]]:
        """What stays and is where something comes: on the way to it, or beneath it. With what would come there."""
        found: dict[bytes, set[bytes]] = {}
        for path, (here, target) in self.changes.items():
            if target is None:
                continue
            names = path.split(b"/")
            for end in range(1, len(names)):
                above = b"/".join(names[:end])
                if not self.goes(above) and disk.is_leaf(above):
                    found.setdefault(above, set()).add(path)
            is_directory = here is not None and here.leaf.kind == DIRECTORY
            if is_directory and target.kind != DIRECTORY and disk.has_others(path, self.goes):
                found.setdefault(path, set()).add(path)
        return found


def judge(base: Leaf | None, target: Leaf | None, here: Leaf | None) -> Literal["stay", "change", "conflict"]:
    """Three states of one path."""
    is_unsure = base is not None and base.kind == wire.Entry.KIND_UNSPECIFIED
    if same(target, here) or same(base, target):
        return "stay"
    # Whatever was carried: a file that nothing is in the way of takes nothing from anybody.
    if same(base, here) or (is_unsure and here is None):
        return "change"
    # A directory that is empty is no work of anybody's.
    return "stay" if base is not None and base.kind == DIRECTORY and target is None else "conflict"


def _plan(disk: Disk, base: Tree | None, target: Tree, untold: Sequence[bytes], both: Both) -> _Plan:
    """Compares, and changes nothing. `untold` are paths of which the target does not tell, with all beneath them."""
    plan = _Plan()
    conflicts: set[bytes] = set()
    known = sorted(target)

    def is_parent(path: bytes) -> bool:
        at = bisect_left(known, path + b"/")
        return at < len(known) and known[at].startswith(path + b"/")

    for path in sorted({*(base or ()), *target}):
        was = base.get(path) if base is not None else UNSURE
        comes, here = target.get(path), disk.look(path)
        if comes is None and any(told == b"." or told == path or is_beneath(path, told) for told in untold):
            if here is not None:
                plan.left.add(path)
            continue
        is_directory = here is not None and here.leaf.kind == DIRECTORY
        was_directory = was is not None and was.kind == DIRECTORY
        # It is no leaf any more: the paths beneath it say what becomes of it.
        if comes is None and (is_directory or was_directory):
            if is_directory and was_directory and not is_parent(path):
                plan.changes[path] = (here, None)
            continue
        verdict = judge(was, comes, here.leaf if here is not None else None)
        # What is beneath a directory is looked at below.
        if verdict == "change" or (verdict == "conflict" and (both == "theirs" or (is_directory and was is None))):
            plan.changes[path] = (here, comes)
        elif verdict == "conflict" and both == "refuse":
            conflicts.add(path)
    if conflicts:
        raise refuse(
            "files were changed here and in the VM since they were carried there",
            "Say whose they are to be (`mine` or `theirs`; either way leads back), or make them the same first.",
            conflicts,
        )
    in_the_way = plan.in_the_way(disk)
    if in_the_way and both != "mine":
        raise refuse(
            "files here that the VM does not know are where files of the VM go",
            "Move or remove them, or leave what comes there out with `mine`; then apply again.",
            in_the_way,
        )
    for paths in in_the_way.values():
        for path in paths:
            plan.changes.pop(path, None)
    return plan


def apply_files(place: Place, vm: str, both: Both = "refuse") -> AppliedFiles:
    """Applies what has landed from `vm` to the directory of `place`, which has no git."""
    store, prefix = place.store, prefix_of(vm)
    _check_has_no_git(store, vm)
    _check_landed(store, vm)
    with publish.locked(store):
        files = store.resolve(f"{prefix}state/tree")
        record = store.blob(f"{prefix}state/landing:entries")
        if not record:
            raise nothing_landed(vm)
        target = decoded(record)
        was = store.blob(f"{prefix}state/landing:carried")
        base = decoded(was) if was else None
        untold = [path for path in store.blob(f"{prefix}state/landing:untold").split(b"\0") if path]
        carried = Carried(store, vm)
        remembered = carried.read()
        disk = Disk(place.top)
        with contextlib.closing(disk):
            plan = _plan(disk, base, target, untold, both)
            applied, changed = _run(place, vm, disk, plan, files or "", remembered)
        # The VM has what landed: what is compared next time. If another was carried since, that holds.
        if remembered == (was or None):
            following = dict(target)
            stays = plan.left | changed
            following.update({path: leaf for path, leaf in (base or {}).items() if path in stays})
            carried.write(encoded(following))
    return applied


def go_back(place: Place, vm: str, before: str, both: Both = "refuse") -> AppliedFiles:
    """Puts back what was in the directory before an apply; `before` is its reference, or the time in that."""
    store = place.store
    time = before.removeprefix(f"{prefix_of(vm)}before/").removesuffix("/files")
    name = f"{prefix_of(vm)}before/{time}/files"
    is_time = time.replace("-", "").isalnum() and time.isascii()
    records = [store.blob(f"{name}:{which}") for which in ("before", "after", "carried")] if is_time else []
    if not all(records) or not records:
        raise refuse(
            f"nothing was kept of an apply from VM `{vm}` at `{shown(time.encode())}`",
            "An apply says the time; `git for-each-ref` in the store that it names shows all.",
        )
    target, base, known = (decoded(record) for record in records)
    with publish.locked(store):
        carried = Carried(store, vm)
        remembered = carried.read()
        disk = Disk(place.top)
        with contextlib.closing(disk):
            plan = _plan(disk, base, target, (), both)
            applied, changed = _run(place, vm, disk, plan, f"{name}:files", remembered)
        if remembered is not None:
            following = decoded(remembered)
            for path in {*base, *target} - changed:
                following.pop(path, None)
                if path in known:
                    following[path] = known[path]
            carried.write(encoded(following))
    return applied


def _check_landed(store: Store, vm: str) -> None:
    """Something has; whoever lands has made what is locked."""
    if store.resolve(f"{prefix_of(vm)}state/landing") is None:
        raise nothing_landed(vm)


def _check_has_no_git(store: Store, vm: str) -> None:
    """What is a repository in the VM has commits, which no directory without git can take."""
    landing = f"{prefix_of(vm)}state/landing"
    for at, inside in store.all_inside(vm):
        if at == b"" and inside.resolve(landing) is not None and store.resolve(landing) is None:
            where = os.fsdecode(inside.directory)
            raise refuse(
                "the directory is a git repository in the VM by now",
                f"Fetch its commits into a repository (`git fetch {where} refs/banger/{vm}/HEAD`), or take its files: "
                f"`banger workspace export {vm} --format tar`.",
            )


def _run(
    place: Place, vm: str, disk: Disk, plan: _Plan, files: str, remembered: bytes | None
) -> tuple[AppliedFiles, set[bytes]]:
    """Carries a plan out; `files` is the tree that has the contents. Returns what somebody changed meanwhile too."""
    applied = AppliedFiles(left=[shown(path) for path in sorted(plan.left)])
    changed: set[bytes] = set()
    if not plan.changes:
        return applied, changed
    known = decoded(remembered) if remembered is not None else {}
    known = {path: known[path] for path in plan.changes if path in known}
    applied.before, time = _keep(place.store, vm, disk, plan, known)
    top = shlex.quote(os.fsdecode(place.top))
    applied.way_back = [f"banger workspace apply {vm} {top} --plain --back {time}"]
    _remove(disk, plan, applied, changed)
    _put(place.store, disk, plan, files, applied, changed)
    applied.moved = [shown(path) for path in sorted(changed)]
    return applied, changed


def _keep(store: Store, vm: str, disk: Disk, plan: _Plan, known: Tree) -> tuple[str, str]:
    """Keeps what is at the paths that change, as a commit; its reference and the time in that."""
    prefix = prefix_of(vm)
    time = publish.moment(store, prefix)
    name = f"{prefix}before/{time}/files"
    before = {path: here.leaf for path, (here, _) in sorted(plan.changes.items()) if here is not None}
    after = {path: target for path, (_, target) in plan.changes.items() if target is not None}
    records = {"before": encoded(before), "after": encoded(after), "carried": encoded(known)}
    failed: list[BangerError] = []

    def feed(to: BinaryIO) -> None:
        script = Script(to, publish.now())
        changes = []
        for number, (which, record) in enumerate(records.items()):
            script.blob(_FIELDS + number, record)
            changes.append(Change(which.encode(), 0o100_644, f":{_FIELDS + number}"))
        for number, (path, leaf) in enumerate(before.items(), 1):
            if leaf.kind == wire.Entry.KIND_SYMLINK:
                script.blob(number, leaf.content)
                mode = 0o120_000
            elif leaf.kind == wire.Entry.KIND_FILE:
                try:
                    _content(disk, path, leaf, number, script)
                except BangerError as error:
                    failed.append(error)
                    raise BrokenPipeError from error
                mode = 0o100_755 if leaf.mode & 0o100 else 0o100_644
            else:
                continue
            changes.append(Change(b"files/" + path, mode, f":{number}"))
        script.commit(name, _COMMIT, "What was there before an apply of banger", [], changes)
        script.end()

    try:
        store.feed("keep what was there", "fast-import", "--quiet", "--done", "--date-format=raw", feed=feed)
    except BangerError:
        if failed:
            raise failed[0] from None
        raise
    if failed:
        raise failed[0]
    return name, time


def _content(disk: Disk, path: bytes, leaf: Leaf, mark: int, script: Script) -> None:
    """Writes a file as a blob: what it was when it was compared, and nothing else."""
    with disk.read(path) as file:
        size = os.fstat(file.fileno()).st_size
        if script.content(mark, size, file) != leaf.content:
            raise moved(path)


def _remove(disk: Disk, plan: _Plan, applied: AppliedFiles, changed: set[bytes]) -> None:
    """Removes what goes, the deepest first, and the directories in which nothing is left."""
    for path in sorted(plan.changes, reverse=True):
        here, target = plan.changes[path]
        if here is None or (target is not None and target.kind != DIRECTORY):
            continue
        if here.leaf.kind == DIRECTORY:
            if target is None and disk.remove_directory(path):
                applied.removed += 1
            continue
        if not disk.remove(path, here.mark):
            changed.add(path)
        elif target is None:
            applied.removed += 1
        parent = os.path.dirname(path) if target is None else b""
        while parent and disk.remove_directory(parent):
            parent = os.path.dirname(parent)


def _put(store: Store, disk: Disk, plan: _Plan, files: str, applied: AppliedFiles, changed: set[bytes]) -> None:
    """Makes what comes."""
    coming = [
        (path, here, target)
        for path, (here, target) in sorted(plan.changes.items())
        if target is not None and path not in changed
    ]
    ids = _blobs(store, files)
    made: list[tuple[bytes, int]] = []
    with _contents(store, [ids[path] for path, _, leaf in coming if leaf.kind == wire.Entry.KIND_FILE]) as contents:
        for path, here, target in coming:
            size = int(contents.readline()) if target.kind == wire.Entry.KIND_FILE else -1
            if os.path.dirname(path):
                disk.make_directory(os.path.dirname(path))
            former = here.mark if here is not None else None
            is_done = True
            if here is not None and here.leaf.kind == DIRECTORY:
                former = None
                is_done = target.kind == DIRECTORY or disk.remove_directories(path)
            if not is_done:
                _skip(contents, size)
            elif target.kind == DIRECTORY:
                if disk.make_directory(path):
                    made.append((path, target.mode))
            elif target.kind == wire.Entry.KIND_SYMLINK:
                is_done = disk.put_link(path, target.content, former)
            else:
                is_done = disk.put_file(path, target.mode, contents, size, former)
                _skip(contents, 0)
            if is_done:
                applied.written += 1
            else:
                changed.add(path)
    # The deepest first: one that may not be written to could not be made something in.
    for path, mode in reversed(made):
        disk.set_mode(path, mode)


def _blobs(store: Store, tree: str) -> dict[bytes, str]:
    """The ids of the blobs in a tree, by their paths; of none where there is no such tree."""
    found = store.resolve(tree) if tree else None
    if found is None:
        return {}
    with doing("read what landed"):
        listed = store.git.run("ls-tree", "-r", "-z", "--full-tree", found)
    ids = {}
    for line in listed.split(b"\0")[:-1]:
        what, _, path = line.partition(b"\t")
        ids[path] = what.split(b" ")[2].decode()
    return ids


@contextlib.contextmanager
def _contents(store: Store, ids: Sequence[str]) -> Iterator[IO[bytes]]:
    """What the blobs have, one after the other: a line that says how much, it, the end of a line."""
    with (
        doing("read what landed"),
        store.git.pipe("cat-file", "--buffer", "--batch=%(objectsize)", feed=lines(ids)) as output,
    ):
        yield output


def _skip(contents: IO[bytes], size: int) -> None:
    """Passes over what is left of a content, and the end of its line; there is none of less than nothing."""
    while size > 0 and (piece := contents.read(min(size, 1 << 20))):
        size -= len(piece)
    if size == 0:
        contents.read(1)
