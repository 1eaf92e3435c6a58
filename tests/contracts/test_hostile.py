"""Strangers call every function of every contract, with whatever they find: nothing that is not theirs moves.

The functions come from the ABIs, so that one added later is tried as well: unless `EFFECTS` says what anybody may do
with it, a stranger's call that succeeds must change nothing at all. The arguments are those of every call that ever
succeeded on the stage (replays), the same with one of them exchanged, and others of the right types drawn from all that
lies around.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from busy_stage import Busy, make_busy, tour
from eth_abi.abi import encode
from hypothesis import given
from hypothesis.strategies import randoms
from market import DAY, ETHER, NATIVE, System
from quick_node import Face, Function, Reverted, selector
from stage_play import Play
from test_known_failures import deployed
from walk_stage import build
from walks import factor, walk

from zhiyi.roles import FUNCTION_ROLES, ROLES

ROOT = Path(__file__).resolve().parents[2]
LATER = 200 * DAY  # every deadline on the stage is past then
STRANGER = "sam"
READ_ONLY = ("view", "pure")

# What of others a stranger's call may change; their balances may grow, and never fall. Every function that is not here
# must leave the storage of all contracts as it was.
EFFECTS: dict[str, set[str]] = {
    "LicenseEscrow.depositNative": set(),
    "LicenseEscrow.depositToken": set(),
    "LicenseEscrow.withdraw": set(),
    "LicenseEscrow.payPrepareFee": set(),
    "LicenseEscrow.cancel": set(),
    "LicenseEscrow.cancelAll": set(),
    "LicenseEscrow.revealKey": {"orders"},  # whoever knows the key
    "LicenseEscrow.settle": {
        "orders",
        "licenses",
        "bonds",
        "royalties",
        "stakes",
    },  # after the complaint window
    "LicenseEscrow.refund": {"orders", "licenses", "stakes"},  # after the reveal deadline
    "LicenseEscrow.resolveRange": {
        "orders",
        "licenses",
        "bonds",
        "royalties",
        "stakes",
    },  # whoever has the signatures
    "LicenseEscrow.requestBondRelease": {"bonds"},  # of an ended license
    "LicenseEscrow.releaseBond": {"bonds"},  # after the tail
    "LicenseEscrow.earnPrepareFee": {"fees"},  # with the seller's word
    "RoyaltyLedger.openTerms": {"models"},
    "RoyaltyLedger.pullPlatform": {"royalties"},
    "RoyaltyLedger.pullAncestor": {"royalties"},
    "RoyaltyLedger.pullCollaborator": {"royalties"},
    "RoyaltyLedger.pullOwner": {"royalties"},
    "OracleCommittee.join": set(),
    "OracleCommittee.activateEpoch": {"committee"},
    "MisuseCourt.openCase": {"bonds"},  # counts the case
    "MisuseCourt.reportDisclosureDisabled": {"bonds"},  # as well
    "MisuseCourt.clearUnserved": {"cases", "bonds", "licenses"},
    "MisuseCourt.cure": {"cases", "bonds", "licenses"},  # whoever has the signatures
    "MisuseCourt.challenge": {"cases"},  # after the accused's own time
    "MisuseCourt.lapse": {"cases", "bonds"},
    "MisuseCourt.shareMissed": {"cases", "bonds", "stakes"},
    "MisuseCourt.finalize": {"cases", "bonds", "licenses"},
    "MisuseCourt.execute": {"cases", "bonds", "licenses", "royalties", "models"},
    "MisuseCourt.escalate": {"cases"},
    "MisuseCourt.clearSilent": {"cases", "licenses"},
    "MisuseCourt.releaseHold": {"cases", "bonds"},
    "MisuseCourt.claimFee": {"cases"},
    "MisuseCourt.postVerdict": {"cases", "licenses"},  # whoever has the signatures
    "OracleCommittee.accuseCanary": set(),  # whoever can open the canary and has the signature
    "OracleCommittee.endCanary": {"stakes"},
    "OracleCommittee.proveEquivocation": {"stakes", "committee"},  # whoever has the signatures
    "OracleCommittee.proveDoubleCopy": {"stakes"},  # as above
    "EvidenceLog.commit": set(),
    "EvidenceLog.anchor": set(),
    "IdentityRegistry.revoke": set(),  # of what the caller attested
    "LicenseNFT.setApprovalForAll": set(),
    "ModelNFT.setApprovalForAll": set(),
    "ModelNFT.register": set(),
    "Oversight.fileComplaint": set(),
    "Oversight.markUnanswered": {"oversight"},
    "UsageChannel.open": set(),
    "UsageChannel.redeem": {"channels", "royalties"},  # whoever has the voucher
    "UsageChannel.close": {"channels"},  # after its time
}


# Reverts without an error, answered; besides, enums out of their range, which end as calldata is decoded.
SILENT = {
    "AccessManager.consumeScheduledOp": "OpenZeppelin's manager asks its caller, who has no code here.",
    "AccessManager.schedule": "It cuts a selector out of calldata that has none.",
    "AccessManager.execute": "As above.",
    "AccessManager.cancel": "As above.",
    "OracleCommittee.proveEquivocation": "Verdicts come as bytes, and bytes that are none end as they are decoded.",
}
# Panics, answered.
OVERFLOW = bytes.fromhex("4e487b71") + (0x11).to_bytes(32, "big")
OVERFLOWING = {"UsageChannel.topUp": "A deposit above 2^96 units of a token, which nobody has."}
ENUMS = {
    name: members.count(",") + 1
    for path in (ROOT / "contracts" / "interfaces").glob("*.sol")
    for name, members in re.findall(r"enum (\w+) \{([^}]*)\}", path.read_text())
}


@pytest.fixture(scope="module")
def busy(system: System, project: Any) -> Busy:
    play = Play(build(system, project))
    deployed(play.stage, project, "BatchWallet", play.address("gina"), value=ETHER)
    found = make_busy(play)
    tour(found)
    return found


# ---------------------------------------------------------------- positions


def positions(busy: Busy, *, roles: bool = True) -> dict[str, Any]:
    """All that belongs to someone, by kind and name; roles only where they can change."""
    stage, play = busy.stage, busy.play
    f = stage.faces
    calls: dict[str, tuple[Any, ...]] = {}
    for name, person in stage.people.items():
        for token in (NATIVE, stage.token.address):
            calls[f"balances/{name}/{token}"] = (f["LicenseEscrow"], "balanceOf", person.address, token)
        calls[f"stakes/{name}"] = (f["LicenseEscrow"], "stakeOf", person.address)
        calls[f"members/{name}"] = (f["OracleCommittee"], "memberOf", person.address)
        calls[f"identity/{name}"] = (f["IdentityRegistry"], "tierOf", person.address)
    for order in busy.orders.values():
        number = order.delivery.licenseId
        calls[f"orders/{number}"] = (f["LicenseEscrow"], "orderState", number)
        calls[f"bonds/{number}"] = (f["LicenseEscrow"], "bondOf", number)
        if stage.view("LicenseEscrow", "orderState", number)[0] == 4:
            for view in ("ownerOf", "termsOf", "endOf", "isSuspended", "isOffered"):
                calls[f"licenses/{number}/{view}"] = (f["LicenseNFT"], view, number)
    for model in stage.models:
        calls[f"models/{model}"] = (f["ModelNFT"], "statusOf", model)
        calls[f"models/{model}/terms"] = (f["RoyaltyLedger"], "termsHash", model)
        calls[f"models/{model}/metadata"] = (f["ModelNFT"], "metadataDigest", model)
        for token in (NATIVE, stage.token.address):
            calls[f"royalties/{model}/{token}"] = (f["LicenseEscrow"], "royaltyOf", model, token)
    for file in busy.files.values():
        calls[f"cases/{file.id.hex()}"] = (f["MisuseCourt"], "caseState", file.id)
        calls[f"cases/{file.id.hex()}/detail"] = (f["MisuseCourt"], "caseDetail", file.id)
        calls[f"cases/{file.id.hex()}/bond"] = (f["LicenseEscrow"], "caseBondOf", file.id)
    channel = play.view("UsageChannel", "channelIdOf", busy.channel)
    calls["channels/0"] = (f["UsageChannel"], "stateOf", channel)
    calls["fees/0"] = (f["LicenseEscrow"], "prepareFeeOf", play.address("emma"), busy.request)
    for role, number in ROLES.items() if roles else ():
        for name, person in stage.people.items():
            calls[f"roles/{name}/{role}"] = (f["AccessManager"], "hasRole", number, person.address)
    calls["committee/epoch"] = (f["OracleCommittee"], "currentEpoch")
    calls["committee/hash"] = (f["OracleCommittee"], "committeeHash", 1)
    calls["oversight/complaint"] = (f["Oversight"], "complaintOf", 1)
    calls["oversight/demand"] = (f["Oversight"], "demandOf", 1)
    calls["settings/token"] = (f["LicenseEscrow"], "isListed", stage.token.address)
    vault = f["LicenseEscrow"].address
    calls["held/token"] = (stage.token, "balanceOf", vault)
    found = dict(zip(calls, stage.node.read(*calls.values()), strict=True))
    return found | {"held/coins": int(stage.node.ask("eth_getBalance", vault, "latest"), 16)}


def changed(busy: Busy, attempt: Attempt, time: int, *, sender: str = "") -> set[str]:
    """The contracts whose storage or coins the attempt would change, by name."""
    sender = sender or busy.play.address(STRANGER)
    return busy.stage.node.changes(
        attempt.face.address, attempt.data, sender=sender, value=attempt.value, time=time
    )


# ---------------------------------------------------------------- arguments


class Pool:
    """Values of each type that lie around on the stage, and others."""

    def __init__(self, busy: Busy, dice: Random) -> None:
        self.dice = dice
        self.errors = busy.stage.node.errors
        self.unheard: set[str] = set()  # reverts that name no error of the system
        self.values: dict[str, list[Any]] = defaultdict(list)
        stage = busy.stage
        for sent in stage.sent:
            if sent.contract in stage.system.at:
                types = stage.faces[sent.contract].functions[sent.function].inputs
                for kind, value in zip(types, sent.arguments, strict=True):
                    self.add(kind, value)
        people = [person.address for person in stage.people.values()]
        self.values["address"] += [*people, *(face.address for face in stage.faces.values()), NATIVE]
        self.values["uint256"] += [order.delivery.licenseId for order in busy.orders.values()]
        self.values["bytes32"] += [file.id for file in busy.files.values()]
        for width in range(8, 257, 8):
            self.values[f"uint{width}"] += [0, 1, 2, 2**width - 1]
        self.values["uint40"] += [stage.time + 1, stage.time + DAY]
        self.values["bytes"] += [b"", bytes(65), b"\x01" * 64]
        self.values["bool"] = [True, False]

    def hear(self, attempt: Attempt, answer: Reverted) -> None:
        """Every refusal is a custom error of the system."""
        silent = not answer.data and (attempt.name in SILENT or outside(attempt))
        silent = silent or (answer.data == OVERFLOW and attempt.name in OVERFLOWING)
        if answer.data[:4] not in self.errors and not silent:
            self.unheard.add(f"{attempt.name}: {answer.error}")

    def add(self, kind: str, value: Any) -> None:
        if kind.endswith("[]") or kind == "string" or value not in self.values[kind]:
            self.values[kind].append(value)

    def draw(self, kind: str) -> Any:
        if self.values[kind] and self.dice.random() < 0.9:
            return self.dice.choice(self.values[kind])
        if kind.endswith("[]"):
            return [self.draw(kind[:-2]) for _ in range(self.dice.randrange(3))]
        if kind.startswith("("):
            return tuple(self.draw(part) for part in parts(kind))
        if kind == "string":
            return self.dice.choice(["", "https://sam.example"])
        if kind.startswith("bytes") and kind != "bytes":
            return self.dice.randbytes(int(kind.removeprefix("bytes")))
        return self.dice.choice(self.values[kind])


def parts(kind: str) -> list[str]:
    """The members of a tuple type."""
    found, depth, at = [], 0, 1
    for i, letter in enumerate(kind):
        depth += (letter == "(") - (letter == ")")
        if (letter == "," and depth == 1) or (letter == ")" and depth == 0):
            found.append(kind[at:i])
            at = i + 1
    return found


@dataclass(frozen=True)
class Attempt:
    """One call of a stranger."""

    face: Face
    function: Function
    arguments: tuple[Any, ...]
    value: int

    @property
    def name(self) -> str:
        return f"{self.face.name}.{self.function.name}"

    def __str__(self) -> str:
        return f"{self.name}{self.arguments} with {self.value}"

    @property
    def data(self) -> bytes:
        return self.function.selector + encode(self.function.inputs, self.arguments)


def outside(attempt: Attempt) -> bool:
    """Whether an enum among the arguments is out of its range."""
    (item,) = (
        i for i in attempt.face.abi if i["type"] == "function" and selector(i) == attempt.function.selector
    )
    pairs = list(zip(item["inputs"], attempt.arguments, strict=True))
    while pairs:
        parameter, value = pairs.pop()
        name = str(parameter.get("internalType", "")).removeprefix("enum ").split(".")[-1]
        if name in ENUMS and value >= ENUMS[name]:
            return True
        if parameter["type"] == "tuple":
            pairs += zip(parameter["components"], value, strict=True)
        elif parameter["type"] == "tuple[]":
            pairs += [(parameter | {"type": "tuple"}, element) for element in value]
    return False


def attempts(busy: Busy, face: Face, function: Function, pool: Pool, count: int) -> list[Attempt]:
    """Replays, replays with one argument exchanged, and draws."""
    dice, stage = pool.dice, busy.stage
    recorded = [s for s in stage.sent if (s.contract, s.function) == (face.name, function.name)]
    recorded = [s for s in recorded if len(s.arguments) == len(function.inputs)]
    found = [
        Attempt(face, function, s.arguments, s.value)
        for s in dice.sample(recorded, min(count, len(recorded)))
    ]
    for _ in range(count):
        if recorded and function.inputs and dice.random() < 0.6:
            base = dice.choice(recorded)
            at = dice.randrange(len(function.inputs))
            arguments = [*base.arguments]
            arguments[at] = pool.draw(function.inputs[at])
            found.append(Attempt(face, function, tuple(arguments), base.value))
        else:
            value = dice.choice([0, 0, 1, ETHER])
            found.append(Attempt(face, function, tuple(pool.draw(kind) for kind in function.inputs), value))
    return found if function.mutability == "payable" else [replace(a, value=0) for a in found]


# ---------------------------------------------------------------- strangers

WHEN = pytest.mark.parametrize("when", [1, LATER], ids=["now", "when all deadlines are past"])
dice_of_hypothesis = randoms(use_true_random=True)


def functions(busy: Busy) -> Iterator[tuple[Face, Function]]:
    """Every function of the deployed contracts that may change something."""
    for name, face in busy.stage.faces.items():
        if name in busy.stage.system.at:
            for function in face.all_functions:
                if function.mutability not in READ_ONLY:
                    yield face, function


@WHEN
@walk(2, 1)
@given(dice=dice_of_hypothesis)
def test_a_stranger_changes_nothing_that_is_not_his(busy: Busy, when: int, dice: Random) -> None:
    stage, node = busy.stage, busy.stage.node
    pool = Pool(busy, dice)
    sender, time = busy.play.address(STRANGER), stage.time + when
    before, tried = positions(busy), defaultdict[str, int](int)
    for face, function in functions(busy):
        found = attempts(busy, face, function, pool, 6)
        tried[f"{face.name}.{function.name}"] += len(found)
        calls = [(face.address, attempt.data, sender, attempt.value) for attempt in found]
        done = []
        for attempt, answer in zip(found, node.simulate_all(calls, time), strict=True):
            if isinstance(answer, Reverted):
                pool.hear(attempt, answer)
            else:
                done.append(attempt)
        for attempt in done[:4]:
            look_at(busy, before, attempt, time)
    assert not pool.unheard
    assert all(tried.values())
    assert set(EFFECTS) <= set(tried), set(EFFECTS) - set(tried)


def look_at(busy: Busy, before: dict[str, Any], attempt: Attempt, time: int) -> None:
    """The attempt succeeds: what does it change?"""
    if attempt.name not in EFFECTS:
        touched = changed(busy, attempt, time)
        assert not touched, f"a stranger's {attempt} changes {touched}: name it in EFFECTS?"
        return
    for key, value in outcome(busy, attempt, STRANGER, time).items():
        kind, owner, *_ = key.split("/")
        if owner == STRANGER or value == before.get(key):
            continue
        if kind == "balances":
            assert value > before[key], f"{attempt} takes from {key}"
        elif kind == "held":
            assert value > before[key] or attempt.name == "LicenseEscrow.withdraw", (
                f"{attempt} empties the vault"
            )
        else:
            assert kind in EFFECTS[attempt.name], f"{attempt} changes {key}"


def outcome(busy: Busy, attempt: Attempt, by: str, time: int) -> dict[str, Any]:
    """The positions that the attempt would leave behind; the chain is as before."""
    node = busy.stage.node
    snapshot = node.ask("evm_snapshot")
    try:
        node.send(
            attempt.face.address, attempt.data, sender=busy.play.address(by), value=attempt.value, time=time
        )
        return positions(busy, roles=attempt.face.name == "AccessManager")
    finally:
        node.ask("evm_revert", snapshot)


def test_a_stranger_gets_nothing(busy: Busy) -> None:
    """Of all calls that succeed for a contract that has no part in anything, none makes it richer."""
    stage, node = busy.stage, busy.stage.node
    wallet = stage.faces["BatchWallet"]
    pool = Pool(busy, Random("wallet"))
    time = stage.time + LATER
    for face, function in functions(busy):
        found = [replace(a, value=0) for a in attempts(busy, face, function, pool, 3 * factor())]
        inner = [wallet.data("execute", [(face.address, 0, a.data)]) for a in found]
        answers = node.simulate_all(
            [(wallet.address, data, busy.play.address(STRANGER), 0) for data in inner], time
        )
        for data, answer in zip(inner, answers, strict=True):
            if not isinstance(answer, Reverted):
                assert gain(busy, wallet, data, time) <= 0, f"{face.name}.{function.name} enriches a stranger"


def gain(busy: Busy, wallet: Face, data: bytes, time: int) -> int:
    """What the wallet has more of after the call: coins, tokens, balances, stake."""
    stage, node = busy.stage, busy.stage.node

    def wealth() -> int:
        escrow = stage.faces["LicenseEscrow"]
        native, token, stake, tokens = node.read(
            (escrow, "balanceOf", wallet.address, NATIVE),
            (escrow, "balanceOf", wallet.address, stage.token.address),
            (escrow, "stakeOf", wallet.address),
            (stage.token, "balanceOf", wallet.address),
        )
        coins = int(node.ask("eth_getBalance", wallet.address, "latest"), 16)
        return int(coins + native + token + stake[0] + tokens)

    before = wealth()
    snapshot = node.ask("evm_snapshot")
    try:
        node.send(wallet.address, data, sender=busy.play.address(STRANGER), time=time)
        return wealth() - before
    finally:
        node.ask("evm_revert", snapshot)


# ---------------------------------------------------------------- everybody else

# Whoever has a part in something may be the worst of callers. Free balances are safe from all of them, stakes and bonds
# fall only by these calls.
INSIDERS = (
    "anna", "emma", "gina", "fred", "flora", "hugo", "operator 0", "kim", "arbiter", "last", "pauser", "treasury",
    "admin",
)  # fmt: skip
COST_A_STAKE = {
    f"{contract}.{function}"
    for contract, functions_ in {
        "LicenseEscrow": ("complain", "refund", "resolveRange"),
        "MisuseCourt": ("shareMissed", "rule", "ruleFault"),
        "OracleCommittee": ("proveDoubleCopy", "proveEquivocation", "ruleCanary", "endCanary"),
    }.items()
    for function in functions_
}
COST_A_BOND = {"LicenseEscrow.releaseBond", "MisuseCourt.execute"}
END_A_LICENSE = {
    "LicenseEscrow.accept",
    "LicenseEscrow.settle",
    "LicenseEscrow.resolveRange",
    "MisuseCourt.execute",
}


@WHEN
@walk(1, 1)
@given(dice=dice_of_hypothesis)
def test_nobody_takes_what_is_anothers(busy: Busy, when: int, dice: Random) -> None:
    """The administrator included: no role reaches money."""
    node, pool, time = busy.stage.node, Pool(busy, dice), busy.stage.time + when
    before, succeeded = positions(busy), set()
    for face, function in functions(busy):
        tries = [
            (attempt, by)
            for attempt in attempts(busy, face, function, pool, 3)
            for by in INSIDERS
            if (face.name, by) != ("AccessManager", "admin")  # hands out roles, to take which is no attack
        ]
        calls = [(face.address, a.data, busy.play.address(by), a.value) for a, by in tries]
        answers = node.simulate_all(calls, time)
        for (attempt, _), answer in zip(tries, answers, strict=True):
            if isinstance(answer, Reverted):
                pool.hear(attempt, answer)
        done = [t for t, answer in zip(tries, answers, strict=True) if not isinstance(answer, Reverted)]
        for attempt, by in dice.sample(done, min(3, len(done))):
            succeeded.add(attempt.name)
            compare(before, outcome(busy, attempt, by, time), attempt, by, busy.play.address(by))
    assert not pool.unheard
    assert len(succeeded) > 30, len(succeeded)


def compare(before: dict[str, Any], after: dict[str, Any], attempt: Attempt, by: str, address: str) -> None:
    where = f"{by}'s {attempt}"
    for key, value in after.items():
        old = before.get(key)
        if old is None or value == old:
            continue  # a new license is nobody's loss
        kind, owner, *rest = key.split("/")
        match kind:
            case "held":
                assert value > old or attempt.name == "LicenseEscrow.withdraw", (
                    f"{where} takes from the vault"
                )
            case "balances" if owner != by:
                assert value > old, f"{where} takes from {key}"
            case "stakes" if owner != by and value[0] < old[0]:
                assert attempt.name in COST_A_STAKE, f"{where} takes from {key}"
            case "bonds" if value[0] < old[0]:
                assert attempt.name in COST_A_BOND, f"{where} takes from {key}"
            case "licenses" if rest == ["ownerOf"]:
                raise AssertionError(f"{where} moves {key}")
            case "licenses" if rest == ["endOf"]:
                own = attempt.name in ("LicenseNFT.surrender", "LicenseNFT.cancelSubscription")
                own = own and before[f"licenses/{owner}/ownerOf"].lower() == address.lower()
                assert own or attempt.name in END_A_LICENSE, f"{where} ends {key}"
            case "roles":
                own = owner == by and attempt.name == "AccessManager.renounceRole"
                assert own, f"{where} changes {key}"


# ---------------------------------------------------------------- calls that no function takes


def test_what_no_function_takes_is_refused(busy: Busy) -> None:
    """Coins without a call, unknown selectors, half a selector, coins with a call that costs nothing."""
    node, pool = busy.stage.node, Pool(busy, Random("coins"))
    sender, time = busy.play.address(STRANGER), busy.stage.time + 1
    for name, face in busy.stage.faces.items():
        if name not in busy.stage.system.at:
            continue
        strange = [
            (b"", 1),
            (b"", 0),
            (b"\xde\xad\xbe\xef", 0),
            (b"\xde\xad\xbe\xef", 1),
            (b"\x01\x02", 1),
            (bytes(4), 1),
        ]
        if name == "AccessManager":
            strange = [(data, value) for data, value in strange if data]
        calls = [(face.address, data, sender, value) for data, value in strange]
        for call, answer in zip(calls, node.simulate_all(calls, time), strict=True):
            assert isinstance(answer, Reverted), (name, call)
    for face, function in functions(busy):
        if function.mutability == "payable":
            continue
        for attempt in attempts(busy, face, function, pool, 2):
            calls = [
                (face.address, attempt.data, busy.play.address(by), 1) for by in (STRANGER, "emma", "anna")
            ]
            assert all(isinstance(answer, Reverted) for answer in node.simulate_all(calls, time)), attempt


@pytest.mark.parametrize(
    ("whole", "half", "error"),
    [
        ("LicenseEscrow", "EscrowExtension", "OnlyThroughEscrow"),
        ("MisuseCourt", "CourtExtension", "OnlyThroughCourt"),
    ],
)
def test_an_extension_does_nothing_at_its_own_address(busy: Busy, whole: str, half: str, error: str) -> None:
    """Nobody, peers and the administrator included, gets it to keep coins or to act with its own storage."""
    node, pool = busy.stage.node, Pool(busy, Random(half))
    face, address = busy.stage.faces[whole], busy.stage.system.at[half].address
    peers = [busy.stage.faces[name].address for name in busy.stage.faces if name in busy.stage.system.at]
    senders = [busy.play.address(name) for name in (STRANGER, "emma", "anna", "admin", "pauser")] + peers
    refused = 0
    for function in face.all_functions:
        if function.mutability in READ_ONLY or function.name == "setAuthority":
            continue  # the manager may set what nobody asks there
        for attempt in attempts(busy, face, function, pool, 2):
            calls = [(address, attempt.data, sender, attempt.value) for sender in senders]
            answers = node.simulate_all(calls, busy.stage.time + 1)
            assert all(isinstance(answer, Reverted) for answer in answers), attempt
            refused += sum(isinstance(answer, Reverted) and answer.error == error for answer in answers)
    assert refused


# ---------------------------------------------------------------- peers and roles

# Who else than its own peer calls it changes nothing. `setAuthority` is the manager's everywhere.
PEERS: dict[str, set[str]] = {
    f"{contract}.{function}": set(peers)
    for contract, table in {
        "LicenseEscrow": {
            ("OracleCommittee",): ("addStake", "allowDeposits", "removeStake"),
            ("OracleCommittee", "MisuseCourt"): ("slashStake",),
            ("MisuseCourt",): ("lockCaseBond", "payCaseBond", "holdBond", "unholdBond", "enforceCase"),
            ("RoyaltyLedger",): ("payRoyalty", "passRoyalty"),
            ("UsageChannel",): ("lockChannel", "payChannel", "payChannelRoyalty"),
        },
        "LicenseNFT": {
            ("LicenseEscrow",): ("issue", "offerOnward", "withdrawOnward", "settleOnward", "renew"),
            ("MisuseCourt",): ("revoke", "suspend"),
        },
        "ModelNFT": {
            ("MisuseCourt",): ("freezeByVerdict",),
            ("LicenseEscrow",): ("transferFrom", "safeTransferFrom"),  # what the owner approved for a sale
        },
        "OracleCommittee": {("MisuseCourt",): ("slashSigners",)},
        "RoyaltyLedger": {("LicenseEscrow",): ("settleOwner",)},
    }.items()
    for peers, functions in table.items()
    for function in functions
}  # fmt: skip


def test_a_peer_does_only_what_is_its_own(busy: Busy) -> None:
    """Each contract of the system as the sender of every call that is not open to all."""
    stage, node = busy.stage, busy.stage.node
    pool = Pool(busy, Random("peers"))
    done: dict[str, set[str]] = defaultdict(set)
    assert set(PEERS) <= {f"{face.name}.{function.name}" for face, function in functions(busy)}
    for attempt in closed_attempts(busy, pool, 6 * factor()):
        senders = [name for name in stage.faces if name in stage.system.at]
        calls = [(attempt.face.address, attempt.data, stage.faces[name].address, 0) for name in senders]
        for sender, answer in zip(senders, node.simulate_all(calls, stage.time + 1), strict=True):
            if isinstance(answer, Reverted):
                continue
            done[attempt.name].add(sender)
            own = (
                {"AccessManager"}
                if attempt.function.name == "setAuthority"
                else PEERS.get(attempt.name, set())
            )
            if sender not in own:
                touched = changed(busy, attempt, stage.time + 1, sender=stage.faces[sender].address)
                assert not touched, f"{sender} does {attempt.name}{attempt.arguments}: {touched}"
    assert len(done) > 5, done


def closed_attempts(busy: Busy, pool: Pool, count: int) -> list[Attempt]:
    """Calls of all functions that are not anybody's; without coins, which contracts have none to send of."""
    stage = busy.stage
    return [
        replace(attempt, value=0)
        for name, face in stage.faces.items()
        if name in stage.system.at and name != "AccessManager"
        for function in face.all_functions
        if function.mutability not in READ_ONLY and f"{name}.{function.name}" not in EFFECTS
        for attempt in attempts(busy, face, function, pool, count)
    ]


def test_a_role_reaches_no_further_than_its_functions(busy: Busy) -> None:
    """Whoever holds one power, or none, is refused by every other."""
    stage, node = busy.stage, busy.stage.node
    holders = {
        "REGISTRAR": "arbiter",
        "REGULATOR": "last",
        "PAUSER": "pauser",
    }  # the others are the administrator's
    powerless = ["anna", "treasury", "operator 0", "fred", *holders.values()]
    pool = Pool(busy, Random("roles"))
    for contract, table in FUNCTION_ROLES.items():
        face = stage.faces[contract]
        for signature, role in table.items():
            (function,) = [f for f in face.all_functions if f"{f.name}({','.join(f.inputs)})" == signature]
            for attempt in attempts(busy, face, function, pool, 2):
                for name in powerless:
                    if holders.get(role) == name:
                        continue
                    call = (face.address, attempt.data, busy.play.address(name), 0)
                    (answer,) = node.simulate_all([call], stage.time + 1)
                    assert isinstance(answer, Reverted), f"{name} does {attempt.name}"
                    assert answer.error in ("AccessManagedUnauthorized", DECODING), (
                        name,
                        attempt.name,
                        answer.error,
                    )


DECODING = "0x execution reverted"  # an enum out of its range
