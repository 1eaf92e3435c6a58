"""Powers with a delay of two days: announced, waited for, done by the calls and commands that do them; or cancelled."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import DAY, ETHER, FAST, MANIFEST, ROLES, Clients, Node, key_of
from test_cli import Shell
from test_committee import CANARIES

from contracts_plan import Params
from contracts_rollout import deploy
from zhiyi import LocalSigner, abi
from zhiyi.access import Access, RoleHolder
from zhiyi.chain import Chain
from zhiyi.deployment import Deployment
from zhiyi.errors import BadInput, NotFound, TxReverted
from zhiyi.roles import ROLES as ROLE_NUMBERS
from zhiyi.types import ListedToken, Role, keccak, to_hex

WEEK = 7 * DAY
OPERATORS = ("operator1", "operator2", "operator3")
ADDRESS = {name: LocalSigner(key_of(name)).address for name in ROLES}
# Who holds what here; the deployer holds nothing.
ADMIN, ORACLES, ISSUERS, GUARDIAN = "collaborator", "registrar", "regulator", "reporter"
SCHEDULE = ("OracleCommittee", "announceEpoch", [ADDRESS[name] for name in OPERATORS], 2)


@pytest.fixture(scope="module")
def guarded(anvil: Node) -> Deployment:
    """A deployment as on any public chain: who administers waits two days, a guardian can cancel."""
    params = Params(
        admin=ADDRESS[ADMIN],
        treasury=ADDRESS["treasury"],
        appeal_authority=ADDRESS["authority"],
        last_instance=ADDRESS["treasury"],
        holders={
            "ORACLE_ADMIN": (ADDRESS[ORACLES],),
            "IDENTITY_ADMIN": (ADDRESS[ISSUERS],),
            "GUARDIAN": (ADDRESS[GUARDIAN],),
        },
        min_threshold=2,
    )
    params.check_for_production(ADDRESS["deployer"])
    chain = Chain(anvil.url, signer=LocalSigner(key_of("deployer")), options=FAST)
    return deploy(chain, params, salt="two days", manifest=MANIFEST)


@pytest.fixture
def clients(guarded: Deployment, node: Node) -> Clients:
    return Clients(node, guarded)


@pytest.fixture
def zhiyi(guarded: Deployment, node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(node, guarded, "http://127.0.0.1:1", tmp_path, capsys)


def operators(clients: Clients) -> None:
    for name in OPERATORS:
        found = clients[name]
        found.vault.deposit(5 * ETHER)
        key = keccak(name.encode())
        found.oracles.join(Role.OPERATOR, signer=found.account, encryption_key=key, stake=5 * ETHER)


def token(clients: Clients) -> str:
    """A contract at an address, as a token would be."""
    return clients.deployment.contracts["EvidenceLog"]


def test_the_first_committee_is_announced_two_days_ahead(clients: Clients, node: Node) -> None:
    operators(clients)
    admin, oracles = clients[ORACLES], clients[ORACLES].oracles
    backwards = [ADDRESS[name] for name in reversed(OPERATORS)]
    with pytest.raises(TxReverted, match="AccessManagerNotScheduled") as refused:
        oracles.announce_epoch(backwards, 2)
    assert "`zhiyi access schedule`" in refused.value.hint
    assert "`zhiyi access schedule`" in refused.value.hint_zh

    simulated = admin.access.schedule(*SCHEDULE, dry_run=True)
    assert simulated.status == "simulated"
    assert admin.access.pending() == ()
    announced = admin.access.schedule("OracleCommittee", "announceEpoch", backwards, 2)
    event = announced.event("OperationScheduled")
    assert event["schedule"] == node.chain.block(announced.block_number).timestamp + 2 * DAY
    (found,) = clients["stranger"].access.pending()
    assert (found.operation_id, found.caller) == (event["operationId"], admin.account)
    assert (found.contract, found.function) == ("OracleCommittee", "announceEpoch(address[],uint8)")
    assert set(found.args["signers"]) == set(backwards)
    assert found.args["signers"] == sorted(backwards, key=lambda address: int(address, 16))
    assert found.args["k"] == 2
    assert (found.ready_at, found.expires_at) == (event["schedule"], event["schedule"] + WEEK)

    with pytest.raises(TxReverted, match="AccessManagerAlreadyScheduled"):
        admin.access.schedule(*SCHEDULE)
    with pytest.raises(TxReverted, match="AccessManagerNotReady") as early:
        oracles.announce_epoch(backwards, 2)
    assert "`zhiyi access pending`" in early.value.hint
    node.travel(2 * DAY)
    with pytest.raises(TxReverted, match="AccessManagerNotScheduled"):
        oracles.announce_epoch(backwards[:2], 2)  # other arguments are another act
    with pytest.raises(TxReverted, match="AccessManagedUnauthorized"):
        clients["stranger"].oracles.announce_epoch(backwards, 2)
    epoch = oracles.announce_epoch(backwards, 2).event("EpochAnnounced")["epoch"]
    clients["stranger"].oracles.activate_epoch(epoch)
    assert set(oracles.current_epoch().signers) == set(backwards)
    assert admin.access.pending() == ()
    with pytest.raises(TxReverted, match="AccessManagerNotScheduled"):
        oracles.announce_epoch(backwards, 2)  # one announcement, one act


def test_an_announcement_counts_for_a_week(clients: Clients, node: Node) -> None:
    access, oracles = clients[ORACLES].access, clients[ORACLES].oracles
    root = CANARIES.root()
    access.schedule("OracleCommittee", "commitCanaries", 1, root)
    node.travel(2 * DAY + WEEK - 10)
    assert len(access.pending()) == 1
    node.travel(10)
    assert access.pending() == ()
    with pytest.raises(TxReverted, match="AccessManagerExpired"):
        oracles.commit_canaries(1, root)
    access.schedule("OracleCommittee", "commitCanaries", 1, root)
    assert len(access.pending()) == 1
    node.travel(2 * DAY)
    assert oracles.commit_canaries(1, root).event("CanariesCommitted")["root"] == root


def test_it_can_be_announced_for_later_not_for_sooner(clients: Clients, node: Node) -> None:
    access, now = clients[ISSUERS].access, node.chain.now()
    arguments = ("IdentityRegistry", "setIssuer", ADDRESS["authority"], 2)
    with pytest.raises(TxReverted, match="AccessManagerUnauthorizedCall") as soon:
        access.schedule(*arguments, when=now + DAY)
    assert "after the delay" in soon.value.hint
    later = access.schedule(*arguments, when=now + 5 * DAY).event("OperationScheduled")
    assert later["schedule"] == now + 5 * DAY
    node.travel(5 * DAY)
    clients[ISSUERS].identity.set_issuer(ADDRESS["authority"], 2)
    assert clients["stranger"].identity.issuers() == {ADDRESS["authority"]: 2}


def test_the_guardian_cancels_and_so_does_who_announced(clients: Clients, node: Node) -> None:
    admin = clients[ORACLES]
    for name in (GUARDIAN, ORACLES, ADMIN):
        number = admin.access.schedule(*SCHEDULE).event("OperationScheduled")["operationId"]
        with pytest.raises(TxReverted, match="AccessManagerUnauthorizedCancel"):
            clients["stranger"].access.cancel(number)
        assert clients[name].access.cancel(number).event("OperationCanceled")["operationId"] == number
        assert admin.access.pending() == ()
    node.travel(2 * DAY)
    with pytest.raises(TxReverted, match="AccessManagerNotScheduled"):
        admin.oracles.announce_epoch(SCHEDULE[2], 2)
    with pytest.raises(TxReverted, match="AccessManagerNotScheduled"):
        clients[GUARDIAN].access.cancel(number)
    with pytest.raises(NotFound, match="zhiyi access pending"):
        clients[GUARDIAN].access.cancel(bytes(32))


def test_the_steward_lists_tokens_and_names_the_metadata(clients: Clients, node: Node) -> None:
    steward, address = clients[ADMIN], token(clients)
    assert steward.vault.tokens() == ()
    assert steward.models.contract_uri() == ""
    with pytest.raises(TxReverted, match="AccessManagerNotScheduled"):
        steward.vault.list_token(address)
    steward.access.schedule("LicenseEscrow", "listToken", address, True)
    steward.access.schedule("LicenseEscrow", "listToken", address, False)
    steward.access.schedule("ModelNFT", "setContractURI", "ipfs://collection")
    node.travel(2 * DAY)
    steward.vault.list_token(address)
    steward.models.set_contract_uri("ipfs://collection")
    assert steward.vault.tokens() == (ListedToken(token=address, index=1, listed=True),)
    assert steward.models.contract_uri() == "ipfs://collection"
    steward.vault.list_token(address, False)
    assert steward.vault.tokens() == (ListedToken(token=address, index=1, listed=False),)


def test_roles_are_given_and_taken_by_the_same_call_twice(clients: Clients, node: Node) -> None:
    access = clients[ADMIN].access
    before = access.holders()
    assert before == tuple(
        RoleHolder(role=role, account=ADDRESS[name], delay=delay)
        for role, name, delay in (
            ("ADMIN", ADMIN, 2 * DAY),
            ("ORACLE_ADMIN", ORACLES, 2 * DAY),
            ("IDENTITY_ADMIN", ISSUERS, 2 * DAY),
            ("GUARDIAN", GUARDIAN, 0),
            ("STEWARD", ADMIN, 2 * DAY),
        )
    )
    for role, delay in (("registrar", 0), ("ORACLE-ADMIN", 2 * DAY)):
        assert access.grant(role, ADDRESS["stranger"]).function == "AccessManager.schedule"
        with pytest.raises(TxReverted, match="AccessManagerNotReady"):
            access.grant(role, ADDRESS["stranger"])
        node.travel(2 * DAY)
        given = access.grant(role, ADDRESS["stranger"]).event("RoleGranted")
        assert (given["account"], given["delay"]) == (ADDRESS["stranger"], delay)
    gained = set(access.holders()) - set(before)
    assert {(found.role, found.delay) for found in gained} == {("REGISTRAR", 0), ("ORACLE_ADMIN", 2 * DAY)}
    number = clients["stranger"].access.schedule(*SCHEDULE).event("OperationScheduled")["operationId"]

    access.revoke("REGISTRAR", ADDRESS["stranger"])
    access.revoke("ORACLE_ADMIN", ADDRESS["stranger"])
    announced = access.pending()[-1].operation_id
    with pytest.raises(TxReverted, match="AccessManagerUnauthorizedCancel"):
        clients[GUARDIAN].access.cancel(announced)  # a guardian who cancels everything can be removed
    node.travel(2 * DAY)
    access.revoke("REGISTRAR", ADDRESS["stranger"])
    access.revoke("ORACLE_ADMIN", ADDRESS["stranger"])
    assert access.holders() == before
    with pytest.raises(TxReverted, match="AccessManagerUnauthorizedCall"):
        clients["stranger"].access.execute(number)  # announced while it held the role

    with pytest.raises(TxReverted, match="AccessManagerUnauthorizedAccount"):
        clients["stranger"].access.grant("REGISTRAR", ADDRESS["stranger"])
    with pytest.raises(BadInput, match="roles are ADMIN, REGISTRAR"):
        access.grant("KING", ADDRESS["stranger"])


def test_administrators_on_other_chains_have_their_delay(clients: Clients) -> None:
    book = clients.deployment.model_copy(update={"chain_id": 1})
    access = Access(clients[ADMIN].chain, book)
    with pytest.raises(BadInput, match="only a development chain"):
        access.grant("STEWARD", ADDRESS["stranger"], delay=DAY)


def test_who_acts_at_once_announces_nothing(clients: Clients, node: Node) -> None:
    access = clients[ADMIN].access
    access.grant("REGISTRAR", ADDRESS["stranger"])
    node.travel(2 * DAY)
    access.grant("REGISTRAR", ADDRESS["stranger"])
    with pytest.raises(TxReverted, match="AccessManagerUnauthorizedCall") as refused:
        clients["stranger"].access.schedule("ModelNFT", "review", 1, bytes(32), 2, bytes(32))
    assert "calls it at once" in refused.value.hint


def test_what_has_no_call_of_its_own_is_executed(clients: Clients, node: Node) -> None:
    manager, access = clients.deployment.contract("AccessManager"), clients[ADMIN].access
    selector = abi.selector(abi.interface("EvidenceLog").function("anchor"))
    role, target = ROLE_NUMBERS["REGISTRAR"], clients.deployment.contracts["EvidenceLog"]
    announced = access.schedule(
        "AccessManager", "setTargetFunctionRole(address,bytes4[],uint64)", target, [selector], role
    )
    number = announced.event("OperationScheduled")["operationId"]
    (found,) = access.pending()
    assert found.args == {"target": target, "selectors": [selector], "roleId": role}
    assert found.model_dump(mode="json")["args"]["selectors"] == [to_hex(selector)]
    with pytest.raises(TxReverted, match="AccessManagerNotReady"):
        access.execute(number)
    node.travel(2 * DAY)
    with pytest.raises(TxReverted, match="AccessManagerUnauthorizedCall"):
        clients["stranger"].access.execute(number)
    access.execute(number)
    assert node.chain.call(manager, "getTargetFunctionRole", target, selector) == role
    assert access.pending() == ()


def test_announcements_of_any_bytes_are_shown(clients: Clients) -> None:
    """What a holder announces need be no call that exists."""
    manager, committee = (clients.deployment.contract(n) for n in ("AccessManager", "OracleCommittee"))
    selector = abi.selector(committee.interface.function("announceEpoch"))
    clients[ORACLES].chain.send(manager, "schedule", committee.address, selector + b"\x01", 0)
    clients[ADMIN].chain.send(manager, "schedule", committee.address, b"\xff" * 4, 0)
    clients[ADMIN].chain.send(manager, "schedule", ADDRESS["stranger"], b"\xff" * 4, 0)
    shown = [(f.contract, f.function, f.args, f.data) for f in clients["stranger"].access.pending()]
    assert shown == [
        ("OracleCommittee", "announceEpoch(address[],uint8)", {}, selector + b"\x01"),
        ("OracleCommittee", "", {}, b"\xff" * 4),
        ("", "", {}, b"\xff" * 4),
    ]


def test_a_call_that_does_not_exist_is_not_announced(clients: Clients) -> None:
    access = clients[ORACLES].access
    for arguments in (("OracleCommittee", "announce"), ("OracleCommittee", "announceEpoch"), SCHEDULE[:3]):
        with pytest.raises(BadInput):
            access.schedule(*arguments)


def test_a_committee_by_command(zhiyi: Shell, clients: Clients, node: Node) -> None:
    operators(clients)
    signers = [ADDRESS[name] for name in OPERATORS]
    announce = ("committee", "announce-epoch", 2, *signers)
    refused = zhiyi(ORACLES, *announce, code=6)["error"]
    assert refused["error_name"] == "AccessManagerNotScheduled"
    assert "zhiyi access schedule" in refused["hint"]
    schedule = ("access", "schedule", "OracleCommittee", "announceEpoch", ",".join(signers), 2)
    assert zhiyi(ORACLES, *schedule, "--dry-run")["status"] == "simulated"
    announced = zhiyi(ORACLES, *schedule)
    (found,) = zhiyi("", "access", "pending")
    assert found["operation_id"] == announced["operation_id"]
    assert (found["ready_at"], found["ready"]) == (announced["ready_at"], False)
    assert found["args"]["k"] == 2
    node.travel(2 * DAY)
    assert zhiyi("", "access", "pending")[0]["ready"]
    zhiyi(ORACLES, *announce)
    zhiyi("stranger", "committee", "activate-epoch", 1)
    epoch = zhiyi("", "committee", "epoch")
    assert (epoch["counts"], epoch["vacated_seats"]) == (True, [])
    clients["operator2"].oracles.request_exit()
    seat = clients["stranger"].oracles.epoch(1).seat(ADDRESS["operator2"])
    assert zhiyi("", "committee", "epoch", 1)["vacated_seats"] == [seat]
    assert zhiyi("", "access", "pending") == []


def test_canaries_an_issuer_a_token_and_metadata_by_command(
    zhiyi: Shell, clients: Clients, node: Node
) -> None:
    canaries = zhiyi.folder / "canaries"
    canaries.write_text(CANARIES.model_dump_json())
    root = zhiyi("", "committee", "canaries-root", canaries)["root"]
    address, issuer = token(clients), ADDRESS["authority"]
    acts = (
        (
            ORACLES,
            ("OracleCommittee", "commitCanaries", 1, root),
            ("committee", "commit-canaries", 1, canaries),
        ),
        (ISSUERS, ("IdentityRegistry", "setIssuer", issuer, 3), ("identity", "set-issuer", issuer, 3)),
        (ADMIN, ("LicenseEscrow", "listToken", address, "true"), ("vault", "list-token", address)),
        (
            ADMIN,
            ("LicenseEscrow", "listToken", address, "false"),
            ("vault", "list-token", address, "--remove"),
        ),
        (ADMIN, ("ModelNFT", "setContractURI", "ipfs://a,b"), ("model", "set-contract-uri", "ipfs://a,b")),
    )
    for who, announcement, _ in acts:
        zhiyi(who, "access", "schedule", *announcement, "--when", "+3d")
    node.travel(3 * DAY)
    for who, _, command in acts:
        assert zhiyi(who, *command)["status"] == "mined"
    assert zhiyi("", "vault", "tokens") == [{"token": address, "index": 1, "listed": False}]
    assert clients["stranger"].models.contract_uri() == "ipfs://a,b"


def test_roles_by_command(zhiyi: Shell, clients: Clients, node: Node) -> None:
    stranger = ADDRESS["stranger"]
    announced = zhiyi(ADMIN, "access", "grant", "REGISTRAR", stranger, "--delay", "1h")
    assert zhiyi(GUARDIAN, "access", "cancel", announced["operation_id"])["status"] == "mined"
    announced = zhiyi(ADMIN, "access", "grant", "REGISTRAR", stranger)
    node.travel(2 * DAY)
    assert zhiyi(ADMIN, "access", "execute", announced["operation_id"])["status"] == "mined"
    row = {"role": "REGISTRAR", "account": stranger, "delay": 0}
    assert row in zhiyi("", "access", "holders")
    assert "REGISTRAR" in zhiyi.plain("", "access", "holders")
    zhiyi(ADMIN, "access", "revoke", "REGISTRAR", stranger)
    node.travel(2 * DAY)
    assert zhiyi(ADMIN, "access", "revoke", "REGISTRAR", stranger)["function"] == "AccessManager.revokeRole"
    assert row not in zhiyi("", "access", "holders")
    for wrong in (
        ("grant", "KING", stranger),
        ("schedule", "Nobody", "announceEpoch"),
        ("schedule", "OracleCommittee", "announceEpoch", "0x12", 2),
        ("schedule", "OracleCommittee", "announceEpoch", stranger),
        ("schedule", "OracleCommittee", "announceEpoch", stranger, "two"),
        ("schedule", "LicenseEscrow", "listToken", stranger, "yes"),
        ("schedule", "OracleCommittee", "commitCanaries", 1, "0x12"),
        ("schedule", "LicenseEscrow", "checkOrder", "{}"),
    ):
        zhiyi(ADMIN, "access", *wrong, code=2)
