"""The index on a real node with the real contracts: what it tells, through interruptions and reorganisations."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from conftest import CHAIN_ID, DAY, Clients, Node
from sqlalchemy import select
from sqlalchemy.orm import Session
from test_story import (
    BOND,
    CID,
    OPERATORS,
    PREFERENCES,
    PRICE,
    SEEDS,
    agree,
    bought,
    h,
    leak_case,
    make_record,
    make_verdict,
    opened,
    register,
)

from zhiyi.chain import Chain, Event
from zhiyi.cid import cid_v0_from_digest
from zhiyi.delivery.commitments import share_proof
from zhiyi.deployment import Contract, Deployment
from zhiyi.errors import BadInput, ConfigError, IntegrityError, NotFound, Timeout
from zhiyi.index import Index, preferences_agree
from zhiyi.index.tables import Base
from zhiyi.metadata import preferences_to_json
from zhiyi.types import (
    NATIVE,
    CaseState,
    Decision,
    Kind,
    LicenseEnd,
    LicenseTerms,
    OrderState,
    Preference,
    Preferences,
    Review,
    to_bytes,
    to_hex,
)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(f"sqlite:///{tmp_path / 'index.db'}")


def dump(index: Index) -> dict[str, list[Any]]:
    """Every row of every table, but for the block marks, which depend on the chunks."""
    found: dict[str, list[Any]] = {}
    with Session(index.engine) as session:
        for table in Base.metadata.sorted_tables:
            if table.name != "blocks":
                rows = session.execute(select(table).order_by(*table.primary_key)).all()
                found[table.name] = [tuple(row) for row in rows]
    return found


def fresh(chain: Chain, deployment: Deployment, folder: Path) -> dict[str, list[Any]]:
    """What an index tells that never saw anything else."""
    index = Index(f"sqlite:///{folder / 'fresh.db'}")
    index.sync(chain, deployment)
    return dump(index)


def test_rows_tell_what_the_sdk_tells_from_the_chain(clients: Clients, index: Index) -> None:
    purchase, case_id = leak_case(clients)
    license_id, model_id = purchase.order.delivery.license_id, purchase.offer.offer.model_id
    base = cid_v0_from_digest(h("base"))
    clients["fingerprinter"].cases.open_share(case_id, 3, SEEDS[3], share_proof(license_id, SEEDS, 3), base)
    verdict = make_verdict(clients, case_id)
    signatures = {clients[n].account: clients[n].cases.sign_verdict(verdict) for n in OPERATORS[:2]}
    posted = clients["operator1"].cases.post_verdict(verdict, signatures)
    chain = clients.node.chain
    report = index.sync(chain, clients.deployment)
    assert report.rolled_back == 0
    assert report.to_block == chain.block().number
    row = index.case(case_id)
    assert (row.state, row.decision) == (CaseState.POSTED, Decision.GUILTY)
    assert row.until == posted.event("VerdictPosted")["challengeUntil"]

    clients.node.travel(row.until - chain.now() + 1)
    slashed = clients["stranger"].cases.execute(case_id).event("CaseExecuted")["slashed"]
    again = index.sync(chain, clients.deployment)
    assert again.from_block == report.to_block + 1

    reader = clients["stranger"]
    model, row_model = reader.models.get(model_id), index.model(model_id)
    assert (row_model.owner, row_model.metadata_cid) == (model.owner, model.metadata_cid)
    assert row_model.weights_root == to_hex(model.record.weights_root)
    assert row_model.record["royaltyHash"] == to_hex(model.record.royalty_hash)
    assert (row_model.preferences, row_model.review) == (PREFERENCES.pack(), Review.APPROVED)
    assert row_model.registrar == clients["registrar"].account
    assert row_model.registered_block == model.registered_block
    assert row_model.registered_time == chain.block(model.registered_block).timestamp
    # what the royalties got from the sale and from the slash
    assert int(row_model.gross[NATIVE]) == reader.royalties.gross(model_id) > PRICE

    order = index.order(license_id)
    assert (order.state, order.buyer) == (OrderState.SETTLED, clients["buyer"].account)
    assert (order.price, order.bond, order.model_id) == (PRICE, BOND, model_id)
    assert order.revealed_key == to_hex(purchase.key)
    assert order.order_hash == to_hex(purchase.order.hash())

    license, held = index.license(license_id), reader.licenses.get(license_id)
    assert (license.holder, license.fingerprint) == (held.holder, held.fingerprint)
    assert LicenseTerms.unpack(license.terms) == held.terms
    assert (license.end, license.bond_slashed) == (LicenseEnd.REVOKED, slashed)
    assert license.issued_tx == held.issued_tx

    case, told = index.case(case_id), reader.cases.get(case_id)
    assert (case.state, case.decision, case.kind) == (told.state, told.decision, Kind.LEAK)
    assert (case.license_id, case.model_id, case.reporter) == (
        license_id,
        model_id,
        clients["reporter"].account,
    )
    assert (case.share_index, case.base_cid, case.evidence_cid) == (3, base, told.evidence_cid)
    assert case.slashed == slashed
    assert case.signers is not None
    assert case.signers.bit_count() == 2
    assert case.bond == told.file.bond

    assert [e.name for e in index.history("case", to_hex(case_id))][-1] == "CaseOpened"
    assert [e.name for e in index.history("order", str(license_id))] == [
        "OrderSettled",
        "KeyRevealed",
        "OrderOpened",
    ]
    assert index.counts() == (1, 1, 1, 1)
    head = index.head()
    assert head is not None
    assert head.number == chain.block().number


def follows_the_court(index: Index, clients: Clients) -> list[tuple[CaseState, Decision]]:
    """Every case of the index against the court's storage; what they are."""
    index.sync(clients.node.chain, clients.deployment)
    court, found = clients.deployment.contract("MisuseCourt"), []
    for row in reversed(index.cases()):
        state, decision, until, share = clients.node.chain.call(court, "caseState", row.case_id)
        challenger, _, _, _ = clients.node.chain.call(court, "caseDetail", row.case_id)
        assert (row.state, row.decision) == (state, decision), row.key
        assert row.until == (until or row.file["postBy"]), (
            row.key
        )  # the court keeps no window before a verdict
        assert (255 if row.share_index is None else row.share_index) == share, row.key
        assert (row.challenger or NATIVE) == challenger, row.key
        found.append((CaseState(state), Decision(decision)))
    return found


