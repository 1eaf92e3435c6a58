"""Sending, waiting and failing, against a real node and against connections that break."""

from __future__ import annotations

import http.server
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from conftest import CHAIN_ID, ETHER, FAST, ROLES, Clients, Node, key_of

from zhiyi import CallbackSigner, LocalSigner, UnsignedSigner
from zhiyi.chain import Chain, ChainOptions
from zhiyi.errors import (
    BadInput,
    BadSignature,
    ConfigError,
    NotFound,
    RpcRefused,
    RpcUnavailable,
    Timeout,
    TxReverted,
    WrongChain,
)
from zhiyi.types import keccak

STRANGER = "0x" + "42" * 20
ALWAYS_VALID = bytes.fromhex("631626ba7e60e01b60005260206000f3")  # returns the ERC-1271 magic value
ALWAYS_EMPTY = bytes.fromhex("60006000f3")
DEAD = "http://127.0.0.1:9"


def chain_of(node: Node, role: str = "buyer", **options: object) -> Chain:
    settings = FAST.model_copy(update=options)
    return Chain(node.url, signer=LocalSigner(key_of(role)), chain_id=CHAIN_ID, options=settings)


@contextmanager
def proxy(url: str, hide: Callable[[bytes, int], bool]) -> Iterator[str]:
    """Forwards to `url`; answers 502 instead of the true answer where `hide(body, count)` says so."""
    count = 0

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal count
            body = self.rfile.read(int(self.headers["Content-Length"]))
            count += 1
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            answer = urllib.request.urlopen(request, timeout=10).read()
            hidden = hide(body, count)
            self.send_response(502 if hidden else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(0 if hidden else len(answer)))
            self.end_headers()
            if not hidden:
                self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_transfer_is_mined_and_accounted(node: Node) -> None:
    chain = chain_of(node)
    before = chain.balance(chain.account)
    result = chain.transact(STRANGER, value=ETHER)
    assert (result.status, result.gas_used, result.block_number) == ("mined", 21_000, chain.block().number)
    assert chain.balance(STRANGER) == ETHER
    assert chain.balance(chain.account) == before - ETHER - result.gas_cost
    assert chain.result(result.tx_hash).tx_hash == result.tx_hash


def test_many_threads_and_clients_of_one_account_share_its_nonces(node: Node) -> None:
    clients = [chain_of(node) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(clients[i % 4].transact, STRANGER, value=1) for i in range(24)]
        hashes = {job.result().tx_hash for job in jobs}
    assert len(hashes) == 24
    assert node.chain.balance(STRANGER) == 24


def test_nonces_go_on_after_the_node_was_reset(node: Node) -> None:
    snapshot = node.rpc("evm_snapshot")
    chain = chain_of(node)
    for _ in range(3):
        chain.transact(STRANGER, value=1)
    node.rpc("evm_revert", snapshot)
    assert chain.transact(STRANGER, value=5).status == "mined"
    assert chain.balance(STRANGER) == 5


def test_dry_run_pays_nothing(node: Node) -> None:
    chain = chain_of(node)
    before = chain.balance(chain.account)
    result = chain.transact(STRANGER, value=7, dry_run=True)
    assert (result.status, result.tx_hash, result.gas_used) == ("simulated", "", 21_000)
    assert chain.balance(chain.account) == before


def test_unsigned_signer_returns_the_transaction_for_another_wallet(node: Node) -> None:
    local = LocalSigner(key_of("buyer"))
    chain = Chain(node.url, signer=UnsignedSigner(local.address), chain_id=CHAIN_ID, options=FAST)
    result = chain.transact(STRANGER, value=7)
    assert result.status == "unsigned"
    assert result.transaction["from"] == local.address
    node.rpc("eth_sendRawTransaction", "0x" + local.sign_transaction(result.transaction).hex())
    node.mine()
    assert node.chain.balance(STRANGER) == 7


def test_callback_signer_sends(node: Node) -> None:
    local = LocalSigner(key_of("buyer"))
    signer = CallbackSigner(local.address, local.unsafe_sign_hash)
    chain = Chain(node.url, signer=signer, chain_id=CHAIN_ID, options=FAST)
    assert chain.transact(STRANGER, value=3).status == "mined"
    assert chain.balance(STRANGER) == 3


