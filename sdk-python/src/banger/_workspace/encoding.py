"""Contents in fewer bytes, for the way over a network, as in `workspace/src/wire/encoding.rs`.

Who judges a snapshot sees the bytes as they are: pieces are decoded before, and a `Judge` refuses those that still are
encoded.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from banger._workspace.judge import Fault
from banger._workspace.limits import DATA_MAX_BYTES
from banger.workspace import v1 as wire

ENCODINGS = (wire.Content.ENCODING_ZLIB,)
"""How contents may be told to this side, beside as they are."""
# What is shorter is told as it is.
_WORTH_BYTES = 256


class Encoder:
    """Encodes contents as they go by, where that makes them smaller."""

    def __init__(self, accepted: Iterable[int] = ()) -> None:
        """For a receiver that takes these encodings."""
        self._encodes = wire.Content.ENCODING_ZLIB in accepted
        # The file of which a piece was not made smaller: the rest of it is not tried.
        self._dense: int | None = None

    def encode(self, part: wire.Part) -> None:
        """Encodes a part."""
        if not self._encodes or part.WhichOneof("part") != "content":
            return
        content = part.content
        if len(content.data) < _WORTH_BYTES or content.entry == self._dense:
            return
        encoded = zlib.compress(content.data, zlib.Z_BEST_SPEED)
        if len(encoded) < len(content.data):
            content.data = encoded
            content.encoding = wire.Content.ENCODING_ZLIB
        else:
            self._dense = content.entry


def decode(part: wire.Part) -> None:
    """Decodes a part; one that is not encoded stays as it is.

    Raises:
        Fault: If it is not what its encoding says, or more than a piece may have. No more than that is ever in memory.
    """
    if part.WhichOneof("part") != "content" or not part.content.encoding:
        return
    content = part.content
    if content.encoding != wire.Content.ENCODING_ZLIB:
        raise Fault("content has an encoding that is not known")
    content.data = _inflated(content.data)
    content.encoding = wire.Content.ENCODING_UNSPECIFIED


def _inflated(data: bytes) -> bytes:
    too_much = Fault(f"there are more than {DATA_MAX_BYTES} bytes in a piece")
    if len(data) > DATA_MAX_BYTES:
        raise too_much
    stream = zlib.decompressobj()
    try:
        # One more than there may be, so that the end is seen of what is as long as it may be.
        plain = stream.decompress(data, DATA_MAX_BYTES + 1)
    except zlib.error as error:
        raise Fault("an encoded piece is damaged") from error
    if len(plain) > DATA_MAX_BYTES:
        raise too_much
    if not stream.eof:
        raise Fault("an encoded piece was cut")
    if stream.unused_data:
        raise Fault("something follows an encoded piece")
    return plain
