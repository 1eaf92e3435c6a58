"""For whoever runs the page: is it alive, is it in step with the chain."""

from __future__ import annotations

from flask import Blueprint, current_app, g, jsonify
from flask.typing import ResponseReturnValue

from zhiyi_frontend.follow import Follower

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def alive() -> ResponseReturnValue:
    """200 while the process answers."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def ready() -> ResponseReturnValue:
    """200 when the index has blocks and is in step, 503 else."""
    head = g.index.head()
    follower: Follower | None = current_app.extensions["zhiyi_follower"]
    late = follower.late if follower else False
    body = {"status": "ready" if head and not late else "behind", "block": head.number if head else None}
    return jsonify(body), 200 if head and not late else 503