def test_cases_stand_in_the_index_as_in_the_court(clients: Clients, index: Index, tmp_path: Path) -> None:
    _, missed = leak_case(clients)
    node, reporter, anyone = clients.node, clients["reporter"].cases, clients["stranger"].cases
    accused, authority = clients["creator"].cases, clients["authority"].cases
    bond = reporter.min_bond()
    model_id = reporter.file(missed).model_id

    def opened_case(text: str) -> bytes:
        evidence = (h(text), cid_v0_from_digest(h(text + " sealed")))
        case = reporter.open(0, model_id, Kind.OWNERSHIP, *evidence, bond, value=2 * bond)
        assert case.case_id is not None
        return case.case_id

    def judged(case_id: bytes, decision: Decision) -> None:
        verdict = make_verdict(
            clients, case_id, decision=decision, share_index=255, bucket=0, subject=case_id
        )
        votes = {clients[n].account: clients[n].cases.sign_verdict(verdict) for n in OPERATORS[:2]}
        anyone.post_verdict(verdict, votes)

    names = ("unavailable", "escalated", "unserved", "overturned", "upheld")
    cases = {name: opened_case(name) for name in names}
    for name, case_id in cases.items():
        judged(case_id, Decision.UNAVAILABLE if name == "unavailable" else Decision.GUILTY)
    follows_the_court(index, clients)
    # The court's clock stands still for five hours, half of a pause that was to be longer.
    clients["deployer"].regulator.pause_posting(node.chain.now() + 10 * 3600)
    node.travel(5 * 3600)
    clients["deployer"].regulator.resume_posting()
    clients["deployer"].regulator.pause_posting(node.chain.now() + 3600)
    node.travel(2 * 3600)

    value = 10**18
    reporter.challenge(cases["unavailable"], value=value)
    for name in ("escalated", "overturned", "upheld"):
        accused.challenge(cases[name], value=value)
    accused.request_service(cases["unserved"], h("a key of mine"))
    follows_the_court(index, clients)
    authority.rule(cases["unavailable"], False)
    authority.rule(cases["overturned"], False)
    authority.rule(cases["upheld"], True)
    node.travel(25 * 3600)
    anyone.clear_unserved(cases["unserved"])
    follows_the_court(index, clients)
    node.travel(node.chain.call(clients.deployment.contract("MisuseCourt"), "params")["rulingWindow"])
    anyone.escalate(cases["escalated"])
    anyone.share_missed(missed)
    anyone.execute(cases["upheld"])
    follows_the_court(index, clients)
    node.travel(node.chain.call(clients.deployment.contract("MisuseCourt"), "params")["lastWindow"] + 1)
    anyone.clear_silent(cases["escalated"])
    assert follows_the_court(index, clients) == [
        (CaseState.CLOSED, Decision.INCONCLUSIVE),  # no share was opened
        (CaseState.CLOSED, Decision.INCONCLUSIVE),  # unavailable, overturned
        (CaseState.CLEARED, Decision.GUILTY),
        (CaseState.CLEARED, Decision.GUILTY),
        (CaseState.CLEARED, Decision.GUILTY),
        (CaseState.EXECUTED, Decision.GUILTY),
    ]
    assert dump(index) == fresh(node.chain, clients.deployment, tmp_path)


