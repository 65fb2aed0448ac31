"""What the daemon writes for its callers: bundles and layouts, verified as they come."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from banger import errors, v1
from banger._async import _io


async def save(
    stream: _io.Stream[Any], during: str, path: str | os.PathLike[str], on_progress: Callable[[int], object] | None
) -> v1.ExportEnd:
    """Writes an export to a file, which appears under its name when it is whole and its digest is right."""
    target = Path(path)
    file: Any = None
    digest = hashlib.sha256()
    came = 0
    try:
        while (message := await stream.read()) is not None:
            which = message.WhichOneof("message")
            if which == "chunk":
                if file is None:
                    file = await _io.blocking(_open, target)
                digest.update(message.chunk)
                came += len(message.chunk)
                await _io.blocking(file.write, message.chunk)
                if on_progress is not None:
                    on_progress(came)
            elif which == "end":
                end: v1.ExportEnd = message.end
                if (end.size_bytes, end.sha256) != (came, digest.hexdigest()):
                    raise errors.ProtocolError(during, "an export of another length or digest")
                if file is None:
                    file = await _io.blocking(_open, target)
                await _io.blocking(_publish, file, target)
                file = None
                return end
        raise errors.ConnectionLost(during)
    finally:
        stream.cancel()
        if file is not None:
            file.close()
            with contextlib.suppress(OSError):
                os.unlink(file.name)


def _open(target: Path) -> Any:
    try:
        return tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False)
    except OSError as error:
        raise errors.LocalFileError(str(target), "write", error) from error


def _publish(file: Any, target: Path) -> None:
    try:
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.chmod(file.name, 0o644)
        os.replace(file.name, target)
    except OSError as error:
        raise errors.LocalFileError(str(target), "write", error) from error
