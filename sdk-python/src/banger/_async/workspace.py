"""Workspaces: a repository of this machine into a VM, and what was done there back."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from banger import _methods, errors, v1
from banger._async import _io
from banger._async._call import Caller, Outgoing, new_request_id
from banger._workspace import collect, failure, judge
from banger._workspace.apply import Applied, Apply, How
from banger._workspace.carried import Carried
from banger._workspace.encoding import ENCODINGS, Encoder, decode
from banger._workspace.land import Landed, Landing
from banger._workspace.plain import AppliedFiles, Both, go_back
from banger._workspace.plain import apply_files as apply_plain
from banger._workspace.quarantine import Limits
from banger._workspace.repository import LocalRepository
from banger._workspace.store import Place, store_of_directory
from banger.workspace import v1 as wire

_PREPARE = "PrepareWorkspace"
_EXPORT = "ExportWorkspace"

Progress = Callable[[int], object]


@dataclass(frozen=True)
class Prepared:
    """A workspace is in a VM."""

    path: str
    """Where, as an absolute path."""
    notes: list[wire.Note]
    """What could not be collected here or made there, and what else the caller must know."""
    top: Path
    """The top of what was carried."""
    is_git: bool
    """Whether that is a repository."""

    @property
    def has_loss(self) -> bool:
        """Whether something did not go along."""
        return any(note.is_loss for note in self.notes)


class Workspace:
    """A workspace of a VM. What `prepare` carried is what `export` and `status` are about."""

    def __init__(self, caller: Caller, vm: str, name: str, path: str = "", user: str = "") -> None:
        self._caller = caller
        self._vm = vm
        self._name = name
        self._user = user
        self.path = path
        """Where it is in the VM; empty until it is known."""
        self._top: Path | None = None

    @property
    def _is_remote(self) -> bool:
        """Whether contents go over a network: then they are encoded where both sides can."""
        return self._caller.channel.address.socket is None

    def __repr__(self) -> str:
        return f"<banger.Workspace {self._name}:{self.path}>"

    async def _place(self, here: str | os.PathLike[str], plain: bool) -> str:
        """Where it is in the VM: by itself beneath the user's home, by the name of the directory here."""
        if not self.path:

            def top() -> bytes:
                found = None if plain else LocalRepository.find(os.fsencode(here))
                return found.top if found is not None else os.path.realpath(os.fsencode(here))

            name = os.path.basename(await _io.blocking(top))
            try:
                self.path = name.decode()
            except UnicodeDecodeError:
                raise ValueError("the directory's name cannot be one in the VM: give a path") from None
            if not self.path:
                raise ValueError("the directory has no name: give a path")
        return self.path

    async def prepare(
        self,
        source: str | os.PathLike[str] = ".",
        *,
        revision: str | None = None,
        depth: int = 0,
        branches: Sequence[str] = (),
        include: Sequence[str] = (),
        plain: bool = False,
        overwrite: bool = False,
        author: tuple[str, str] | None = None,
        on_progress: Progress | None = None,
        request_id: str | uuid.UUID | None = None,
    ) -> Prepared:
        """Carries the repository or directory that `source` lies in into the VM: the same commits, branches and tags,
        the same branch checked out, the same `git status`. Nothing is written here. A repeat sends only what is new.

        With `revision` the tree of that commit without what is not committed; with `depth` only so many commits back;
        `branches` instead of all. `include` are patterns of ignored files that go along; `plain` takes the directory as
        it is. What is in the VM already is replaced if nothing was done in it, or all of that was exported to here;
        `overwrite` replaces it all the same. `author` is name and address of commits that are made there.

        When the connection breaks it is begun anew, and what the VM has by then is not sent again. `on_progress` is
        called with the bytes of packs and contents that were sent. The tree in the VM changes at once when all has
        come, or not at all.

        Raises:
            WorkspaceError: If it cannot be read here.
        """
        options = collect.Options(revision, depth, tuple(branches), tuple(include), plain)
        start = v1.PrepareWorkspaceStart(
            vm=self._vm,
            user=self._user,
            path=await self._place(source, plain),
            overwrite=overwrite,
            request_id=new_request_id(request_id),
        )
        state, known_author = await _io.blocking(_told_here, source, self._name, plain)
        start.replaces_state = state
        if author is not None or known_author is not None:
            start.author_name, start.author_email = author or known_author or ("", "")
        retry = self._caller.retry()
        while True:
            try:
                prepared = await self._prepare_once(start, source, options, on_progress)
            except (errors.ConnectionLost, errors.RefusedError) as error:
                await retry.after(error)
                continue
            self._top = prepared.top
            self.path = prepared.path
            return prepared

    async def _prepare_once(
        self,
        start: v1.PrepareWorkspaceStart,
        source: str | os.PathLike[str],
        options: collect.Options,
        on_progress: Progress | None,
    ) -> Prepared:
        collected = await _io.blocking(collect.Source, source, options)
        outgoing = Outgoing()
        stream = self._caller.channel.stream(_methods.PREPARE_WORKSPACE, outgoing.messages())
        stream.when_over(outgoing.stop)
        sent = 0
        encoder = Encoder()

        async def send(parts: Iterator[wire.Part]) -> None:
            nonlocal sent

            def following() -> tuple[wire.Part, int] | None:
                part = next(parts, None)
                if part is None:
                    return None
                size = _size(part)
                encoder.encode(part)
                return part, size

            try:
                while (found := await _io.blocking(following)) is not None:
                    part, size = found
                    if not await outgoing.put(v1.PrepareWorkspaceRequest(part=part)):
                        return  # the answer says why
                    sent += size
                    if on_progress is not None:
                        on_progress(sent)
            finally:
                await _io.blocking(parts.close)  # type: ignore[attr-defined]

        try:
            await outgoing.put(v1.PrepareWorkspaceRequest(start=start))
            known: list[wire.KnownRepository] = []
            count = 0
            is_done = False
            while not is_done:
                message = await self._answer(stream, "known")
                if message.WhichOneof("message") == "prepared":
                    # The same request was done before.
                    return self._prepared(message.prepared, collected)
                count = _judged(judge.check_known, message.known, count)
                known.extend(message.known.repositories)
                is_done = message.known.is_last
            if self._is_remote:
                encoder = Encoder(message.known.encodings)
            await send(collected.manifest(known))
            needed: list[int] = []
            is_done = False
            while not is_done:
                message = await self._answer(stream, "needed")
                needed.extend(message.needed.entries)
                is_done = message.needed.is_last
            # From here on the VM may have it.
            carried = await _io.blocking(_carried, collected, self._name)
            await send(collected.contents(needed))
            outgoing.end()
            prepared = self._prepared((await self._answer(stream, "prepared")).prepared, collected)
            if carried is not None:
                await _io.blocking(_remember, carried, collected)
            return prepared
        finally:
            outgoing.stop()
            stream.cancel()

    @staticmethod
    def _prepared(prepared: v1.PreparedWorkspace, collected: collect.Source) -> Prepared:
        _judged(judge.check_notes, prepared.notes)
        notes = [*collected.notes, *prepared.notes]
        return Prepared(prepared.path, notes, Path(os.fsdecode(collected.top)), collected.is_git)

    @staticmethod
    async def _answer(stream: _io.Stream[v1.PrepareWorkspaceResponse], wanted: str) -> v1.PrepareWorkspaceResponse:
        """The next answer of this kind."""
        while (message := await stream.read()) is not None:
            which = message.WhichOneof("message")
            if which == wanted or (which == "prepared" and wanted == "known"):
                return message
            if which not in ("heartbeat", "progress_bytes"):
                raise errors.ProtocolError(_PREPARE, f"`{which}` where `{wanted}` was expected")
        raise errors.ConnectionLost(_PREPARE)

    async def export(
        self,
        to: str | os.PathLike[str] | None = None,
        *,
        plain: bool = False,
        since: str | None = None,
        max_bytes: int = Limits.max_bytes,
        on_progress: Progress | None = None,
    ) -> Landed:
        """Brings what was done in the VM to the repository or directory at `to`, by itself where `prepare` carried it
        from: every commit by its own id, what was staged, changed and new, checked, as references beneath
        `refs/banger/VM/`. Your branches, index and files stay as they are; `apply` makes it part of them. What could
        not be brought is among `notes`, and `has_loss` says so.

        With `since`, a commit, tag or branch of the repository here, all comes that this does not lead to, whatever
        came before: also of a repository that was cloned in the VM and never prepared. The VM may have only commits
        before it; where it has none of these, all of its history comes.

        When the connection breaks it is begun anew; until all of it was checked nothing of it is in the repository.

        Raises:
            UnsafeWorkspace: If the VM sent what no honest VM sends, or more than may come. Nothing has landed.
            WorkspaceError: If it cannot land here.
        """
        target = self._target(to)
        path = await self._place(target, plain)
        retry = self._caller.retry()
        while True:
            try:
                return await self._export_once(target, path, plain, since, max_bytes, on_progress)
            except (errors.ConnectionLost, errors.RefusedError) as error:
                await retry.after(error)

    async def _export_once(
        self,
        to: str | os.PathLike[str],
        path: str,
        plain: bool,
        since: str | None,
        max_bytes: int,
        on_progress: Progress | None,
    ) -> Landed:
        prepared = (await self.status(path)).base
        place = await _io.blocking(lambda: Place(to, plain=plain))
        base = await _io.blocking(place.base, self._name, prepared, since)
        accepted = ENCODINGS if self._is_remote else ()
        request = v1.ExportWorkspaceRequest(
            vm=self._vm, user=self._user, path=path, base=base, max_bytes=max_bytes, accepted_encodings=accepted
        )
        landing = await _io.blocking(Landing, place, self._name, base, Limits(max_bytes))
        stream = self._caller.channel.stream(_methods.EXPORT_WORKSPACE, request)
        came = 0

        def take(part: wire.Part) -> int:
            if accepted:
                _judged(decode, part)
            landing.part(part)
            return _size(part)

        try:
            async for part in _parts(stream):
                came += await _io.blocking(take, part)
                if on_progress is not None:
                    on_progress(came)
                if part.WhichOneof("part") == "end":
                    return await _io.blocking(landing.finish)
            raise errors.ConnectionLost(_EXPORT)
        finally:
            stream.cancel()
            await _io.blocking(landing.close)

    async def apply(
        self,
        to: str | os.PathLike[str] | None = None,
        *,
        how: How = "fast-forward",
        commits_only: bool = False,
        onto_current: bool = False,
    ) -> Applied:
        """Makes what `export` has brought part of the branch and files of the repository at `to`, by itself where
        `prepare` carried it from. The branch only moves forward, unless `how` says how both sides' commits become
        one: `merge`, `rebase`, or `patch`, which stages all changes without the commits. What was not committed in
        the VM is then staged and changed here, but for `commits_only`; `onto_current` applies to the branch that is
        checked out, though the VM had another. No hook, filter or merge driver runs.

        The state before is kept: `way_back` are the commands that lead back. `conflicts` are left as git leaves them;
        where they kept what was not committed out, `left_out` are the commands that bring it.

        Raises:
            ApplyRefused: If something of yours is in the way; nothing was changed.
            ApplyHalfway: If it fails when something may have been changed; it has `way_back` too.
            WorkspaceError: If nothing was exported, or it cannot be done here.
        """
        target = self._target(to)

        def run() -> Applied:
            repository = LocalRepository.find(os.fsencode(target))
            if repository is None:
                raise failure.no_repository(os.fsencode(target))
            return Apply(repository, self._name, how, commits_only=commits_only, onto_current=onto_current).run()

        return await _io.blocking(run)

    async def apply_files(
        self, to: str | os.PathLike[str] | None = None, *, both: Both = "refuse", plain: bool = False
    ) -> AppliedFiles:
        """The same for a directory without git (or, with `plain`, taken for one): files that were changed in the VM
        alone are changed here, those that were changed here alone stay. Where a file was changed on both sides, each
        otherwise, nothing is applied, unless `both` says whose it is to be, `mine` or `theirs`. `go_back` puts back
        what was there.

        Raises:
            ApplyRefused: If something of yours is in the way; nothing was changed.
            WorkspaceError: If nothing was exported, or it cannot be done here.
        """
        return await self._files(to, plain, lambda place: apply_plain(place, self._name, both))

    async def go_back(
        self, before: str, to: str | os.PathLike[str] | None = None, *, both: Both = "refuse", plain: bool = False
    ) -> AppliedFiles:
        """Puts back what was in a directory without git before an `apply_files`: `before` is what that told. Files that
        were changed since are not touched, unless `both` says `theirs`.

        Raises:
            ApplyRefused: If what was applied was changed since; nothing was changed.
        """
        return await self._files(to, plain, lambda place: go_back(place, self._name, before, both))

    def _target(self, to: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
        """Where `prepare` carried it from, unless it is said otherwise."""
        return to if to is not None else self._top if self._top is not None else "."

    async def _files(
        self, to: str | os.PathLike[str] | None, plain: bool, work: Callable[[Place], AppliedFiles]
    ) -> AppliedFiles:
        target = self._target(to)

        def run() -> AppliedFiles:
            place = Place(target, plain=plain)
            if place.repository is not None:
                raise failure.is_repository(place.top)
            return work(place)

        return await _io.blocking(run)

    async def status(
        self, path: str = "", *, since: str | None = None, to: str | os.PathLike[str] | None = None
    ) -> v1.GetWorkspaceStatusResponse:
        """How it differs from what was prepared, without bringing it: `status` is what an export would bring, `base`
        what it is compared with. With `since` from that commit of the repository at `to`, by itself where `prepare`
        carried it from.

        Raises:
            WorkspaceError: If the commit is none of that repository.
        """
        target = self._target(to)
        path = path or await self._place(target, False)
        base = None
        if since is not None:
            prepared = (await self.status(path)).base
            base = await _io.blocking(lambda: Place(target).base(self._name, prepared, since))
        request = v1.GetWorkspaceStatusRequest(vm=self._vm, user=self._user, path=path, base=base)
        answer = await self._caller.repeat(_methods.GET_WORKSPACE_STATUS, request)
        _judged(judge.check_status, answer.status)
        _judged(judge.check_base, answer.base)
        return answer


def _size(part: wire.Part) -> int:
    """Its bytes of a pack or a content, as they are."""
    return len(part.pack.data) + len(part.content.data)


async def _parts(stream: _io.Stream[v1.ExportWorkspaceResponse]) -> AsyncIterator[wire.Part]:
    while (message := await stream.read()) is not None:
        if message.WhichOneof("message") == "part":
            yield message.part


def _judged(check: Callable[..., Any], *arguments: Any) -> Any:
    """What the daemon passed on from the VM is judged here too."""
    try:
        return check(*arguments)
    except judge.Fault as error:
        raise failure.fault(error) from error


def _told_here(source: str | os.PathLike[str], vm: str, plain: bool) -> tuple[bytes, tuple[str, str] | None]:
    """The state that was exported last, and who makes commits here. That neither is known is no failure."""
    try:
        place = Place(source, plain=plain)
        return place.exported_state(vm), place.repository.identity() if place.repository is not None else None
    except errors.BangerError:
        return b"", None


def _carried(source: collect.Source, vm: str) -> Carried | None:
    """Remembers that a directory without git is about to be sent. Nothing is lost where that cannot be: what is not
    known to be as it was carried, no apply overwrites.
    """
    entries = source.plain_entries
    if entries is None:
        return None
    try:
        carried = Carried(store_of_directory(source.top), vm)
        carried.sending(entries)
    except errors.BangerError:
        return None
    return carried


def _remember(carried: Carried, source: collect.Source) -> None:
    with contextlib.suppress(errors.BangerError):
        carried.sent(source.plain_entries or ())
