"""Where what comes is kept until it was checked."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import queue
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from banger._workspace.failure import doing, refused, unsafe
from banger._workspace.git import Git, GitError, lines
from banger._workspace.judge import Cut
from banger._workspace.limits import SNAPSHOT_MAX_BYTES
from banger._workspace.store import Store
from banger.errors import LocalFileError, WorkspaceError
from banger.workspace import v1 as wire

# The most memory that git takes for one thing: an object of a promised size is not believed.
_ALLOCATION_MAX = "1g"
_PIECES_WAITING = 4
# All that `git fsck` knows is wrong, but for what old histories have and harms nobody.
_STRICT = "--strict=badTimezone=ignore,missingSpaceBeforeDate=ignore,zeroPaddedDate=ignore,zeroPaddedFilemode=ignore"
_INCOMING = b"incoming-"
# One that has no lock yet.
_BEGUN = b"begun-"
_LOCK = b"lock"
# When a directory without a lock was left by a landing that was cut at once.
_UNLOCKED_SECONDS = 3600


@dataclass(frozen=True)
class Limits:
    """What may come."""

    max_bytes: int = SNAPSHOT_MAX_BYTES
    """Bytes of packs and contents, as they come."""
    object_bytes: int = 16 << 30
    """Bytes of one object when it is unpacked."""
    unpacked_bytes: int = 256 << 30
    """Bytes of all objects that come when they are unpacked."""


class Incoming:
    """The directory of one landing; it goes with it."""

    def __init__(self, store: Store) -> None:
        own = store.own_directory
        with doing("write to the repository"):
            os.makedirs(own, exist_ok=True)
            _sweep(own)
            name = str(uuid.uuid4()).encode()
            begun = os.path.join(own, _BEGUN + name)
            os.mkdir(begun)
            self._lock = os.open(os.path.join(begun, _LOCK), os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Under this name it is never seen without its lock held: it would be taken for one that was cut.
            self.directory = os.path.join(own, _INCOMING + name)
            os.rename(begun, self.directory)

    def quarantine(self, number: int, store: Store, shallow: Any) -> Store:
        """A repository for what comes to `store`, which sees the store's objects; its history may end at `shallow`
        too.
        """
        directory = os.path.join(self.directory, b"%d.git" % number)
        made = Store.own(directory, store.object_format, b"", store)
        if shallow:
            made.set_cut(made.cut() | set(shallow))
        return made

    def scrap(self, number: int, object_format: int) -> Store:
        """A repository for what comes and will not land."""
        return Store.own(os.path.join(self.directory, b"%d-scrap.git" % number), object_format, b"", None)

    def close(self) -> None:
        """Removes it. What cannot be removed is swept by the next landing."""
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self._lock)


def _sweep(own: bytes) -> None:
    """Removes what landings have left that were cut: nobody holds their locks."""
    for name in os.listdir(own):
        at = os.path.join(own, name)
        if name.startswith(_BEGUN):
            with contextlib.suppress(OSError):
                if time.time() - os.stat(at).st_mtime > _UNLOCKED_SECONDS:
                    shutil.rmtree(at, ignore_errors=True)
        if not name.startswith(_INCOMING):
            continue
        try:
            lock = os.open(os.path.join(at, _LOCK), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            shutil.rmtree(at, ignore_errors=True)  # its removal was cut, or goes on
            continue
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(at, ignore_errors=True)
        except OSError:
            pass  # it goes on
        finally:
            os.close(lock)


def strict(quarantine: Store) -> Git:
    """git in a quarantine."""
    return quarantine.git.with_env(GIT_ALLOC_LIMIT=_ALLOCATION_MAX)


class _PackInto:
    """A pack on its way into a quarantine."""

    def __init__(self, quarantine: Store) -> None:
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_PIECES_WAITING)
        self._over = threading.Event()
        self._git = strict(quarantine)
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="banger-pack", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        def feed(to: BinaryIO) -> None:
            while (piece := self._pieces.get()) is not None:
                to.write(piece)

        # How large it may be the judge has said before a piece comes here.
        words = ("index-pack", "--stdin", "--fix-thin", _STRICT)
        try:
            self._git.run(*words, feed=feed)
        except BaseException as error:
            self._failed = error
        finally:
            self._over.set()
            # Whoever waits for room goes on.
            with contextlib.suppress(queue.Empty):
                while True:
                    self._pieces.get_nowait()

    def _put(self, piece: bytes | None) -> bool:
        """Whether git took it, or will."""
        while not self._over.is_set():
            with contextlib.suppress(queue.Full):
                self._pieces.put(piece, timeout=0.5)
                return True
        return False

    def take(self, data: bytes) -> bool:
        return self._put(data)

    def end(self) -> None:
        """Waits until git has ended; raises what it says."""
        self._put(None)
        self._thread.join()
        if self._failed is not None:
            raise self._failed


@dataclass
class Coming:
    """A repository that comes."""

    message: wire.Repository
    store: Store
    is_own_store: bool
    """It is one of banger's own."""
    quarantine: Store
    limits: Limits
    refs: list[wire.Ref] = field(default_factory=list)
    index: list[wire.IndexEntry] = field(default_factory=list)
    entries: list[tuple[int, wire.Entry]] = field(default_factory=list)
    failed: WorkspaceError | LocalFileError | None = None
    """Why it cannot land, though the others may."""
    _pack: _PackInto | None = None

    @contextlib.contextmanager
    def or_fails(self) -> Iterator[None]:
        """Remembers why a repository inside cannot land; for the workspace's own it is an error."""
        try:
            yield
        except (WorkspaceError, LocalFileError) as error:
            if not self.message.path:
                raise
            self.failed = error

    def pack(self, data: bytes) -> None:
        """Takes the next piece of its pack."""
        if self.failed is not None:
            return
        if self._pack is None:
            self._pack = _PackInto(self.quarantine)
        if not self._pack.take(data):
            # git has ended before the pack did.
            with self.or_fails():
                self.end_pack()

    def end_pack(self) -> None:
        """Waits until the pack was checked, and looks at what it would become."""
        pack, self._pack = self._pack, None
        if pack is None:
            return
        try:
            pack.end()
        except GitError as error:
            raise refused("the objects", self.message.path, error) from error
        self._bound()

    def close(self) -> None:
        """Ends what is at work in its directory."""
        pack, self._pack = self._pack, None
        if pack is not None:
            with contextlib.suppress(GitError, OSError):
                pack.end()

    def _bound(self) -> None:
        git = strict(self.quarantine)
        packs = os.path.join(self.quarantine.directory, b"objects/pack")
        total = 0
        with doing("look at the objects that came"):
            for name in os.listdir(packs):
                if not name.endswith(b".idx"):
                    continue
                at = os.path.join(packs, name)

                def copy(to: BinaryIO, at: bytes = at) -> None:
                    with open(at, "rb") as file:
                        shutil.copyfileobj(file, to)

                listed = git.run("show-index", feed=copy).decode().splitlines()
                ids = [line.split(" ")[1] for line in listed]
                words = ("cat-file", "--buffer", "--batch-check=%(objectsize) %(objectname)")
                for line in git.run(*words, feed=lines(ids)).decode().splitlines():
                    size, _, found = line.partition(" ")
                    if not size.isdigit():
                        raise unsafe(line, "git cannot tell the size of")
                    total += int(size)
                    if int(size) > self.limits.object_bytes or total > self.limits.unpacked_bytes:
                        raise unsafe(found, "is larger than may come")