def test_states_of_models_follow_their_events(clients: Clients, index: Index) -> None:
    model_id = register(clients)
    creator, regulator, chain = clients["creator"], clients["regulator"], clients.node.chain
    changed = Preferences(data_mining=Preference.NOT_ALLOWED)
    other = cid_v0_from_digest(h("other metadata"))
    creator.models.set_preferences(model_id, changed, other)
    creator.models.rotate_trace_key(model_id, h("second trace key"))
    until = chain.now() + 5 * DAY
    regulator.regulator.freeze(model_id, until, "court order 7")
    day = chain.now() // DAY + 9
    regulator.regulator.delist(model_id, day, "again")
    index.sync(chain, clients.deployment)
    row = index.model(model_id)
    assert (row.preferences, row.metadata_cid) == (changed.pack(), other)
    assert row.trace_key_commit == to_hex(h("second trace key"))
    assert (row.frozen_until, row.delisted_until) == (until, day * DAY)

    regulator.regulator.lift(model_id, "order withdrawn")
    regulator.regulator.delist(model_id, 0, "again")
    creator.models.transfer(model_id, clients["buyer2"].account)
    index.sync(chain, clients.deployment)
    row = index.model(model_id)
    assert (row.frozen_until, row.delisted_until, row.owner) == (0, 0, clients["buyer2"].account)


def test_versions_of_a_model_follow_their_reviews(clients: Clients, index: Index) -> None:
    model_id = register(clients)
    creator, registrar = clients["creator"].models, clients["registrar"].models
    for seed, outcome, now in (
        ("v2", Review.REJECTED, "weights"),
        ("v2", Review.APPROVED, "v2"),
        ("v3", Review.REJECTED, "v2"),
    ):
        creator.add_version(model_id, make_record(weights_root=h(seed)), CID)
        index.sync(clients.node.chain, clients.deployment)
        row = index.model(model_id)
        assert row.waiting is not None
        assert (row.review, row.waiting["weightsRoot"]) == (Review.PENDING, to_hex(h(seed)))
        registrar.review(model_id, outcome, "seen")
        index.sync(clients.node.chain, clients.deployment)
        row = index.model(model_id)
        assert (row.review, row.waiting) == (Review.APPROVED, None)
        assert (row.weights_root, row.record["weightsRoot"]) == (to_hex(h(now)),) * 2


