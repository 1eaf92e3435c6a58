"""Usage channels: a deposit and cumulative vouchers signed off chain, so that a call costs no transaction."""

from __future__ import annotations

import secrets

from zhiyi import eip712
from zhiyi.chain import Event, TxResult
from zhiyi.errors import BadInput, IntegrityError, NotFound
from zhiyi.group import Group
from zhiyi.signers import Signer, sign
from zhiyi.types import (
    NATIVE,
    Channel,
    ChannelInfo,
    ChannelState,
    SignedVoucher,
    Voucher,
    keccak,
    to_address,
    to_bytes,
    to_hex,
)


def channel_id_of(channel: Channel, contract: str) -> bytes:
    """keccak256(abi.encode(contract, channel)): the id of a channel in this contract."""
    from eth_abi.abi import encode as abi_encode

    return keccak(abi_encode(["address", Channel.abi_type()], [to_address(contract), channel.as_tuple()]))


def verify_voucher(
    signed: SignedVoucher, info: ChannelInfo, *, owed: int, chain_id: int, contract: str
) -> None:
    """Provider, before it serves; asks nobody, so it is quick enough for every call.

    1. The voucher is of this channel. 2. It says at least `owed`, all that is owed since the opening. 3. The deposit
    reaches that far. 4. The channel's signer, a key, signed it. Raises BadInput (1-3), BadSignature (4). Read `info`
    anew now and then: a close request starts two days in which vouchers must be redeemed. A contract as signer is
    asked by `Chain.check_signature`.
    """
    voucher = signed.voucher
    if voucher.channel_id != info.channel_id:  # 1
        raise BadInput(
            f"the voucher is of channel {to_hex(voucher.channel_id)}, not {to_hex(info.channel_id)}"
        )
    if voucher.cumulative < owed:  # 2
        raise BadInput(f"the voucher says {voucher.cumulative}, {owed} are owed since the channel was opened")
    if info.state.deposited < owed:  # 3
        raise BadInput(
            f"the channel holds {info.state.deposited}, {owed} are owed: ask the payer to top it up"
        )
    data = eip712.voucher(voucher, chain_id, contract)  # 4
    eip712.check_signed_by(data, signed.signature, info.channel.signer)


class Usage(Group):
    """Pay per use (contract UsageChannel). The money lies in the vault; a channel's id is 32 bytes."""

    # -- payer ---------------------------------------------------------------------------------

    def channel(
        self,
        model_id: int,
        provider: str,
        *,
        amount: int,
        expiry: int,
        signer: str | None = None,
        license_id: int = 0,
        token: str = NATIVE,
    ) -> Channel:
        """A new channel of the caller, not opened yet.

        `signer` signs its vouchers: an API key of the payer's (default: the payer himself). `license_id` 0 where the
        provider owns the model, else the commercial license under which it serves.
        """
        return Channel(
            payer=self._chain.account,
            provider=provider,
            signer=signer or self._chain.account,
            token=token,
            amount=amount,
            expiry=expiry,
            model_id=model_id,
            license_id=license_id,
            salt=secrets.token_bytes(32),
        )

    def channel_id(self, channel: Channel) -> bytes:
        """Its id in this deployment."""
        return channel_id_of(channel, self._deployment.contracts["UsageChannel"])

    def open(self, channel: Channel, *, value: int = 0, dry_run: bool = False) -> TxResult:
        """Payer: locks the amount out of the free balance in the vault, to which `value` wei are added first."""
        return self._send("UsageChannel", "open", channel.as_tuple(), value=value, dry_run=dry_run)

    def top_up(self, channel_id: bytes, amount: int, *, value: int = 0, dry_run: bool = False) -> TxResult:
        """Payer: locks more, as `open` does. Not once a close was requested or the channel expired."""
        channel = self.get(channel_id).channel.as_tuple()
        return self._send("UsageChannel", "topUp", channel, amount, value=value, dry_run=dry_run)

    def request_close(self, channel_id: bytes, *, dry_run: bool = False) -> TxResult:
        """Payer: from now on the provider has two days to redeem what it holds."""
        return self._by_channel("requestClose", channel_id, dry_run=dry_run)

    # -- vouchers ------------------------------------------------------------------------------

    def voucher_data(self, voucher: Voucher) -> eip712.TypedData:
        """What the channel's signer signs."""
        return eip712.voucher(voucher, self._deployment.chain_id, self._deployment.contracts["UsageChannel"])

    def sign_voucher(self, voucher: Voucher, key: Signer | None = None) -> SignedVoucher:
        """A voucher signed with the payer's API key (default: the caller's own). Asks no node."""
        signature = sign(key or self._chain.signer, self.voucher_data(voucher))
        return SignedVoucher(voucher=voucher, signature=signature)

    def verify_voucher(self, signed: SignedVoucher, info: ChannelInfo, *, owed: int = 0) -> None:
        """Provider: as the function `verify_voucher`, for this deployment; asks no node."""
        contract = self._deployment.contracts["UsageChannel"]
        verify_voucher(signed, info, owed=owed, chain_id=self._deployment.chain_id, contract=contract)

    def redeem(self, signed: SignedVoucher, *, dry_run: bool = False) -> TxResult:
        """Provider, or anyone: pays out what the voucher adds to what was redeemed, as far as the deposit goes."""
        channel = self.get(signed.voucher.channel_id).channel.as_tuple()
        arguments = (channel, signed.voucher.cumulative, signed.signature)
        return self._send("UsageChannel", "redeem", *arguments, dry_run=dry_run)

    # -- end -----------------------------------------------------------------------------------

    def close(self, channel_id: bytes, *, dry_run: bool = False) -> TxResult:
        """Provider at any time; anyone two days after the payer's request or the expiry. The rest is the payer's."""
        return self._by_channel("close", channel_id, dry_run=dry_run)

    def _by_channel(self, function: str, channel_id: bytes, *, dry_run: bool) -> TxResult:
        channel = self.get(channel_id).channel.as_tuple()
        return self._send("UsageChannel", function, channel, dry_run=dry_run)

    # -- reading -------------------------------------------------------------------------------

    def get(self, channel_id: bytes) -> ChannelInfo:
        """A channel as it stands. Raises NotFound, IntegrityError."""
        found = self._events("UsageChannel", "ChannelOpened", {"channelId": to_bytes(channel_id, 32)})
        if not found:
            raise NotFound(f"no channel {to_hex(channel_id)} was opened")
        return self._info(found[0])

    def list(self, *, payer: str | None = None, provider: str | None = None) -> tuple[ChannelInfo, ...]:
        """Channels ever opened, oldest first, of one payer or provider, or all."""
        named = {"payer": payer, "provider": provider}
        filters = {name: to_address(who) for name, who in named.items() if who}
        return tuple(self._info(event) for event in self._events("UsageChannel", "ChannelOpened", filters))

    def _info(self, opened: Event) -> ChannelInfo:
        channel, channel_id = Channel.from_abi(opened["channel"]), bytes(opened["channelId"])
        if self.channel_id(channel) != channel_id:
            raise IntegrityError(f"the event of channel {to_hex(channel_id)} does not hash to its id")
        return ChannelInfo(
            channel_id=channel_id,
            channel=channel,
            state=ChannelState.from_abi(self._call("UsageChannel", "stateOf", channel_id)),
            opened_tx=opened.tx_hash,
        )
