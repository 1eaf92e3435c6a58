"""One EVM chain: calls, transactions, receipts and events.

A write is simulated first, so that a refusal is decoded before anything is paid; then signed with the next nonce, sent,
watched and, if it stays pending, sent again for a higher fee under a cap. A mined success is never reported as failure:
past the point of sending, only a mined revert raises TxReverted, and a missing receipt is a Timeout with the hash.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, PlainSerializer

from zhiyi import abi
from zhiyi.deployment import Contract, Deployment
from zhiyi.eip712 import TypedData, recover
from zhiyi.errors import (
    BadInput,
    BadSignature,
    ConfigError,
    InsufficientFunds,
    IntegrityError,
    NotFound,
    RpcRefused,
    RpcUnavailable,
    Timeout,
    TxReverted,
    WrongChain,
    ZhiyiError,
)
from zhiyi.reverts import reverted
from zhiyi.signers import Signer, UnsignedSigner
from zhiyi.types import Value, keccak, to_address, to_bytes, to_hex

if TYPE_CHECKING:  # web3 takes over a second to import
    from web3 import HTTPProvider, Web3

logger = logging.getLogger(__name__)

ERC1271_MAGIC: Final = bytes.fromhex("1626ba7e")
DEFAULT_PRIORITY_FEE: Final = 10**9  # wei, where the node suggests none
NONCE_TRIES: Final = 4
READ_ROUNDS: Final = 2  # over all endpoints
MAX_LOG_BLOCKS: Final = 10_000

Tag = int | str  # block number, or latest, pending, safe, finalized, earliest


def jsonable(value: Any) -> Any:
    """The value with every `bytes` as 0x-hex."""
    if isinstance(value, bytes):
        return to_hex(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value


_JSON = PlainSerializer(jsonable, when_used="json")


class ChainOptions(Value):
    """Times in seconds, fees in wei per gas."""

    rpc_timeout: float = 30.0
    receipt_timeout: float = 180.0
    poll: float = 0.25
    gas_factor: Annotated[float, Field(ge=1.0)] = 1.25
    max_fee_per_gas: int | None = None  # never pay more
    bump_after: float = 45.0  # a transaction pending so long is sent again for more
    bump_factor: Annotated[float, Field(ge=1.125)] = 1.25  # nodes refuse less than 12.5 % (geth: 10 %)


class Block(Value):
    """A block's header, as far as we need it."""

    number: int
    hash: str
    parent_hash: str
    timestamp: int
    base_fee: int


class Event(Value):
    """A decoded log. `args` carry the Solidity event's names; structs are mappings, bytes32 is bytes."""

    contract: str
    name: str
    args: Annotated[dict[str, Any], _JSON]
    address: str
    block_number: int
    block_hash: str
    tx_hash: str
    log_index: int

    def __getitem__(self, name: str) -> Any:
        return self.args[name]


class TxResult(Value):
    """What a write did (`mined`), would do (`simulated`: gas is an estimate) or asks to be signed (`unsigned`)."""

    status: Literal["mined", "simulated", "unsigned"]
    function: str
    tx_hash: str = ""
    block_number: int = 0
    gas_used: int = 0
    gas_cost: int = 0  # wei
    events: tuple[Event, ...] = ()
    returned: Annotated[Any, _JSON] = None  # what the simulation returned
    receipt: Annotated[dict[str, Any], _JSON] = Field(default_factory=dict)
    transaction: Annotated[dict[str, Any], _JSON] = Field(default_factory=dict)

    def all(self, name: str) -> tuple[Event, ...]:
        """The events of that name, in order."""
        return tuple(event for event in self.events if event.name == name)

    def event(self, name: str) -> Event:
        """The only event of that name. Raises NotFound when there is not exactly one."""
        found = self.all(name)
        if len(found) != 1:
            raise NotFound(
                f"{self.function} left {len(found)} events {name}, expected one (status {self.status})"
            )
        return found[0]

    @property
    def model_id(self) -> int:
        """Of the model registered. Raises NotFound."""
        return int(self._first("ModelRegistered", "modelId"))

    @property
    def license_id(self) -> int:
        """Of the order opened or the license issued. Raises NotFound."""
        for name in ("LicenseIssued", "OrderOpened"):
            if self.all(name):
                return int(self.event(name)["licenseId"])
        raise NotFound(f"{self.function} opened no order and issued no license")

    @property
    def case_id(self) -> bytes:
        """Of the case opened. Raises NotFound."""
        return bytes(self._first("CaseOpened", "caseId"))

    def _first(self, event: str, argument: str) -> Any:
        if self.status == "simulated" and not self.events and self.returned is not None:
            return self.returned
        return self.event(event)[argument]


