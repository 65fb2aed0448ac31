"""Takes a workspace that comes from a VM.

    parts ─► judged ─► quarantine: packs by index-pack, contents as numbered files
                           │ all of it is there: connected, of bounded size, states made into commits
                           ▼
           objects move into the store ─► one transaction of references beneath refs/banger/VM/

Until the transaction nothing in the store leads to anything of it; what is left of a landing that was cut is removed by
the next one. The quarantine is a repository that banger writes: nothing of the VM's configuration, hooks or attributes
is in it. Names in references, indexes and trees are the VM's, and are judged; names of files on this machine are never
the VM's. What the references are is in docs/workspaces.md.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from banger._workspace import publish
from banger._workspace.build import Around, Built, build
from banger._workspace.carried import Carried
from banger._workspace.failure import fault, unsafe
from banger._workspace.judge import Cut, Fault, Judge
from banger._workspace.names import is_beneath
from banger._workspace.publish import LandedRepository
from banger._workspace.quarantine import Coming, Contents, Incoming, Limits
from banger._workspace.repository import SHA1, SHA256
from banger._workspace.store import Place, Store, prefix_of
from banger.errors import LocalFileError, WorkspaceError
from banger.workspace import v1 as wire


@dataclass
class Landed:
    """What has landed."""

    repositories: list[LandedRepository]
    """Repositories of the workspace, its own first."""
    notes: list[wire.Note]
    """What the VM said about it."""
    notes_left_out: int
    """Notes that were left out because there were too many."""
    state: bytes
    """Digest of the VM's state; empty where files moved while they were read."""

    @property
    def has_loss(self) -> bool:
        """Whether something was done in the VM that did not come."""
        return self.notes_left_out > 0 or any(note.is_loss for note in self.notes)

    @property
    def refs(self) -> dict[str, str]:
        """The references of the workspace's own repository that are there now, with what they lead to."""
        return self.repositories[0].refs

    @property
    def head(self) -> str:
        """The commit that was checked out in the VM; empty for none."""
        return self.repositories[0].head


