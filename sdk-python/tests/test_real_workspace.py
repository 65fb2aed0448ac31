"""A repository into a real VM, and what was done there back. The VM has this machine's git."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import banger
import banger.aio
from banger import errors
from tests.bench import commit, git, history, landed_tree, tree
from tests.counted import Counted
from tests.daemon import IMAGE, Daemon, dist

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]


def git_tree(top: Path) -> Path:
    """This machine's git, with the libraries it needs, as a tree."""
    program = shutil.which("git")
    assert program is not None
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for file in [*(word for word in linked.split() if word.startswith("/")), program]:
        to = top / ("usr/bin/git" if file == program else file.lstrip("/"))
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, to)
    return top


@pytest.fixture(scope="module")
def vm(bangerd: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[banger.Vm]:
    with (
        banger.connect(bangerd.host, silence=60, reconnect_window=120) as client,
        client.vms.create(IMAGE, name="web", memory_mib=512) as vm,
    ):
        for entry in git_tree(tmp_path_factory.mktemp("git")).iterdir():
            vm.files.as_user("root").upload(entry, "/")
        assert "git version" in vm.run("git version", check=True).stdout
        yield vm


def repository(top: Path, seed: int) -> Path:
    """One with some history, and work that is not committed."""
    top.mkdir()
    git(top, "init", "-q", "-b", "main")
    (top / "file").write_text("one\n")
    commit(top, "first")
    history(top, random.Random(seed), 4)
    return top


WORK = r"""
set -e
git config user.name Vim; git config user.email vim@example.com
git status --porcelain=v1 -uall
git add -A; git commit -q --allow-empty -m everything
head -c 200000 /dev/urandom > large; git add large; git commit -q -m large
git switch -q -c agent/work; echo more > agent; git add agent; git commit -q -m more
git switch -q -; git merge -q --no-ff -m merge agent/work
git tag -a -m tag done
printf 'staged\r\n' > staged; git add staged
echo changed >> large; printf '\377\n' > untracked; ln -s /etc/passwd link; rm -f agent
"""


def test_all_of_it_goes_and_comes_back(vm: banger.Vm, tmp_path: Path) -> None:
    top = repository(tmp_path / "app", 7)
    mine = tree(top)
    sent: list[int] = []
    prepared = vm.workspace.prepare(top, on_progress=sent.append)
    assert (prepared.path, prepared.is_git, prepared.has_loss) == ("/home/app/app", True, False)
    assert vm.run("git rev-parse HEAD", cwd="/home/app/app").stdout.strip() == git(top, "rev-parse", "HEAD")
    told = vm.run(WORK, cwd="/home/app/app", check=True).stdout
    assert told.strip() == git(top, "status", "--porcelain=v1", "-uall").strip()
    status = vm.workspace.status()
    (own,) = status.status.repositories
    assert own.new_commit_count >= 4
    assert own.staged_count == 1
    with pytest.raises(errors.RefusedError) as caught:
        vm.workspace.prepare(top)
    assert caught.value.remedy
    landed = vm.workspace.export()
    assert not landed.has_loss
    assert tree(top) == mine
    here = git(top, "rev-parse", "refs/banger/web/HEAD")
    assert here == landed.head == vm.run("git rev-parse HEAD", cwd="/home/app/app").stdout.strip()
    vm.files.download("/home/app/app", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / ".git")
    assert landed_tree(top, "refs/banger/web/state/tree") == tree(tmp_path / "copy")
    git(top, "fsck", "--strict", "--no-dangling")
    # All of it is here: it may be replaced there, and only what is new is sent.
    git(top, "reset", "-q", "--hard", "HEAD")
    git(top, "clean", "-qfd")
    (top / "file").write_text("next\n")
    commit(top, "next")
    again: list[int] = []
    vm.workspace.prepare(top, on_progress=again.append)
    assert again[-1] < 20_000
    assert vm.run("cat file; git status --porcelain", cwd="/home/app/app").stdout == "next\n"


def test_what_landed_is_applied_by_the_command(vm: banger.Vm, tmp_path: Path) -> None:
    top = repository(tmp_path / "other", 8)
    git(top, "add", "-A")
    commit(top, "all")
    workspace = vm.workspace_at("other")
    workspace.prepare(top, author=("Agent", "agent@example.com"))
    vm.run("echo theirs > file; git commit -q -a -m theirs; echo open > file", cwd="/home/app/other", check=True)
    assert workspace.export(top).repositories[0].new_commits == 1
    done = subprocess.run([dist() / "banger", "workspace", "apply", "web", top], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert git(top, "log", "-1", "--format=%s %an") == "theirs Agent"
    assert (top / "file").read_text() == "open\n"


def test_what_landed_is_applied(vm: banger.Vm, tmp_path: Path) -> None:
    top = repository(tmp_path / "applied", 11)
    git(top, "add", "-A")
    commit(top, "all")
    workspace = vm.workspace_at("applied")
    workspace.prepare(top, author=("Agent", "agent@example.com"))
    vm.run("echo theirs > file; git commit -q -a -m theirs; echo open > file", cwd="/home/app/applied", check=True)
    workspace.export()
    (top / "file").write_text("mine\n")
    with pytest.raises(errors.ApplyRefused) as caught:
        workspace.apply()
    assert caught.value.paths == ["file"]
    assert (top / "file").read_text() == "mine\n"
    git(top, "checkout", "-q", "file")
    applied = workspace.apply()
    assert (applied.commits, applied.uncommitted, applied.conflicts) == ("fast-forwarded", True, [])
    assert git(top, "log", "-1", "--format=%s %an") == "theirs Agent"
    assert (top / "file").read_text() == "open\n"


def test_a_prepare_that_is_given_up_leaves_what_was_there(vm: banger.Vm, tmp_path: Path) -> None:
    top = repository(tmp_path / "cut", 9)
    workspace = vm.workspace_at("cut")
    workspace.prepare(top)
    (top / "new").write_bytes(random.Random(1).randbytes(5 << 20))

    class Enough(Exception):
        pass

    def stop(sent: int) -> None:
        if sent > 1 << 20:
            raise Enough

    before = vm.run("find . -path ./.git -prune -o -print | sort", cwd="/home/app/cut", check=True).stdout
    with pytest.raises(Enough):
        workspace.prepare(top, on_progress=stop)
    assert vm.run("find . -path ./.git -prune -o -print | sort", cwd="/home/app/cut", check=True).stdout == before
    # Nor does an export that is.
    vm.run("head -c 5000000 /dev/urandom > theirs", cwd="/home/app/cut", check=True)
    with pytest.raises(Enough):
        workspace.export(on_progress=stop)
    assert git(top, "for-each-ref", "refs/banger/") == ""
    workspace.export()
    workspace.prepare(top)
    assert vm.files.stat("/home/app/cut/new").size_bytes == 5 << 20


async def test_asyncio_carries_directories_without_git_too(
    bangerd: Daemon, vm: banger.Vm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    top = tmp_path / "plain"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "data").write_bytes(bytes(range(256)))
    async with await banger.aio.connect(bangerd.host, silence=60) as client:
        found = await client.vms.get(vm.id)
        assert not (await found.workspace.prepare(top)).is_git
        await found.run("echo new > /home/app/plain/sub/new", check=True)
        landed, _ = await asyncio.gather(found.workspace.export(), found.run("true"))
        applied = await found.workspace_at("plain").apply_files(top)
        assert (applied.written, applied.removed) == (1, 0)
        assert (top / "sub" / "new").read_text() == "new\n"
        # All of it is here: it may be replaced.
        await found.workspace_at("plain").prepare(top)
        assert applied.before is not None
        await found.workspace_at("plain").go_back(applied.before, top)
        assert not (top / "sub" / "new").exists()
    own = landed.repositories[0]
    assert (own.is_own_store, own.untracked) == (True, 2)
    assert git(own.store, "show", "refs/banger/web/state/tree:sub/new") == "new"


def test_contents_take_fewer_bytes_over_a_network(bangerd: Daemon, vm: banger.Vm, tmp_path: Path) -> None:
    length = 3_000_000
    chosen = random.Random(12)

    def text() -> bytes:
        words = [b"alpha ", b"beta ", b"gamma ", b"delta ", b"epsilon "]
        return b"".join(chosen.choices(words, k=length // 5))[:length]

    bundle = tmp_path / "bundle"
    bangerd.cert("issue", "afar", "--role", "admin", "--out", bundle)
    top = repository(tmp_path / "afar", 13)
    git(top, "add", "-A")
    commit(top, "all")
    mine = text()
    (top / "text").write_bytes(mine)
    told: list[int] = []
    port = int(bangerd.remote.rpartition(":")[2])
    with Counted(port) as way, banger.connect(way.host, cert=bundle, silence=60) as client:
        workspace = client.vms.get(vm.id).workspace_at("afar")
        workspace.prepare(top, on_progress=told.append)
        assert way.up < length / 2
        # What is told of is the bytes as they are.
        assert told[-1] > length
        assert vm.files.read("/home/app/afar/text") == mine
        theirs = text()
        vm.files.write("/home/app/afar/text", theirs)
        before = way.down
        landed = workspace.export(on_progress=told.append)
        assert way.down - before < length / 2
        assert told[-1] > length
    assert not landed.has_loss
    assert git(top, "show", "refs/banger/web/state/tree:text") == theirs.decode()
    # Over the socket they go as they are, and come out the same.
    (top / "text").write_bytes(mine)
    vm.workspace_at("near").prepare(top)
    assert vm.files.read("/home/app/near/text") == mine


def test_the_first_example(
    bangerd: Daemon, vm: banger.Vm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line as the package's description has it. The image has neither pytest nor Python: scripts stand in."""
    top = repository(tmp_path / "example", 10)
    monkeypatch.chdir(top)
    monkeypatch.setenv("BANGER_HOST", bangerd.host)

    def fill(vm: banger.Vm) -> None:
        root = vm.files.as_user("root")
        root.write("/usr/bin/pytest", "#!/bin/sh\necho 1 passed in $PWD\n", permissions=0o755)
        root.write("/usr/bin/python3", "#!/bin/sh\nwhile read line; do echo $(($line)); done\n", permissions=0o755)
        root.mkdir("/work")
        root.mkdir("/out")
        root.write("/out/report", "all is well\n")
        for entry in git_tree(tmp_path / "git").iterdir():
            root.upload(entry, "/")

    with banger.connect() as client, client.vms.create(image="debian:bookworm", memory_mib=512) as vm:
        fill(vm)
        result = vm.run("pytest -q", cwd="/work", timeout=60, on_stdout=print)
        vm.files.write("/tmp/x", b"\xe2\x80\xa6")
        vm.files.download("/out", "artifacts/")
        session = vm.start(["python3", "-i"], pty=True)
        session.write(b"1+1\n")
        assert session.read_until("2\r\n")
        vm.workspace.prepare(".")
        changes = vm.workspace.export()
    assert (result.exit_code, capsys.readouterr().out) == (0, "1 passed in /work\n")
    assert (top / "artifacts" / "out" / "report").read_text() == "all is well\n"
    assert not changes.has_loss
    assert changes.head == git(top, "rev-parse", "HEAD")