def test_client_without_signer_cannot_write(node: Node) -> None:
    with pytest.raises(ConfigError, match="signer"):
        node.chain.transact(STRANGER, value=1)


def test_second_endpoint_answers_when_the_first_is_dead(node: Node) -> None:
    chain = Chain([DEAD, node.url], signer=LocalSigner(key_of("buyer")), chain_id=CHAIN_ID, options=FAST)
    assert chain.transact(STRANGER, value=2).status == "mined"


def test_dead_node_is_rpc_unavailable() -> None:
    chain = Chain(DEAD, options=FAST)
    with pytest.raises(RpcUnavailable, match="eth_blockNumber"):
        chain.rpc("eth_blockNumber")


def test_endpoint_of_another_chain_is_refused_before_anything_is_sent(node: Node) -> None:
    with pytest.raises(WrongChain):
        Chain(node.url, chain_id=1, options=FAST).rpc("eth_blockNumber")
    chain = Chain([DEAD, node.url], signer=LocalSigner(key_of("buyer")), chain_id=1, options=FAST)
    with pytest.raises(WrongChain):
        chain.transact(STRANGER, value=1)


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1", "file:///etc/passwd", "127.0.0.1:8545", ""])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Chain(url)


def test_lost_answer_to_a_sent_transaction_is_no_failure(node: Node) -> None:
    lost: list[int] = []

    def hide(body: bytes, count: int) -> bool:
        if b"eth_sendRawTransaction" in body and not lost:
            lost.append(count)
            return True
        return False

    with proxy(node.url, hide) as url:
        chain = Chain(url, signer=LocalSigner(key_of("buyer")), chain_id=CHAIN_ID, options=FAST)
        result = chain.transact(STRANGER, value=9)
    assert lost
    assert result.status == "mined"
    assert node.chain.balance(STRANGER) == 9


def test_connection_lost_for_good_while_sending_names_the_transaction(node: Node) -> None:
    with proxy(node.url, lambda body, _: b"eth_sendRawTransaction" in body) as url:
        chain = Chain(url, signer=LocalSigner(key_of("buyer")), chain_id=CHAIN_ID, options=FAST)
        with pytest.raises(Timeout, match="may still be mined") as caught:
            chain.transact(STRANGER, value=9)
    assert caught.value.tx_hash is not None
    assert node.chain.result(caught.value.tx_hash).status == "mined"


def test_errors_while_waiting_for_the_receipt_are_waited_out(node: Node) -> None:
    seen: list[int] = []

    def hide(body: bytes, count: int) -> bool:
        if b"eth_getTransactionReceipt" in body and len(seen) < 4:
            seen.append(count)
            return True
        return False

    with proxy(node.url, hide) as url:
        chain = Chain(url, signer=LocalSigner(key_of("buyer")), chain_id=CHAIN_ID, options=FAST)
        assert chain.transact(STRANGER, value=9).status == "mined"
    assert len(seen) == 4


@contextmanager
def no_mining(node: Node) -> Iterator[None]:
    node.rpc("evm_setAutomine", False)
    try:
        yield
    finally:
        node.rpc("evm_setAutomine", True)


def test_pending_transaction_is_a_timeout_with_its_hash(node: Node) -> None:
    with no_mining(node):
        with pytest.raises(Timeout) as caught:
            chain_of(node, receipt_timeout=0.2).transact(STRANGER, value=1)
        assert caught.value.tx_hash is not None
        with pytest.raises(NotFound):
            node.chain.result(caught.value.tx_hash)
        node.mine()
    assert node.chain.result(caught.value.tx_hash).status == "mined"


def test_stuck_transaction_is_sent_again_for_more(node: Node) -> None:
    with no_mining(node), ThreadPoolExecutor(1) as pool:
        chain = chain_of(node, bump_after=0.05, bump_factor=1.3)
        job = pool.submit(chain.transact, STRANGER, value=1)
        first = wait_for(lambda: pending(node))
        second = wait_for(lambda: pending(node) - first)
        node.mine()
        result = job.result(10)
    assert result.tx_hash in second | first
    assert chain.balance(STRANGER) == 1


