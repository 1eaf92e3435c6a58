"""Which API user, and whose license, a finished picture was marked for. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from zhiyi.errors import BadInput
from zhiyi.types import U32, Value
from zhiyi_watermark.detect import PictureSuspect, detect
from zhiyi_watermark.errors import CarrierError, UnavailableError
from zhiyi_watermark.image_finished import Dss
from zhiyi_watermark.result import Detection
from zhiyi_watermark.text_multibit import fingerprint_of, user_of


class PictureTrace(Value):
    """The numbers in a picture's payload."""

    found: bool
    method: str
    user_number: U32 | None
    fingerprint: U32 | None  # number of the license, among those of its model
    payload: str | None  # hex
    users_tried: int
    log2_p_global: float


def trace_picture(path: Path, mark: Dss, users: int | Collection[int]) -> tuple[PictureTrace, Detection]:
    """Every user number given and every fingerprint number counts. The detection is secret to whoever holds the key.

    Raises BadInput: no picture, one over the limits, or an animation.
    """
    try:
        found = detect(path, [PictureSuspect("", mark, users)]).detection
    except (CarrierError, UnavailableError) as exc:
        raise BadInput(f"{path} cannot be examined: {exc}") from exc
    assert found is not None  # the one suspect is tried
    trace = PictureTrace(
        found=found.payload is not None,
        method=found.method,
        user_number=user_of(found.payload) if found.payload else None,
        fingerprint=fingerprint_of(found.payload) if found.payload else None,
        payload=found.payload.hex() if found.payload else None,
        users_tried=users if isinstance(users, int) else len(users),
        log2_p_global=found.log2_p_global,
    )
    return trace, found
