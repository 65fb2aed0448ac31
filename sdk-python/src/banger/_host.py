"""Which daemon to talk to: what people write into `BANGER_HOST`, the usual places, and what is shown to other hosts."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from banger.errors import HostError

_SYSTEM_SOCKET = "/run/banger/bangerd.sock"
_USER_SOCKET = "banger/bangerd.sock"
# The longest path of a unix socket that Linux takes (unix(7)), without its end byte.
_PATH_MAX = 107
_DEFAULT_PORT = 7443
_REMEDY = (
    "Give unix:///path/to/bangerd.sock, or the path alone; for another host, https://HOST:PORT with a client "
    "certificate."
)
_CREDENTIALS_REMEDY = (
    "Give cert, key and ca (BANGER_CERT, BANGER_KEY, BANGER_CA), or as cert alone the directory that "
    "`banger cert issue` made."
)

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Credentials:
    """What is shown to a daemon, and whom is believed: PEM files."""

    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True)
class Address:
    """A daemon's place: a unix socket, or another host and what is shown to it."""

    socket: Path | None = None
    host: str = ""
    port: int = 0
    credentials: Credentials | None = None

    def __str__(self) -> str:
        if self.socket is not None:
            return str(self.socket)
        return f"https://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and port as URLs have them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(
    host: str | None,
    cert: PathLike | None = None,
    key: PathLike | None = None,
    ca: PathLike | None = None,
) -> Address:
    """The daemon that `host` names, else `BANGER_HOST`, else this machine's.

    Raises:
        HostError: If it is no usable address, or another host's and nothing is there to show to it.
    """
    host = host or os.environ.get("BANGER_HOST") or None
    if host is None:
        return Address(socket=_local())
    if not host.startswith("https://"):
        return Address(socket=_socket(host))
    name, port = _network(host)
    return Address(host=name, port=port, credentials=_credentials(host, cert, key, ca))


def _network(host: str) -> tuple[str, int]:
    refused = HostError(f"`{host}` is not how a daemon on another host is written", remedy=_REMEDY)
    try:
        parts = urlsplit(host)
        name, port = parts.hostname, parts.port
    except ValueError as error:
        raise refused from error
    if not name or port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise refused
    if ":" in name:
        try:
            ipaddress.IPv6Address(name)
        except ValueError as error:
            raise refused from error
    elif not all(c.isascii() and (c.isalnum() or c in "-._") for c in name):
        raise refused
    return name, port or _DEFAULT_PORT


def _credentials(host: str, cert: PathLike | None, key: PathLike | None, ca: PathLike | None) -> Credentials:
    given = [
        Path(value) if value else None
        for value in (
            cert or os.environ.get("BANGER_CERT"),
            key or os.environ.get("BANGER_KEY"),
            ca or os.environ.get("BANGER_CA"),
        )
    ]
    if given[0] is not None and given[0].is_dir():
        bundle = given[0]
        given = [bundle / "client.crt", given[1] or bundle / "client.key", given[2] or bundle / "ca.crt"]
    if given == [None, None, None]:
        raise HostError(
            f"{host} is to be reached by TLS, and no certificate is given to show to it", remedy=_CREDENTIALS_REMEDY
        )
    for path, name in zip(given, ("certificate (cert)", "key (key)", "authority (ca)"), strict=True):
        if path is None:
            raise HostError(f"the client's {name} is missing", remedy=_CREDENTIALS_REMEDY)
    return Credentials(*(path.absolute() for path in given if path is not None))


def _socket(host: str) -> Path:
    scheme, separator, path = host.partition("://")
    if separator and scheme != "unix":
        raise HostError(f"`{host}` is not how a daemon on another host is written", remedy=_REMEDY)
    if not separator:
        path = host.removeprefix("unix:")
    if not path:
        raise HostError(f"`{host}` is not the address of a daemon", remedy=_REMEDY)
    if "/" not in path and ":" in path:
        raise HostError(f"`{host}` is not how a daemon on another host is written", remedy=_REMEDY)
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
