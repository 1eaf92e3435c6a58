"""Regenerates tests/vectors. Each section is one file; Python and Solidity tests read the same values.

python scripts/make_vectors.py           # write
python scripts/make_vectors.py --check   # fail if a file would change
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from zhiyi.delivery import DeclaredRange, Interval, Tree, key_commit, mark_commit, share_leaf, share_proof
from zhiyi.delivery.bundle import Bundle
from zhiyi.delivery.hashing import MISSING, delivery_leaves, keystream_xor, node, plain_leaves

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "vectors"


def delivery() -> dict[str, Any]:
    """Leaves, trees, keystream, complaints and commitments of the fair delivery."""
    size = 128
    key = _bytes("key", 32)
    chunks = [_bytes(f"chunk {i}", size if i < 4 else 37) for i in range(5)]
    plain = [plain_leaves(i, data, size) for i, data in enumerate(chunks)]
    ciphers = [_xor(key, i * size, data) for i, data in enumerate(chunks)]
    sealed = [delivery_leaves(i, c, size, p) for i, (c, p) in enumerate(zip(ciphers, plain, strict=True))]
    copy, tree = Tree(b"".join(plain)), Tree(b"".join(sealed))

    other = _bytes("other bytes", size)
    bad_cipher = _xor(key, 2 * size, other)
    bad_sealed = [*sealed]
    bad_sealed[2] = delivery_leaves(2, bad_cipher, size, plain[2])
    bad_tree = Tree(b"".join(bad_sealed))

    def proof(of: Tree, i: int, cipher: bytes, leaf: bytes) -> dict[str, Any]:
        return {
            "deliveryRoot": _hex(of.root),
            "chunks": 5,
            "chunkSize": size,
            "suite": 1,
            "key": _hex(key),
            "index": i,
            "cipher": _hex(cipher),
            "plainLeaf": _hex(leaf),
            "path": [_hex(step) for step in of.path(i)],
        }

    honest = [proof(tree, i, ciphers[i], plain[i]) for i in range(5)]
    cheated = proof(bad_tree, 2, bad_cipher, plain[2])
    short, long = honest[1]["path"][:-1], [*honest[1]["path"], _hex(bytes(32))]
    invalid = [
        {"error": "NotInDelivery", **honest[1], "cipher": _hex(_flip(ciphers[1], 5))},
        {"error": "NotInDelivery", **honest[1], "plainLeaf": _hex(_flip(plain[1], 0))},
        {"error": "NotInDelivery", **honest[1], "index": 0},
        {"error": "NotInDelivery", **honest[1], "deliveryRoot": _hex(_flip(tree.root, 31))},
        {"error": "NotInDelivery", **honest[1], "path": [honest[1]["path"][1], *honest[1]["path"][1:]]},
        {"error": "WrongPathLength", **honest[1], "path": short},
        {"error": "WrongPathLength", **honest[1], "path": long},
        {"error": "IndexOutOfRange", **honest[1], "index": 5},
        {"error": "WrongChunkLength", **honest[1], "cipher": "0x"},
        {"error": "WrongChunkLength", **honest[1], "cipher": _hex(bytes(size + 1))},
        {"error": "WrongChunkSize", **honest[1], "chunkSize": 100},
        {"error": "WrongChunkSize", **honest[1], "chunkSize": 0},
        {"error": "WrongChunkSize", **honest[1], "chunkSize": 4160},
        {"error": "UnknownSuite", **honest[1], "suite": 2},
    ]
    roots = []
    for n in (1, 2, 3, 4, 5, 7, 8, 9, 31, 33):
        leaves = b"".join(_bytes(f"leaf {n} {i}", 32) for i in range(n))
        made, i = Tree(leaves), n // 2
        roots.append(
            {
                "leaves": n,
                "leavesHash": _hex(sha256(leaves).digest()),
                "index": i,
                "leaf": _hex(made.leaf(i)),
                "path": [_hex(step) for step in made.path(i)],
                "root": _hex(made.root),
            }
        )
    seeds = [_bytes(f"seed {i}", 32) for i in range(16)]
    license_id = (7 << 28) | 3
    buyer = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
    bundle = Bundle(896, (("config.json", 2), ("model.safetensors", 100_000), ("é.txt", 0)))
    declared = DeclaredRange((Interval(3, 9), Interval(20, 21)), 50_000)
    return {
        "missing": _hex(MISSING),
        "node": {
            "left": _hex(plain[0]),
            "right": _hex(plain[1]),
            "node": _hex(node(plain[0], plain[1])),
        },
        "plainLeaves": [
            {"index": i, "data": _hex(data), "leaf": _hex(leaf)}
            for i, (data, leaf) in enumerate(zip(chunks, plain, strict=True))
        ],
        "copyRoot": _hex(copy.root),
        "trees": roots,
        "honest": honest,
        "wrong": [cheated, {**honest[3], "key": _hex(_flip(key, 9))}],
        "invalid": invalid,
        "keystream": [
            {"key": _hex(key), "position": at, "stream": _hex(_xor(key, at, bytes(192)))}
            for at in (0, 64, 896, 64 * (2**32 - 1), 64 * 2**32)
        ],
        "keyCommit": {
            "key": _hex(key),
            "licenseId": str(license_id),
            "buyer": buyer,
            "commit": _hex(key_commit(key, license_id, buyer)),
        },
        "markShares": {
            "seeds": [_hex(seed) for seed in seeds],
            "licenseId": str(license_id),
            "commit": _hex(mark_commit(license_id, seeds)),
            "leaf11": _hex(share_leaf(license_id, 11, seeds[11])),
            "proof11": [_hex(step) for step in share_proof(license_id, seeds, 11)],
        },
        "declaredRange": {**declared.to_json(), "hash": _hex(declared.hash())},
        "manifest": {
            "text": bundle.manifest.decode(),
            "chunks": bundle.chunks,
            "totalBytes": bundle.total_bytes,
        },
    }


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {"delivery": delivery}


def main() -> int:
    parser = argparse.ArgumentParser(description="Regenerate tests/vectors.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a file would change")
    check = parser.parse_args().check
    FOLDER.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, section in SECTIONS.items():
        made = {"generatedBy": "scripts/make_vectors.py; do not edit", **section()}
        text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        path = FOLDER / f"{name}.json"
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    print(f"{len(SECTIONS)} sections, {len(stale)} changed{': ' + ', '.join(stale) if stale else ''}")
    return 1 if check and stale else 0


def _bytes(label: str, size: int) -> bytes:
    """Fixed noise: SHA-256 of label and counter."""
    blocks = (sha256(f"zhiyi vectors/{label}/{k}".encode()).digest() for k in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def _xor(key: bytes, position: int, data: bytes) -> bytes:
    out = bytearray(len(data))
    keystream_xor(key, position, data, out)
    return bytes(out)


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


if __name__ == "__main__":
    raise SystemExit(main())
