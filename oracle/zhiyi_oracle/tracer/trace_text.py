"""Which API user a text was made for, and the leaf in the anchored log that says so; or only by whose key.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from zhiyi.client import Zhiyi
from zhiyi.errors import BadInput, IntegrityError, NotFound
from zhiyi.types import U32, U256, Bytes32, Value
from zhiyi.usage_log import InclusionProof, UsageLog, output_hash, user_commitment
from zhiyi_oracle.api_users import ApiUsers
from zhiyi_watermark.detect import Suspect, TextSuspect, WriterSuspect, detect
from zhiyi_watermark.errors import CarrierError, SpecError
from zhiyi_watermark.result import Detection
from zhiyi_watermark.text_multibit import BinPlus, user_of
from zhiyi_watermark.text_stream import Tokenizer
from zhiyi_watermark.text_zerobit import Profile, ZeroBit

MAX_TEXT_BYTES: Final = 8 << 20


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

    `exact` is the leaf of this very text, where it was not changed."""

    found: bool
    method: str  # the mark that was found, or came nearest
    spans: tuple[tuple[int, int], ...]  # tokens [start, end) that tell most
    license_id: U256 | None  # whose copy wrote it, where the weights carry the mark
    user_number: U32 | None
    payload: str | None  # hex
    leaves_of_user: int
    exact: OpenedLeaf | None
    users_tried: int
    log2_p_global: float


def trace_text(
    text: str,
    mark: BinPlus,
    tokenizer: Tokenizer,
    users: ApiUsers | None = None,
    log: UsageLog | None = None,
    profiles: Sequence[Profile] = (),
    writers: Sequence[WriterSuspect] = (),
) -> tuple[TextTrace, Detection]:
    """Payload → user number → the user's leaf; or, of a mark without payload, whether it is there.

    users, log: the provider's, to name a user; profiles: marks without payload under the same key; writers: models
    whose copies show in their texts. All count. The detection is secret to whoever holds the key.

    Raises:
        BadInput: the text is too long or no text, or nothing can be looked for. NotFound: the payload names a user that
        the book does not know.
    """
    if len(text.encode(errors="surrogatepass")) > MAX_TEXT_BYTES:
        raise BadInput(f"the text is over {MAX_TEXT_BYTES} bytes; give a part of it")
    numbers = users.numbers() if users else []
    suspects: list[Suspect] = [TextSuspect("", mark, tokenizer, numbers)] if numbers else []
    suspects += writers
    suspects += [TextSuspect("", ZeroBit(mark.key, profile), tokenizer) for profile in profiles]
    if not suspects:
        raise BadInput("the provider has no API users yet, so nobody can be named")
    try:
        found = detect(text, suspects).detection
    except (CarrierError, SpecError) as exc:
        raise BadInput(f"the text cannot be examined: {exc}") from exc
    if found is None:
        raise BadInput(
            "nothing could be looked for: the text has fewer than two tokens, or the base is another model"
        )
    number = user_of(found.payload) if found.payload else None
    own = log.of_user(number) if log and number is not None else []
    exact = next((leaf for leaf in log.find(output_hash(text)) if leaf in own), None) if log and own else None
    trace = TextTrace(
        found=found.decision == "detected",
        method=found.method,
        spans=found.spans,
        license_id=found.license,
        user_number=number,
        payload=found.payload.hex() if found.payload else None,
        leaves_of_user=len(own),
        exact=open_leaf(exact, users, log) if exact is not None and users and log else None,
        users_tried=len(numbers),
        log2_p_global=found.log2_p_global,
    )
    return trace, found


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
