"""What the blocking and the asyncio transport share: options, and the first look at the socket."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import grpc

from banger import _tls
from banger._host import Address
from banger.errors import ConnectError, ForkedError

# The longest message: pages of a thousand images are long.
_RECEIVE_MAX_BYTES = 64 << 20
_KEEPALIVE_MS = 10_000
RENEW_SECONDS = 3.0
"""How old a connection is at least that is made anew."""

CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    # A path is no name of a host.
    ("grpc.default_authority", "bangerd"),
    ("grpc.max_receive_message_length", _RECEIVE_MAX_BYTES),
    # A daemon that is stopped or stuck is noticed in calls that have no heartbeat.
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
    ("grpc.http2.max_pings_without_data", 0),
    # The clients' own tries decide how long a lost connection is tried again.
    ("grpc.initial_reconnect_backoff_ms", 50),
    # Also how long an attempt may take, with its handshake: a busy machine needs seconds.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),
    # Clients do not share connections: closing one leaves the others as they are.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True)
class Limits:
    """The time limits of a client, in seconds."""

    connect: float = 5.0
    """How long a connection may take to be made."""
    silence: float = 10.0
    """How long a stream may say nothing before it counts as dead: the daemon speaks at least every 2 s."""
    reconnect: float = 30.0
    """How long a lost connection is tried again before the caller learns of it; 0 means not at all."""


def open_channel(address: Address, secure: Callable[..., Any], insecure: Callable[..., Any]) -> Any:
    """The channel to a daemon, by one of these two functions of gRPC's."""
    if address.socket is not None:
        return insecure("unix:" + quote(str(address.socket)), options=CHANNEL_OPTIONS)
    assert address.credentials is not None
    shown = _tls.channel_credentials(address.credentials)
    options = [option for option in CHANNEL_OPTIONS if option[0] != "grpc.default_authority"]
    return secure("dns:///" + address.authority, shown, options=options)


def stamp(address: Address) -> tuple[object, ...] | None:
    """Differs when a file of the credentials was replaced; None where there are none, or they cannot be looked at."""
    shown = address.credentials
    if shown is None:
        return None
    try:
        looks = [path.stat() for path in (shown.ca, shown.key, shown.cert)]
    except OSError:
        return None
    return tuple((look.st_dev, look.st_ino, look.st_mtime_ns) for look in looks)


def check_health(channel: Any) -> Any:
    """The call by which a connection is tried: any answer to it, also that there is no such call, is the daemon's. It
    takes a round trip, where gRPC's own waiting for a connection looks every 0.2 s.
    """
    return channel.unary_unary("/grpc.health.v1.Health/Check", _same, _same)


def _same(message: bytes) -> bytes:
    return message


def is_answer(error: Any) -> bool:
    """Whether a call that failed was answered."""
    return error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


def look_at(address: Address, timeout: float) -> None:
    """Connects once and hangs up, to say exactly what is wrong where that fails.

    Raises:
        ConnectError: If nobody answers there.
    """
    if address.socket is None:
        _tls.look_at(address, timeout)
        return
    path = address.socket
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(timeout)
        try:
            probe.connect(str(path))
        except OSError as error:
            raise connect_error(address, error) from error


def connect_error(address: Address, error: OSError | None) -> ConnectError:
    """Why the daemon was not reached."""
    path = address.socket
    if path is None:
        return _tls.unreachable(address, error)
    number = error.errno if error is not None else None
    if number in (errno.EACCES, errno.EPERM):
        remedy = "Use an account that may write to the socket (group `banger`), or start a bangerd of your own."
    elif number == errno.ECONNREFUSED:
        remedy = "bangerd has ended and left its socket behind: start it again."
    else:
        remedy = "Start bangerd, or name the socket of a running one with `host` or BANGER_HOST."
    why = f": {error.strerror or error}" if error is not None else " in time"
    made = ConnectError(f"could not connect to bangerd at `{path}`{why}", remedy=remedy)
    made.metadata = {"path": str(path)}
    return made


class Owner:
    """The process that made a client; no other can use it."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def check(self) -> None:
        """Refuses a process that was forked from it."""
        if os.getpid() != self._pid:
            raise ForkedError(
                "this client was made by the process that this one was forked from",
                remedy="Call connect() in this process, or start processes by `spawn` instead of `fork`.",
            )