def test_refunds_and_ended_licenses_are_told(clients: Clients, index: Index) -> None:
    model_id = register(clients)
    sold = bought(clients, model_id)
    clients["buyer"].licenses.surrender(sold.order.delivery.license_id)
    late = agree(clients, model_id, fingerprint=78)
    opened(clients, late)
    clients.node.travel(late.order.delivery.reveal_window + late.order.delivery.grace + 1)
    clients["stranger"].orders.refund(late.order)
    index.sync(clients.node.chain, clients.deployment)
    assert index.license(sold.order.delivery.license_id).end == LicenseEnd.SURRENDERED
    row = index.order(late.order.delivery.license_id)
    assert (row.state, row.refund_reason) == (OrderState.REFUNDED, 1)
    assert row.penalty == late.order.delivery.deposit // 10
    with pytest.raises(NotFound):
        index.license(late.order.delivery.license_id)


def test_an_interrupted_sync_goes_on_where_it_stopped(clients: Clients, index: Index, tmp_path: Path) -> None:
    leak_case(clients)
    chain = clients.node.chain

    class PowerCut(BaseException):
        pass

    def cut(done: int, total: int) -> None:
        if done >= 9:
            raise PowerCut

    with pytest.raises(PowerCut):
        index.sync(chain, clients.deployment, cut, chunk_blocks=3)
    head = index.head()
    assert head is not None
    assert head.number < chain.block().number
    report = index.sync(chain, clients.deployment, chunk_blocks=3)
    assert report.from_block == head.number + 1
    assert dump(index) == fresh(chain, clients.deployment, tmp_path)


@pytest.mark.parametrize("chunk_blocks", [1, 7, 5000])
def test_the_size_of_chunks_changes_nothing(
    clients: Clients, index: Index, tmp_path: Path, chunk_blocks: int
) -> None:
    bought(clients, register(clients))
    index.sync(clients.node.chain, clients.deployment, chunk_blocks=chunk_blocks)
    assert dump(index) == fresh(clients.node.chain, clients.deployment, tmp_path)


def test_a_reorganisation_is_undone_and_the_other_branch_told(
    clients: Clients, index: Index, tmp_path: Path
) -> None:
    chain = clients.node.chain
    model_id = register(clients)
    first = bought(clients, model_id)
    before = chain.block().number
    clients["buyer"].licenses.surrender(first.order.delivery.license_id)
    second = agree(clients, model_id, fingerprint=78)
    opened(clients, second)
    index.sync(chain, clients.deployment, chunk_blocks=4)
    assert index.license(first.order.delivery.license_id).end == LicenseEnd.SURRENDERED
    assert index.order(second.order.delivery.license_id).state == OrderState.OPEN

    clients.node.rpc("anvil_rollback", chain.block().number - before)
    clients["creator"].models.transfer(model_id, clients["buyer2"].account)
    for _ in range(6):
        clients.node.mine()
    report = index.sync(chain, clients.deployment, chunk_blocks=4)
    assert report.rolled_back > 0
    assert index.license(first.order.delivery.license_id).end == LicenseEnd.NONE
    with pytest.raises(NotFound):
        index.order(second.order.delivery.license_id)
    assert index.model(model_id).owner == clients["buyer2"].account
    assert dump(index) == fresh(chain, clients.deployment, tmp_path)


def test_a_chain_that_only_became_shorter_is_followed(clients: Clients, index: Index, tmp_path: Path) -> None:
    chain = clients.node.chain
    model_id = register(clients)
    clients["creator"].models.transfer(model_id, clients["buyer2"].account)
    index.sync(chain, clients.deployment)
    clients.node.rpc("anvil_rollback", 1)
    index.sync(chain, clients.deployment)
    assert index.model(model_id).owner == clients["creator"].account
    assert dump(index) == fresh(chain, clients.deployment, tmp_path)


class Shaky:
    """A chain that changes once, just after the events of a chunk were read."""

    def __init__(self, chain: Chain, change: Any) -> None:
        self._chain = chain
        self._change = change

    @property
    def chain_id(self) -> int:
        return self._chain.chain_id

    def block(self, tag: int | str = "latest") -> Any:
        return self._chain.block(tag)

    def events(
        self, contracts: Sequence[Contract], *, from_block: int = 0, to_block: int | str = "latest"
    ) -> list[Event]:
        found = self._chain.events(contracts, from_block=from_block, to_block=to_block)
        change, self._change = self._change, None
        if change:
            change()
        return found


