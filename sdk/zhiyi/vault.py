"""The vault: free balances, stakes and bonds, all held by the escrow contract."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from zhiyi.abi import Interface
from zhiyi.chain import TxResult
from zhiyi.deployment import Contract
from zhiyi.errors import BadInput, TxReverted
from zhiyi.group import Group
from zhiyi.types import NATIVE, Bond, ListedToken, Royalty, Stake, to_address, to_bytes


def _function(name: str, inputs: tuple[str, ...], output: str, mutability: str) -> dict[str, Any]:
    named = [{"name": f"arg{i}", "type": kind} for i, kind in enumerate(inputs)]
    outputs = [{"name": "", "type": output}]
    return {
        "type": "function",
        "name": name,
        "inputs": named,
        "outputs": outputs,
        "stateMutability": mutability,
    }


class Permit(NamedTuple):
    """A signed EIP-2612 permit for the vault."""

    amount: int
    deadline: int  # unix seconds
    signature: bytes  # 65 bytes


ERC20: Final = Interface(
    "ERC20",
    [
        _function("approve", ("address", "uint256"), "bool", "nonpayable"),
        _function("allowance", ("address", "address"), "uint256", "view"),
        _function("balanceOf", ("address",), "uint256", "view"),
        _function("nonces", ("address",), "uint256", "view"),
        _function("name", (), "string", "view"),
        _function("version", (), "string", "view"),
    ],
)


class Vault(Group):
    """Money in the vault (contract LicenseEscrow). Payments are pulled: credited here, taken out by `withdraw`."""

    def deposit(
        self, amount: int, *, token: str = NATIVE, to: str | None = None, dry_run: bool = False
    ) -> TxResult:
        """Adds to the free balance of `to` (default: the caller). A token needs `approve` first."""
        if amount <= 0:
            raise BadInput(f"deposit a positive amount, not {amount}")
        receiver = to_address(to) if to else self._chain.account
        if to_address(token) == NATIVE:
            return self._send("LicenseEscrow", "depositNative", receiver, value=amount, dry_run=dry_run)
        return self._send(
            "LicenseEscrow", "depositToken", to_address(token), amount, receiver, dry_run=dry_run
        )

    def withdraw(
        self, amount: int, *, token: str = NATIVE, to: str | None = None, dry_run: bool = False
    ) -> TxResult:
        """Takes from the caller's free balance to `to` (default: the caller)."""
        if amount <= 0:
            raise BadInput(f"withdraw a positive amount, not {amount}")
        receiver = to_address(to) if to else self._chain.account
        return self._send("LicenseEscrow", "withdraw", to_address(token), amount, receiver, dry_run=dry_run)

    def approve(self, amount: int, *, token: str, dry_run: bool = False) -> TxResult:
        """Allows the vault to pull `amount` of an ERC-20 token from the caller."""
        contract = Contract("ERC20", to_address(token), ERC20)
        spender = self._deployment.contracts["LicenseEscrow"]
        return self._chain.send(contract, "approve", spender, amount, dry_run=dry_run)

    def sign_permit(self, amount: int, *, token: str, deadline: int) -> Permit:
        """Lets the vault pull `amount` of an EIP-2612 token without a transaction. Raises TxReverted for other tokens.

        The token's EIP-712 domain is its `name()` and `version()`, or version "1" where it tells none.
        """
        contract = Contract("ERC20", to_address(token), ERC20)
        try:
            version = str(self._chain.call(contract, "version"))
        except TxReverted:
            version = "1"
        domain = {
            "name": str(self._chain.call(contract, "name")),
            "version": version,
            "chainId": self._deployment.chain_id,
            "verifyingContract": contract.address,
        }
        fields = ("owner", "address"), ("spender", "address"), ("value", "uint256"), ("nonce", "uint256")
        types = {"Permit": [{"name": n, "type": t} for n, t in (*fields, ("deadline", "uint256"))]}
        message = {
            "owner": self._chain.account,
            "spender": self._deployment.contracts["LicenseEscrow"],
            "value": amount,
            "nonce": self._chain.call(contract, "nonces", self._chain.account),
            "deadline": deadline,
        }
        return Permit(amount, deadline, self._chain.signer.sign_typed_data(domain, types, message))

    def balance(self, account: str | None = None, *, token: str = NATIVE) -> int:
        """Free balance of an account (default: the caller)."""
        who = to_address(account) if account else self._chain.account
        return int(self._call("LicenseEscrow", "balanceOf", who, to_address(token)))

    def token_balance(self, account: str | None = None, *, token: str) -> int:
        """What an account (default: the caller) holds of an ERC-20 token outside the vault."""
        who = to_address(account) if account else self._chain.account
        return int(self._chain.call(Contract("ERC20", to_address(token), ERC20), "balanceOf", who))

    def stake_of(self, account: str) -> Stake:
        """Stake of an operator or fingerprinter, wei."""
        return Stake.from_abi(self._call("LicenseEscrow", "stakeOf", to_address(account)))

    def bond_of(self, license_id: int) -> Bond:
        """Misuse bond of a license."""
        return Bond.from_abi(self._call("LicenseEscrow", "bondOf", license_id))

    def case_bond_of(self, case_id: bytes) -> int:
        """What is locked under a case, wei."""
        return int(self._call("LicenseEscrow", "caseBondOf", to_bytes(case_id, 32)))

    def royalty_of(self, model_id: int, *, token: str = NATIVE) -> Royalty:
        """What a model earned, and what of it and of its descendants' shares nobody has pulled yet."""
        return Royalty.from_abi(self._call("LicenseEscrow", "royaltyOf", model_id, to_address(token)))

    def channel_funds(self, *, token: str = NATIVE) -> int:
        """What all usage channels together hold."""
        return int(self._call("LicenseEscrow", "channelFunds", to_address(token)))

    def list_token(self, token: str, listed: bool = True, *, dry_run: bool = False) -> TxResult:
        """Steward, once scheduled (`access.schedule`): allows a token for new orders and deposits, or stops it.

        List only tokens that move exactly what they are told, never rebase, and cannot block one holder alone. What is
        held stays withdrawable.
        """
        return self._send("LicenseEscrow", "listToken", to_address(token), listed, dry_run=dry_run)

    def tokens(self) -> tuple[ListedToken, ...]:
        """Every ERC-20 token that was ever listed, in the order of their numbers. The chain's coin needs no listing."""
        last = {int(e["index"]): e for e in self._events("LicenseEscrow", "TokenListed")}
        return tuple(
            ListedToken(token=event["token"], index=index, listed=event["listed"])
            for index, event in sorted(last.items())
        )

    def treasury(self) -> str:
        """The account that gets what belongs to nobody else."""
        return str(self._call("LicenseEscrow", "treasury"))
