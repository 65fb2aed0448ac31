"""What goes wrong on the owner's machine, as errors of the package."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from banger._workspace.git import GitError, GitMissing
from banger._workspace.judge import Fault
from banger._workspace.names import shown
from banger.errors import ApplyRefused, LocalFileError, UnsafeWorkspace, WorkspaceError

_TAKE_CARE = (
    "Nothing of it is in your repository. Look at the workspace in the VM before you try again; single files come out "
    "by `vm.files.download`."
)


def git_failed(what: str, error: GitError) -> WorkspaceError:
    """git could not do it."""
    if isinstance(error, GitMissing):
        return WorkspaceError(
            f"could not {what}: {error}",
            reason="GIT_MISSING",
            remedy="Install git on this machine. Files without a history are carried without it: `vm.files.upload`.",
        )
    return WorkspaceError(
        f"could not {what}: {error}",
        reason="GIT_FAILED",
        remedy="Run `git fsck` and `git status` in the repository.",
    )


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Says what git, or a file, was wanted for when it fails."""
    try:
        yield
    except GitError as error:
        raise git_failed(what, error) from error
    except LocalFileError:
        raise
    except OSError as error:
        raise LocalFileError(str(error.filename or "a file"), what, error) from error


def fault(error: Fault) -> UnsafeWorkspace:
    """A snapshot is not as it must be."""
    return UnsafeWorkspace(
        f"the VM sent a workspace that cannot be taken: {error}", reason="WORKSPACE_UNSAFE", remedy=_TAKE_CARE
    )


def unsafe(name: bytes | str, problem: str) -> UnsafeWorkspace:
    """Something that came is not what it says it is."""
    text = name if isinstance(name, str) else shown(name)
    return UnsafeWorkspace(f"the VM sent `{text}`, which {problem}", reason="WORKSPACE_UNSAFE", remedy=_TAKE_CARE)


def refused(what: str, repository: bytes, error: GitError) -> WorkspaceError:
    """git refused what came."""
    if isinstance(error, GitMissing):
        return git_failed("check the objects", error)
    return UnsafeWorkspace(
        f"{what} of `{shown(repository)}` that the VM sent are refused: {error}",
        reason="WORKSPACE_OBJECTS_REFUSED",
        remedy=_TAKE_CARE,
    )


def moved(path: bytes) -> WorkspaceError:
    """A file changed while it was sent."""
    return WorkspaceError(
        f"`{shown(path)}` changed while it was read",
        reason="WORKSPACE_MOVED",
        remedy="Repeat the call when nothing writes to the directory.",
    )


def no_repository(path: bytes) -> WorkspaceError:
    """There is no repository at a path."""
    return WorkspaceError(
        f"`{shown(path)}` is in no git repository",
        reason="NO_REPOSITORY",
        remedy="Name a directory of a git repository. For a directory without git there is `apply_files`.",
    )


def is_repository(path: bytes) -> ApplyRefused:
    """A directory is a repository."""
    return refuse(
        f"`{shown(path)}` is a git repository",
        "Use `apply`, which merges and keeps commits; or `plain=True`, if it was carried and exported so.",
    )


def nothing_landed(vm: str) -> WorkspaceError:
    """Nothing has landed from a VM."""
    return WorkspaceError(
        f"nothing was exported from VM `{vm}` to here", reason="NOTHING_EXPORTED", remedy="Export first."
    )


def refuse(problem: str, remedy: str, paths: Iterable[bytes] = ()) -> ApplyRefused:
    """Something of the owner's is in the way; nothing was changed."""
    return ApplyRefused(problem, remedy=remedy, paths=[shown(path) for path in sorted(paths)])


def no_revision(name: str) -> WorkspaceError:
    """A revision or branch does not exist."""
    return WorkspaceError(
        f"`{name}` is no commit of this repository",
        reason="REVISION_UNKNOWN",
        remedy="`git branch` and `git log` show what there is.",
    )


def bare(path: bytes) -> WorkspaceError:
    """A bare repository has no tree to carry."""
    return WorkspaceError(
        f"`{shown(path)}` is a bare repository, which has no working tree",
        reason="NO_REPOSITORY",
        remedy="Name a working tree of it (`git worktree add`).",
    )


def bad_pattern(pattern: str) -> WorkspaceError:
    """A pattern is none."""
    return WorkspaceError(
        f"`{pattern}` is no pattern of paths",
        reason="PATTERN_INVALID",
        remedy="Give patterns such as `target/**` or `.env`.",
    )


def bad_vm(vm: str) -> WorkspaceError:
    """The name of a VM cannot be part of a reference's."""
    return WorkspaceError(f"`{vm}` is no name of a VM", reason="VM_NAME_INVALID", remedy="Name the VM as it is listed.")
