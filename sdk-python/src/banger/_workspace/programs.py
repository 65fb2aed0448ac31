"""Programs that the owner's configuration names: they may be files of the tree that comes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from banger._workspace.failure import doing
from banger._workspace.git import Git, fields

# Links on the way to a file that the kernel follows.
_LINKS_MAX = 40


def without_programs(git: Git) -> Git:
    """The same git with no filter and no merge driver of the configuration that it reads now."""
    with doing("read the configuration"):
        listed = git.optional("config", "-z", "--name-only", "--get-regexp", r"^(filter|merge)\..+\.") or b""
    for name in fields(listed):
        last = name.rpartition(b".")[2]
        if last in (b"clean", b"smudge", b"process"):
            git = git.with_setting(name + b"=")
        # A merge driver tells that it could not merge.
        elif last in (b"required", b"driver"):
            git = git.with_setting(name + b"=false")
    return git


def included(git: Git, top: bytes) -> list[bytes]:
    """Files of the working tree at `top` that the configuration includes, there or not, and links on the way to them:
    beneath the top.
    """
    words = ("-z", "--show-origin", "--type=path", "--get-regexp", r"^include(if\..+)?\.path$")
    with doing("read the configuration"):
        listed = list(fields(git.optional("config", *words) or b""))
    beneath = top.rstrip(b"/") + b"/"
    found: set[bytes] = set()
    for origin, setting in zip(listed[::2], listed[1::2], strict=True):
        _, _, value = setting.partition(b"\n")
        if origin.startswith(b"file:") and value:
            from_file = os.path.join(top, origin.removeprefix(b"file:"))
            ways = _ways(os.path.join(os.path.dirname(from_file), value))
            found.update(way.removeprefix(beneath) for way in ways if way.startswith(beneath))
    return sorted(found)


def _ways(path: bytes) -> Iterator[bytes]:
    """A path as it is named, what each link on the way makes of it, and where it leads."""
    way: bytes | None = os.path.normpath(path)
    for _ in range(_LINKS_MAX):
        if way is None:
            break
        yield way
        way = _past_link(way)
    yield os.path.realpath(path)


def _past_link(path: bytes) -> bytes | None:
    """The path behind its first link; None where it has none."""
    names = path.split(b"/")
    for end in range(1, len(names) + 1):
        part = b"/".join(names[:end])
        if os.path.islink(part):
            behind = os.path.join(os.path.dirname(part), os.readlink(part), *names[end:])
            return os.path.normpath(behind)
    return None
