"""Before the story: contracts, committee, fingerprinters, and the model on the creator's disk."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from rich.console import Console

from contracts_plan import Params
from contracts_rollout import deploy
from devnode import Node, free_port
from story.world import ETHER, ROLES, World, private_key
from zhiyi import LocalSigner
from zhiyi.chain import Chain
from zhiyi.keys import KeyKind, new_key
from zhiyi.types import Role

OPERATORS = ("operator1", "operator2", "operator3")
THRESHOLD = 2  # of three; production asks for k >= 3
OPERATOR_STAKE = 20 * ETHER
FINGERPRINTER_STAKE = 60 * ETHER


def build(out: Path, node: Node, ipfs_api: str, source: Path, console: Console) -> World:
    """Deploys, seats the committee, and puts the model's files under the creator's folder."""
    deployer = LocalSigner(private_key(ROLES.index("deployer")))

    def account(role: str) -> str:
        return LocalSigner(private_key(ROLES.index(role))).address

    params = Params(
        admin=deployer.address,
        treasury=account("treasury"),
        appeal_authority=account("authority"),
        last_instance=account("anyone"),
        holders={
            "REGISTRAR": (account("registrar"),),
            "REGULATOR": (account("regulator"),),
            "IDENTITY_ADMIN": (deployer.address,),
            "ORACLE_ADMIN": (deployer.address,),
        },
        admin_delay=0,
        min_threshold=THRESHOLD,
    )
    book = deploy(Chain(node.url, signer=deployer), params)
    book.save(out / "deployment.json")
    world = World(out, node, ipfs_api, book, out / "creator" / "model", console)
    (out / "accounts.json").write_text(
        json.dumps({role: world.address(role) for role in ROLES}, indent=1) + "\n"
    )
    _take_model(source, world.model)
    _seat(world)
    world.node.mine()
    return world


def _take_model(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.name.startswith("zhiyi-"):  # how the file was fetched is not part of the model
            continue
        try:
            os.link(path, target / path.name)
        except OSError:  # another file system
            shutil.copyfile(path, target / path.name)


def _seat(world: World) -> None:
    signers = []
    for role in OPERATORS:
        folder = world.folder(role)
        folder.chmod(0o700)
        key = new_key(KeyKind.ENCRYPTION)
        signer = new_key(KeyKind.SIGNER)
        _secret(folder / "x25519.key", key.secret)
        _secret(folder / "signer.key", signer.secret)
        port = free_port()
        (folder / "port").write_text(str(port))
        me, holder = world.as_(role), LocalSigner(signer.secret)
        me.chain.transact(holder.address, value=ETHER)  # gas for posting
        me.vault.deposit(OPERATOR_STAKE)
        me.oracles.join(
            Role.OPERATOR,
            signer=me.oracles.prove_signer(me.account, holder),
            encryption_key=key.public,
            stake=OPERATOR_STAKE,
            url=f"http://127.0.0.1:{port}",
        )
        signers.append(holder.address)
    for role in ("fingerprinter", "cheat"):
        me = world.as_(role)
        me.vault.deposit(FINGERPRINTER_STAKE)
        me.oracles.join(
            Role.FINGERPRINTER,
            signer=me.account,
            encryption_key=new_key(KeyKind.ENCRYPTION).public,
            stake=FINGERPRINTER_STAKE,
        )
    admin = world.as_("deployer").oracles
    announced = admin.announce_epoch(signers, THRESHOLD)
    admin.activate_epoch(announced.event("EpochAnnounced")["epoch"])


def _secret(path: Path, secret: bytes) -> None:
    path.touch(mode=0o600)
    path.write_text("0x" + secret.hex() + "\n")
