"""Which daemon to talk to: what people write into `BANGER_HOST`, and the usual places."""

from __future__ import annotations

import os
from pathlib import Path

from banger.errors import HostError

_SYSTEM_SOCKET = "/run/banger/bangerd.sock"
_USER_SOCKET = "banger/bangerd.sock"
# The longest path of a unix socket that Linux takes (unix(7)), without its end byte.
_PATH_MAX = 107
_REMEDY = (
    "Give unix:///path/to/bangerd.sock, or the path alone. For another machine, forward its socket: "
    "ssh -L /tmp/banger.sock:/run/banger/bangerd.sock HOST"
)


def socket_path(host: str | None) -> Path:
    """The socket that `host` names, else `BANGER_HOST`, else this machine's.

    Raises:
        HostError: If it is no usable address.
    """
    host = host or os.environ.get("BANGER_HOST") or None
    return _local() if host is None else _parse(host)


def _parse(host: str) -> Path:
    scheme, separator, path = host.partition("://")
    if separator and scheme != "unix":
        raise HostError(
            f"`{host}` is a network address, and this version reaches daemons by unix socket alone", remedy=_REMEDY
        )
    if not separator:
        path = host.removeprefix("unix:")
    if not path:
        raise HostError(f"`{host}` is not the address of a daemon", remedy=_REMEDY)
    if "/" not in path and ":" in path:
        raise HostError(
            f"`{host}` is a network address, and this version reaches daemons by unix socket alone", remedy=_REMEDY
        )
    if len(os.fsencode(path)) > _PATH_MAX:
        raise HostError(
            f"the socket path `{path}` has more than {_PATH_MAX} bytes",
            remedy="Give the socket a shorter path, or reach it by a symbolic link.",
        )
    return Path(path).absolute()


def _local() -> Path:
    candidates = [Path(_SYSTEM_SOCKET)]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.geteuid() != 0:
        candidates.insert(0, Path(runtime) / _USER_SOCKET)
    return next((path for path in candidates if path.exists()), candidates[0])
