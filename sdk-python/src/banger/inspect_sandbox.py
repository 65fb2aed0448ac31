"""A sandbox of `inspect_ai` that is a microVM: `Task(…, sandbox=("banger", "debian:bookworm"))`.

Found by its entry point, where `banger[inspect]` is installed. Each sample gets a VM of its own, which is thrown away
at its end.
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, overload

from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxConnection,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    sandboxenv,
)
from pydantic import BaseModel

import banger
import banger.aio
from banger import errors

__all__ = ["BangerSandboxConfig", "BangerSandboxEnvironment"]

_IMAGE = "debian:bookworm"
_LABEL = "dev.banger.inspect.task"
# A VM whose process was killed goes by itself then.
_TTL = 24 * 3600
# As shells have them.
_NOT_FOUND = 127
_NOT_RUN = 126


class BangerSandboxConfig(BaseModel, frozen=True):
    """What the VM of a sample is made of. A text instead of it is the image."""

    image: str = _IMAGE
    memory_mib: int = 0
    """0 means the daemon's default."""
    vcpu_count: int = 0
    """0 means the daemon's default."""
    disk_mib: int = 0
    """0 means the daemon's default."""
    network: Literal["default", "none", "user"] = "none"
    """None by default: what a model runs reaches nobody."""
    env: dict[str, str] = {}
    host: str | None = None
    """The daemon; by default that of BANGER_HOST, or this machine's."""

    def __hash__(self) -> int:
        # inspect_ai keeps them as keys, and `env` has no hash of its own.
        return hash(self.model_dump_json())


def _config(config: SandboxEnvironmentConfigType | None) -> BangerSandboxConfig:
    if config is None:
        return BangerSandboxConfig()
    if isinstance(config, str):
        return BangerSandboxConfig(image=config)
    if isinstance(config, BangerSandboxConfig):
        return config
    raise ValueError(f"banger takes an image or a BangerSandboxConfig, not a {type(config).__name__}")


@sandboxenv(name="banger")
class BangerSandboxEnvironment(SandboxEnvironment):
    """A VM. Relative paths are beneath the image's working directory."""

    def __init__(self, vm: banger.aio.Vm, client: banger.aio.Client, directory: str) -> None:
        super().__init__()
        self.vm = vm
        """The VM."""
        self._client = client
        self._directory = directory

    @classmethod
    async def create(cls, config: BangerSandboxConfig, labels: dict[str, str]) -> BangerSandboxEnvironment:
        """Makes a VM."""
        client = await banger.aio.connect(config.host)
        try:
            vm = await client.vms.create(
                config.image,
                memory_mib=config.memory_mib,
                vcpu_count=config.vcpu_count,
                disk_mib=config.disk_mib,
                network=config.network,
                env=config.env,
                labels=labels,
                ttl=_TTL,
            )
            try:
                # Where commands run that say nothing else.
                directory = (await vm.run(["pwd"], check=True)).stdout.strip()
            except BaseException:
                await vm.delete()
                raise
        except BaseException:
            await client.close()
            raise
        return cls(vm, client, directory)

    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        """Makes the sample's VM."""
        return {"default": await cls.create(_config(config), {_LABEL: task_name})}

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        """Throws the sample's VM away."""
        for environment in environments.values():
            await environment.as_type(cls).close()

    @classmethod
    async def cli_cleanup(cls, id: str | None) -> None:  # noqa: A002
        """Throws away the VM of this id, or every VM that was made for samples."""
        async with await banger.aio.connect() as client:
            found = [vm async for vm in client.vms.list() if _LABEL in vm.info.spec.labels]
            for vm in found:
                if id is None or id in (vm.id, vm.name):
                    await vm.delete()

    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> BaseModel:
        """From what a log has."""
        return BangerSandboxConfig(**config)

    async def close(self) -> None:
        """Throws the VM away."""
        try:
            await self.vm.delete()
        finally:
            await self._client.close()

    def _path(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self._directory, path))

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,  # noqa: A002
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Runs a command. One that did not end in time is not run again: what it did is done."""
        limit = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        try:
            result = await self.vm.run(
                cmd,
                stdin=input,
                cwd=None if cwd is None else self._path(cwd),
                env=env,
                user=user,
                timeout=timeout,
                max_output_bytes=2 * limit,
            )
        except errors.CommandNotStarted as error:
            if error.reason == "PROGRAM_NOT_EXECUTABLE":
                raise PermissionError(str(error)) from error
            code = _NOT_FOUND if error.reason == "PROGRAM_NOT_FOUND" else _NOT_RUN
            return ExecResult(False, code, "", str(error))
        except errors.CommandOutOfMemory as error:
            return ExecResult(False, 137, error.result.stdout, error.result.stderr + str(error))
        except errors.OutputTooLong as error:
            raise _too_long(error.result.stdout) from error
        if max(len(result.stdout_bytes), len(result.stderr_bytes)) > limit:
            raise _too_long(result.stdout_bytes[:limit].decode(errors="replace"))
        assert result.exit_code is not None
        return ExecResult(result.ok, result.exit_code, result.stdout, result.stderr)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Writes a file, with the directories on the way. Into the file that is there, which its permissions must
        allow.
        """
        async with _as_python(file):
            await self.vm.files.write(self._path(file), contents, offset=0, truncate=True, make_parents=True)

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """Reads a file."""
        async with _as_python(file):
            limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
            try:
                data = await self.vm.files.read(self._path(file), max_bytes=limit)
            except errors.FileTooLong as error:
                raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None) from error
        return data.decode() if text else data

    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        """How people get a shell in it."""
        as_user = f" --user {user}" if user else ""
        command = f"banger vm exec{as_user} -it {self.vm.name} -- sh"
        return SandboxConnection(type="banger", command=command, container=self.vm.name)


def _too_long(text: str) -> OutputLimitExceededError:
    return OutputLimitExceededError(SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR, text)


@asynccontextmanager
async def _as_python(file: str) -> AsyncIterator[None]:
    """The errors of files as Python has them."""
    try:
        yield
    except errors.RefusedError as error:
        kinds: dict[str, type[OSError]] = {
            "FILE_NOT_FOUND": FileNotFoundError,
            "FILE_NOT_DIRECTORY": FileNotFoundError,
            "FILE_ACCESS_DENIED": PermissionError,
            "FILE_READ_ONLY": PermissionError,
            "FILE_IS_DIRECTORY": IsADirectoryError,
            "FILE_NOT_REGULAR": IsADirectoryError,
        }
        kind = kinds.get(error.reason)
        if kind is None:
            raise
        what = "is a directory: " if kind is IsADirectoryError else ""
        raise kind(f"{what}{file}: {error.message}") from error
