"""Names of files, references and objects, judged without a file system, as in `workspace/src/wire/path.rs`."""

from __future__ import annotations

import contextlib
import re

from banger._workspace.limits import DEPTH_MAX, NAME_MAX_BYTES, PATH_MAX_BYTES, REF_NAME_MAX_BYTES

_OBJECT_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# Characters that HFS+ passes over.
_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
_REF_BAD = re.compile(rb"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{")
_VM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_STASH = re.compile(rb"stash@\{([0-9]{1,6})\}")
_SHOWN_MAX_BYTES = 400


class BadName(ValueError):
    """What is wrong with a name."""


def check(path: bytes) -> None:
    """Judges a path beneath a workspace: names between single slashes, and none that leads out of it or into a
    repository.

    Raises:
        BadName: What is wrong.
    """
    if not path:
        raise BadName("a name is empty")
    if len(path) > PATH_MAX_BYTES:
        raise BadName("a name is too long")
    for depth, name in enumerate(path.split(b"/")):
        if depth == DEPTH_MAX:
            raise BadName("a name is too long")
        if not name:
            raise BadName("a name is empty")
        if name in (b".", b".."):
            raise BadName("a name leads elsewhere")
        if len(name) > NAME_MAX_BYTES:
            raise BadName("a name is too long")
        if b"\0" in name:
            raise BadName("a name has a zero byte")
        if is_git(name):
            raise BadName("a name is one of git's own")


def is_git(name: bytes) -> bool:
    """Whether a name is `.git` to git, to HFS+ (which passes over some characters) or to NTFS (which passes over dots
    and spaces at the end, knows short names, and takes what follows a colon for a stream).
    """
    # What is no text is no name of HFS+.
    with contextlib.suppress(UnicodeDecodeError):
        name = _IGNORED.sub("", name.decode()).encode()
    # A backslash is a separator there.
    parts = (part.split(b":", 1)[0].rstrip(b". ") for part in name.split(b"\\"))
    return any(part.lower() in (b".git", b"git~1") for part in parts)


def check_ref(name: bytes) -> None:
    """Judges a reference's name by git-check-ref-format(1): beneath `refs/`.

    Raises:
        BadName: What is wrong.
    """
    if not name.startswith(b"refs/"):
        raise BadName("a name is none of a reference")
    if len(name) > REF_NAME_MAX_BYTES:
        raise BadName("a name is too long")
    beneath = name[len(b"refs/") :]
    if _REF_BAD.search(beneath) or beneath.endswith(b"."):
        raise BadName("a name is none of a reference")
    for part in beneath.split(b"/"):
        if not part or part.startswith(b".") or part.endswith(b".lock"):
            raise BadName("a name is none of a reference")


def is_object_id(text: str) -> bool:
    """Whether this is an object's id: 40 or 64 lower-case hexadecimal digits."""
    return _OBJECT_ID.fullmatch(text) is not None


def stash_number(name: bytes) -> str | None:
    """The number of an entry of the stash by its name; None if that is none."""
    found = _STASH.fullmatch(name)
    return None if found is None else found[1].decode()


def is_beneath(path: bytes, directory: bytes) -> bool:
    """Whether `path` lies beneath `directory`, which is empty for the workspace itself."""
    return not directory or path.startswith(directory + b"/")


def join(prefix: bytes, name: bytes) -> bytes:
    """`name` beneath `prefix`, which may be empty."""
    return prefix + b"/" + name if prefix else name


def shown(name: bytes) -> str:
    """A name as text for people and errors: what is no text is escaped."""
    return "".join(_shown(letter) for letter in name[:_SHOWN_MAX_BYTES].decode(errors="surrogateescape"))


def _shown(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter if letter.isprintable() and letter != "\\" else letter.encode("unicode_escape").decode()


def vm_prefix(vm: str) -> str | None:
    """The beginning of the names of a VM's references, `refs/banger/VM/`; None if that is no name of a VM."""
    return f"refs/banger/{vm}/" if _VM.fullmatch(vm) else None
