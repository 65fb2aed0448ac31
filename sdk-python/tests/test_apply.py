"""What has landed becomes part of the owner's branch and files, never at the cost of what the owner has."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import get_args

import pytest

from banger import errors
from banger._workspace import git as module
from banger._workspace.apply import Applied, Apply, How
from banger._workspace.carried import Carried
from banger._workspace.collect import Options, Source
from banger._workspace.land import Landed, Landing
from banger._workspace.plain import AppliedFiles, Both, apply_files, go_back
from banger._workspace.quarantine import Limits
from banger._workspace.repository import LocalRepository
from banger._workspace.store import Place
from banger.workspace import v1 as wire
from tests.bench import VM, Bench, commit, git, tree

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def apply(bench: Bench, how: How = "fast-forward", *, commits_only: bool = False) -> Applied:
    repository = LocalRepository.find(os.fsencode(bench.here))
    assert repository is not None
    return Apply(repository, VM, how, commits_only=commits_only).run()


def refused(bench: Bench, how: How = "fast-forward") -> list[str]:
    before, refs = tree(bench.here), bench.refs()
    with pytest.raises(errors.ApplyRefused) as caught:
        apply(bench, how)
    assert tree(bench.here) == before
    assert bench.refs() == refs
    assert caught.value.remedy
    return caught.value.paths


def part(bench: Bench) -> None:
    """The owner commits what the VM has not: nothing moves forward any more."""
    (bench.here / "apart").write_text("mine\n")
    commit(bench.here, "apart")


def run_all(bench: Bench, commands: list[str]) -> None:
    """Runs commands as the owner would."""
    for command in commands:
        git(bench.here, *command.split(" ")[1:])


def back(bench: Bench, applied: Applied) -> None:
    run_all(bench, applied.way_back)


def test_a_branch_moves_forward_with_what_was_staged_changed_and_new(bench: Bench) -> None:
    (bench.guest / "file").write_text("theirs\n")
    commit(bench.guest, "theirs")
    (bench.guest / "staged").write_text("staged\n")
    git(bench.guest, "add", "staged")
    (bench.guest / "other").write_text("changed\n")
    (bench.guest / "new").write_text("new\n")
    bench.export()
    applied = apply(bench)
    assert (applied.commits, applied.uncommitted, applied.onto) == ("fast-forwarded", True, "main")
    assert applied.conflicts == []
    assert tree(bench.here) == tree(bench.guest)
    assert git(bench.here, "status", "--porcelain") == git(bench.guest, "status", "--porcelain")
    assert apply(bench, commits_only=True).commits == "nothing"


def test_the_way_back_leads_back(bench: Bench) -> None:
    (bench.guest / "file").write_text("theirs\n")
    commit(bench.guest, "theirs")
    bench.export()
    (bench.here / "other").write_text("mine\n")
    head, before = git(bench.here, "rev-parse", "HEAD"), tree(bench.here)
    applied = apply(bench)
    assert (bench.here / "file").read_text() == "theirs\n"
    assert (bench.here / "other").read_text() == "mine\n"
    back(bench, applied)
    assert git(bench.here, "rev-parse", "HEAD") == head
    assert tree(bench.here) == before


def test_work_of_the_owner_is_never_overwritten(bench: Bench) -> None:
    (bench.guest / "file").write_text("theirs\n")
    (bench.guest / "in").mkdir()
    (bench.guest / "in" / "deep").write_text("theirs\n")
    commit(bench.guest, "theirs")
    (bench.guest / "other").write_text("theirs, not committed\n")
    (bench.guest / "new").write_text("theirs\n")
    bench.export()
    (bench.here / ".git" / "info").mkdir(exist_ok=True)
    (bench.here / ".git" / "info" / "exclude").write_text("new\n")

    def check(*ways: How) -> None:
        for name in ("file", "other", "new", "in"):
            at = bench.here / name
            was = at.read_text() if at.exists() else None
            at.write_text("mine\n")
            for how in ways:
                assert refused(bench, how) == [name]
            if was is None:
                at.unlink()
            else:
                at.write_text(was)

    check("fast-forward", "patch")
    mine = git(bench.here, "rev-parse", "HEAD")
    part(bench)
    check("merge", "rebase", "patch")
    git(bench.here, "reset", "-q", "--hard", mine)
    assert apply(bench).commits == "fast-forwarded"


def test_changes_that_are_hidden_from_git_are_never_taken(bench: Bench) -> None:
    (bench.guest / "file").write_text("theirs\n")
    commit(bench.guest, "theirs")
    bench.export()
    file, other = bench.here / "file", bench.here / "other"
    was = other.read_text()
    # Hidden and not changed: nothing would be lost.
    git(bench.here, "update-index", "--assume-unchanged", "other")
    # The way back takes it wherever it is, though the apply does not touch it.
    other.write_text("mine\n")
    assert refused(bench) == refused(bench, "patch") == ["other"]
    # What is only skipped a reset leaves alone; what the apply writes to it does not.
    git(bench.here, "update-index", "--no-assume-unchanged", "other")
    git(bench.here, "update-index", "--skip-worktree", "other", "file")
    file.write_text("mine\n")
    assert refused(bench) == refused(bench, "patch") == ["file"]
    git(bench.here, "update-index", "--no-skip-worktree", "file")
    git(bench.here, "checkout", "-q", "--", "file")
    applied = apply(bench)
    assert file.read_text() == "theirs\n"
    back(bench, applied)
    assert other.read_text() == "mine\n" != was
    assert bench.left() == []


def exclude(bench: Bench, pattern: str) -> None:
    info = bench.here / ".git" / "info"
    info.mkdir(exist_ok=True)
    (info / "exclude").write_text(f"{pattern}\n")


def test_what_comes_and_goes_among_the_commits_overwrites_nothing(bench: Bench) -> None:
    was = (bench.guest / "file").read_text()
    (bench.guest / ".env").write_text("theirs\n")
    (bench.guest / "file").write_text("theirs\n")
    commit(bench.guest, "comes")
    (bench.guest / ".env").unlink()
    (bench.guest / "file").write_text(was)
    commit(bench.guest, "goes")
    bench.export()
    exclude(bench, ".env")
    part(bench)
    (bench.here / ".env").write_text("mine\n")
    assert refused(bench, "rebase") == [".env"]
    (bench.here / "file").write_text("mine\n")
    assert refused(bench, "rebase") == ["file"]
    assert apply(bench, "merge").commits == "merged"
    assert (bench.here / ".env").read_text() == (bench.here / "file").read_text() == "mine\n"


@pytest.fixture
def old_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that cannot merge among objects alone."""
    real = shutil.which("git", path=module._SEARCH_PATH)
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "git"
    program.write_text(f'#!/bin/sh\ncase " $* " in *" merge-tree "*) exit 129;; esac\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(module, "_SEARCH_PATH", f"{programs}:{module._SEARCH_PATH}")


def renamed(bench: Bench, name: str, *, is_committed: bool) -> None:
    """The VM writes to `name` in a directory that the owner has renamed."""
    (bench.here / "a").mkdir()
    for inside in ("one", "two"):
        (bench.here / "a" / inside).write_text(f"{inside}\n" * 9)
    commit(bench.here, "a directory")
    git(bench.guest, "pull", "-q", str(bench.here), "main")
    (bench.guest / "a" / name).write_text("theirs\n" * 2 + "one\n" * 8)
    git(bench.guest, "add", "-A")
    if is_committed:
        commit(bench.guest, "theirs")
    bench.export()
    git(bench.here, "mv", "a", "b")
    commit(bench.here, "renamed")
    exclude(bench, "*.env")


@pytest.mark.parametrize("is_committed", [True, False])
@pytest.mark.parametrize("name", ["key.env", "one"])
def test_what_follows_a_renamed_directory_overwrites_nothing(bench: Bench, name: str, *, is_committed: bool) -> None:
    renamed(bench, name, is_committed=is_committed)
    (bench.here / "b" / name).write_text("mine\n")
    for how in ("merge", "rebase"):
        assert refused(bench, how) == [f"b/{name}"]


@pytest.mark.usefixtures("old_git")
@pytest.mark.parametrize("is_committed", [True, False])
@pytest.mark.parametrize("how", ["merge", "rebase"])
def test_an_older_git_overwrites_nothing(bench: Bench, how: How, *, is_committed: bool) -> None:
    renamed(bench, "one", is_committed=is_committed)
    (bench.here / "b" / "one").write_text("mine\n")
    assert refused(bench, how) == ["b/one"]
    git(bench.here, "checkout", "-q", "b/one")
    applied = apply(bench, how)
    assert applied.conflicts == []
    assert "theirs" in (bench.here / "b" / "one").read_text()


@pytest.mark.usefixtures("old_git")
@pytest.mark.parametrize("is_committed", [True, False])
@pytest.mark.parametrize("how", ["merge", "rebase"])
def test_with_an_older_git_nothing_follows_a_directory(bench: Bench, how: How, *, is_committed: bool) -> None:
    renamed(bench, "key.env", is_committed=is_committed)
    (bench.here / "b" / "key.env").write_text("mine\n")
    assert apply(bench, how).conflicts == []
    assert (bench.here / "b" / "key.env").read_text() == "mine\n"
    assert (bench.here / "a" / "key.env").exists()


def test_histories_with_nothing_in_common_overwrite_nothing(bench: Bench) -> None:
    git(bench.guest, "checkout", "-q", "--orphan", "again")
    (bench.guest / ".env").write_text("theirs\n")
    commit(bench.guest, "comes")
    (bench.guest / ".env").unlink()
    commit(bench.guest, "goes")
    git(bench.guest, "branch", "-q", "-M", "main")
    bench.export()
    exclude(bench, ".env")
    (bench.here / ".env").write_text("mine\n")
    assert refused(bench, "rebase") == [".env"]
    (bench.here / ".env").unlink()
    assert apply(bench, "rebase").commits == "rebased"


def test_the_way_back_is_told_by_what_fails_halfway(tmp_path: Path) -> None:
    for how in get_args(How)[:3]:
        directory = tmp_path / how
        directory.mkdir()
        bench = Bench(directory)
        (bench.guest / "file").write_text("theirs\n")
        commit(bench.guest, "theirs")
        bench.export()
        if how != "fast-forward":
            part(bench)
        (bench.here / "other").write_text("mine\n")
        head, before = git(bench.here, "rev-parse", "HEAD"), tree(bench.here)
        # The branch cannot be moved.
        lock = bench.here / ".git" / "refs" / "heads" / "main.lock"
        lock.touch()
        with pytest.raises(errors.ApplyHalfway) as caught:
            apply(bench, how)
        lock.unlink()
        assert caught.value.reason == "GIT_FAILED"
        assert caught.value.way_back
        assert all(command in str(caught.value.remedy) for command in caught.value.way_back)
        run_all(bench, caught.value.way_back)
        assert git(bench.here, "rev-parse", "HEAD") == head
        assert tree(bench.here) == before
        assert apply(bench, how).conflicts == []


@pytest.mark.parametrize(("how", "goes_on"), [("merge", "merge"), ("rebase", "cherry-pick")])
def test_uncommitted_work_that_conflicts_keep_out_is_told_of(bench: Bench, how: How, goes_on: str) -> None:
    (bench.guest / "more").write_text("theirs\n")
    commit(bench.guest, "more")
    (bench.guest / "file").write_text("theirs\n")
    commit(bench.guest, "theirs")
    (bench.guest / "more").write_text("staged\n")
    git(bench.guest, "add", "more")
    bench.export()
    (bench.here / "file").write_text("mine\n")
    commit(bench.here, "mine")
    applied = apply(bench, how)
    assert (applied.conflicts, applied.uncommitted) == (["file"], False)
    assert applied.left_out == ["git stash apply --index refs/banger/dev/state/worktree"]
    (bench.here / "file").write_text("both\n")
    git(bench.here, "add", "file")
    git(bench.here, "-c", "core.editor=true", goes_on, "--continue")
    run_all(bench, applied.left_out)
    assert git(bench.here, "status", "--porcelain") == "M  more"


def test_the_way_back_ends_a_rebase_of_several_commits(bench: Bench) -> None:
    for text in ("theirs\n", "more of theirs\n"):
        (bench.guest / "file").write_text(text)
        commit(bench.guest, text)
    bench.export()
    (bench.here / "file").write_text("mine\n")
    mine = commit(bench.here, "mine")
    for _ in range(2):
        applied = apply(bench, "rebase")
        assert applied.conflicts == ["file"]
        back(bench, applied)
        assert git(bench.here, "rev-parse", "HEAD") == mine


def test_histories_that_have_parted_become_one_as_the_owner_says(bench: Bench) -> None:
    (bench.guest / "theirs").write_text("theirs\n")
    commit(bench.guest, "theirs")
    (bench.guest / "file").write_text("theirs\n")
    commit(bench.guest, "more")
    bench.export()
    (bench.here / "mine").write_text("mine\n")
    mine = commit(bench.here, "mine")
    assert refused(bench) == []
    ways: list[tuple[How, str, int]] = [("merge", "merged", 2), ("rebase", "rebased", 1), ("patch", "patched", 1)]
    for how, commits, parents in ways:
        applied = apply(bench, how)
        assert applied.commits == commits
        assert (bench.here / "theirs").exists()
        assert (bench.here / "mine").exists()
        assert len(git(bench.here, "log", "-1", "--format=%P").split()) == parents
        back(bench, applied)
        assert git(bench.here, "rev-parse", "HEAD") == mine
        assert not (bench.here / "theirs").exists()


def test_conflicts_are_left_as_git_leaves_them(bench: Bench) -> None:
    (bench.guest / "file").write_text("theirs\n")
    commit(bench.guest, "theirs")
    bench.export()
    (bench.here / "file").write_text("mine\n")
    mine = commit(bench.here, "mine")
    ways: tuple[How, ...] = ("merge", "rebase", "patch")
    for how in ways:
        applied = apply(bench, how)
        assert applied.conflicts == ["file"]
        assert "<<<<<<<" in (bench.here / "file").read_text()
        if how != "patch":
            with pytest.raises(errors.ApplyRefused, match="is going on"):
                apply(bench, how)
        back(bench, applied)
        assert git(bench.here, "rev-parse", "HEAD") == mine
        assert (bench.here / "file").read_text() == "mine\n"


def test_an_owner_on_another_branch_is_asked(bench: Bench) -> None:
    (bench.guest / "theirs").write_text("theirs\n")
    commit(bench.guest, "theirs")
    bench.export()
    git(bench.here, "switch", "-q", "-c", "elsewhere")
    assert refused(bench) == []


def test_nothing_of_the_tree_that_comes_runs(bench: Bench) -> None:
    ran = bench.directory / "ran"
    trap = bench.directory / "trap.sh"
    trap.write_text(f"#!/bin/sh\necho ran >> {ran}\ncat\n")
    trap.chmod(0o755)
    (bench.here / ".git" / "hooks").mkdir(exist_ok=True)
    for hook in ("post-checkout", "post-merge", "pre-commit", "reference-transaction", "post-index-change"):
        shutil.copy(trap, bench.here / ".git" / "hooks" / hook)
    for setting in ("filter.trap.smudge", "filter.trap.clean", "filter.trap.process", "merge.trap.driver"):
        git(bench.here, "config", setting, str(trap))
    git(bench.here, "config", "core.fsmonitor", str(trap))
    ran.unlink(missing_ok=True)
    (bench.guest / ".gitattributes").write_text("* filter=trap merge=trap\n")
    (bench.guest / "file").write_text("theirs\n")
    commit(bench.guest, "theirs")
    (bench.guest / "other").write_text("changed\n")
    bench.export()
    assert apply(bench).commits == "fast-forwarded"
    assert not ran.exists()


@pytest.mark.parametrize(
    ("include", "named"),
    [
        ("../.gitconfig", ".gitconfig"),
        ("../conf/none-yet", "conf/none-yet"),
        ("../by/a/link", "conf/file"),
        (".././conf/../.gitconfig", ".gitconfig"),
    ],
)
@pytest.mark.parametrize("is_committed", [True, False])
def test_what_the_configuration_includes_is_not_changed(
    tmp_path: Path, include: str, named: str, *, is_committed: bool
) -> None:
    bench = Bench(tmp_path)
    ran = bench.directory / "ran"
    (bench.here / ".gitconfig").write_text("[core]\n\tabbrev = 10\n")
    for name in ("by", "conf"):
        (bench.here / name).mkdir()
    (bench.here / "conf" / "file").touch()
    (bench.here / "by" / "a").symlink_to("../conf")
    (bench.here / "conf" / "link").symlink_to("file")
    commit(bench.here, "settings of the project")
    shutil.rmtree(bench.guest)
    shutil.copytree(bench.here, bench.guest, symlinks=True)
    git(bench.here, "config", "include.path", include)
    program = bench.guest / "program"
    program.write_text(f"#!/bin/sh\necho ran >> {ran}\ncat\n")
    program.chmod(0o755)
    (bench.guest / ".gitattributes").write_text("* filter=evil\n")
    (bench.guest / named).write_text('[filter "evil"]\n\tclean = ./program\n\tsmudge = ./program\n')
    if is_committed:
        commit(bench.guest, "theirs")
    (bench.guest / "file").write_text("not committed\n")
    bench.export()
    for how in get_args(How):
        assert refused(bench, how) == [named]
    assert not ran.exists()


def test_nothing_is_applied_that_was_not_exported(bench: Bench) -> None:
    with pytest.raises(errors.WorkspaceError) as caught:
        apply(bench)
    assert caught.value.reason == "NOTHING_EXPORTED"


class Plain:
    """A directory without git `here`, and the VM's."""

    def __init__(self, directory: Path) -> None:
        self.here, self.guest = directory / "here", directory / "guest"
        self.here.mkdir()
        self.write(self.here, "file", "one\n")
        self.write(self.here, "other", "other\n")
        self.write(self.here, "dir/inside", "inside\n")

    @staticmethod
    def write(top: Path, name: str, text: str) -> None:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)

    def place(self) -> Place:
        return Place(self.here)

    def carried(self) -> Carried:
        return Carried(self.place().store, VM)

    def entries(self) -> list[wire.Entry]:
        source = Source(self.here, Options())
        list(source.manifest(()))
        return source.plain_entries or []

    def prepare(self) -> None:
        entries = self.entries()
        self.carried().sending(entries)
        shutil.rmtree(self.guest, ignore_errors=True)
        shutil.copytree(self.here, self.guest, symlinks=True)
        self.carried().sent(entries)

    def export(self) -> Landed:
        source = Source(self.guest, Options(plain=True))
        parts = list(source.manifest(()))
        entries = source.plain_entries or []
        files = [number for number, entry in enumerate(entries) if entry.kind == wire.Entry.KIND_FILE]
        return self.land([*parts, *source.contents(files)])

    def land(self, parts: list[wire.Part]) -> Landed:
        with Landing(self.place(), VM, wire.Base(), Limits()) as landing:
            for part in parts:
                landing.part(part)
            return landing.finish()

    def apply(self, both: Both = "refuse") -> AppliedFiles:
        return apply_files(self.place(), VM, both)

    def refused(self, both: Both = "refuse") -> list[str]:
        before = tree(self.here)
        with pytest.raises(errors.ApplyRefused) as caught:
            self.apply(both)
        assert tree(self.here) == before
        return caught.value.paths


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plain:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    plain = Plain(tmp_path)
    plain.prepare()
    return plain


