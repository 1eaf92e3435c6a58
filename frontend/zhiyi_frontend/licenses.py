"""Licenses: the list and a license's own page, with its order."""

from __future__ import annotations

from flask import Blueprint, g, render_template

from zhiyi.errors import NotFound
from zhiyi.index import LicenseRow, OrderRow
from zhiyi_frontend.paging import offset, whole

blueprint = Blueprint("licenses", __name__, template_folder="templates")

RELATED_ROWS = 20


@blueprint.get("/licenses/")
def licenses() -> str:
    """Licenses, newest first."""
    start = offset()
    rows = g.index.licenses(offset=start, limit=g.config.page_rows)
    head = g.index.head()
    return render_template(
        "licenses/licenses.html", rows=rows, head=head, start=start, full=len(rows) == g.config.page_rows
    )


@blueprint.get("/licenses/<number>")
def license(number: str) -> str:
    """One license, or an order under whose number no license was issued."""
    license_id = whole(number)
    issued, order = _license(license_id), _order(license_id)
    if issued is None and order is None:
        raise NotFound(f"no license or order {license_id}")
    history = [*g.index.history("license", str(license_id), limit=RELATED_ROWS)]
    history += g.index.history("order", str(license_id), limit=RELATED_ROWS)
    history.sort(key=lambda row: (row.block_number, row.log_index), reverse=True)
    return render_template(
        "licenses/license.html",
        license_id=license_id,
        row=issued,
        order=order,
        head=g.index.head(),
        cases=g.index.cases(license_id=license_id, limit=RELATED_ROWS),
        history=history,
    )


def _license(license_id: int) -> LicenseRow | None:
    try:
        found: LicenseRow = g.index.license(license_id)
    except NotFound:
        return None
    return found


def _order(license_id: int) -> OrderRow | None:
    try:
        found: OrderRow = g.index.order(license_id)
    except NotFound:
        return None
    return found
