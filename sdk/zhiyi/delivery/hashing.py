"""The hashes of a delivery: leaves, nodes, roots and the keystream, byte for byte as `FairDelivery.sol` has them.

H is SHA-256. Integers are big-endian u32.

    plainLeaf_i    = H(0x00 | i | len | bytes)
    deliveryLeaf_i = H(0x02 | i | len | plainLeaf_i | cipher bytes)
    node           = H(0x01 | left | right)
    missing leaf   = H(0x03), never a copy of another leaf

The keystream of suite 1 is ChaCha20 (RFC 8439 block function) with nonce 0; chunk i starts at byte i * chunk
size of the stream, and the block number is 64 bits wide: its low half is the RFC's counter, its high half the
first nonce word.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms

from zhiyi.delivery import native

SUITE_CHACHA20: Final = 1
HASH_BYTES: Final = 32
KEY_BYTES: Final = 32
BLOCK_BYTES: Final = 64  # of the keystream
COUNTER_BYTES: Final = BLOCK_BYTES << 32

_PLAIN: Final = 0
_NODE: Final = b"\x01"
_DELIVERY: Final = 2
MISSING: Final = sha256(b"\x03").digest()

_HEAD: Final = Struct(">BII")

Buffer = bytes | bytearray | memoryview


def plain_leaves(first: int, data: Buffer, chunk_size: int) -> bytes:
    """Plain leaves of consecutive chunks.

    `first` is the index of the first chunk; `data` holds whole chunks but for the last, which may be short.
    Returns 32 bytes a chunk.
    """
    if native.LIBRARY is not None:
        return native.LIBRARY.leaves(_PLAIN, first, data, chunk_size, None)
    view, head = memoryview(data), _HEAD.pack
    size = len(view)
    return b"".join(
        [
            sha256(head(_PLAIN, i, min(chunk_size, size - at)) + view[at : at + chunk_size]).digest()
            for i, at in enumerate(range(0, size, chunk_size), first)
        ]
    )


def delivery_leaves(first: int, cipher: Buffer, chunk_size: int, plain: Buffer) -> bytes:
    """Delivery leaves of consecutive chunks; `plain` holds their plain leaves, 32 bytes each."""
    if native.LIBRARY is not None:
        return native.LIBRARY.leaves(_DELIVERY, first, cipher, chunk_size, plain)
    view, bound, head = memoryview(cipher), memoryview(plain), _HEAD.pack
    size = len(view)
    return b"".join(
        [
            sha256(
                b"".join(
                    (
                        head(_DELIVERY, first + k, min(chunk_size, size - at)),
                        bound[k * HASH_BYTES : (k + 1) * HASH_BYTES],
                        view[at : at + chunk_size],
                    )
                )
            ).digest()
            for k, at in enumerate(range(0, size, chunk_size))
        ]
    )


def node(left: bytes, right: bytes) -> bytes:
    """The parent of two nodes."""
    return sha256(_NODE + left + right).digest()


def parents(level: Buffer) -> bytes:
    """The level above; `level` holds an even number of 32-byte nodes."""
    if native.LIBRARY is not None:
        return native.LIBRARY.parents(level)
    view = memoryview(level)
    pair = 2 * HASH_BYTES
    return b"".join([sha256(_NODE + view[at : at + pair]).digest() for at in range(0, len(view), pair)])


class Keystream:
    """XOR with the keystream of one key; going on where the last call ended costs least."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._next = -1  # byte that the encryptor stands at
        self._encryptor: CipherContext | None = None

    def xor(self, position: int, data: Buffer, out: bytearray | memoryview) -> None:
        """XOR `data` with the keystream from byte `position` into `out`, which is at least as long.

        `position` is a multiple of 64, or where the last call ended.
        """
        source, target = memoryview(data), memoryview(out)
        while source:
            # the library counts 32 bits of blocks and refuses to go on: 256 GiB
            size = min(len(source), COUNTER_BYTES - position % COUNTER_BYTES)
            if self._encryptor is None or position != self._next or position % COUNTER_BYTES == 0:
                block = (position // BLOCK_BYTES).to_bytes(8, "little")
                self._encryptor = Cipher(algorithms.ChaCha20(self._key, block + bytes(8)), None).encryptor()
            self._encryptor.update_into(source[:size], target)
            self._next = position = position + size
            source, target = source[size:], target[size:]


def keystream_xor(key: bytes, position: int, data: Buffer, out: bytearray | memoryview) -> None:
    """XOR `data` with the keystream from byte `position` (a multiple of 64) into `out`, at least as long."""
    Keystream(key).xor(position, data, out)
