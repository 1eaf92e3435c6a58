"""Gas of usage channels and of identity, as whole transactions on the deployed system; rows for `gas.py`."""

from __future__ import annotations

from typing import Any

from market import DAY, ETHER, NATIVE, Model, System, make_parcel, sha, sign_digest, terms

from report import Row

COMMERCIAL = 1
WHAT = {
    "channel_open": "open a usage channel, the deposit sent along",
    "channel_top_up": "top a channel up",
    "channel_redeem": "redeem a voucher of a licensee's channel: license's share to the model, rest to him, next",
    "channel_redeem_owner": "redeem a voucher of the owner's channel: all to the model's royalties, next",
    "channel_request_close": "the payer asks to close",
    "channel_close": "close a channel, the rest goes back",
    "identity_attest": "record an attestation, the account's first",
    "identity_attest_next": "the same, the account's next by the same issuer",
}


def used(receipt: Any) -> int:
    return int(receipt.gas_used)


def measure(system: System) -> dict[str, int]:
    """Gas used by name of the step."""
    gas: dict[str, int] = {}
    model = system.register(system.creator, "usage")
    system.approve(model)
    if not system.committee.memberOf(system.fingerprinter).role:
        system.stake(system.fingerprinter, 5 * ETHER)
    rights = terms(flags=COMMERCIAL, onward_bps=2_500)
    parcel = make_parcel("usage")
    order = system.make_order(model, parcel, buyer=system.collaborator.address, terms=rights)
    system.open(order, sender=system.collaborator)
    system.reveal(order, parcel)
    system.settle(order)

    measure_channel(system, model, system.creator, 0, {"redeem": "channel_redeem_owner"}, gas)
    steps = {name: f"channel_{name}" for name in ("open", "top_up", "redeem", "request_close", "close")}
    measure_channel(system, model, system.collaborator, order.delivery.licenseId, steps, gas)
    for name in ("identity_attest", "identity_attest_next"):
        gas[name] = attest(system)
    return gas


def measure_channel(
    system: System, model: Model, provider: Any, license_id: int, names: dict[str, str], gas: dict[str, int]
) -> None:
    """A channel of the buyer from open to closed; its steps go into `gas` under `names`. Of two vouchers the second."""
    channels, payer, signer = system.channels, system.buyer, system.stranger
    expiry, salt = system.now + 30 * DAY, sha(provider.address.encode())
    channel = (
        payer.address, provider.address, signer.address, NATIVE, ETHER, expiry, model.id, license_id, salt
    )  # fmt: skip
    id_ = channels.channelIdOf(channel)
    steps = {"open": used(channels.open(channel, sender=payer, value=ETHER))}
    steps["top_up"] = used(channels.topUp(channel, ETHER, sender=payer, value=ETHER))
    for part in (1, 2):
        owed = part * ETHER // 3
        signature = sign_digest(bytes(channels.voucherDigest(id_, owed)), signer)
        steps["redeem"] = used(channels.redeem(channel, owed, signature, sender=provider))
    steps["request_close"] = used(channels.requestClose(channel, sender=payer))
    system.pass_time(2 * DAY)
    steps["close"] = used(channels.close(channel, sender=system.stranger))
    for step, name in names.items():
        gas[name] = steps[step]


def attest(system: System) -> int:
    """The registrar, an issuer, attests the stranger, who records it."""
    issuer, subject = system.registrar, system.stranger
    system.identity.setIssuer(issuer, 3, sender=system.deployer)
    nonce = system.identity.nonceOf(issuer, subject)
    now = system.now
    attestation = (
        issuer.address, subject.address, sha(b"salted claim"), 2, now + 365 * DAY, nonce, now + DAY
    )  # fmt: skip
    signature = sign_digest(bytes(system.identity.attestationDigest(attestation)), issuer)
    return used(system.identity.attest(attestation, signature, sender=subject))


def rows(system: System) -> list[Row]:
    """The rows of gas.json about usage channels and identity; `system` keeps what the measuring leaves behind."""
    gas = measure(system)
    return [Row(id_, what, gas[id_], "gas", 1) for id_, what in WHAT.items()]
