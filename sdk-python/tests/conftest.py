"""What the tests share: a fake daemon, and for those marked `real` a bangerd of their own with a small image."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import banger
from banger.testing import FakeDaemon
from tests import daemon

pytest_plugins = ["pytester"]


@pytest.fixture
def fake() -> Iterator[FakeDaemon]:
    with FakeDaemon() as daemon:
        yield daemon


@pytest.fixture
def client(fake: FakeDaemon) -> Iterator[banger.Client]:
    with banger.connect(fake.host) as client:
        yield client


@pytest.fixture(scope="session")
def bangerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[daemon.Daemon]:
    """A bangerd with a kernel and an image, of the programs that BANGER_DIST names."""
    missing = daemon.missing()
    if missing is not None:
        # In the suite they are there.
        (pytest.fail if os.environ.get("BANGER_E2E") == "require" else pytest.skip)(missing)
    with daemon.Daemon() as running:
        yield running
