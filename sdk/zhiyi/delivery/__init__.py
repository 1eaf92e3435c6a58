"""Fair delivery: chunks, leaves, trees, encryption and the complaint. Light: no torch, no chain.

Creator: `Bundle.scan`, `Bundle.leaves`, `Tree`, `range_for_tensors`. Fingerprinter: `prepare`. Buyer:
`verify_before_payment`, `decrypt`, `complaint`.
"""

from zhiyi.delivery.bundle import CHUNK_SIZE, Bundle
from zhiyi.delivery.commitments import key_commit, mark_commit, share_leaf, share_proof, verify_share
from zhiyi.delivery.hashing import SUITE_CHACHA20
from zhiyi.delivery.merkle import Tree, root_of, verify_path
from zhiyi.delivery.package import DeliveryFigures, Package, Progress
from zhiyi.delivery.prepare import PreparedCopy, new_key, prepare
from zhiyi.delivery.ranges import DeclaredRange, Interval, range_for_tensors
from zhiyi.delivery.verify import (
    ComplaintProof,
    DecryptResult,
    PlainChunk,
    Registered,
    WrongChunk,
    complaint,
    decrypt,
    plain_chunk,
    verify_before_payment,
)

__all__ = [
    "CHUNK_SIZE",
    "SUITE_CHACHA20",
    "Bundle",
    "ComplaintProof",
    "DeclaredRange",
    "DecryptResult",
    "DeliveryFigures",
    "Interval",
    "Package",
    "PlainChunk",
    "PreparedCopy",
    "Progress",
    "Registered",
    "Tree",
    "WrongChunk",
    "complaint",
    "decrypt",
    "key_commit",
    "mark_commit",
    "new_key",
    "plain_chunk",
    "prepare",
    "range_for_tensors",
    "root_of",
    "share_leaf",
    "share_proof",
    "verify_before_payment",
    "verify_path",
    "verify_share",
]
