"""Images and kernels made, written out and taken in again; uploads with all that files have."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import banger
from banger import errors
from tests.daemon import IMAGE, Daemon, dist

pytestmark = pytest.mark.real


def test_a_build_and_its_exports(bangerd: Daemon, tmp_path: Path) -> None:
    context = tmp_path / "context"
    (context / "kept").mkdir(parents=True)
    (context / "kept" / "in").write_text("in\n")
    (context / "secret.env").write_text("no\n")
    (context / ".dockerignore").write_text("*.env\n")
    (context / "Dockerfile").write_text(
        f"FROM {IMAGE}\nUSER root\nARG WHO\nCOPY . /built\nRUN echo $WHO > /built/who\n"
    )
    log: list[bytes] = []
    with banger.connect(bangerd.host, silence=60) as client:
        made = client.images.build(
            "python/built:1", context, build_args={"WHO": "me"}, on_log=lambda piece: log.append(piece.data)
        )
        assert client.images.get("python/built:1").id == made.id
        with client.vms.create("python/built:1", memory_mib=128) as vm:
            found = vm.run("cd /built; cat who; find . | sort", check=True, user="root").stdout
        assert found == "me\n.\n./.dockerignore\n./Dockerfile\n./kept\n./kept/in\n./who\n"
        with pytest.raises(errors.RefusedError) as caught:
            client.images.build("python/bad:1", context, text=f"FROM {IMAGE}\nRUN exit 3\n")
        assert caught.value.reason
        bundle = tmp_path / "built.tar.zst"
        end = client.images.export_bundle("python/built:1", bundle)
        assert bundle.stat().st_size == end.size_bytes
        again = client.images.register("python/again:1", bundle, format="bundle")
        assert again.id
        kernel = next(iter(client.kernels.list()))
        client.kernels.export(kernel.id, tmp_path / "kernel")
        taken = client.kernels.import_file(tmp_path / "kernel", name="taken")
        assert client.kernels.get("taken").id == taken.id
        client.kernels.delete("taken")
        for name in ("python/again:1", "python/built:1"):
            client.images.delete(name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["built.tar.zst", "context", "kernel"]


def test_uploads_keep_extended_attributes(bangerd: Daemon, tmp_path: Path) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    (top / "file").write_text("x")
    try:
        os.setxattr(top / "file", "user.text", b"words")
        os.setxattr(top / "file", "user.bytes", b"\0\xff\n1")
    except OSError:
        pytest.skip("the file system of temporary files takes no extended attributes")
    # A name that is no text, beside a value that is none.
    os.link(top / "file", os.fsencode(top) + b"/n\xff")
    with banger.connect(bangerd.host, silence=60) as client, client.vms.create(IMAGE, memory_mib=128) as vm:
        vm.files.upload(top, "/tmp/tree")
        info = vm.files.stat("/tmp/tree/file")
        assert info.link_count == 2
        # Python's own downloads drop them: taken out again by the command.
        arguments: list[str | Path] = [dist() / "banger", "cp", "-r", f"{vm.name}:/tmp/tree", tmp_path / "back"]
        subprocess.run(arguments, check=True, env={**os.environ, "BANGER_HOST": bangerd.host}, capture_output=True)
    assert os.getxattr(tmp_path / "back" / "file", "user.text") == b"words"
    assert os.getxattr(tmp_path / "back" / "file", "user.bytes") == b"\0\xff\n1"
