"""8. Who somebody is: an issuer attests it, the subject records it, and the chain learns a salted hash."""

from __future__ import annotations

import json
import secrets

from story.world import World
from zhiyi.errors import IntegrityError, TxReverted
from zhiyi.group import salted_hash
from zhiyi.identity import check_claim
from zhiyi.types import to_hex

YEAR = 365 * 86_400
HOUR = 3_600
VERIFIED = {"buyer1": 2, "buyer2": 2, "buyer3": 1, "liar": 1}  # tiers; what they ask for, license terms say


def play(world: World) -> None:
    """The admin names an issuer; four people are attested, one of them is found out and revoked."""
    admin, issuer = world.as_("deployer").identity, world.as_("issuer").identity
    named = admin.set_issuer(world.address("issuer"), 2)
    world.sent("the identity admin names an issuer, for tiers up to 2", named)
    claims: dict[str, dict[str, str]] = {}
    for role, tier in VERIFIED.items():
        salt, claim = secrets.token_bytes(32), f"passport of {role}, seen on 2026-11-22".encode()
        now = world.node.now()
        attested = issuer.sign(
            issuer.attestation(
                world.address(role),
                salted_hash(salt, claim),
                tier=tier,
                expiry=now + 2 * YEAR,
                deadline=now + HOUR,
            )
        )
        subject = world.as_(role).identity
        world.sent(f"{role} records tier {tier} himself; on chain is a salted hash", subject.record(attested))
        assert subject.tier(world.address(role)) == tier
        claims[world.address(role)] = {"salt": to_hex(salt), "claim": claim.decode()}
    (world.folder("issuer") / "claims.json").write_text(json.dumps(claims, indent=1) + "\n")

    shown = claims[world.address("buyer1")]
    recorded = world.as_("anyone").identity.get(world.address("buyer1")).claim_hash
    check_claim(bytes.fromhex(shown["salt"][2:]), shown["claim"].encode(), recorded)
    try:
        check_claim(bytes.fromhex(shown["salt"][2:]), b"passport of somebody else", recorded)
    except IntegrityError:
        world.say("buyer1 shows salt and claim to whom he wants: they open the hash, another claim does not")
    else:
        raise AssertionError("another claim opened the hash on chain")

    try:
        issuer_high = issuer.attestation(
            world.address("reporter"),
            salted_hash(secrets.token_bytes(32), b""),
            tier=3,
            expiry=world.node.now() + YEAR,
            deadline=world.node.now() + HOUR,
        )
        world.as_("reporter").identity.record(issuer.sign(issuer_high), dry_run=True)
    except TxReverted as refused:
        if refused.error_name != "TierOutOfRange":
            raise
        world.say("what the issuer signs above its tiers is refused: TierOutOfRange")
    else:
        raise AssertionError("an issuer attested a tier that it may not")

    revoked = issuer.revoke(world.address("liar"), "the passport was forged")
    world.sent("the issuer takes the liar's attestation back, with the hash of its reason", revoked)
    assert issuer.tier(world.address("liar")) == 0
