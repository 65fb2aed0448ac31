"""The pytest plugin: VMs as fixtures, thrown away at the end of their tests, however those end.

Fixtures: `banger_client`, `vm`, `vm_factory`. Marker: `@pytest.mark.banger(image=…, memory_mib=…, …)` with what
`Vms.create` takes. Options: `--banger-host`, `--banger-keep`, `--banger-artifacts`, `--banger-wait`.

Workers of xdist share nothing but the daemon: VMs have names of the daemon's making, and an image is pulled by one
worker while the others wait. A run that was killed leaves VMs that carry the label of its process; the next run on the
same daemon throws them away, and their time to live ends them in any case.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import socket
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# gRPC is loaded by the first test that needs it, and not by every run of pytest.
if TYPE_CHECKING:
    import banger

__all__ = ["banger_client", "vm", "vm_factory"]

_RUN_LABEL = "dev.banger.pytest.run"
_TEST_LABEL = "dev.banger.pytest.test"
# A VM that nobody throws away goes by itself then.
_TTL = 4 * 3600
# How long a test waits for room when the host, or the caller's share of it, is full.
_WAIT_SECONDS = 1800.0
# What of a log is kept when a test fails.
_LOG_MAX_BYTES = 1 << 20
# What of changed files is kept, as a tar: so many, so much of each, so much of all.
_FILES_MAX = 200
_FILE_MAX_BYTES = 1 << 20
_FILES_MAX_BYTES = 16 << 20
_FILES_SECONDS = 60.0
_LABEL_MAX = 200
# What a test's report calls how long its VMs took to make.
_SECONDS = "banger_vm_seconds"
# Of a VM, under the node's own keys.
_VMS = pytest.StashKey["list[banger.Vm]"]()
_FAILED = pytest.StashKey["bool"]()
_KEPT = pytest.StashKey["set[str]"]()
_CREATED = pytest.StashKey["float"]()

VmFactory = Callable[..., "banger.Vm"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("banger", "sandboxes that are microVMs")
    group.addoption(
        "--banger-host",
        help="the daemon: unix:///path/to/bangerd.sock, or https://HOST:PORT with BANGER_CERT (BANGER_HOST)",
    )
    group.addoption("--banger-keep", action="store_true", help="keep the VMs of tests that failed, and say their names")
    group.addoption("--banger-artifacts", metavar="DIR", help="where consoles and logs of failed tests go")
    group.addoption(
        "--banger-wait",
        type=float,
        default=_WAIT_SECONDS,
        metavar="SECONDS",
        help="how long a test waits for room when the host is full (1800)",
    )
    parser.addini("banger_image", "the image of tests that name none")


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line(
        "markers", "banger(image, **options): what the test's VM is made of, as Vms.create takes it"
    )


def _here() -> str:
    """Where numbers of processes mean the same: machines, and containers of one, may have the same name."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()[:64]}.{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"


def _run_label() -> str:
    """This process, so that its VMs are known for leftovers when it is gone. Process numbers are used again: with the
    time of its start.
    """
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return f"{_here()}.{os.getpid()}.{started}"


def _is_gone(run: str) -> bool:
    """Whether the process of a label is gone. One of another machine or container is not known to be."""
    here, _, rest = run.rpartition(".")
    here, _, pid = here.rpartition(".")
    if here != _here() or not pid.isdigit():
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19] != rest
    except OSError:
        return True


def _remove_leftovers(client: banger.Client) -> None:
    for left in list(client.vms.list()):
        run = left.info.spec.labels.get(_RUN_LABEL)
        if run is not None and _is_gone(run):
            left.delete()


@pytest.fixture(scope="session")
def banger_client(pytestconfig: pytest.Config) -> Iterator[banger.Client]:
    """A client of the daemon. Tests that use it are skipped where there is none, unless it was named by the option."""
    import banger
    from banger import errors

    host = pytestconfig.getoption("--banger-host")
    try:
        client = banger.connect(host)
    except (errors.ConnectError, errors.HostError) as error:
        if host:
            pytest.fail(str(error), pytrace=False)
        pytest.skip(f"no bangerd: {error}")
    with client:
        _remove_leftovers(client)
        yield client
        # What a fixture that was interrupted did not come to.
        for left in list(client.vms.list(labels={_RUN_LABEL: _run_label()})):
            if left.id not in pytestconfig.stash.get(_KEPT, set()):
                left.delete()


@pytest.fixture(scope="session")
def _banger_images(banger_client: banger.Client) -> Callable[[str], None]:
    """Sees to it that an image is there, once for all workers."""
    from banger import errors

    known: set[str] = set()

    def need(reference: str) -> None:
        if reference in known:
            return
        key = hashlib.sha256(f"{banger_client.host} {reference}".encode()).hexdigest()[:32]
        # The workers of a run, and runs beside each other, are of one user.
        directory = Path(tempfile.gettempdir()) / f"banger-pytest-{os.getuid()}"
        directory.mkdir(mode=0o700, exist_ok=True)
        if directory.stat().st_uid != os.getuid():
            pytest.fail(f"{directory} belongs to another user", pytrace=False)
        with (directory / f"{key}.lock").open("w") as lock:
            # Held until the file is closed, also by a worker that is killed.
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                banger_client.images.get(reference)
            except errors.NotFoundError:
                banger_client.images.pull(reference)
        known.add(reference)

    return need


