"""How gas grows with the family, the licenses, the cases and the committee: docs/benchmarks/scaling.json.

At every point one license lives its whole life on the deployed system: bought, a share of its royalty pulled, a LEAK
case up to the slash. What lies there before was made by the same calls: each license bought, each case opened. The
first life of a model is not measured: it fills the slots that later ones find.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from typing import Any

from gas import prepare  # first: it sets the paths and Ape's folder

# isort: split
import ape
from ape.logging import logger
from courtroom import Kind
from eth_abi.abi import encode
from eth_account.messages import encode_typed_data
from eth_keys.datatypes import PrivateKey, Signature
from eth_utils.conversions import to_bytes
from eth_utils.crypto import keccak
from market import (
    DELIVERY_TYPES,
    ETHER,
    NATIVE,
    SALE_TYPES,
    Model,
    Order,
    Parcel,
    System,
    deploy,
    key_commit,
    make_parcel,
)

import report
from gas_court import SystemCourtroom
from gas_market import buy, descendant, offered

COMMAND = "make gas-scaling"
OPERATIONS = ("open", "reveal", "settle", "pull", "open_case", "open_share", "verdict", "execute")
FLAT = 1.02  # a step at the last point over the same at the first
LINEAGES = (1, 4, 10)  # ancestors; ten is the most
GENERATIONS = (2, 16)
LICENSES = (1, 100, 10_000)
CASES = (0, 10, 100)
COMMITTEES = ((3, 3), (5, 3), (7, 5), (31, 16))  # operators, threshold
BLOCK_ORDERS = 500  # steps of the piled-up orders that share a block
BLOCK_GAS = 200_000 * BLOCK_ORDERS

Point = dict[str, int]
Line = dict[int, Point]  # by what grows


def used(receipt: Any) -> int:
    return int(receipt.gas_used)


# ---------------------------------------------------------------- one life


def life(room: SystemCourtroom, model: Model, number: int) -> Point:
    """A license bought, paid out of, accused, and slashed."""
    system = room.system
    parcel = make_parcel(f"scaling {number}")
    order = room.marked_order(model, parcel, number)
    gas = buy(system, order, parcel)
    shares = model.id, NATIVE, 0, model.shares
    gas["pull"] = used(system.royalties.pullCollaborator(*shares, sender=system.stranger))
    return gas | case(room, room.enter(order))


def case(room: SystemCourtroom, license_id: int) -> Point:
    """A LEAK case up to the slash, the bond from the free balance."""
    bond = room.least(license_id)
    if room.free(room.reporter) < bond:
        room.system.fund(room.reporter, 100 * ETHER)
    file = room.open(license_id, bond=bond, value=0)
    gas = {"open_case": used(room.last)}
    gas["open_share"] = used(room.open_share(file))
    seats = tuple(range(room.committee.threshold(file.epoch)))
    gas["verdict"] = used(room.post(file, bucket=20, seats=seats))
    room.past(file)
    gas["execute"] = used(room.call("execute", file))
    return gas


def prepared(room: SystemCourtroom, model: Model) -> Model:
    """The model after its first life, at home in the courtroom."""
    room.model_id = model.id
    room.system.open_terms(model)
    life(room, model, 1)
    return model


# ---------------------------------------------------------------- what grows


def lineages(room: SystemCourtroom) -> Line:
    """Half of each model's income goes to its parent, so that the tenth ancestor still has a share."""
    line: Line = {}
    model, depth = offered(room.system, "lineage"), 0
    for ancestors in LINEAGES:
        model = descendant(room.system, model, ancestors - depth, f"lineage {ancestors}", 5_000)
        depth = ancestors
        line[len(model.royalties.ancestors)] = life(room, prepared(room, model), 2)
    return line


def generations(room: SystemCourtroom) -> Line:
    """Each model gives a tenth to its parent."""
    line: Line = {}
    model, generation = offered(room.system, "family"), 1
    for wanted in GENERATIONS:
        model = descendant(room.system, model, wanted - generation, f"family {wanted}")
        generation = wanted
        line[wanted] = life(room, prepared(room, model), 2)
    return line


def licenses(room: SystemCourtroom) -> Line:
    """Licenses of one model, one holder."""
    system = room.system
    model = prepared(room, offered(system, "licenses"))
    line, issued = {1: life(room, model, 2)}, 2
    for wanted in LICENSES[1:]:
        issue(room, model, range(issued + 1, wanted + 1))
        line[wanted], issued = life(room, model, wanted + 1), wanted + 1
    return line


def cases(room: SystemCourtroom) -> tuple[Line, Line]:
    """Open cases on the license that is accused, and in the court on another license of the model."""
    system = room.system
    model = prepared(room, offered(system, "cases"))
    accused: Line = {}
    court: Line = {}
    system.fund(room.reporter, 3_000 * ETHER)
    for number, wanted in enumerate(CASES):
        parcel = make_parcel(f"piled {number}")
        order = room.marked_order(model, parcel, 10 + number)
        system.buy(order, parcel)
        id_ = room.enter(order)
        for _ in range(wanted):
            room.open(id_, Kind.TERMS, bond=room.least(id_, Kind.TERMS), value=0)
        if room.bond(id_).openCases != wanted:
            raise RuntimeError(f"{room.bond(id_).openCases} cases are open, not {wanted}")
        accused[wanted] = case(room, id_)
        court[wanted] = life(room, model, 20 + number)
    return accused, court


