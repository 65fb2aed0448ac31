"""The client against a fake daemon: what is made, what is run, what is raised."""

from __future__ import annotations

import datetime
import os
import threading
import time
from pathlib import Path

import grpc
import pytest

import banger
from banger import errors, v1
from banger._sync.process import Process
from banger.testing import Command, FakeDaemon, Reply


def test_a_vm_is_thrown_away_at_the_end_of_its_block(fake: FakeDaemon, client: banger.Client) -> None:
    with client.vms.create("box", name="web", labels={"a": "b"}, memory_mib=64, files={"/etc/x": "y"}) as vm:
        assert vm.name == "web"
        assert vm.state == "RUNNING"
        assert [other.id for other in client.vms.list(labels={"a": "b"})] == [vm.id]
        assert client.vms.get("web").id == vm.id
        assert vm.files.read_text("/etc/x") == "y"
    assert fake.vms == {}


def test_a_vm_is_thrown_away_when_its_block_fails(fake: FakeDaemon, client: banger.Client) -> None:
    with pytest.raises(KeyboardInterrupt), client.vms.create("box"):
        raise KeyboardInterrupt
    assert fake.vms == {}


def test_a_creation_that_is_interrupted_leaves_nothing(fake: FakeDaemon, client: banger.Client) -> None:
    def interrupt(_: v1.Operation) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.vms.create("box", on_progress=interrupt)
    assert fake.vms == {}
    assert "CancelOperation" in fake.calls


def test_a_result_has_output_errors_and_exit(fake: FakeDaemon, client: banger.Client) -> None:
    fake.on("make", stdout="one\ntwo", stderr="bad\n", code=3)
    lines: list[str] = []
    with client.vms.create("box") as vm:
        result = vm.run("make", cwd="/work", env={"A": "b"}, user="app", timeout=60, on_stdout=lines.append)
    assert (result.stdout, result.stderr, result.exit_code) == ("one\ntwo", "bad\n", 3)
    assert lines == ["one", "two"]
    assert not result.ok
    spec = fake.commands[0].spec
    assert (spec.working_dir, dict(spec.env), spec.user, spec.timeout.seconds) == ("/work", {"A": "b"}, "app", 60)
    with pytest.raises(errors.NonZeroExit, match="exit code 3: bad"):
        result.check()


def test_no_timeout_means_none(fake: FakeDaemon, client: banger.Client) -> None:
    with client.vms.create("box") as vm:
        vm.run("true")
        assert not fake.commands[0].spec.HasField("timeout")
        with pytest.raises(ValueError, match="more than 0"):
            vm.run("true", timeout=0)


@pytest.mark.parametrize(
    ("reply", "error", "ran"),
    [
        (Reply(code=1), errors.NonZeroExit, errors.CodeRan.YES),
        (Reply(signal=9), errors.NonZeroExit, errors.CodeRan.YES),
        (Reply(deadline=True), errors.CommandTimeout, errors.CodeRan.YES),
        (Reply(out_of_memory=True), errors.CommandOutOfMemory, errors.CodeRan.YES),
        (Reply(vm_gone=True), errors.VmGone, errors.CodeRan.MAYBE),
    ],
)
def test_errors_tell_whether_the_code_ran_and_have_its_output(
    fake: FakeDaemon, client: banger.Client, reply: Reply, error: type[errors.CommandFailed], ran: errors.CodeRan
) -> None:
    reply.stdout = "until then"
    fake.on("work", reply)
    with client.vms.create("box") as vm, pytest.raises(error) as caught:
        vm.run("work", check=True)
    assert caught.value.result.stdout == "until then"
    assert caught.value.code_ran is ran
    assert caught.value.session_id


def test_a_command_that_did_not_start_is_told_as_such(fake: FakeDaemon, client: banger.Client) -> None:
    fake.on("nope", refuse="PROGRAM_NOT_FOUND")
    with client.vms.create("box") as vm, pytest.raises(errors.CommandNotStarted) as caught:
        vm.run("nope")
    assert caught.value.code_ran is errors.CodeRan.NO
    assert caught.value.reason == "PROGRAM_NOT_FOUND"


