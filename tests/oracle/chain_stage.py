"""The oracle services on a real node, the real contracts and a real IPFS node, with a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tiny_model import Registered, make_registered

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from eth_account import Account  # noqa: E402

from contracts_plan import Params  # noqa: E402
from contracts_rollout import deploy  # noqa: E402
from devnode import MNEMONIC, Node, free_port  # noqa: E402
from zhiyi import case_evidence, delivery, metadata  # noqa: E402
from zhiyi.chain import Chain, ChainOptions  # noqa: E402
from zhiyi.client import Zhiyi  # noqa: E402
from zhiyi.delivery import ecies  # noqa: E402
from zhiyi.deployment import Deployment  # noqa: E402
from zhiyi.ipfs import Ipfs  # noqa: E402
from zhiyi.keys import KeyKind, KeyPair, new_key  # noqa: E402
from zhiyi.signers import LocalSigner  # noqa: E402
from zhiyi.types import (  # noqa: E402
    CopyRequest,
    Kind,
    LicenseTerms,
    Offer,
    Order,
    Preferences,
    Review,
    Role,
    SignedOffer,
    SignedOrder,
    SignedRequest,
)
from zhiyi_oracle.fingerprinter.chain_market import ChainMarket  # noqa: E402
from zhiyi_oracle.fingerprinter.copies import CopyStore  # noqa: E402
from zhiyi_oracle.fingerprinter.service import Fingerprinter, Prepared, Rules  # noqa: E402
from zhiyi_watermark.tensorfile import TensorFile  # noqa: E402

Account.enable_unaudited_hdwallet_features()
ETHER, DAY = 10**18, 86_400
PRICE, BOND = ETHER, 2 * ETHER
ROLES = (
    "deployer",
    "creator",
    "buyer1",
    "buyer2",
    "fingerprinter",
    "reporter",
    "operator1",
    "operator2",
    "operator3",
    "registrar",
    "authority",
    "treasury",
    "stranger",
)
OPERATORS = ("operator1", "operator2", "operator3")
FAST = ChainOptions(poll=0.01, receipt_timeout=20.0)


def key_of(role: str) -> bytes:
    return bytes(Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{ROLES.index(role)}").key)


def address_of(role: str) -> str:
    return LocalSigner(key_of(role)).address


@dataclass
class World:
    """Everything on stage."""

    folder: Path
    node: Node
    ipfs: Ipfs
    deployment: Deployment
    registered: Registered
    model_id: int = 0
    exchange: dict[str, KeyPair] = field(default_factory=dict)
    signers: dict[str, LocalSigner] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    delivery_keys: dict[str, KeyPair] = field(default_factory=dict)
    clients: dict[str, Zhiyi] = field(default_factory=dict)

    def as_(self, role: str) -> Zhiyi:
        if role not in self.clients:
            chain = Chain(self.node.url, signer=LocalSigner(key_of(role)), options=FAST)
            self.clients[role] = Zhiyi(chain, self.deployment, ipfs=self.ipfs)
        return self.clients[role]

    def make_fingerprinter(self) -> Fingerprinter:
        """The service on its folder, as after a restart."""
        client = self.as_("fingerprinter")
        return Fingerprinter(
            store=CopyStore.create(self.folder / "fingerprinter"),
            market=ChainMarket(client),
            files=self.ipfs,
            sealer=ecies,
            work=self.folder / "fingerprinter-work",
            rules=Rules(),
            start_block=self.deployment.block,
        )

    def offer(self, nonce: int = 1, **changes: object) -> SignedOffer:
        fields: dict[str, object] = {
            "model_id": self.model_id,
            "seller": address_of("creator"),
            "fingerprinter": address_of("fingerprinter"),
            "price": PRICE,
            "bond": BOND,
            "terms": LicenseTerms(commercial=True),
            "terms_hash": b"\1" * 32,
            "valid_until": self.node.now() + 300 * DAY,
            "nonce": nonce,
            **changes,
        }
        return self.as_("creator").offers.sign(Offer(**fields))  # type: ignore[arg-type]

    def request(self, buyer: str, offer: SignedOffer, nonce: int, **changes: object) -> SignedRequest:
        key = self.delivery_keys.setdefault(buyer, new_key(KeyKind.DELIVERY))
        fields: dict[str, object] = {
            "model_id": self.model_id,
            "offer_hash": self.as_(buyer).offers.hash(offer.offer),
            "buyer": address_of(buyer),
            "delivery_key": key.public,
            "nonce": nonce,
            "by": self.node.now() + 20 * DAY,
            **changes,
        }
        return self.as_(buyer).orders.sign_request(CopyRequest(**fields))  # type: ignore[arg-type]

    def order(self, offer: SignedOffer, request: SignedRequest, made: Prepared) -> Order:
        creator = self.as_("creator")
        return creator.orders.draft(
            offer.offer, request.request, made.delivery, open_by=self.node.now() + DAY
        )

    def open_order(self, service: Fingerprinter, order: Order, buyer: str) -> SignedOrder:
        signed = SignedOrder(
            order=order,
            seller_signature=self.as_("creator").orders.sign(order),
            fingerprinter_signature=service.sign_order(order),
        )
        self.as_(buyer).orders.open(order, signed.seller_signature, signed.fingerprinter_signature)
        return signed

    def buy(self, service: Fingerprinter, buyer: str, nonce: int) -> tuple[int, Path]:
        """A whole purchase; returns license id and folder of the decrypted copy."""
        offer = self.offer()
        request = self.request(buyer, offer, nonce)
        made = service.prepare(offer, request)
        order = self.order(offer, request, made)
        package = self.fetch(buyer, made.package_cid)
        delivery.verify_before_payment(
            package,
            order.delivery,
            delivery.Registered(
                weights_root=self.registered.record.weights_root,
                range_hash=self.registered.record.range_hash,
                leaves=self.registered.tree.leaves,
                declared_range=self.registered.declared,
            ),
        )
        self.open_order(service, order, buyer)
        self.node.mine()
        service.step()
        license_id = made.delivery.license_id
        copy = self.folder / f"copy-{license_id}"
        delivery.decrypt(package, order.delivery, self.as_(buyer).orders.key(license_id), copy)
        self.as_(buyer).orders.accept(order)
        self.node.mine()
        return license_id, copy

    def fetch(self, buyer: str, cid: str) -> Path:
        sealed = self.folder / f"{cid}.sealed"
        self.ipfs.download(cid, sealed, 1 << 30)
        package = self.folder / f"{cid}.package"
        ecies.open_folder(sealed, self.delivery_keys[buyer].secret, package)
        return package

    def report(self, license_id: int, suspect: Path, *, keys: tuple[bytes, ...] | None = None) -> bytes:
        """A LEAK case, in a finalized block; returns its id."""
        reporter = self.as_("reporter")
        epoch = reporter.oracles.current_epoch()
        sealed = case_evidence.seal(
            suspect,
            case_evidence.ObjectKind.WEIGHTS,
            reporter=reporter.account,
            keys=keys or reporter.oracles.encryption_keys(epoch.number),
            out=self.folder / f"evidence-{os.urandom(4).hex()}",
        )
        return self.report_cid(license_id, sealed.evidence_hash, self.ipfs.add_file(sealed.file))

    def report_cid(self, license_id: int, evidence_hash: bytes, cid: str) -> bytes:
        reporter = self.as_("reporter")
        bond = reporter.cases.min_bond(license_id)
        done = reporter.cases.open(license_id, self.model_id, Kind.LEAK, evidence_hash, cid, bond, value=bond)
        self.node.mine()
        return done.case_id

    def write_config(self, operator: str, *, dry_run: bool = False, folder: Path | None = None) -> Path:
        """Settings and secrets of an operator, as `zhiyi oracle init` lays them out."""
        home = folder or self.folder / operator
        home.mkdir(mode=0o700, exist_ok=True)
        for name, secret in (
            ("signer.key", self.signer_key(operator)),
            ("x25519.key", self.exchange[operator].secret),
        ):
            path = home / name
            path.touch(mode=0o600)
            path.write_text(f"0x{secret.hex()}\n")
        self.deployment.save(home / "deployment.json")
        config = home / "oracle.toml"
        config.write_text(
            f"""dry_run = {str(dry_run).lower()}
