"""The judge's ledger and poster over a real chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from zhiyi import abi
from zhiyi.chain import DEFAULT_PRIORITY_FEE
from zhiyi.cid import cid_v0_from_digest
from zhiyi.client import Zhiyi
from zhiyi.errors import RpcRefused
from zhiyi.types import (
    CaseFile,
    CaseState,
    Epoch,
    OpenedShare,
    PostedVerdict,
    Verdict,
    keccak,
    to_hex,
)
from zhiyi_oracle.judge.ledger import (
    CaseEnded,
    CaseSeen,
    CaseStatus,
    Fee,
    Head,
    Mined,
    Observation,
    RegisteredKey,
    RegisteredModel,
    ServiceAsked,
    ServiceDone,
    ShareSeen,
    SignedTx,
    VerdictSeen,
)

GAS_FACTOR: Final = 1.25  # over the estimate: state may change between simulation and mining
_KNOWN: Final = ("already known", "already imported", "known transaction")


class ChainLedger:
    """Reads of one judge. Implements `Ledger`."""

    def __init__(self, client: Zhiyi) -> None:
        self._client = client
        self._chain = client.chain
        self._court = client.deployment.contract("MisuseCourt")
        self._epochs: dict[int, Epoch] = {}

    def finalized(self) -> int:
        """Number of the last finalized block."""
        return self._chain.block("finalized").number

    def head(self) -> Head:
        """The latest block, with the court's clock."""
        number = self._chain.block("latest").number
        return Head(number, int(self._chain.call(self._court, "clock", block=number)))

    def observations(self, first: int, last: int) -> list[Observation]:
        """Events of the court in blocks first .. last, in order."""
        found: list[Observation] = []
        for event in self._chain.events(self._court, from_block=first, to_block=last):
            if event.name == "CaseOpened":
                file = CaseFile.from_abi(event["file"])
                found.append(CaseSeen(event.block_number, event["caseId"], file))
            elif event.name == "ShareOpened":
                share = OpenedShare(
                    case_id=event["caseId"],
                    license_id=event["licenseId"],
                    index=event["index"],
                    seed=event["seed"],
                    base_cid=cid_v0_from_digest(event["baseDigest"]),
                )
                found.append(ShareSeen(event.block_number, share))
            elif event.name == "VerdictPosted":
                posted = PostedVerdict(
                    verdict=Verdict.from_abi(event["verdict"]),
                    bitmap=event["bitmap"],
                    challenge_until=event["challengeUntil"],
                )
                found.append(VerdictSeen(event.block_number, event["caseId"], posted))
            elif event.name == "VerdictFinal":
                found.append(CaseEnded(event.block_number, event["caseId"], CaseState(event["state"])))
            elif event.name == "ServiceRequested":
                key, serve_by = event["encryptionKey"], event["serveBy"]
                found.append(ServiceAsked(event.block_number, event["caseId"], key, serve_by))
            elif event.name == "Served":
                found.append(ServiceDone(event.block_number, event["caseId"]))
        return found

    def epoch(self, number: int) -> Epoch:
        """The committee of an epoch, as the contract keeps it; it never changes."""
        if number not in self._epochs:
            self._epochs[number] = self._client.oracles.epoch(number)
        return self._epochs[number]

    def peer_urls(self, epoch: Epoch) -> dict[str, str]:
        """URL by signer, as the members behind the seats registered them last."""
        seats = self._client.oracles.seats(epoch.number)
        return {signer: info.url for signer, info in zip(epoch.signers, seats, strict=True) if info.url}

    def encryption_key(self, epoch: Epoch, signer: str) -> RegisteredKey:
        """From the member's events, the latest block included."""
        account = self._client.oracles.seats(epoch.number)[epoch.seat(signer)].account
        return RegisteredKey(*self._client.oracles.encryption_key_of(account))

    def models_of(self, file: CaseFile) -> Sequence[RegisteredModel]:
        """The versions that the license can be of, else the one in force. Checked against the chain's hashes."""
        if file.license_id:
            found = self._client.models.versions_at(file.license_id)
            return [RegisteredModel(file.model_id, one.record, one.metadata_cid) for one in found]
        model = self._client.models.get(file.model_id)
        return [RegisteredModel(file.model_id, model.record, model.record_cid)]

    def case_status(self, case_id: bytes) -> CaseStatus:
        """At the head of the chain."""
        state, _, _, share_index = self._chain.call(self._court, "caseState", case_id)
        return CaseStatus(CaseState(state), int(share_index))

    def verdict_digest(self, verdict: Verdict) -> bytes:
        """The 32 bytes that operators sign."""
        return self._client.cases.verdict_data(verdict).digest()

    def sign_verdict(self, verdict: Verdict) -> bytes:
        """This operator's signature."""
        return self._client.cases.sign_verdict(verdict)


