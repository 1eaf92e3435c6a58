"""What a detection and the facts of a case amount to. Pure: no network, no disk, no clock, no key.

Promises: the same inputs give the same ruling on every machine, so honest operators sign the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from zhiyi.types import Decision, Kind
from zhiyi_oracle.errors import JudgeError
from zhiyi_watermark.result import Detection

MIN_GUILTY_BUCKET: Final = 12  # -log10 p_global that a guilty verdict needs; the court refuses less
NO_SHARE: Final = 255  # share index of a verdict that rests on no share
MAX_SAMPLES: Final = (1 << 32) - 1


class EvidenceStatus(StrEnum):
    """What became of the evidence that the reporter named."""

    READY = "ready"  # opened, hash and canonical root agree with the case
    MISSING = "missing"  # not served by IPFS until the operators had to answer
    BROKEN = "broken"  # served, but is not what the case committed to, or is not a model


class BaseStatus(StrEnum):
    """What became of the base tensors that the fingerprinter sealed to the committee."""

    READY = "ready"  # every chunk equals its registered leaf
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True)
class CaseFacts:
    """What the record says, apart from the marks."""

    kind: Kind
    evidence: EvidenceStatus
    base: BaseStatus
    share_index: int | None  # 0 .. 15, of the share opened in this very case
    detector_hash: bytes  # 32 bytes, pinned by the model's registration
    license_id: int


@dataclass(frozen=True)
class Ruling:
    """What goes into the verdict."""

    decision: Decision
    bucket: int  # 0, 12, 20, 40
    share_index: int
    samples: int
    why: str  # one sentence for the operator's own record


def decide(facts: CaseFacts, detection: Detection | None) -> Ruling:
    """The ruling of a LEAK case.

    1. Only LEAK is decided by marks in weights.
    2. Evidence that cannot be had or is not what was reported: unavailable.
    3. No share, or no usable base tensors: nothing to test, inconclusive. The fingerprinter answers for it
       elsewhere.
    4. The detection must be made with the registered detector; anything else is this operator's fault and is
       not signed.
    5. Detected at 2^-43 after every correction: guilty. p over 1e-3: not guilty. Between: inconclusive.

    Raises:
        JudgeError: kind other than LEAK; a detection missing, of another detector, or contradicting itself.
    """
    # 1
    if facts.kind is not Kind.LEAK:
        raise JudgeError(
            f"kind {facts.kind.name} is not decided by this detector; leave the case to the authority"
        )
    # 2
    if facts.evidence is not EvidenceStatus.READY:
        return Ruling(Decision.UNAVAILABLE, 0, NO_SHARE, 0, f"evidence is {facts.evidence}")
    # 3
    if facts.share_index is None:
        return Ruling(Decision.INCONCLUSIVE, 0, NO_SHARE, 0, "no share of the confirm mark was opened")
    if facts.base is not BaseStatus.READY:
        return Ruling(Decision.INCONCLUSIVE, 0, facts.share_index, 0, f"base tensors are {facts.base}")
    # 4
    if detection is None:
        raise JudgeError(
            "share and base tensors are there, but no detection was made; run the detect step again"
        )
    if bytes.fromhex(detection.spec_hash) != facts.detector_hash:
        raise JudgeError(
            f"detection by detector {detection.spec_hash}, the model registered {facts.detector_hash.hex()}; "
            "install the registered detector"
        )
    if not 0 <= detection.n <= MAX_SAMPLES:
        raise JudgeError(f"detection over {detection.n} samples, a verdict holds 0 .. {MAX_SAMPLES}")
    # 5
    if detection.decision == "detected":
        if detection.bucket < MIN_GUILTY_BUCKET:
            raise JudgeError(
                f"detected with bucket {detection.bucket}, below {MIN_GUILTY_BUCKET}: thresholds disagree"
            )
        decision = Decision.GUILTY
    elif detection.decision == "not_detected":
        decision = Decision.NOT_GUILTY
    else:
        decision = Decision.INCONCLUSIVE
    bucket = detection.bucket if decision is Decision.GUILTY else 0
    return Ruling(
        decision, bucket, facts.share_index, detection.n, f"mark {detection.decision.replace('_', ' ')}"
    )
