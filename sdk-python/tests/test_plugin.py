"""The pytest plugin, in runs of its own against a fake daemon."""

from __future__ import annotations

import re
import socket
import tarfile
from xml.etree import ElementTree

import pytest

import banger
from banger.testing import FakeDaemon

pytestmark = pytest.mark.filterwarnings("default")

MARKED = """
    import pytest

    @pytest.mark.banger(image="box", memory_mib=64)
    def test_one(vm):
        assert vm.info.spec.memory_mib == 64
        assert vm.run("true").ok
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=240)


def test_each_test_has_a_vm_that_goes_with_it(pytester: pytest.Pytester, fake: FakeDaemon) -> None:
    pytester.makepyfile(MARKED)
    run(pytester, f"--banger-host={fake.host}").assert_outcomes(passed=1)
    assert fake.vms == {}
    assert fake.calls.count("PullImage") == 1


def test_workers_of_xdist_pull_once_and_leave_nothing(pytester: pytest.Pytester, fake: FakeDaemon) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.banger(image="box")
        @pytest.mark.parametrize("number", range(12))
        def test_many(vm, number):
            assert vm.run(f"echo {number}").ok
        """
    )
    run(pytester, f"--banger-host={fake.host}", "-n", "3").assert_outcomes(passed=12)
    assert fake.vms == {}
    assert fake.calls.count("PullImage") == 1
    assert len({command.vm for command in fake.commands}) == 12


def test_a_failed_test_shows_console_and_logs(pytester: pytest.Pytester, fake: FakeDaemon) -> None:
    fake.on("serve", stdout="the log of the server\n")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.banger("box")
        def test_fails(vm_factory):
            vm = vm_factory(name="web")
            vm.start("serve", stdin=False).wait()
            assert False
        """
    )
    done = run(pytester, f"--banger-host={fake.host}", "--banger-artifacts=out")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*VMs made in * s*", "*a console of a fake VM*", "*the log of the server*"])
    assert fake.vms == {}
    assert list((pytester.path / "out").glob("*/web/console.log"))
    assert list((pytester.path / "out").glob("*/web/session-*.log"))


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_each_test_reports_how_long_its_vms_took(
    pytester: pytest.Pytester, fake: FakeDaemon, workers: list[str]
) -> None:
    pytester.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.banger("box")

        def test_passes(vm): pass
        def test_fails(vm): assert False
        def test_has_two(vm_factory): vm_factory(), vm_factory()
        def test_has_none(vm_factory): pass

        @pytest.fixture
        def broken(vm): assert False
        def test_is_not_reached(broken): pass
        """
    )
    done = run(pytester, f"--banger-host={fake.host}", "--junitxml=report.xml", "-rP", *workers)
    done.assert_outcomes(passed=3, failed=1, errors=1)
    done.stdout.re_match_lines([r"^VMs made in \d+\.\d\d s, test run in \d+\.\d\d s$"] * 3)
    cases = ElementTree.parse(pytester.path / "report.xml").iter("testcase")
    told = {
        case.attrib["name"]: [(each.get("name"), each.get("value")) for each in case.iter("property")] for case in cases
    }
    assert told.pop("test_has_none") == []
    assert sorted(told) == ["test_fails", "test_has_two", "test_is_not_reached", "test_passes"]
    for name, properties in told.items():
        ((key, value),) = properties
        assert key == "banger_vm_seconds", name
        assert value is not None
        assert re.fullmatch(r"\d+\.\d\d", value), name


def test_a_failed_test_shows_the_files_that_it_changed(pytester: pytest.Pytester, fake: FakeDaemon) -> None:
    fake.on(lambda command: command.text.startswith("find / /tmp -xdev"), stdout="/work/report\0/../../evil\0/gone\0")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.banger("box", name="web")
        def test_fails(vm):
            vm.files.write("/work/report", "three of four\\n")
            vm.files.write("/../../evil", "x")
            assert False
        """
    )
    done = run(pytester, f"--banger-host={fake.host}", "--banger-artifacts=out")
    done.stdout.fnmatch_lines(["*banger web changed files*", "/../../evil", "/gone", "/work/report"])
    (saved,) = (pytester.path / "out").glob("*/web/changed-files.tar")
    with tarfile.open(saved) as tar:
        content = tar.extractfile("work/report")
        assert content is not None
        assert content.read() == b"three of four\n"
        assert sorted(tar.getnames()) == ["../../evil", "work/report"]
    assert {path.name for path in (pytester.path / "out").rglob("*")} >= {"console.log", "changed-files.tar"}
    assert not list(pytester.path.parent.glob("evil"))


def test_the_vms_of_failed_tests_are_kept_if_asked(pytester: pytest.Pytester, fake: FakeDaemon) -> None:
    pytester.makepyfile(MARKED + "        assert False\n")
    done = run(pytester, f"--banger-host={fake.host}", "--banger-keep")
    done.assert_outcomes(failed=1)
    (kept,) = fake.vms.values()
    done.stdout.fnmatch_lines([f"*kept: banger vm exec -it {kept.spec.name}*"])
    # What is left of a run that is over goes with the next one.
    pytester.makepyfile(MARKED)
    run(pytester, f"--banger-host={fake.host}").assert_outcomes(passed=1)
    assert fake.vms == {}


def test_the_vms_of_a_namesake_are_not_touched(pytester: pytest.Pytester, fake: FakeDaemon) -> None:
    # As of a runner of the same name, where a process of this number lives.
    label = {"dev.banger.pytest.run": f"{socket.gethostname()}.999999999.1"}
    with banger.connect(fake.host) as client:
        theirs = client.vms.create("box", labels=label)
        pytester.makepyfile(MARKED)
        run(pytester, f"--banger-host={fake.host}").assert_outcomes(passed=1)
        assert [left.id for left in client.vms.list()] == [theirs.id]


def test_an_interrupted_run_leaves_nothing(pytester: pytest.Pytester, fake: FakeDaemon) -> None:
    pytester.makepyfile(MARKED + "        raise KeyboardInterrupt\n")
    assert run(pytester, f"--banger-host={fake.host}").ret == pytest.ExitCode.INTERRUPTED
    assert fake.vms == {}


def test_without_a_daemon_tests_are_skipped_with_the_reason(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANGER_HOST", "unix:///nowhere/bangerd.sock")
    pytester.makepyfile(MARKED)
    done = run(pytester, "-rs")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["*no bangerd: could not connect to bangerd at `/nowhere/bangerd.sock`*"])


def test_a_daemon_that_was_named_must_be_there(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MARKED)
    run(pytester, "--banger-host=/nowhere/bangerd.sock").assert_outcomes(errors=1)


def test_a_test_without_an_image_is_told_so(pytester: pytest.Pytester, fake: FakeDaemon) -> None:
    pytester.makepyfile("def test_one(vm): pass")
    done = run(pytester, f"--banger-host={fake.host}")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*needs an image*"])
    pytester.makeini("[pytest]\nbanger_image = box\n")
    run(pytester, f"--banger-host={fake.host}").assert_outcomes(passed=1)
