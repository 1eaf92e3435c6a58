"""Deploying: the same addresses everywhere, from wherever it stopped, onto nothing else, and powerless in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from conftest import CHAIN_ID, FAST, MANIFEST, Node, key_of, start_anvil
from conftest import ROLES as PEOPLE
from eth_abi.abi import encode
from stub_node import stub

from contracts_plan import CONTRACTS, FACTORY, MANAGER, PROXY, PROXY_CODE, CourtParams, Params
from contracts_rollout import Artifact, artifacts, deploy, estimate, plan_of, put_proxy, rollout, same_code
from zhiyi import LocalSigner, Zhiyi
from zhiyi.abi import NAMES, encode_call, interface
from zhiyi.chain import Chain, TxResult
from zhiyi.deployment import Deployment
from zhiyi.errors import ConfigError, IntegrityError, TxReverted, WrongChain
from zhiyi.probe import Finding
from zhiyi.roles import MIN_ADMIN_DELAY, ROLES
from zhiyi.self_check import PEERS, self_check
from zhiyi.types import keccak

ADDRESS = {role: LocalSigner(key_of(role)).address for role in PEOPLE}
HALVES = {"EscrowExtension": "LicenseEscrow", "CourtExtension": "MisuseCourt"}  # and whose ABI has theirs
PRODUCTION = Params(
    admin=ADDRESS["authority"],
    treasury=ADDRESS["treasury"],
    appeal_authority=ADDRESS["collaborator"],
    last_instance=ADDRESS["reporter"],
    holders={
        "REGISTRAR": (ADDRESS["registrar"],),
        "ORACLE_ADMIN": (ADDRESS["regulator"],),
        "GUARDIAN": (ADDRESS["stranger"],),
    },
)


class Interrupted(Exception):
    """The power failed."""


def as_(role: str, url: str) -> Chain:
    return Chain(url, signer=LocalSigner(key_of(role)), options=FAST)


@contextmanager
def node(*extra: str, chain_id: int = 77_001, hardfork: str = "prague") -> Iterator[Chain]:
    """A fresh chain, as the deployer sees it."""
    process, url = start_anvil(*extra, chain_id=chain_id, hardfork=hardfork)
    try:
        yield as_("deployer", url)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def built() -> dict[str, Artifact]:
    return artifacts(MANIFEST)


@pytest.fixture(scope="module")
def production() -> Iterator[Chain]:
    with node() as chain:
        yield chain


@pytest.fixture
def chain(production: Chain) -> Iterator[Chain]:
    """A production chain with nothing on it, put back after the test."""
    snapshot = production.rpc("evm_snapshot")
    yield production
    production.rpc("evm_revert", snapshot)


@pytest.fixture(scope="module")
def deployed(production: Chain) -> Iterator[tuple[Chain, Deployment]]:
    """A chain of its own, deployed once."""
    with node(chain_id=77_003) as chain:
        yield chain, deploy(chain, PRODUCTION, manifest=MANIFEST)


@pytest.fixture
def book(deployed: tuple[Chain, Deployment]) -> Iterator[Deployment]:
    chain, book = deployed
    snapshot = chain.rpc("evm_snapshot")
    yield book
    chain.rpc("evm_revert", snapshot)


def nonce(chain: Chain) -> int:
    return int(chain.rpc("eth_getTransactionCount", chain.account, "latest"), 16)


def failed(findings: list[Finding]) -> dict[str, str]:
    return {f.what: f.detail for f in findings if f.state == "failed"}


# ---------------------------------------------------------------- the plan on chains


def test_the_same_addresses_on_chains_of_other_ids_and_rules(built: dict[str, Artifact]) -> None:
    books = []
    for chain_id, hardfork in ((77_001, "cancun"), (77_002, "osaka")):
        with node(chain_id=chain_id, hardfork=hardfork) as chain:
            for _ in range(chain_id % 2 + 1):  # whatever the account did before
                chain.transact(ADDRESS["buyer"], value=1)
            books.append(deploy(chain, PRODUCTION, manifest=MANIFEST))
            assert failed(self_check(chain, books[-1])) == {}
    one, other = books
    assert one.contracts == other.contracts
    assert set(one.contracts) == {FACTORY, *CONTRACTS} >= set(NAMES)
    assert one.contracts == plan_of(ADDRESS["deployer"], PRODUCTION, built).at
    signing = {
        name for name in NAMES if "eip712Domain" in interface(name).functions
    }  # their code has the chain's id
    changed = {name for name in one.code if one.code[name] != other.code[name]}
    assert signing | {FACTORY} <= changed <= signing | {FACTORY, *HALVES}  # the factory has its block


def test_after_any_interruption_it_goes_on_where_it_stopped(chain: Chain) -> None:
    """Stopped after every transaction, until nothing is left to stop."""
    sent: list[str] = []

    def stop(text: str, result: TxResult | None) -> None:
        if result is not None:
            sent.append(text)
            raise Interrupted

    before = nonce(chain)
    for _ in range(len(CONTRACTS) + 3):
        with pytest.raises(Interrupted):
            deploy(chain, PRODUCTION, manifest=MANIFEST, say=stop)
    book = deploy(chain, PRODUCTION, manifest=MANIFEST, say=stop)
    assert nonce(chain) - before == len(CONTRACTS) + 3  # the factory, the roles, the end: nothing twice
    assert [text.split()[0] for text in sent] == [FACTORY, *CONTRACTS, "roles", FACTORY]
    assert failed(self_check(chain, book)) == {}
    assert book == deploy(chain, PRODUCTION, manifest=MANIFEST, say=stop)


def stopped_after(chain: Chain, step: str, params: Params = PRODUCTION) -> None:
    def stop(text: str, result: TxResult | None) -> None:
        if text.startswith(step):
            raise Interrupted

    with pytest.raises(Interrupted):
        deploy(chain, params, manifest=MANIFEST, say=stop)


def test_wrong_code_at_an_address_is_refused(chain: Chain, built: dict[str, Artifact]) -> None:
    stopped_after(chain, "LicenseNFT")
    at = plan_of(chain.account, PRODUCTION, built).at
    right = chain.code(at["LicenseNFT"])
    for wrong in (b"\x00", right[:-1] + bytes([right[-1] ^ 1]), right + b"\x00"):
        chain.rpc("anvil_setCode", at["LicenseNFT"], "0x" + wrong.hex())
        with pytest.raises(IntegrityError, match=f"{at['LicenseNFT']} is not that of LicenseNFT"):
            deploy(chain, PRODUCTION, manifest=MANIFEST)
    chain.rpc("anvil_setCode", at["LicenseNFT"], "0x" + right.hex())
    deploy(chain, PRODUCTION, manifest=MANIFEST)


def test_wrong_code_in_place_of_the_factory_is_refused(chain: Chain, built: dict[str, Artifact]) -> None:
    chain.rpc("anvil_setCode", plan_of(chain.account, PRODUCTION, built).factory, "0x00")
    with pytest.raises(IntegrityError, match="is not that of DeploymentFactory"):
        deploy(chain, PRODUCTION, manifest=MANIFEST)


def test_other_arguments_or_another_build_do_not_continue_a_deployment(
    chain: Chain, built: dict[str, Artifact]
) -> None:
    stopped_after(chain, "RoyaltyLedger")
    other = replace(PRODUCTION, treasury=ADDRESS["buyer"])
    with pytest.raises(IntegrityError, match=r"ModelNFT at .* other arguments"):
        deploy(chain, other, manifest=MANIFEST)
    kind = built["EvidenceLog"]
    newer = built | {"EvidenceLog": kind._replace(creation=kind.creation + b"\x00")}
    with pytest.raises(IntegrityError, match=r"EvidenceLog at .* other code"):
        rollout(chain, PRODUCTION, newer)
    again = deploy(chain, other, manifest=MANIFEST, salt="another")
    assert not {*again.contracts.values()} & {*plan_of(chain.account, PRODUCTION, built).at.values()}


def test_a_deployment_that_was_finished_takes_nothing_new(chain: Chain, built: dict[str, Artifact]) -> None:
    stopped_after(chain, "RoyaltyLedger")
    factory = Deployment(
        chain_id=chain.chain_id,
        contracts=plan_of(chain.account, PRODUCTION, built).at,
        block=0,
        deployer=chain.account,
    ).contract(FACTORY)
    chain.send(factory, "close")
    with pytest.raises(IntegrityError, match="closed and has no"):
        deploy(chain, PRODUCTION, manifest=MANIFEST)


def test_roles_that_the_deployer_can_no_longer_set_are_refused(
    chain: Chain, built: dict[str, Artifact]
) -> None:
    deploy(chain, PRODUCTION, manifest=MANIFEST)
    other = replace(PRODUCTION, holders={**PRODUCTION.holders, "PAUSER": (ADDRESS["buyer"],)})
    with pytest.raises(IntegrityError, match=rf"{ADDRESS['buyer']} does not hold role {ROLES['PAUSER']}"):
        deploy(chain, other, manifest=MANIFEST)


def test_a_constructor_that_refuses_says_why(chain: Chain) -> None:
    with pytest.raises(TxReverted, match="constructor of ModelNFT: SharesTooLarge"):
        deploy(chain, replace(PRODUCTION, platform_bps=9_999), manifest=MANIFEST)
    long = CourtParams(ruling_window=300 * 86_400)
    with pytest.raises(TxReverted, match="constructor of CourtExtension: ParamOutOfRange"):
        deploy(chain, replace(PRODUCTION, court=long), manifest=MANIFEST, salt="long")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"admin_delay": MIN_ADMIN_DELAY - 1}, "admin_delay"),
        ({"admin": ADDRESS["deployer"]}, "would hold STEWARD, ADMIN"),
        ({"holders": {"PAUSER": (ADDRESS["deployer"],)}}, "would hold PAUSER"),
    ],
)
def test_a_chain_of_production_refuses_development_roles(
    chain: Chain, changes: dict[str, Any], why: str
) -> None:
    before = nonce(chain)
    with pytest.raises(ConfigError, match=why):
        deploy(chain, replace(PRODUCTION, **changes), manifest=MANIFEST)
    assert nonce(chain) == before


def test_nothing_is_sent_to_a_chain_that_lacks_something() -> None:
    with node(hardfork="shanghai") as chain:
        with pytest.raises(ConfigError, match="EIP-1153"):
            deploy(chain, PRODUCTION, manifest=MANIFEST)
        assert nonce(chain) == 0


def test_the_proxy_is_put_where_it_lacks() -> None:
    with node("--disable-default-create2-deployer") as chain:
        if chain.code(PROXY):
            chain.rpc("anvil_setCode", PROXY, "0x")
        with pytest.raises(ConfigError, match="--put-proxy"):
            deploy(chain, PRODUCTION, manifest=MANIFEST)
        assert nonce(chain) == 0
        put_proxy(chain)
        assert chain.code(PROXY) == PROXY_CODE
        put_proxy(chain)
        assert nonce(chain) == 1
        deploy(chain, PRODUCTION, manifest=MANIFEST)


def test_other_code_in_the_place_of_the_proxy_is_refused(chain: Chain) -> None:
    chain.rpc("anvil_setCode", PROXY, "0x00")
    with pytest.raises(IntegrityError, match="not the CREATE2 proxy"):
        deploy(chain, PRODUCTION, manifest=MANIFEST)


def test_a_dry_run_sends_nothing_and_is_near_the_truth(chain: Chain, built: dict[str, Artifact]) -> None:
    before = nonce(chain)
    expected = estimate(chain, PRODUCTION, built)
    assert nonce(chain) == before
    at = plan_of(chain.account, PRODUCTION, built).at
    assert {line.step: line.address for line in expected if line.step in at} == at
    used: list[int] = []
    stopped_after(chain, "EvidenceLog")
    halfway = {line.step: line.gas for line in estimate(chain, PRODUCTION, built)}
    assert halfway["EvidenceLog"] == halfway[FACTORY] == 0 < halfway["ModelNFT"]
    deploy(
        chain, PRODUCTION, manifest=MANIFEST, salt="2", say=lambda _, r: used.append(r.gas_used if r else 0)
    )
    assert sum(used) <= sum(line.gas for line in expected) <= 1.1 * sum(used)
    assert not any(line.gas for line in estimate(chain, PRODUCTION, built, salt="2"))


def test_a_block_limit_that_is_too_small_is_named(built: dict[str, Artifact]) -> None:
    for limit, says in ((1_500_000, "fits into no block"), (2_200_000, "takes about")):
        with node("--gas-limit", str(limit)) as chain:
            for act in (estimate, rollout):
                with pytest.raises(ConfigError, match=f"AccessManager {says} .*{limit:,}"):
                    act(chain, PRODUCTION, built)


def test_immutables_alone_may_differ() -> None:
    code = bytes.fromhex("5f7f" + "00" * 32 + "50607f")
    filled = bytes.fromhex("5f7f" + "ab" * 32 + "50607f")
    assert same_code(code, code)
    assert same_code(code, filled)
    assert not same_code(filled, code)
    assert not same_code(code, filled[:-1])
    assert not same_code(code, filled[:-1] + b"\x7e")
    assert not same_code(code, b"\x5e" + filled[1:])
    assert not same_code(bytes.fromhex("7e" + "00" * 31), bytes.fromhex("7e" + "ab" * 31))


def test_a_missing_build_is_named(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="make contracts"):
        artifacts(tmp_path / "none.json")
    (tmp_path / "some.json").write_text('{"contractTypes": {}}')
    with pytest.raises(ConfigError, match="make contracts"):
        artifacts(tmp_path / "some.json")


# ---------------------------------------------------------------- address books


def test_the_package_knows_where_a_development_chain_has_everything(
    anvil: Node, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZHIYI_DEPLOYMENT", raising=False)
    packaged = Deployment.packaged(CHAIN_ID)
    assert packaged.contracts == deployment.contracts, "run `make abi`"
    assert Zhiyi.connect(anvil.url).deployment == packaged


def test_an_address_book_notices_other_code(deployed: tuple[Chain, Deployment], book: Deployment) -> None:
    chain, _ = deployed
    book.check(chain)
    at = book.contracts["EvidenceLog"]
    chain.rpc("anvil_setCode", at, "0x" + (chain.code(at) + b"\x00").hex())
    with pytest.raises(IntegrityError, match="EvidenceLog"):
        book.check(chain)
    with pytest.raises(IntegrityError, match="EvidenceLog"):
        Zhiyi.connect(chain.urls[0], deployment=book)
    book.model_copy(update={"code": {}}).check(chain)


# ---------------------------------------------------------------- the self-check


def test_a_deployment_passes_its_own_check(deployed: tuple[Chain, Deployment], book: Deployment) -> None:
    findings = self_check(deployed[0], book)
    assert failed(findings) == {}
    assert {f.what for f in findings if f.state == "note"} == {"role ADMIN"}  # a plain key here
    assert {f.what for f in findings} >= {"code", "factory", "peers", "domains", "functions", "role GUARDIAN"}


def test_books_of_other_chains_and_missing_contracts_are_named(
    deployed: tuple[Chain, Deployment], book: Deployment
) -> None:
    chain, _ = deployed
    assert set(failed(self_check(chain, book.model_copy(update={"chain_id": 5})))) == {"chain"}
    with pytest.raises(WrongChain):
        book.model_copy(update={"chain_id": 5}).check(chain)
    fewer = {name: at for name, at in book.contracts.items() if name != "MisuseCourt"}
    assert set(failed(self_check(chain, book.model_copy(update={"contracts": fewer})))) == {
        "code MisuseCourt"
    }
    chain.rpc("anvil_setCode", book.contracts["ModelNFT"], "0x")
    assert set(failed(self_check(chain, book))) == {"code ModelNFT"}
    chain.rpc("anvil_setCode", book.contracts["ModelNFT"], "0x00")
    assert "other code" in failed(self_check(chain, book))["code ModelNFT"]


def test_a_book_that_mixes_deployments_is_named(deployed: tuple[Chain, Deployment], book: Deployment) -> None:
    chain, _ = deployed
    other = rollout(chain, PRODUCTION, artifacts(MANIFEST), salt="other")
    mixed = book.model_copy(
        update={"contracts": {**book.contracts, "LicenseNFT": other.contracts["LicenseNFT"]}, "code": {}}
    )
    findings = self_check(chain, mixed)
    assert set(failed(findings)) == {"factory", "peers"}
    assert "LicenseNFT" in failed(findings)["factory"]
    assert {f.what for f in findings if f.state == "note"} == {"code", "role ADMIN"}


def test_a_factory_left_open_is_named(chain: Chain, built: dict[str, Artifact]) -> None:
    stopped_after(chain, "roles")
    at = plan_of(chain.account, PRODUCTION, built).at
    book = Deployment(chain_id=chain.chain_id, contracts=at, block=0, deployer=chain.account)
    assert set(failed(self_check(chain, book))) == {"factory"}


def administer(chain: Chain, book: Deployment, function: str, *args: Any) -> None:
    """What the administrator announces, and does two days later."""
    manager, admin = book.contract(MANAGER), as_("authority", chain.urls[0])
    data = encode_call(manager.interface.function(function), args)
    admin.send(manager, "schedule", manager.address, data, 0)
    chain.rpc("evm_increaseTime", MIN_ADMIN_DELAY)
    chain.rpc("anvil_mine", "0x1")
    admin.send(manager, "execute", manager.address, data)


@pytest.mark.parametrize(
    ("function", "args", "what", "says"),
    [
        ("grantRole", (ROLES["PAUSER"], ADDRESS["deployer"], 0), "role PAUSER", "it is the deployer"),
        ("grantRole", (ROLES["ORACLE_ADMIN"], ADDRESS["buyer"], 60), "role ORACLE_ADMIN", "after 60 s"),
        ("grantRole", (77, ADDRESS["buyer"], 0), "role 77", "no role of this system"),
        ("setRoleGuardian", (ROLES["STEWARD"], 0), "functions", "cannot cancel what STEWARD"),
        (
            "setRoleAdmin",
            (ROLES["PAUSER"], ROLES["REGISTRAR"]),
            "functions",
            "PAUSER is given and taken by role REG",
        ),
        ("revokeRole", (ROLES["ADMIN"], ADDRESS["authority"]), "role ADMIN", "nobody holds it"),
    ],
)
def test_roles_that_are_not_as_they_should_be_are_named(
    deployed: tuple[Chain, Deployment],
    book: Deployment,
    function: str,
    args: tuple[Any, ...],
    what: str,
    says: str,
) -> None:
    chain, _ = deployed
    administer(chain, book, function, *args)
    found = failed(self_check(chain, book))
    assert set(found) == {what}
    assert says in found[what]


def test_functions_in_other_hands_are_named(deployed: tuple[Chain, Deployment], book: Deployment) -> None:
    chain, _ = deployed
    selector = keccak(b"pausePosting(uint40)")[:4]
    administer(
        chain, book, "setTargetFunctionRole", book.contracts["MisuseCourt"], [selector], ROLES["REGISTRAR"]
    )
    found = failed(self_check(chain, book))
    assert found == {"functions": "MisuseCourt.pausePosting(uint40) belongs to role REGISTRAR, not to PAUSER"}


def test_a_missing_guardian_is_worth_a_note(deployed: tuple[Chain, Deployment], book: Deployment) -> None:
    chain, _ = deployed
    administer(chain, book, "revokeRole", ROLES["GUARDIAN"], ADDRESS["stranger"])
    findings = self_check(chain, book)
    assert failed(findings) == {}
    assert {f.what for f in findings if f.state == "note"} == {"role ADMIN", "role GUARDIAN"}


def test_code_that_answers_otherwise_is_named(deployed: tuple[Chain, Deployment], book: Deployment) -> None:
    """A book without code hashes: the code of another contract lies at the model token's address."""
    chain, _ = deployed
    chain.rpc(
        "anvil_setCode", book.contracts["ModelNFT"], "0x" + chain.code(book.contracts["LicenseNFT"]).hex()
    )
    found = failed(self_check(chain, book.model_copy(update={"code": {}})))
    assert set(found) == {"peers", "domains", "interfaces ModelNFT"}
    assert "ERC-2981" in found["interfaces ModelNFT"]


