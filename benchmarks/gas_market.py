"""Gas of models, purchases, royalties and the log, as whole transactions on the deployed system; rows for `gas.py`.

"First" and "repeat" differ in the storage slots that are new: `settle_first` is a buyer's first license and a model's
first sale; `repeat` is neither.
"""

from __future__ import annotations

from typing import Any

import ape
from market import (
    CHUNK,
    ETHER,
    NATIVE,
    Model,
    Order,
    Parcel,
    System,
    deep_parcel,
    isolated,
    make_parcel,
    sha,
    sign_digest,
)

from report import Row

CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
BUDGETS = {
    "register": 135_000,
    "commit": 40_000,
    "open_native": 98_000,
    "open_erc20": 135_000,
    "reveal": 38_000,
    "settle_first": 182_000,
    "settle_repeat": 148_000,
    "purchase_repeat": 284_000,
    "complaint_4gib": 158_000,
    "royalty_pay": 40_000,
    "royalty_pull": 55_000,
    "anchor": 35_000,
}
COMPLAINT_SIZES = (448, 896, 1024)  # bytes, beside the one in use
WHAT = {
    "register": "register a model, the owner's second, one collaborator",
    "register_parent": "the same with one parent by signature",
    "commit": "ERC-7053 commit, a later one of the CID; the data names a CID",
    "open_native": "open an order in the native coin, deposit locked",
    "open_erc20": "open an order in an ERC-20 from an allowance, deposit locked",
    "reveal": "reveal the key",
    "settle_first": "settle: license, royalty, bond; first for buyer and model",
    "settle_repeat": "settle, repeat",
    "purchase_repeat": "open, reveal and settle, repeat",
    "refund": "refund after no reveal",
    "complaint_4gib": f"complaint about one chunk of a 4 GiB bundle, chunks of {CHUNK} bytes; the buyer's first credit",
    "complaint_4gib_repeat": "the same by a buyer who has a balance in the vault",
    **{
        f"complaint_4gib_{size}": f"the same as the first with chunks of {size} bytes"
        for size in COMPLAINT_SIZES
    },
    "royalty_pay": "what a royalty payment adds to a settlement, next of the model",
    "royalty_pull": "pull a collaborator's share, next",
    "royalty_pull_owner": "pull the owner's share, next",
    "royalty_pull_ancestor": "move an ancestor's share, next",
    "anchor": "anchor a batch, next of the stream",
}
DEPTH = "settle a license of a model in the 16th generation, with a delivery tree 16 deep, over first and 1"


def buy(system: System, order: Order, parcel: Parcel) -> dict[str, int]:
    receipts = {
        "open": system.open(order),
        "reveal": system.reveal(order, parcel),
        "settle": system.settle(order),
    }
    return {name: int(receipt.gas_used) for name, receipt in receipts.items()}


def offered(system: System, seed: str) -> Model:
    model = system.register(system.creator, seed, collaborators=((system.collaborator.address, 1_000),))
    system.approve(model)
    return model


def child_of(system: System, parent: Model, seed: str, bps: int = 1_000) -> Model:
    """A model of the creator that gives `bps` to `parent`, an approved model of his; one collaborator."""
    root, far = sha(seed.encode()), 2**40 - 1
    digest = system.models.consentDigest(parent.id, root, system.creator, bps, far)
    signature = sign_digest(bytes(digest), system.creator)
    return system.register(
        system.creator,
        seed,
        collaborators=((system.collaborator.address, 1_000),),
        parents=((parent.id, bps, 0, far, signature, *reversed(parent.opening)),),
        ancestors=lineage_of(parent, bps),
    )