def test_output_beyond_the_bound_kills_the_command(fake: FakeDaemon, client: banger.Client) -> None:
    fake.on("yes", stdout=b"y" * 1_000_000)
    with client.vms.create("box") as vm, pytest.raises(errors.OutputTooLong) as caught:
        vm.run("yes", max_output_bytes=100_000)
    assert len(caught.value.result.stdout_bytes) <= 100_000


def test_the_daemons_details_are_read(fake: FakeDaemon, client: banger.Client) -> None:
    words = {"remedy": "Wait.", "retry_after": "1.5", "vm": "web"}
    fake.fail("CreateVm", grpc.StatusCode.RESOURCE_EXHAUSTED, "BOOT_QUEUE_FULL", "too many", **words)
    with pytest.raises(errors.ExhaustedError) as caught:
        client.vms.create("box")
    error = caught.value
    assert (error.reason, error.remedy, error.retry_after, error.retryable) == ("BOOT_QUEUE_FULL", "Wait.", 1.5, True)
    assert error.metadata == {"vm": "web"}
    assert error.request_id
    assert str(error) == "too many. Wait."


def test_input_of_many_megabytes_arrives_once_and_in_order(fake: FakeDaemon, client: banger.Client) -> None:
    fake.on("sum", lambda command: Reply(stdout=str(len(command.stdin))))
    data = os.urandom(5_000_000)
    with client.vms.create("box") as vm:
        assert vm.run("sum", stdin=data).stdout == "5000000"
    assert fake.commands[0].stdin == data


def test_output_goes_on_at_the_same_byte_when_the_connection_breaks(fake: FakeDaemon, client: banger.Client) -> None:
    data = os.urandom(300_000)
    fake.on("cat", stdout=data, break_after=100_001)
    with client.vms.create("box") as vm:
        assert vm.run("cat").stdout_bytes == data
        session = vm.start("cat", stdin=False)
        assert b"".join(e.data for e in session if isinstance(e, banger.Output)) == data
        assert b"".join(e.data for e in session.log() if isinstance(e, banger.Output)) == data
    assert fake.calls.count("AttachSession") >= 2


def test_input_goes_on_at_the_same_byte_when_the_connection_breaks(fake: FakeDaemon, client: banger.Client) -> None:
    fake.on("echo", echo=True, break_after=700_000)
    data = os.urandom(2_000_000)
    with client.vms.create("box") as vm, vm.start("echo") as session:
        got = bytearray()

        def read() -> None:
            for event in session:
                if isinstance(event, banger.Output):
                    got.extend(event.data)

        reader = threading.Thread(target=read)
        reader.start()
        session.write(data)
        session.close_stdin()
        reader.join(60)
        assert session.wait().code == 0
    assert fake.commands[0].stdin == data
    assert bytes(got) == data


def test_one_who_only_writes_is_not_stopped_by_output(fake: FakeDaemon, client: banger.Client) -> None:
    fake.on("echo", echo=True)
    with client.vms.create("box") as vm, vm.start("echo") as session:
        session.write(b"x" * 3_000_000)
        session.flush()
        session.close_stdin()
        assert sum(len(e.data) for e in session if isinstance(e, banger.Output)) == 3_000_000


def test_a_connection_that_does_not_come_back_is_an_error_with_what_came(fake: FakeDaemon) -> None:
    fake.on("cat", stdout=b"x" * 200_000, break_after=100_000)
    with banger.connect(fake.host, reconnect_window=0.2) as client:
        vm = client.vms.create("box")
        fake.lose("AttachSession", 1000)
        with pytest.raises(errors.ConnectionLost) as caught:
            vm.run("cat")
    assert caught.value.code_ran is errors.CodeRan.YES
    assert caught.value.result is not None
    assert len(caught.value.result.stdout_bytes) == 100_000
    assert (caught.value.output_offset, caught.value.stdin_offset) == (100_000, 0)


