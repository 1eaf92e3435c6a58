"""What can go wrong, one class for each thing the caller can do about it. All derive from `ZhiyiError`.

The values behind a message are attributes, so that a program need not read the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ZhiyiError(Exception):
    """Base of every error the SDK raises on purpose."""


class ConfigError(ZhiyiError):
    """A setting, file or service that has to be there is not. Fix the configuration, then repeat."""


class MissingExtra(ConfigError):
    """The call needs an optional part of the package."""

    def __init__(self, extra: str) -> None:
        super().__init__(f"this needs the optional part {extra!r}: pip install 'zhiyi[{extra}]'")
        self.extra = extra


class WrongChain(ConfigError):
    """The node, the deployment file and the caller do not mean the same chain."""

    def __init__(self, found: int, expected: int, where: str) -> None:
        super().__init__(
            f"{where} is chain {found}, expected chain {expected}: use another RPC URL or deployment file"
        )
        self.found = found
        self.expected = expected


class RpcUnavailable(ZhiyiError):
    """No node answered. Nothing changed that the SDK knows of; try again or name another RPC URL."""


class RpcRefused(ZhiyiError):
    """The node answered with an error of its own (`code`, `message`, `data`)."""

    def __init__(self, method: str, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"the node refused {method}: {message} (code {code})")
        self.method = method
        self.code = code
        self.message = message
        self.data = data


class TxReverted(ZhiyiError):
    """A contract refused. `error_name` and `values` come from its ABI, `hint` says what to do next.

    `hint_zh` is the hint in Chinese. `tx_hash` is set when the transaction was mined and failed, None when
    the simulation before sending showed it.
    """

    def __init__(
        self,
        error_name: str,
        values: Mapping[str, Any],
        hint: str,
        *,
        hint_zh: str = "",
        function: str = "",
        data: bytes = b"",
        tx_hash: str | None = None,
    ) -> None:
        shown = ", ".join(f"{key}={_show(value)}" for key, value in values.items())
        text = f"{function}: " if function else ""
        text += f"{error_name}({shown})"
        if tx_hash:
            text += f" in {tx_hash}"
        super().__init__(f"{text}. {hint}" if hint else text)
        self.error_name = error_name
        self.values = dict(values)
        self.hint = hint
        self.hint_zh = hint_zh
        self.function = function
        self.data = data
        self.tx_hash = tx_hash


class InsufficientFunds(ZhiyiError):
    """The account has too little to pay for value and gas."""

    def __init__(self, account: str, message: str) -> None:
        super().__init__(f"{account} has too little: {message}. Fund the account, then repeat")
        self.account = account


class BadSignature(ZhiyiError):
    """A signature is malformed or is not by the account that had to sign."""


class BadInput(ZhiyiError):
    """An argument or outside data breaks a rule; nothing was sent."""


class NotFound(ZhiyiError):
    """No such model, license, order, case, file or event."""


class IntegrityError(ZhiyiError):
    """Data does not match the hash, CID or chain record that fixes it. Do not use the data."""


class Timeout(ZhiyiError):
    """Something did not happen in time; it may still happen. `tx_hash` names a pending transaction."""

    def __init__(self, message: str, *, tx_hash: str | None = None) -> None:
        super().__init__(message)
        self.tx_hash = tx_hash


def _show(value: Any) -> str:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return str(value)
