"""Amounts, durations, times, ids and lists as people type them."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

import typer

from zhiyi.errors import BadInput
from zhiyi.types import FINGERPRINT_BITS, Preference, Preferences, Split, Use, to_address, to_bytes

ApproveOption = Annotated[
    bool, typer.Option("--approve", help="Also approve the token, where the price is one.")
]

_UNITS: Final = {"wei": 0, "gwei": 9, "eth": 18, "ether": 18}
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PREFERENCE_WORDS: Final = {
    "allowed": Preference.ALLOWED,
    "constrained": Preference.CONSTRAINED,
    "not_allowed": Preference.NOT_ALLOWED,
    "notallowed": Preference.NOT_ALLOWED,
    "not_stated": Preference.NOT_STATED,
}


def amount(text: str) -> int:
    """`1.5eth`, `20gwei`, `7wei`, or a bare whole number in the token's smallest unit. Raises BadInput."""
    match = re.fullmatch(r"\s*([0-9]{1,60}(?:\.[0-9]{1,60})?)\s*([a-zA-Z]*)\s*", text)
    unit = match.group(2).lower() if match else ""
    if match is None or (unit and unit not in _UNITS):
        raise BadInput(f"{text!r} is no amount: write 1.5eth, 20gwei, or a whole number of the smallest unit")
    try:
        value = Decimal(match.group(1)).scaleb(_UNITS.get(unit, 0))
    except InvalidOperation as exc:
        raise BadInput(f"{text!r} is too large an amount") from exc
    number = int(value)
    if value != number or (not unit and "." in match.group(1)):
        raise BadInput(f"{text!r} is no whole number of the smallest unit; name a unit, as in 1.5eth")
    return number


def duration(text: str) -> int:
    """Seconds of `90s`, `30m`, `4h`, `7d`, or a bare number of seconds. Raises BadInput."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*([smhd]?)\s*", text)
    if match is None:
        raise BadInput(f"{text!r} is no duration: write 90s, 30m, 4h or 7d")
    return int(match.group(1)) * _SECONDS[match.group(2) or "s"]


def moment(text: str, now: int) -> int:
    """Unix seconds: a bare number, or `+7d` from `now` (the chain's clock). Raises BadInput."""
    if text.startswith("+"):
        return now + duration(text[1:])
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise BadInput(f"{text!r} is no time: write unix seconds, or +7d from now")
    return int(text)


def license_id(text: str) -> int:
    """A license id, or `MODEL/FINGERPRINT`. Raises BadInput."""
    match = re.fullmatch(r"([0-9]{1,20})/([0-9]{1,9})", text)
    if match:
        return int(match.group(1)) << FINGERPRINT_BITS | int(match.group(2))
    if not re.fullmatch(r"[0-9]{1,40}", text):
        raise BadInput(f"{text!r} is no license id: write the number, or MODEL/FINGERPRINT")
    return int(text)


def case_id(text: str) -> bytes:
    """32 bytes of 0x-hex. Raises BadInput."""
    return to_bytes(text, 32)


def uses(names: list[str]) -> frozenset[Use]:
    """ERC-7517 categories by name. Raises BadInput."""
    return frozenset(_use(name) for name in names)


def preferences(pairs: list[str]) -> Preferences:
    """`ai_training=not_allowed` pairs; what is not named is not stated. Raises BadInput."""
    found: dict[str, Preference] = {}
    for pair in pairs:
        name, _, word = pair.partition("=")
        value = _PREFERENCE_WORDS.get(word.strip().lower())
        if value is None:
            raise BadInput(f"{pair!r}: write CATEGORY=allowed, constrained, not_allowed or not_stated")
        key = _use(name).name.lower()
        if key in found:
            raise BadInput(f"{name} is stated twice")
        found[key] = value
    return Preferences(**found)


def share(text: str) -> int:
    """Basis points of `10%`, or a bare number of them. Raises BadInput."""
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)%|([0-9]{1,5})", text.strip())
    if match is None:
        raise BadInput(f"{text!r} is no share: write 10% or 1000 (basis points)")
    bps = int(Decimal(match.group(1)) * 100) if match.group(1) else int(match.group(2))
    if bps > 10_000:
        raise BadInput(f"{text!r} is more than everything")
    return bps


def splits(pairs: list[str]) -> tuple[Split, ...]:
    """`0xADDRESS=10%` or `0xADDRESS=1000` (basis points). Raises BadInput."""
    named = (pair.partition("=") for pair in pairs)
    return tuple(Split(account=to_address(account.strip()), bps=share(part)) for account, _, part in named)


def argument(kind: str, text: str) -> Any:
    """An argument of a contract's function by its ABI type; lists as `a,b,c`. Raises BadInput."""
    array = re.fullmatch(r"(.+)\[\d*\]", kind)
    if array:
        return [argument(array.group(1), item.strip()) for item in text.split(",")] if text else []
    if kind.startswith(("uint", "int")):
        if not re.fullmatch(r"-?[0-9]{1,78}", text):
            raise BadInput(f"{text!r} is no {kind}: write a whole number")
        return int(text)
    if kind == "bool":
        if text not in ("true", "false"):
            raise BadInput(f"{text!r} is no {kind}: write true or false")
        return text == "true"
    if kind == "string":
        return text
    if kind == "address":
        return to_address(text)
    if kind.startswith("bytes"):
        return to_bytes(text, int(kind[5:]) if kind[5:] else None)
    raise BadInput(f"the command line cannot write a {kind}: use `access.schedule` of the SDK")


def pairs(texts: list[str]) -> dict[str, str]:
    """`key=text` pairs, each key once. Raises BadInput."""
    found: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,60}", key) or not value or key in found:
            raise BadInput(f"{text!r}: write KEY=TEXT, each key once, keys in small letters")
        found[key] = value
    return found


def _use(name: str) -> Use:
    wanted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip()).replace("-", "_").upper()
    if wanted not in Use.__members__:
        raise BadInput(f"{name!r} is no category of use; known: {', '.join(u.name.lower() for u in Use)}")
    return Use[wanted]
