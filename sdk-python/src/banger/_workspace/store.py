"""Where workspaces land: the owner's repository, or one of banger's own beside it; the same places as in Rust."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator

from banger._workspace.failure import bad_vm, doing, no_repository, no_revision
from banger._workspace.git import Feed, Git, lines
from banger._workspace.limits import SHALLOW_MAX
from banger._workspace.names import vm_prefix
from banger._workspace.repository import SHA1, SHA256, LocalRepository
from banger.errors import LocalFileError, WorkspaceError
from banger.workspace import v1 as wire

# A file of a store of banger's own: what it is for.
_PLACE_FILE = b"banger-place"
_BASE_COMMITS_MAX = 5_000
_CONFIG: dict[int, bytes] = {
    SHA1: b"[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
    SHA256: b"[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n",
}


class Store:
    """A place for objects and references."""

    def __init__(self, directory: bytes, object_format: int) -> None:
        self.directory = directory
        """Its git directory."""
        self.object_format = object_format
        self.git = Git(directory).with_env(GIT_DIR=directory)

    @classmethod
    def own(cls, directory: bytes, object_format: int, place: bytes, shares: Store | None) -> Store:
        """One of banger's own, for `place`; made if it is missing. It need not have the objects that `shares` has."""
        with doing("make a repository"):
            if not os.path.exists(os.path.join(directory, _PLACE_FILE)):
                _make_bare(directory, object_format, shares)
                _write(os.path.join(directory, _PLACE_FILE), place)
        return cls(directory, object_format)

    @property
    def own_directory(self) -> bytes:
        """What banger keeps here."""
        return os.path.join(self.directory, b"banger")

    def inside(self, vm: str, place: bytes, object_format: int) -> bytes:
        """Where the store of banger's own is for a repository at `place` inside, of the VM."""
        named = wire.Repository.ObjectFormat.Name(object_format).encode()
        digest = hashlib.sha256(place + b"\0" + named).hexdigest()[:16]
        return os.path.join(self.own_directory, b"stores", vm.encode(), digest.encode() + b".git")

    def all_inside(self, vm: str) -> list[tuple[bytes, Store]]:
        """The stores of banger's own for repositories inside, of the VM, with what they are for."""
        stores = os.path.join(self.own_directory, b"stores", vm.encode())
        found = []
        for name in os.listdir(stores) if os.path.isdir(stores) else ():
            at = os.path.join(stores, name)
            try:
                place, config = _read(os.path.join(at, _PLACE_FILE)), _read(os.path.join(at, b"config"))
            except OSError:
                continue
            found.append((place, Store(at, SHA256 if b"sha256" in config else SHA1)))
        return sorted(found, key=lambda one: one[0])

    def cut(self) -> set[str]:
        """The commits at which its history was cut: it need not have what lies behind them."""
        with doing("read where the history was cut"):
            file = os.path.join(self.directory, b"shallow")
            return set(_read(file).decode().split()) if os.path.exists(file) else set()

    def set_cut(self, cut: set[str]) -> None:
        """Says where its history was cut, at once. Only of a store of banger's own."""
        file = os.path.join(self.directory, b"shallow")
        with doing("write where the history was cut"):
            if not cut:
                # An empty file would be one of a history that was cut.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(file)
                return
            _write(file + b".banger", "".join(f"{commit}\n" for commit in sorted(cut)).encode())
            os.rename(file + b".banger", file)

    def refs(self, prefix: str) -> list[tuple[str, str]]:
        """Its references whose names begin with `prefix`, with what they lead to."""
        with doing("read the references"):
            answer = self.git.run("for-each-ref", "--format=%(objectname) %(refname)", prefix)
        found = []
        for line in answer.split(b"\n"):
            name, _, ref = line.partition(b" ")
            try:
                found.append((ref.decode(), name.decode()))
            except UnicodeDecodeError:
                continue
        return [(ref, name) for ref, name in found if ref]

    def resolve(self, name: str | bytes) -> str | None:
        """What a reference or another name leads to."""
        with doing("look up a name"):
            answer = self.git.optional("rev-parse", "--quiet", "--verify", "--end-of-options", name)
        return None if answer is None else answer.decode().strip()

    def has(self, names: list[str]) -> list[str]:
        """What those of `names` lead to that lead to something."""
        if not names:
            return []
        with doing("look for objects"):
            answer = self.git.run("cat-file", "--buffer", "--batch-check=%(objectname)", feed=lines(names))
        return [line for line in answer.decode().splitlines() if " " not in line]

    def blob(self, name: str) -> bytes:
        """The bytes of a blob by a name such as `COMMIT:path`; empty if it is not there."""
        found = self.resolve(name)
        if found is None:
            return b""
        with doing("read what landed"):
            return self.git.run("cat-file", "blob", found)

    def feed(self, what: str, *arguments: str, feed: Feed) -> bytes:
        """Runs git with an input."""
        with doing(what):
            return self.git.run(*arguments, feed=feed)


