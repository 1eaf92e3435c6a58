"""What an operator, fingerprinter or provider can do something about."""

from __future__ import annotations

from zhiyi.errors import ZhiyiError


class OracleError(ZhiyiError):
    """Base of the errors of zhiyi_oracle."""


class NotYet(OracleError):
    """Something awaited is not there: try again later; nothing was changed."""


class BadEvidence(OracleError):
    """The evidence is not what the case committed to, or is not a model. No retry helps."""


class BadBase(OracleError):
    """The base tensors are not the registered ones. No retry helps; the fingerprinter answers for it."""


class Refused(OracleError):
    """A request that this service must not serve; the message says which rule and what to do."""


class JudgeError(OracleError):
    """This operator cannot reach a ruling; it signs nothing and its log says why."""


class LyingPeer(OracleError):
    """A peer's attestation does not hold; it is not counted."""


class FeeCapReached(OracleError):
    """The transaction is not mined at the highest fee allowed: raise `max_fee_gwei` or wait."""
