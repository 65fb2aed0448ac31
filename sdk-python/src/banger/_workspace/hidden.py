"""Changes that the owner hides from git: `git update-index --assume-unchanged` and `--skip-worktree`.

git neither tells them nor keeps them in a stash. A reset, which is the way back of an apply, takes those of files that
are assumed to be unchanged, and a merge may take those of files that it writes to.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Set as AbstractSet
from typing import BinaryIO

from banger._workspace.failure import doing, refuse
from banger._workspace.git import Git, fields
from banger._workspace.repository import LocalRepository
from banger._workspace.store import Store

_WHAT = "look for changes that are hidden from git"


def check_hidden(git: Git, repository: LocalRepository, store: Store, touched: AbstractSet[bytes]) -> None:
    """No change that is hidden from git would be lost by what is `touched`, or by the way back.

    Raises:
        ApplyRefused: If one would.
    """
    with doing(_WHAT):
        at_risk = _at_risk(git, repository, touched)
        changed = _changed(git, repository, store, at_risk) if at_risk else []
    if changed:
        raise refuse(
            "files have changes here that git was told not to look at (`git update-index --assume-unchanged` or "
            "`--skip-worktree`), and an apply, or the way back, would take them",
            "Let git see them (`git update-index --no-assume-unchanged --no-skip-worktree FILE`), commit or stash "
            "them, then apply again.",
            changed,
        )


def _at_risk(git: Git, repository: LocalRepository, touched: AbstractSet[bytes]) -> set[bytes]:
    """The paths whose changes would be taken: those that git assumes to be unchanged wherever they are, and of those
    that it skips, and that are there all the same, the ones that are written to.
    """
    found = set()
    for entry in fields(git.run("ls-files", "-v", "-z")):
        # A tag, a space, the path.
        tag, path = entry[:1], entry[2:]
        is_skipped = tag == b"S" and path in touched and os.path.lexists(os.path.join(repository.top, path))
        if tag.islower() or is_skipped:
            found.add(path)
    return found


def _changed(git: Git, repository: LocalRepository, store: Store, paths: AbstractSet[bytes]) -> list[bytes]:
    """Those of the paths that are not as the index says. A copy of it shows them."""

    def feed(to: BinaryIO) -> None:
        to.write(b"".join(path + b"\0" for path in sorted(paths)))

    os.makedirs(store.own_directory, exist_ok=True)
    copied = os.path.join(store.own_directory, b"index-%s" % str(uuid.uuid4()).encode())
    try:
        shutil.copyfile(os.path.join(repository.git_dir, b"index"), copied)
        git = git.with_env(GIT_INDEX_FILE=copied)
        for shown in ("--no-assume-unchanged", "--no-skip-worktree"):
            git.run("update-index", "-z", shown, "--stdin", feed=feed)
        # It fails where files differ, which is what is looked for.
        git.test("update-index", "-q", "--refresh")
        listed = git.run("diff-files", "-z", "--name-only", "--ignore-submodules=all")
    finally:
        # One that stays costs room, and nothing else.
        for left in (copied, copied + b".lock"):
            with contextlib.suppress(OSError):
                os.unlink(left)
    return [path for path in fields(listed) if path in paths]
