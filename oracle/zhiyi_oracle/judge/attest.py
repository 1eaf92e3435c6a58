"""Signing a verdict with the operator's own key, and checking what peers signed.

Promises: may be repeated; an attestation is recorded before it is shown to anyone; a peer's attestation is
counted only after every check below. Nothing that a peer sends is trusted before its signature was recovered.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from typing import Final

import httpx
from pydantic import ValidationError

from zhiyi import eip712
from zhiyi.errors import BadSignature
from zhiyi.types import Address, Bytes32, Signature, Value, Verdict
from zhiyi_oracle.errors import LyingPeer, NotYet

MAX_ATTESTATION_BYTES: Final = 64 * 1024
PEER_SECONDS: Final = 5.0  # without a byte
PEER_TOTAL_SECONDS: Final = 10.0  # for the whole answer: a peer that drips bytes must not hold us up
# LEAK is judged with integers from end to end (class A), so honest operators count the same samples.
SAMPLES_TOLERANCE: Final = 0
NO_RESULT: Final = bytes(32)  # result digest where nothing was measured
_TAG: Final = b"zhiyi.attestation.v1"


class Attestation(Value):
    """What an operator shows its peers: the verdict it signed, and a tag that only who measured the same can
    make.
    """

    signer: Address
    verdict: Verdict
    signature: Signature
    tag: Bytes32

    @classmethod
    def from_wire(cls, data: bytes) -> Attestation:
        """Raises LyingPeer unless `data` is exactly an attestation."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as exc:
            raise LyingPeer(
                f"the answer is not an attestation: {exc.error_count()} fields are wrong"
            ) from exc


def result_tag(result_digest: bytes, case_id: bytes, signer: str) -> bytes:
    """HMAC-SHA256 over case and signer under the result digest: equal results can be checked, no tag can be
    copied.
    """
    return hmac.digest(
        result_digest, _TAG + case_id + bytes.fromhex(signer.removeprefix("0x")), hashlib.sha256
    )


def check_peer(
    given: Attestation,
    *,
    expected_signer: str,
    ours: Verdict,
    seats: Sequence[str],
    result_digest: bytes,
    digest_of: Callable[[Verdict], bytes],
) -> None:
    """Checks one peer's attestation against what this operator found itself.

    1. The peer's own seat, and a seat of this case's epoch.
    2. 65 bytes, v 27 or 28, low s: what the committee contract accepts.
    3. The recovered signer is that seat.
    4. Same case, license, kind, evidence, subject, detector, share, epoch and deadline.
    5. Same decision and bucket; samples within tolerance.
    6. The same bytes were signed: the contract verifies one digest.
    7. The tag: the peer measured what we measured.

    Raises:
        LyingPeer: naming the step.
    """
    # 1
    if given.signer != expected_signer or given.signer not in seats:
        raise LyingPeer(f"1: {given.signer} is not the seat {expected_signer} of this case's epoch")
    # 2, 3
    try:
        recovered = eip712.recover(digest_of(given.verdict), given.signature)
    except BadSignature as exc:
        raise LyingPeer(f"2: {exc}") from exc
    if recovered != given.signer:
        raise LyingPeer(f"3: signed by {recovered}, not by {given.signer}")
    # 4
    theirs = given.verdict
    for name in (
        "case_id",
        "license_id",
        "kind",
        "evidence_hash",
        "subject",
        "detector_hash",
        "share_index",
        "epoch",
        "deadline",
    ):
        if getattr(theirs, name) != getattr(ours, name):
            raise LyingPeer(f"4: {name} differs from ours")
    # 5
    if theirs.decision != ours.decision:
        raise LyingPeer(f"5: decision {theirs.decision.name}, ours is {ours.decision.name}")
    if theirs.bucket != ours.bucket:
        raise LyingPeer(f"5: bucket {theirs.bucket}, ours is {ours.bucket}")
    if abs(theirs.samples - ours.samples) > SAMPLES_TOLERANCE:
        raise LyingPeer(f"5: {theirs.samples} samples, ours are {ours.samples}")
    # 6
    if digest_of(theirs) != digest_of(ours):
        raise LyingPeer("6: the signed bytes differ from ours")
    # 7
    if not hmac.compare_digest(given.tag, result_tag(result_digest, ours.case_id, given.signer)):
        raise LyingPeer("7: the result digest differs from ours")


def ask_peer(client: httpx.Client, url: str, case_id: bytes) -> bytes:
    """The bytes of a peer's answer to GET /attestations/<case id>.

    Raises:
        NotYet: the peer does not answer, or has not signed.
        LyingPeer: the address is not http(s), or the answer is too large.
    """
    if not url.startswith(("http://", "https://")):
        raise LyingPeer(f"the registered address {url!r} is not http or https")
    try:
        with client.stream(
            "GET",
            f"{url.rstrip('/')}/attestations/0x{case_id.hex()}",
            timeout=PEER_SECONDS,
            follow_redirects=False,
        ) as answer:
            if answer.status_code != httpx.codes.OK:
                raise NotYet(f"{url} answers {answer.status_code}")
            body, end = b"", time.monotonic() + PEER_TOTAL_SECONDS
            for piece in answer.iter_bytes(8192):
                body += piece
                if len(body) > MAX_ATTESTATION_BYTES:
                    raise LyingPeer(f"{url} sends more than {MAX_ATTESTATION_BYTES} bytes")
                if time.monotonic() > end:
                    raise NotYet(f"{url} takes longer than {PEER_TOTAL_SECONDS:.0f} s")
            return body
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise NotYet(f"{url} does not answer: {exc}") from exc
