"""Applies what has landed to the owner's branch and working tree, when the owner asks for it.

Before anything is changed it is made sure that nothing of the owner's is in the way: no file that has uncommitted
work is touched, and no file that git does not track, ignored ones among them, is overwritten. Then a way back is
written: a reference to the commit that was there, and one to a stash of the uncommitted work. Hooks, filters and
merge drivers do not run, whatever the repository's configuration says: they may be files of the tree that comes.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from banger._workspace.failure import doing, nothing_landed, refuse
from banger._workspace.git import Argument, Feed, Git, GitFailed, fields
from banger._workspace.names import is_beneath, shown
from banger._workspace.programs import included, without_programs
from banger._workspace.publish import Transaction, moment
from banger._workspace.repository import SHA256, LocalRepository
from banger._workspace.store import Store, prefix_of

How = Literal["fast-forward", "merge", "rebase", "patch"]
"""How commits become the branch's: only forward, by a merge, each anew upon what is here, or as changes without
commits.
"""
Done = Literal["nothing", "fast-forwarded", "merged", "rebased", "patched"]
"""What became of the commits."""

_UNDER_WAY = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
}
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
            WorkspaceError: With the reason APPLY_REFUSED, and nothing changed, if something of the owner's is in the
            way.
        """
        self._check_idle()
        onto = self._check_branch()
        own, theirs = self._repository.commit("HEAD"), self._refs.get("HEAD")
        plan = self._plan(own, theirs)
        stash = None if self._commits_only or plan == "patched" else self._refs.get("state/worktree")
        self._check_free(plan, own, theirs, stash)
        applied = Applied(plan, onto)
        if plan == "nothing" and stash is None:
            return applied
        self._keep(own, applied)
        self._commits(plan, own, theirs or "")
        applied.conflicts = self._conflicts()
        if stash is not None and not applied.conflicts:
            self._unstash(stash)
            applied.uncommitted = True
            applied.conflicts = self._conflicts()
        if plan == "patched":
            applied.uncommitted = True
        return applied

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

    def _check_free(self, plan: Done, own: str | None, theirs: str | None, stash: str | None) -> None:
        """Nothing of the owner's is where something would be written."""
        touched: set[bytes] = set()
        if plan == "patched":
            touched |= self._between(self._patch_base(own), self._patch_end())
        elif plan != "nothing":
            base = self._merge_base(own, theirs or "") if own is not None else ""
            touched |= self._between(base, theirs or "")
        if stash is not None:
            with doing("read what landed"):
                base = self._git.line("rev-parse", "--verify", f"{stash}^1")
            touched |= self._between(base, stash)
            untracked = self._repository.resolve(f"{stash}^3")
            if untracked is not None:
                touched |= self._between("", untracked)
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