def _options(request: pytest.FixtureRequest, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Image and options: of the call, else of the nearest marker, else of the ini file."""
    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("banger"))):
        if marker.args:
            options["image"] = marker.args[0]
        options.update(marker.kwargs)
    options.update(given)
    image = options.pop("image", None) or request.config.getini("banger_image")
    if not image:
        pytest.fail(
            "the test's VM needs an image: @pytest.mark.banger(image=…), or `banger_image` in the ini file",
            pytrace=False,
        )
    return str(image), options


@pytest.fixture
def vm_factory(
    request: pytest.FixtureRequest,
    banger_client: banger.Client,
    _banger_images: Callable[[str], None],
) -> Iterator[VmFactory]:
    """Makes VMs for a test: `vm_factory(image=…, memory_mib=…)`, with the marker's options where none are given."""
    made: list[banger.Vm] = []
    request.node.stash[_VMS] = made

    def make(image: str | None = None, **options: Any) -> banger.Vm:
        given = options if image is None else {"image": image, **options}
        reference, options = _options(request, given)
        _banger_images(reference)
        labels = {
            **options.pop("labels", {}),
            _RUN_LABEL: _run_label(),
            _TEST_LABEL: request.node.nodeid[-_LABEL_MAX:],
        }
        wait = request.config.getoption("--banger-wait")
        begun = time.monotonic()
        vm = banger_client.vms.create(reference, **{"ttl": _TTL, "wait": wait, **options, "labels": labels})
        made.append(vm)
        taken = request.node.stash.get(_CREATED, 0.0) + time.monotonic() - begun
        request.node.stash[_CREATED] = taken
        return vm

    try:
        yield make
    finally:
        failed = request.node.stash.get(_FAILED, False)
        keep = failed and request.config.getoption("--banger-keep")
        if keep:
            request.config.stash.setdefault(_KEPT, set()).update(vm.id for vm in made)
        for vm in [] if keep else made:
            vm.delete()


@pytest.fixture
def vm(vm_factory: VmFactory) -> banger.Vm:
    """A VM for a test, by its marker."""
    return vm_factory()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Adds to a failed test what its VMs say, while they are there, and to each how long they took to make."""
    taken = item.stash.get(_CREATED, None)
    if taken is not None:
        # Of the test and not of one report: which of its reports is read is each reporter's choice, and JUnit's is the
        # last.
        others = [told for told in item.user_properties if told[0] != _SECONDS]
        item.user_properties[:] = [*others, (_SECONDS, f"{taken:.2f}")]
    report: pytest.TestReport = yield
    if call.when == "call" and taken is not None:
        report.sections.append(("banger", f"VMs made in {taken:.2f} s, test run in {call.duration:.2f} s"))
    if report.failed:
        item.stash[_FAILED] = True
        keep = item.config.getoption("--banger-keep")
        for vm in item.stash.get(_VMS, []):
            for title, content in _artifacts(vm):
                report.sections.append((f"banger {vm.name} {title}", content.decode(errors="replace")))
                _save(item, vm, f"{title.replace(' ', '-')}.log", content)
            for title, content in _changed_files(vm, item.config.getoption("--banger-artifacts") is not None):
                if title.endswith(".tar"):
                    _save(item, vm, title, content)
                else:
                    report.sections.append((f"banger {vm.name} {title}", content.decode(errors="replace")))
            if keep:
                report.sections.append((f"banger {vm.name}", f"kept: banger vm exec -it {vm.name} -- sh"))
    return report


def _artifacts(vm: banger.Vm) -> Iterator[tuple[str, bytes]]:
    """The end of the console, and the logs of the sessions that are there. What cannot be had is told as such."""
    import banger
    from banger import errors

    try:
        yield "console", b"".join(piece.data for piece in vm.console(tail_lines=200))[-_LOG_MAX_BYTES:]
        for session in vm.sessions.list():
            info = session.info
            start = max(info.log_start_offset, info.log_end_offset - _LOG_MAX_BYTES)
            data = b"".join(event.data for event in session.log(offset=start) if isinstance(event, banger.Output))
            yield f"session {session.id}", f"$ {' '.join(info.spec.command)}\n".encode() + data
    except errors.BangerError as error:
        yield "artifacts", f"could not be read: {error}".encode()


def _changed_files(vm: banger.Vm, contents: bool) -> Iterator[tuple[str, bytes]]:
    """The names of files that are younger than the VM, and with `contents` a tar of them. It is the VM's own `find`
    that tells, and names are the VM's: they become none of this machine.
    """
    from banger import errors

    minutes = int(max(time.time() - vm.info.create_time.ToSeconds(), 0)) // 60 + 2
    command = f"find / /tmp -xdev -type f -mmin -{minutes} -print0 2>/dev/null | head -c 100000"
    try:
        told = vm.run(command, user="root", timeout=_FILES_SECONDS).stdout_bytes
        names = sorted({name.decode(errors="surrogateescape") for name in told.split(b"\0")[:-1]})
        if not names:
            return
        yield "changed files", "\n".join(names[:_FILES_MAX]).encode(errors="replace")
        if contents:
            yield "changed-files.tar", _tar_of(vm, names[:_FILES_MAX])
    except errors.BangerError as error:
        yield "changed files", f"could not be told: {error}".encode()


def _tar_of(vm: banger.Vm, names: list[str]) -> bytes:
    from banger import errors

    out = io.BytesIO()
    files = vm.files.as_user("root")
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            try:
                content = files.read(name, length=_FILE_MAX_BYTES)
            except (errors.BangerError, UnicodeError):
                continue  # it has gone meanwhile
            if out.tell() + len(content) > _FILES_MAX_BYTES:
                break
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _save(item: pytest.Item, vm: banger.Vm, file: str, content: bytes) -> None:
    directory = item.config.getoption("--banger-artifacts")
    if directory is None:
        return
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in item.nodeid)[-150:]
    place = Path(directory) / name / vm.name
    with contextlib.suppress(OSError):
        place.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(content)
