"""Client and daemon on two hosts, as two network namespaces with a cable between them that is pulled out for a while.

Whatever goes on then goes on afterwards, or says what happened: nothing is lost, and nothing is done twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import banger
from tests.daemon import IMAGE, Daemon, dist

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

_CUT_SECONDS = 5
# Longer than a client bears silence: it makes a new connection.
_LONG_SECONDS = 14
_WITHIN_SECONDS = 300


class Link:
    """Two hosts and the cable between them."""

    def __init__(self) -> None:
        self.name = f"bgr{os.getpid()}"
        self.server, self.client = f"{self.name}s", f"{self.name}c"
        self.address = "10.213.7.1"

    def __enter__(self) -> Link:
        try:
            for host in (self.server, self.client):
                _ip("netns", "add", host)
                _ip("-n", host, "link", "set", "lo", "up")
            _ip("-n", self.server, "link", "add", "cable", "type", "veth", "peer", "cable", "netns", self.client)
            _ip("-n", self.server, "addr", "add", f"{self.address}/30", "dev", "cable")
            _ip("-n", self.client, "addr", "add", "10.213.7.2/30", "dev", "cable")
            for host in (self.server, self.client):
                _ip("-n", host, "link", "set", "cable", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in (self.server, self.client):
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)

    def on(self, host: str) -> list[str]:
        """The words that run a program on a host; the file system is the same."""
        return ["nsenter", f"--net=/run/netns/{host}", "--"]

    def passed(self) -> int:
        """Bytes that went over the cable, in both directions."""
        (shown,) = json.loads(_ip("-n", self.client, "-j", "-s", "link", "show", "cable"))
        return int(shown["stats64"]["rx"]["bytes"]) + int(shown["stats64"]["tx"]["bytes"])

    def cut(self, seconds: float) -> None:
        """Pulls the cable out for so long."""
        _ip("-n", self.server, "link", "set", "cable", "down")
        time.sleep(seconds)
        _ip("-n", self.server, "link", "set", "cable", "up")


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def _missing() -> str | None:
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nsenter"):
        if shutil.which(program) is None:
            return f"`{program}` is not installed"
    try:
        with Link():
            return None
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr}"


class Hosts:
    """A daemon on one host, and programs of a client on the other."""

    def __init__(self, link: Link, daemon: Daemon, directory: Path) -> None:
        self.link, self.daemon, self.directory = link, daemon, directory
        daemon.cert("issue", "afar", "--role", "user", "--out", directory / "afar")
        self._environment = {
            **os.environ,
            "BANGER_HOST": daemon.remote,
            "BANGER_CERT": str(directory / "afar"),
            "XDG_STATE_HOME": str(directory / "state"),
        }

    def start(self, *words: str | Path, stdin: int | None = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        command = [*self.link.on(self.link.client), *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self._environment, stdin=stdin, stdout=pipe, stderr=pipe)

    def python(self, program: str) -> subprocess.Popen[bytes]:
        return self.start(sys.executable, "-c", textwrap.dedent(program))

    def cut_after(self, running: subprocess.Popen[bytes], length: int, seconds: float = _CUT_SECONDS) -> None:
        """Pulls the cable out when so many bytes have gone."""
        before = self.link.passed()
        deadline = time.monotonic() + _WITHIN_SECONDS
        while self.link.passed() - before < length:
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self.link.cut(seconds)

    def end(self, running: subprocess.Popen[bytes]) -> str:
        """What it wrote; it must end well."""
        out, err = running.communicate(timeout=_WITHIN_SECONDS)
        said = out[-2000:].decode(errors="replace") + err.decode(errors="replace")
        assert running.returncode == 0, f"{said}\n{self.daemon.log()}"
        return out.decode(errors="replace")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    missing = _missing()
    if missing is not None:
        pytest.skip(missing)
    with Link() as link, Daemon(address=link.address, prefix=link.on(link.server)) as daemon:
        yield Hosts(link, daemon, tmp_path_factory.mktemp("hosts"))


@pytest.fixture(scope="module")
def vm(hosts: Hosts) -> Iterator[str]:
    """A VM of the client's, by its name."""
    made = hosts.start(dist() / "banger", "vm", "create", IMAGE, "--name", "far", "--memory", "256M")
    hosts.end(made)
    yield "far"
    with banger.connect(hosts.daemon.host) as client:
        client.vms.get("far").delete()


@pytest.mark.parametrize("seconds", [_CUT_SECONDS, _LONG_SECONDS])
def test_attach_in_python(hosts: Hosts, vm: str, seconds: float) -> None:
    running = hosts.python(
        f"""
        import hashlib, os, threading
        import banger
        with banger.connect() as client, client.vms.get({vm!r}).start("cat") as session:
            got = hashlib.sha256()
            length = 0
            def read():
                global length
                for event in session:
                    assert not isinstance(event, banger.Gap), event
                    if isinstance(event, banger.Output):
                        got.update(event.data)
                        length += len(event.data)
            reader = threading.Thread(target=read)
            reader.start()
            data = os.urandom(12_000_000)
            session.write(data)
            session.close_stdin()
            reader.join()
            assert length == len(data), length
            assert got.digest() == hashlib.sha256(data).digest()
            assert session.wait().code == 0
        """
    )
    hosts.cut_after(running, 2_000_000, seconds)
    hosts.end(running)


