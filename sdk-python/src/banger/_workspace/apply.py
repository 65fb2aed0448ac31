"""Applies what has landed to the owner's branch and working tree, when the owner asks for it.

Before anything is changed it is made sure that nothing of the owner's is in the way: no file that has uncommitted
work is touched, not even where git was told not to look at it, and no file that git does not track, ignored ones among
them, is overwritten. Then a way back is written: a reference to the commit that was there, and one to a stash of the
uncommitted work. Hooks, filters and merge drivers do not run, whatever the repository's configuration says: they may be
files of the tree that comes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from banger._workspace.failure import doing, nothing_landed, refuse
from banger._workspace.git import Argument, Feed, Git, GitFailed, fields, lines
from banger._workspace.hidden import check_hidden
from banger._workspace.names import is_beneath, shown
from banger._workspace.programs import included, without_programs
from banger._workspace.publish import Transaction, moment
from banger._workspace.repository import SHA256, LocalRepository
from banger._workspace.store import Store, prefix_of
from banger.errors import ApplyHalfway, BangerError

How = Literal["fast-forward", "merge", "rebase", "patch"]
"""How commits become the branch's: only forward, by a merge, each anew upon what is here, or as changes without
commits.
"""
Done = Literal["nothing", "fast-forwarded", "merged", "rebased", "patched"]
"""What became of the commits."""

# In a git directory: what is left to do where a cherry-pick of several commits has stopped. A reset does not end it.
_PICKS_LEFT = "sequencer/todo"
_UNDER_WAY = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    _PICKS_LEFT: "a cherry-pick or a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
}
# More than the name of an object takes.
_ID_MAX_BYTES = 128
_EMPTY_SHA1 = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_EMPTY_SHA256 = "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"


@dataclass
class Applied:
    """What was applied."""

    commits: Done
    """What became of the commits."""
    onto: str
    """The branch or commit that it went to."""
    uncommitted: bool = False
    """Uncommitted work of the VM is in the working tree."""
    conflicts: list[str] = field(default_factory=list)
    """Paths in conflict, escaped; git waits for them to be resolved."""
    before: str | None = None
    """The reference to the commit that was there."""
    stash: str | None = None
    """The reference to the stash of uncommitted work that was there."""
    way_back: list[str] = field(default_factory=list)
    """Commands that lead back."""
    left_out: list[str] = field(default_factory=list)
    """Commands that bring the VM's uncommitted work once the conflicts are resolved, where those kept it out."""


