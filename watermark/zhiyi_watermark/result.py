"""The one result type of every detector."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

from zhiyi_watermark.prf import check_key
from zhiyi_watermark.stats import Decision, Order, Tail, bucket, decide, order


@dataclass(frozen=True)
class Detection:
    """What a detector found. Everything but `public()` is secret to the committee: T is linear in the key's
    signs."""

    method: str
    decision: Decision
    license: int | None  # the license named; None when the question was only "this key?" or nobody is named
    payload: bytes | None  # the decoded message, only with a right MAC
    n: int  # integers q that took part
    T: int
    sum_q2: int
    log2_p: float  # of the best hypothesis, before correction; <= 0; for people, decisions are exact
    log2_p_global: float  # after counting every hypothesis tried; <= 0
    law: str  # binomial | exact | bound | two-point, see stats
    bucket: int  # -log10 p_global rounded down to 0, 12, 20, 40
    hypotheses: int  # how many were counted, the allowance for those tried elsewhere included
    null: str  # H0 in words
    spec_hash: str  # hex, 32 bytes: detector, tables, thresholds
    spans: tuple[tuple[int, int], ...] = ()  # where in the object, [start, end), unit of the method
    also: tuple[int, ...] = ()  # other licenses under the same threshold (colluders)
    # Sorts detections by p_global, the least first, in exact numbers; None where no detector made this one.
    order: Order | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> str:
        """Canonical JSON (sorted keys, no spaces) of all fields, for the committee's own store."""
        fields = asdict(replace(self, order=None))
        del fields["order"]
        fields["payload"] = self.payload.hex() if self.payload is not None else None
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def public(self) -> dict[str, Any]:
        """What may leave the committee."""
        kept = ("method", "decision", "license", "bucket", "spec_hash")
        return {name: getattr(self, name) for name in kept}

    def digest(self, kit_key: bytes, object_hash: bytes = bytes(32)) -> bytes:
        """HMAC-SHA256 under the kit key of (spec, object, n, T, sum q^2): operators compare it, outsiders
        learn nothing.

        object_hash: 32 bytes, the canonical hash of what was examined.
        """
        text = f"{self.method}|{self.spec_hash}|{object_hash.hex()}|{self.n}|{self.T}|{self.sum_q2}"
        return hmac.new(check_key(kit_key), text.encode(), hashlib.sha256).digest()


def detection(
    tail: Tail,
    *,
    method: str,
    n: int,
    T: int,
    sum_q2: int,
    hypotheses: int,
    allowance: int = 1,
    besides: Fraction = Fraction(0),
    threshold: Fraction,
    null: str,
    spec_hash: bytes,
    license: int | None = None,
    payload: bytes | None = None,
    decision: Decision | None = None,
    spans: tuple[tuple[int, int], ...] = (),
    also: tuple[int, ...] = (),
) -> Detection:
    """A Detection whose figures and, unless given, decision follow from the tail.

    hypotheses: those tried here; allowance: the factor on top for those tried elsewhere; besides: the
    chance of being wrong in another way, added to p_global; see stats.
    """
    count = hypotheses * allowance
    return Detection(
        method=method,
        decision=decision
        or decide(tail, count=count, tried=hypotheses, threshold=threshold, besides=besides),
        license=license,
        payload=payload,
        n=n,
        T=T,
        sum_q2=sum_q2,
        log2_p=round(tail.log2_p, 6),
        log2_p_global=round(tail.log2_p_global(count, besides), 6),
        law=tail.law,
        bucket=bucket(tail, count, besides),
        hypotheses=count,
        null=null,
        spec_hash=spec_hash.hex(),
        spans=spans,
        also=also,
        order=order(tail, count, besides),
    )
