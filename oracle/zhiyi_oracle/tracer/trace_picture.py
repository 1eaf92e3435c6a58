"""Which API user, and whose license, a picture was marked for, finished or while it was drawn. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zhiyi.errors import BadInput
from zhiyi.types import U32, U64, Value
from zhiyi_oracle.tracer.candidate import Candidate, candidates
from zhiyi_oracle.tracer.exchange import Exchange, SharedTrace, exchanged
from zhiyi_watermark.detect import PictureSuspect, detect
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.image_generated import KgsReader, Noise, compare_shared
from zhiyi_watermark.payload import fingerprint_of, user_of
from zhiyi_watermark.pictures import open_picture
from zhiyi_watermark.result import Detection
from zhiyi_watermark.shared import Shared


class PictureTrace(Value):
    """Whether a picture carries a mark of the key, and the numbers in its payload, where they can be read.

    Told is the best mark of those that name somebody; where none does, the best.
    """

    found: bool
    decision: str
    bucket: int  # -log10 p_global rounded down to 0, 12, 20 or 40
    method: str | None  # the mark that was found
    model_id: U64 | None  # of the pipeline that drew it, where it was marked so
    user_number: U32 | None
    fingerprint: U32 | None  # number of the license, among those of its model
    payload: str | None  # hex
    candidates: tuple[Candidate, ...]
    users_tried: int
    licenses_tried: int
    shared: SharedTrace | None


def trace_picture(
    path: Path, suspects: Sequence[PictureSuspect], exchange: Exchange[PictureSuspect] | None = None
) -> tuple[PictureTrace, Detection]:
    """suspects: at least one, all with the same numbers of users and licenses; every number given counts, for each.

    exchange: for one of the suspects, of generated pictures. The detection is secret to whoever holds the key.
    Raises BadInput: no picture, one over the limits, an animation, of a size that no suspect examines, or a shared
    noise that is none of this picture.
    """
    try:
        best = detect(path, suspects)
        shared = _exchanged(exchange, path, len(suspects)) if exchange else None
    except (CarrierError, SpecError, UnavailableError) as exc:
        raise BadInput(f"{path} cannot be examined: {exc}") from exc
    said = best.detection
    if said is None:
        raise BadInput(f"{path} cannot be examined: no mark is looked for in pictures of this size")
    told = next((one for one in best.passing if one.detection.payload), None)
    model, said = told or (best.model, said)
    found, payload = said.decision == "detected", said.payload
    users, fingerprints = suspects[0].users, suspects[0].fingerprints
    trace = PictureTrace(
        found=found,
        decision=said.decision,
        bucket=said.bucket,
        method=said.method if found else None,
        model_id=int(model) if model and found else None,
        user_number=user_of(payload) if payload else None,
        fingerprint=fingerprint_of(payload) if payload else None,
        payload=payload.hex() if payload else None,
        candidates=candidates(best),
        users_tried=users if isinstance(users, int) else len(users),
        licenses_tried=fingerprints if isinstance(fingerprints, int) else len(fingerprints),
        shared=shared,
    )
    return trace, said


def _exchanged(exchange: Exchange[PictureSuspect], path: Path, models: int) -> SharedTrace:
    suspect = exchange.suspect
    reader = suspect.mark
    if not isinstance(reader, KgsReader):
        raise SpecError("only the noise of generated pictures is shared")
    ours = reader.noise(open_picture(path))

    def compare(given: Path) -> Shared:
        theirs = Noise.load(given)
        return compare_shared(
            reader.mark, [theirs], [ours], suspect.users, suspect.fingerprints, models=models
        )

    return exchanged(ours, exchange.out, exchange.given, compare)
