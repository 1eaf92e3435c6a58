"""FairDelivery: the golden vectors on a real node, and what an attacker may send.

chunkIsWrong
├── suite is not 1 ............................ UnknownSuite
├── chunk size 0, no multiple of 64, > 4096 ... WrongChunkSize
├── cipher empty or longer than the chunk size  WrongChunkLength
├── index past the last chunk ................. IndexOutOfRange
├── path not exactly ceil(log2 n) long ........ WrongPathLength
├── path leads elsewhere ...................... NotInDelivery
├── a hash runs out of gas .................... reverts, never "wrong"
├── caller's memory reaches 0x1000 ............ MemoryInUse
├── decrypts to the promised leaf ............. false
└── decrypts to anything else ................. true
"""

from __future__ import annotations

import json
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from market import reverts
from web3.exceptions import ContractLogicError, Web3RPCError

from zhiyi.delivery import Tree
from zhiyi.delivery.hashing import delivery_leaves, keystream_xor, plain_leaves

VECTORS = json.loads((Path(__file__).resolve().parents[1] / "vectors" / "delivery.json").read_text())
FIELDS = ("deliveryRoot", "chunks", "chunkSize", "suite", "key", "index", "cipher", "plainLeaf", "path")
KEY = bytes(range(32))
# RFC 8439, appendix A.1, test vectors 1 to 4: key, block counter, first half of the keystream block
RFC8439 = [
    ("00" * 32, 0, "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
                   "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"),
    ("00" * 32, 1, "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
                   "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"),
    ("00" * 31 + "01", 1, "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
                          "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0"),
    ("00ff" + "00" * 30, 2, "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
                            "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096"),
]  # fmt: skip


@pytest.fixture(scope="session")
def harness(project: Any, accounts: Any) -> Any:
    return accounts[0].deploy(project.DeliveryHarness)


def arguments(case: dict[str, Any]) -> list[Any]:
    return [case[field] for field in FIELDS]


def proof(
    data: bytes, *, index: int, chunks: int, size: int, key: bytes = KEY, promised: bytes | None = None
) -> dict[str, Any]:
    """A consistent proof of one chunk in a tree of which only its path exists."""
    cipher = bytearray(len(data))
    keystream_xor(key, index * size, data, cipher)
    leaf = plain_leaves(index, data, size) if promised is None else promised
    at = delivery_leaves(index, cipher, size, leaf)
    path = []
    for level in range((chunks - 1).bit_length()):
        step = sha256(f"{level}".encode()).digest()
        path.append(step)
        at = sha256(b"\x01" + (step + at if index >> level & 1 else at + step)).digest()
    return dict(zip(FIELDS, (at, chunks, size, 1, key, index, bytes(cipher), leaf, path), strict=True))


def test_honest_chunks_are_not_wrong(harness: Any) -> None:
    assert {len(case["cipher"]) for case in VECTORS["honest"]} == {2 + 2 * 128, 2 + 2 * 37}
    for case in VECTORS["honest"]:
        assert harness.chunkIsWrong(*arguments(case)) is False


def test_wrong_chunks_are_wrong(harness: Any) -> None:
    for case in VECTORS["wrong"]:
        assert harness.chunkIsWrong(*arguments(case)) is True


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda c: c["error"])
def test_bad_proofs_revert(harness: Any, case: dict[str, Any]) -> None:
    with reverts(getattr(harness, case["error"])):
        harness.chunkIsWrong(*arguments(case))


def test_leaves_and_trees(harness: Any) -> None:
    for case in VECTORS["plainLeaves"]:
        assert (
            "0x" + harness.plainLeafOf(case["index"], case["data"]).hex().removeprefix("0x") == case["leaf"]
        )
    for case in VECTORS["trees"]:
        given = (case["root"], case["leaf"], case["index"], case["leaves"], case["path"])
        assert harness.depthOf(case["leaves"]) == len(case["path"])
        assert harness.verify(*given) is True
        for index in range(case["leaves"]):
            if index != case["index"]:
                assert harness.verify(case["root"], case["leaf"], index, *given[3:]) is False
        with reverts(harness.IndexOutOfRange):
            harness.verify(case["root"], case["leaf"], case["leaves"], *given[3:])
        with reverts(harness.WrongPathLength):
            harness.verify(*given[:4], [*case["path"], bytes(32)])
        if case["path"]:
            with reverts(harness.WrongPathLength):
                harness.verify(*given[:4], case["path"][:-1])
    with reverts(harness.IndexOutOfRange):
        harness.verify(bytes(32), bytes(32), 0, 0, [])


def test_what_no_tree_or_chunk_can_have_is_refused(harness: Any) -> None:
    """A path longer than any tree is high; an index and a length that a leaf has no room for."""
    with reverts(harness.WrongPathLength, values={"given": 33, "needed": 2}):
        harness.verify(bytes(32), bytes(32), 0, 4, [bytes(32)] * 33)
    with reverts(harness.IndexOutOfRange, values={"index": 1 << 32}):
        harness.plainLeafOf(1 << 32, b"data")
    with reverts(harness.WrongChunkLength, values={"given": 4097, "max": 4096}):
        harness.plainLeafOf(0, bytes(4097))


