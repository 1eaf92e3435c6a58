"""Marks: bits in, carrier out; carrier in, bits and p-value out. Knows no chain and no network."""

from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError, WatermarkError
from zhiyi_watermark.result import Detection

__all__ = ["CarrierError", "Detection", "SpecError", "UnavailableError", "WatermarkError"]
