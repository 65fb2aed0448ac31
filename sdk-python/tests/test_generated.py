"""What is generated is as the sources say, and the runtime that is declared takes it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import banger
import banger.aio
from banger import _methods

HERE = Path(__file__).resolve().parents[1]


def test_generated_code_is_fresh() -> None:
    done = subprocess.run([sys.executable, "generate.py", "--check"], cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_messages_were_generated_for_the_lowest_runtime_that_is_declared() -> None:
    declared = re.search(r'"protobuf>=([\d.]+),<(\d+)"', (HERE / "pyproject.toml").read_text())
    assert declared is not None
    made = {
        found[1]
        for path in (HERE / "src" / "banger" / "v1").glob("*_pb2.py")
        if (found := re.search(r"Protobuf Python Version: ([\d.]+)", path.read_text()))
    }
    assert made == {declared[1]}
    # protobuf promises that a runtime takes what was generated for it and for the major version before.
    assert int(declared[2]) == int(declared[1].split(".")[0]) + 2


def test_the_blocking_and_the_asyncio_package_have_the_same_names() -> None:
    assert banger.__all__ == banger.aio.__all__
    for name in banger.__all__:
        assert hasattr(banger, name)
        assert hasattr(banger.aio, name)


def test_every_call_of_the_api_is_in_the_table() -> None:
    protos = (HERE.parent / "proto" / "banger" / "v1").glob("*_service.proto")
    wanted = sum(len(re.findall(r"^\s*rpc ", path.read_text(), re.M)) for path in protos)
    assert len(_methods.ALL) == wanted
