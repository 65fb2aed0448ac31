"""Collects a workspace here, to be sent into a VM.

Nothing is written to the repository: no index is refreshed, no lock is taken, no hook or filter runs. Files that a
filter makes (LFS, git-crypt) are told as the repository has them. Of the configuration only what says how files are
made of objects goes along: no remotes, no credentials.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, TypeVar

from banger._workspace import history, limits
from banger._workspace.compare import Index, changed
from banger._workspace.failure import doing, moved, no_revision, unsafe
from banger._workspace.git import fields
from banger._workspace.limits import DATA_MAX_BYTES, GITLINK, SETTINGS
from banger._workspace.names import is_object_id, join
from banger._workspace.repository import LocalRepository, find
from banger._workspace.walk import Found, FoundKind, Include, Walk, includes, note
from banger.errors import LocalFileError, WorkspaceError
from banger.workspace import v1 as wire

T = TypeVar("T")

# Bytes of a pack before its first object: `PACK`, a version, the count.
_PACK_HEADER_BYTES = 12
_SIGNS = (
    (wire.Unfinished.KIND_MERGE, "MERGE_HEAD", "MERGE_HEAD"),
    (wire.Unfinished.KIND_REBASE, "rebase-merge", "rebase-merge/orig-head"),
    (wire.Unfinished.KIND_AM, "rebase-apply", "rebase-apply/orig-head"),
    (wire.Unfinished.KIND_CHERRY_PICK, "CHERRY_PICK_HEAD", "CHERRY_PICK_HEAD"),
    (wire.Unfinished.KIND_REVERT, "REVERT_HEAD", "REVERT_HEAD"),
    (wire.Unfinished.KIND_BISECT, "BISECT_LOG", "BISECT_START"),
)


@dataclass(frozen=True)
class Options:
    """What of a workspace is collected."""

    revision: str | None = None
    depth: int = 0
    branches: Sequence[str] = ()
    include: Sequence[str] = ()
    plain: bool = False


@dataclass
class _Head:
    """Where a repository is."""

    name: bytes
    commit: str
    is_working_tree: bool

    @classmethod
    def of(cls, repository: LocalRepository, revision: str | None) -> _Head:
        if revision is None:
            return cls(repository.head_ref(), repository.commit("HEAD") or "", True)
        found = repository.commit(revision)
        if found is None:
            raise no_revision(revision)
        with doing("look up a revision"):
            full = repository.git.run("rev-parse", "--symbolic-full-name", revision).strip()
        return cls(full if full.startswith(b"refs/heads/") else b"", found, False)


@dataclass
class _Surveyed:
    """One of the repositories of a workspace."""

    repository: LocalRepository | None
    message: wire.Repository
    refs: list[wire.Ref] = field(default_factory=list)
    index: list[wire.IndexEntry] = field(default_factory=list)
    tips: list[str] = field(default_factory=list)
    """Objects that must be there: tips, and what only the index has."""
    entries: list[wire.Entry] = field(default_factory=list)

    def parts(self, known: Iterable[str]) -> Iterator[wire.Part]:
        """What is sent of it; objects that `known` commits lead to are left out."""
        yield wire.Part(repository=self.message)
        for refs in _batches(self.refs, lambda one: len(one.name) + len(one.object_id) + len(one.symbolic_target)):
            yield wire.Part(refs=wire.Refs(refs=refs))
        for index in _batches(self.index, lambda one: len(one.path) + len(one.object_id)):
            yield wire.Part(index=wire.IndexEntries(entries=index))
        yield from self._pack(known)
        for entries in _batches(self.entries, lambda one: len(one.path) + len(one.link_target) + len(one.sha256)):
            yield wire.Part(entries=wire.Entries(entries=entries))

    def _pack(self, known: Iterable[str]) -> Iterator[wire.Part]:
        if self.repository is None or not self.tips:
            return
        have = history.existing(self.repository, known)
        words = ["pack-objects", "--revs", "--thin", "--stdout", "--delta-base-offset", "-q"]
        if self.message.shallow:
            words.append("--shallow")

        def feed(to: BinaryIO) -> None:
            to.writelines(b"--shallow %s\n" % commit.encode() for commit in self.message.shallow)
            to.writelines(tip.encode() + b"\n" for tip in self.tips)
            to.writelines(b"^%s\n" % commit.encode() for commit in have)

        with doing("pack the history"), self.repository.git.pipe(*words, feed=feed) as output:
            piece = output.read(DATA_MAX_BYTES)
            if piece[8:_PACK_HEADER_BYTES] in (b"", bytes(4)):
                return  # nothing is in it
            while piece:
                following = output.read(DATA_MAX_BYTES)
                yield wire.Part(pack=wire.PackData(data=piece, is_last=not following))
                piece = following


class Source:
    """A workspace that was looked through."""

    def __init__(self, path: str | os.PathLike[str], options: Options) -> None:
        """Looks through the workspace that `path` lies in."""
        self._options = options
        self._include: Include | None = includes(options.include)
        self._repositories: list[_Surveyed] = []
        self.notes: list[wire.Note] = []
        """What could not be collected, and what the receiver must know."""
        at = os.fsencode(path)
        found = None if options.plain else find(at)
        with doing("find"):
            self.top = found.top if found is not None else os.path.realpath(at, strict=True)
            """The top of the workspace."""
        self.is_git = found is not None
        """Whether it is a repository."""
        if found is not None:
            self._repository(found, b"", options.revision)
        else:
            self._plain(self.top)
        self._repositories.sort(key=lambda one: one.message.path)

    @property
    def plain_entries(self) -> list[wire.Entry] | None:
        """What is in a directory without git, as it is sent; None of a repository."""
        return None if self.is_git else list(self._repositories[0].entries)

    def manifest(self, known: Iterable[wire.KnownRepository]) -> Iterator[wire.Part]:
        """All but the contents of files; objects that `known` commits lead to are left out."""
        have = {one.path: one.commits for one in known}
        count = 0
        for surveyed in self._repositories:
            self._hash(surveyed)
            # A shallow history that the receiver has may end before this one does.
            yield from surveyed.parts(have.get(surveyed.message.path, ()) if not self._options.depth else ())
            count += len(surveyed.entries)
        yield wire.Part(manifest_end=wire.ManifestEnd(entry_count=count))

    def contents(self, needed: Iterable[int]) -> Iterator[wire.Part]:
        """The contents of the files with these numbers, ascending, and the end."""
        entries = [entry for surveyed in self._repositories for entry in surveyed.entries]
        for number in needed:
            entry = entries[number] if number < len(entries) else None
            if entry is None or entry.kind != wire.Entry.KIND_FILE:
                raise unsafe(str(number), "is the number of no file")
            yield from self._content(number, entry)
        for found in self.notes[: limits.NOTES_MAX]:
            yield wire.Part(note=found)
        yield wire.Part(end=wire.End(notes_left_out=max(len(self.notes) - limits.NOTES_MAX, 0)))

    def _hash(self, surveyed: _Surveyed) -> None:
        """Finds out the digests of a repository's files. What cannot be read is left out, with a note."""
        kept = []
        for entry in surveyed.entries:
            if entry.kind == wire.Entry.KIND_FILE:
                digest = hashlib.sha256()
                size = 0
                try:
                    with self._open(entry.path) as file:
                        while data := file.read(DATA_MAX_BYTES):
                            digest.update(data)
                            size += len(data)
                except OSError as error:
                    is_loss = not isinstance(error, FileNotFoundError)
                    self._note(wire.Note.KIND_UNREADABLE, entry.path, error.strerror or str(error), is_loss)
                    continue
                entry.size = size
                entry.sha256 = digest.digest()
            kept.append(entry)
        surveyed.entries = kept

    def _open(self, path: bytes) -> BinaryIO:
        # A pipe that took the file's place is not waited for.
        descriptor = os.open(os.path.join(self.top, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        file = os.fdopen(descriptor, "rb", buffering=0)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            file.close()
            raise OSError("it is no file any more")
        return file

    def _content(self, number: int, entry: wire.Entry) -> Iterator[wire.Part]:
        digest = hashlib.sha256()
        left = entry.size
        try:
            with self._open(entry.path) as file:
                while True:
                    data = file.read(min(left, DATA_MAX_BYTES)) if left else b""
                    if left and not data:
                        raise moved(entry.path)
                    digest.update(data)
                    left -= len(data)
                    if not left:
                        break
                    yield wire.Part(content=wire.Content(entry=number, data=data))
        except OSError as error:
            raise moved(entry.path) from error
        if digest.digest() != entry.sha256:
            raise moved(entry.path)
        yield wire.Part(content=wire.Content(entry=number, data=data, is_last=True, sha256=digest.digest()))

    def _note(self, kind: wire.Note.Kind, path: bytes, detail: str, is_loss: bool) -> None:
        self.notes.append(note(kind, path, detail, is_loss))

    def _plain(self, top: bytes) -> None:
        """A directory without git."""
        walked = Walk(top, b"", set(), self._include, False).run()
        self.notes += walked.notes
        entries = [entry for one in walked.found if (entry := self._entry(top, b"", one)) is not None]
        message = wire.Repository(kind=wire.Repository.KIND_PLAIN)
        self._repositories.append(_Surveyed(None, message, entries=entries))

    def _repository(self, repository: LocalRepository, prefix: bytes, revision: str | None) -> None:
        """A repository, as its working tree is or at `revision`, and those in it."""
        if len(self._repositories) == limits.REPOSITORIES_MAX:
            self._note(wire.Note.KIND_TOO_LARGE, prefix, "too many repositories in one workspace", True)
            return
        head = _Head.of(repository, revision)
        surveyed = self._begin(repository, prefix, head)
        nested = self._working_tree(repository, prefix, head, surveyed) if head.is_working_tree else []
        tips = [found.object_id for found in surveyed.refs]
        if head.commit:
            tips.append(head.commit)
        surveyed.message.shallow.extend(history.boundary(repository, tips, self._options.depth))
        surveyed.tips += tips
        self._repositories.append(surveyed)
        for inside in nested:
            self._nested(repository.top, prefix, inside)
        if not head.is_working_tree:
            for inside, commit in _gitlinks(repository, head.commit):
                self._submodule(repository.top, prefix, inside, commit)

    def _begin(self, repository: LocalRepository, prefix: bytes, head: _Head) -> _Surveyed:
        settings = {}
        for name, values in SETTINGS.items():
            value = (repository.setting(name) or "").lower()
            if value in values:
                settings[name] = value
        message = wire.Repository(
            path=prefix,
            kind=wire.Repository.KIND_GIT,
            object_format=repository.object_format,  # type: ignore[arg-type]
            head_ref=head.name,
            head_commit=head.commit,
            unfinished=_unfinished(repository) if head.is_working_tree else [],
            settings=settings,
        )
        refs = history.refs(repository, self._options.branches, self._options.depth, not prefix)
        # The branch that is checked out goes along, whichever were chosen.
        if head.name and head.commit and all(found.name != head.name for found in refs):
            refs.append(wire.Ref(kind=wire.Ref.KIND_REF, name=head.name, object_id=head.commit))
            refs.sort(key=lambda one: one.name)
        return _Surveyed(repository, message, refs)

    def _working_tree(
        self, repository: LocalRepository, prefix: bytes, head: _Head, surveyed: _Surveyed
    ) -> list[bytes]:
        """What is not committed. Returns the directories with repositories of their own."""
        index = Index.read(repository)
        surveyed.index = _staged(repository, head, index)
        surveyed.tips += [entry.object_id for entry in surveyed.index if entry.mode not in (0, GITLINK)]
        walked = Walk(repository.top, prefix, _ignored(repository), self._include, True).run()
        self.notes += walked.notes
        differing = changed(repository, index, walked.found)
        nested = []
        entries = []
        for number, one in enumerate(walked.found):
            tracked = index.entries.get(one.path)
            if one.kind is FoundKind.REPOSITORY:
                nested.append(one.path)
                continue
            if one.kind is FoundKind.EMPTY_DIRECTORY:
                is_same = tracked is not None and tracked.mode == GITLINK
            else:
                is_same = tracked is not None and number not in differing.numbers
            if not is_same and (entry := self._entry(repository.top, prefix, one)) is not None:
                entries.append(entry)
        entries += [wire.Entry(path=join(prefix, path), kind=wire.Entry.KIND_REMOVED) for path in differing.missing]
        surveyed.entries = sorted(entries, key=lambda entry: entry.path)
        return nested

    def _entry(self, top: bytes, prefix: bytes, found: Found) -> wire.Entry | None:
        """What is at a path; digests come when it is sent."""
        entry = wire.Entry(path=join(prefix, found.path), mode=found.mode)
        if found.kind is FoundKind.FILE:
            entry.kind = wire.Entry.KIND_FILE
            entry.size = found.size
        elif found.kind is FoundKind.SYMLINK:
            try:
                entry.link_target = os.readlink(os.path.join(top, found.path))
            except OSError as error:
                self._note(wire.Note.KIND_UNREADABLE, entry.path, error.strerror or str(error), True)
                return None
            entry.kind = wire.Entry.KIND_SYMLINK
            entry.mode = 0o777
        else:
            entry.kind = wire.Entry.KIND_DIRECTORY
        return entry

    def _nested(self, top: bytes, prefix: bytes, inside: bytes) -> None:
        """A repository in the working tree of another."""
        place = join(prefix, inside)
        try:
            repository = LocalRepository.exactly(os.path.join(top, inside))
        except (WorkspaceError, LocalFileError):
            repository = None
        if repository is None:
            self._note(wire.Note.KIND_BROKEN_REPOSITORY, place, "its `.git` is no repository", True)
        elif any(
            one.repository is not None and one.repository.common_dir == repository.common_dir
            for one in self._repositories
        ):
            detail = "another working tree of a repository that is told already"
            self._note(wire.Note.KIND_LINKED_WORKTREE, place, detail, False)
        else:
            self._repository(repository, place, None)

    def _submodule(self, top: bytes, prefix: bytes, inside: bytes, commit: str) -> None:
        at = os.path.join(top, inside)
        if not os.path.exists(os.path.join(at, b".git")):
            return
        place = join(prefix, inside)
        repository = LocalRepository.exactly(at)
        if repository is not None and repository.commit(commit) is not None:
            self._repository(repository, place, commit)
        else:
            detail = "the submodule here has not the commit that the revision names"
            self._note(wire.Note.KIND_MISSING_OBJECTS, place, detail, False)


def _staged(repository: LocalRepository, head: _Head, index: Index) -> list[wire.IndexEntry]:
    """Where the index is not HEAD's tree."""
    conflicts = {path for path, _, _ in index.conflicts}
    staged = [
        wire.IndexEntry(path=path, mode=entry.mode, object_id=entry.id, stage=stage)
        for path, stage, entry in index.conflicts
    ]
    if not head.commit:
        staged += [
            wire.IndexEntry(path=path, mode=entry.mode, object_id=entry.id) for path, entry in index.entries.items()
        ]
    else:
        words = ("--cached", "--raw", "-z", "--no-renames", "--no-abbrev", "--ignore-submodules=dirty", head.commit)
        with doing("read the index"):
            told = fields(repository.git.run("diff-index", *words))
        for what, path in zip(told[::2], told[1::2], strict=False):
            # `:old-mode new-mode old-id new-id status`
            parts = what.decode().split(" ")
            mode = int(parts[1], 8)
            if mode:
                staged.append(wire.IndexEntry(path=path, mode=mode, object_id=parts[3]))
            elif path not in conflicts:
                staged.append(wire.IndexEntry(path=path))
    return sorted(staged, key=lambda entry: (entry.path, entry.stage))


def _ignored(repository: LocalRepository) -> set[bytes]:
    """Ignored files, and directories in which all is ignored."""
    git = repository.git
    excludes = repository.excludes()
    if excludes is not None:
        git = git.with_setting(b"core.excludesFile=" + excludes)
    with doing("list what is ignored"):
        words = ("--others", "--ignored", "--exclude-standard", "--directory", "-z")
        return {path.removesuffix(b"/") for path in fields(git.run("ls-files", *words))}


def _gitlinks(repository: LocalRepository, commit: str) -> list[tuple[bytes, str]]:
    """The submodules of a commit."""
    with doing("read a tree"):
        answer = repository.git.run("ls-tree", "-r", "-z", commit)
    found = []
    for line in fields(answer):
        what, _, path = line.partition(b"\t")
        if what.startswith(b"160000 commit "):
            found.append((path, what.removeprefix(b"160000 commit ").decode()))
    return found


def _unfinished(repository: LocalRepository) -> list[wire.Unfinished]:
    """Merges, rebases and the like that have not ended."""
    at = os.fsdecode(repository.git_dir)
    found = []
    for kind, sign, file in _SIGNS:
        if not os.path.exists(os.path.join(at, sign)):
            continue
        try:
            with open(os.path.join(at, file), encoding="ascii", errors="replace") as told:
                ids = [line.strip() for line in told.read(1 << 20).splitlines()]
        except OSError:
            ids = []
        ids = [text for text in ids if is_object_id(text)][: limits.UNFINISHED_COMMITS_MAX]
        found.append(wire.Unfinished(kind=kind, commits=ids))
    return found


def _batches(items: Sequence[T], weight: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """`items` in runs that fit a message."""
    batch: list[T] = []
    size = 0
    for item in items:
        size += weight(item) + 16
        if batch and (len(batch) == limits.MESSAGE_ITEMS or size > limits.MESSAGE_NAMES_BYTES):
            yield batch
            batch = []
            size = weight(item) + 16
        batch.append(item)
    if batch:
        yield batch
