"""Repositories for the tests of workspaces: an owner's, and one that stands for the VM's."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from banger._workspace.collect import Options, Source
from banger._workspace.land import Landed, Landing
from banger._workspace.quarantine import Limits
from banger._workspace.store import Place
from banger.workspace import v1 as wire

VM = "dev"
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.com",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.com",
}


def git(top: Path, *words: str | bytes, stdin: bytes | None = None) -> str:
    """What git says, without the last line's end."""
    done = subprocess.run(["git", *words], cwd=top, env=_ENVIRONMENT, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout.decode(errors="surrogateescape").rstrip("\n")


def git_bytes(top: Path, *words: str) -> bytes:
    """What git says, as it is."""
    return subprocess.run(["git", *words], cwd=top, env=_ENVIRONMENT, capture_output=True, check=True).stdout


def commit(top: Path, message: str) -> str:
    """Commits all that is there."""
    git(top, "add", "-A")
    git(top, "commit", "-q", "--allow-empty", "-m", message)
    return git(top, "rev-parse", "HEAD")


def tree(top: Path) -> dict[bytes, tuple[str, int, bytes]]:
    """Every file of a working tree: kind, permissions, content."""
    found: dict[bytes, tuple[str, int, bytes]] = {}
    for directory, directories, files in os.walk(os.fsencode(top)):
        if b".git" in directories:
            directories.remove(b".git")
        for name in [*files, *(one for one in directories if os.path.islink(os.path.join(directory, one)))]:
            at = os.path.join(directory, name)
            path = os.path.relpath(at, os.fsencode(top))
            if os.path.islink(at):
                found[path] = ("link", 0o777, os.readlink(at))
            else:
                with open(at, "rb") as file:
                    found[path] = ("file", os.stat(at).st_mode & 0o100, file.read())
    return found


def landed_tree(top: Path, revision: str) -> dict[bytes, tuple[str, int, bytes]]:
    """The same of a commit."""
    found = {}
    for line in git_bytes(top, "ls-tree", "-r", "-z", revision).split(b"\0")[:-1]:
        what, _, path = line.partition(b"\t")
        mode, _, name = what.decode().split(" ")
        if mode == "160000":
            continue
        content = git_bytes(top, "cat-file", "blob", name)
        kind = "link" if mode == "120000" else "file"
        found[path] = (kind, 0o777 if kind == "link" else int(mode, 8) & 0o100, content)
    return found


class Bench:
    """An owner's repository `here`, and one of the VM `guest`, which began as its copy."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.here = directory / "here"
        self.guest = directory / "vm" / "guest"
        self.here.mkdir()
        git(self.here, "init", "-q", "-b", "main")
        (self.here / "file").write_text("one\n")
        (self.here / "other").write_text("two\n")
        commit(self.here, "first")
        self.guest.parent.mkdir()
        shutil.copytree(self.here, self.guest, symlinks=True)

    def place(self) -> Place:
        return Place(self.here)

    def base(self) -> wire.Base:
        """What the guest was prepared with, as the daemon keeps it."""
        head = git(self.here, "rev-parse", "HEAD")
        return wire.Base(repositories=[wire.BaseRepository(commits=[head], head_commit=head)])

    def exported(self, base: wire.Base | None = None) -> list[wire.Part]:
        """What an honest VM sends of the guest."""
        source = Source(self.guest, Options())
        known = [
            wire.KnownRepository(path=one.path, commits=one.commits)
            for one in (base.repositories if base is not None else ())
        ]
        parts = list(source.manifest(known))
        files = [
            number
            for number, entry in enumerate(
                entry for part in parts if part.WhichOneof("part") == "entries" for entry in part.entries.entries
            )
            if entry.kind == wire.Entry.KIND_FILE
        ]
        return [*parts, *source.contents(files)]

    def land(self, parts: Iterable[wire.Part], base: wire.Base | None = None, limits: Limits | None = None) -> Landed:
        """Takes what comes."""
        with Landing(self.place(), VM, base or wire.Base(), limits or Limits()) as landing:
            for part in parts:
                landing.part(part)
            return landing.finish()

    def export(self) -> Landed:
        """Takes what an honest VM sends of the guest."""
        base = self.place().base(VM, self.base())
        return self.land(self.exported(base), base)

    def refs(self) -> str:
        return git(self.here, "for-each-ref")

    def left(self) -> list[str]:
        """What of landings is left beneath the repository."""
        own = self.here / ".git" / "banger"
        return sorted(path.name for path in own.iterdir() if path.name != "stores") if own.exists() else []


def snapshot(
    bench: Bench,
    refs: Sequence[wire.Ref] = (),
    pack: bytes = b"",
    entries: Sequence[wire.Entry] = (),
    contents: Sequence[wire.Part] = (),
    index: Sequence[wire.IndexEntry] = (),
) -> list[wire.Part]:
    """A snapshot of one repository, at the commit that `bench` is at."""
    head = git(bench.here, "rev-parse", "HEAD")
    kind = wire.Repository.KIND_GIT
    parts = [wire.Part(repository=wire.Repository(kind=kind, head_ref=b"refs/heads/main", head_commit=head))]
    if refs:
        parts.append(wire.Part(refs=wire.Refs(refs=refs)))
    if index:
        parts.append(wire.Part(index=wire.IndexEntries(entries=index)))
    if pack:
        parts.append(wire.Part(pack=wire.PackData(data=pack, is_last=True)))
    parts.append(wire.Part(entries=wire.Entries(entries=entries)))
    parts.append(wire.Part(manifest_end=wire.ManifestEnd(entry_count=len(entries))))
    return [*parts, *contents, wire.Part(end=wire.End())]


def reference(name: bytes, commit_id: str) -> wire.Ref:
    return wire.Ref(kind=wire.Ref.KIND_REF, name=name, object_id=commit_id)


def file(path: bytes, size: int) -> wire.Entry:
    return wire.Entry(path=path, kind=wire.Entry.KIND_FILE, mode=0o644, size=size)


def content(entry: int, data: bytes) -> wire.Part:
    digest = hashlib.sha256(data).digest()
    return wire.Part(content=wire.Content(entry=entry, data=data, is_last=True, sha256=digest))


def put_object(guest: Path, kind: str, data: bytes) -> str:
    """An object of these bytes, whatever git thinks of them."""
    return git(guest, "hash-object", "-w", "--literally", "-t", kind, "--stdin", stdin=data)


def tree_with(guest: Path, mode: str, name: bytes, found: str) -> str:
    """A tree with one entry of this name."""
    return put_object(guest, "tree", mode.encode() + b" " + name + b"\0" + bytes.fromhex(found))


def commit_of(guest: Path, found: str) -> str:
    text = f"tree {found}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nm\n"
    return put_object(guest, "commit", text.encode())


def pack_of(guest: Path, *ids: str) -> bytes:
    """A pack with these objects."""
    done = subprocess.run(
        ["git", "pack-objects", "--stdout", "-q"],
        cwd=guest,
        env=_ENVIRONMENT,
        input="".join(f"{one}\n" for one in ids).encode(),
        capture_output=True,
        check=True,
    )
    return done.stdout


NAMES = [
    b"a",
    b"b c",
    b"d/e",
    b"d/f",
    b"\xff\xfe",
    b"UPPER",
    b"upper",
    b"x\ny",
    b'q"uote',
    b"back\\slash",
    b"deep/er/one",
]


def work(top: Path, chosen: random.Random) -> None:
    """Something that somebody does in a repository."""
    root = os.fsencode(top)
    for _ in range(chosen.randint(1, 6)):
        at = os.path.join(root, chosen.choice(NAMES))
        kind = chosen.randrange(6)
        if os.path.lexists(at):
            if os.path.isdir(at) and not os.path.islink(at):
                continue
            os.unlink(at)
            if kind == 0:
                continue
        os.makedirs(os.path.dirname(at), exist_ok=True)
        if kind == 1:
            os.symlink(chosen.choice([b"a", b"../out", b"/etc/passwd"]), at)
            continue
        data = chosen.randbytes(chosen.randint(0, 3000)) if kind == 2 else b"line\r\n" * chosen.randint(0, 9)
        with open(at, "wb") as written:
            written.write(data)
        os.chmod(at, 0o755 if kind == 3 else 0o644)


def history(top: Path, chosen: random.Random, steps: int) -> None:
    """A random history: commits, branches, merges, tags, a stash, and work that is not committed."""
    for step in range(steps):
        work(top, chosen)
        commit(top, f"step {step}")
        what = chosen.randrange(6)
        if what == 0:
            git(top, "switch", "-q", "-c", f"topic/{step}-{chosen.randrange(1 << 20)}")
        elif what == 1:
            git(top, "tag", "-a", "-m", "tag", f"v{step}-{chosen.randrange(1 << 20)}")
        elif what == 2:
            branches = git(top, "for-each-ref", "--format=%(refname:short)", "refs/heads/").splitlines()
            git(top, "merge", "-q", "--no-ff", "-s", "ours", "-m", "merge", chosen.choice(branches))
        elif what == 3:
            git(top, "commit", "-q", "--amend", "--allow-empty", "-m", f"amended {step}")
    work(top, chosen)
    if chosen.random() < 0.5:
        git(top, "add", "-A")
        work(top, chosen)