def test_an_inner_node_is_no_leaf(harness: Any) -> None:
    tree = Tree(bytes(32) + b"\x01" * 32 + b"\x02" * 32 + b"\x03" * 32)
    inner = sha256(b"\x01" + tree.leaf(0) + tree.leaf(1)).digest()
    with reverts(harness.WrongPathLength):
        harness.verify(tree.root, inner, 0, 4, tree.path(0)[1:])


@pytest.mark.parametrize(("key", "counter", "stream"), RFC8439)
def test_keystream_is_rfc_8439(harness: Any, key: str, counter: int, stream: str) -> None:
    """Zeros encrypted under the RFC's keystream are the honest chunk number `counter` of 64 bytes."""
    case = proof(bytes(64), index=counter, chunks=8, size=64, key=bytes.fromhex(key))
    assert case["cipher"].hex() == stream
    assert harness.chunkIsWrong(*arguments(case)) is False


@pytest.mark.parametrize("size", [64, 448, 512, 896, 1024, 4096])
def test_every_length_of_a_last_chunk(harness: Any, size: int) -> None:
    """Lengths around the blocks and around the seven blocks that are made at a time."""
    noise = random.Random(size)
    lengths = {1, 31, 32, 33, 63, 64, 65, 447, 448, 449, 511, size // 2, size - 1, size}
    for length in sorted(n for n in lengths if 0 < n <= size):
        data = noise.randbytes(length)
        assert harness.chunkIsWrong(*arguments(proof(data, index=2, chunks=3, size=size))) is False
        promised = plain_leaves(2, data[:-1] + bytes([data[-1] ^ 1]), size)
        assert (
            harness.chunkIsWrong(*arguments(proof(data, index=2, chunks=3, size=size, promised=promised)))
            is True
        )


def test_block_numbers_cross_the_32_bit_counter(harness: Any) -> None:
    """Chunks whose blocks end at, straddle and start past 2^32, in bundles above 256 GiB."""
    noise = random.Random(1)
    for size in (64, 448, 896):
        blocks = size // 64
        middle = (1 << 32) // blocks
        for index in {middle - 1, middle, middle + 1}:
            if index < (1 << 32):
                case = proof(noise.randbytes(size), index=index, chunks=1 << 32, size=size)
                assert harness.chunkIsWrong(*arguments(case)) is False
    last = proof(noise.randbytes(4096), index=(1 << 32) - 1, chunks=1 << 32, size=4096)
    assert harness.chunkIsWrong(*arguments(last)) is False


def test_a_leaf_over_another_length_is_wrong(harness: Any) -> None:
    data = bytes(100)
    promised = plain_leaves(1, data + b"\x00", 128)
    assert (
        harness.chunkIsWrong(*arguments(proof(data, index=1, chunks=2, size=128, promised=promised))) is True
    )


def test_random_chunks_agree_with_python(harness: Any) -> None:
    noise = random.Random(11)
    for _ in range(20):
        size = 64 * noise.randint(1, 20)
        chunks = noise.randint(1, 1 << noise.randint(1, 31))
        index, data = noise.randrange(chunks), noise.randbytes(noise.randint(1, size))
        case = proof(data, index=index, chunks=chunks, size=size, key=noise.randbytes(32))
        assert harness.chunkIsWrong(*arguments(case)) is False
        other = proof(
            data, index=index, chunks=chunks, size=size, key=case["key"], promised=noise.randbytes(32)
        )
        assert harness.chunkIsWrong(*arguments(other)) is True
        cipher = bytearray(case["cipher"])
        cipher[noise.randrange(len(cipher))] ^= 1 << noise.randrange(8)
        with reverts(harness.NotInDelivery):
            harness.chunkIsWrong(*arguments({**case, "cipher": bytes(cipher)}))


def test_starving_a_hash_of_gas_never_makes_an_honest_chunk_wrong(harness: Any, chain: Any) -> None:
    """A precompile that fails for want of gas must not look like another leaf."""
    call = harness.chunkIsWrong.encode_input(*arguments(proof(bytes(896), index=5, chunks=9, size=896)))
    results = set()
    for gas in range(60_000, 160_000, 650):
        try:
            made = chain.provider.web3.eth.call({"to": harness.address, "data": call, "gas": gas})
        except (ContractLogicError, Web3RPCError):
            results.add("reverted")
            continue
        results.add(int.from_bytes(made, "big"))
    assert results == {"reverted", 0}


def test_leaves_the_callers_memory_alone_or_refuses(harness: Any) -> None:
    case = VECTORS["trees"][4]
    given = (case["root"], case["leaf"], case["index"], case["leaves"], case["path"])
    for used in (0, 1000, 3900):
        assert harness.verifyWithMemory(used, *given) is True
    with reverts(harness.MemoryInUse):
        harness.verifyWithMemory(4096, *given)
