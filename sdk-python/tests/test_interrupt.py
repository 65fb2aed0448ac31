"""Ctrl-C at every single step: nothing is left, whatever was interrupted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import banger
import banger.aio
from banger import errors, v1
from banger.testing import FakeDaemon

PACKAGE = os.path.dirname(banger.__file__) + os.sep + "_sync" + os.sep


class Steps:
    """Counts the steps of this package in this thread, and interrupts at chosen ones, as Python would."""

    def __init__(self, *at: int) -> None:
        self.at = set(at)
        self.count = 0
        self.where = ""

    def _step(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = frame.f_code.co_name in (
            "create",
            "create_from",
            "making",
            "make",
            "__enter__",
            "entered",
        )
        if event in ("line", "opcode", "call"):
            self.count += 1
            if self.count in self.at:
                self.where += f" {os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
                handler = signal.getsignal(signal.SIGINT)
                assert callable(handler)
                handler(signal.SIGINT, frame)
        return self._step

    def __enter__(self) -> Steps:
        sys.settrace(self._step)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)


def use(client: banger.Client) -> None:
    """What is interrupted: a VM, a command, a session, and the end of all."""
    with client.vms.create("box", on_progress=lambda _: None) as vm:
        vm.run("true")
        with vm.start("cat"):
            pass


@pytest.fixture
def own_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("own_handler")
def test_one_at_every_step(fake: FakeDaemon, client: banger.Client) -> None:
    use(client)
    with Steps() as steps:
        use(client)
    # Fewer would mean that nothing was interrupted.
    assert steps.count > 300
    for at in range(1, steps.count + 1):
        with banger.connect(fake.host) as mine:
            try:
                with Steps(at) as step:
                    use(mine)
            except KeyboardInterrupt:
                pass
            else:
                assert step.where == "", f"Ctrl-C was swallowed in {step.where}"
        assert fake.vms == {}, f"step {at} in {step.where}"
    # What stood before the program's handler has gone with the last block.
    use(client)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Nuisance(FakeDaemon):
    """Ctrl-C, a real one, in the middle of these calls."""

    def __init__(self, *calls: str) -> None:
        super().__init__()
        self.at = list(calls)

    def _ctrl_c(self, call: str) -> None:
        if call in self.at:
            self.at.remove(call)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def CancelOperation(self, request: v1.CancelOperationRequest) -> v1.CancelOperationResponse:  # noqa: N802
        self._ctrl_c("CancelOperation")
        return super().CancelOperation(request)

    def DeleteVm(self, request: v1.DeleteVmRequest) -> v1.DeleteVmResponse:  # noqa: N802
        self._ctrl_c("DeleteVm")
        return super().DeleteVm(request)


@pytest.mark.usefixtures("own_handler")
def test_again_while_it_is_given_up() -> None:
    nuisance = Nuisance("CancelOperation", "DeleteVm")
    with nuisance as fake, banger.connect(fake.host) as client:
        with pytest.raises(KeyboardInterrupt):
            client.vms.create("box", on_progress=lambda _: signal.raise_signal(signal.SIGINT))
        assert (fake.vms, nuisance.at) == ({}, [])


@pytest.mark.usefixtures("own_handler")
def test_in_the_middle_of_a_removal() -> None:
    with Nuisance("DeleteVm") as fake, banger.connect(fake.host) as client:
        with pytest.raises(KeyboardInterrupt), client.vms.create("box"):
            pass
        assert fake.vms == {}


@pytest.mark.usefixtures("own_handler")
def test_a_removal_that_never_ends_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    class Stuck(FakeDaemon):
        def DeleteVm(self, request: v1.DeleteVmRequest) -> v1.DeleteVmResponse:  # noqa: N802
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            over.wait(120)
            return super().DeleteVm(request)

    monkeypatch.setattr(banger.Vm, "_THROW_AWAY_SECONDS", 0.2)
    with Stuck() as fake, banger.connect(fake.host) as client:
        with pytest.raises(KeyboardInterrupt), client.vms.create("box"):
            pass
        assert len(fake.vms) == 1
        over.set()


@pytest.mark.usefixtures("own_handler")
def test_a_failing_callback_leaves_nothing(client: banger.Client, fake: FakeDaemon) -> None:
    def fail(_: object) -> None:
        client.images.get("nothing-of-this-name")

    with pytest.raises(errors.NotFoundError):
        client.vms.create("box", on_progress=fail)
    assert fake.vms == {}


@pytest.mark.usefixtures("own_handler")
def test_what_is_kept_is_not_touched(client: banger.Client, fake: FakeDaemon) -> None:
    client.vms.create("box", name="web")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    other = client.vms.create("box", name="other")
    assert other.run("true").ok
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert {vm.spec.name for vm in fake.vms.values()} == {"web", "other"}


class CancelledAt:
    """A coroutine whose task is cancelled when it waits for the nth time, and again at the next ones."""

    def __init__(self, work: Coroutine[Any, Any, None], at: int, times: int) -> None:
        self.work = work
        self.at = range(at, at + times)
        self.count = 0

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self.work.__await__()
        send: Callable[[], Any] = partial(next, steps)
        while True:
            try:
                waited = send()
            except StopIteration:
                return
            self.count += 1
            task = asyncio.current_task()
            if task is not None and self.count in self.at:
                task.cancel()
            try:
                send = partial(steps.send, (yield waited))
            except BaseException as error:
                send = partial(steps.throw, error)


@pytest.mark.parametrize("times", [1, 2])
async def test_asyncio_at_every_await(fake: FakeDaemon, times: int) -> None:
    async def use() -> None:
        async with await client.vms.create("box", on_progress=lambda _: None) as vm:
            await vm.run("true")
            async with await vm.start("cat"):
                pass

    async def run(steps: CancelledAt) -> None:
        await steps

    async with await banger.aio.connect(fake.host) as client:
        at = 0
        while True:
            at += 1
            steps = CancelledAt(use(), at, times)
            try:
                await asyncio.ensure_future(run(steps))
            except asyncio.CancelledError:
                assert fake.vms == {}, f"await {at}"
            else:
                assert steps.count < at
                break
    assert at > 5
    assert fake.vms == {}


def test_asyncio_run_and_two_ctrl_c(tmp_path: Path) -> None:
    # In a process of its own, for the signals.
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import asyncio, os, signal, sys
            import banger.aio
            from banger import v1
            from banger.testing import FakeDaemon

            class Nuisance(FakeDaemon):
                def CancelOperation(self, request):
                    if self.calls.count("CancelOperation") == 1:
                        os.kill(os.getpid(), signal.SIGINT)
                    return super().CancelOperation(request)

            async def main():
                async with await banger.aio.connect(fake.host) as client:
                    ctrl_c = lambda _: os.kill(os.getpid(), signal.SIGINT)
                    async with await client.vms.create("box", on_progress=ctrl_c):
                        await asyncio.sleep(600)

            with Nuisance() as fake:
                try:
                    asyncio.run(main())
                except KeyboardInterrupt:
                    print("left", len(fake.vms), fake.calls.count("CancelOperation") > 0)
            """
        )
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300)
    assert done.stdout == "left 0 True\n", done.stdout + done.stderr
