"""Signatures of a committee as contracts take them: a bitmap of seats and 65 bytes for each, in seat order."""

from __future__ import annotations

from collections.abc import Mapping

from zhiyi.errors import BadInput, BadSignature
from zhiyi.types import Epoch, to_address


def bundle(epoch: Epoch, signatures: Mapping[str, bytes]) -> tuple[int, bytes]:
    """(bitmap, signatures joined) from signatures by signer address.

    Raises BadInput when a signer has no seat or there are fewer than the threshold, BadSignature for a wrong length.
    """
    if len(signatures) < epoch.threshold:
        raise BadInput(
            f"{len(signatures)} signatures, epoch {epoch.number} needs {epoch.threshold}: collect more"
        )
    by_seat = {epoch.seat(to_address(signer)): signature for signer, signature in signatures.items()}
    for seat, signature in by_seat.items():
        if len(signature) != 65:
            raise BadSignature(f"the signature of seat {seat} has {len(signature)} bytes, 65 are needed")
    bitmap = sum(1 << seat for seat in by_seat)
    return bitmap, b"".join(by_seat[seat] for seat in sorted(by_seat))


def seats_of(bitmap: int) -> tuple[int, ...]:
    """Seats whose bits are set, ascending."""
    return tuple(seat for seat in range(bitmap.bit_length()) if bitmap >> seat & 1)
