"""An Ape account as a signer of the SDK: keystore, hardware wallet or test account, whatever Ape has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eth_account.messages import encode_typed_data

from zhiyi.errors import ConfigError


class ApeSigner:
    """Signs with `account` (an `ape.api.AccountAPI`) inside a connected network of Ape's."""

    def __init__(self, account: Any) -> None:
        self._account = account

    @property
    def address(self) -> str:
        """The signing account, checksummed."""
        return str(self._account.address)

    def sign_transaction(self, tx: Mapping[str, Any]) -> bytes:
        """The signed EIP-1559 transaction. Raises ConfigError when the account declines."""
        ecosystem = self._account.provider.network.ecosystem
        fields = {key: value for key, value in tx.items() if key != "to" or value}
        signed = self._account.sign_transaction(ecosystem.create_transaction(**fields, sender=self.address))
        if signed is None:
            raise ConfigError(f"{self.address} did not sign: repeat and confirm; what was done before stays")
        return bytes(signed.serialize_transaction())

    def sign_typed_data(
        self, domain: Mapping[str, Any], types: Mapping[str, Any], message: Mapping[str, Any]
    ) -> bytes:
        """65 bytes r | s | v. Raises ConfigError when the account declines."""
        signature = self._account.sign_message(encode_typed_data(dict(domain), dict(types), dict(message)))
        if signature is None:
            raise ConfigError(f"{self.address} did not sign: repeat and confirm")
        return bytes(signature.encode_rsv())
