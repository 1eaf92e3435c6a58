"""Messages that a mark carries, authenticated and coded.

Long, 64 bits: version 4 | fingerprint number of the license, of this model, 28 | API user 16 | MAC 16, in
BCH(127,64). Short, 32 bits: API user 16 | MAC 16, in BCH(63,36); the code's four spare data bits carry four
more MAC bits, so that a wrongly decoded word passes with probability 2^-20. The MAC is truncated HMAC-SHA256;
the coded data bits are XORed with a PRF mask and the coded bits are permuted, both by the model's key.

Where the words of several objects can be multiplied sign by sign, as in pictures whose chips are the same, a mask is
not enough: the code is linear, so the product of three words is the word of a fourth message, with the three MACs
XORed. Such marks are `mixable`: instead of the mask a keyed permutation of all the message's bits (Luby and Rackoff
1988, four Feistel rounds of HMAC) makes every word that nobody wrote open to fair bits. Then N messages that could be
named are hit with a chance of N / 2^64 a word, whatever was mixed, and p_global pays that.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from zhiyi_watermark import prf, stats
from zhiyi_watermark.bch import BCH_63, BCH_127, Bch, Bits
from zhiyi_watermark.errors import SpecError

VERSION: Final = 1
MAC_BITS: Final = 16
SPARE_BITS: Final = 4  # of BCH(63,36) beyond 32
_ROUNDS: Final = 4  # of the permutation
MAX_USER: Final = (1 << 16) - 1
MAX_FINGERPRINT: Final = (1 << 28) - 1


class Long(NamedTuple):
    """The 64-bit message."""

    fingerprint: int
    user: int


class Short(NamedTuple):
    """The 32-bit message."""

    user: int


@dataclass(frozen=True)
class PayloadCode:
    """Messages to coded bits and back, under one model key. mixable: see above."""

    key: bytes
    long: bool
    mixable: bool = False

    @property
    def code(self) -> Bch:
        """The error-correcting code in use."""
        return BCH_127 if self.long else BCH_63

    @property
    def bits(self) -> int:
        """Coded bits, 127 or 63."""
        return self.code.n

    @property
    def check_bits(self) -> int:
        """Of the MAC."""
        return MAC_BITS if self.long else MAC_BITS + SPARE_BITS

    def _subkey(self, purpose: str) -> bytes:
        return prf.derive_key(self.key, purpose, b"long" if self.long else b"short")

    def _close(self, value: int) -> Bits:
        """A message as the data bits that are coded.  # (k,)"""
        k = self.code.k
        if self.mixable:
            high, low = divmod(value, 1 << k // 2)
            for turn in range(_ROUNDS):
                high, low = low, high ^ self._round(turn, low)
            value = high << k // 2 | low
        data = np.array([value >> i & 1 for i in reversed(range(k))], dtype=np.uint8)
        return data if self.mixable else data ^ self._mask()

    def _value(self, word: Bits) -> int:
        """What _close made the data bits of a word from."""
        k = self.code.k
        data = word[:k] if self.mixable else word[:k] ^ self._mask()
        value = int("".join(map(str, data.tolist())), 2)
        if self.mixable:
            high, low = divmod(value, 1 << k // 2)
            for turn in reversed(range(_ROUNDS)):
                high, low = low ^ self._round(turn, high), high
            value = high << k // 2 | low
        return value

    @cached_property
    def _round_key(self) -> bytes:
        return self._subkey("payload round")

    @cached_property
    def _mac_key(self) -> bytes:
        return self._subkey("payload mac")

    def _round(self, turn: int, half: int) -> int:
        wide = self.code.k // 2
        return prf.mac(self._round_key, bytes([turn]) + half.to_bytes(-(-wide // 8), "big"), wide)

    def _mask(self) -> Bits:
        packed = prf.keystream(self._subkey("payload mask"), (self.code.k + 7) // 8)
        return np.unpackbits(packed)[: self.code.k]

    def _order(self) -> npt.NDArray[np.int64]:
        return prf.permutation(self._subkey("payload interleave"), self.bits)

    def message(self, payload: Long | Short) -> bytes:
        """The message with its MAC: 8 or 4 bytes. Raises SpecError on a value out of range."""
        value, width = self._data(payload)
        spare = 0 if self.long else SPARE_BITS
        return (value >> spare).to_bytes((width - spare) // 8, "big")

    def _data(self, payload: Long | Short) -> tuple[int, int]:
        if not isinstance(payload, Long if self.long else Short):
            raise SpecError(f"{payload!r:.80} does not fit a {'long' if self.long else 'short'} payload code")
        if not all(isinstance(number, int) for number in payload):
            raise SpecError(f"the numbers of a message are whole numbers, given {payload!r:.80}")
        if not 0 <= payload.user <= MAX_USER:
            raise SpecError(f"user number {payload.user} is outside 0 .. {MAX_USER}")
        if isinstance(payload, Long):
            if not 0 <= payload.fingerprint <= MAX_FINGERPRINT:
                raise SpecError(f"fingerprint {payload.fingerprint} is outside 0 .. {MAX_FINGERPRINT}")
            head = (VERSION << 44) | (payload.fingerprint << 16) | payload.user
            return (head << MAC_BITS) | self._mac(head, 6, MAC_BITS), 64
        width = self.check_bits
        return (payload.user << width) | self._mac(payload.user, 2, width), 36

    def _mac(self, head: int, size: int, bits: int) -> int:
        return prf.mac(self._mac_key, head.to_bytes(size, "big"), bits)

    def encode(self, payload: Long | Short) -> Bits:
        """Coded bits 0/1, masked or permuted, and interleaved.  # (bits,)"""
        return self.code.encode(self._close(self._data(payload)[0]))[self._order()]

    def signs(self, payload: Long | Short) -> npt.NDArray[np.int8]:
        """The coded bits as ±1.  # (bits,)"""
        return 2 * self.encode(payload).astype(np.int8) - np.int8(1)

    def listed(self, known: Nameable) -> tuple[list[Long] | list[Short], npt.NDArray[np.int8]]:
        """Every message that may be named, by number, and their coded bits as ±1.  # (known.count, bits)

        About 25 microseconds a message.
        """
        pairs = [(f, u) for f in sorted(known.fingerprints) for u in sorted(known.users)]
        messages = [Long(f, u) for f, u in pairs] if self.long else [Short(u) for _, u in pairs]
        data = np.stack([self._close(self._data(message)[0]) for message in messages])
        words = (data.astype(np.float32) @ self.code.rows.astype(np.float32)).astype(np.uint8) & 1
        return messages, (words[:, self._order()].view(np.int8) << 1) - np.int8(1)

    def independent(self, scores: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The places of as many coded bits as the message has, of the largest |score| whose bits are independent.

        The bits of a message that nobody wrote, opened by the keyed permutation of a mixable code, are fair and
        independent there, also where those of all places are not.  # (bits,) -> (k,), ascending
        """
        order = self._order()
        plain = np.empty(self.bits, dtype=np.int64)
        plain[order] = scores
        chosen = self.code.most_reliable(plain)
        back = np.empty(self.bits, dtype=np.int64)
        back[order] = np.arange(self.bits)
        return np.sort(back[chosen])

    def wrong_message(self, known: Nameable) -> Fraction:
        """Chance that one word which nobody wrote, whatever words it is mixed of, opens to a message that may be named.

        Raises SpecError where the code is not mixable.
        """
        if not self.mixable:
            raise SpecError("only of a mixable code every other word opens to fair bits")
        return Fraction(known.count, 1 << self.code.k)

    def wrong_word(self, scores: npt.NDArray[np.int64], word: npt.NDArray[np.int8]) -> Fraction:
        """Chance of a name that nobody wrote when these scores are decoded once to this word or a nearer one.

        word: ±1. See stats.wrong_word.  # (bits,) both
        """
        return stats.wrong_word(
            stats.BitSums(scores), word, data_bits=self.code.k, check_bits=self.check_bits
        )

    def decode(self, word: Bits) -> Long | Short | None:
        """The message of a hard word within the code's radius and with a right MAC, else None.  # (bits,)"""
        plain = np.empty_like(word)
        plain[self._order()] = word
        fixed = self.code.decode(plain)
        return None if fixed is None else self._open(fixed)

    def decode_soft(self, scores: npt.NDArray[np.int64]) -> Long | Short | None:
        """The message of the likeliest codeword if its MAC is right; score > 0 speaks for a 1.  # (bits,)

        One codeword is tried, so another message than the true one passes with 2^-16 (long) or 2^-20 (short).
        """
        plain = np.empty(self.bits, dtype=np.int64)
        plain[self._order()] = scores
        return self._open(self.code.decode_soft(plain))

    def nearest(self, scores: npt.NDArray[np.int64]) -> Bits:
        """The likeliest codeword, masked and interleaved as encode gives it.  # (bits,) -> (bits,)"""
        order = self._order()
        plain = np.empty(self.bits, dtype=np.int64)
        plain[order] = scores
        return self.code.decode_soft(plain)[order]

    def data_bits(self, scores: npt.NDArray[np.int64]) -> Bits:
        """The message bits of the likeliest codeword, right MAC or not: for counting wrong bits.  # (bits,) -> (k,)"""
        plain = np.empty(self.bits, dtype=np.int64)
        plain[self._order()] = scores
        value = self._value(self.code.decode_soft(plain))
        return np.array([value >> i & 1 for i in reversed(range(self.code.k))], dtype=np.uint8)

    def _open(self, word: Bits) -> Long | Short | None:
        value = self._value(word)
        if self.long:
            head = value >> MAC_BITS
            found: Long | Short = Long((head >> 16) & MAX_FINGERPRINT, head & MAX_USER)
            if head >> 44 != VERSION:
                return None
        else:
            found = Short(value >> (MAC_BITS + SPARE_BITS))
        return found if self._data(found)[0] == value else None


def user_of(payload: bytes) -> int:
    """The API user number in a decoded message of Detection.payload (4 or 8 bytes)."""
    if len(payload) not in (4, 8):
        raise SpecError(f"a message has 4 or 8 bytes, given {len(payload)}")
    return int.from_bytes(payload[-4:-2], "big")


def fingerprint_of(payload: bytes) -> int:
    """The fingerprint number of the license, of this model, in a decoded long message (8 bytes)."""
    if len(payload) != 8:
        raise SpecError(f"only a long message, of 8 bytes, has a fingerprint number; given {len(payload)}")
    return int.from_bytes(payload[:6], "big") >> 16 & MAX_FINGERPRINT


@dataclass(frozen=True)
class Nameable:
    """The messages that a detector may name: every pair of these numbers. All of them count in p_global."""

    users: range | frozenset[int]
    fingerprints: range | frozenset[int]

    @classmethod
    def of(
        cls,
        users: int | Collection[int],
        fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
        *,
        long: bool = True,
    ) -> Nameable:
        """users: the registered user numbers, or how many (then 0 .. users-1); fingerprints: the same for the license's
        number, of which a short message has none.

        Raises SpecError when there are none, or they are out of range or no whole numbers.
        """
        licenses = _registered("fingerprint", fingerprints, MAX_FINGERPRINT) if long else range(1)
        return cls(_registered("user", users, MAX_USER), licenses)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.users) * len(self.fingerprints)

    def __contains__(self, message: Long | Short | None) -> bool:
        """Whether a decoded message is one of them."""
        if message is None or message.user not in self.users:
            return False
        return not isinstance(message, Long) or message.fingerprint in self.fingerprints


def _registered(name: str, given: int | Collection[int], most: int) -> range | frozenset[int]:
    """A range stays one, however long. name: of the number, for the error."""
    known: range | frozenset[int]
    try:
        if isinstance(given, range):
            known = given
        elif isinstance(given, int):
            known = range(given)
        else:
            known = frozenset(map(operator.index, given))
    except TypeError as error:
        raise SpecError(f"{name} numbers are whole numbers, or how many there are: {error}") from error
    ends = (known[0], known[-1]) if isinstance(known, range) and known else known
    if not known or min(ends) < 0 or max(ends) > most:
        raise SpecError(f"{name} numbers must lie in 0 .. {most} and at least one must be registered")
    return known
