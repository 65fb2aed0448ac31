"""One call of the API: its path and its messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

Req = TypeVar("Req", bound=Message)
Res = TypeVar("Res", bound=Message)


@dataclass(frozen=True)
class Method(Generic[Req, Res]):
    """A call of the API."""

    path: str
    """As gRPC has it: `/package.Service/Call`."""
    request: type[Req]
    response: type[Res]
    client_streams: bool
    server_streams: bool

    @property
    def name(self) -> str:
        """The call's own name."""
        return self.path.rsplit("/", 1)[1]
