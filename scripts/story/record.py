"""Sections of the report about people, papers, licenses, income and oversight, as the SDK tells them."""

from __future__ import annotations

from typing import Any

from story.world import ROLES, World
from zhiyi.types import ChannelPhase, to_hex

BPS = 10_000
NOBODY = "0x" + "0" * 40


def sections(world: World) -> dict[str, Any]:
    """By name, in the report's order."""
    return {
        "identities": _identities(world),
        "registry": _registry(world),
        "licenses": _licenses(world),
        "sales": {"renewals": world.facts["renewals"], "models": world.facts["model_sales"]},
        "channels": _channels(world),
        "income": _income(world),
        "oversight": _oversight(world),
        "model_cases": world.facts["model_cases"],
    }


def _identities(world: World) -> list[dict[str, Any]]:
    identity = world.as_("anyone").identity
    found = [identity.get(world.address(role)) for role in ROLES]
    return [
        {
            "account": one.account,
            "tier": one.tier,
            "attested_tier": one.attested_tier,
            "issuer": one.issuer,
            "expiry": one.expiry,
            "claim_hash": to_hex(one.claim_hash),
        }
        for one in found
        if one.issuer != NOBODY
    ]


def _registry(world: World) -> list[dict[str, Any]]:
    models, now = world.as_("anyone").models, world.node.now()
    waiting = {item.model_id for item in models.queue()}
    return [
        {
            "model_id": model.model_id,
            "owner": model.owner,
            "review": model.status.review.name,
            "waiting": model.model_id in waiting,
            "versions": [to_hex(version.weights_root) for version in model.versions],
            "preferences": [
                [change.preferences.pack(), change.metadata_cid]
                for change in models.preference_history(model.model_id)
            ],
            "metadata_cid": model.metadata_cid,
            "ancestors": [[ancestor.model_id, ancestor.bps] for ancestor in model.royalties.ancestors],
            "delisted": model.status.delisted,
            "frozen": model.status.frozen_until > now,
        }
        for model in models.list()
    ]


def _licenses(world: World) -> list[dict[str, Any]]:
    client = world.as_("anyone")
    found = []
    for held in client.licenses.list():
        sale = client.orders.get(held.license_id).sale
        found.append(
            {
                "license_id": held.license_id,
                "model_id": held.model_id,
                "holder": held.holder,
                "basis": sale.basis.name,
                "source": sale.source,
                "end": held.end.name,
                "active": held.active,
                "suspended": held.suspended,
                "expires_at": held.terms.expires_at,
                "bond": client.licenses.bond(held.license_id).amount,
            }
        )
    return found


def _channels(world: World) -> list[dict[str, Any]]:
    found = []
    for info in world.as_("anyone").usage.list():
        state = info.state
        to_model = state.redeemed * state.onward_bps // BPS
        found.append(
            {
                "channel_id": to_hex(info.channel_id),
                "model_id": info.channel.model_id,
                "payer": info.channel.payer,
                "provider": info.channel.provider,
                "license_id": info.channel.license_id,
                "deposited": state.deposited,
                "redeemed": state.redeemed,
                "to_model": to_model,
                "to_provider": state.redeemed - to_model,
                "refund": info.left if state.phase is ChannelPhase.CLOSED else 0,
                "phase": state.phase.name,
            }
        )
    return found


def _income(world: World) -> list[dict[str, Any]]:
    """What each chapter says that it brought, beside what ledger and vault say."""
    client = world.as_("anyone")
    return [
        {
            "model_id": model.model_id,
            "by": dict(sorted(world.facts["income"].get(model.model_id, {}).items())),
            "gross": client.royalties.gross(model.model_id),
            "inherited": client.royalties.inherited(model.model_id),
            "left": client.vault.royalty_of(model.model_id).balance,
        }
        for model in client.models.list()
    ]


def _oversight(world: World) -> dict[str, Any]:
    desk = world.as_("anyone").oversight
    return {
        "complaints": [
            {
                "complaint_id": one.complaint_id,
                "kind": one.kind.name,
                "subject_id": one.subject_id,
                "complainant": one.complainant,
                "evidence_cid": one.evidence_cid,
                "outcome": one.outcome.name,
                "overdue": one.overdue,
            }
            for one in desk.complaints()
        ],
        "demands": [
            {
                "demand_id": one.demand_id,
                "kind": one.kind.name,
                "subject_id": one.subject_id,
                "addressee": one.addressee,
                "state": one.state.name,
                "answer_cid": one.answer_cid,
            }
            for one in desk.demands()
        ],
        "acts": [
            {
                "act": one.act,
                "model_id": one.model_id,
                "until": one.until,
                "reason": world.facts["reasons"][one.reason_hash],
            }
            for one in world.as_("anyone").regulator.acts()
        ],
    }