def committees() -> Line:
    """A deployment each; the first epoch may have any size."""
    line: Line = {}
    for operators, threshold in COMMITTEES:
        room = SystemCourtroom.of(deploy(ape.project, ape.accounts.test_accounts), operators, threshold)
        line[operators] = life(room, prepared(room, offered(room.system, "committee")), 2)
    return line


# ---------------------------------------------------------------- many purchases


def issue(room: SystemCourtroom, model: Model, numbers: range) -> None:
    """Buys one license each, many steps in a block. Raises RuntimeError unless every one was issued."""
    system = room.system
    before = system.licenses.balanceOf(system.buyer)
    price = ETHER // 10_000
    for first in range(numbers.start, numbers.stop, BLOCK_ORDERS):
        parcel = make_parcel(f"many {first}")
        one = system.make_order(model, parcel, first, price=price, bond=price, deposit=price)
        sale_hash = bytes(system.escrow.saleHash(astuple(one.sale)))
        orders = [
            numbered(one, parcel, model.id << 28 | number)
            for number in range(first, min(first + BLOCK_ORDERS, numbers.stop))
        ]
        with one_block(system) as send:
            for order, signatures in zip(orders, signed(system, sale_hash, orders), strict=True):
                values = [order.as_tuple(), *signatures]
                send(system.buyer, "open", [ORDER, "bytes", "bytes"], values, 2 * price)
        with one_block(system) as send:
            for order in orders:
                values = [sale_hash, astuple(order.delivery), parcel.key]
                send(system.fingerprinter, "revealKey", ["bytes32", DELIVERY, "bytes32"], values, 0)
        system.pass_time(one.delivery.complaintWindow + 1)
        with one_block(system) as send:
            for order in orders:
                send(system.stranger, "settle", [ORDER], [order.as_tuple()], 0)
    issued = system.licenses.balanceOf(system.buyer) - before
    if issued != len(numbers):
        raise RuntimeError(f"{issued} licenses were issued, not {len(numbers)}")


SALE, DELIVERY = f"({','.join(SALE_TYPES)})", f"({','.join(DELIVERY_TYPES)})"
ORDER = f"({SALE},{DELIVERY})"


def numbered(order: Order, parcel: Parcel, license_id: int) -> Order:
    commit = key_commit(parcel.key, license_id, order.delivery.buyer)
    return Order(order.sale, replace(order.delivery, licenseId=license_id, keyCommit=commit))


def signed(system: System, sale_hash: bytes, orders: list[Order]) -> Iterator[tuple[bytes, bytes]]:
    """Seller's and fingerprinter's signature of each order with this sale. As `System.signatures`, 30 times as fast."""
    types = orders[0].typed_data(ape.chain.chain_id, system.escrow.address)
    domain = encode_typed_data(full_message=types).header
    sale, delivery = (struct_type(name, types["types"][name]) for name in ("Sale", "Delivery"))
    order_typehash = keccak(text=struct_type("Order", types["types"]["Order"]) + delivery + sale)
    keys = [PrivateKey(to_bytes(hexstr=a.private_key)) for a in (system.creator, system.fingerprinter)]
    for order in orders:
        words = encode(["bytes32", *DELIVERY_TYPES], [keccak(text=delivery), *astuple(order.delivery)])
        order_hash = keccak(order_typehash + sale_hash + keccak(words))
        digest = keccak(b"\x19\x01" + domain + order_hash)
        seller, fingerprinter = (key.sign_msg_hash(digest) for key in keys)
        yield signature_bytes(seller), signature_bytes(fingerprinter)


def struct_type(name: str, members: list[dict[str, str]]) -> str:
    return name + "(" + ",".join(f"{m['type']} {m['name']}" for m in members) + ")"


def signature_bytes(signature: Signature) -> bytes:
    """r | s | v, v 27 or 28."""
    raw = signature.to_bytes()
    return raw[:64] + bytes([27 + raw[64]])