def prefix_of(vm: str) -> str:
    """The beginning of the names of a VM's references, `refs/banger/VM/`."""
    prefix = vm_prefix(vm)
    if prefix is None:
        raise bad_vm(vm)
    return prefix


class Place:
    """Where workspaces land."""

    def __init__(self, path: str | os.PathLike[str], *, plain: bool = False) -> None:
        """The repository that `path` lies in, or a store for a directory that lies in none (or with `plain` is taken
        for none).
        """
        at = os.fsencode(path)
        self.repository = None if plain else LocalRepository.find(at)
        """The repository, where it is one."""
        if self.repository is not None:
            self.top = self.repository.top
            self.store = Store(self.repository.common_dir, self.repository.object_format)
        else:
            with doing("find"):
                self.top = os.path.realpath(at, strict=True)
            self.store = store_of_directory(self.top)

    def base(self, vm: str, prepared: wire.Base, since: str | None = None) -> wire.Base:
        """What of `prepared`, the base that the daemon keeps, is here, with what exports before have brought: so much
        need not come again. With `since`, a commit of the repository, of this all that it does not lead to comes.
        """
        commit = None if since is None else self._commit(since)
        prefix = prefix_of(vm)
        stores: dict[bytes, list[Store]] = {}
        for known in prepared.repositories:
            store = None
            with _unless_inside(known.path):
                store = self._at(known.path)
            stores[known.path] = [] if store is None else [store]
        if self.repository is not None:
            stores[b""] = [self.store]
        for at, store in self.store.all_inside(vm):
            stores.setdefault(at, []).append(store)
        base = wire.Base()
        for at, found in sorted(stores.items()):
            # Of two stores at one path either may be the one that something lands in. What the owner's has both have:
            # the other shares its objects. Of others neither is counted on.
            is_own_path = not at and self.repository is not None
            if not found or (len(found) > 1 and not is_own_path):
                continue
            prepared_at = next((known for known in prepared.repositories if known.path == at), None)
            with _unless_inside(at):
                if commit is not None and not at:
                    told = _since(found[0], commit)
                else:
                    told = _known(at, found[0], prefix, prepared_at)
                cut = set().union(*(store.cut() for store in found))
                if len(cut) > SHALLOW_MAX:
                    del told.commits[:]
                else:
                    told.shallow.extend(sorted(cut))
                base.repositories.append(told)
        return base

    def _commit(self, revision: str) -> str:
        """A commit of the repository."""
        if self.repository is None:
            raise no_repository(self.top)
        found = self.repository.commit(revision)
        if found is None:
            raise no_revision(revision)
        return found

    def exported_state(self, vm: str) -> bytes:
        """Digest of the state of the VM's workspace that was exported last; empty for none. What is in that state may
        be replaced: it is here.
        """
        return self.store.blob(f"{prefix_of(vm)}state/landing:state")

    def _at(self, place: bytes) -> Store | None:
        """The store of the repository that is at the same place here; None if there is none."""
        if self.repository is None:
            return None
        if not place:
            return self.store
        directory = self.top
        for name in place.split(b"/"):
            directory = os.path.join(directory, name)
            # No link is on the way.
            if os.path.islink(directory) or not os.path.isdir(directory):
                return None
        if not os.path.lexists(os.path.join(directory, b".git")):
            return None
        found = LocalRepository.exactly(directory)
        return None if found is None else Store(found.common_dir, found.object_format)

    def store_for(self, vm: str, message: wire.Repository, taken: Iterable[Store]) -> tuple[Store, bool]:
        """The store for a repository that comes: the owner's at the same place, if that can take it (its objects are
        named alike, no history that is cut would have to be cut there too, and it is none of `taken`, as that of a
        linked working tree is), and otherwise one of banger's own. Whether it is one of those comes with it.
        """
        if message.kind == wire.Repository.KIND_PLAIN:
            return self.store, self.repository is None
        object_format = SHA256 if message.object_format == SHA256 else SHA1
        here = self._at(message.path)
        if here is not None and here.object_format != object_format:
            here = None
        is_taken = here is not None and any(store.directory == here.directory for store in taken)
        if here is not None and not is_taken and len(here.has(list(message.shallow))) == len(message.shallow):
            return here, False
        directory = self.store.inside(vm, message.path, object_format)
        return Store.own(directory, object_format, message.path, here), True


