"""The golden vectors, against the package and against code that shares nothing with it."""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import Any

import pytest

from zhiyi.delivery import (
    Bundle,
    DeclaredRange,
    Tree,
    key_commit,
    mark_commit,
    share_leaf,
    share_proof,
    verify_path,
    verify_share,
)
from zhiyi.delivery.hashing import (
    MISSING,
    delivery_leaves,
    keystream_xor,
    node,
    plain_leaves,
)
from zhiyi.errors import BadInput, IntegrityError

# RFC 8439, appendix A.1, test vectors 1 to 4 with nonce 0: key, block counter, keystream
RFC8439 = [
    (
        "00" * 32,
        0,
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    (
        "00" * 32,
        1,
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
    (
        "00" * 31 + "01",
        1,
        "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
        "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
    ),
    (
        "00ff" + "00" * 30,
        2,
        "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
        "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
    ),
]


def raw(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x"))


def chacha20_block(key: bytes, block: int) -> bytes:
    """One block, written from RFC 8439 section 2.3, with the 64-bit block number of suite 1."""
    initial = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8I", key)]
    initial += [block & 0xFFFFFFFF, block >> 32, 0, 0]
    state = list(initial)

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            mixed = state[z] ^ state[x]
            state[z] = (mixed << turn | mixed >> (32 - turn)) & 0xFFFFFFFF

    for _ in range(10):
        for k in range(4):
            quarter(k, 4 + k, 8 + k, 12 + k)
        for k in range(4):
            quarter(k, 4 + (k + 1) % 4, 8 + (k + 2) % 4, 12 + (k + 3) % 4)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, initial, strict=True)))


@pytest.mark.parametrize(("key", "block", "stream"), RFC8439)
def test_keystream_is_rfc_8439(key: str, block: int, stream: str) -> None:
    out = bytearray(64)
    keystream_xor(raw(key), block * 64, bytes(64), out)
    assert out.hex() == stream
    assert chacha20_block(raw(key), block).hex() == stream


def test_keystream_vectors_cross_the_32_bit_counter(vectors: dict[str, Any]) -> None:
    positions = set()
    for case in vectors["keystream"]:
        out = bytearray(192)
        keystream_xor(raw(case["key"]), case["position"], bytes(192), out)
        first = case["position"] // 64
        own = b"".join(chacha20_block(raw(case["key"]), first + k) for k in range(3))
        assert bytes(out) == own == raw(case["stream"])
        positions.add(first)
    assert 2**32 - 1 in positions


def test_leaves_and_nodes(vectors: dict[str, Any], backend: str) -> None:
    for case in vectors["plainLeaves"]:
        data, index = raw(case["data"]), case["index"]
        own = sha256(b"\x00" + index.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data).digest()
        assert plain_leaves(index, data, 128) == own == raw(case["leaf"])
    for case in vectors["honest"]:
        cipher, leaf, index = raw(case["cipher"]), raw(case["plainLeaf"]), case["index"]
        head = b"\x02" + index.to_bytes(4, "big") + len(cipher).to_bytes(4, "big")
        own = sha256(head + leaf + cipher).digest()
        assert delivery_leaves(index, cipher, 128, leaf) == own
        verify_path(raw(case["deliveryRoot"]), own, index, case["chunks"], [raw(s) for s in case["path"]])
    pair = vectors["node"]
    assert node(raw(pair["left"]), raw(pair["right"])) == raw(pair["node"])
    assert sha256(b"\x01" + raw(pair["left"]) + raw(pair["right"])).digest() == raw(pair["node"])
    assert sha256(b"\x03").digest() == raw(vectors["missing"]) == MISSING


def test_trees(vectors: dict[str, Any], backend: str) -> None:
    for case in vectors["trees"]:
        path = [raw(step) for step in case["path"]]
        assert len(path) == max(0, (case["leaves"] - 1).bit_length())
        verify_path(raw(case["root"]), raw(case["leaf"]), case["index"], case["leaves"], path)
    leaves = b"".join(raw(case["leaf"]) for case in vectors["plainLeaves"])
    assert Tree(leaves).root == raw(vectors["copyRoot"])


def test_every_wrong_or_invalid_case_differs_from_an_honest_one(vectors: dict[str, Any]) -> None:
    """What the chain must find wrong decrypts to another leaf here too; what is invalid fails here too."""
    for case in vectors["wrong"]:
        cipher = raw(case["cipher"])
        path = [raw(step) for step in case["path"]]
        leaf = delivery_leaves(case["index"], cipher, 128, raw(case["plainLeaf"]))
        verify_path(raw(case["deliveryRoot"]), leaf, case["index"], case["chunks"], path)
        out = bytearray(len(cipher))
        keystream_xor(raw(case["key"]), case["index"] * 128, cipher, out)
        assert plain_leaves(case["index"], out, 128) != raw(case["plainLeaf"])
    for case in vectors["invalid"]:
        if case["error"] in ("NotInDelivery", "WrongPathLength", "IndexOutOfRange"):
            leaf = delivery_leaves(case["index"], raw(case["cipher"]), 128, raw(case["plainLeaf"]))
            with pytest.raises((BadInput, IntegrityError)):
                verify_path(
                    raw(case["deliveryRoot"]),
                    leaf,
                    case["index"],
                    case["chunks"],
                    [raw(s) for s in case["path"]],
                )


def test_commitments(vectors: dict[str, Any]) -> None:
    key = vectors["keyCommit"]
    assert key_commit(raw(key["key"]), int(key["licenseId"]), key["buyer"]) == raw(key["commit"])
    shares = vectors["markShares"]
    seeds, license_id = [raw(seed) for seed in shares["seeds"]], int(shares["licenseId"])
    assert mark_commit(license_id, seeds) == raw(shares["commit"])
    assert share_leaf(license_id, 11, seeds[11]) == raw(shares["leaf11"])
    assert share_proof(license_id, seeds, 11) == [raw(step) for step in shares["proof11"]]
    for index in range(16):
        proof = share_proof(license_id, seeds, index)
        verify_share(raw(shares["commit"]), license_id, index, seeds[index], proof)
        with pytest.raises(IntegrityError):
            verify_share(raw(shares["commit"]), license_id, index, seeds[index - 1], proof)
        with pytest.raises(IntegrityError):
            verify_share(raw(shares["commit"]), license_id + 1, index, seeds[index], proof)


def test_manifest_and_range(vectors: dict[str, Any]) -> None:
    manifest = vectors["manifest"]
    bundle = Bundle.from_manifest(manifest["text"].encode())
    assert (bundle.chunks, bundle.total_bytes) == (manifest["chunks"], manifest["totalBytes"])
    declared = dict(vectors["declaredRange"])
    expected = raw(declared.pop("hash"))
    assert DeclaredRange.from_json(declared).hash() == expected