def test_a_reorganisation_in_the_middle_of_a_chunk_is_noticed(
    clients: Clients, index: Index, tmp_path: Path
) -> None:
    chain = clients.node.chain
    model_id = register(clients)
    clients["creator"].models.transfer(model_id, clients["buyer2"].account)

    def change() -> None:
        clients.node.rpc("anvil_rollback", 1)
        clients["creator"].models.transfer(model_id, clients["stranger"].account)

    index.sync(Shaky(chain, change), clients.deployment)
    assert index.model(model_id).owner == clients["stranger"].account
    assert dump(index) == fresh(chain, clients.deployment, tmp_path)


def test_a_chain_that_keeps_changing_is_given_up(clients: Clients, index: Index) -> None:
    register(clients)

    turns = count(1)

    class Restless(Shaky):
        def events(self, *args: Any, **kwargs: Any) -> list[Event]:
            found = self._chain.events(*args, **kwargs)
            clients.node.rpc("anvil_rollback", 1)
            # a time of its own for every new last block: else the same empty block might come again
            clients.node.rpc("evm_setNextBlockTimestamp", self._chain.now() + 100 * next(turns))
            clients.node.rpc("evm_mine")
            return found

    with pytest.raises(Timeout, match="keep changing"):
        index.sync(Restless(clients.node.chain, None), clients.deployment)


def test_one_database_follows_one_deployment(clients: Clients, index: Index) -> None:
    register(clients)
    index.sync(clients.node.chain, clients.deployment)
    moved = dict(clients.deployment.contracts) | {"EvidenceLog": clients["stranger"].account}
    other = Deployment(chain_id=CHAIN_ID, contracts=moved, block=0, deployer=clients.deployment.deployer)
    with pytest.raises(BadInput, match="its own database"):
        index.sync(clients.node.chain, other)


