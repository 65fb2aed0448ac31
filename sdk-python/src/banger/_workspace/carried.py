"""What directories without git were when they were carried into VMs, as this machine remembers it."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable

from banger._workspace.disk import Leaf, same
from banger._workspace.failure import doing
from banger._workspace.store import Store, prefix_of
from banger.errors import WorkspaceError
from banger.workspace import v1 as wire

# A record is a byte that says its form, and entries. So none is empty.
_FORM = b"\1"
UNSURE = Leaf(wire.Entry.KIND_UNSPECIFIED)
"""What is known not to be known."""

Tree = dict[bytes, Leaf]


def encoded(tree: Tree) -> bytes:
    """The form in which a tree is kept."""
    entries = [leaf.entry(path) for path, leaf in sorted(tree.items())]
    return _FORM + wire.Entries(entries=entries).SerializeToString()


def landed(entries: Iterable[wire.Entry]) -> bytes:
    """The entries of a directory that came, as they are kept with its landing."""
    return encoded(_tree_of(entries))


def _tree_of(entries: Iterable[wire.Entry]) -> Tree:
    return {entry.path: Leaf.of(entry) for entry in entries if entry.kind != wire.Entry.KIND_REMOVED}


def decoded(content: bytes) -> Tree:
    try:
        if content[:1] != _FORM:
            raise ValueError("another form")
        return _tree_of(wire.Entries.FromString(content[1:]).entries)
    except Exception as error:
        raise WorkspaceError(
            "git answered what a directory was in a way that is not understood", reason="GIT_FAILED"
        ) from error


class Carried:
    """What a directory without git was when it was carried into a VM, as this machine remembers it."""

    def __init__(self, store: Store, vm: str) -> None:
        # Only what is a name of a VM is one of a file.
        prefix_of(vm)
        self._file = os.path.join(store.own_directory, b"carried", vm.encode())

    def read(self) -> bytes | None:
        """The record; None where nothing is remembered."""
        with doing("read what was carried in"):
            try:
                with open(self._file, "rb") as file:
                    return file.read()
            except FileNotFoundError:
                return None

    def write(self, record: bytes) -> None:
        """Writes it, whole or not at all."""
        directory = os.path.dirname(self._file)
        with doing("remember what was carried in"):
            os.makedirs(directory, exist_ok=True)
            following = os.path.join(directory, f".{uuid.uuid4()}".encode())
            try:
                with open(following, "xb") as file:
                    file.write(record)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(following, self._file)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(following)
                raise

    def sending(self, entries: Iterable[wire.Entry]) -> None:
        """The entries are about to be sent: until `sent` says so, the VM may have what it had or what it gets."""
        following, record = _tree_of(entries), self.read()
        if record is not None:
            former = decoded(record)
            both = {
                path: former[path] if same(former.get(path), following.get(path)) else UNSURE
                for path in {*former, *following}
            }
            following = both
        self.write(encoded(following))

    def sent(self, entries: Iterable[wire.Entry]) -> None:
        """The entries are what the VM has."""
        self.write(encoded(_tree_of(entries)))
