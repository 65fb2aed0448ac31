"""The examples of the documents, run as they stand against a real daemon."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import banger
from tests.daemon import ROOT, Daemon

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("default")]


def blocks(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / document).read_text(), re.M | re.S)


@pytest.fixture(autouse=True)
def _host(bangerd: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANGER_HOST", bangerd.host)


def left(host: str) -> list[str]:
    with banger.connect(host) as client:
        return [vm.name for vm in client.vms.list()]


@pytest.mark.parametrize("document", ["python.md", "asyncio.md"])
def test_program(document: str, bangerd: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = left(bangerd.host)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    program = tmp_path / "examples.py"
    program.write_text("\n".join(blocks(document)))
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert left(bangerd.host) == before


def test_pytest(bangerd: Daemon, pytester: pytest.Pytester) -> None:
    (example,) = blocks("pytest.md")
    before = left(bangerd.host)
    pytester.makepyfile(example)
    pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=400).assert_outcomes(passed=2)
    assert left(bangerd.host) == before


def test_inspect_ai(bangerd: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspect_ai = pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")
    (example,) = blocks("inspect-ai.md")
    before = left(bangerd.host)
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path))
    names: dict[str, Any] = {"__name__": "example"}
    exec(example, names)
    (log,) = inspect_ai.eval(names["copied"](), model="mockllm/model", display="none", log_dir=str(tmp_path))
    assert log.status == "success", log.error
    assert log.results.scores[0].metrics["accuracy"].value == 1
    assert left(bangerd.host) == before