class Apply:
    """What has landed from a VM, about to become part of a repository."""

    def __init__(
        self, repository: LocalRepository, vm: str, how: How, *, commits_only: bool = False, onto_current: bool = False
    ) -> None:
        self._repository = repository
        self._store = Store(repository.common_dir, repository.object_format)
        self._vm = vm
        self._prefix = prefix_of(vm)
        self._how = how
        self._commits_only = commits_only
        self._onto_current = onto_current
        self._refs = {name.removeprefix(self._prefix): found for name, found in self._store.refs(self._prefix)}
        if "state/landing" not in self._refs:
            raise nothing_landed(vm)
        self._git = _users(repository)

    def run(self) -> Applied:
        """Applies it.

        Raises:
            ApplyRefused: If something of the owner's is in the way; nothing was changed.
            ApplyHalfway: If it fails when something may have been changed.
        """
        self._check_idle()
        onto = self._check_branch()
        own, theirs = self._repository.commit("HEAD"), self._refs.get("HEAD")
        plan = self._plan(own, theirs)
        stash = None if self._commits_only or plan == "patched" else self._refs.get("state/worktree")
        touched = self._touched(plan, own, theirs, stash)
        self._check_free(own, touched)
        applied = Applied(plan, onto)
        if plan == "nothing" and stash is None:
            return applied
        check_hidden(self._git, self._repository, self._store, touched)
        self._keep(own, applied)
        try:
            self._change(own, theirs or "", stash, applied)
        except BangerError as error:
            self._end_picks(applied)
            if not applied.way_back:
                raise
            raise ApplyHalfway(error, applied.way_back) from error
        self._end_picks(applied)
        return applied

    def _change(self, own: str | None, theirs: str, stash: str | None, applied: Applied) -> None:
        """Changes the branch, the index and the files."""
        self._commits(applied.commits, own, theirs)
        applied.conflicts = self._conflicts()
        if stash is None:
            applied.uncommitted = applied.commits == "patched"
        elif applied.conflicts:
            applied.left_out.append(f"git stash apply --index {self._prefix}state/worktree")
        else:
            self._unstash(stash)
            applied.uncommitted = True
            applied.conflicts = self._conflicts()

    def _end_picks(self, applied: Applied) -> None:
        """What leads back ends a cherry-pick that stopped, too."""
        if os.path.exists(os.path.join(self._repository.git_dir, _PICKS_LEFT.encode())):
            applied.way_back.insert(0, "git cherry-pick --quit")

    def _check_idle(self) -> None:
        """Nothing is going on that would have to end first."""
        for sign, what in _UNDER_WAY.items():
            if os.path.exists(os.path.join(self._repository.git_dir, sign.encode())):
                raise refuse(
                    f"{what} is going on in `{shown(self._repository.top)}`",
                    "End it first (`git status` says how), then apply again.",
                )

    def _check_branch(self) -> str:
        """The branch that is checked out here is the one that was in the VM, or the VM's is new."""
        here = self._repository.head_ref().decode(errors="replace")
        there = self._store.blob(f"{self._prefix}state/landing:head").decode(errors="replace")
        onto = here.removeprefix("refs/heads/") or "HEAD"
        is_other = there not in ("", here) and self._repository.resolve(there) is not None
        if is_other and not self._onto_current:
            branch = there.removeprefix("refs/heads/")
            raise refuse(
                f"the VM worked on branch `{branch}`, and `{onto}` is checked out here",
                f"Change to it (`git switch {branch}`), or apply to `{onto}` with onto_current.",
            )
        return onto

    def _plan(self, own: str | None, theirs: str | None) -> Done:
        if self._how == "patch":
            return "patched"
        if own is None or theirs is None:
            return "nothing" if theirs is None else "fast-forwarded"
        with doing("compare the histories"):
            if self._git.test("merge-base", "--is-ancestor", theirs, own):
                return "nothing"
            if self._git.test("merge-base", "--is-ancestor", own, theirs):
                return "fast-forwarded"
            if self._how == "merge":
                return "merged"
            if self._how == "rebase":
                if self._git.run("rev-list", "--merges", "-1", f"{own}..{theirs}"):
                    raise refuse(
                        "the VM's commits have merges among them, which a rebase would lose", "Apply with merge."
                    )
                return "rebased"
        raise refuse(
            f"there are commits here that VM `{self._vm}` has not",
            "Choose how both become one: merge, rebase, or patch for the changes without the commits.",
        )

    def _touched(self, plan: Done, own: str | None, theirs: str | None, stash: str | None) -> set[bytes]:
        """The paths that the plan would write to.

        What differs between the first and the last tree is not all. A commit in between may make a file that a later
        one removes; and git carries a change to where a file, or its directory, was renamed on the other side. So each
        merge that git would make is made before, among objects alone. Where git cannot, because it is older than 2.38
        or the histories have nothing in common, changes must not follow directories that were renamed, and may follow
        each file that was changed here.
        """
        picks = self._picks(own, theirs or "") if plan == "rebased" and own is not None else []
        touched = self._differing(plan, own, theirs or "", picks)
        if stash is not None:
            touched |= self._between(f"{stash}^1", stash)
            untracked = self._repository.resolve(f"{stash}^3")
            if untracked is not None:
                touched |= self._between("", untracked)
        if own is None or plan == "patched":
            return touched
        written = self._written(plan, own, theirs or "", picks, stash)
        if written is None:
            self._git = self._git.with_setting(b"merge.directoryRenames=false")
            written = self._between(self._merge_base(own, theirs) if theirs else "", own)
        return touched | written

    def _differing(
        self, plan: Done, own: str | None, theirs: str, picks: Sequence[tuple[str, str | None]]
    ) -> set[bytes]:
        """What the commits change, wherever it goes."""
        if plan == "nothing":
            return set()
        if plan == "patched":
            return self._between(self._patch_base(own), self._patch_end())
        if plan == "rebased":
            words = ("--stdin", "--root", "-r", "-z", "--name-only", "--no-renames", "--no-commit-id")
            feed = lines(commit for commit, _ in picks)
            with doing("read what each commit changes"):
                return set(fields(self._git.run("diff-tree", *words, feed=feed)))
        return self._between(self._merge_base(own, theirs) if own is not None else "", theirs)

    def _picks(self, own: str, theirs: str) -> list[tuple[str, str | None]]:
        """The commits that a rebase makes anew, the first one first, each with the one before it; None is before the
        first of a history.
        """
        with doing("read the history"):
            listed = self._git.run("rev-list", "--reverse", "--parents", f"{own}..{theirs}").decode()
        picks = [line.split(" ") for line in listed.splitlines()]
        return [(ids[0], ids[1] if len(ids) > 1 else None) for ids in picks]

    def _written(
        self, plan: Done, own: str, theirs: str, picks: Sequence[tuple[str, str | None]], stash: str | None
    ) -> set[bytes] | None:
        """The paths that git writes to as it merges, one merge after the other; None where it cannot tell."""
        written: set[bytes] = set()
        now = theirs if plan == "fast-forwarded" else own
        if plan == "merged":
            tree = self._merged(own, theirs)
            if tree is None:
                return None
            written |= self._between(now, tree)
            now = tree
        uncommitted = [] if stash is None else [(stash, f"{stash}^1")]
        for commit, parent in [*picks, *uncommitted]:
            if parent is None:
                return None
            # What is there, as if it had been made of the parent: this makes the parent what both have in common.
            with doing("foresee a merge"):
                ours = self._git.line("commit-tree", "-p", parent, "-m", "before a pick", f"{now}^{{tree}}")
            tree = self._merged(ours, commit)
            if tree is None:
                return None
            written |= self._between(now, tree)
            now = tree
        return written

    def _merged(self, ours: str, theirs: str) -> str | None:
        """The tree that git makes of two commits, with files in conflict as it leaves them; None where it cannot
        tell.
        """
        words = ("--write-tree", "-z", "--name-only", "--no-messages")
        said = b""
        with doing("foresee a merge"):
            try:
                with self._git.pipe("merge-tree", *words, ours, theirs) as output:
                    said = output.read(_ID_MAX_BYTES)
                    # The paths in conflict: the tree has them.
                    while output.read(1 << 16):
                        pass
            except GitFailed as error:
                if error.code < 0:
                    raise
                if error.code != 1:
                    return None
        return next((tree.decode() for tree in fields(said)), None)

    def _check_free(self, own: str | None, touched: set[bytes]) -> None:
        """Nothing of the owner's is where something would be written."""
        self._check_included(touched)
        changed = touched & self._dirty(own)
        if changed:
            raise refuse(
                "files that would be changed have uncommitted changes here",
                "Commit or stash them (`git stash`), then apply again.",
                changed,
            )
        in_the_way = self._in_the_way(touched)
        if in_the_way:
            raise refuse(
                "files that git does not track here are where files of the VM go",
                "Move or remove them, then apply again.",
                in_the_way,
            )

    def _check_included(self, touched: set[bytes]) -> None:
        """What the configuration reads stays as it is: another one could name programs to each git that comes after."""
        changed = [
            file
            for file in included(self._git, self._repository.top)
            if file in touched or any(is_beneath(file, at) for at in touched)
        ]
        if changed:
            raise refuse(
                "files that your configuration includes would be changed, and can name programs that git runs",
                "Look at the change. To take it, let the configuration not include them "
                "(`git config --unset include.path`), apply, and include them again.",
                changed,
            )

    def _merge_base(self, one: str, other: str) -> str:
        with doing("compare the histories"):
            return (self._git.optional("merge-base", one, other) or b"").decode().strip()

    def _between(self, start: str, until: str) -> set[bytes]:
        """The paths in which two trees differ; nothing is the empty tree."""
        with doing("compare two trees"):
            if not start:
                return set(fields(self._git.run("ls-tree", "-r", "-z", "--name-only", until)))
            return set(fields(self._git.run("diff-tree", "-r", "-z", "--name-only", "--no-renames", start, until)))

    def _dirty(self, own: str | None) -> set[bytes]:
        """Tracked paths with uncommitted work."""
        words = ("diff", "-z", "--name-only", "--no-renames", "--no-ext-diff", "--ignore-submodules=dirty")
        with doing("look for uncommitted work"):
            return set(fields(self._git.run(*words, own or "--cached")))

    def _in_the_way(self, touched: set[bytes]) -> set[bytes]:
        """Files that are there and not tracked, at paths or where a directory of them must be."""
        with doing("read the index"):
            tracked = set(fields(self._git.run("ls-files", "-z")))
        top = self._repository.top
        found: set[bytes] = set()
        for at in touched:
            names = at.split(b"/")
            for end in range(1, len(names)):
                above = b"/".join(names[:end])
                kind = _kind(os.path.join(top, above))
                if kind is not None and not stat.S_ISDIR(kind) and above not in tracked:
                    found.add(above)
            if at in tracked:
                continue
            kind = _kind(os.path.join(top, at))
            if kind is not None and (not stat.S_ISDIR(kind) or _has_untracked(top, at, tracked)):
                found.add(at)
        return found

    def _keep(self, own: str | None, applied: Applied) -> None:
        """Writes the way back."""
        if own is None:
            return
        head = f"{self._prefix}before/{moment(self._store, self._prefix)}/head"
        changes = Transaction()
        changes.line("create", head, own)
        with doing("stash your uncommitted work"):
            made = self._git.line("stash", "create", "before an apply of banger")
        applied.way_back.append(f"git reset --hard {head}")
        if made:
            applied.stash = head.removesuffix("head") + "stash"
            changes.line("create", applied.stash, made)
            applied.way_back.append(f"git stash apply --index {applied.stash}")
        changes.run(self._store)
        applied.before = head

    def _commits(self, plan: Done, own: str | None, theirs: str) -> None:
        if plan == "patched":
            self._patch()
        elif plan == "fast-forwarded":
            ff_only = ("--ff-only", "--no-stat", "--no-overwrite-ignore", "--quiet")
            self._unless_conflict("apply the commits", "merge", *ff_only, theirs)
        elif plan == "merged":
            message = f"Merge the work of VM {self._vm}"
            no_ff = ("--no-ff", "--no-edit", "--no-stat", "--quiet", "-m", message)
            self._unless_conflict("apply the commits", "merge", *no_ff, theirs)
        elif plan == "rebased":
            every = ("--allow-empty", "--keep-redundant-commits")
            self._unless_conflict("apply the commits", "cherry-pick", *every, f"{own}..{theirs}")

    def _patch_end(self) -> str:
        tree = None if self._commits_only else self._refs.get("state/tree")
        return tree or self._refs.get("HEAD", "")

    def _patch_base(self, own: str | None) -> str:
        base = self._store.blob(f"{self._prefix}state/landing:base").decode()
        theirs = self._refs.get("HEAD")
        if not base and own is not None and theirs is not None:
            return self._merge_base(own, theirs)
        return base

    def _patch(self) -> None:
        """All changes since the base, staged."""
        empty = _EMPTY_SHA256 if self._store.object_format == SHA256 else _EMPTY_SHA1
        base = self._store.blob(f"{self._prefix}state/landing:base").decode() or empty
        until = self._refs.get("HEAD", base) if self._commits_only else self._patch_end() or base
        words = ("diff-tree", "-r", "--no-renames", "--no-ext-diff", "--no-textconv", "--binary", "--full-index", "-p")
        with doing("write what was exported"):
            patch = self._store.git.run(*words, base, until)

        def feed(to: BinaryIO) -> None:
            to.write(patch)

        if patch:
            self._unless_conflict("apply the patch", "apply", "--3way", "--whitespace=nowarn", "-", feed=feed)

    def _unstash(self, stash: str) -> None:
        """Puts uncommitted work into the index and the working tree, as it was in the VM."""
        with doing("apply uncommitted work"):
            try:
                self._git.run("stash", "apply", "--quiet", "--index", stash)
            except GitFailed:
                if self._conflicts():
                    return
                # What was staged cannot be staged here: it is changed only.
                self._unless_conflict("apply uncommitted work", "stash", "apply", "--quiet", stash)

    def _unless_conflict(self, what: str, *words: Argument, feed: Feed | None = None) -> None:
        with doing(what):
            try:
                self._git.run(*words, feed=feed)
            except GitFailed as error:
                if error.code != 1 or not self._conflicts():
                    raise

    def _conflicts(self) -> list[str]:
        with doing("look for conflicts"):
            listed = self._git.run("diff", "-z", "--name-only", "--diff-filter=U", "--no-ext-diff")
        return [shown(path) for path in dict.fromkeys(fields(listed))]


def _kind(at: bytes) -> int | None:
    """What is at a path itself; None for nothing."""
    try:
        return os.lstat(at).st_mode
    except OSError:
        return None


def _has_untracked(top: bytes, at: bytes, tracked: set[bytes]) -> bool:
    """Whether a directory has files that are not tracked."""
    for directory, directories, files in os.walk(os.path.join(top, at)):
        links = [name for name in directories if os.path.islink(os.path.join(directory, name))]
        for name in [*files, *links]:
            if os.path.relpath(os.path.join(directory, name), top) not in tracked:
                return True
    return False


def _users(repository: LocalRepository) -> Git:
    """git that may change the owner's tree: as the owner, and with no program of the configuration's."""
    name, address = repository.identity() or ("banger", "banger@localhost")
    git = without_programs(repository.git)
    for who in ("AUTHOR", "COMMITTER"):
        git = git.with_env(**{f"GIT_{who}_NAME": name, f"GIT_{who}_EMAIL": address})
    return git
