"""Evidence log: ERC-7053 commits and anchored batches."""

from __future__ import annotations

from typing import Any

import ape
import pytest
from eth_abi import encode
from eth_utils import keccak
from market import System, path_of, reverts, sha, tree

CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
TOPIC, ROOT, DIGEST = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32


def test_commit_follows_erc7053(system: System) -> None:
    receipt = system.evidence.commit(CID, '{"assetCid":"x"}', sender=system.stranger)
    (event,) = receipt.decode_logs(system.evidence.Commit)
    assert event.recorder == system.stranger
    assert event.commitData == '{"assetCid":"x"}'
    log = receipt.logs[0]
    assert bytes(log["topics"][0]) == keccak(text="Commit(address,string,string)")
    assert bytes(log["topics"][2]) == keccak(text=CID)
    assert receipt.return_value == receipt.block_number


def test_get_commits_lists_blocks_across_words(system: System) -> None:
    blocks = [system.evidence.commit(CID, "", sender=system.stranger).block_number for _ in range(14)]
    assert system.evidence.getCommits(CID) == blocks
    assert system.evidence.getCommits(CID + "x") == []


def test_commit_needs_a_cid(system: System) -> None:
    with reverts(system.evidence.EmptyCid):
        system.evidence.commit("", "data", sender=system.stranger)


def test_anchors_form_a_chain(system: System) -> None:
    head = bytes(32)
    for count in (1, 1 << 20):
        receipt = system.evidence.anchor(TOPIC, ROOT, count, DIGEST, sender=system.stranger)
        time = ape.chain.blocks[receipt.block_number].timestamp
        types = ["bytes32", "bytes32", "uint32", "bytes32", "uint256"]
        head = keccak(encode(types, [head, ROOT, count, DIGEST, time]))
        (event,) = receipt.decode_logs(system.evidence.BatchAnchored)
        assert (event.recorder, event.topic, event.root) == (system.stranger, TOPIC, ROOT)
        assert (event.leafCount, event.cidDigest, event.head) == (count, DIGEST, head)
        assert system.evidence.headOf(system.stranger, TOPIC) == head
    assert system.evidence.headOf(system.stranger, ROOT) == bytes(32)
    assert system.evidence.headOf(system.buyer, TOPIC) == bytes(32)


def test_a_batch_has_between_one_leaf_and_a_million(system: System) -> None:
    with reverts(system.evidence.EmptyBatch):
        system.evidence.anchor(TOPIC, ROOT, 0, DIGEST, sender=system.stranger)
    with reverts(system.evidence.BatchTooLarge, values={"leafCount": (1 << 20) + 1, "max": 1 << 20}):
        system.evidence.anchor(TOPIC, ROOT, (1 << 20) + 1, DIGEST, sender=system.stranger)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_leaves_verify_at_their_place_only(system: System, count: int) -> None:
    leaves = [sha(b"leaf", bytes([i])) for i in range(count)]
    levels = tree(leaves)
    root = levels[-1][0]

    def holds(*args: Any) -> bool:
        return bool(system.evidence.verifyLeaf(*args))

    for index in range(count):
        path = path_of(levels, index)
        assert holds(root, leaves[index], index, count, path)
        assert not holds(root, leaves[index], index + 1, count, path)
        assert not holds(root, sha(b"else"), index, count, path)
        assert not holds(root, leaves[index], index, count, [*path, bytes(32)])
        assert not holds(sha(b"else"), leaves[index], index, count, path)
        for level in range(len(path)):
            bent = list(path)
            bent[level] = sha(b"bent")
            assert not holds(root, leaves[index], index, count, bent)
    assert not holds(root, leaves[0], 0, 0, [])
