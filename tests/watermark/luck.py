"""A check value that fits by chance: for a message read from pictures that were made for others."""

from __future__ import annotations

from typing import Any

import pytest

from zhiyi_watermark import payload
from zhiyi_watermark.payload import MAX_FINGERPRINT, MAX_USER, Long, PayloadCode


def lucky(monkeypatch: pytest.MonkeyPatch, code: PayloadCode, sums: Any) -> Long:
    """Gives the 64 bits that these sums are read as a right version and check value; the message that they are."""
    value = int("".join(map(str, code.data_bits(sums).tolist())), 2)
    head, check = value >> 16, value & 0xFFFF
    right = PayloadCode._mac
    monkeypatch.setattr(payload, "VERSION", head >> 44)
    monkeypatch.setattr(
        PayloadCode,
        "_mac",
        lambda self, given, size, bits: check if given == head else right(self, given, size, bits),
    )
    return Long(head >> 16 & MAX_FINGERPRINT, head & MAX_USER)