def test_a_guest_that_stays_silent_is_an_error_with_what_came(fake: FakeDaemon) -> None:
    fake.on("cat", stdout=b"x" * 200_000, break_after=100_000)
    with banger.connect(fake.host, reconnect_window=0.2) as client:
        vm = client.vms.create("box")
        for _ in range(1000):
            fake.fail("AttachSession", grpc.StatusCode.DEADLINE_EXCEEDED, "AGENT_SILENT")
        with pytest.raises(errors.RefusedError) as caught:
            vm.run("cat")
    assert caught.value.reason == "AGENT_SILENT"
    assert caught.value.result is not None
    assert len(caught.value.result.stdout_bytes) == 100_000
    assert (caught.value.output_offset, caught.value.session_id) == (100_000, caught.value.result.session_id)


def test_a_run_that_cannot_be_attached_to_again_ran_whatever_the_refusal_says(
    fake: FakeDaemon, client: banger.Client
) -> None:
    fake.on("cat", stdout=b"x" * 200_000, break_after=100_000)
    vm = client.vms.create("box")
    fake.fail("AttachSession", grpc.StatusCode.FAILED_PRECONDITION, "VM_WRONG_STATE")
    with pytest.raises(errors.RefusedError) as caught:
        vm.run("cat")
    assert (caught.value.reason, caught.value.code_ran) == ("VM_WRONG_STATE", errors.CodeRan.YES)
    assert caught.value.output_offset == 100_000


def test_a_signal_reaches_a_run_whose_connection_came_back(fake: FakeDaemon, client: banger.Client) -> None:
    fake.on(["cat"], echo=True, break_after=3)
    with client.vms.create("box") as vm:
        process = Process.exec(vm._caller, vm.name, v1.SessionSpec(command=["cat"], stdin=True))
        process.write(b"hello")
        got = b""
        while len(got) < 5:
            event = next(process)
            assert isinstance(event, banger.Output)
            got += event.data
        assert process.reconnects == 1
        process.signal(15)
        last = list(process)[-1]
    assert isinstance(last, banger.Exited)
    assert last.exit.signal == 15
    assert fake.calls.count("SignalSession") == 1


def test_a_run_that_is_given_up_is_killed_though_its_connection_was_lost(
    fake: FakeDaemon, client: banger.Client
) -> None:
    fake.on("cat", stdout=b"x" * 300_000, break_after=100_000)
    with client.vms.create("box") as vm:
        with pytest.raises(errors.OutputTooLong):
            vm.run("cat", max_output_bytes=150_000)
        assert fake.calls.count("AttachSession") == 1
        assert fake.calls.count("DeleteSession") == 1


def test_a_guest_that_is_silent_for_a_while_interrupts_no_run(fake: FakeDaemon, client: banger.Client) -> None:
    fake.on("cat", stdout=b"x" * 200_000, break_after=100_000)
    with client.vms.create("box") as vm:
        fake.fail("AttachSession", grpc.StatusCode.DEADLINE_EXCEEDED, "AGENT_SILENT")
        assert len(vm.run("cat").stdout_bytes) == 200_000
    assert fake.calls.count("AttachSession") == 2


def test_a_reader_comes_back_to_where_it_began_before_anything_came(fake: FakeDaemon, client: banger.Client) -> None:
    fake.on("echo", echo=True)
    with client.vms.create("box") as vm, vm.start("echo") as session, session.attach() as process:
        process._drop()  # as when the connection breaks
        process.write(b"x")
        assert isinstance(next(process), banger.Output)
    assert fake.attachments[-1].options.WhichOneof("from") == "offset"