def test_files_of_the_vm_come_and_files_of_the_owner_stay(plain: Plain) -> None:
    plain.write(plain.guest, "file", "theirs\n")
    (plain.guest / "file").chmod(0o750)
    shutil.rmtree(plain.guest / "dir")
    plain.write(plain.guest, "new/deep/file", "theirs\n")
    (plain.guest / "link").symlink_to("file")
    (plain.guest / "empty").mkdir()
    plain.export()
    plain.write(plain.here, "other", "mine\n")
    before = tree(plain.here)
    applied = plain.apply()
    assert (applied.written, applied.removed, applied.moved, applied.left) == (4, 1, [], [])
    assert tree(plain.here) == {**tree(plain.guest), b"other": before[b"other"]}
    assert (plain.here / "file").stat().st_mode & 0o777 == 0o750
    assert (plain.here / "empty").is_dir()
    assert not (plain.here / "dir").exists()
    assert plain.apply().before is None
    assert applied.before is not None
    go_back(plain.place(), VM, applied.before)
    assert tree(plain.here) == before
    command = applied.way_back[0].split(" ")
    assert command[:4] == ["banger", "workspace", "apply", VM]
    assert go_back(plain.place(), VM, command[-1]).before is None


def test_files_that_were_changed_on_both_sides_are_whose_the_owner_says(plain: Plain) -> None:
    plain.write(plain.guest, "file", "theirs\n")
    (plain.guest / "other").unlink()
    plain.write(plain.guest, "new", "theirs\n")
    plain.export()
    for name in ("file", "other", "new"):
        plain.write(plain.here, name, "mine\n")
    before = tree(plain.here)
    assert plain.refused() == ["file", "new", "other"]
    applied = plain.apply("theirs")
    assert tree(plain.here) == tree(plain.guest)
    plain.write(plain.here, "file", "later\n")
    assert applied.before is not None
    with pytest.raises(errors.ApplyRefused):
        go_back(plain.place(), VM, applied.before)
    plain.write(plain.here, "file", "theirs\n")
    go_back(plain.place(), VM, applied.before)
    assert tree(plain.here) == before
    plain.apply("mine")
    assert tree(plain.here) == before


