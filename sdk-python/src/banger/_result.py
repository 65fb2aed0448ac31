"""What a command wrote, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from banger import errors

if TYPE_CHECKING:
    from banger.v1 import Exit as _Exit


@dataclass(frozen=True)
class Exit:
    """How a command ended. Exactly one of its fields says so."""

    code: int | None = None
    """The exit code, 0 to 255."""
    signal: int | None = None
    """The number of the signal that ended it."""
    out_of_memory: bool = False
    """The guest's kernel killed it for want of memory."""
    deadline: bool = False
    """Its timeout ran out."""
    vm_gone: bool = False
    """The VM stopped; its result is unknown."""

    @property
    def ok(self) -> bool:
        """Whether it ended with 0."""
        return self.code == 0

    def __str__(self) -> str:
        if self.code is not None:
            return f"exit code {self.code}"
        if self.signal is not None:
            return f"signal {self.signal}"
        if self.out_of_memory:
            return "out of memory"
        return "timeout" if self.deadline else "the VM stopped"


def exit_of(message: _Exit, during: str) -> Exit:
    """From the API's form."""
    how = message.WhichOneof("how")
    if how is None:
        raise errors.ProtocolError(during, "an exit without a result")
    value: Any = getattr(message, how)
    return Exit(**{how: value})


@dataclass(frozen=True)
class Result:
    """What a command wrote, and how it ended."""

    stdout_bytes: bytes
    """File descriptor 1, or the terminal."""
    stderr_bytes: bytes
    """File descriptor 2."""
    exit: Exit | None
    """How it ended; None where that is not known, because the connection was lost."""
    session_id: str
    """The session it ran as."""
    lost_bytes: int = 0
    """Output that was no longer kept when it was to be read."""

    @property
    def stdout(self) -> str:
        """The output as text; what is no UTF-8 is replaced."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """The errors as text; what is no UTF-8 is replaced."""
        return self.stderr_bytes.decode(errors="replace")

    @property
    def exit_code(self) -> int | None:
        """The exit code; 128 and the signal's number for one that a signal ended, as shells have it."""
        if self.exit is None:
            return None
        return 128 + self.exit.signal if self.exit.signal is not None else self.exit.code

    @property
    def ok(self) -> bool:
        """Whether it ended with 0."""
        return self.exit is not None and self.exit.ok

    def check(self) -> Result:
        """Itself, if it ended with 0.

        Raises:
            NonZeroExit: If not.
        """
        if self.ok:
            return self
        last = self.stderr.strip().splitlines()[-1:]
        raise errors.NonZeroExit(f"the command ended with {self.exit}" + "".join(f": {line}" for line in last), self)


def checked(result: Result, check: bool) -> Result:
    """The result, unless it is that of a command that did not end by itself."""
    how = result.exit
    if how is None:
        raise errors.ProtocolError("Exec", "no exit")
    if how.deadline:
        raise errors.CommandTimeout("the command did not end in time and was killed", result)
    if how.out_of_memory:
        remedy = "Give the VM more memory (memory_mib)."
        raise errors.CommandOutOfMemory(
            "the guest's kernel killed the command for want of memory", result, remedy=remedy
        )
    if how.vm_gone:
        raise errors.VmGone("the VM stopped while the command ran", result)
    return result.check() if check else result
