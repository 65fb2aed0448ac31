"""A repository of the owner's, and what the owner has told git about every repository."""

from __future__ import annotations

import os

from banger._workspace.failure import bare, doing
from banger._workspace.git import Git, GitFailed, GitMissing
from banger.errors import WorkspaceError
from banger.workspace import v1 as wire

SHA1 = wire.Repository.OBJECT_FORMAT_SHA1
SHA256 = wire.Repository.OBJECT_FORMAT_SHA256


class LocalRepository:
    """A repository, or a working tree linked to one, on this machine."""

    def __init__(self, top: bytes, git_dir: bytes, common_dir: bytes, object_format: int) -> None:
        self.top = top
        """The top of its working tree."""
        self.git_dir = git_dir
        """Where it keeps what is this working tree's own."""
        self.common_dir = common_dir
        """Where it keeps objects and references."""
        self.object_format = object_format
        self.git = Git(top)

    @classmethod
    def find(cls, path: bytes) -> LocalRepository | None:
        """The repository that `path` lies in; None if it lies in none."""
        with doing("find the repository"):
            path = os.path.realpath(path, strict=True)
            git = Git(path).with_env(GIT_CEILING_DIRECTORIES="")
            try:
                git_dir = _line(git.run("rev-parse", "--absolute-git-dir"))
            except GitFailed as error:
                if "not a git repository" in error.complaint:
                    return None
                raise
            if git.run("rev-parse", "--is-inside-work-tree") != b"true\n":
                raise bare(path)
            top = _line(git.run("rev-parse", "--show-toplevel"))
            common = os.path.join(path, _line(git.run("rev-parse", "--git-common-dir")))
            answer = git.run("rev-parse", "--show-object-format")
            object_format = {b"sha1\n": SHA1, b"sha256\n": SHA256}.get(answer)
            if object_format is None:
                raise WorkspaceError("git names objects in a way that is not understood", reason="GIT_FAILED")
            return cls(top, git_dir, os.path.realpath(common, strict=True), object_format)

    @classmethod
    def exactly(cls, path: bytes) -> LocalRepository | None:
        """The repository whose working tree is `path` itself; None if that is none."""
        try:
            found = cls.find(path)
        except WorkspaceError as error:
            if error.reason == "NO_REPOSITORY":
                return None
            raise
        return found if found is not None and found.top == os.path.realpath(path) else None

    def resolve(self, name: str | bytes) -> str | None:
        """What a name leads to; None for nothing."""
        with doing("look up a revision"):
            return _text(self.git.optional("rev-parse", "--quiet", "--verify", "--end-of-options", name))

    def commit(self, revision: str) -> str | None:
        """The commit of a revision; None where it has none."""
        return self.resolve(revision + "^{commit}")

    def head_ref(self) -> bytes:
        """The reference that HEAD is; empty where it is detached."""
        with doing("look at HEAD"):
            return _line(self.git.optional("symbolic-ref", "--quiet", "HEAD") or b"")

    def setting(self, name: str) -> str | None:
        """A setting of the repository's own configuration."""
        with doing("read the configuration"):
            return _text(self.git.optional("config", "--local", "--get", name))

    def identity(self) -> tuple[str, str] | None:
        """Name and address on commits that are made in it; None where nobody has told git."""
        found = []
        for name in ("user.name", "user.email"):
            value = self.setting(name)
            if value is None:
                told = _users(self.git, "--no-type", name)
                if told is None:
                    return None
                value = told.decode(errors="replace").strip()
            found.append(value)
        return found[0], found[1]

    def excludes(self) -> bytes | None:
        """The owner's file of what is ignored everywhere."""
        told = _users(self.git, "--type=path", "core.excludesFile")
        if told is not None:
            return _line(told)
        usual = os.path.join(_config(), b"git/ignore") if os.environ.get("HOME") else b""
        return usual if usual and os.path.isfile(usual) else None


def find(path: bytes) -> LocalRepository | None:
    """The repository of a workspace. A machine without git carries directories that are none."""
    try:
        return LocalRepository.find(path)
    except WorkspaceError as error:
        if not isinstance(error.__cause__, GitMissing):
            raise
        above = os.path.realpath(path)
        while True:
            if os.path.exists(os.path.join(above, b".git")):
                raise
            parent = os.path.dirname(above)
            if parent == above:
                return None
            above = parent


def _config() -> bytes:
    """The user's directory of configuration."""
    home = os.fsencode(os.environ.get("HOME", ""))
    return os.fsencode(os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, b".config"))


def _users(git: Git, kind: str, name: str) -> bytes | None:
    """A setting in the user's own files, as git looks for it."""
    home = os.environ.get("HOME")
    if not home:
        return None
    git = git.with_env(HOME=home)
    for file in (os.path.join(os.fsencode(home), b".gitconfig"), os.path.join(_config(), b"git/config")):
        if os.path.isfile(file):
            with doing("read your configuration"):
                found = git.optional("config", "--includes", kind, "--file", file, "--get", name)
            if found is not None:
                return found
    return None


def _line(answer: bytes) -> bytes:
    return answer.removesuffix(b"\n")


def _text(answer: bytes | None) -> str | None:
    return None if answer is None else answer.decode(errors="replace").rstrip("\n")
