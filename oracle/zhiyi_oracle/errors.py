"""What an operator, fingerprinter or provider can do something about."""

from __future__ import annotations

import errno
from typing import Final

from zhiyi.errors import ZhiyiError

# What an operating system says of a stranger's file names, whatever the machine.
_OF_NAMES: Final = frozenset((errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.EEXIST))


class OracleError(ZhiyiError):
    """Base of the errors of zhiyi_oracle."""


class NotYet(OracleError):
    """Something awaited is not there: try again later; nothing was changed."""


class Unable(NotYet):
    """This operator's own key, disk or limits are in the way: it abstains, and tries again later."""


class NotSealedToUs(OracleError):
    """A sealed file does not open with this operator's key: its sender's fault, or ours if the key is a new one."""

    def __init__(self, message: str, key: bytes) -> None:
        """key: our X25519 public key, 32 bytes."""
        super().__init__(message)
        self.key = key


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


def names_at_fault(exc: OSError) -> bool:
    """Whether the error comes of what somebody else's files are called, not of this machine's state."""
    return exc.errno in _OF_NAMES