class Landing:
    """A workspace that is coming. As a context manager it takes away what it needed on the way."""

    def __init__(self, place: Place, vm: str, base: wire.Base, limits: Limits) -> None:
        """Begins; what is left of landings that were cut is removed. `base` is what was asked for."""
        self._place = place
        self._vm = vm
        self._prefix = prefix_of(vm)
        self._base = base
        self._limits = limits
        self._judge = Judge(limits.max_bytes)
        self._repositories: list[Coming] = []
        # Paths of repositories inside that came and cannot land.
        self._refused: list[bytes] = []
        self._entries = 0
        self._notes: list[wire.Note] = []
        self._end = wire.End()
        # One thing at a time, and nothing after the end: a thread may be at work when its caller has gone.
        self._lock = threading.Lock()
        self._is_closed = False
        # What is remembered of a directory without git.
        self._carried = Carried(place.store, vm).read() if place.repository is None else None
        self._incoming = Incoming(place.store)
        self._contents = Contents(self._incoming)

    def __enter__(self) -> Landing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes away what it needed on the way. What is at work in its directory ends first."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            for coming in self._repositories:
                coming.close()
            self._contents.close()
            self._incoming.close()

    def part(self, part: wire.Part) -> None:
        """Takes the next part.

        Raises:
            UnsafeWorkspace: If it is not allowed or damaged. Nothing of the landing is used then.
        """
        with self._lock:
            if not self._is_closed:
                self._part(part)

    def _part(self, part: wire.Part) -> None:
        try:
            self._judge.part(part)
        except Fault as error:
            raise fault(error) from error
        which = part.WhichOneof("part")
        if which == "repository":
            self._begin(part.repository)
        elif which == "refs":
            self._repositories[-1].refs.extend(part.refs.refs)
        elif which == "index":
            self._repositories[-1].index.extend(part.index.entries)
        elif which == "pack":
            self._repositories[-1].pack(part.pack.data)
        elif which == "entries":
            self._repositories[-1].entries.extend(enumerate(part.entries.entries, self._entries))
            self._entries += len(part.entries.entries)
        elif which == "manifest_end":
            self._check_nesting()
        elif which == "content":
            self._contents.write(part.content)
        elif which == "note":
            self._notes.append(part.note)
        else:
            self._end = part.end

    def _begin(self, message: wire.Repository) -> None:
        number = len(self._repositories)
        taken = [coming.store for coming in self._repositories]
        failed = None
        try:
            store, is_own = self._place.store_for(self._vm, message, taken)
            # What the owner's history is cut at the owner says: that of a VM must go on from there.
            quarantine = self._incoming.quarantine(number, store, message.shallow if is_own else ())
        except (WorkspaceError, LocalFileError) as error:
            if not message.path:
                raise
            # What comes for it goes with the quarantine.
            failed, is_own = error, True
            store = quarantine = self._incoming.scrap(number, SHA256 if message.object_format == SHA256 else SHA1)
        self._repositories.append(Coming(message, store, is_own, quarantine, self._limits, failed=failed))

    def _check_nesting(self) -> None:
        """A repository's entries lie in it and in none inside it: which tree they belong to is never in doubt."""
        places = {coming.message.path for coming in self._repositories} - {b""}
        for coming in self._repositories:
            inside = {place for place in places if is_beneath(place, coming.message.path)}
            if not inside:
                continue
            for _, entry in coming.entries:
                parts = entry.path.split(b"/")
                if any(b"/".join(parts[:depth]) in inside for depth in range(1, len(parts))):
                    raise unsafe(entry.path, "lies in another repository than it says")

    def finish(self) -> Landed:
        """Checks all of it, and puts it into the stores. A repository inside that cannot land is left out, and told by
        a note.

        Raises:
            UnsafeWorkspace: If the stream was cut, or anything of the workspace's own that came is damaged. Nothing has
                landed then.
        """
        with self._lock:
            if self._is_closed:
                raise fault(Cut())
            return self._finish()

    def _finish(self) -> Landed:
        try:
            self._judge.end()
            self._contents.end()
        except Cut as error:
            raise fault(error) from error
        for coming in list(self._repositories):
            with coming.or_fails():
                coming.end_pack()
            if coming.failed is not None:
                self._refuse(coming, coming.failed)
        self._notes += self._take_missing()
        while True:
            try:
                built = self._built()
                with publish.locked(self._place.store):
                    repositories = publish.publish(self._repositories, built, self._vacated(), self._prefix)
            except publish.CannotLand as error:
                self._refuse(error.coming, error.cause)
            else:
                return Landed(repositories, self._notes, max(self._end.notes_left_out, 0), self._end.state)

    def _refuse(self, coming: Coming, error: WorkspaceError | LocalFileError) -> None:
        """Leaves a repository inside out, with a note that says why; the workspace's own is not left out."""
        path = coming.message.path
        if not path:
            raise error
        self._repositories.remove(coming)
        coming.close()
        self._refused.append(path)
        detail = f"it could not land here: {error}"
        note = wire.Note(kind=wire.Note.KIND_BROKEN_REPOSITORY, path=path, detail=detail, is_loss=True)
        self._notes.append(note)

    def _built(self) -> list[Built]:
        """All that came, checked and made into commits."""
        is_whole = self._end.notes_left_out <= 0 and not any(note.is_loss for note in self._notes)
        # What is in this state may be replaced in the VM: only if all of it is here.
        state = self._end.state if is_whole else b""
        heads = {base.path: base.head_commit for base in self._base.repositories}
        inside = [coming.message.path for coming in self._repositories if coming.message.path]
        around = Around(
            inside=[*inside, *self._refused],
            state=state,
            notes=self._notes,
            notes_left_out=self._end.notes_left_out,
            carried=self._carried,
            is_directory=self._place.repository is None,
        )
        built = []
        # The workspace's own last: it tells of those inside that could not.
        for coming in reversed(self._repositories):
            with publish.of(coming):
                built.append(build(coming, self._contents, heads.get(coming.message.path, ""), around))
        return built[::-1]

    def _vacated(self) -> Store | None:
        """The directory's own store, where what comes does not go there: the directory is a repository in the VM by
        now, and what came before is not what is there.
        """
        store = self._place.store
        is_taken = any(coming.store.directory == store.directory for coming in self._repositories)
        return store if self._place.repository is None and not is_taken else None

    def _take_missing(self) -> list[wire.Note]:
        """Takes the files out whose content did not come. Each must be told; those that are not are told here."""
        told = {note.path for note in self._notes if note.is_loss}
        missing = []
        for coming in self._repositories:
            kept = []
            for number, entry in coming.entries:
                if entry.kind != wire.Entry.KIND_FILE or self._contents.has(number):
                    kept.append((number, entry))
                elif entry.path not in told:
                    missing.append(entry.path)
            coming.entries = kept
        detail = "its content did not come"
        return [wire.Note(kind=wire.Note.KIND_MOVED, path=path, detail=detail, is_loss=True) for path in missing]
