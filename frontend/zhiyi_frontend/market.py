"""Models: the list and a model's own page."""

from __future__ import annotations

from flask import Blueprint, g, render_template, request

from zhiyi.types import Review
from zhiyi_frontend.paging import whole

blueprint = Blueprint("market", __name__, template_folder="templates")

RELATED_ROWS = 20


@blueprint.get("/")
def models() -> str:
    """Models, newest first."""
    below = whole(request.args["below"]) if "below" in request.args else None
    review = whole(request.args["review"]) if "review" in request.args else None
    rows = g.index.models(
        below=below if below is None or below < 1 << 62 else None,
        review=review if review in set(Review) else None,
        limit=g.config.page_rows,
    )
    documents = g.index.documents(row.metadata_cid for row in rows)
    return render_template(
        "market/models.html",
        rows=rows,
        documents=documents,
        head=g.index.head(),
        counts=g.index.counts(),
        below=below,
        review=review,
        full=len(rows) == g.config.page_rows,
    )


@blueprint.get("/models/<number>")
def model(number: str) -> str:
    """One model: record, preferences, income, licenses, cases, history."""
    row = g.index.model(whole(number))
    return render_template(
        "market/model.html",
        row=row,
        document=g.index.document(row.metadata_cid),
        head=g.index.head(),
        orders=g.index.orders(model_id=row.model_id, limit=RELATED_ROWS),
        cases=g.index.cases(model_id=row.model_id, limit=RELATED_ROWS),
        history=g.index.history("model", row.key, limit=RELATED_ROWS),
    )