@contextlib.contextmanager
def _unless_inside(path: bytes) -> Iterator[None]:
    """Passes over what git cannot tell of a repository inside: nothing of it is counted on, and what is wrong is told
    when it comes.
    """
    try:
        yield
    except (WorkspaceError, LocalFileError):
        if not path:
            raise


def store_of_directory(top: bytes) -> Store:
    """The store of a directory without git, by its real path; made if it is missing. Needs no git."""
    digest = hashlib.sha256(top).hexdigest()[:32]
    return Store.own(os.path.join(_state_directory(), digest.encode() + b".git"), SHA1, top, None)


def _known(at: bytes, store: Store, prefix: str, known: wire.BaseRepository | None) -> wire.BaseRepository:
    head = known.head_commit if known is not None else ""
    asked = {head, *(known.commits if known is not None else ())}
    for beginning in (prefix, "refs/heads/"):
        asked.update(name for _, name in store.refs(beginning))
    asked.discard("")
    names = [f"{name}^{{commit}}" for name in sorted(asked)[:_BASE_COMMITS_MAX]]
    return wire.BaseRepository(path=at, commits=sorted(set(store.has(names))), head_commit=head)


def _since(store: Store, commit: str) -> wire.BaseRepository:
    """A commit of the workspace's own repository, and those before it: the VM may have only an earlier one."""
    with doing("read the history"):
        listed = store.git.run("rev-list", f"--max-count={_BASE_COMMITS_MAX}", commit, "--")
    return wire.BaseRepository(commits=listed.decode().splitlines(), head_commit=commit)


def _state_directory() -> bytes:
    """`$XDG_STATE_HOME/banger/workspaces`."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.fsencode(os.path.join(state, "banger/workspaces"))


def _make_bare(directory: bytes, object_format: int, shares: Store | None) -> None:
    """A bare repository, without anything that git's templates would put there."""
    for name in (b"objects/info", b"objects/pack", b"refs"):
        os.makedirs(os.path.join(directory, name), exist_ok=True)
    _write(os.path.join(directory, b"config"), _CONFIG[object_format])
    if shares is not None:
        objects = os.path.join(shares.directory, b"objects")
        _write(os.path.join(directory, b"objects/info/alternates"), objects + b"\n")
        shallow = os.path.join(shares.directory, b"shallow")
        if os.path.exists(shallow):
            shutil.copyfile(shallow, os.path.join(directory, b"shallow"))
    # Last: without it there is no repository.
    _write(os.path.join(directory, b"HEAD"), b"ref: refs/heads/none\n")


def _write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()
