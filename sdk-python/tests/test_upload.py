"""Trees that change while they are packed."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import banger
import banger.aio
from banger import v1
from banger._glob import Ignored
from banger._pack import CHUNK_BYTES, pack, pack_content
from banger.errors import LocalFileError
from banger.testing import FakeDaemon

SOCKET, VANISHED, SHRANK = (
    v1.Omission.REASON_SOCKET,
    v1.Omission.REASON_VANISHED,
    v1.Omission.REASON_SHRANK,
)
Meddle = Callable[[bytes], object]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "t").mkdir()
    return tmp_path / "t"


def meddled(pieces: Iterator[bytes], meddle: Meddle) -> Iterator[bytes]:
    """The same pieces; each is looked at before the next is made."""
    for piece in pieces:
        meddle(piece)
        yield piece


def at(name: str, then: Callable[[], object]) -> Meddle:
    """Does something when the header of an entry has come."""
    return lambda piece: then() if f"{name}\0".encode() in piece else None


def read(pieces: Iterator[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(b"".join(pieces)))


def packed(top: Path, meddle: Meddle = lambda piece: None) -> tuple[tarfile.TarFile, list[tuple[str, int]]]:
    """The archive, and what it says that it lacks."""
    omissions = v1.Omissions()
    tar = read(meddled(pack(top, omissions), meddle))
    assert omissions.count == len(omissions.first)
    return tar, [(omission.path, omission.reason) for omission in omissions.first]


def content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


@pytest.fixture
def after_look(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Callable[[], object]], None]:
    """Does something after a path was looked at, and before it is opened."""
    look = os.lstat

    def hook(path: Path, then: Callable[[], object]) -> None:
        waiting = [then]

        def looked(*args: object, **more: object) -> os.stat_result:
            found = look(*args, **more)  # type: ignore[arg-type]
            if args[0] == path and waiting:
                waiting.pop()()
            return found

        monkeypatch.setattr(os, "lstat", looked)

    return hook


def listen(path: bytes) -> None:
    """Leaves a socket there."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


