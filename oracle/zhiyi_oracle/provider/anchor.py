"""Putting the log's new leaves on chain, one Merkle batch at a time.

Promises: safe to repeat and to interrupt; a batch that is on chain already is noted, not anchored twice.
"""

from __future__ import annotations

from zhiyi.client import Zhiyi
from zhiyi.evidence import topic_of
from zhiyi.usage_log import Anchored, UsageLog


def usage_topic(model_id: int) -> bytes:
    """The stream of one model's usage log."""
    return topic_of(f"zhiyi.usage.v1/{model_id}")


def anchor_pending(client: Zhiyi, log: UsageLog, model_id: int) -> Anchored | None:
    """Publishes the leaves' hashes on IPFS and their root on chain; None when nothing is new."""
    batch = log.pending()
    if batch is None:
        return None
    topic = usage_topic(model_id)
    cid = client.ipfs.add_bytes(batch.data)
    known = [a for a in client.evidence.anchors(client.account, topic) if a.root == batch.root]
    tx_hash = (
        known[-1].tx_hash if known else client.evidence.anchor(topic, batch.root, batch.count, cid).tx_hash
    )
    return log.mark_anchored(batch, cid=cid, tx_hash=tx_hash)
