"""The usage log: leaves, batches, proofs, crashes."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import ValidationError

from zhiyi.errors import BadInput, ConfigError, IntegrityError, NotFound
from zhiyi.usage_log import InclusionProof, UsageLeaf, UsageLog, output_hash, user_commitment

SALT = b"\x05" * 32


def leaf(number: int) -> UsageLeaf:
    return UsageLeaf(
        model_id=7,
        user_number=number % 3,
        user_commitment=user_commitment("user", SALT),
        nonce=number.to_bytes(16, "big"),
        output_hash=output_hash(f"text {number}"),
        time=1_700_000_000 + number,
    )


def test_leaf_hash_is_fixed_width_big_endian() -> None:
    packed = b"\x04" + (7).to_bytes(8, "big") + (1).to_bytes(4, "big") + sha256(SALT + b"user").digest()
    packed += (1).to_bytes(16, "big") + sha256(b"\x06text 1").digest() + (1_700_000_001).to_bytes(8, "big")
    assert leaf(1).hash() == sha256(packed).digest()


def test_every_field_of_a_leaf_counts() -> None:
    base = leaf(1)
    changes: list[dict[str, object]] = [
        {"model_id": 8},
        {"user_number": 2},
        {"user_commitment": bytes(32)},
        {"nonce": bytes(16)},
        {"output_hash": bytes(32)},
        {"time": 0},
    ]
    assert len({base.hash(), *(base.model_copy(update=c).hash() for c in changes)}) == 7


def test_output_hash_ignores_unicode_form_only() -> None:
    assert output_hash("é ①") == output_hash("e\u0301 1")
    assert output_hash("a") != output_hash("a ")


def test_leaves_are_found_again_after_reopening(tmp_path: Path) -> None:
    with UsageLog(tmp_path) as log:
        assert [log.append(leaf(i)) for i in range(5)] == list(range(5))
    with UsageLog(tmp_path) as log:
        assert len(log) == 5
        assert [log.leaf(i) for i in range(5)] == [leaf(i) for i in range(5)]
        assert log.find(output_hash("text 3")) == [3]
        assert log.of_user(1) == [1, 4]
        with pytest.raises(NotFound):
            log.leaf(5)


def test_batches_follow_each_other_and_prove_their_leaves(tmp_path: Path) -> None:
    with UsageLog(tmp_path) as log:
        assert log.pending() is None
        for i in range(5):
            log.append(leaf(i))
        first = log.pending(3)
        assert first is not None
        with pytest.raises(NotFound, match="not in an anchored batch"):
            log.proof(0)
        log.mark_anchored(first, cid="Qm", tx_hash="0x01")
        with pytest.raises(BadInput, match="starts at leaf 3"):
            log.mark_anchored(first, cid="Qm", tx_hash="0x01")
        second = log.pending()
        assert second is not None
        assert (second.first, second.count) == (3, 2)
        log.mark_anchored(second, cid="Qm", tx_hash="0x02")
        assert log.pending() is None
        for number in range(5):
            proof = InclusionProof.model_validate_json(log.proof(number).model_dump_json())
            assert proof.leaf == leaf(number)
            proof.verify((first, second)[number >= 3].root)
            with pytest.raises(IntegrityError):
                proof.verify((first, second)[number < 3].root)


def test_forged_proofs_fail(tmp_path: Path) -> None:
    with UsageLog(tmp_path) as log:
        for i in range(4):
            log.append(leaf(i))
        proof = log.batch(0, 4).proof(1)
    root = proof.root
    proof.verify(root)
    for change in (
        {"leaf": leaf(2)},
        {"index": 2},
        {"path": proof.path[::-1]},
        {"leaf_count": 3, "index": 2},
    ):
        with pytest.raises(IntegrityError):
            proof.model_copy(update=change).verify(root)
    for change in ({"index": 4}, {"path": proof.path[:1]}, {"leaf_count": 0}):
        with pytest.raises(BadInput):
            proof.model_copy(update=change).verify(root)


def test_half_written_line_is_cut(tmp_path: Path) -> None:
    with UsageLog(tmp_path) as log:
        log.append(leaf(0))
    with (tmp_path / "leaves.jsonl").open("ab") as file:
        file.write(b'{"model_id":7,"user_')
    with UsageLog(tmp_path) as log:
        assert len(log) == 1
        log.append(leaf(1))
        assert log.leaf(1) == leaf(1)


def test_changed_log_is_noticed(tmp_path: Path) -> None:
    with UsageLog(tmp_path) as log:
        for i in range(2):
            log.append(leaf(i))
        batch = log.pending()
        assert batch is not None
        log.mark_anchored(batch, cid="", tx_hash="0x01")
    path = tmp_path / "leaves.jsonl"
    path.write_text(path.read_text().replace("1700000001", "1700000009"))
    with UsageLog(tmp_path) as log, pytest.raises(IntegrityError, match="no longer give the root"):
        log.proof(0)
    path.write_text("{}\n")
    with UsageLog(tmp_path) as log, pytest.raises(IntegrityError, match="no UsageLeaf"):
        log.leaf(0)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with UsageLog(tmp_path), pytest.raises(ConfigError, match="in use"):
        UsageLog(tmp_path)


def test_bad_leaves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        user_commitment("u", b"short")
    with pytest.raises(ValidationError):
        leaf(0).model_validate({**leaf(0).model_dump(), "time": -1})
    with UsageLog(tmp_path) as log, pytest.raises(BadInput):
        log.append(leaf(0).model_copy(update={"nonce": b"x"}))
    fresh = UsageLeaf.of(model_id=1, user_number=2, commitment=bytes(32), output=bytes(32), time=3)
    assert len(fresh.nonce) == 16