def test_bump_that_cannot_be_paid_does_not_fail_what_was_sent(node: Node) -> None:
    with no_mining(node), ThreadPoolExecutor(1) as pool:
        chain = chain_of(node, bump_after=0.02)
        fee = 2 * node.chain.block().base_fee + int(node.rpc("eth_maxPriorityFeePerGas"), 16)
        node.rpc("anvil_setBalance", chain.account, hex(int(21_000 * 1.25) * fee + 1))
        job = pool.submit(chain.transact, STRANGER, value=1)
        first = wait_for(lambda: pending(node))
        threading.Event().wait(0.3)
        assert pending(node) == first
        node.mine()
        assert job.result(10).status == "mined"


def test_fee_cap_stops_bumping(node: Node) -> None:
    with no_mining(node):
        base = node.chain.block().base_fee
        chain = chain_of(node, bump_after=0.02, receipt_timeout=0.3, max_fee_per_gas=base + 2)
        with pytest.raises(Timeout) as caught:
            chain.transact(STRANGER, value=1)
        assert pending(node) == {caught.value.tx_hash}
        tx = node.rpc("eth_getTransactionByHash", caught.value.tx_hash)
        assert int(tx["maxFeePerGas"], 16) <= base + 2
        node.rpc("anvil_dropAllTransactions")


def test_fee_cap_below_the_base_fee_refuses(node: Node) -> None:
    node.rpc("anvil_setNextBlockBaseFeePerGas", hex(10**9))
    node.mine()
    with pytest.raises(BadInput, match="your limit is 5"):
        chain_of(node, max_fee_per_gas=5).transact(STRANGER, value=1)


def pending(node: Node) -> set[str]:
    content = node.rpc("txpool_content")["pending"]
    return {tx["hash"] for by_nonce in content.values() for tx in by_nonce.values()}


def wait_for(check: Callable[[], set[str]]) -> set[str]:
    for _ in range(500):
        found = check()
        if found:
            return found
        threading.Event().wait(0.01)
    raise AssertionError("nothing happened in 5 s")


def test_revert_after_simulation_is_decoded_from_the_mined_transaction(clients: Clients) -> None:
    from test_story import agree, opened, register

    node, purchase = clients.node, agree(clients, register(clients))
    with no_mining(node), ThreadPoolExecutor(1) as pool:
        job = pool.submit(opened, clients, purchase)
        wait_for(lambda: pending(node))
        node.rpc("evm_setNextBlockTimestamp", purchase.order.sale.open_by + 1)
        node.mine()
        error = job.exception(10)
    assert isinstance(error, TxReverted)
    assert error.error_name == "OrderExpired"
    assert error.values == {"openBy": purchase.order.sale.open_by}
    assert error.tx_hash is not None
    assert error.tx_hash in str(error)
    receipt = node.chain.receipt(error.tx_hash)
    assert receipt is not None
    assert int(receipt["status"], 16) == 0
    with pytest.raises(TxReverted, match="OrderExpired"):
        node.chain.result(error.tx_hash)


def test_refusal_before_sending_costs_nothing(clients: Clients) -> None:
    buyer = clients["buyer"]
    before = buyer.chain.balance(buyer.account)
    with pytest.raises(TxReverted) as caught:
        buyer.vault.withdraw(1)
    assert caught.value.error_name == "BalanceTooSmall"
    assert caught.value.values["needed"] == 1
    assert "deposit first" in caught.value.hint
    assert "充值" in caught.value.hint_zh
    assert buyer.chain.balance(buyer.account) == before


def test_contract_without_code_is_a_configuration_error(clients: Clients) -> None:
    escrow = clients.deployment.contract("LicenseEscrow")._replace(address=STRANGER)
    with pytest.raises(ConfigError, match="no contract"):
        clients.node.chain.call(escrow, "treasury")