def lineage_of(parent: Model, bps: int) -> tuple[tuple[int, int], ...]:
    """The flattened lineage of a child that gives `bps` to one parent; shares that round to nothing are left out."""
    grand = [(id_, bps * part // 10_000) for id_, part in parent.royalties.ancestors]
    grand = [(id_, part) for id_, part in grand if part]
    return (*grand, (parent.id, bps - sum(part for _, part in grand)))


def descendant(
    system: System, ancestor: Model, generations: int, seed: str = "generation", bps: int = 1_000
) -> Model:
    """The last of a line of models, each the child of the one before, to which it gives `bps`; approved."""
    for generation in range(generations):
        ancestor = child_of(system, ancestor, f"gas {seed} {generation}", bps)
        system.approve(ancestor)
    return ancestor


def last_gas() -> int:
    block = ape.chain.provider.get_block("latest")
    return int(block.gas_used)


def listed_token(system: System, project: Any) -> Any:
    token = system.deployer.deploy(project.PermitToken)
    token.mint(system.buyer, 100 * ETHER, sender=system.deployer)
    token.mint(system.escrow, 1, sender=system.deployer)  # the vault has held the token before
    system.escrow.listToken(token, True, sender=system.deployer)
    return token


def measure(system: System, project: Any) -> dict[str, int]:
    gas: dict[str, int] = {}
    system.stake(system.fingerprinter, 60 * ETHER)
    parcel = make_parcel()

    model = offered(system, "gas 1")
    other = offered(system, "gas 2")
    system.register(system.creator, "gas 3", collaborators=((system.collaborator.address, 1_000),))
    gas["register"] = last_gas()
    child = child_of(system, model, "gas child")
    gas["register_parent"] = last_gas()
    system.approve(child)

    # The pool of the native coin, and the neighbour's balances, are in use from here on.
    first_ever = system.make_order(other, parcel)
    buy(system, first_ever, parcel)

    with isolated():
        stranger = system.make_order(model, parcel, buyer=system.stranger.address)
        system.open(stranger, sender=system.stranger)
        system.reveal(stranger, parcel)
        gas["settle_first"] = int(system.settle(stranger).gas_used)
    buy(system, system.make_order(model, parcel, 1), parcel)
    repeat = buy(system, system.make_order(model, parcel, 2), parcel)
    gas["open_native"], gas["reveal"], gas["settle_repeat"] = (
        repeat["open"],
        repeat["reveal"],
        repeat["settle"],
    )
    gas["purchase_repeat"] = sum(repeat.values())

    family = {1: model, 16: descendant(system, model, 15)}
    buy(system, system.make_order(family[16], parcel), parcel)
    for depth, member in family.items():
        base, figures, _ = deep_parcel(depth, wrong=False)
        order = system.make_order(member, base, 100, **figures)
        gas[f"settle_depth_{depth}"] = buy(system, order, base)["settle"]

    free = system.make_order(model, parcel, 3, price=0)
    settled_free = buy(system, free, parcel)["settle"]
    paid_next = buy(system, system.make_order(model, parcel, 4), parcel)["settle"]
    # A settlement without a price skips the payment; the two orders' calldata differ by the price's bytes.
    gas["royalty_pay"] = paid_next - settled_free

    token = listed_token(system, project)
    token.approve(system.escrow, 100 * ETHER, sender=system.buyer)
    for number in (5, 6):
        receipt = system.open(system.make_order(model, parcel, number, token=token.address))
    gas["open_erc20"] = int(receipt.gas_used)

    late = system.make_order(model, parcel, 7)
    system.open(late)
    system.pass_time(3 * 3_600)
    gas["refund"] = int(system.escrow.refund(late.as_tuple(), sender=system.stranger).gas_used)

    measure_complaints(system, model, gas)
    measure_pulls(system, child, parcel, gas)
    measure_log(system, gas)
    return gas


def measure_complaints(system: System, model: Model, gas: dict[str, int]) -> None:
    """Each by a buyer whose balance slot is new; one more whose is not."""
    for number, size in enumerate((CHUNK, *COMPLAINT_SIZES), start=8):
        with isolated():
            gas["complaint_4gib" if size == CHUNK else f"complaint_4gib_{size}"] = complain(
                system, model, number, size
            )
    system.fund(system.stranger, 1)
    gas["complaint_4gib_repeat"] = complain(system, model, 20, CHUNK)


def complain(system: System, model: Model, number: int, size: int) -> int:
    depth = (-(-(4 << 30) // size) - 1).bit_length()
    base, figures, proof = deep_parcel(depth, wrong=True, size=size)
    order = system.make_order(model, base, number, buyer=system.stranger.address, **figures)
    system.open(order, sender=system.stranger)
    system.reveal(order, base)
    return int(system.escrow.complain(order.as_tuple(), *proof, sender=system.stranger).gas_used)


def measure_pulls(system: System, child: Model, parcel: Parcel, gas: dict[str, int]) -> None:
    ledger = system.royalties
    pulls = {
        "royalty_pull": (ledger.pullCollaborator, (0,)),
        "royalty_pull_owner": (ledger.pullOwner, ()),
        "royalty_pull_ancestor": (ledger.pullAncestor, (0,)),
    }
    system.open_terms(child)
    for number in (1, 2):
        buy(system, system.make_order(child, parcel, number), parcel)
        for name, (pull, index) in pulls.items():
            receipt = pull(child.id, NATIVE, *index, child.shares, sender=system.stranger)
            gas[name] = int(receipt.gas_used)


def measure_log(system: System, gas: dict[str, int]) -> None:
    for _ in range(2):
        data = f'{{"assetTreeCid":"{CID}"}}'
        gas["commit"] = int(system.evidence.commit(CID, data, sender=system.stranger).gas_used)
        anchored = system.evidence.anchor(
            sha(b"topic"), sha(b"root"), 1 << 20, sha(b"cid"), sender=system.stranger
        )
        gas["anchor"] = int(anchored.gas_used)


def rows(system: System, project: Any) -> list[Row]:
    """The rows of gas.json about the market, measured on `system`, which keeps what the measuring leaves behind."""
    gas = measure(system, project)
    made = [
        Row(name, what, gas[name], "gas", 1, BUDGETS.get(name), "<=" if name in BUDGETS else None)
        for name, what in WHAT.items()
    ]
    ratio = gas["settle_depth_16"] / gas["settle_depth_1"]
    return [*made, Row("settle_depth_ratio", DEPTH, ratio, "", 1, 1.02, "<=")]
