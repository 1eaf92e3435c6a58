"""What a caller of the marks can do something about."""

from __future__ import annotations


class WatermarkError(Exception):
    """Base of every error raised by zhiyi_watermark."""


class SpecError(WatermarkError):
    """A specification, key, payload or argument is not usable: correct the value that the message names."""


class CarrierError(WatermarkError):
    """A file is malformed or hostile: do not load it with anything else either."""


class UnavailableError(WatermarkError):
    """The object is well-formed but lacks what the detector needs (tensors, shapes, tokens)."""
