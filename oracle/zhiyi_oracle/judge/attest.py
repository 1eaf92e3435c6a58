"""Signing a verdict with the operator's own key, and checking what peers signed.

Promises: may be repeated; an attestation is recorded before it is shown to anyone; a peer's attestation is
counted only after every check below. Nothing that a peer sends is trusted before its signature was recovered.
"""

from __future__ import annotations

import hashlib
import hmac
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import httpx
from pydantic import ValidationError

from zhiyi import eip712
from zhiyi.errors import BadSignature
from zhiyi.types import Address, Bytes32, Signature, Value, Verdict
from zhiyi_oracle.errors import LyingPeer, NotYet

MAX_ATTESTATION_BYTES: Final = 64 * 1024
PEER_SECONDS: Final = 5.0  # without a byte
PEER_TOTAL_SECONDS: Final = 10.0  # for the body: a peer that drips bytes must not hold us up
ROUND_SECONDS: Final = 10.0  # for all peers together, names and headers included
MAX_URL: Final = 2_048  # characters
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
        NotYet: the peer does not answer, or has not signed, or its address cannot be asked at all.
        LyingPeer: the address is not http(s), or the answer is too large or compressed.
    """
    shown = f"{url!r:.100}"
    if len(url) > MAX_URL or not url.startswith(("http://", "https://")):
        raise LyingPeer(f"the registered address {shown} is not http or https, or over {MAX_URL} characters")
    try:
        with client.stream(
            "GET",
            f"{url.rstrip('/')}/attestations/0x{case_id.hex()}",
            headers={"Accept-Encoding": "identity"},
            timeout=PEER_SECONDS,
            follow_redirects=False,
        ) as answer:
            if answer.status_code != httpx.codes.OK:
                raise NotYet(f"{shown} answers {answer.status_code}")
            # A few kilobytes can unpack to gigabytes. Without this header httpx unpacks nothing.
            if "content-encoding" in answer.headers:
                raise LyingPeer(f"{shown} sends a compressed answer, which was not asked for")
            body, end = b"", time.monotonic() + PEER_TOTAL_SECONDS
            for piece in answer.iter_bytes(8192):
                body += piece
                if len(body) > MAX_ATTESTATION_BYTES:
                    raise LyingPeer(f"{shown} sends more than {MAX_ATTESTATION_BYTES} bytes")
                if time.monotonic() > end:
                    raise NotYet(f"{shown} takes longer than {PEER_TOTAL_SECONDS:.0f} s")
            return body
    # ValueError: names that are no IDNA, ports and hosts that are none, surrogates; OverflowError: ports over 2^64.
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OverflowError, OSError) as exc:
        raise NotYet(f"{shown} does not answer: {type(exc).__name__} {exc!s:.200}") from exc


class Peers:
    """Asks peers side by side, for so long and no longer: who is late is left behind, not waited for."""

    def __init__(self, seconds: float = ROUND_SECONDS) -> None:
        """seconds: for one round."""
        self._seconds = seconds
        self._asking: dict[str, threading.Thread] = {}

    def ask(
        self, client: httpx.Client, urls: Mapping[str, str], case_id: bytes
    ) -> Iterator[tuple[str, bytes | NotYet | LyingPeer]]:
        """Signers and what they answered, as it comes. A peer still busy with an earlier question is not asked.

        client: one that takes no proxy from the environment.
        """
        answers: queue.SimpleQueue[tuple[str, bytes | NotYet | LyingPeer]] = queue.SimpleQueue()

        def ask_one(signer: str, url: str) -> None:
            try:
                answers.put((signer, ask_peer(client, url, case_id)))
            except (NotYet, LyingPeer) as exc:
                answers.put((signer, exc))

        waiting, end = 0, time.monotonic() + self._seconds
        for signer, url in urls.items():
            busy = self._asking.get(signer)
            if busy is not None and busy.is_alive():
                continue
            # A daemon: headers that drip for ever hold this thread, and nothing else.
            thread = threading.Thread(target=ask_one, args=(signer, url), name="peer", daemon=True)
            self._asking[signer] = thread
            thread.start()
            waiting += 1
        while waiting:
            try:
                yield answers.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return
            waiting -= 1