def test_lost_output_is_told_where_lines_or_a_text_are_waited_for(fake: FakeDaemon, client: banger.Client) -> None:
    fake.on("cat", stdout="lost\nkept\nend\n", lost=5)
    with client.vms.create("box") as vm:
        with vm.start("cat", stdin=False) as session:
            with pytest.raises(errors.OutputLost) as caught:
                list(session.lines())
            assert list(session.lines()) == ["kept", "end"]
        assert (caught.value.offset, caught.value.lost_bytes) == (0, 5)
        with vm.start("cat", stdin=False) as session:
            with pytest.raises(errors.OutputLost):
                session.read_until("kept")
            assert session.read_until("end") == b"kept\nend"


def test_what_is_safe_is_repeated_with_the_same_request_id(fake: FakeDaemon, client: banger.Client) -> None:
    fake.lose("CreateVm", 2)
    fake.lose("GetVm", 2)
    vm = client.vms.create("box")
    assert vm.refresh().id == vm.id
    fake.lose("StartSession")
    vm.start("x")
    assert len(fake.commands) == 1
    assert len(fake.vms) == 1


def test_a_run_is_not_repeated_when_it_may_have_started(fake: FakeDaemon, client: banger.Client) -> None:
    with client.vms.create("box") as vm:
        fake.lose("Exec")
        with pytest.raises(errors.ConnectionLost) as caught:
            vm.run("x")
    assert caught.value.code_ran is errors.CodeRan.MAYBE


def test_files_are_written_and_read(fake: FakeDaemon, client: banger.Client) -> None:
    data = os.urandom(3_000_000)
    with client.vms.create("box") as vm:
        assert vm.files.write("/x", data).size_bytes == len(data)
        assert vm.files.read("/x") == data
        assert vm.files.read("/x", offset=5, length=7) == data[5:12]
        vm.files.write("/x", [b"a", b"b"])
        vm.files.write("/x", "ü", mode="append")
        assert vm.files.read_text("/x") == "abü"
        with pytest.raises(errors.FileTooLong):
            vm.files.read("/x", max_bytes=2)
        assert vm.files.exists("/x")
        vm.files.remove("/x")
        assert not vm.files.exists("/x")


def test_a_file_that_cannot_be_read_gives_the_upload_up(fake: FakeDaemon, client: banger.Client) -> None:
    def pieces() -> object:
        yield b"a" * 3_000_000
        raise OSError("gone")

    with client.vms.create("box") as vm:
        with pytest.raises(OSError, match="gone"):
            vm.files.write("/x", pieces())  # type: ignore[arg-type]
        assert not vm.files.exists("/x")


def test_many_threads_use_one_client(fake: FakeDaemon, client: banger.Client) -> None:
    fake.on(lambda command: True, lambda command: Reply(stdout=command.text))
    wrong: list[str] = []
    vm = client.vms.create("box")

    def work(number: int) -> None:
        for at in range(10):
            text = f"{number}.{at}"
            if vm.run(text).stdout != text:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == []
    assert len(fake.commands) == 80


def test_a_forked_process_is_told_to_connect_anew(fake: FakeDaemon, client: banger.Client) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            client.info()
        except errors.ForkedError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert client.info().version == "fake"


def test_a_full_host_is_waited_for(fake: FakeDaemon, client: banger.Client) -> None:
    full = grpc.StatusCode.RESOURCE_EXHAUSTED
    for _ in range(2):
        fake.fail("CreateVm", full, "TOO_MANY_VMS")
    fake.fail("CreateVm", grpc.StatusCode.UNAVAILABLE, "BOOT_QUEUE_FULL", retry_after="0.01")
    with client.vms.create("box", wait=60) as vm:
        assert vm.run("true").ok
    assert fake.calls.count("CreateVm") == 4
    for seconds, reason in ((0.0, "TOO_MANY_VMS"), (60.0, "IMAGE_NOT_FOUND")):
        fake.fail("CreateVm", full, reason)
        with pytest.raises(errors.ExhaustedError):
            client.vms.create("box", wait=seconds)


