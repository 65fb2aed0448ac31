"""The sandbox of `inspect_ai` passes that package's own checks of sandboxes, in one real VM."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")

from inspect_ai.util._sandbox.registry import registry_find_sandboxenv
from inspect_ai.util._sandbox.self_check import *  # noqa: F403

from banger.inspect_sandbox import BangerSandboxConfig, BangerSandboxEnvironment
from tests.daemon import IMAGE, Daemon

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.filterwarnings("default")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def environment(bangerd: Daemon) -> AsyncIterator[BangerSandboxEnvironment]:
    config = BangerSandboxConfig(image=IMAGE, memory_mib=384, host=bangerd.host)
    made = await BangerSandboxEnvironment.sample_init("self_check", config, {})
    yield made["default"].as_type(BangerSandboxEnvironment)
    await BangerSandboxEnvironment.sample_cleanup("self_check", config, made, False)


@pytest.fixture
def sandbox_env(environment: BangerSandboxEnvironment) -> BangerSandboxEnvironment:
    return environment


async def test_the_sandbox_is_found_by_its_name() -> None:
    assert registry_find_sandboxenv("banger") is BangerSandboxEnvironment