def test_no_link_is_followed_and_nothing_unknown_is_overwritten(plain: Plain, tmp_path: Path) -> None:
    plain.write(plain.guest, "dir/inside", "theirs\n")
    plain.write(plain.guest, "deep/new", "theirs\n")
    plain.write(plain.guest, "a", "a file\n")
    plain.export()
    outside = tmp_path / "outside"
    plain.write(outside, "inside", "inside\n")
    shutil.rmtree(plain.here / "dir")
    (plain.here / "dir").symlink_to(outside)
    (plain.here / "deep").symlink_to(outside)
    plain.write(plain.here, "a/mine", "mine\n")
    before = tree(outside)
    assert plain.refused() == ["dir/inside"]
    assert plain.refused("theirs") == ["a", "deep", "dir"]
    plain.apply("mine")
    assert tree(outside) == before
    assert (plain.here / "a" / "mine").read_text() == "mine\n"


def test_what_is_compared_is_what_the_vm_had(plain: Plain) -> None:
    plain.write(plain.guest, "new", "theirs\n")
    plain.export()
    plain.write(plain.here, "file", "later\n")
    plain.prepare()
    plain.apply()
    assert (plain.here / "file").read_text() == "later\n"
    assert (plain.here / "new").read_text() == "theirs\n"
    # One that was cut: either may be there.
    plain.write(plain.here, "file", "sent, or not\n")
    plain.carried().sending(plain.entries())
    plain.write(plain.guest, "other", "theirs\n")
    plain.export()
    assert plain.refused() == ["file", "new"]


