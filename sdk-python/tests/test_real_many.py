"""Many sandboxes by many workers on one daemon that has not room for all at once: they wait for each other, none fails,
none sees anything of another, and nothing is left. BANGER_SANDBOXES=100 for as many as that, by eight workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import banger
from tests.daemon import IMAGE, Daemon

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("default"), pytest.mark.timeout(3600)]

COUNT = int(os.environ.get("BANGER_SANDBOXES") or 12)
WORKERS = 8 if COUNT > 50 else 4
# Fewer than there are workers.
ROOM = WORKERS // 2 + 1

TESTS = """
    import uuid
    import pytest

    @pytest.mark.banger(image={image!r}, memory_mib=128)
    @pytest.mark.parametrize("number", range({count}))
    def test_one(vm, number):
        mark = uuid.uuid4().hex
        assert vm.run("ls /tmp /home/app", check=True).stdout == "/home/app:\\n\\n/tmp:\\n"
        vm.files.write("/tmp/mark", mark)
        session = vm.start("cat")
        session.write(mark + "\\n")
        assert session.read_until("\\n") == (mark + "\\n").encode()
        session.remove()
        assert vm.run("cat /tmp/mark; ls /tmp /home/app; hostname", check=True).stdout == (
            f"{{mark}}/home/app:\\n\\n/tmp:\\nmark\\n{{vm.name}}\\n"
        )
        assert [found.id for found in vm.sessions.list()] == []
"""


@pytest.fixture
def small() -> Iterator[Daemon]:
    with Daemon(f"max_vms = {ROOM}\n") as daemon:
        yield daemon


@pytest.mark.usefixtures("bangerd")  # where that is missing, this is too
def test_they_wait_and_see_nothing_of_each_other(small: Daemon, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS.format(image=IMAGE, count=COUNT))
    done = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", f"--banger-host={small.host}", "-n", str(WORKERS), "--durations=3", timeout=3500
    )
    done.assert_outcomes(passed=COUNT)
    with banger.connect(small.host) as client:
        assert list(client.vms.list()) == []
        usage = client.usage()
        assert usage is not None
    assert list((small.directory / "state" / "vms").iterdir()) == []
