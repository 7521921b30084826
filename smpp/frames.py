"""Frames of the SMPP stream: each is one PDU, its command_length included (3.4, 3.2)."""

import struct
from collections.abc import Iterator
from typing import Final

HEADER_LENGTH: Final = 16
# message_payload carries up to 64 KiB (3.4, 5.3.2.32); the rest is room for fields and TLVs.
MAX_FRAME_LENGTH: Final = 0x11000

_COMMAND_LENGTH: Final = struct.Struct(">I")


class MalformedStream(Exception):
    """A command_length that cannot be: where the next PDU begins is not known any more."""


class FrameReader:
    """Cuts a byte stream into frames, however the bytes are chopped on their way."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._needed = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that `data` completes.

        Raises:
            MalformedStream: after the frames before it, at a command_length under 16 or over
                `MAX_FRAME_LENGTH`; nothing behind it can be read.
        """
        if self._partial:
            self._partial += data
            # Collected until the frame is whole, so that a trickle of octets costs no copies.
            if len(self._partial) < self._needed:
                return
            data = bytes(self._partial)
            self._partial.clear()
        position = 0
        size = len(data)
        self._needed = _COMMAND_LENGTH.size
        while size - position >= _COMMAND_LENGTH.size:
            (length,) = _COMMAND_LENGTH.unpack_from(data, position)
            if not HEADER_LENGTH <= length <= MAX_FRAME_LENGTH:
                raise MalformedStream(f"a command_length of {length} cannot be")
            if size - position < length:
                self._needed = length
                break
            yield data[position : position + length]
            position += length
        if position < size:
            self._partial += data[position:]
