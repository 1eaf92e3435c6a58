"""Which API user, and whose license, a finished picture was marked for. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from zhiyi.errors import BadInput
from zhiyi.types import U32, Value
from zhiyi_oracle.tracer.candidate import Candidate, candidates
from zhiyi_watermark.detect import PictureSuspect, detect
from zhiyi_watermark.errors import CarrierError, UnavailableError
from zhiyi_watermark.image_finished import Dss
from zhiyi_watermark.payload import MAX_FINGERPRINT, fingerprint_of, user_of
from zhiyi_watermark.result import Detection


class PictureTrace(Value):
    """The numbers in a picture's payload."""

    found: bool
    decision: str
    bucket: int  # -log10 p_global rounded down to 0, 12, 20 or 40
    method: str | None  # the mark that was found
    user_number: U32 | None
    fingerprint: U32 | None  # number of the license, among those of its model
    payload: str | None  # hex
    candidates: tuple[Candidate, ...]
    users_tried: int
    licenses_tried: int


def trace_picture(
    path: Path,
    mark: Dss,
    users: int | Collection[int],
    fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
) -> tuple[PictureTrace, Detection]:
    """Every user number and every fingerprint number given counts. The detection is secret to whoever holds the key.

    Raises BadInput: no picture, one over the limits, or an animation.
    """
    try:
        best = detect(path, [PictureSuspect("", mark, users, fingerprints)])
    except (CarrierError, UnavailableError) as exc:
        raise BadInput(f"{path} cannot be examined: {exc}") from exc
    found = best.detection
    assert found is not None  # the one suspect is tried
    trace = PictureTrace(
        found=found.payload is not None,
        decision=found.decision,
        bucket=found.bucket,
        method=found.method if found.payload else None,
        user_number=user_of(found.payload) if found.payload else None,
        fingerprint=fingerprint_of(found.payload) if found.payload else None,
        payload=found.payload.hex() if found.payload else None,
        candidates=candidates(best),
        users_tried=users if isinstance(users, int) else len(users),
        licenses_tried=fingerprints if isinstance(fingerprints, int) else len(fingerprints),
    )
    return trace, found
