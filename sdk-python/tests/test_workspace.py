"""The owner's half of workspaces: what goes comes back the same, and what lies is refused."""

from __future__ import annotations

import os
import random
import shutil
import stat
import threading
import zlib
from pathlib import Path

import pytest

from banger import errors
from banger._workspace import names
from banger._workspace.collect import Options, Source
from banger._workspace.encoding import ENCODINGS, Encoder, decode
from banger._workspace.judge import Fault, Judge, check_base, check_known, check_status
from banger._workspace.limits import DATA_MAX_BYTES
from banger._workspace.quarantine import Limits
from banger._workspace.store import Place
from banger._workspace.walk import includes
from banger.workspace import v1 as wire
from tests.bench import (
    VM,
    Bench,
    commit,
    commit_of,
    content,
    file,
    git,
    git_bytes,
    history,
    landed_tree,
    pack_of,
    put_object,
    reference,
    snapshot,
    tree,
    tree_with,
    work,
)

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def refused(bench: Bench, parts: list[wire.Part], limits: Limits | None = None) -> str:
    """Lands `parts`, which must be refused, with nothing of it left; the reason."""
    refs, before = bench.refs(), tree(bench.here)
    with pytest.raises(errors.UnsafeWorkspace) as caught:
        bench.land(parts, limits=limits)
    assert bench.refs() == refs
    assert tree(bench.here) == before
    assert bench.left() == []
    assert caught.value.remedy
    return caught.value.reason


