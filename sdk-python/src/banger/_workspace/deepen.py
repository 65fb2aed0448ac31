"""Histories that were cut, and of which more has come since."""

from __future__ import annotations

import os

from banger._workspace.failure import doing
from banger._workspace.git import GitFailed, lines
from banger._workspace.quarantine import Coming, strict

_WHAT = "look at where the history was cut"
_PARENTS = ("rev-list", "--parents", "--no-walk=unsorted", "--ignore-missing", "--stdin")


def deepened(coming: Coming) -> set[str]:
    """The commits among those at which the history of a store of banger's own was cut behind which all is there by now,
    with what has come: it is cut there no more.
    """
    # How the owner's own repository is cut is the owner's.
    if not coming.is_own_store:
        return set()
    quarantine = coming.quarantine
    git = strict(quarantine)
    cut = quarantine.cut()
    with doing(_WHAT):
        # GIT_SHALLOW_FILE is a variable of git's own: what says where the history was cut, in the place of the
        # repository's file. Here nothing does, so that parents are told.
        told = git.with_env(GIT_SHALLOW_FILE="").run(*_PARENTS, feed=lines(sorted(cut))) if cut else b""
    found = {commit: parents for commit, *parents in (line.split(" ") for line in told.decode().splitlines())}
    there = set(quarantine.has(sorted({parent for parents in found.values() for parent in parents})))
    candidates = {commit for commit, parents in found.items() if there.issuperset(parents)}
    if not candidates:
        return set()
    file = os.path.join(quarantine.directory, b"shallow.deepened")
    parents = sorted({parent for commit in candidates for parent in found[commit]})
    with doing(_WHAT):
        with open(file, "w", encoding="ascii") as write:
            write.writelines(f"{commit}\n" for commit in sorted(cut - candidates))
        try:
            git.with_env(GIT_SHALLOW_FILE=file).run("rev-list", "--objects", "--quiet", "--stdin", feed=lines(parents))
        except GitFailed:
            return set()  # something is missing: it stays cut
    quarantine.set_cut(cut - candidates)
    return candidates
