"""Whom a detection names: what all traces tell. T and p stay with whoever holds the key."""

from __future__ import annotations

from zhiyi.types import U32, U64, U256, Value
from zhiyi_watermark.detect import Finding, Found
from zhiyi_watermark.payload import fingerprint_of, user_of


class Candidate(Value):
    """One mark that was detected, and whom it names, as far as it names anybody."""

    method: str
    bucket: int  # -log10 p_global rounded down to 0, 12, 20 or 40
    model_id: U64 | None
    license_id: U256 | None  # None where a payload names the license: by `fingerprint`
    also: tuple[U256, ...]  # further licenses under the same threshold (colluders)
    user_number: U32 | None
    fingerprint: U32 | None  # number of the license, among those of its model
    payload: str | None  # hex


def candidates(found: Found) -> tuple[Candidate, ...]:
    """Of every suspect that passes, the smallest p_global first."""
    return tuple(_candidate(finding) for finding in found.passing)


def _candidate(finding: Finding) -> Candidate:
    said = finding.detection
    return Candidate(
        method=said.method,
        bucket=said.bucket,
        model_id=int(finding.model) if finding.model else None,
        license_id=None if said.payload else said.license,  # with one it is that number
        also=said.also,
        user_number=user_of(said.payload) if said.payload else None,
        fingerprint=fingerprint_of(said.payload) if said.payload and len(said.payload) == 8 else None,
        payload=said.payload.hex() if said.payload else None,
    )
