"""References and the history they lead to."""

from __future__ import annotations

import os
from collections.abc import Iterable

from banger._workspace.failure import doing, no_revision
from banger._workspace.git import lines
from banger._workspace.repository import LocalRepository
from banger.workspace import v1 as wire

_WHAT = "read the history"


def refs(repository: LocalRepository, branches: Iterable[str], depth: int, is_own: bool) -> list[wire.Ref]:
    """The references that go along, in the order of their names. Branches that are chosen are the workspace's own; of
    repositories inside then only HEAD goes along.
    """
    branches = list(branches)
    if (depth > 0 and not branches) or (branches and not is_own):
        return []
    patterns = []
    for branch in branches:
        if repository.resolve(f"refs/heads/{branch}") is None:
            raise no_revision(branch)
        patterns.append(f"refs/heads/{branch}")
    with doing(_WHAT):
        words = ("--format=%(objectname)%00%(refname)%00%(symref)", *(patterns or ["refs/heads/", "refs/tags/"]))
        answer = repository.git.run("for-each-ref", *words)
    found = {}
    for line in answer.split(b"\n"):
        parts = line.split(b"\0")
        if len(parts) == 3:
            name, target = parts[1], parts[2]
            found[name] = wire.Ref(
                kind=wire.Ref.KIND_REF, name=name, object_id=parts[0].decode(), symbolic_target=target
            )
    return [found[name] for name in sorted(found)]


def existing(repository: LocalRepository, ids: Iterable[str]) -> list[str]:
    """The commits that `ids` lead to; what is not there, or leads to none, is left out."""
    names = [f"{name}^{{commit}}" for name in ids]
    if not names:
        return []
    with doing(_WHAT):
        answer = repository.git.run("cat-file", "--batch-check=%(objectname)", feed=lines(names))
    return [line for line in answer.decode().splitlines() if " " not in line]


def boundary(repository: LocalRepository, tips: list[str], depth: int) -> list[str]:
    """The commits at the boundary of a history `depth` commits deep from `tips` (0: as deep as the repository's is)."""
    own = _own_boundary(repository)
    if not tips or (depth == 0 and not own):
        return []
    with doing(_WHAT):
        answer = repository.git.run("rev-list", "--parents", "--stdin", feed=lines(tips)).decode()
    parents = {}
    for line in answer.splitlines():
        commit, *above = line.split(" ")
        parents[commit] = above
    if depth == 0:
        return sorted(own & parents.keys())
    level = existing(repository, tips)
    seen = set(level)
    found = set()
    for at in range(1, depth + 1):
        following = []
        for commit in level:
            above = parents.get(commit, [])
            if commit in own or (at == depth and above):
                found.add(commit)
                continue
            for parent in above:
                if parent not in seen:
                    seen.add(parent)
                    following.append(parent)
        level = following
    return sorted(found)


def _own_boundary(repository: LocalRepository) -> set[str]:
    """Where the repository's own history was cut."""
    try:
        with open(os.path.join(repository.common_dir, b"shallow")) as file:
            return set(file.read().split())
    except FileNotFoundError:
        return set()