def test_a_silent_daemon_is_noticed(fake: FakeDaemon) -> None:
    silent = threading.Event()

    def hang(command: Command) -> Reply:
        silent.wait(60)
        return Reply()

    fake.on("hang", hang)
    with banger.connect(fake.host, silence=0.5, reconnect_window=0) as client:
        vm = client.vms.create("box")
        begun = time.monotonic()
        with pytest.raises(errors.ConnectionLost) as caught:
            vm.run("hang")
    silent.set()
    assert caught.value.reason == "CONNECTION_SILENT"
    assert time.monotonic() - begun < 30


def test_nobody_at_the_address_is_told_at_once() -> None:
    with pytest.raises(errors.ConnectError) as caught:
        banger.connect("/nowhere/bangerd.sock")
    assert caught.value.reason == "DAEMON_UNREACHABLE"
    assert "BANGER_HOST" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    "host",
    [
        "tcp://host:1",
        "host:1",
        "unix://",
        "/" + "x" * 200,
        "http://host",
        "https://",
        "https://host:0",
        "https://host:99999",
        "https://host/path",
        "https://user@host",
        "https://[host]:1",
    ],
)
def test_an_address_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(errors.HostError) as caught:
        banger.connect(host)
    assert caught.value.remedy


def test_another_host_needs_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BANGER_CERT", "BANGER_KEY", "BANGER_CA"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(errors.HostError, match="no certificate is given"):
        banger.connect("https://host")
    for cert, key, ca, missing in [
        (None, "k", "a", "certificate"),
        ("c", None, "a", "key"),
        ("c", "k", None, "authority"),
    ]:
        with pytest.raises(errors.HostError, match=missing):
            banger.connect("https://host", cert=cert, key=key, ca=ca)
    with pytest.raises(errors.HostError, match=r"ca\.crt"):
        banger.connect("https://host", cert=tmp_path)


def test_the_environment_names_the_daemon(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANGER_HOST", fake.host)
    with banger.connect() as client:
        assert client.info().version == "fake"


def test_a_pull_tells_of_its_progress(fake: FakeDaemon, client: banger.Client) -> None:
    told: list[str] = []
    image = client.images.pull("debian:bookworm", on_progress=lambda operation: told.append(operation.target))
    assert list(image.references) == told == ["debian:bookworm"]
    assert client.images.get("debian:bookworm").id == image.id


def test_limits_are_told_by_name(fake: FakeDaemon, client: banger.Client) -> None:
    vm = client.vms.create("box")
    vm.run("true", limits={"nofile": (1024, 4096), "stack": None, "cpu": 5})
    limits = {limit.resource: limit for limit in fake.commands[-1].spec.limits}
    nofile = limits[v1.ResourceLimit.RESOURCE_NOFILE]
    assert (nofile.soft, nofile.hard) == (1024, 4096)
    stack = limits[v1.ResourceLimit.RESOURCE_STACK]
    assert not stack.HasField("soft")
    assert not stack.HasField("hard")
    assert limits[v1.ResourceLimit.RESOURCE_CPU].hard == 5
    with pytest.raises(ValueError, match="nofile"):
        vm.run("true", limits={"files": 5})


def test_an_attachment_begins_where_it_is_told_and_as_whom(fake: FakeDaemon, client: banger.Client) -> None:
    vm = client.vms.create("box")
    with vm.start("cat") as session:
        when = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc)
        with session.attach(tail_lines=3, steal=True) as first:
            pass
        with session.attach(since=when, read_only=True, writer=first.writer) as second:
            pass
        with session.attach(screen=True):
            pass
        with pytest.raises(ValueError, match="one place"):
            session.attach(offset=1, end=True)
        with pytest.raises(ValueError, match="steal or read_only"):
            session.attach(steal=True, read_only=True)
    told = fake.attachments[:3]
    assert (told[0].options.tail_lines, told[0].writing) == (3, v1.WRITING_STEAL)
    assert told[1].options.since.ToDatetime(datetime.timezone.utc) == when
    assert told[1].writing == v1.WRITING_NONE
    assert told[1].writer == told[0].writer == second.writer
    assert told[2].options.screen
    assert told[2].writer not in ("", first.writer)