class _Nonces:
    """Next nonce of one account on one chain, shared by all clients in the process."""

    _all: Final[dict[tuple[int, str], _Nonces]] = {}
    _guard: Final = threading.Lock()

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.last: tuple[int, str] | None = None  # nonce and hash of the last transaction sent

    @classmethod
    def of(cls, chain_id: int, account: str) -> _Nonces:
        with cls._guard:
            return cls._all.setdefault((chain_id, account), cls())


class Chain:
    """A chain behind one or more RPC endpoints, and the account that signs."""

    def __init__(
        self,
        rpc: str | Sequence[str],
        *,
        signer: Signer | None = None,
        chain_id: int | None = None,
        options: ChainOptions | None = None,
    ) -> None:
        """`rpc`: http(s) URLs, tried in order; all must be the same chain. Raises ConfigError for other URLs."""
        urls = (rpc,) if isinstance(rpc, str) else tuple(rpc)
        if not urls or any(not url.startswith(("http://", "https://")) for url in urls):
            raise ConfigError(f"RPC endpoints must be http(s) URLs, given {list(urls)}")
        self.urls = urls
        self.options = options or ChainOptions()
        self._signer = signer
        self._expected = chain_id
        self._checked: set[str] = set()
        self._interfaces: dict[str, Contract] = {}

    # -- node ----------------------------------------------------------------------------------

    @cached_property
    def _providers(self) -> tuple[HTTPProvider, ...]:
        from web3 import HTTPProvider

        timeout = {"timeout": self.options.rpc_timeout}
        return tuple(
            HTTPProvider(u, request_kwargs=timeout, exception_retry_configuration=None) for u in self.urls
        )

    @cached_property
    def w3(self) -> Web3:
        """A web3.py client of the first endpoint, for what the SDK does not cover."""
        from web3 import Web3

        return Web3(self._providers[0])

    @property
    def signer(self) -> Signer:
        """The account that signs. Raises ConfigError when the client was made without one."""
        if self._signer is None:
            raise ConfigError("this needs an account: connect with signer=…")
        return self._signer

    @property
    def account(self) -> str:
        """Address of the signer. Raises ConfigError."""
        return self.signer.address

    @property
    def chain_id(self) -> int:
        """Of the endpoints. Raises RpcUnavailable, WrongChain."""
        if self._expected is None:
            self._expected = int(self._request(0, "eth_chainId"), 16)
            self._checked.add(self.urls[0])
        return self._expected

    def rpc(self, method: str, *params: Any) -> Any:
        """One JSON-RPC request, tried at each endpoint in turn.

        Raises RpcUnavailable when none answers, RpcRefused when one answers with an error.
        """
        return self._in_turn(method, lambda index: self._request(index, method, *params))

    def _logs(self, query: Mapping[str, Any]) -> Any:
        """The logs of a query, from an endpoint that has its last block: one that lags would say there are none."""

        def ask(index: int) -> Any:
            if self._request(index, "eth_getBlockByNumber", query["toBlock"], False) is None:
                raise RpcUnavailable(f"{self.urls[index]} has no block {int(query['toBlock'], 16)} yet")
            return self._request(index, "eth_getLogs", query)

        return self._in_turn("eth_getLogs", ask)

    def _in_turn(self, method: str, ask: Callable[[int], Any]) -> Any:
        failed: list[str] = []
        for attempt in range(READ_ROUNDS * len(self.urls)):
            index = attempt % len(self.urls)
            if attempt == len(self.urls):
                time.sleep(self.options.poll)
            try:
                self._check_endpoint(index)
                return ask(index)
            except RpcUnavailable as exc:
                failed.append(str(exc))
        raise RpcUnavailable(f"no RPC endpoint answered {method}: {'; '.join(dict.fromkeys(failed))}")

    def _check_endpoint(self, index: int) -> None:
        if self.urls[index] in self._checked:
            return
        found = int(self._request(index, "eth_chainId"), 16)
        if self._expected is None:
            self._expected = found
        if found != self._expected:
            raise WrongChain(found, self._expected, f"endpoint {self.urls[index]}")
        self._checked.add(self.urls[index])

    def _request(self, index: int, method: str, *params: Any) -> Any:
        from requests.exceptions import RequestException

        try:
            reply: Any = self._providers[index].make_request(method, list(params))
        except (RequestException, ValueError, OSError) as exc:
            raise RpcUnavailable(f"{self.urls[index]}: {type(exc).__name__}: {exc}") from exc
        if not isinstance(reply, dict) or ("result" not in reply and "error" not in reply):
            raise RpcUnavailable(f"{self.urls[index]} sent no JSON-RPC answer")
        if reply.get("error") is not None:
            error = reply["error"]
            if not isinstance(error, dict):
                raise RpcRefused(method, 0, str(error))
            raise RpcRefused(
                method, int(error.get("code", 0)), str(error.get("message", "")), error.get("data")
            )
        return reply["result"]

    def block(self, tag: Tag = "latest") -> Block:
        """A block by number or tag. Raises NotFound when the chain has no such block."""
        raw = self.rpc("eth_getBlockByNumber", _tag(tag), False)
        if raw is None:
            raise NotFound(f"the chain has no block {tag}")
        return Block(
            number=int(raw["number"], 16),
            hash=raw["hash"],
            parent_hash=raw["parentHash"],
            timestamp=int(raw["timestamp"], 16),
            base_fee=int(raw.get("baseFeePerGas") or "0x0", 16),
        )

    def now(self) -> int:
        """Time of the latest block, unix seconds: the only clock that contracts know."""
        return self.block().timestamp

    def balance(self, address: str, block: Tag = "latest") -> int:
        """Native coin, wei."""
        return int(self.rpc("eth_getBalance", to_address(address), _tag(block)), 16)

    def code(self, address: str) -> bytes:
        """The code at an address, empty if none."""
        return to_bytes(self.rpc("eth_getCode", to_address(address), "latest"))

    # -- reading -------------------------------------------------------------------------------

    def know(self, deployment: Deployment) -> None:
        """Events of these contracts are decoded from now on."""
        for name in deployment.contracts:
            if name in abi.NAMES:
                contract = deployment.contract(name)
                self._interfaces[contract.address] = contract

    def call(
        self,
        contract: Contract,
        function: str,
        *args: Any,
        block: Tag = "latest",
        sender: str | None = None,
        value: int = 0,
    ) -> Any:
        """A read: one value, a tuple of values, or a mapping for a struct. Raises TxReverted."""
        entry = contract.interface.function(function)
        tx: dict[str, Any] = {"to": contract.address, "data": to_hex(abi.encode_call(entry, args))}
        if sender:
            tx["from"] = to_address(sender)
        if value:
            tx["value"] = hex(value)
        label = f"{contract.name}.{entry['name']}"
        return abi.decode_output(entry, self._eth_call(tx, label, _tag(block)))

    def _eth_call(self, tx: Mapping[str, Any], label: str, block: str) -> bytes:
        try:
            data = to_bytes(self.rpc("eth_call", dict(tx), block))
        except RpcRefused as exc:
            raise self._translated(exc, label, str(tx.get("from", ""))) from exc
        if not data and label and not self.code(tx["to"]):
            raise ConfigError(f"{label}: no contract at {tx['to']}; the deployment file is not of this chain")
        return data

    def _translated(
        self, exc: RpcRefused, label: str, account: str, *, tx_hash: str | None = None
    ) -> Exception:
        text = exc.message.lower()
        if "insufficient funds" in text or "insufficient balance" in text:
            return InsufficientFunds(account, exc.message)
        data = exc.data.get("data", exc.data.get("result")) if isinstance(exc.data, dict) else exc.data
        if exc.code == 3 or "revert" in text:
            raw = bytes.fromhex(data[2:]) if isinstance(data, str) and data.startswith("0x") else b""
            return reverted(raw, label, message=exc.message, tx_hash=tx_hash)
        return exc

    def receipt(self, tx_hash: str) -> dict[str, Any] | None:
        """The receipt as the node gives it, None while pending or unknown."""
        found: dict[str, Any] | None = self.rpc("eth_getTransactionReceipt", tx_hash)
        return found

    def result(self, tx_hash: str) -> TxResult:
        """What a mined transaction did. Raises NotFound while it is not mined, TxReverted when it failed."""
        receipt = self.receipt(tx_hash)
        if receipt is None:
            raise NotFound(f"transaction {tx_hash} is not mined")
        return self._mined(receipt, "transaction")

    def decode(self, logs: Iterable[Mapping[str, Any]]) -> Iterator[Event]:
        """The logs of known contracts as events; what is not understood is left out."""
        for log in logs:
            contract = self._interfaces.get(to_address(log["address"]))
            topics = [to_bytes(t) for t in log["topics"]]
            entry = contract.interface.topics.get(topics[0]) if contract and topics else None
            if contract is None or entry is None:
                continue
            try:
                args = abi.decode_event(entry, topics, to_bytes(log["data"]))
            except (IntegrityError, BadInput) as exc:
                logger.warning("log %s of %s is left out: %s", log.get("logIndex"), contract.name, exc)
                continue
            yield Event(
                contract=contract.name,
                name=entry["name"],
                args=args,
                address=contract.address,
                block_number=int(log["blockNumber"], 16),
                block_hash=log["blockHash"],
                tx_hash=log["transactionHash"],
                log_index=int(log["logIndex"], 16),
            )

    def events(
        self,
        contracts: Contract | Sequence[Contract],
        name: str | None = None,
        *,
        filters: Mapping[str, Any] | None = None,
        from_block: int = 0,
        to_block: Tag = "latest",
    ) -> list[Event]:
        """Events in order, read in chunks of blocks that shrink when the node refuses.

        Raises RpcUnavailable when no endpoint has block `to_block`: what it says of later blocks means nothing.

        `filters`: value (or list of values) by name of an indexed argument; needs one contract and `name`.
        """
        group = [contracts] if isinstance(contracts, Contract) else list(contracts)
        for contract in group:
            self._interfaces.setdefault(contract.address, contract)
        topics: list[Any] = []
        if name is not None:
            topics = _topics(group[0].interface.event(name), filters or {})
        elif filters:
            raise BadInput("filters need the name of the event")
        last = to_block if isinstance(to_block, int) else self.block(to_block).number
        found: list[Event] = []
        start, step = from_block, MAX_LOG_BLOCKS
        while start <= last:
            end = min(last, start + step - 1)
            query = {
                "address": [c.address for c in group],
                "topics": topics,
                "fromBlock": hex(start),
                "toBlock": hex(end),
            }
            try:
                logs = self._logs(query)
            except RpcRefused:
                if step == 1:
                    raise
                step = max(1, step // 4)
                continue
            found.extend(self.decode(log for log in logs if not log.get("removed")))
            start = end + 1
        return found

    # -- signatures ----------------------------------------------------------------------------

    def check_signature(self, data: TypedData, signature: bytes, account: str) -> None:
        """Raises BadSignature unless `account` signed: a key by ECDSA, a contract by ERC-1271.

        The key comes first, as in the contracts: an account delegated by EIP-7702 has code and signs with its key.
        """
        digest = data.digest()
        try:
            if recover(digest, signature) == to_address(account):
                return
            wrong = BadSignature(f"{data.primary} is not signed by {account}: ask that account to sign it")
        except BadSignature as exc:
            wrong = exc
        if not self.code(account):
            raise wrong
        from eth_abi.abi import encode

        arguments = encode(["bytes32", "bytes"], [digest, signature])
        tx = {"to": to_address(account), "data": to_hex(ERC1271_MAGIC + arguments)}
        try:
            answer = to_bytes(self.rpc("eth_call", tx, "latest"))
        except RpcRefused as exc:
            raise BadSignature(f"contract account {account} refuses the signature: {exc.message}") from exc
        if len(answer) != 32 or answer[:4] != ERC1271_MAGIC or any(answer[4:]):
            raise BadSignature(f"contract account {account} does not accept this signature on {data.primary}")

    # -- writing -------------------------------------------------------------------------------

    def send(
        self, contract: Contract, function: str, *args: Any, value: int = 0, dry_run: bool = False
    ) -> TxResult:
        """Simulates, signs, sends and waits. Raises TxReverted, InsufficientFunds, Timeout, RpcUnavailable."""
        entry = contract.interface.function(function)
        label = f"{contract.name}.{entry['name']}"
        data = abi.encode_call(entry, args)
        done = self._transact(contract.address, data, value, label, dry_run, entry)
        return done

    def transact(
        self, to: str | None, data: bytes = b"", *, value: int = 0, dry_run: bool = False
    ) -> TxResult:
        """A transaction by hand; `to` None deploys (`receipt["contractAddress"]`). Raises as `send`."""
        label = "transfer" if to and not data else "transaction" if to else "deployment"
        return self._transact(to_address(to) if to else None, data, value, label, dry_run, None)

    def _transact(
        self, to: str | None, data: bytes, value: int, label: str, dry_run: bool, entry: abi.Entry | None
    ) -> TxResult:
        if not 0 <= value < 1 << 256:
            raise BadInput(f"value {value} wei is out of range")
        account = self.account
        ask = {"from": account, "data": to_hex(data), "value": hex(value), **({"to": to} if to else {})}
        returned = None
        if entry is not None:
            returned = abi.decode_output(entry, self._eth_call(ask, label, "latest"))
        gas = self._estimate(ask, label, account)
        if dry_run:
            return TxResult(status="simulated", function=label, gas_used=gas, returned=returned)
        fees = self._fees()
        tx: dict[str, Any] = {
            "type": 2,
            "chainId": self.chain_id,
            "gas": int(gas * self.options.gas_factor),
            "to": to or "",
            "value": value,
            "data": to_hex(data),
            **fees,
        }
        if isinstance(self.signer, UnsignedSigner):
            nonce = int(self.rpc("eth_getTransactionCount", account, "pending"), 16)
            unsigned = {"from": account, "nonce": nonce, **tx}
            return TxResult(
                status="unsigned", function=label, gas_used=gas, returned=returned, transaction=unsigned
            )
        tx, sent = self._submit_next(tx, label)
        receipt = self._wait(tx, sent, label)
        return self._mined(receipt, label, returned)

    def _estimate(self, ask: Mapping[str, Any], label: str, account: str) -> int:
        try:
            return int(self.rpc("eth_estimateGas", dict(ask)), 16)
        except RpcRefused as exc:
            raise self._translated(exc, label, account) from exc

    def _fees(self) -> dict[str, int]:
        base = self.block().base_fee
        try:
            priority = int(self.rpc("eth_maxPriorityFeePerGas"), 16)
        except RpcRefused:
            priority = DEFAULT_PRIORITY_FEE
        most = 2 * base + priority
        cap = self.options.max_fee_per_gas
        if cap is not None:
            if cap < base:
                raise BadInput(
                    f"the chain asks {base} wei per gas, your limit is {cap}: wait or raise the limit"
                )
            most, priority = min(most, cap), min(priority, cap)
        return {"maxFeePerGas": most, "maxPriorityFeePerGas": priority}

    def _submit_next(self, tx: dict[str, Any], label: str) -> tuple[dict[str, Any], list[str]]:
        """Takes the account's next nonce and hands the transaction to the node."""
        nonces = _Nonces.of(self.chain_id, self.account)
        with nonces.lock:
            for _ in range(NONCE_TRIES):
                full = {**tx, "nonce": self._next_nonce(nonces)}
                raw = self.signer.sign_transaction(full)
                tx_hash = to_hex(keccak(raw))
                if self._submit(raw, tx_hash, label):
                    nonces.last = (full["nonce"], tx_hash)
                    return full, [tx_hash]
                logger.debug("nonce %s of %s is taken; asking again", full["nonce"], self.account)
                nonces.last = None
                time.sleep(self.options.poll)
        raise Timeout(
            f"{label}: another program keeps taking the nonces of {self.account}; stop it, or retry"
        )

    def _next_nonce(self, nonces: _Nonces) -> int:
        pending = int(self.rpc("eth_getTransactionCount", self.account, "pending"), 16)
        if nonces.last is None or nonces.last[0] < pending:
            return pending
        # An endpoint that lags behind still reports the old count; a node that forgot the transaction does not know it.
        known = self.rpc("eth_getTransactionByHash", nonces.last[1]) is not None
        return nonces.last[0] + 1 if known else pending

    def _submit(self, raw: bytes, tx_hash: str, label: str) -> bool:
        """True when the node has the transaction, False when its nonce is taken by another one."""
        try:
            self.rpc("eth_sendRawTransaction", to_hex(raw))
        except RpcRefused as exc:
            text = exc.message.lower()
            if "already known" in text or "already imported" in text or "known transaction" in text:
                return True
            if any(part in text for part in ("nonce too low", "nonce is too low", "replacement transaction")):
                return self.rpc("eth_getTransactionByHash", tx_hash) is not None
            raise self._translated(exc, label, self.account) from exc
        except RpcUnavailable as exc:
            raise Timeout(
                f"{label}: the connection broke while {tx_hash} was sent; it may still be mined: look for its "
                "receipt before repeating",
                tx_hash=tx_hash,
            ) from exc
        return True

    def _wait(self, tx: dict[str, Any], sent: list[str], label: str) -> dict[str, Any]:
        started = bumped = time.monotonic()
        while time.monotonic() - started < self.options.receipt_timeout:
            try:
                for tx_hash in sent:
                    receipt = self.receipt(tx_hash)
                    if receipt is not None:
                        return receipt
                if time.monotonic() - bumped > self.options.bump_after:
                    bumped = time.monotonic()
                    tx = self._bump(tx, sent, label)
            except ZhiyiError as exc:  # the transaction is on its way: whatever fails now does not undo it
                logger.warning("waiting for %s: %s", sent[-1], exc)
            time.sleep(self.options.poll)
        raise Timeout(
            f"{label}: {sent[-1]} is not mined after {self.options.receipt_timeout:.0f} s; it may still be: look "
            "for its receipt before repeating",
            tx_hash=sent[-1],
        )

    def _bump(self, tx: dict[str, Any], sent: list[str], label: str) -> dict[str, Any]:
        """Sends the same nonce again for more, up to the cap."""
        factor, cap = self.options.bump_factor, self.options.max_fee_per_gas
        more = {**tx, **{k: int(tx[k] * factor) + 1 for k in ("maxFeePerGas", "maxPriorityFeePerGas")}}
        if cap is not None and more["maxFeePerGas"] > cap:
            return tx
        raw = self.signer.sign_transaction(more)
        tx_hash = to_hex(keccak(raw))
        if not self._submit(raw, tx_hash, label):
            return tx
        logger.info("%s: %s replaces %s for a higher fee", label, tx_hash, sent[-1])
        sent.append(tx_hash)
        return more

    def _mined(self, receipt: dict[str, Any], label: str, returned: Any = None) -> TxResult:
        gas_used, price = int(receipt["gasUsed"], 16), int(receipt.get("effectiveGasPrice") or "0x0", 16)
        if int(receipt["status"], 16) != 1:
            raise self._why(receipt, label)
        return TxResult(
            status="mined",
            function=label,
            tx_hash=receipt["transactionHash"],
            block_number=int(receipt["blockNumber"], 16),
            gas_used=gas_used,
            gas_cost=gas_used * price,
            events=tuple(self.decode(receipt["logs"])),
            returned=returned,
            receipt=receipt,
        )

    def _why(self, receipt: dict[str, Any], label: str) -> TxReverted:
        """The reason of a mined failure: it is repeated on the state before its block, then on the state after."""
        tx_hash, block = receipt["transactionHash"], int(receipt["blockNumber"], 16)
        tx = self.rpc("eth_getTransactionByHash", tx_hash)
        hint = "Something changed between simulation and mining: read the state again, then decide."
        hint_zh = "模拟与上链之间状态已变：请重新读取状态后再决定。"
        unknown = TxReverted("Reverted", {}, hint, hint_zh=hint_zh, function=label, tx_hash=tx_hash)
        if tx is None:
            return unknown
        if int(tx["gas"], 16) == int(receipt["gasUsed"], 16):
            gas = {"gas": int(tx["gas"], 16)}
            return TxReverted(
                "OutOfGas", gas, "Repeat it.", hint_zh="请重试。", function=label, tx_hash=tx_hash
            )
        ask = {"from": tx["from"], "to": tx["to"], "data": tx["input"], "value": tx["value"]}
        for number in (block - 1, block):
            try:
                self.rpc("eth_call", ask, hex(number))
            except RpcRefused as exc:
                why = self._translated(exc, label, tx["from"], tx_hash=tx_hash)
                if isinstance(why, TxReverted):
                    return why
        return unknown


def _tag(tag: Tag) -> str:
    return hex(tag) if isinstance(tag, int) else tag


def _topics(entry: abi.Entry, filters: Mapping[str, Any]) -> list[Any]:
    from eth_abi.abi import encode

    indexed = [p for p in entry["inputs"] if p["indexed"]]
    unknown = set(filters) - {p["name"] for p in indexed}
    if unknown:
        raise BadInput(f"{entry['name']} has no indexed argument {', '.join(sorted(unknown))}")
    found: list[Any] = [to_hex(abi.topic(entry))]
    for parameter in indexed:
        wanted = filters.get(parameter["name"])
        if wanted is None:
            found.append(None)
        elif parameter["type"] == "string":
            found.append(to_hex(keccak(wanted.encode())))
        else:
            values = wanted if isinstance(wanted, list | tuple) else [wanted]
            found.append([to_hex(encode([parameter["type"]], [v])) for v in values])
    while found[-1] is None:
        found.pop()
    return found