def test_a_domain_of_another_chain_or_name_is_named(
    deployed: tuple[Chain, Deployment], book: Deployment
) -> None:
    chain, _ = deployed
    escrow = book.contract("LicenseEscrow")
    kinds = ["bytes1", "string", "string", "uint256", "address", "bytes32", "uint256[]"]
    asked = "0x" + keccak(b"eip712Domain()")[:4].hex()
    for name, chain_id, verifier, says in (
        ("ZhiYiChain LicenseEscrow", 1, escrow.address, "for chain 1"),
        ("ZhiYiChain LicenseEscrow", book.chain_id, ADDRESS["buyer"], ADDRESS["buyer"]),
        ("Another", book.chain_id, escrow.address, "'Another'"),
    ):
        domain = encode(kinds, [b"\x0f", name, "1", chain_id, verifier, bytes(32), []])

        def answer(method: str, params: list[Any], domain: bytes = domain) -> dict[str, Any] | None:
            ours = (
                method == "eth_call" and params[0].get("to") == escrow.address and params[0]["data"] == asked
            )
            return {"result": "0x" + domain.hex()} if ours else None

        with stub(chain.urls[0], answer) as url:
            found = failed(self_check(Chain(url), book))
        assert set(found) == {"domains"}
        assert says in found["domains"]


def test_on_a_development_chain_short_delays_are_no_fault(anvil: Node, deployment: Deployment) -> None:
    findings = self_check(anvil.chain, deployment)
    assert failed(findings) == {}
    assert {f.what for f in findings if f.state == "note"} >= {
        "role ADMIN",
        "role STEWARD",
        "role ORACLE_ADMIN",
    }


def test_contracts_name_every_peer_they_were_given(built: dict[str, Artifact]) -> None:
    """So that the self-check sees all wiring: each peer among the arguments has a getter that is checked."""
    made = plan_of(ADDRESS["deployer"], PRODUCTION, built)
    names = {address: name for name, address in made.at.items()}
    for step in made.contracts:
        given = {names[value] for value in _flat(step.args) if value in names}
        home = HALVES.get(step.name, step.name)
        getters = {PEERS.get(name.lower()) for name in interface(home).functions}
        assert given <= getters, step.name


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from _flat(value)
        else:
            yield value
