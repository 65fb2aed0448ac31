"""What a new VM is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from banger import v1

Network = Literal["default", "none", "user"]
NETWORKS = {
    "default": v1.VmSpec.NETWORK_MODE_UNSPECIFIED,
    "none": v1.VmSpec.NETWORK_MODE_NONE,
    "user": v1.VmSpec.NETWORK_MODE_USER,
}


@dataclass(frozen=True)
class Mount:
    """A volume in a VM."""

    volume: str
    """Its id or name."""
    read_only: bool = False


@dataclass(frozen=True)
class VmFile:
    """A file that a new VM is given."""

    content: bytes
    mode: int = 0o644
    """Permission bits."""
    owner: str = ""
    """`user`, `uid`, `user:group` or `uid:gid` of the image; empty means root."""

    @classmethod
    def of(cls, file: bytes | str | VmFile) -> VmFile:
        """From what callers give."""
        if isinstance(file, VmFile):
            return file
        return cls(file.encode() if isinstance(file, str) else file)

    def message(self, path: str) -> v1.VmFile:
        """As the API has it."""
        return v1.VmFile(path=path, content=self.content, mode=self.mode, owner=self.owner)