[chain]
rpc = ["{self.node.url}"]
deployment = "deployment.json"
[ipfs]
api = "{self.ipfs.api}"
timeout_s = 5.0
[operator]
folder = "state"
signer_key_file = "signer.key"
encryption_key_file = "x25519.key"
[http]
host = "127.0.0.1"
port = {self.ports[operator]}
[judge]
poll_s = 0.2
turn_delay_s = 0
max_evidence_gib = 1
"""
        )
        return config

    def signer_key(self, operator: str) -> bytes:
        return bytes.fromhex(f"{ROLES.index(operator) + 1:064x}")

    def wait_for_verdict(self, case_id: bytes, seconds: float = 60.0) -> None:
        """Mines a block now and then, as a chain does, until the verdict is posted."""
        end = time.monotonic() + seconds
        while not self.as_("stranger").cases.get(case_id).posted:
            assert time.monotonic() < end, "no verdict in time"
            self.node.mine(1)
            time.sleep(0.2)


@dataclass(frozen=True)
class Sold:
    """Two licenses, old enough to be accused, and the copies of their buyers."""

    service: Fingerprinter
    first: int
    second: int
    first_copy: Path
    second_copy: Path


def build_world(folder: Path, node: Node, ipfs_api: str) -> World:
    """Deploys, seats committee and fingerprinter, registers the model."""
    deployer = LocalSigner(key_of("deployer"))
    params = Params(
        admin=deployer.address,
        treasury=address_of("treasury"),
        appeal_authority=address_of("authority"),
        last_instance=address_of("stranger"),
        holders={"REGISTRAR": (address_of("registrar"),), "ORACLE_ADMIN": (deployer.address,)},
        admin_delay=0,
        min_threshold=2,
    )
    book = deploy(Chain(node.url, signer=deployer, options=FAST), params)
    world = World(folder, node, Ipfs(ipfs_api, timeout=5.0), book, make_registered(folder / "model"))
    for role in OPERATORS:
        me, signer = world.as_(role), LocalSigner(world.signer_key(role))
        world.exchange[role], world.signers[role] = new_key(KeyKind.ENCRYPTION), signer
        world.ports[role] = free_port()
        me.chain.transact(signer.address, value=ETHER)
        me.vault.deposit(20 * ETHER)
        me.oracles.join(
            Role.OPERATOR,
            signer=me.oracles.prove_signer(me.account, signer),
            encryption_key=world.exchange[role].public,
            stake=20 * ETHER,
            url=f"http://127.0.0.1:{world.ports[role]}",
        )
    maker = world.as_("fingerprinter")
    maker.vault.deposit(60 * ETHER)
    maker.oracles.join(
        Role.FINGERPRINTER,
        signer=maker.account,
        encryption_key=new_key(KeyKind.ENCRYPTION).public,
        stake=60 * ETHER,
    )
    admin = world.as_("deployer").oracles
    announced = admin.announce_epoch([s.address for s in world.signers.values()], 2)
    admin.activate_epoch(announced.event("EpochAnnounced")["epoch"])
    _register(world)
    node.mine()
    return world


def _register(world: World) -> None:
    registered, creator = world.registered, world.as_("creator")
    leaves = world.folder / "leaves.bin"
    registered.tree.save(leaves)
    described = metadata.build(
        name="tiny",
        description="",
        preferences=Preferences(),
        model={"weights_root": registered.tree.root, "leaves_cid": world.ipfs.add_file(leaves)},
    )
    cid = world.ipfs.add_bytes(metadata.encode(described))
    world.model_id = creator.models.register(registered.record, cid, Preferences()).model_id
    world.as_("registrar").models.review(world.model_id, Review.APPROVED, "")


def tune(copy: Path, out: Path, share: float = 0.01, seed: int = 3) -> Path:
    """The copy after a small random change of every weight, as one file in a new folder."""
    out.mkdir()
    rng = np.random.default_rng(seed)
    target = out / "model.safetensors"
    target.write_bytes((copy / "model.safetensors").read_bytes())
    with TensorFile(target, writable=True) as file:
        for entry in file.entries:
            values = file.floats(entry)
            noise = rng.normal(0, share * float(np.abs(values).mean()), values.shape).astype(np.float32)
            file.store(entry, (values + noise).astype("<f4").tobytes())
    return out


def run_operator(config: Path) -> subprocess.Popen[bytes]:
    """`zhiyi oracle run` as a process of its own; its log goes beside the settings."""
    with (config.parent / "log.jsonl").open("ab") as out:
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from zhiyi.cli import main; main()",
                "oracle",
                "run",
                "--config",
                str(config),
            ],
            stdout=out,
            stderr=out,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
