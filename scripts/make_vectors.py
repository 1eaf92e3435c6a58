"""Regenerates tests/vectors. Each section is one file; Python and Solidity tests read the same values.

python scripts/make_vectors.py           # write
python scripts/make_vectors.py --check   # fail if a file would change
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from zhiyi.delivery import DeclaredRange, Interval, Tree, key_commit, mark_commit, share_leaf, share_proof
from zhiyi.delivery.bundle import Bundle
from zhiyi.delivery.hashing import MISSING, delivery_leaves, keystream_xor, node, plain_leaves
from zhiyi_watermark import prf
from zhiyi_watermark.payload import Long, Short
from zhiyi_watermark.result import Detection
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig
from zhiyi_watermark.text_zerobit import KGW, TOURNAMENT, UNIGRAM, ZeroBit

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


def text_marks() -> dict[str, Any]:
    """Verdicts of the text marks on fixed token ids: some written with the key, by integers alone, and some not."""
    key, users = _bytes("text marks", 32), 1000
    plain = prf.integers(_bytes("plain text", 32), 300, 49_152).tolist()
    cases: list[dict[str, Any]] = []

    def add(
        name: str, context: int, found: list[Detection], texts: list[list[int]], draws: bytes, kit: bytes
    ) -> None:
        for text, one in zip(texts, found, strict=True):
            cases.append(
                {
                    "mark": name,
                    "context": context,
                    "tokens": text,
                    "firstDraw": _hex(draws),  # of 5, 6, 7, ... and then 9
                    "detection": {
                        "decision": one.decision,
                        "payload": None if one.payload is None else _hex(one.payload),
                        "n": one.n,
                        "T": one.T,
                        "sumQ2": one.sum_q2,
                        "bucket": one.bucket,
                        "hypotheses": one.hypotheses,
                        "span": list(one.spans[0]),
                        "law": one.law,
                    },
                    # the spec hash names the Unicode version of this Python
                    "digestOfNoSpec": _hex(replace(one, spec_hash="").digest(kit)),
                }
            )

    for long, message in ((False, Short(77)), (True, Long(123_456, 77))):
        mark = BinPlus(key, BinPlusConfig(long=long))
        code = 2 * mark.code.encode(message).astype(int) - 1
        votes = mark.draws
        marked = _written(
            2, 300, lambda c, t, votes=votes, code=code: votes.signs(votes.of_tokens(c, t)) @ code
        )  # type: ignore[misc]  # bound early
        texts = [marked, plain]
        draw = votes.of_tokens([5, 6], [9]).tobytes()
        name = "binplus, 64 bits" if long else "binplus, 32 bits"
        add(name, 2, [mark.detect(text, users) for text in texts], texts, draw, mark.kit_key)
    for profile in (KGW, UNIGRAM, TOURNAMENT):
        zero = ZeroBit(key, profile)
        h = profile.context
        marked = _written(h, 200, lambda c, t, zero=zero: zero.config.scores(zero.draws.of_tokens(c, t)))  # type: ignore[misc]  # bound early
        texts = [marked, plain]
        draw = zero.draws.of_tokens(range(5, 5 + h), [9]).tobytes()
        add(profile.name, h, [zero.detect(text) for text in texts], texts, draw, zero.kit_key)
    return {"key": _hex(key), "users": users, "cases": cases}


def _written(context: int, length: int, score: Callable[[list[int], list[int]], Any]) -> list[int]:
    """Token ids of which each is the best of four by the mark's integers, ties by order."""
    offered = prf.integers(_bytes("candidates", 32), 4 * length, 49_152).reshape(length, 4).tolist()
    text: list[int] = []
    for candidates in offered:
        known = len(text) >= context
        scores = score(text[len(text) - context :], candidates).tolist() if known else [0] * 4
        text.append(candidates[scores.index(max(scores))])
    return text


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {"delivery": delivery, "text_marks": text_marks}


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
