"""All secret randomness of the marks: BLAKE2b for keys, ChaCha20 (RFC 8439) for streams, HMAC-SHA256 for
MACs.

Every draw is a function of a 32-byte key alone, the same on every machine.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from zhiyi_watermark.errors import SpecError

KEY_BYTES: Final = 32
_PERSON: Final = b"zhiyi-mark-v1"  # BLAKE2b personalisation: separates these keys from every other use
_ZERO_NONCE: Final = bytes(16)  # a key is used for one stream only, so the nonce carries nothing
_MAX_STREAM: Final = 1 << 36  # bytes; ChaCha20's 32-bit block counter ends at 2^38

Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]


def check_key(key: bytes) -> bytes:
    """The key itself. Raises SpecError unless it is 32 bytes."""
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        given = len(key) if isinstance(key, bytes) else type(key).__name__
        raise SpecError(f"a key is {KEY_BYTES} bytes, given {given}; draw it with secrets.token_bytes(32)")
    return key


def derive_key(key: bytes, purpose: str, *context: bytes | int) -> bytes:
    """A 32-byte key for one purpose and context, independent of those for any other.

    Context items are length-prefixed; ints are 32-byte big-endian, 0 <= x < 2^256.
    """
    state = hashlib.blake2b(key=check_key(key), digest_size=KEY_BYTES, person=_PERSON)
    for item in (purpose.encode(), *context):
        if isinstance(item, int):
            if not 0 <= item < 1 << 256:
                raise SpecError(f"context integer {item} is outside 0 .. 2^256-1")
            item = item.to_bytes(32, "big")
        state.update(len(item).to_bytes(8, "big"))
        state.update(item)
    return state.digest()


def mac(key: bytes, message: bytes, bits: int) -> int:
    """The first `bits` (1..256) of HMAC-SHA256(key, message), as an integer."""
    if not 1 <= bits <= 256:
        raise SpecError(f"a MAC has 1 to 256 bits, asked for {bits}")
    return int.from_bytes(hmac.digest(check_key(key), message, "sha256"), "big") >> (256 - bits)


def keystream(key: bytes, count: int) -> UInt8:
    """The first `count` bytes of the key's ChaCha20 stream.  # (count,)"""
    if not 0 <= count <= _MAX_STREAM:
        raise SpecError(f"a stream has 0 .. {_MAX_STREAM} bytes, asked for {count}")
    encryptor = Cipher(ChaCha20(check_key(key), _ZERO_NONCE), mode=None).encryptor()
    return np.frombuffer(encryptor.update(bytes(count)), dtype=np.uint8)


def signs(key: bytes, count: int) -> Int8:
    """`count` fair signs -1 / +1.  # (count,)"""
    bits = np.unpackbits(keystream(key, -(-count // 8)), count=count)
    return (bits.view(np.int8) << 1) - np.int8(1)


def integers(key: bytes, count: int, bound: int) -> Int64:
    """`count` exactly uniform integers in 0 .. bound-1, by rejection; 1 <= bound <= 2^32.  # (count,)"""
    if not 1 <= bound <= 1 << 32:
        raise SpecError(f"the bound must be 1 .. 2^32, given {bound}")
    limit = (1 << 32) // bound * bound  # values from here on would favour small results
    drawn = count
    while True:
        words = keystream(key, 4 * drawn).view("<u4").astype(np.int64)
        kept = words[words < limit]
        if len(kept) >= count:
            return kept[:count] % bound
        drawn += drawn // 2 + 64  # the stream is a prefix of the longer one, so earlier draws stay


def permutation(key: bytes, count: int) -> Int64:
    """A keyed permutation of 0 .. count-1: the order of 64-bit stream words, ties by index.  # (count,)"""
    words = keystream(key, 8 * count).view("<u8")
    return np.argsort(words, kind="stable").astype(np.int64)