def test_what_is_not_told_is_not_removed(plain: Plain) -> None:
    plain.land(
        [
            wire.Part(repository=wire.Repository(kind=wire.Repository.KIND_PLAIN)),
            wire.Part(manifest_end=wire.ManifestEnd()),
            wire.Part(note=wire.Note(kind=wire.Note.KIND_UNREADABLE, path=b"dir", detail="no", is_loss=True)),
            wire.Part(end=wire.End()),
        ]
    )
    assert plain.apply().left == ["dir/inside"]
    assert (plain.here / "dir" / "inside").exists()
    assert not (plain.here / "file").exists()


def test_a_directory_that_became_a_repository_is_no_set_of_files(plain: Plain) -> None:
    plain.export()
    git(plain.guest, "init", "-q")
    commit(plain.guest, "all")
    source = Source(plain.guest, Options())
    plain.land([*source.manifest(()), *source.contents(())])
    with pytest.raises(errors.ApplyRefused, match="git repository in the VM") as caught:
        plain.apply()
    words = (caught.value.remedy or "").split("`")[1].split(" ")
    other = plain.here.parent / "fetched"
    other.mkdir()
    git(other, "init", "-q")
    git(other, *words[1:])


def test_random_work_on_both_sides_is_never_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    seed = int(os.environ.get("BANGER_SEED") or random.randrange(1 << 32))
    print(f"BANGER_SEED={seed}")
    chosen = random.Random(seed)
    names = ["a", "a/x", "a/y", "b", "b/x", "b/c/x", "d"]

    def disturb(top: Path) -> None:
        for _ in range(chosen.randrange(1, 5)):
            at = top / chosen.choice(names)
            if at.is_symlink() or at.is_file():
                at.unlink()
            shutil.rmtree(at, ignore_errors=True)
            if chosen.random() < 0.25 or any(one.is_file() or one.is_symlink() for one in at.parents):
                continue
            at.parent.mkdir(parents=True, exist_ok=True)
            if chosen.random() < 0.15:
                at.symlink_to("a")
            else:
                at.write_text(f"{chosen.randrange(3)}\n")

    for case in range(25):
        directory = tmp_path / str(case)
        directory.mkdir()
        plain = Plain(directory)
        disturb(plain.here)
        plain.prepare()
        base = tree(plain.here)
        disturb(plain.guest)
        disturb(plain.here)
        plain.export()
        theirs, mine = tree(plain.guest), tree(plain.here)
        both: Both = chosen.choice(("refuse", "mine", "theirs"))
        try:
            applied = plain.apply(both)
        except errors.ApplyRefused:
            assert both != "mine"
            assert tree(plain.here) == mine
            continue
        now = tree(plain.here)
        for path in {*base, *theirs, *mine}:
            was, there, here = base.get(path), theirs.get(path), mine.get(path)
            if here != was and (there == was or both == "mine"):
                assert now.get(path) == here, (case, path)
            elif both != "mine":
                assert now.get(path) == there, (case, path)
            else:
                assert now.get(path) in (there, here), (case, path)
        if applied.before is not None:
            go_back(plain.place(), VM, applied.before)
            assert tree(plain.here) == mine
