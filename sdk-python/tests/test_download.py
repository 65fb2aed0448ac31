"""What a hostile guest may send: nothing is written outside of the target."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import banger
from banger import v1
from banger._pack import chunked, pack
from banger._tar import DamagedArchive, Entry, TarReader
from banger._unpack import Downloaded, Unpacker
from banger.errors import ArchiveDamaged, BangerError, LocalFileError, UnsafeDownload
from banger.testing import FakeDaemon


def archive(*entries: tuple[str, bytes, str, bytes]) -> bytes:
    """Of name, type, link and content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = kind, link, len(content), 0o7755
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def unpack(data: bytes, local: str, top: str = "top", entries: int = 1000, most: int = 1 << 30) -> Downloaded:
    unpacker = Unpacker(local, top, entries, most)
    try:
        for at in range(0, len(data), 700):
            unpacker.feed(data[at : at + 700])
        return unpacker.finish()
    finally:
        unpacker.close()


def everything(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("mine")
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


TOP = ("top", tarfile.DIRTYPE, "", b"")
FILE = tarfile.REGTYPE


@pytest.mark.parametrize(
    "entries",
    [
        [TOP, ("top/../../outside/new", FILE, "", b"x")],
        [TOP, ("/tmp/banger-absolute", FILE, "", b"x")],
        [("other/x", FILE, "", b"x")],
        [TOP, ("top/link", tarfile.SYMTYPE, "../../outside", b""), ("top/link/new", FILE, "", b"x")],
        [TOP, ("top/link", tarfile.SYMTYPE, "/", b""), ("top/link/tmp/banger-absolute", FILE, "", b"x")],
        [TOP, ("top/hard", tarfile.LNKTYPE, "../outside/file", b"")],
        [TOP, ("top/hard", tarfile.LNKTYPE, "/etc/passwd", b"")],
        [
            TOP,
            ("top/link", tarfile.SYMTYPE, "../../outside/file", b""),
            ("top/hard", tarfile.LNKTYPE, "top/link", b""),
        ],
        [TOP, ("top/missing/x", FILE, "", b"x")],
        [TOP, ("top/x", FILE, "", b"x"), ("top/x/y", FILE, "", b"x")],
        [("top/..", tarfile.DIRTYPE, "", b"")],
    ],
)
def test_nothing_leads_out_of_the_target(target: Path, entries: list[tuple[str, bytes, str, bytes]]) -> None:
    with pytest.raises(UnsafeDownload):
        unpack(archive(*entries), str(target) + "/")
    assert everything(target.parent / "outside") == ["file"]
    assert (target.parent / "outside" / "file").read_text() == "mine"
    assert not Path("/tmp/banger-absolute").exists()
    assert not [name for name in everything(target) if name.endswith(".part")]


def test_a_link_is_replaced_and_not_followed(target: Path) -> None:
    entries = [TOP, ("top/x", tarfile.SYMTYPE, "../../outside/file", b""), ("top/x", FILE, "", b"theirs")]
    unpack(archive(*entries), str(target))
    assert (target / "top" / "x").read_text() == "theirs"
    assert (target.parent / "outside" / "file").read_text() == "mine"


def test_a_link_that_was_there_before_is_not_followed(target: Path) -> None:
    (target / "top").symlink_to("../outside")
    with pytest.raises(BangerError):
        unpack(archive(TOP, ("top/new", FILE, "", b"x")), str(target) + "/")
    assert everything(target.parent / "outside") == ["file"]


def test_modes_times_links_are_kept_and_devices_are_not(target: Path) -> None:
    entries = [
        TOP,
        ("top/a", FILE, "", b"content"),
        ("top/b", tarfile.LNKTYPE, "top/a", b""),
        ("top/c", tarfile.SYMTYPE, "a", b""),
        ("top/fifo", tarfile.FIFOTYPE, "", b""),
    ]
    done = unpack(archive(*entries), str(target / "named"))
    named = target / "named"
    assert everything(named) == ["a", "b", "c"]
    assert (done.entries, done.content_bytes, done.skipped, done.skipped_names) == (4, 7, 1, ["top/fifo"])
    assert (named / "a").stat().st_ino == (named / "b").stat().st_ino
    # No setuid, setgid, sticky.
    assert (named / "a").stat().st_mode & 0o7777 == 0o755
    assert os.readlink(named / "c") == "a"
    assert (named / "a").stat().st_mtime == 0


class Lacking(FakeDaemon):
    """Sends a directory, and tells what it lacks."""

    omissions = v1.Omissions(count=70, first=[v1.Omission(path="top/s", reason=v1.Omission.REASON_SOCKET)])

    def DownloadFiles(self, _: v1.DownloadFilesRequest) -> Iterator[v1.DownloadFilesResponse]:  # noqa: N802
        yield v1.DownloadFilesResponse(chunk=archive(TOP))
        yield v1.DownloadFilesResponse(done=v1.FilesMoved(entry_count=1, omissions=self.omissions))


def test_what_the_vm_left_out_is_told(target: Path) -> None:
    assert unpack(archive(TOP), str(target)).omissions.count == 0
    with Lacking() as fake, banger.connect(fake.host) as client:
        done = client.vms.create("box").files.download("/top", target)
    assert (done.entries, done.skipped) == (1, 0)
    assert done.omissions == Lacking.omissions


def test_bounds_are_kept(target: Path) -> None:
    with pytest.raises(UnsafeDownload, match="max_entries"):
        unpack(archive(TOP, ("top/a", FILE, "", b"")), str(target), entries=1)
    with pytest.raises(UnsafeDownload, match="max_bytes"):
        unpack(archive(TOP, ("top/a", FILE, "", b"12345")), str(target), most=4)


def test_what_is_cut_short_leaves_no_part(target: Path) -> None:
    data = archive(TOP, ("top/a", FILE, "", b"x" * 5000))
    unpacker = Unpacker(str(target), "top", 10, 1 << 20)
    unpacker.feed(data[:3000])
    with pytest.raises(UnsafeDownload, match="cut short"):
        unpacker.finish()
    unpacker.close()
    assert everything(target) == ["top"]


def test_a_directory_in_the_way_is_told(target: Path) -> None:
    (target / "top" / "a").mkdir(parents=True)
    with pytest.raises(LocalFileError, match="directory"):
        unpack(archive(TOP, ("top/a", FILE, "", b"x")), str(target))


@pytest.mark.parametrize("spoil", [b"\xff" * 512, b"x" * 512, b"\0" * 148 + b"7777777\0" + b"\0" * 356])
def test_what_is_no_archive_is_told(target: Path, spoil: bytes) -> None:
    with pytest.raises(ArchiveDamaged):
        unpack(archive(TOP)[:512] + spoil + bytes(2048), str(target))


def records(**pairs: str) -> bytes:
    data = b""
    for key, value in pairs.items():
        body = f" {key.replace('_', '.')}={value}\n".encode()
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length += 1
        data += str(length).encode() + body
    return data


def header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def pax(data: bytes) -> bytes:
    return header("pax", b"x", len(data)) + data + bytes(-len(data) % 512)


def pieces(data: bytes) -> Iterator[Entry | bytes]:
    reader = TarReader()
    for at in range(0, len(data), 100):
        yield from reader.feed(data[at : at + 100])


def test_holes_are_read_and_made(target: Path) -> None:
    sparse = b"2\n0\n3\n1000000\n4\n".ljust(512, b"\0")
    content = b"abcwxyz"
    names = {"GNU_sparse_major": "1", "GNU_sparse_minor": "0", "GNU_sparse_realsize": "1000004"}
    named = pax(records(**names) + records(GNU_sparse_name="top/holes"))
    data = archive(TOP)[:512] + named + header("x", b"0", 512 + 7) + sparse + content + bytes(505) + bytes(1024)
    unpack(data, str(target))
    made = target / "top" / "holes"
    assert made.stat().st_size == 1_000_004
    assert made.read_bytes() == b"abc" + bytes(999_997) + b"wxyz"
    assert made.stat().st_blocks * 512 < 100_000


@pytest.mark.parametrize(
    "data",
    [
        pax(b"99999999999999999999 path=x\n"),
        pax(b"7 path=x\n"),
        pax(b"\n"),
        header("pax", b"x", 1 << 21),
        pax(records(mtime="nan")) + header("a", b"0", 0),
        pax(records(size="-1")) + header("a", b"0", 0),
        pax(records(GNU_sparse_major="1", GNU_sparse_realsize="5")) + header("a", b"0", 512) + b"9" * 512,
        pax(records(GNU_sparse_major="1", GNU_sparse_realsize="5"))
        + header("a", b"0", 512)
        + b"1\n3\n9\n".ljust(512, b"\0"),
    ],
)
def test_lies_in_an_archive_are_refused(data: bytes) -> None:
    with pytest.raises(DamagedArchive):
        list(pieces(data + bytes(4096)))


def test_what_is_packed_is_what_is_unpacked(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / ("n" * 150)).write_bytes(os.urandom(300_000))
    (source / "link").symlink_to("sub")
    os.link(source / "sub" / ("n" * 150), source / "hard")
    (source / "sub" / "run").write_text("#!/bin/sh\n")
    (source / "sub" / "run").chmod(0o751)
    with open(source / "sub" / "holes", "wb") as sparse:
        for at in (0, 5 << 20, 30 << 20):
            sparse.seek(at)
            sparse.write(os.urandom(10_000))
        sparse.truncate(64 << 20)
    with open(source / "sub" / "hole", "wb") as sparse:
        sparse.truncate(1 << 20)
    with contextlib.suppress(OSError):  # a file system that takes none
        for noted in ("sub", "sub/run"):
            os.setxattr(source / noted, "user.note", b"\xff\0of mine")
    data = b"".join(chunked(pack(source, v1.Omissions())))
    unpack(data, str(tmp_path / "copy"), "source")
    assert everything(tmp_path / "copy") == everything(source)
    assert (tmp_path / "copy" / "hard").read_bytes() == (source / "hard").read_bytes()
    assert (tmp_path / "copy" / "hard").stat().st_nlink == 2
    assert (tmp_path / "copy" / "sub" / "run").stat().st_mode & 0o7777 == 0o751
    assert len(data) < 1 << 20
    for name in ("holes", "hole"):
        copied, there = tmp_path / "copy" / "sub" / name, source / "sub" / name
        assert copied.read_bytes() == there.read_bytes()
        assert copied.stat().st_blocks * 512 < 1 << 20
    for noted in ("sub", "sub/run"):
        copied, there = tmp_path / "copy" / noted, source / noted
        assert os.listxattr(copied) == os.listxattr(there)
        for attribute in os.listxattr(there):
            assert os.getxattr(copied, attribute) == os.getxattr(there, attribute)


def test_attributes_that_mean_something_here_are_not_set(target: Path) -> None:
    names = ("user.mine", "user.overlay.opaque", "security.capability", "trusted.mine")
    told = pax(records(**{f"SCHILY.xattr.{name}": "value" for name in names}))
    unpack(archive(TOP)[:512] + told + header("top/file", b"0", 0) + bytes(1024), str(target))
    assert set(os.listxattr(target / "top" / "file")) <= {"user.mine"}


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(LocalFileError, match="could not read"):
        list(pack(tmp_path / "nothing", v1.Omissions()))
