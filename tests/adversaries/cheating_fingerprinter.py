"""A fingerprinter that encrypts other bytes at one chunk, with every hash of the package and the order consistent.

Everything a buyer can check before paying passes, because what is wrong can be seen only with the key. The contract
refunds the buyer on one Merkle path.
"""

from __future__ import annotations

from pathlib import Path

from zhiyi import delivery
from zhiyi.delivery import Bundle, DeclaredRange, DeliveryFigures, PreparedCopy, Tree
from zhiyi.delivery.hashing import delivery_leaves
from zhiyi.delivery.package import CIPHER, LEAVES


def prepare_cheated(
    registered: Path, tree: Tree, declared: DeclaredRange, key: bytes, out: Path, wrong_chunk: int
) -> PreparedCopy:
    """The registered bundle, encrypted honestly but for `wrong_chunk`, which must lie outside the declared range."""
    assert not declared.contains(wrong_chunk), "inside the range the copy may differ: choose another chunk"
    honest = delivery.prepare(registered, registered, tree, declared, key, out)
    return PreparedCopy(out, encrypt_other_bytes(out, honest.figures, wrong_chunk), honest.changed_chunks)


def encrypt_other_bytes(package: Path, figures: DeliveryFigures, index: int) -> DeliveryFigures:
    """Replaces chunk `index` of a package by an encryption of other bytes; returns the figures that fit it."""
    bundle = Bundle.from_manifest((package / "manifest.json").read_bytes())
    cipher, promised = bytearray((package / CIPHER).read_bytes()), (package / LEAVES).read_bytes()
    place = bundle.place(index)
    start = place.segment.offset + place.start
    for at in range(start, start + place.size):
        cipher[at] ^= 0xA5  # a keystream cipher: the chunk now decrypts to its bytes xor 0xa5
    (package / CIPHER).write_bytes(cipher)
    sealed = []
    for window in bundle.windows():
        low = window.segment.offset + window.start
        leaves = promised[window.first * 32 : (window.first + window.chunks) * 32]
        sealed.append(
            delivery_leaves(window.first, cipher[low : low + window.size], bundle.chunk_size, leaves)
        )
    return figures._replace(delivery_root=delivery.root_of(b"".join(sealed)))
