"""Which API user a text was made for, and the leaf in the anchored log that says so; or only by whose key.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from zhiyi.client import Zhiyi
from zhiyi.errors import BadInput, IntegrityError, NotFound
from zhiyi.types import U32, U64, U256, Bytes32, Value
from zhiyi.usage_log import InclusionProof, UsageLog, output_hash, user_commitment
from zhiyi_oracle.api_users import ApiUsers
from zhiyi_oracle.tracer.candidate import Candidate, candidates
from zhiyi_oracle.tracer.exchange import Exchange, SharedTrace, exchanged
from zhiyi_watermark.detect import Progress, Suspect, TextSuspect, WriterSuspect, detect, no_progress
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.payload import MAX_FINGERPRINT, fingerprint_of, user_of
from zhiyi_watermark.result import Detection
from zhiyi_watermark.shared import Shared
from zhiyi_watermark.text_gaussian import MAX_TOKENS, Gradient, compare_shared
from zhiyi_watermark.text_multibit import BinPlus
from zhiyi_watermark.text_stream import Tokenizer
from zhiyi_watermark.text_zerobit import Profile, ZeroBit


class OpenedLeaf(Value):
    """A leaf with its proof under an anchored root, and the opening of its user commitment."""

    number: int
    proof: InclusionProof
    anchor_tx: str
    user: str
    salt: Bytes32

    def verify(self, anchored_root: bytes) -> None:
        """Everything a stranger can check, given the root from the chain. Raises IntegrityError."""
        self.proof.verify(anchored_root)
        if user_commitment(self.user, self.salt) != self.proof.leaf.user_commitment:
            raise IntegrityError(f"the leaf's commitment does not open to user {self.user!r}")


class TextTrace(Value):
    """Whether the text carries the key's mark, and the user whose payload it is, where the mark carries one.

    `exact` is the leaf of this very text, or of one of them, where it was not changed. Of what was not found nothing is
    told but the decision: which mark came nearest, and where, would tell of the key's signs."""

    found: bool
    decision: str
    bucket: int  # -log10 p_global rounded down to 0, 12, 20 or 40
    method: str | None  # the mark that was found
    spans: tuple[tuple[int, int], ...]  # tokens [start, end) that tell most
    model_id: U64 | None  # of the copy that wrote it, where the weights carry the mark
    license_id: U256 | None
    also: tuple[U256, ...]  # further licenses under the same threshold
    user_number: U32 | None
    fingerprint: U32 | None  # number of the license, where the payload has 64 bits
    payload: str | None  # hex
    candidates: tuple[Candidate, ...]  # of every mark that was detected
    leaves_of_user: int
    exact: OpenedLeaf | None
    users_tried: int
    shared: SharedTrace | None


def trace_text(
    text: str | Sequence[str],
    mark: BinPlus,
    tokenizer: Tokenizer,
    users: ApiUsers | None = None,
    log: UsageLog | None = None,
    profiles: Sequence[Profile] = (),
    writers: Sequence[WriterSuspect] = (),
    *,
    fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
    exchange: Exchange[WriterSuspect] | None = None,
    progress: Progress = no_progress,
) -> tuple[TextTrace, Detection]:
    """Payload → user number → the user's leaf; or, of a mark without payload, whether it is there.

    text: one, or several of one case; users, log: the provider's, to name a user; profiles: marks without payload under
    the same key; writers: models whose copies show in their texts; fingerprints: of licenses that a payload of 64 bits
    can name; exchange: for one of the writers. All count. The detection is secret to whoever holds the key.

    Raises:
        BadInput: the text is too long or no text, or nothing can be looked for, or a shared gradient is none of these
        texts. NotFound: the payload names a user that the book does not know.
    """
    texts = [text] if isinstance(text, str) else list(text)
    numbers = users.numbers() if users else []
    suspects: list[Suspect] = [TextSuspect("", mark, tokenizer, numbers, fingerprints)] if numbers else []
    suspects += writers
    suspects += [
        TextSuspect("", ZeroBit(mark.key, profile, mark.tokenizer_hash), tokenizer) for profile in profiles
    ]
    if not suspects:
        raise BadInput("the provider has no API users yet, so nobody can be named")
    try:
        best = detect(texts, suspects, progress)
        shared = _exchanged(exchange, texts, len(suspects)) if exchange else None
    except (CarrierError, SpecError, UnavailableError) as exc:
        raise BadInput(f"the text cannot be examined: {exc}") from exc
    said = best.detection
    if said is None:
        raise BadInput(
            f"nothing could be looked for: the text has fewer than two tokens or over {MAX_TOKENS}, or none that the "
            "model would have drawn, or the base is another model"
        )
    found = said.decision == "detected"
    number = user_of(said.payload) if said.payload else None
    own = log.of_user(number) if log and number is not None else []
    leaves = (
        (leaf for one in texts for leaf in log.find(output_hash(one)) if leaf in own)
        if log and own
        else iter(())
    )
    exact = next(leaves, None)
    trace = TextTrace(
        found=found,
        decision=said.decision,
        bucket=said.bucket,
        method=said.method if found else None,
        spans=said.spans if found else (),
        model_id=int(best.model) if best.model and said.license is not None else None,
        license_id=said.license,
        also=said.also,
        user_number=number,
        fingerprint=fingerprint_of(said.payload) if said.payload and len(said.payload) == 8 else None,
        payload=said.payload.hex() if said.payload else None,
        candidates=candidates(best),
        leaves_of_user=len(own),
        exact=open_leaf(exact, users, log) if exact is not None and users and log else None,
        users_tried=len(numbers),
        shared=shared,
    )
    return trace, said


def _exchanged(exchange: Exchange[WriterSuspect], texts: Sequence[str], models: int) -> SharedTrace:
    suspect = exchange.suspect
    ours = suspect.base.gradient(suspect.base.encode(texts, suspect.spec), suspect.spec)

    def compare(given: Path) -> Shared:
        theirs = Gradient.load(given, suspect.spec)
        return compare_shared(theirs, ours, suspect.spec, suspect.keys, models=models)

    return exchanged(ours, exchange.out, exchange.given, compare)


def open_leaf(number: int, users: ApiUsers, log: UsageLog) -> OpenedLeaf:
    """A leaf with proof and opening. Raises NotFound while it is not anchored, or when the user is unknown."""
    proof = log.proof(number)
    user = users.by_number(proof.leaf.user_number)
    entry = next(a for a in log.anchored() if a.first <= number < a.first + a.count)
    return OpenedLeaf(number=number, proof=proof, anchor_tx=entry.tx_hash, user=user.name, salt=user.salt)


def check_on_chain(client: Zhiyi, provider: str, topic: bytes, leaf: OpenedLeaf) -> int:
    """The block in which the leaf's root was anchored by `provider`, after checking proof and opening against it.

    Raises:
        NotFound: the root is not in the provider's stream. IntegrityError: proof or opening do not hold.
    """
    for anchor in client.evidence.anchors(provider, topic):
        if anchor.root == leaf.proof.root and anchor.leaf_count == leaf.proof.leaf_count:
            leaf.verify(anchor.root)
            return anchor.block_number
    raise NotFound(f"no batch with root 0x{leaf.proof.root.hex()} was anchored by {provider}")