class Contents:
    """The contents of files, by the numbers of their entries."""

    def __init__(self, incoming: Incoming) -> None:
        self._directory = os.path.join(incoming.directory, b"files")
        with doing("write to the repository"):
            os.mkdir(self._directory)
        self._open: tuple[int, BinaryIO, Any] | None = None
        self._have: dict[int, bytes] = {}

    def at(self, number: int) -> bytes:
        """Where the content of an entry is."""
        return os.path.join(self._directory, b"%d" % number)

    def has(self, number: int) -> bool:
        """Whether the content of an entry has come."""
        return number in self._have

    def digest(self, number: int) -> bytes:
        """SHA-256 of the content of an entry; empty if it has not come."""
        return self._have.get(number, b"")

    def write(self, content: wire.Content) -> None:
        """Takes the next piece."""
        number = content.entry
        with doing("write what came"):
            if self._open is None or self._open[0] != number:
                self.close()
                self._open = (number, open(self.at(number), "xb"), hashlib.sha256())  # noqa: SIM115
            _, file, digest = self._open
            file.write(content.data)
            digest.update(content.data)
            if not content.is_last:
                return
            self.close()
        if digest.digest() != content.sha256:
            raise unsafe(str(number), "is the number of a file whose content is not what its digest says")
        self._have[number] = content.sha256

    def end(self) -> None:
        """Nothing may be half there."""
        if self._open is not None:
            raise Cut

    def close(self) -> None:
        """Lets go of what is half there."""
        opened, self._open = self._open, None
        if opened is not None:
            opened[1].close()