def test_what_never_began_is_left_out_with_a_warning_and_the_rest_goes_on(
    clients: Clients, index: Index, caplog: pytest.LogCaptureFixture
) -> None:
    model_id = register(clients)
    late = clients.deployment.model_copy(update={"block": clients.node.chain.block().number + 1})
    clients["creator"].models.transfer(model_id, clients["buyer2"].account)
    known = register(clients, make_record(weights_root=h("other weights")))
    index.sync(clients.node.chain, late)
    assert [row.model_id for row in index.models()] == [known]
    with pytest.raises(NotFound):
        index.model(model_id)
    (warned,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"model {model_id} begin" in warned.getMessage()
    assert warned.getMessage().startswith("Transfer in block")
    # kept as an event all the same, and again left out when a reorganisation folds anew
    assert [event.name for event in index.history("model", str(model_id))] == ["Transfer"]
    clients.node.rpc("anvil_rollback", 1)
    clients["registrar"].models.review(known, Review.REJECTED, "after all")
    index.sync(clients.node.chain, late)
    assert index.model(known).review == Review.REJECTED
    assert index.counts() == (1, 0, 0, 0)


def test_two_processes_may_sync_one_database(clients: Clients, index: Index, tmp_path: Path) -> None:
    leak_case(clients)
    failed: list[Exception] = []

    def run() -> None:
        try:
            Index(index.url).sync(Chain(clients.node.url), clients.deployment, chunk_blocks=2)
        except Timeout:
            pass  # the other one was quicker every time; nothing is lost
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    index.sync(clients.node.chain, clients.deployment)
    assert dump(index) == fresh(clients.node.chain, clients.deployment, tmp_path)


def test_hostile_texts_on_chain_do_not_stop_the_index(clients: Clients, index: Index) -> None:
    """commit(string,string) takes any bytes: not UTF-8, zero bytes, half a character."""
    log = clients.deployment.contract("EvidenceLog")
    selector = to_bytes("0x" + _selector(log))
    for text in (b"\xff\xfe\x00", b"\x00" * 40, b"\xed\xa0\x80", "‮evil\x1b[2J".encode()):
        padded = text + bytes(-len(text) % 32)
        words = [64, 64 + 32 + len(padded), len(text)]
        body = (
            b"".join(w.to_bytes(32, "big") for w in words) + padded + len(text).to_bytes(32, "big") + padded
        )
        clients["stranger"].chain.transact(log.address, selector + body)
    model_id = register(clients)
    index.sync(clients.node.chain, clients.deployment)
    assert index.model(model_id).owner == clients["creator"].account


def _selector(log: Contract) -> str:
    from zhiyi.abi import selector

    return selector(log.interface.function("commit")).hex()


class Documents:
    """What IPFS holds, and how often it was asked."""

    def __init__(self, **found: bytes | Exception) -> None:
        self.found = found
        self.asked = 0

    def cat(self, cid: str, max_bytes: int) -> bytes:
        self.asked += 1
        value = self.found.get(cid, NotFound("nobody has it"))
        if isinstance(value, Exception):
            raise value
        return value


def test_metadata_is_fetched_once_and_compared_with_the_bits(clients: Clients, index: Index) -> None:
    register(clients)
    index.sync(clients.node.chain, clients.deployment)
    document = {"name": "<script>alert(1)</script>", "dataMiningPreference": preferences_to_json(PREFERENCES)}
    source = Documents(**{CID: json.dumps(document).encode()})
    assert index.fetch_documents(source, 1000) == 1
    assert index.fetch_documents(source, 1000) == 0
    assert source.asked == 1
    found = index.document(CID)
    assert found is not None
    assert found.value == document
    assert preferences_agree(found.value, PREFERENCES.pack())
    assert not preferences_agree(found.value, 0)
    assert not preferences_agree({"dataMiningPreference": "allowed"}, PREFERENCES.pack())
    assert not preferences_agree(None, PREFERENCES.pack())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1]",
        b'"text"',
        b"{",
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        IntegrityError("other bytes"),
        Timeout("nobody answers"),
        BadInput("too large"),
    ],
)
def test_metadata_that_cannot_be_read_is_noted_and_tried_again_later(
    clients: Clients, index: Index, content: bytes | Exception
) -> None:
    register(clients)
    index.sync(clients.node.chain, clients.deployment)
    source = Documents(**{CID: content})
    assert index.fetch_documents(source, 1000) == 0
    found = index.document(CID)
    assert found is not None
    assert found.value is None
    assert found.problem
    assert index.fetch_documents(source, 1010) == 0
    assert source.asked == 1  # too early
    source.found[CID] = b"{}"
    assert index.fetch_documents(source, 1061) == 1
    assert index.documents([CID])[CID].value == {}


def test_pages_are_bounded_and_continue(clients: Clients, index: Index) -> None:
    ids = [
        clients["creator"].models.register(make_record(weights_root=h(f"w{i}")), CID, PREFERENCES).model_id
        for i in range(3)
    ]
    clients["registrar"].models.review(ids[1], Review.REJECTED, "copied")
    index.sync(clients.node.chain, clients.deployment)
    assert [m.model_id for m in index.models(limit=2)] == [ids[2], ids[1]]
    assert [m.model_id for m in index.models(below=ids[1])] == [ids[0]]
    assert [m.model_id for m in index.models(review=Review.REJECTED)] == [ids[1]]
    assert [m.model_id for m in index.models(owner=clients["buyer"].account)] == []
    for limit in (0, 201):
        with pytest.raises(BadInput):
            index.models(limit=limit)


def test_an_address_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    for url in ("nonsense", "sqlite:////no/such/folder/index.db", "mysql+absent://localhost/x"):
        with pytest.raises(ConfigError):
            Index(url)
    (tmp_path / "file").write_bytes(b"this is no database, not at all" * 100)
    with pytest.raises(ConfigError):
        Index(f"sqlite:///{tmp_path / 'file'}")


def test_an_empty_index_says_so(index: Index, node: Node) -> None:
    assert index.head() is None
    assert index.counts() == (0, 0, 0, 0)
    assert index.models() == []
    with pytest.raises(NotFound, match="synced"):
        index.model(1)