def test_random_histories_land_as_they_are(tmp_path: Path) -> None:
    seed = int(os.environ.get("BANGER_SEED") or random.randrange(1 << 32))
    for case in range(int(os.environ.get("WORKSPACE_CASES") or 12)):
        print(f"BANGER_SEED={seed}")
        chosen = random.Random(seed)
        place = tmp_path / str(case)
        place.mkdir()
        bench = Bench(place)
        history(bench.guest, chosen, chosen.randint(0, 6))
        mine = tree(bench.here)
        for _ in range(2):
            landed = bench.export()
            assert not landed.has_loss
            assert tree(bench.here) == mine
            prefix = f"refs/banger/{VM}/"
            refs = git(bench.guest, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/", "refs/tags/")
            for line in refs.splitlines():
                found, name = line.split(" ")
                there = landed.refs.get(prefix + name.removeprefix("refs/"))
                assert there == found or git(bench.here, "rev-parse", "--verify", name) == found
            assert landed.head == git(bench.guest, "rev-parse", "HEAD")
            state = prefix + ("state/tree" if prefix + "state/tree" in landed.refs else "HEAD")
            assert landed_tree(bench.here, state) == tree(bench.guest)
            git(bench.here, "fsck", "--strict", "--no-dangling")
            # And what was done after it.
            work(bench.guest, chosen)
            commit(bench.guest, "later")
        shutil.rmtree(place)
        seed += 1


def test_what_is_staged_stays_apart(bench: Bench) -> None:
    (bench.guest / "file").write_text("staged\n")
    git(bench.guest, "add", "file")
    (bench.guest / "file").write_text("changed\n")
    (bench.guest / "new").write_text("untracked\n")
    (bench.guest / "empty").mkdir()
    (bench.guest / "other").unlink()
    landed = bench.export()
    own = landed.repositories[0]
    assert (own.staged, own.changed, own.untracked) == (1, 2, 1)
    prefix = f"refs/banger/{VM}/state/"
    assert git(bench.here, "show", prefix + "index:file") == "staged"
    assert git(bench.here, "show", prefix + "worktree:file") == "changed"
    assert git(bench.here, "show", prefix + "worktree^3:new") == "untracked"
    assert git_bytes(bench.here, "show", prefix + "landing:directories") == b"755 empty\0"
    # It has the form of a stash.
    git(bench.here, "stash", "apply", "-q", "--index", prefix + "worktree")
    assert git(bench.here, "status", "--porcelain") == git(bench.guest, "status", "--porcelain")


def test_only_what_is_new_is_sent(bench: Bench) -> None:
    (bench.guest / "large").write_bytes(random.Random(1).randbytes(3 << 20))
    commit(bench.guest, "large")
    size = sum(part.ByteSize() for part in bench.exported(bench.base()))
    assert size > 3 << 20
    bench.export()
    (bench.guest / "file").write_text("a little more\n")
    commit(bench.guest, "little")
    base = bench.place().base(VM, bench.base())
    assert sum(part.ByteSize() for part in bench.exported(base)) < 10_000
    bench.export()
    assert git(bench.here, "rev-parse", f"refs/banger/{VM}/HEAD") == git(bench.guest, "rev-parse", "HEAD")


def test_all_that_a_commit_does_not_lead_to_comes(bench: Bench) -> None:
    def exported(since: str) -> int:
        base = bench.place().base(VM, wire.Base(), since)
        parts = bench.exported(base)
        landed = bench.land(parts, base)
        assert not landed.has_loss
        assert landed.head == git(bench.guest, "rev-parse", "HEAD")
        return sum(len(part.pack.data) for part in parts)

    git(bench.here, "tag", "start")
    for seed in (1, 2):
        (bench.guest / "large").write_bytes(random.Random(seed).randbytes(1 << 20))
        commit(bench.guest, "large")
    assert exported("start") > 2 << 20
    # What came before comes again, since what has come nothing does.
    assert exported("start") > 2 << 20
    assert 1 << 20 < exported(f"refs/banger/{VM}/HEAD^") < 3 << 19
    assert exported(f"refs/banger/{VM}/HEAD") == 0
    # One that the VM has not stands for those before it.
    git(bench.here, "switch", "-q", "-c", "later", f"refs/banger/{VM}/HEAD")
    commit(bench.here, "later")
    assert exported("later") == 0


def test_only_a_commit_that_is_here_is_taken(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = commit(bench.guest, "theirs")
    for name in ("nothing", "HEAD^{tree}", "--all", "", theirs):
        with pytest.raises(errors.WorkspaceError) as caught:
            bench.place().base(VM, wire.Base(), name)
        assert caught.value.reason == "REVISION_UNKNOWN"
        assert caught.value.remedy
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(errors.WorkspaceError) as caught:
        Place(bench.here, plain=True).base(VM, wire.Base(), "HEAD")
    assert caught.value.reason == "NO_REPOSITORY"


def test_what_an_earlier_export_brought_is_kept(bench: Bench) -> None:
    (bench.guest / "file").write_text("first try\n")
    first = commit(bench.guest, "first try")
    git(bench.guest, "branch", "topic")
    bench.export()
    git(bench.guest, "reset", "-q", "--hard", "HEAD^")
    git(bench.guest, "branch", "-D", "topic")
    git(bench.guest, "branch", "topic/below")
    (bench.guest / "file").write_text("second try\n")
    commit(bench.guest, "second try")
    landed = bench.export()
    kept = {name.split("/", 5)[-1]: git(bench.here, "rev-parse", name) for name in landed.repositories[0].kept}
    assert kept["HEAD"] == first
    assert kept["heads/topic"] == first


def test_a_landing_that_breaks_between_names_in_each_others_way_loses_no_commit(bench: Bench) -> None:
    git(bench.guest, "switch", "-q", "-c", "topic")
    topic = commit(bench.guest, "on topic")
    git(bench.guest, "switch", "-q", "main")
    bench.export()
    # The same commit, under a name that needs the former one as a directory.
    git(bench.guest, "branch", "-q", "-m", "topic", "topic/one")
    commit(bench.guest, "on main")

    def kept() -> str:
        return git(bench.here, "for-each-ref", "--format=%(refname)", "--contains", topic)

    # What comes after the former name has gone cannot be made.
    lock = bench.here / ".git" / "refs" / "banger" / VM / "HEAD.lock"
    lock.touch()
    with pytest.raises(errors.WorkspaceError):
        bench.export()
    lock.unlink()
    earlier = kept()
    assert earlier.startswith(f"refs/banger/{VM}/earlier/")
    assert earlier.endswith("/heads/topic")
    assert bench.export().repositories[0].kept == []
    git(bench.here, "update-ref", "-d", earlier)
    assert kept() == f"refs/banger/{VM}/heads/topic/one"
    # Whole at once, it leaves nothing that leads there twice.
    git(bench.guest, "branch", "-q", "-m", "topic/one", "topic")
    bench.export()
    assert kept() == f"refs/banger/{VM}/heads/topic"


def test_submodules_shallow_histories_and_repositories_inside(bench: Bench, tmp_path: Path) -> None:
    (bench.guest / "inside").mkdir()
    git(bench.guest / "inside", "init", "-q", "-b", "main")
    (bench.guest / "inside" / "x").write_text("x\n")
    inside = commit(bench.guest / "inside", "inside")
    before = tree(bench.here)
    landed = bench.export()
    assert tree(bench.here) == before
    (nested,) = [one for one in landed.repositories if one.path == b"inside"]
    assert (nested.is_own_store, nested.head) == (True, inside)
    assert git(nested.store, "rev-parse", f"refs/banger/{VM}/heads/main") == inside
    # A history that is cut lands in a store of its own.
    for number in range(3):
        (bench.guest / "file").write_text(f"{number}\n")
        commit(bench.guest, str(number))
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth", "2", f"file://{bench.guest}", str(shallow))
    bench.guest = shallow
    landed = bench.land(bench.exported())
    assert landed.repositories[0].is_own_store
    assert git(landed.repositories[0].store, "rev-list", "--count", f"refs/banger/{VM}/HEAD") == "2"


@pytest.mark.parametrize("kept", ["references", "broken", "objects"])
def test_a_repository_inside_that_cannot_land_keeps_no_other_from_it(bench: Bench, kept: str) -> None:
    def commit_in(name: str) -> str:
        inside = bench.guest / name
        inside.mkdir()
        git(inside, "init", "-q", "-b", "main")
        (inside / "file").write_text("inner\n")
        return commit(inside, "inner")

    one, two = commit_in("one"), commit_in("two")
    (bench.guest / "file").write_text("outer\n")
    outer = commit(bench.guest, "outer")
    here = bench.here / "one"
    here.mkdir()
    git(here, "init", "-q", "-b", "main")
    config = (here / ".git/config").read_bytes()
    in_the_way = here / ".git/refs/banger"
    if kept == "references":
        in_the_way.write_text("in the way")
    elif kept == "broken":
        (here / ".git/config").write_text("[core")
    base = bench.place().base(VM, bench.base())
    whole = bench.exported(base)
    parts = [wire.Part.FromString(part.SerializeToString()) for part in whole]
    if kept == "objects":
        is_its = False
        for part in parts:
            if part.WhichOneof("part") == "repository":
                is_its = part.repository.path == b"one"
            elif part.WhichOneof("part") == "pack" and is_its:
                data = bytearray(part.pack.data)
                data[len(data) // 2] ^= 1
                part.pack.data = bytes(data)
    landed = bench.land(parts, base)
    assert [one.head for one in landed.repositories] == [outer, two]
    for repository in landed.repositories:
        assert git(repository.store, "rev-parse", f"refs/banger/{VM}/HEAD") == repository.head
    (note,) = [note for note in landed.notes if note.is_loss]
    assert note.path == b"one"
    assert "could not land" in note.detail
    # Not all is here: what is there may not be replaced.
    assert bench.place().exported_state(VM) == b""
    (here / ".git/config").write_bytes(config)
    in_the_way.unlink(missing_ok=True)
    landed = bench.land(whole, base)
    assert [one.head for one in landed.repositories] == [outer, one, two]
    assert not landed.has_loss


def test_a_store_is_cut_no_more_where_what_lies_behind_has_come(bench: Bench) -> None:
    origin = bench.directory / "origin"
    origin.mkdir()
    git(origin, "init", "-q", "-b", "main")
    for number in range(5):
        (origin / "file").write_text(f"{number}\n")
        commit(origin, "one more")
    inside = bench.guest / "inside"
    git(bench.guest, "clone", "-q", "--depth", "2", f"file://{origin}", "inside")
    for deepen, count in ((None, "2"), ("--deepen=1", "3"), ("--unshallow", "5")):
        if deepen is not None:
            git(inside, "fetch", "-q", deepen, f"file://{origin}", "main")
        assert git(inside, "rev-list", "--count", "HEAD") == count
        store = bench.land(bench.exported()).repositories[1].store
        assert git(store, "rev-list", "--count", f"refs/banger/{VM}/HEAD") == count
        git(store, "fsck", "--strict")
        cut = inside / ".git" / "shallow"
        here = store / "shallow"
        assert here.exists() == cut.exists()
        assert not here.exists() or here.read_text() == cut.read_text()
        told = {one.path: list(one.shallow) for one in bench.place().base(VM, bench.base()).repositories}
        assert told[b"inside"] == (cut.read_text().split() if cut.exists() else [])
    # One behind which something is missing stays.
    parent = commit_of(store, "1" * 40)
    found = git(store, "rev-parse", f"refs/banger/{VM}/HEAD^{{tree}}")
    text = f"tree {found}\nparent {parent}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nm\n"
    kept = put_object(store, "commit", text.encode()) + "\n"
    (store / "shallow").write_text(kept)
    bench.land(bench.exported())
    assert (store / "shallow").read_text() == kept


def test_a_directory_without_git_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    here = tmp_path / "plain"
    (here / "sub").mkdir(parents=True)
    (here / "sub" / "file").write_bytes(b"\0\1")
    bench = Bench(tmp_path)
    bench.guest = here
    parts = bench.exported()
    bench.here = here
    landed = bench.land(parts)
    assert landed.repositories[0].is_own_store
    assert landed_tree(landed.repositories[0].store, f"refs/banger/{VM}/state/tree") == tree(here)
    assert Place(here).exported_state(VM) == b""


def test_what_is_gone_with_the_repository_of_a_tree_is_removed(bench: Bench) -> None:
    for name in ("kept", "gone", "unreadable/a", "lib/b"):
        (bench.guest / name).parent.mkdir(exist_ok=True)
        (bench.guest / name).write_text("x\n")
    commit(bench.guest, "more")
    shutil.rmtree(bench.here)
    shutil.copytree(bench.guest, bench.here, symlinks=True)
    head = git(bench.here, "rev-parse", "HEAD")
    shutil.rmtree(bench.guest / ".git")
    (bench.guest / "file").write_text("changed\n")
    (bench.guest / "gone").unlink()
    shutil.rmtree(bench.guest / "unreadable")
    shutil.rmtree(bench.guest / "lib")
    base = bench.place().base(VM, bench.base())
    parts = bench.exported(base)
    # Where `lib` was is a repository now, without a commit; of a directory it is told that it cannot be read.
    inside = wire.Repository(path=b"lib", kind=wire.Repository.KIND_GIT, head_ref=b"refs/heads/main")
    ends = next(number for number, part in enumerate(parts) if part.WhichOneof("part") == "manifest_end")
    parts.insert(ends, wire.Part(repository=inside))
    lost = wire.Note(kind=wire.Note.KIND_UNREADABLE, path=b"unreadable", detail="no", is_loss=True)
    landed = bench.land([*parts[:-1], wire.Part(note=lost), parts[-1]], base)
    assert [one.path for one in landed.repositories] == [b"", b"lib"]
    assert git(bench.here, "rev-parse", f"refs/banger/{VM}/state/tree^") == head
    now = landed_tree(bench.here, f"refs/banger/{VM}/state/tree")
    assert set(now) == {b"file", b"other", b"kept", b"unreadable/a", b"lib/b"}
    assert now[b"file"][2] == b"changed\n"


def test_a_linked_working_tree_lands_beside_its_repository(bench: Bench) -> None:
    git(bench.here, "worktree", "add", "-q", "-b", "topic", "tree")
    inside = bench.guest / "tree"
    git(bench.guest, "clone", "-q", "--no-local", ".", "tree")
    (inside / "file").write_text("inside\n")
    head = commit(inside, "inside")
    (bench.guest / "file").write_text("theirs\n")
    own = commit(bench.guest, "theirs")
    base = bench.base()
    landed = bench.land(bench.exported(base), base)
    assert [(one.path, one.is_own_store) for one in landed.repositories] == [(b"", False), (b"tree", True)]
    assert git(bench.here, "rev-parse", f"refs/banger/{VM}/HEAD") == own
    assert git(landed.repositories[1].store, "rev-parse", f"refs/banger/{VM}/HEAD") == head


def test_nothing_is_written_here_and_ignored_files_stay(bench: Bench) -> None:
    (bench.here / ".gitignore").write_text("*.log\n/target/\n.env\n")
    (bench.here / "target" / "deep").mkdir(parents=True)
    for name in ("a.log", ".env", "target/x", "target/deep/y"):
        (bench.here / name).write_text(name)
    index = (bench.here / ".git" / "index").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in bench.here.rglob("*")}

    def told(*include: str) -> set[bytes]:
        parts = Source(bench.here, Options(include=include)).manifest(())
        return {entry.path for part in parts for entry in part.entries.entries}

    assert told() == {b".gitignore"}
    assert told(".env", "target/**") == {b".gitignore", b".env", b"target/x", b"target/deep/y"}
    assert told("**/*.log") == {b".gitignore", b"a.log"}
    assert (bench.here / ".git" / "index").read_bytes() == index
    assert {path: path.stat().st_mtime_ns for path in bench.here.rglob("*")} == times
    with pytest.raises(errors.WorkspaceError, match="no pattern"):
        Source(bench.here, Options(include=["[a"]))
    with pytest.raises(errors.WorkspaceError, match="no commit"):
        Source(bench.here, Options(revision="nothing"))
    assert includes(["a/{b,c}/*.py"])


def test_line_ends_and_filters_are_told_as_they_are(bench: Bench) -> None:
    git(bench.here, "config", "core.autocrlf", "true")
    git(bench.here, "config", "filter.lfs.clean", "false")
    git(bench.here, "config", "filter.lfs.smudge", "false")
    (bench.here / "text").write_bytes(b"a\r\nb\r\n")
    commit(bench.here, "text")
    parts = list(Source(bench.here, Options()).manifest(()))
    entries = {entry.path for part in parts for entry in part.entries.entries}
    assert b"text" in entries
    assert parts[0].repository.settings == {"core.autocrlf": "true", "core.filemode": "true"}


def test_a_file_that_moves_while_it_is_sent_is_told(bench: Bench) -> None:
    (bench.here / "new").write_text("one")
    source = Source(bench.here, Options())
    parts = list(source.manifest(()))
    (bench.here / "new").write_text("two")
    with pytest.raises(errors.WorkspaceError) as caught:
        list(source.contents([0]))
    assert caught.value.reason == "WORKSPACE_MOVED"
    assert parts


def _trap(bench: Bench) -> str:
    """A program that leaves a file if something of the VM's ran."""
    script = bench.directory / "trap.sh"
    script.write_text(f'#!/bin/sh\necho "$0 $@" >> {bench.directory}/ran\ncat\n')
    script.chmod(0o755)
    return str(script)


def test_hooks_helpers_and_filters_do_not_run(bench: Bench) -> None:
    trap = _trap(bench)
    for top in (bench.guest, bench.here):
        # The owner's too: they may be files that came with the tree.
        (top / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
        commit(top, "attributes")
    shutil.rmtree(bench.guest)
    shutil.copytree(bench.here, bench.guest, symlinks=True)
    (bench.guest / "file").write_text("theirs\n")
    commit(bench.guest, "theirs")
    for top in (bench.guest, bench.here):
        for setting in ("core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "diff.external"):
            git(top, "config", setting, trap)
        for setting in ("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv"):
            git(top, "config", setting, trap)
        for hook in ("post-checkout", "reference-transaction", "post-merge", "post-index-change"):
            hooks = top / ".git" / "hooks"
            hooks.mkdir(exist_ok=True)
            (hooks / hook).unlink(missing_ok=True)
            (hooks / hook).symlink_to(trap)
        (top / ".git" / "evil").write_text(f"[core]\n\tfsmonitor = {trap}\n")
        git(top, "config", "include.path", "evil")
    (bench.guest / "file").write_text("changed\n")
    base = bench.place().base(VM, bench.base())
    parts = bench.exported(base)
    # In the VM they may run: it is the VM's own git.
    (bench.directory / "ran").unlink(missing_ok=True)
    landed = bench.land(parts, base)
    assert landed.repositories[0].new_commits == 1
    assert not (bench.directory / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        b".git/hooks/post-checkout",
        b"a/.git/config",
        b".GIT/config",
        b"git~1/config",
        b".gi\xe2\x80\x8ct/config",
        b".git::$INDEX_ALLOCATION/config",
        b".git . ./config",
        b"a\\.git/config",
        b"../outside",
        b"a/../../outside",
        b"/etc/passwd",
        b"a//b",
        b"a\0b",
        b"",
        b"x" * 256,
        b"a/" * 300 + b"a",
    ],
)
def test_names_that_lead_elsewhere_are_refused(bench: Bench, name: bytes) -> None:
    parts = snapshot(bench, entries=[file(name, 1)], contents=[content(0, b"x")])
    assert refused(bench, parts) == "WORKSPACE_UNSAFE"
    index = wire.IndexEntry(path=name, mode=0o100_644, object_id="0" * 40)
    assert refused(bench, snapshot(bench, index=[index])) == "WORKSPACE_UNSAFE"


@pytest.mark.parametrize("name", [b".git", b".GIT", b"git~1", b"..", b".", b"a/b", b".g\xe2\x80\x8cit", b""])
def test_trees_with_names_of_git_are_refused(bench: Bench, name: bytes) -> None:
    blob = put_object(bench.guest, "blob", b"x")
    found = tree_with(bench.guest, "100644", name, blob)
    made = commit_of(bench.guest, found)
    pack = pack_of(bench.guest, blob, found, made)
    parts = snapshot(bench, [reference(b"refs/heads/evil", made)], pack)
    assert refused(bench, parts) == "WORKSPACE_OBJECTS_REFUSED"


@pytest.mark.parametrize("who", ["A <a@b> 1 +051800", "A <a@b>1 +0000", "A <a@b> 01 +0000"])
def test_old_histories_with_harmless_mistakes_land(bench: Bench, who: str) -> None:
    blob = put_object(bench.guest, "blob", b"x")
    found = tree_with(bench.guest, "100644", b"x", blob)
    text = f"tree {found}\nauthor {who}\ncommitter {who}\n\nm\n"
    made = put_object(bench.guest, "commit", text.encode())
    pack = pack_of(bench.guest, blob, found, made)
    landed = bench.land(snapshot(bench, [reference(b"refs/heads/old", made)], pack))
    assert landed.refs[f"refs/banger/{VM}/heads/old"] == made


@pytest.mark.parametrize(
    ("mode", "modules"),
    [
        ("100644", '[submodule "../../evil"]\n\tpath = sub\n\turl = https://example.com/x\n'),
        ("100644", '[submodule "sub"]\n\tpath = -evil\n\turl = https://example.com/x\n'),
        ("100644", '[submodule "sub"]\n\tpath = sub\n\turl = -u./program\n'),
        ("100644", '[submodule "sub"]\n\tpath = sub\n\turl = x\n\tupdate = !./program\n'),
        ("120000", "/etc/passwd"),
    ],
)
def test_submodules_that_lead_elsewhere_are_refused(bench: Bench, mode: str, modules: str) -> None:
    blob = put_object(bench.guest, "blob", modules.encode())
    found = tree_with(bench.guest, mode, b".gitmodules", blob)
    made = commit_of(bench.guest, found)
    pack = pack_of(bench.guest, blob, found, made)
    parts = snapshot(bench, [reference(b"refs/heads/evil", made)], pack)
    assert refused(bench, parts) == "WORKSPACE_OBJECTS_REFUSED"


@pytest.mark.parametrize(
    "name",
    [
        b"refs/../config",
        b"refs/heads/../../x",
        b"HEAD",
        b"refs/heads/a.lock",
        b"refs/heads/-\n",
        b"refs//x",
        b"config",
        b"refs/heads/a@{1}",
        b"refs/heads/.a",
    ],
)
def test_references_with_names_that_are_none_are_refused(bench: Bench, name: bytes) -> None:
    head = git(bench.here, "rev-parse", "HEAD")
    assert refused(bench, snapshot(bench, [reference(name, head)])) == "WORKSPACE_UNSAFE"


def test_packs_that_are_damaged_or_promise_too_much_are_refused(bench: Bench) -> None:
    guest = bench.guest
    blob = put_object(guest, "blob", b"some content\n" * 50)
    found = tree_with(guest, "100644", b"x", blob)
    made = commit_of(guest, found)
    whole = pack_of(guest, blob, found, made)
    refs = [reference(b"refs/heads/new", made)]
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 0x55
    bad = [bytes(flipped), whole[:-10], b"not a pack at all, but long enough to be looked at"]
    # The objects that the commit leads to are missing.
    bad += [pack_of(guest, made), pack_of(guest, found, made)]
    # Headers that promise 100 GB: as a blob, as a tree, as a commit.
    for kind in (3, 2, 1):
        size = 100_000_000_000
        lie = bytearray(b"PACK\0\0\0\x02\0\0\0\x01")
        byte = (kind << 4) | (size & 0xF)
        size >>= 4
        while size:
            lie.append(byte | 0x80)
            byte = size & 0x7F
            size >>= 7
        lie.append(byte)
        bad.append(bytes(lie) + bytes([0x78, 0x9C, 0x03, 0, 0, 0, 0, 1]) + bytes(20))
    for pack in bad:
        assert refused(bench, snapshot(bench, refs, pack)) == "WORKSPACE_OBJECTS_REFUSED"
    # And it lands where it is whole.
    bench.land(snapshot(bench, refs, whole))
    assert git_bytes(bench.here, "cat-file", "blob", f"refs/banger/{VM}/heads/new:x") == b"some content\n" * 50


def test_an_index_that_names_no_blob_is_refused(bench: Bench) -> None:
    head = git(bench.here, "rev-parse", "HEAD")
    for found in (head, "1" * 40):
        index = [wire.IndexEntry(path=b"x", mode=0o100_644, object_id=found)]
        assert refused(bench, snapshot(bench, index=index)) == "WORKSPACE_UNSAFE"


def test_more_than_may_come_is_refused(bench: Bench) -> None:
    blob = put_object(bench.guest, "blob", bytes(4 << 20))
    found = tree_with(bench.guest, "100644", b"x", blob)
    made = commit_of(bench.guest, found)
    pack = pack_of(bench.guest, blob, found, made)
    parts = snapshot(bench, [reference(b"refs/heads/new", made)], pack)
    # It is small as it comes, and large when it is unpacked.
    assert refused(bench, parts, Limits(object_bytes=1 << 20)) == "WORKSPACE_UNSAFE"
    assert refused(bench, parts, Limits(unpacked_bytes=1 << 20)) == "WORKSPACE_UNSAFE"
    assert refused(bench, parts, Limits(max_bytes=100)) == "WORKSPACE_UNSAFE"
    assert refused(bench, snapshot(bench, entries=[file(b"huge", 100_000_000_000)])) == "WORKSPACE_UNSAFE"
    bench.land(parts)


def test_contents_must_be_what_they_are_said_to_be(bench: Bench) -> None:
    wrong = wire.Part(content=wire.Content(entry=0, data=b"abc", is_last=True, sha256=bytes(32)))
    assert refused(bench, snapshot(bench, entries=[file(b"new", 3)], contents=[wrong])) == "WORKSPACE_UNSAFE"
    longer = [content(0, b"abcd")]
    assert refused(bench, snapshot(bench, entries=[file(b"new", 3)], contents=longer)) == "WORKSPACE_UNSAFE"
    assert refused(bench, snapshot(bench, contents=[content(0, b"")])) == "WORKSPACE_UNSAFE"
    twice = [content(0, b"abc"), content(0, b"abc")]
    assert refused(bench, snapshot(bench, entries=[file(b"new", 3)], contents=twice)) == "WORKSPACE_UNSAFE"


def test_a_file_whose_content_does_not_come_is_told(bench: Bench) -> None:
    landed = bench.land(snapshot(bench, entries=[file(b"new", 3)]))
    assert landed.has_loss
    assert landed.notes[0].path == b"new"


def test_a_stream_that_is_cut_leaves_nothing_and_a_repeat_succeeds(bench: Bench) -> None:
    (bench.guest / "file").write_text("theirs\n")
    commit(bench.guest, "theirs")
    git(bench.guest, "branch", "topic")
    (bench.guest / "new").write_bytes(b"x" * (3 << 20))
    base = bench.place().base(VM, bench.base())
    parts = bench.exported(base)
    for length in range(len(parts)):
        assert refused(bench, parts[:length]) == "WORKSPACE_UNSAFE"
    bench.land(parts, base)
    assert git(bench.here, "rev-parse", f"refs/banger/{VM}/heads/topic") == git(bench.guest, "rev-parse", "topic")


def test_links_of_the_vm_lead_nowhere(bench: Bench) -> None:
    (bench.guest / "etc").symlink_to("/etc")
    (bench.guest / "their-git").symlink_to("../../here/.git")
    before = tree(bench.here)
    bench.export()
    assert tree(bench.here) == before
    assert git_bytes(bench.here, "cat-file", "blob", f"refs/banger/{VM}/state/tree:etc") == b"/etc"


def test_entries_must_lie_in_the_repository_that_tells_them(bench: Bench) -> None:
    parts = snapshot(bench, entries=[file(b"inside/x", 0)], contents=[content(0, b"")])
    inside = wire.Repository(path=b"inside", kind=wire.Repository.KIND_GIT, head_ref=b"refs/heads/main")
    parts.insert(2, wire.Part(repository=inside))
    assert refused(bench, parts) == "WORKSPACE_UNSAFE"


def test_landings_at_once_do_not_disturb_each_other(bench: Bench) -> None:
    (bench.guest / "file").write_text("theirs\n")
    commit(bench.guest, "theirs")
    base = bench.place().base(VM, bench.base())
    parts = bench.exported(base)
    failed: list[BaseException] = []

    def land() -> None:
        try:
            bench.land(parts, base)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=land) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    git(bench.here, "fsck", "--strict")
    assert bench.left() == []


@pytest.mark.parametrize("has_lock", [True, False])
def test_what_a_killed_landing_left_goes_with_the_next(bench: Bench, has_lock: bool) -> None:
    left = bench.here / ".git" / "banger" / "incoming-left"
    left.mkdir(parents=True)
    # Without one, it was killed while it removed it.
    if has_lock:
        (left / "lock").touch()
    (left / "0.git").mkdir()
    bench.export()
    assert bench.left() == []
    assert stat.S_ISDIR((bench.here / ".git" / "banger").stat().st_mode)


def _encoded(data: bytes, encoding: int = 1) -> wire.Part:
    return wire.Part(content=wire.Content(entry=3, data=data, encoding=encoding))  # type: ignore[arg-type]


def test_what_is_encoded_becomes_what_it_was() -> None:
    dense = random.Random(7).randbytes(10_000)
    for length in (256, 1000, DATA_MAX_BYTES - 1, DATA_MAX_BYTES):
        plain = (b"some words of a file\n" * (length // 21 + 1))[:length]
        part = wire.Part(content=wire.Content(data=plain))
        Encoder(ENCODINGS).encode(part)
        assert part.content.encoding == wire.Content.ENCODING_ZLIB
        assert len(part.content.data) < length / 2
        decode(part)
        assert part == wire.Part(content=wire.Content(data=plain))
    # What does not become smaller stays, and so does the rest of the file; all does for whom it is not offered.
    encoder = Encoder(ENCODINGS)
    for number, data in ((0, bytes(255)), (1, dense), (1, bytes(10_000))):
        part = wire.Part(content=wire.Content(entry=number, data=data))
        encoder.encode(part)
        assert part.content.data == data
    part = wire.Part(content=wire.Content(data=bytes(10_000)))
    Encoder([0, 2]).encode(part)
    assert part.content.data == bytes(10_000)
    encoder.encode(part)
    assert part.content.encoding == wire.Content.ENCODING_ZLIB
    part = _encoded(zlib.compress(dense))
    decode(part)
    assert part.content.data == dense


def test_encodings_that_lie_are_refused() -> None:
    text = b"some words of a file\n" * 100
    whole = zlib.compress(text)
    with_dictionary = zlib.compressobj(zdict=text)
    for part, expected in (
        (_encoded(zlib.compress(bytes(64 << 20))), "more than 1048576 bytes"),
        (_encoded(zlib.compress(bytes(DATA_MAX_BYTES + 1))), "more than 1048576 bytes"),
        (_encoded(bytes(DATA_MAX_BYTES + 1)), "more than 1048576 bytes"),
        (_encoded(b""), "was cut"),
        (_encoded(whole[: len(whole) // 2]), "was cut"),
        (_encoded(whole[:-4]), "was cut"),
        (_encoded(b"\xff" * 1000), "damaged"),
        (_encoded(text), "damaged"),
        (_encoded(whole[:-1] + bytes([whole[-1] ^ 1])), "damaged"),
        (_encoded(with_dictionary.compress(text) + with_dictionary.flush()), "damaged"),
        (_encoded(whole + b"x"), "follows"),
        (_encoded(whole + whole), "follows"),
        (_encoded(whole, 2), "not known"),
    ):
        with pytest.raises(Fault, match=expected):
            decode(part)


def test_content_that_still_is_encoded_is_refused(bench: Bench) -> None:
    part = content(0, b"abc")
    part.content.encoding = wire.Content.ENCODING_ZLIB
    part.content.data = zlib.compress(b"abc")
    assert refused(bench, snapshot(bench, entries=[file(b"new", 100)], contents=[part])) == "WORKSPACE_UNSAFE"


def test_names_are_judged_as_git_and_file_systems_take_them() -> None:
    for name in (b".git", b"GIT~1", b".git.", b".git:x", b".git\\hooks", ".g\u200cit".encode(), "\ufeff.git".encode()):
        assert names.is_git(name), name
    for name in (b".gitignore", b".gitmodules", b"git", b"git~2", b"a.git", b"\xff.git"):
        assert not names.is_git(name), name
    for vm in ("", "-x", "a/b", "..", "a" * 65, "a\n"):
        assert names.vm_prefix(vm) is None
    assert names.shown(b"a\xff\n\\") == "a\\xff\\n\\\\"


def test_what_the_daemon_passes_on_is_judged() -> None:
    for known in (
        wire.Known(repositories=[wire.KnownRepository(path=b"../x")]),
        wire.Known(repositories=[wire.KnownRepository(commits=["--upload-pack=x"])]),
    ):
        with pytest.raises(Fault):
            check_known(known, 0)
    with pytest.raises(Fault):
        check_base(wire.Base(repositories=[wire.BaseRepository(head_commit="--all")]))
    for repository in (
        wire.RepositoryStatus(ahead_count=-1),
        wire.RepositoryStatus(changed_paths=[b"../x"]),
        wire.RepositoryStatus(head_ref=b"refs/../x"),
    ):
        with pytest.raises(Fault):
            check_status(wire.Status(repositories=[repository]))


def test_parts_out_of_order_are_refused() -> None:
    repository = wire.Part(repository=wire.Repository(kind=wire.Repository.KIND_GIT, head_ref=b"refs/heads/main"))
    end = wire.Part(manifest_end=wire.ManifestEnd())
    for parts in (
        [wire.Part()],
        [end],
        [wire.Part(refs=wire.Refs())],
        [repository, repository],
        [repository, wire.Part(pack=wire.PackData(data=b"x")), end],
        [repository, wire.Part(entries=wire.Entries()), wire.Part(refs=wire.Refs())],
        [repository, end, repository],
        [repository, end, wire.Part(end=wire.End()), wire.Part(end=wire.End())],
        [repository, wire.Part(note=wire.Note(kind=wire.Note.KIND_MOVED))],
        [wire.Part(repository=wire.Repository(kind=wire.Repository.KIND_PLAIN, head_commit="0" * 40))],
        [wire.Part(repository=wire.Repository(kind=wire.Repository.KIND_GIT, settings={"core.fsmonitor": "x"}))],
    ):
        judge = Judge()
        *before, last = parts
        for part in before:
            judge.part(part)
        with pytest.raises(Fault):
            judge.part(last)
