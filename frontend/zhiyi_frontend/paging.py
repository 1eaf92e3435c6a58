"""Where in a long list a page starts."""

from __future__ import annotations

from typing import Final

from flask import request

from zhiyi.errors import BadInput

MAX_OFFSET: Final = 1_000_000
MAX_DIGITS: Final = 40


def whole(text: str) -> int:
    """A whole number of the address line. Raises BadInput."""
    if not text.isascii() or not text.isdecimal() or len(text) > MAX_DIGITS:
        raise BadInput("a whole number is needed")
    return int(text)


def offset() -> int:
    """`?from=` of the request, 0 without. Raises BadInput."""
    found = whole(request.args.get("from", "0"))
    if found > MAX_OFFSET:
        raise BadInput(f"lists are shown up to row {MAX_OFFSET}")
    return found