def test_attach_by_the_command(hosts: Hosts, vm: str, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(12_000_000)
    (tmp_path / "in").write_bytes(data)
    out: list[bytes] = []
    with (
        (tmp_path / "in").open("rb") as file,
        hosts.start(dist() / "banger", "vm", "exec", "-i", vm, "--", "cat", stdin=file.fileno()) as running,
    ):
        assert running.stdout is not None
        reader = threading.Thread(target=lambda pipe: out.append(pipe.read()), args=(running.stdout,))
        reader.start()
        hosts.cut_after(running, 2_000_000)
        reader.join(_WITHIN_SECONDS)
        assert running.wait(_WITHIN_SECONDS) == 0
    assert hashlib.sha256(out[0]).digest() == hashlib.sha256(data).digest()


def _check_upload(hosts: Hosts, vm: str, running: subprocess.Popen[bytes], name: str, data: bytes) -> None:
    """It is whole, or said to be not, and then it is not there in half."""
    out, err = running.communicate(timeout=_WITHIN_SECONDS)
    with banger.connect(hosts.daemon.host, silence=60) as client:
        files = client.vms.get(vm).files
        if running.returncode == 0:
            assert hashlib.sha256(files.read(name)).digest() == hashlib.sha256(data).digest()
        else:
            assert b"connection" in err + out, (out, err)
            assert not files.exists(name) or files.read(name) == data


def test_upload_in_python(hosts: Hosts, vm: str, tmp_path: Path) -> None:
    data = random.Random(2).randbytes(24_000_000)
    (tmp_path / "up").write_bytes(data)
    running = hosts.python(
        f"""
        import banger
        with banger.connect() as client:
            client.vms.get({vm!r}).files.upload({str(tmp_path / "up")!r}, "/tmp/up1")
        """
    )
    hosts.cut_after(running, 3_000_000)
    _check_upload(hosts, vm, running, "/tmp/up1", data)


def test_upload_by_the_command(hosts: Hosts, vm: str, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(24_000_000)
    (tmp_path / "up").write_bytes(data)
    running = hosts.start(dist() / "banger", "cp", tmp_path / "up", f"{vm}:/tmp/up2")
    hosts.cut_after(running, 3_000_000)
    _check_upload(hosts, vm, running, "/tmp/up2", data)


def _prepared(hosts: Hosts, vm: str, top: Path) -> str:
    """A directory that is in the VM, with a large file that was made there; its digest."""
    top.mkdir()
    (top / "small").write_text("small\n")
    with banger.connect(hosts.daemon.host, silence=60) as client:
        found = client.vms.get(vm)
        found.workspace_at(top.name).prepare(top)
        made = f"head -c 16000000 /dev/urandom > {top.name}/large; sha256sum < {top.name}/large"
        return found.run(made, check=True).stdout.split()[0]


def _landed(hosts: Hosts, vm: str) -> list[str]:
    stores = list((hosts.directory / "state" / "banger" / "workspaces").glob("*.git"))
    found = []
    for store in stores:
        shown = subprocess.run(
            ["git", "cat-file", "blob", f"refs/banger/{vm}/state/tree:large"], cwd=store, capture_output=True
        )
        if shown.returncode == 0:
            found.append(hashlib.sha256(shown.stdout).hexdigest())
    return found


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("by", ["python", "command"])
def test_export(hosts: Hosts, vm: str, tmp_path: Path, by: str) -> None:
    top = tmp_path / f"work-{by}"
    digest = _prepared(hosts, vm, top)
    if by == "python":
        running = hosts.python(
            f"""
            import banger
            with banger.connect() as client:
                landed = client.vms.get({vm!r}).workspace_at({top.name!r}).export({str(top)!r})
                assert not landed.has_loss, landed.notes
            """
        )
    else:
        running = hosts.start(dist() / "banger", "workspace", "export", vm, top, "--path", top.name)
    hosts.cut_after(running, 2_000_000)
    hosts.end(running)
    assert digest in _landed(hosts, vm)


@pytest.mark.parametrize("by", ["python", "command"])
def test_create(hosts: Hosts, by: str) -> None:
    name = f"once-{by}"
    if by == "python":
        running = hosts.python(
            f"""
            import banger
            with banger.connect() as client:
                vm = client.vms.create({IMAGE!r}, name={name!r}, memory_mib=128)
                assert vm.run("true").ok
            """
        )
    else:
        running = hosts.start(dist() / "banger", "vm", "create", IMAGE, "--name", name, "--memory", "128M")
    with banger.connect(hosts.daemon.host, silence=60) as client:
        # The request has come when there is an operation of it.
        deadline = time.monotonic() + _WITHIN_SECONDS
        while not [vm for vm in client.vms.list() if vm.name == name]:
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        hosts.link.cut(_CUT_SECONDS)
        hosts.end(running)
        (made,) = [vm for vm in client.vms.list() if vm.name.startswith("once-")]
        assert made.name == name
        made.delete()
