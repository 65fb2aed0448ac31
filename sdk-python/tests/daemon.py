"""A bangerd of the tests' own: directory, configuration, socket, log."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import banger
from banger import v1
from tests.rootfs import BUSYBOX, rootfs

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "python/box:1"
KERNEL_PACKAGE = "linux-image-cloud-amd64"
_START_SECONDS = 60
_STOP_SECONDS = 120


def dist() -> Path:
    return Path(os.environ.get("BANGER_DIST") or ROOT / "target" / "dist-test")


def missing() -> str | None:
    """What the tests with real VMs lack here."""
    for name in ("bangerd", "banger", "banger-agent"):
        if not (dist() / name).is_file():
            return f"{dist() / name} is missing: run `make test`"
    if not BUSYBOX.exists():
        return "busybox-static is not installed"
    return None


class Daemon:
    """See the module."""

    def __init__(self, config: str = "", *, address: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        """With more lines of configuration; serving other hosts at `address`; started by the words of `prefix`."""
        self._config = config
        self._address = address
        self._prefix = prefix
        self.directory = Path(tempfile.mkdtemp(prefix="banger-py-"))
        self.host = f"unix://{self.directory}/s"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        config = self.directory / "bangerd.toml"
        config.write_text(
            f'agent = "{dist() / "banger-agent"}"\nlog_level = "info"\ndisk_reserve_mib = 64\n{self._config}'
            + self._tcp()
        )
        log = (self.directory / "log").open("ab")
        state = self.directory / "state"
        command: list[str | Path] = [
            *self._prefix,
            dist() / "bangerd",
            "--config",
            config,
            "--state-dir",
            state,
            "--socket",
            self.directory / "s",
        ]
        with log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/", start_new_session=True
            )
        self.wait_until_it_serves()

    def _tcp(self) -> str:
        """What it serves other hosts with: an authority and certificates of its own."""
        pki, tls = self.directory / "pki", self.directory / "tls"
        if not pki.exists():
            self.cert("init")
            self.cert("issue", "--server", self._address, "--out", tls)
        return (
            f'[tcp]\nlisten = ["{self._address}:0"]\ncert_file = "{tls}/server.crt"\nkey_file = "{tls}/server.key"\n'
            f'client_ca_files = ["{tls}/ca.crt"]\ncrl_files = ["{pki}/ca.crl"]\n'
        )

    def cert(self, *words: str | Path) -> None:
        """Runs `banger cert` on its authority."""
        command = [dist() / "banger", "cert", *words, "--dir", self.directory / "pki"]
        subprocess.run(command, check=True, capture_output=True)

    @property
    def remote(self) -> str:
        """Where it serves other hosts."""
        log = (self.directory / "log").read_text(errors="replace")
        port = re.findall(rf"{re.escape(self._address)}:(\d+)", log)[-1]
        return f"https://{self._address}:{port}"

    def wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"bangerd ended at its start\n{self.log()}")
            try:
                banger.connect(self.host).close()
                return
            except banger.errors.ConnectError:
                if time.monotonic() > deadline:
                    raise AssertionError(f"bangerd does not serve\n{self.log()}") from None
                time.sleep(0.05)

    def log(self) -> str:
        return "\n".join((self.directory / "log").read_text(errors="replace").splitlines()[-40:])

    def prepare(self) -> None:
        with banger.connect(self.host) as client:
            boot = self._cached_kernel()
            if boot is None:
                client.kernels.import_package(KERNEL_PACKAGE)
            else:
                arguments: list[str | Path] = [dist() / "banger", "kernel", "import", *boot]
                subprocess.run(arguments, check=True, env={**os.environ, "BANGER_HOST": self.host}, capture_output=True)
            config = v1.ImageConfig(user="app", working_dir="/home/app", cmd=["/bin/sh"], env=["PATH=/usr/bin:/bin"])
            client.images.register(IMAGE, io.BytesIO(rootfs()), format="rootfs-tar", config=config)
            # By the name that the documents use.
            client.images.tag(IMAGE, "debian:bookworm")

    @staticmethod
    def _cached_kernel() -> list[str] | None:
        """What the tests in Rust have fetched, so that it is not fetched twice."""
        package = ROOT / "target" / "e2e-cache" / "kernel-package"
        images = list(package.glob("boot/vmlinuz-*"))
        modules = list(package.glob("lib/modules/*"))
        if not images or not modules:
            return None
        return ["--modules", str(modules[0]), str(images[0])]

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is None:
            return
        try:
            with banger.connect(self.host) as client:
                for vm in list(client.vms.list()):
                    vm.delete()
        finally:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Daemon:
        try:
            self.start()
            self.prepare()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
