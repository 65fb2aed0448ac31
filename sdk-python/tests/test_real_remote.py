"""A daemon on another host, by certificates: the loopback stands for the way there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import banger
import banger.aio
from banger import errors
from tests.daemon import IMAGE, Daemon

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def bundle(bangerd: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "ci"
    bangerd.cert("issue", "ci", "--role", "user", "--out", path)
    return path


def test_a_vm_is_used_from_afar(bangerd: Daemon, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANGER_HOST", bangerd.remote)
    monkeypatch.setenv("BANGER_CERT", str(bundle))
    with banger.connect() as client, client.vms.create(IMAGE, memory_mib=256) as vm:
        assert (client.socket, client.host) == (None, bangerd.remote)
        assert vm.info.owner == "cert:ci"
        assert vm.run("cat; exit 3", stdin=b"from afar").stdout == "from afar"
        data = bytes(range(256)) * 8192
        vm.files.write("/tmp/far", data)
        assert vm.files.read("/tmp/far") == data


async def test_asyncio_reaches_it_too(bangerd: Daemon, bundle: Path) -> None:
    cert, key, ca = bundle / "client.crt", bundle / "client.key", bundle / "ca.crt"
    async with await banger.aio.connect(bangerd.remote, cert=cert, key=key, ca=ca) as client:
        assert (await client.info()).version


def test_every_mistake_says_which_it_is(bangerd: Daemon, bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    stranger = Daemon()
    stranger.cert("init")
    stranger.cert("issue", "eve", "--role", "admin", "--out", other)
    port = bangerd.remote.rpartition(":")[2]
    for host, shown, ca, reason in [
        (bangerd.remote, other, other / "ca.crt", "TLS_SERVER_UNTRUSTED"),
        (bangerd.remote, other, bundle / "ca.crt", "TLS_CLIENT_UNTRUSTED"),
        (f"https://localhost:{port}", bundle, None, "TLS_SERVER_NAME_WRONG"),
        ("https://127.0.0.1:1", bundle, None, "DAEMON_UNREACHABLE"),
    ]:
        with pytest.raises(errors.ConnectError) as caught:
            banger.connect(host, cert=shown, ca=ca)
        assert caught.value.reason == reason
        assert caught.value.remedy
    stranger.stop()


def test_a_revoked_certificate_is_refused(bangerd: Daemon, tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    bangerd.cert("issue", "lost", "--role", "viewer", "--out", lost)
    with banger.connect(bangerd.remote, cert=lost, reconnect_window=0) as client:
        client.info()
        bangerd.cert("revoke", "lost")
        caught = None
        while caught is None:
            try:
                banger.connect(bangerd.remote, cert=lost).close()
            except errors.TlsError as error:
                caught = error
        assert caught.reason == "TLS_CLIENT_REVOKED"
        with pytest.raises(errors.ConnectionLost) as told:
            client.info()
        assert told.value.reason == "TLS_CLIENT_REVOKED"
        assert told.value.remedy == caught.remedy


def test_a_client_goes_on_with_the_certificate_that_takes_the_place_of_its_own(bangerd: Daemon, tmp_path: Path) -> None:
    path, old = tmp_path / "renewed", tmp_path / "old"
    bangerd.cert("issue", "renewed", "--role", "viewer", "--out", path)
    shutil.copytree(path, old)
    with banger.connect(bangerd.remote, cert=path, reconnect_window=0) as client:
        client.info()
        bangerd.cert("issue", "renewed", "--role", "viewer", "--out", path, "--replace")
        issued = json.loads((bangerd.directory / "pki" / "index.json").read_text())["certificates"]
        first = next(each["serial"] for each in issued if each["name"] == "renewed")
        bangerd.cert("revoke", first)
        is_refused = False
        while not is_refused:
            try:
                banger.connect(bangerd.remote, cert=old).close()
            except errors.TlsError:
                is_refused = True
        assert client.info().version
