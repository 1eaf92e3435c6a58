"""Integers that come of floats, from operator to operator by files: theirs beside ours, and may they be signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from zhiyi.errors import BadInput
from zhiyi.types import Bytes32, Value
from zhiyi_watermark.errors import CarrierError
from zhiyi_watermark.shared import AGREEMENT, Shared

S = TypeVar("S")


class Exchange(NamedTuple, Generic[S]):
    """How the integers for one suspect go between operators."""

    suspect: S
    out: Path | None = None  # ours are written here
    given: Path | None = None  # another operator's


class Integers(Protocol):
    """A Gradient of GSW, or the Noise of KGS."""

    def digest(self) -> bytes:
        """32 bytes."""
        ...

    def save(self, path: Path) -> None:
        """Writes them."""
        ...


class SharedTrace(Value):
    """Another operator's integers beside ours: its verdict may be signed if it is accepted."""

    digest: Bytes32  # of ours
    agreement: float | None  # share of places where both differ by at most one; None where none was given
    same_decision: bool | None
    same_license: bool | None
    same_bucket: bool | None
    accepted: bool | None
    reason: str | None  # why it is not


def exchanged(
    ours: Integers, out: Path | None, given: Path | None, compare: Callable[[Path], Shared]
) -> SharedTrace:
    """Writes ours to `out` and compares those in `given`, as far as each is named. compare: theirs beside ours.

    Raises BadInput where `out` cannot be written, and what compare raises.
    """
    if out is not None:
        try:
            ours.save(out)
        except OSError as exc:
            raise BadInput(f"{out} cannot be written: {exc.strerror}") from exc
    if given is None:
        nothing = dict.fromkeys(
            ("agreement", "same_decision", "same_license", "same_bucket", "accepted", "reason")
        )
        return SharedTrace.model_validate({"digest": ours.digest(), **nothing})
    both = compare(given)
    reason = None
    try:
        both.accepted()
    except CarrierError:
        reason = "too few of them agree" if both.agreement < AGREEMENT else "it says another thing than ours"
    return SharedTrace(
        digest=ours.digest(),
        agreement=float(both.agreement),
        same_decision=both.same["decision"],
        same_license=both.same["license"],
        same_bucket=both.same["bucket"],
        accepted=reason is None,
        reason=reason,
    )
