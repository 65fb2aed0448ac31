"""The asyncio client against a fake daemon: what differs from the blocking one, and that the same holds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import banger.aio
from banger import errors
from banger.testing import Command, FakeDaemon, Reply


@pytest_asyncio.fixture
async def aclient(fake: FakeDaemon) -> AsyncIterator[banger.aio.Client]:
    async with await banger.aio.connect(fake.host) as client:
        yield client


async def test_many_commands_at_once(fake: FakeDaemon, aclient: banger.aio.Client) -> None:
    fake.on(lambda command: True, lambda command: Reply(stdout=command.text))
    async with await aclient.vms.create("box") as vm:
        results = await asyncio.gather(*(vm.run(str(number)) for number in range(20)))
    assert [result.stdout for result in results] == [str(number) for number in range(20)]
    assert fake.vms == {}


async def test_a_cancelled_command_is_killed(fake: FakeDaemon, aclient: banger.aio.Client) -> None:
    fake.on("hang", stdout="", hang=True)
    async with await aclient.vms.create("box") as vm:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(vm.run("hang"), 0.5)
        assert (await vm.run("next")).ok


async def test_a_cancelled_creation_leaves_nothing(fake: FakeDaemon, aclient: banger.aio.Client) -> None:
    def cancel(_: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def create() -> None:
        await aclient.vms.create("box", on_progress=cancel)
        await asyncio.sleep(60)

    task = asyncio.ensure_future(create())
    with pytest.raises(asyncio.CancelledError):
        await task
    # Whether the VM came first or the end: what was made and handed over is the caller's.
    for vm in [vm async for vm in aclient.vms.list()]:
        await vm.delete()
    assert fake.vms == {}


async def test_output_and_input_go_on_over_broken_connections(fake: FakeDaemon, aclient: banger.aio.Client) -> None:
    fake.on("echo", echo=True, break_after=500_000)
    data = os.urandom(1_500_000)
    async with await aclient.vms.create("box") as vm, await vm.start("echo") as session:
        got = bytearray()

        async def read() -> None:
            async for event in session:
                if isinstance(event, banger.Output):
                    got.extend(event.data)

        reader = asyncio.ensure_future(read())
        await session.write(data)
        await session.close_stdin()
        await asyncio.wait_for(reader, 60)
    assert bytes(got) == data
    assert fake.commands[0].stdin == data


async def test_a_reader_that_is_cancelled_loses_nothing(fake: FakeDaemon, aclient: banger.aio.Client) -> None:
    fake.on("echo", echo=True)
    async with await aclient.vms.create("box") as vm, await vm.start("echo") as session:
        process = await session.attach()
        got = bytearray()
        for number in range(5):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(process.__anext__(), 0.05)
            await process.write(f"{number}\n")
            while not got.endswith(f"{number}\n".encode()):
                event = await process.__anext__()
                assert isinstance(event, banger.Output)
                got += event.data
        await process.close()
    assert bytes(got) == b"0\n1\n2\n3\n4\n"


async def test_errors_are_the_same(fake: FakeDaemon, aclient: banger.aio.Client) -> None:
    fake.on("bad", code=4, stderr="why")
    async with await aclient.vms.create("box") as vm:
        with pytest.raises(errors.NonZeroExit) as caught:
            await vm.run("bad", check=True)
    assert caught.value.result.stderr == "why"


async def test_a_silent_daemon_is_noticed(fake: FakeDaemon) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(command: Command) -> Reply:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(60)
        return Reply()

    fake.on("hang", hang)
    async with await banger.aio.connect(fake.host, silence=0.5, reconnect_window=0) as client:
        vm = await client.vms.create("box")
        with pytest.raises(errors.ConnectionLost) as caught:
            await vm.run("hang")
        release.set()
    assert caught.value.reason == "CONNECTION_SILENT"


async def test_files_are_written_and_read(fake: FakeDaemon, aclient: banger.aio.Client) -> None:
    data = os.urandom(2_000_000)
    async with await aclient.vms.create("box") as vm:
        await vm.files.write("/x", data)
        assert await vm.files.read("/x") == data
        assert b"".join([chunk async for chunk in vm.files.stream("/x")]) == data
        with pytest.raises(errors.NotFoundError):
            await vm.files.read("/y")