class ChainPoster:
    """Writes of one judge. Implements `Poster`."""

    def __init__(self, client: Zhiyi) -> None:
        self._chain = client.chain
        self._court = client.deployment.contract("MisuseCourt")

    def build(
        self,
        file: CaseFile,
        verdict: Verdict,
        seats: Sequence[str],
        bitmap: int,
        signatures: bytes,
        *,
        fee: Fee,
        nonce: int | None,
    ) -> SignedTx:
        """Simulates `postVerdict`, then signs it. Raises TxReverted with the decoded reason."""
        args = (file.as_tuple(), verdict.as_tuple(), list(seats), bitmap, signatures)
        return self._signed("postVerdict", args, fee, nonce)

    def build_serving(
        self, file: CaseFile, seat: int, digest: bytes, *, fee: Fee, nonce: int | None
    ) -> SignedTx:
        """Simulates `serve`, then signs it. Raises TxReverted with the decoded reason."""
        return self._signed("serve", (file.as_tuple(), seat, digest), fee, nonce)

    def _signed(self, function: str, args: tuple[object, ...], fee: Fee, nonce: int | None) -> SignedTx:
        account = self._chain.account
        self._chain.call(self._court, function, *args, sender=account)
        data = to_hex(abi.encode_call(self._court.interface.function(function), args))
        ask = {"from": account, "to": self._court.address, "data": data}
        gas = int(self._chain.rpc("eth_estimateGas", ask), 16)
        if nonce is None:
            nonce = int(self._chain.rpc("eth_getTransactionCount", account, "pending"), 16)
        raw = self._chain.signer.sign_transaction(
            {
                "type": 2,
                "chainId": self._chain.chain_id,
                "nonce": nonce,
                "gas": int(gas * GAS_FACTOR),
                "to": self._court.address,
                "value": 0,
                "data": data,
                "maxFeePerGas": fee.most,
                "maxPriorityFeePerGas": fee.tip,
            }
        )
        return SignedTx(to_hex(keccak(raw)), raw, nonce, fee)

    def suggest_fee(self) -> Fee:
        """Twice the base fee and the node's priority fee."""
        try:
            tip = int(self._chain.rpc("eth_maxPriorityFeePerGas"), 16)
        except RpcRefused:
            tip = DEFAULT_PRIORITY_FEE
        return Fee(2 * self._chain.block().base_fee + tip, tip)

    def send(self, tx: bytes) -> None:
        """Hands a signed transaction to a node. A node that has it, or has mined its nonce, is no error."""
        try:
            self._chain.rpc("eth_sendRawTransaction", to_hex(tx))
        except RpcRefused as exc:
            text = exc.message.lower()
            if not any(known in text for known in _KNOWN) and "nonce too low" not in text:
                raise

    def mined(self, tx_hash: str) -> Mined | None:
        """None while it is not in a block."""
        receipt = self._chain.receipt(tx_hash)
        if receipt is None:
            return None
        return Mined(int(receipt["blockNumber"], 16), int(receipt["status"], 16) == 1)
