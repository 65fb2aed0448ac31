"""The client against a real daemon and a real VM."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import banger
from banger import errors, v1
from banger._pack import CHUNK_BYTES, pack
from tests.daemon import IMAGE, Daemon

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def real(bangerd: Daemon) -> Iterator[banger.Client]:
    # A daemon that is killed takes its time to come back on a loaded machine.
    with banger.connect(bangerd.host, silence=60, reconnect_window=120) as client:
        yield client


@pytest.fixture(scope="module")
def vm(real: banger.Client) -> Iterator[banger.Vm]:
    with real.vms.create(IMAGE, memory_mib=256) as vm:
        yield vm


def test_output_and_exit(vm: banger.Vm) -> None:
    lines: list[str] = []
    result = vm.run("id -un; pwd; echo $A; echo bad >&2; exit 7", env={"A": "b"}, on_stdout=lines.append)
    assert (result.stdout, result.stderr, result.exit_code) == ("app\n/home/app\nb\n", "bad\n", 7)
    assert lines == ["app", "/home/app", "b"]


def test_merged_output_umask_and_the_end_of_a_log(vm: banger.Vm) -> None:
    result = vm.run("echo 1; echo 2 >&2; echo 3; umask", merge_output=True, umask=0o077)
    assert (result.stdout, result.stderr) == ("1\n2\n3\n0077\n", "")
    with vm.start("seq 1 1000", stdin=False) as session:
        session.wait()
        tail = b"".join(event.data for event in session.log(tail_lines=2) if isinstance(event, banger.Output))
        assert tail == b"999\n1000\n"


def test_every_byte_of_input_and_output_arrives(vm: banger.Vm) -> None:
    data = os.urandom(4_000_000)
    assert vm.run(["cat"], stdin=data).stdout_bytes == data


def test_the_errors_of_commands(vm: banger.Vm) -> None:
    with pytest.raises(errors.CommandNotStarted) as caught:
        vm.run(["nothing-of-this-name"])
    assert (caught.value.reason, caught.value.code_ran) == ("PROGRAM_NOT_FOUND", errors.CodeRan.NO)
    with pytest.raises(errors.CommandNotStarted, match="nobody-here"):
        vm.run("true", user="nobody-here")
    with pytest.raises(errors.CommandTimeout) as late:
        vm.run("echo begun; sleep 600", timeout=2)
    assert late.value.result.stdout == "begun\n"
    with pytest.raises(errors.NonZeroExit):
        vm.run("kill -9 $$", check=True)


def test_a_command_killed_for_want_of_memory(vm: banger.Vm) -> None:
    with pytest.raises(errors.CommandOutOfMemory):
        vm.run("tail /dev/zero", timeout=300)


def test_a_terminal(vm: banger.Vm) -> None:
    with vm.start(["sh"], pty=(30, 100)) as session:
        session.write("stty size\n")
        session.read_until("30 100\r\n")
        session.resize(31, 101)
        session.write("stty size; exit 5\n")
        assert session.wait().code == 5


def test_files(vm: banger.Vm, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "data").write_bytes(os.urandom(1_500_000))
    (source / "link").symlink_to("sub/data")
    os.link(source / "sub" / "data", source / "hard")
    vm.files.upload(source, "/tmp/tree")
    assert vm.files.stat("/tmp/tree/hard").link_count == 2
    vm.files.download("/tmp/tree", tmp_path / "back")
    assert (tmp_path / "back" / "sub" / "data").read_bytes() == (source / "sub" / "data").read_bytes()
    assert os.readlink(tmp_path / "back" / "link") == "sub/data"
    assert sorted(info.path for info in vm.files.list("/tmp/tree", depth=2)) == ["hard", "link", "sub", "sub/data"]
    vm.files.rename("/tmp/tree", "/tmp/other")
    assert vm.files.set_attributes("/tmp/other/hard", permissions=0o600).mode == 0o600
    assert vm.files.remove("/tmp/other", recursive=True) == 5
    assert not vm.files.exists("/tmp/other")
    with pytest.raises(errors.RefusedError) as caught:
        vm.files.read("/etc/shadow")
    assert caught.value.reason == "FILE_ACCESS_DENIED"
    assert vm.files.as_user("root").read("/etc/shadow").startswith(b"root:")


def test_a_tree_that_is_in_use_is_uploaded(vm: banger.Vm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "used"
    source.mkdir()
    (source / "data").write_bytes(b"7" * 1_500_000)
    (source / "gone").write_text("gone")
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(source / "socket"))

    def meddling(local: Path, omissions: v1.Omissions) -> Iterator[bytes]:
        for piece in pack(local, omissions):
            if piece.startswith(b"7"):
                os.truncate(source / "data", 1)
                (source / "gone").unlink(missing_ok=True)
            yield piece

    monkeypatch.setattr("banger._sync.files.pack", meddling)
    moved = vm.files.upload(source, "/tmp/used")
    assert moved.entry_count == 3
    assert [(omission.path, omission.reason) for omission in moved.omissions.first] == [
        ("used/data", v1.Omission.REASON_SHRANK),
        ("used/gone", v1.Omission.REASON_VANISHED),
        ("used/socket", v1.Omission.REASON_SOCKET),
    ]
    assert vm.files.read("/tmp/used/data") == b"7" * CHUNK_BYTES + bytes(1_500_000 - CHUNK_BYTES)
    kinds = {info.path: info.kind for info in vm.files.list("/tmp/used")}
    assert kinds == {"data": v1.FileInfo.KIND_FILE, "pipe": v1.FileInfo.KIND_FIFO}


def test_what_is_sent_to_a_tunnel_comes_back(vm: banger.Vm) -> None:
    with vm.start("while true; do nc -l -p 8080 -e cat; done", stdin=False):
        data = os.urandom(1_000_000)
        tunnel = _until_it_listens(vm)
        with tunnel:
            got = bytearray()

            def read() -> None:
                while piece := tunnel.read():
                    got.extend(piece)

            reader = threading.Thread(target=read)
            reader.start()
            tunnel.write(data)
            tunnel.end()
            reader.join(120)
        assert bytes(got) == data


def _until_it_listens(vm: banger.Vm) -> banger.Tunnel:
    while True:
        try:
            return vm.tunnel(8080)
        except errors.RefusedError as error:
            if error.reason != "TUNNEL_REFUSED":
                raise


def test_what_the_guest_and_the_host_say(vm: banger.Vm, real: banger.Client) -> None:
    assert vm.stats().guest.memory_total_bytes > 100 << 20
    assert b"".join(piece.data for piece in vm.console())
    assert next(iter(vm.watch())).id == vm.id
    snapshot = next(iter(real.events()))
    assert isinstance(snapshot, banger.v1.EventsSnapshot)
    assert vm.id in [summary.id for summary in snapshot.vms]
    assert real.images.get(IMAGE).config.user == "app"


def test_nothing_is_lost_when_the_daemon_is_killed_and_started_again(
    vm: banger.Vm, real: banger.Client, bangerd: Daemon
) -> None:
    with vm.start("cat") as session:
        data = os.urandom(3_000_000)
        got = bytearray()

        def read() -> None:
            for event in session:
                assert not isinstance(event, banger.Gap)
                if isinstance(event, banger.Output):
                    got.extend(event.data)

        reader = threading.Thread(target=read)
        reader.start()
        session.write(data[:1_000_000])
        bangerd.kill()
        bangerd.start()
        session.write(data[1_000_000:])
        session.close_stdin()
        reader.join(240)
        assert not reader.is_alive()
        assert bytes(got) == data
        assert session.wait().code == 0


def test_ctrl_c_leaves_nothing(real: banger.Client, bangerd: Daemon, vm: banger.Vm) -> None:
    """At random times, from before the request is sent to the middle of a command and of the removal."""
    program = f"""
        import banger
        client = banger.connect({bangerd.host!r})
        print("begun", flush=True)
        with client.vms.create({IMAGE!r}, labels={{"ctrl": "c"}}, memory_mib=128) as vm:
            vm.run("true")
    """
    seed = int(os.environ.get("BANGER_SEED") or random.randrange(1 << 32))
    print(f"BANGER_SEED={seed}")
    chosen = random.Random(seed)
    begun = time.monotonic()
    real.vms.create(IMAGE, memory_mib=128).delete()
    whole = time.monotonic() - begun
    for _ in range(int(os.environ.get("BANGER_CTRL_C") or 4)):
        delay = chosen.uniform(0, 1.2 * whole)
        running = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(delay)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=240)
        assert list(real.vms.list(labels={"ctrl": "c"})) == [], f"after {delay} s"
