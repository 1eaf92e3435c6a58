"""Facts and detection in, ruling out."""

from __future__ import annotations

import dataclasses

import pytest
from judge_stage import make_detection

from zhiyi.types import Decision, Kind
from zhiyi_oracle.errors import JudgeError
from zhiyi_oracle.judge.decide import NO_SHARE, BaseStatus, CaseFacts, EvidenceStatus, Ruling, decide
from zhiyi_watermark.result import Detection

FACTS = CaseFacts(
    kind=Kind.LEAK,
    evidence=EvidenceStatus.READY,
    base=BaseStatus.READY,
    share_index=4,
    detector_hash=b"\2" * 32,
    license_id=77,
)


@pytest.mark.parametrize(
    ("changes", "detection", "decision", "bucket", "share", "samples"),
    [
        ({}, make_detection("detected", 2048, 40), Decision.GUILTY, 40, 4, 2048),
        ({}, make_detection("detected", 2048, 12), Decision.GUILTY, 12, 4, 2048),
        ({}, make_detection("not_detected", 2048), Decision.NOT_GUILTY, 0, 4, 2048),
        ({}, make_detection("inconclusive", 9), Decision.INCONCLUSIVE, 0, 4, 9),
        ({"evidence": EvidenceStatus.MISSING}, None, Decision.UNAVAILABLE, 0, NO_SHARE, 0),
        ({"evidence": EvidenceStatus.BROKEN}, None, Decision.UNAVAILABLE, 0, NO_SHARE, 0),
        ({"evidence": EvidenceStatus.BROKEN}, make_detection(), Decision.UNAVAILABLE, 0, NO_SHARE, 0),
        ({"share_index": None}, None, Decision.INCONCLUSIVE, 0, NO_SHARE, 0),
        ({"base": BaseStatus.BROKEN}, None, Decision.INCONCLUSIVE, 0, 4, 0),
        ({"base": BaseStatus.MISSING}, None, Decision.INCONCLUSIVE, 0, 4, 0),
    ],
)
def test_the_ruling_follows_from_facts_and_detection(
    changes: dict[str, object],
    detection: Detection | None,
    decision: Decision,
    bucket: int,
    share: int,
    samples: int,
) -> None:
    ruling = decide(dataclasses.replace(FACTS, **changes), detection)  # type: ignore[arg-type]
    assert (ruling.decision, ruling.bucket, ruling.share_index, ruling.samples) == (
        decision,
        bucket,
        share,
        samples,
    )


def test_a_bucket_is_told_only_with_a_guilty_verdict() -> None:
    odd = dataclasses.replace(make_detection("not_detected"), bucket=20)
    assert decide(FACTS, odd) == Ruling(Decision.NOT_GUILTY, 0, 4, 2048, "mark not detected")


@pytest.mark.parametrize("kind", [k for k in Kind if k is not Kind.LEAK])
def test_other_kinds_are_refused(kind: Kind) -> None:
    with pytest.raises(JudgeError, match=kind.name):
        decide(dataclasses.replace(FACTS, kind=kind), make_detection())


def test_a_detection_by_another_detector_is_not_signed() -> None:
    with pytest.raises(JudgeError, match="install the registered detector"):
        decide(FACTS, make_detection(detector=rb"\9" * 32))


def test_a_guilty_detection_under_the_lowest_bucket_is_not_signed() -> None:
    with pytest.raises(JudgeError, match="thresholds disagree"):
        decide(FACTS, make_detection("detected", bucket=0))


def test_a_missing_detection_is_not_signed() -> None:
    with pytest.raises(JudgeError, match="no detection"):
        decide(FACTS, None)