def test_events_are_read_in_chunks_and_shrink_when_the_node_refuses(clients: Clients) -> None:
    buyer = clients["buyer"]
    for amount in (1, 2, 3):
        buyer.vault.deposit(amount)
        clients.node.mine(20)
    refused: list[int] = []

    def hide(body: bytes, count: int) -> bool:
        return False

    escrow = clients.deployment.contract("LicenseEscrow")
    with proxy(clients.node.url, hide) as url:
        chain = _LogLimited(url, refused)
        found = chain.events(escrow, "Deposited", filters={"account": buyer.account})
    assert [event["amount"] for event in found] == [1, 2, 3]
    assert refused
    assert [event.block_number for event in found] == sorted(event.block_number for event in found)
    everyone = clients.node.chain.events(escrow, "Deposited", filters={"account": [STRANGER, buyer.account]})
    assert len(everyone) == 3
    with pytest.raises(BadInput, match="no indexed argument"):
        clients.node.chain.events(escrow, "Deposited", filters={"amount": 1})
    with pytest.raises(BadInput, match="no event"):
        clients.node.chain.events(escrow, "Nothing")


class _LogLimited(Chain):
    """A node that refuses logs over more than 16 blocks."""

    def __init__(self, url: str, refused: list[int]) -> None:
        super().__init__(url, options=FAST)
        self._refused = refused

    def _request(self, index: int, method: str, *params: object) -> object:
        if method == "eth_getLogs":
            query = params[0]
            assert isinstance(query, dict)
            span = int(query["toBlock"], 16) - int(query["fromBlock"], 16)
            if span >= 16:
                self._refused.append(span)
                raise RpcRefused(method, -32005, "query returned more than 10000 results")
        return super()._request(index, method, *params)


class _Lagging(Chain):
    """Two endpoints of one node. The first answers no logs; the second lags: it lacks the last block."""

    def _request(self, index: int, method: str, *params: object) -> object:
        if index == 0 and method == "eth_getLogs":
            raise RpcUnavailable("no logs here")
        if index == 1 and method == "eth_getBlockByNumber":
            return None
        if index == 1 and method == "eth_getLogs":
            return []
        return super()._request(index, method, *params)


def test_logs_of_an_endpoint_that_lags_are_not_believed(clients: Clients) -> None:
    clients["buyer"].vault.deposit(1)
    escrow = clients.deployment.contract("LicenseEscrow")
    url = clients.node.url
    with pytest.raises(RpcUnavailable, match="has no block"):
        _Lagging([url, url.replace("127.0.0.1", "localhost")], options=FAST).events(escrow, "Deposited")
    last = _Lagging([url, url.replace("127.0.0.1", "localhost"), f"{url}/"], options=FAST)
    assert last.events(escrow, "Deposited")[-1]["amount"] == 1


def test_contract_accounts_sign_by_erc1271(clients: Clients, node: Node) -> None:
    from test_story import make_offer

    offer = make_offer(clients, 1, seller=STRANGER)
    data = clients["buyer"].offers.data(offer)
    node.rpc("anvil_setCode", STRANGER, "0x" + ALWAYS_VALID.hex())
    node.chain.check_signature(data, b"anything", STRANGER)
    node.rpc("anvil_setCode", STRANGER, "0x" + ALWAYS_EMPTY.hex())
    with pytest.raises(BadSignature):
        node.chain.check_signature(data, b"anything", STRANGER)


def test_delegated_accounts_sign_with_their_key(clients: Clients, node: Node) -> None:
    """EIP-7702: an account with code whose key still counts, in the contracts as well."""
    from test_story import make_offer

    buyer = clients["buyer"]
    signed = buyer.offers.sign(make_offer(clients, 1, seller=buyer.account))
    node.rpc("anvil_setCode", buyer.account, "0x" + ALWAYS_EMPTY.hex())
    data = buyer.offers.data(signed.offer)
    node.chain.check_signature(data, signed.signature, buyer.account)
    with pytest.raises(BadSignature):
        node.chain.check_signature(data, b"\1" * 65, buyer.account)


def test_results_and_events_become_json(clients: Clients) -> None:
    result = clients["creator"].evidence.anchor(keccak(b"t"), keccak(b"r"), 1)
    text = result.model_dump_json()
    assert "0x" + keccak(b"r").hex() in text
    assert result.event("BatchAnchored")["root"] == keccak(b"r")
    with pytest.raises(NotFound, match="left 0 events"):
        result.event("ModelRegistered")


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="bump_factor"):
        ChainOptions(bump_factor=1.01)


def test_roles_have_different_accounts() -> None:
    assert len({LocalSigner(key_of(role)).address for role in ROLES}) == len(ROLES)
