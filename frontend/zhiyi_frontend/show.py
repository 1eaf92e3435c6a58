"""Values as people read them. Pure: nothing here reads a clock, the chain or a request."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Any, Final

from zhiyi.errors import BadInput
from zhiyi.index import DocumentRow, LicenseRow, ModelRow, preferences_agree
from zhiyi.metadata import effective
from zhiyi.types import NATIVE, LicenseEnd, LicenseTerms, Preference, Preferences, Use

MAX_NAME: Final = 80
MAX_TEXT: Final = 4_000
COIN_DECIMALS: Final = 18
_FLAGS: Final = ("commercial", "resale", "sublicense", "derivatives", "disclosure_duty")


def text(value: object, limit: int) -> str:
    """Somebody's text for the page: no control, bidirectional or private characters, at most `limit` of the rest."""
    raw = value if isinstance(value, str) else ""
    kept = "".join(c for c in raw[: 4 * limit] if c in "\n\t" or unicodedata.category(c)[0] != "C")
    return kept[:limit] + ("…" if len(kept) > limit else "")


def amount(value: int, token: str, coin: str) -> str:
    """`1.5 ETH` for the chain's coin; the bare number and the token's address else."""
    if token != NATIVE:
        return f"{value} × {token}"
    whole, rest = divmod(value, 10**COIN_DECIMALS)
    part = f"{rest:0{COIN_DECIMALS}d}".rstrip("0")
    return f"{whole}.{part} {coin}" if part else f"{whole} {coin}"


def moment(seconds: int) -> str:
    """`2026-11-21 13:05 UTC`; the number itself where no calendar has it."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def share(bps: int) -> str:
    """`12.5 %` of basis points."""
    return f"{bps / 100:g} %"


def size(count: int) -> str:
    """Bytes in the largest unit that leaves one digit before the point."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"


def model_name(document: DocumentRow | None) -> str:
    """The name in the metadata, empty when there is none."""
    return text((document.value or {}).get("name"), MAX_NAME) if document else ""


def description(document: DocumentRow | None) -> str:
    """The description in the metadata, empty when there is none."""
    return text((document.value or {}).get("description"), MAX_TEXT) if document else ""


def metadata_disagrees(model: ModelRow, document: DocumentRow | None) -> bool:
    """Whether metadata was read that states other preferences than the chain."""
    return (
        document is not None
        and not document.problem
        and not preferences_agree(document.value, model.preferences)
    )


def preference_rows(model: ModelRow, document: DocumentRow | None) -> list[dict[str, int]]:
    """Each category with what is stated and what that counts as where no order was signed."""
    stated = Preferences.unpack(model.preferences)
    licensed = bool(document and isinstance((document.value or {}).get("license"), dict))
    return [
        {"use": use, "stated": stated.of(use), "counts": effective(stated.of(use), licensed)} for use in Use
    ]


def terms_of(packed: int) -> dict[str, Any]:
    """License terms unpacked; flags by name, uses in order."""
    try:
        terms = LicenseTerms.unpack(packed)
    except BadInput:
        return {"raw": packed}
    return {
        "flags": [flag for flag in _FLAGS if getattr(terms, flag)],
        "territory": terms.territory,
        "expires_at": terms.expires_at,
        "uses": sorted(int(use) for use in terms.uses),
    }


def license_state(row: LicenseRow, now: int) -> str:
    """Key of the word for a license's state at the time of the index's last block."""
    if row.end != LicenseEnd.NONE:
        return f"license_{row.end}"
    if row.expires_at and row.expires_at < now:
        return "license_expired"
    return "license_suspended" if row.suspended else "license_active"


def notable(preference: int) -> bool:
    """Whether a preference says anything."""
    return preference != Preference.NOT_STATED
