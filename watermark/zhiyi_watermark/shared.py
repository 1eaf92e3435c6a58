"""Integers that come of floats: one operator gives them, the others accept them only if their own say the same.

A gradient or an inverted diffusion differs in a few units of the last place from machine to machine, so the integers
of one operator are shared and T is computed of them exactly. That they are close to one's own proves nothing by
itself: who knows a key may add its signs to them, one unit everywhere. So the verdict on one's own must be the same.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from zhiyi_watermark.errors import CarrierError, UnavailableError
from zhiyi_watermark.result import Detection

AGREEMENT: Final = Fraction(99, 100)  # share of positions where two operators' integers differ by at most one
_AT_ONCE: Final = 1 << 20

Integers = npt.NDArray[np.signedinteger[Any]]


def agreement(ours: Integers, theirs: Integers) -> Fraction:
    """Share of positions where two operators' integers differ by at most one; shapes as they are.

    Raises UnavailableError when they have different shapes, or none.
    """
    if ours.shape != theirs.shape or not ours.size:
        raise UnavailableError(f"integers of shapes {ours.shape} and {theirs.shape} can't be compared")
    one, other = ours.reshape(-1), theirs.reshape(-1)
    close = 0
    for at in range(0, one.size, _AT_ONCE):
        difference = one[at : at + _AT_ONCE].astype(np.int64) - other[at : at + _AT_ONCE]
        close += int(np.count_nonzero(np.abs(difference) <= 1))
    return Fraction(close, one.size)


def accepted(shared: Detection, own: Detection, share: Fraction) -> Detection:
    """The detection on the shared integers, which every operator gets alike.

    own: on one's own integers; share: their agreement.
    Raises CarrierError when fewer than 99 % agree within one, or when one's own decide otherwise, name others or lie
    in another bucket: it must not be signed then.
    """
    if share < AGREEMENT:
        raise CarrierError(
            f"the shared q agrees with ours in {float(share):.4f} of the places, {float(AGREEMENT)} is needed"
        )
    said, ours = ((d.decision, d.license, d.payload, d.also, d.bucket) for d in (shared, own))
    if said != ours:
        raise CarrierError(f"the shared q says {said}, ours {ours}; do not sign it")
    return shared


class Shared(NamedTuple):
    """What another operator's integers say, and one's own."""

    agreement: Fraction  # share of places where both differ by at most one
    said: Detection  # on the other operator's
    own: Detection

    @property
    def same(self) -> dict[str, bool]:
        """Whether both decide alike, name the same licenses and messages and lie in one bucket."""
        named = [(one.license, one.payload, one.also) for one in (self.said, self.own)]
        return {
            "decision": self.said.decision == self.own.decision,
            "license": named[0] == named[1],
            "bucket": self.said.bucket == self.own.bucket,
        }

    def accepted(self) -> Detection:
        """The detection on the other operator's integers. Raises CarrierError where it must not be signed."""
        return accepted(self.said, self.own, self.agreement)
