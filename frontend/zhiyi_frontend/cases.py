"""Cases: the list and a case's own page."""

from __future__ import annotations

import re

from flask import Blueprint, g, render_template

from zhiyi.errors import NotFound
from zhiyi_frontend.paging import offset

blueprint = Blueprint("cases", __name__, template_folder="templates")

RELATED_ROWS = 40


@blueprint.get("/cases/")
def cases() -> str:
    """Cases, newest first."""
    start = offset()
    rows = g.index.cases(offset=start, limit=g.config.page_rows)
    return render_template(
        "cases/cases.html", rows=rows, head=g.index.head(), start=start, full=len(rows) == g.config.page_rows
    )


@blueprint.get("/cases/<case_id>")
def case(case_id: str) -> str:
    """One case: who accuses whom of what, the verdict, the windows, the end."""
    if not re.fullmatch(r"0x[0-9a-fA-F]{64}", case_id):
        raise NotFound("a case id is 0x and 64 hex digits")
    row = g.index.case(bytes.fromhex(case_id[2:]))
    return render_template(
        "cases/case.html",
        row=row,
        head=g.index.head(),
        history=g.index.history("case", row.key, limit=RELATED_ROWS),
    )
