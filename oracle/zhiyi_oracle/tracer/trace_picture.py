"""Which API user, and whose license, pictures were marked for: finished, while drawn, or by the decoder of a copy.

Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from zhiyi.errors import BadInput
from zhiyi.types import U32, U64, U256, Bytes32, Value
from zhiyi_oracle.tracer.candidate import Candidate, candidates
from zhiyi_oracle.tracer.exchange import Exchange, SharedTrace, exchanged
from zhiyi_watermark.detect import DecoderSuspect, PictureSuspect, detect
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.image_generated import KgsReader, Noise, compare_shared
from zhiyi_watermark.image_weights import METHOD as LKD
from zhiyi_watermark.payload import fingerprint_of, user_of
from zhiyi_watermark.pictures import open_picture
from zhiyi_watermark.result import Detection
from zhiyi_watermark.shared import Shared


class NotExamined(Value):
    """A picture of the case that one mark was not looked for in."""

    file: str
    method: str
    model_id: U64 | None
    reason: str


class PictureTrace(Value):
    """Whether pictures carry a mark of the key, and the numbers in its payload, or the license whose copy decoded them.

    Told is the best mark of those that name somebody; where none does, the best.
    """

    found: bool
    decision: str
    bucket: int  # -log10 p_global rounded down to 0, 12, 20 or 40
    method: str | None  # the mark that was found
    model_id: U64 | None  # of the pipeline that drew it, or of the decoder, where it was marked so
    user_number: U32 | None
    fingerprint: U32 | None  # number of the license, among those of its model
    payload: str | None  # hex
    license_id: U256 | None  # whose copy decoded them
    also: tuple[U256, ...]  # further licenses under the same threshold (colluders)
    candidates: tuple[Candidate, ...]
    users_tried: int
    licenses_tried: int  # numbers that a payload could name
    copies_tried: int  # licenses whose copy's decoder could be named, of the models whose mark was looked for
    extractors: dict[U64, Bytes32]  # hash of the net that each of those models' copies were read with
    detectors: dict[
        U64, Bytes32
    ]  # hash of those nets' detectors, as they read: with turned pictures or without
    not_examined: tuple[NotExamined, ...]  # pictures left out of the case for a mark that does not read them
    shared: SharedTrace | None


def trace_picture(
    paths: Sequence[Path],
    suspects: Sequence[PictureSuspect | DecoderSuspect],
    exchange: Exchange[PictureSuspect] | None = None,
) -> tuple[PictureTrace, Detection]:
    """Of pictures of one case, all committed before.

    suspects: at least one; those of finished and drawn pictures all with the same numbers of users and licenses. Every
    number given counts, for each. exchange: for one of the suspects, of generated pictures, and one picture. The
    detection is secret to whoever holds the key.
    Raises BadInput: no picture, one over the limits, an animation, of a size that no suspect examines, a shared noise
    that is none of this picture, or noise of several pictures.
    """
    shown = paths[0] if len(paths) == 1 else f"the case of {len(paths)} pictures"
    try:
        if exchange and len(paths) != 1:
            raise SpecError("noise is exchanged of one picture")
        best = detect(list(paths), suspects)
        shared = _exchanged(exchange, paths[0], len(suspects)) if exchange else None
    except (CarrierError, SpecError, UnavailableError) as exc:
        raise BadInput(f"{shown} cannot be examined: {exc}") from exc
    said = best.detection
    if said is None:
        why = "; ".join(dict.fromkeys(f"{one.method}: {one.reason}" for one in best.passed_over))
        raise BadInput(f"{shown} cannot be examined: {why}")
    told = next((one for one in best.passing if _names(one.detection)), None)
    model, said = told or (best.model, said)
    found, payload = said.decision == "detected", said.payload
    license_id = said.license if said.method == LKD else None
    named = next((s for s in suspects if isinstance(s, PictureSuspect)), None)
    left = {(s.model, s.method): 0 for s in best.passed_over}
    for one in best.passed_over:
        left[one.model, one.method] += 1
    decoders = [
        s for s in suspects if isinstance(s, DecoderSuspect) and left.get((s.model, LKD), 0) < len(paths)
    ]
    trace = PictureTrace(
        found=found,
        decision=said.decision,
        bucket=said.bucket,
        method=said.method if found else None,
        model_id=int(model) if model and found else None,
        user_number=user_of(payload) if payload else None,
        fingerprint=fingerprint_of(payload) if payload else None,
        payload=payload.hex() if payload else None,
        license_id=license_id,
        also=said.also if license_id is not None else (),
        candidates=candidates(best),
        users_tried=_count(named.users) if named else 0,
        licenses_tried=_count(named.fingerprints) if named else 0,
        copies_tried=sum(len(s.licenses) for s in decoders),
        extractors={int(s.model): s.mark.extractor.net_hash() for s in decoders},
        detectors={int(s.model): s.mark.extractor.spec_hash(wide=s.mark.wide) for s in decoders},
        not_examined=tuple(
            NotExamined(
                file=os.fsencode(one.path).decode(errors="backslashreplace"),
                method=one.method,
                model_id=int(one.model) if one.model else None,
                reason=one.reason,
            )
            for one in best.passed_over
        ),
        shared=shared,
    )
    return trace, said


def _names(said: Detection) -> bool:
    """Whether a mark that was found names a user, or the license of a copy."""
    return said.payload is not None or (said.method == LKD and said.license is not None)


def _count(numbers: int | Collection[int]) -> int:
    return numbers if isinstance(numbers, int) else len(numbers)


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