@contextmanager
def one_block(system: System) -> Iterator[Any]:
    """Inside, transactions to the escrow are collected; all are mined together. Raises RuntimeError if one failed."""
    requests: list[tuple[str, list[Any]]] = []
    nonces: dict[str, int] = {}

    def send(sender: Any, name: str, types: list[str], values: list[Any], value: int) -> None:
        data = keccak(text=f"{name}({','.join(types)})")[:4] + encode(types, values)
        nonce = nonces.setdefault(sender.address, sender.nonce)
        nonces[sender.address] += 1
        transaction = {
            "from": sender.address,
            "nonce": hex(nonce),
            "to": system.escrow.address,
            "data": "0x" + data.hex(),
            "value": hex(value),
            "gas": hex(BLOCK_GAS // BLOCK_ORDERS),
        }
        requests.append(("eth_sendTransaction", [transaction]))

    yield send
    provider = ape.chain.provider
    provider.make_request("evm_setAutomine", [False])
    for answer in provider.web3.provider.make_batch_request(requests):
        if "error" in answer:
            raise RuntimeError(answer["error"])
    provider.make_request("evm_mine", [])
    provider.make_request("evm_setAutomine", [True])
    block = provider.web3.eth.get_block("latest")
    receipts = provider.web3.provider.make_batch_request(
        [("eth_getTransactionReceipt", ["0x" + bytes(hash_).hex()]) for hash_ in block["transactions"]]
    )
    done = sum(int(receipt["result"]["status"], 16) for receipt in receipts)
    if done != len(requests):
        raise RuntimeError(f"{done} of {len(requests)} transactions of a block succeeded")


# ---------------------------------------------------------------- report


def rows(lines: dict[str, Line]) -> list[report.Row]:
    """Gas of every step at every point, and each step's last point over its first."""
    made = []
    for name, line in lines.items():
        first = next(iter(line.values()))
        for operation in first:
            for size, point in line.items():
                what = f"{operation}, {WHAT[name]}: {size}"
                made.append(report.Row(f"{name}_{size}_{operation}", what, point[operation], "gas", 1))
            made.append(ratio(name, operation, [point[operation] for point in line.values()]))
    return made


def ratio(name: str, operation: str, values: list[int]) -> report.Row:
    target = None if (name, operation) in GROWING else FLAT
    what = f"{operation}, {WHAT[name]}: the dearest point over the first"
    sense = None if target is None else "<="
    return report.Row(f"{name}_{operation}_ratio", what, max(values) / values[0], "", 1, target, sense)


def tables(lines: dict[str, Line]) -> str:
    """Markdown, one table for each thing that grows."""
    out = []
    for name, line in lines.items():
        points = list(line.values())
        out += ["", f"## {WHAT[name].capitalize()}", "", f"| step | {' | '.join(map(str, line))} | ratio |"]
        out.append("|---" * (len(line) + 2) + "|")
        for operation in points[0]:
            values = [point[operation] for point in points]
            figures = " | ".join(f"{value:,}" for value in values)
            out.append(f"| {operation} | {figures} | {max(values) / values[0]:.4f} |")
    return "\n".join(out)


WHAT = {
    "lineage": "ancestors with a share in the model's income",
    "family": "generation of the model in its family",
    "licenses": "licenses of the model issued before",
    "accused": "open cases on the accused license",
    "court": "most open cases on another license of the model",
    "committee": "operators of the committee",
}
# A verdict carries an address for each operator and a signature for each that signs; a pull carries the model's terms,
# which name its ancestors, ten at most.
GROWING = {("committee", "verdict"), ("lineage", "pull"), ("family", "pull")}
NOTES = """
Whole transactions, 21,000 and calldata included, one measurement each. A ratio is the dearest point over the first;
calldata that names a larger number costs some gas more. Two steps grow, within limits: a pull carries the model's
terms, in which each ancestor, ten at most, is two words; a verdict carries an address for each operator, 31 at most,
and a signature for each that signs (of 3 all, of 5 three, of 7 five, of 31 sixteen).
"""


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def lean_node() -> Iterator[None]:
    """An Anvil for Ape to connect to. The one that Ape starts keeps every step of every transaction: 22 GB here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    test = ape.config.get_config("test")
    command = ["anvil", "--silent", "--port", str(port), "--hardfork", "prague", "--prune-history", "8"]
    command += [
        "--mnemonic",
        test.mnemonic,
        "--accounts",
        str(test.number_of_accounts),
        "--balance",
        "1000000",
    ]
    command += ["--block-base-fee-per-gas", "0", "--gas-price", "0"]
    node = subprocess.Popen(command)
    os.environ["APE_FOUNDRY_HOST"] = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while not listens(port):
            if node.poll() is not None or time.monotonic() > until:
                raise SystemExit("scaling: anvil did not start; is `make setup` done, and the memory free?")
            time.sleep(0.1)
        yield
    finally:
        node.terminate()
        node.wait()


def main() -> int:
    logger.set_level("WARNING")
    with lean_node(), ape.networks.parse_network_choice("ethereum:local:foundry") as provider:
        hardfork = prepare(provider)
        provider.make_request("evm_setBlockGasLimit", [hex(2 * BLOCK_GAS)])
        lines = {"committee": committees()}
        system = deploy(ape.project, ape.accounts.test_accounts)
        room = SystemCourtroom.of(system)
        lines |= {"lineage": lineages(room), "family": generations(room)}
        lines["accused"], lines["court"] = cases(room)
        lines["licenses"] = licenses(room)
        environment = report.environment(hardfork=hardfork, node=provider.client_version)
    made = rows({name: lines[name] for name in WHAT})
    notes = f"{NOTES}{tables({name: lines[name] for name in WHAT})}"
    path = report.write("scaling", COMMAND, made, environment=environment, notes=notes)
    print(path.relative_to(report.ROOT))
    for line in report.over_target(made):
        print(f"scaling: {line}", file=sys.stderr)
    return 1 if report.over_target(made) else 0


if __name__ == "__main__":
    raise SystemExit(main())