def test_what_goes_is_left_out_and_told(tree: Path) -> None:
    for name in ("a", "gone", "left/x", "listed/x", "listed/y", "other"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(name)
    (tree / "link").symlink_to("a")

    def go() -> None:
        (tree / "gone").unlink()
        (tree / "link").unlink()
        shutil.rmtree(tree / "left")

    def meddle(piece: bytes) -> None:
        at("t/a", go)(piece)
        at("t/listed/x", lambda: shutil.rmtree(tree / "listed"))(piece)

    tar, omitted = packed(tree, meddle)
    assert tar.getnames() == ["t", "t/a", "t/listed", "t/listed/x", "t/other"]
    assert [content(tar, name) for name in ("t/listed/x", "t/other")] == [b"listed/x", b"other"]
    gone = ("t/gone", "t/left", "t/link", "t/listed/y")
    assert omitted == [(name, VANISHED) for name in gone]


def test_a_directory_that_goes_after_it_was_told_comes_empty(tree: Path) -> None:
    (tree / "left" / "sub").mkdir(parents=True)
    # The header is a directory's name, which ends with a slash.
    tar, omitted = packed(tree, at("t/left/", lambda: shutil.rmtree(tree / "left")))
    assert tar.getnames() == ["t", "t/left"]
    assert omitted == [("t/left", VANISHED)]


def test_the_top_must_be_there(tree: Path) -> None:
    with pytest.raises(LocalFileError, match="missing"):
        packed(tree / "missing")
    with pytest.raises(LocalFileError):
        packed(tree, at("t/", tree.rmdir))


def test_what_becomes_shorter_ends_in_zeros(tree: Path) -> None:
    size = 4 * CHUNK_BYTES
    (tree / "shrinks").write_bytes(b"7" * size)
    (tree / "grows").write_text("1")
    (tree / "z").write_text("after")

    def meddle(piece: bytes) -> None:
        at("t/grows", lambda: (tree / "grows").write_text("12345"))(piece)
        if piece.startswith(b"7"):
            os.truncate(tree / "shrinks", 1)

    tar, omitted = packed(tree, meddle)
    assert content(tar, "t/shrinks") == b"7" * CHUNK_BYTES + bytes(size - CHUNK_BYTES)
    assert [content(tar, name) for name in ("t/grows", "t/z")] == [b"1", b"after"]
    assert omitted == [("t/shrinks", SHRANK)]


def test_what_becomes_shorter_and_as_long_as_before_is_told(tree: Path) -> None:
    chunks = [letter * CHUNK_BYTES for letter in (b"6", b"7", b"8", b"9")]
    (tree / "file").write_bytes(b"".join(chunks))

    def meddle(piece: bytes) -> None:
        if piece == chunks[0]:
            os.truncate(tree / "file", 1)
        elif piece == bytes(CHUNK_BYTES):
            (tree / "file").write_bytes(b"".join(chunks))

    tar, omitted = packed(tree, meddle)
    # What has come again is where it was.
    assert content(tar, "t/file") == chunks[0] + bytes(CHUNK_BYTES) + chunks[2] + chunks[3]
    assert omitted == [("t/file", SHRANK)]


@pytest.mark.parametrize("left", [1 << 20, 1])
def test_a_file_with_holes_that_becomes_shorter_is_told(tree: Path, left: int) -> None:
    with open(tree / "file", "wb") as file:
        file.write(b"7" * 10_000)
        file.truncate(2 << 20)
    tar, omitted = packed(tree, at("file", lambda: os.truncate(tree / "file", left)))
    kept = b"7" * min(left, 10_000)
    assert content(tar, "t/file") == kept.ljust(2 << 20, b"\0")
    assert omitted == [("t/file", SHRANK)]


def test_sockets_are_left_out_and_told_and_pipes_are_packed(tree: Path) -> None:
    listen(os.fsencode(tree / "s") + b"\xff")
    os.mkfifo(tree / "pipe", 0o640)
    tar, omitted = packed(tree)
    assert tar.getnames() == ["t", "t/pipe"]
    assert tar.getmember("t/pipe").isfifo()
    assert omitted == [("t/s\N{REPLACEMENT CHARACTER}", SOCKET)]


def test_a_link_that_is_named_is_followed_and_those_below_are_kept(tree: Path) -> None:
    (tree / "file").write_text("content")
    (tree / "link").symlink_to("file")
    top = tree.parent / "top"
    top.symlink_to("t")
    tar, omitted = packed(top)
    assert tar.getnames() == ["top", "top/file", "top/link"]
    assert tar.getmember("top/link").linkname == "file"
    assert omitted == []


def test_of_many_omissions_the_first_are_told(tree: Path) -> None:
    names = [f"{number:02}" for number in range(70)]
    for name in ["!", *names]:
        (tree / name).write_text("")
    omissions = v1.Omissions()

    def go() -> None:
        for name in names:
            (tree / name).unlink()

    assert read(meddled(pack(tree, omissions), at("t/!", go))).getnames() == ["t", "t/!"]
    assert omissions.count == 70
    assert [omission.path for omission in omissions.first] == [f"t/{name}" for name in names[:64]]


def test_another_name_has_the_content_of_one_that_went(
    tree: Path, after_look: Callable[[Path, Callable[[], object]], None]
) -> None:
    (tree / "a").write_text("content")
    for name in ("b", "c"):
        os.link(tree / "a", tree / name)
    after_look(tree / "a", (tree / "a").unlink)
    tar, omitted = packed(tree)
    assert tar.getnames() == ["t", "t/b", "t/c"]
    assert content(tar, "t/b") == b"content"
    assert tar.getmember("t/c").linkname == "t/b"
    assert omitted == [("t/a", VANISHED)]


def test_a_file_that_takes_the_name_of_another_is_not_taken_for_it(
    tree: Path, after_look: Callable[[Path, Callable[[], object]], None]
) -> None:
    (tree / "a").write_text("old")
    os.link(tree / "a", tree / "b")
    os.link(tree / "a", tree / "c")
    new = tree.parent / "new"
    new.write_text("new")
    new.chmod(0o600)
    after_look(tree / "a", lambda: new.rename(tree / "a"))
    tar, omitted = packed(tree)
    assert (content(tar, "t/a"), tar.getmember("t/a").mode) == (b"new", 0o600)
    assert content(tar, "t/b") == b"old"
    assert omitted == []


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_becomes_no_file_is_neither_followed_nor_waited_for(
    tree: Path, after_look: Callable[[Path, Callable[[], object]], None], kind: str
) -> None:
    (tree.parent / "secret").write_text("secret")
    file = tree / "file"
    file.write_text("content")

    def become() -> None:
        file.unlink()
        if kind == "link":
            file.symlink_to("../secret")
        elif kind == "pipe":
            os.mkfifo(file)
        else:
            file.mkdir()

    after_look(file, become)
    tar, omitted = packed(tree)
    assert tar.getnames() == ["t"]
    assert omitted == [("t/file", VANISHED)]


def test_what_is_built_of_may_not_change(tree: Path) -> None:
    listen(os.fsencode(tree / "socket"))
    os.mkfifo(tree / "pipe")
    for name in ("a", "sub/b", "sub/c"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"7" * 2 * CHUNK_BYTES)
    assert read(pack_content(tree, Ignored("sub/c"))).getnames() == ["a", "sub", "sub/b"]
    with pytest.raises(LocalFileError, match="sub/c"):
        read(meddled(pack_content(tree), at("sub/b", (tree / "sub" / "c").unlink)))
    with pytest.raises(LocalFileError, match="sub"):
        read(meddled(pack_content(tree), at("a", lambda: shutil.rmtree(tree / "sub"))))
    with pytest.raises(LocalFileError, match="shorter"):
        read(meddled(pack_content(tree), at("a", lambda: os.truncate(tree / "a", 1))))


def test_what_a_build_ignores_may_go(tree: Path) -> None:
    for name in ("a", "out", "sub/a", "sub/out", "tmp/a", "tmp/b", "tmp/keep"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(name)
    ignored = Ignored("**/out\ntmp\n!tmp/keep\n")

    def meddle(piece: bytes) -> None:
        at("a", lambda: (tree / "out").unlink(missing_ok=True))(piece)
        at("sub/a", (tree / "sub" / "out").unlink)(piece)

    assert read(meddled(pack_content(tree, ignored), meddle)).getnames() == ["a", "sub", "sub/a", "tmp/keep"]
    (tree / "tmp" / "!").write_text("first")
    ignored = Ignored("tmp\n!tmp/!\n!tmp/keep\n")
    with pytest.raises(LocalFileError, match="tmp/keep"):
        read(meddled(pack_content(tree, ignored), at("tmp/!", (tree / "tmp" / "keep").unlink)))


class Taking(FakeDaemon):
    """Takes trees."""

    archive = b""

    def UploadFiles(  # noqa: N802
        self, requests: Iterator[v1.UploadFilesRequest]
    ) -> Iterator[v1.UploadFilesResponse]:
        assert next(requests).start.names_entry
        self.archive = b"".join(request.chunk for request in requests)
        yield v1.UploadFilesResponse(done=v1.FilesMoved(entry_count=2))


@pytest.mark.parametrize("is_async", [False, True])
def test_an_upload_tells_what_it_lacks(tree: Path, monkeypatch: pytest.MonkeyPatch, is_async: bool) -> None:
    for name in ("a", "gone"):
        (tree / name).write_text(name)

    def meddling(local: Path, omissions: v1.Omissions) -> Iterator[bytes]:
        return meddled(pack(local, omissions), at("t/a", lambda: (tree / "gone").unlink(missing_ok=True)))

    def upload(host: str) -> v1.FilesMoved:
        with banger.connect(host) as client:
            return client.vms.create("box").files.upload(tree, "/t")

    async def aupload(host: str) -> v1.FilesMoved:
        async with await banger.aio.connect(host) as client:
            return await (await client.vms.create("box")).files.upload(tree, "/t")

    for module in ("_sync", "_async"):
        monkeypatch.setattr(f"banger.{module}.files.pack", meddling)
    taking = Taking()
    with taking as fake:
        moved = asyncio.run(aupload(fake.host)) if is_async else upload(fake.host)
    assert read(iter([taking.archive])).getnames() == ["t", "t/a"]
    omission = v1.Omission(path="t/gone", reason=VANISHED)
    assert moved == v1.FilesMoved(entry_count=2, omissions=v1.Omissions(count=1, first=[omission]))
    # One that lacks nothing tells nothing.
    with Taking() as fake:
        moved = asyncio.run(aupload(fake.host)) if is_async else upload(fake.host)
    assert not moved.HasField("omissions")
