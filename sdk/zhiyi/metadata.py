"""A model's public metadata: ERC-721 and OpenSea fields, ERC-7517 preferences, and what buyers and oracles need.

The JSON is written from the preference bits and never the other way round: on chain the bits rule.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import rfc8785
from pydantic import Field

from zhiyi.errors import BadInput, IntegrityError
from zhiyi.types import Preference, Preferences, Use, Value, camel, to_bytes, to_hex

MAX_BYTES: Final = 1 << 20
MAX_TEXT: Final = 20_000  # characters of a description
MAX_NAME: Final = 200
MAX_ATTRIBUTES: Final = 100

_WORDS: Final = {
    Preference.ALLOWED: "allowed",
    Preference.CONSTRAINED: "constrained",
    Preference.NOT_ALLOWED: "notAllowed",
}
_READ: Final = {word: preference for preference, word in _WORDS.items()} | {
    "constraint": Preference.CONSTRAINED
}


class License(Value):
    """The license reference that `constrained` needs beside it."""

    name: str = Field(min_length=1, max_length=MAX_NAME)
    document: str = Field(min_length=1, max_length=MAX_NAME)  # CID or URL of the text
    terms_hash: bytes = Field(min_length=32, max_length=32)


class Metadata(Value):
    """Metadata that was read: display only; `raw` is the whole JSON object."""

    name: str
    description: str
    preferences: Preferences
    license: License | None
    model: dict[str, Any]
    watermark: dict[str, Any]
    raw: dict[str, Any]


def preferences_to_json(preferences: Preferences) -> dict[str, str]:
    """The `dataMiningPreference` object. What is not stated is left out."""
    stated = {use: preferences.of(use) for use in Use if preferences.of(use) != Preference.NOT_STATED}
    return {camel(use.name.lower()): _WORDS[preference] for use, preference in stated.items()}


def preferences_from_json(value: Any) -> Preferences:
    """Reads a `dataMiningPreference` object; keys of others are ignored, a missing key is not stated.

    Raises BadInput for a value that ERC-7517 does not know ("constraint" is read as "constrained").
    """
    if not isinstance(value, Mapping):
        raise BadInput(f"dataMiningPreference is {type(value).__name__}, an object is needed")
    found: dict[str, Preference] = {}
    for use in Use:
        name = use.name.lower()
        word = value.get(camel(name))
        if word is None:
            continue
        if not isinstance(word, str) or word not in _READ:
            raise BadInput(
                f"dataMiningPreference.{camel(name)} is {str(word)[:40]!r}: use one of {sorted(_READ)}"
            )
        found[name] = _READ[word]
    return Preferences(**found)


def effective(preference: Preference, license_given: bool) -> Preference:
    """How a preference counts: `constrained` without a license reference reads as `notAllowed` (ERC-7517)."""
    if preference == Preference.CONSTRAINED and not license_given:
        return Preference.NOT_ALLOWED
    return preference


def build(
    *,
    name: str,
    description: str,
    preferences: Preferences,
    license: License | None = None,
    model: Mapping[str, Any],
    watermark: Mapping[str, Any] | None = None,
    image: str = "",
    external_url: str = "",
    attributes: Sequence[Mapping[str, Any]] = (),
    compliance: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The metadata object; keys of `model` include weights_root, leaves_cid, manifest_cid, format, params, modality.

    Raises BadInput for missing or oversized fields, or `constrained` without a license.
    """
    if not 0 < len(name) <= MAX_NAME or len(description) > MAX_TEXT or len(attributes) > MAX_ATTRIBUTES:
        raise BadInput(
            f"name needs 1-{MAX_NAME} characters, description at most {MAX_TEXT}, attributes {MAX_ATTRIBUTES}"
        )
    if license is None and any(preferences.of(use) == Preference.CONSTRAINED for use in Use):
        raise BadInput("a constrained use needs a license reference beside it: give license=License(...)")
    found: dict[str, Any] = {
        "name": name,
        "description": description,
        "attributes": [dict(item) for item in attributes],
        "dataMiningPreference": preferences_to_json(preferences),
        "model": plain(model),
    }
    if image:
        found["image"] = image
    if external_url:
        found["external_url"] = external_url
    if license is not None:
        found["license"] = {
            "name": license.name,
            "document": license.document,
            "termsHash": to_hex(license.terms_hash),
        }
    optional = {"watermark": watermark, "compliance": compliance, "provenance": provenance}
    found |= {key: plain(value) for key, value in optional.items() if value}
    encode(found)
    return found


def plain(value: Any) -> Any:
    """The value with bytes as 0x-hex."""
    if isinstance(value, bytes):
        return to_hex(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def encode(metadata: Mapping[str, Any]) -> bytes:
    """Canonical JSON (RFC 8785). Raises BadInput when it cannot be encoded or is larger than 1 MiB."""
    try:
        data = rfc8785.dumps(dict(metadata))
    except rfc8785.CanonicalizationError as exc:
        raise BadInput(f"the metadata cannot be written as canonical JSON: {exc}") from exc
    if len(data) > MAX_BYTES:
        raise BadInput(f"the metadata has {len(data)} bytes, at most {MAX_BYTES} are allowed")
    return data


def parse(data: bytes) -> Metadata:
    """Reads metadata that anybody may have written. Raises BadInput. Texts are cut to their limits, never trusted."""
    if len(data) > MAX_BYTES:
        raise BadInput(f"the metadata has {len(data)} bytes, at most {MAX_BYTES} are allowed")
    try:
        raw = json.loads(data)
        json.dumps(raw, ensure_ascii=False).encode()  # lone surrogates would break whoever prints them
    except (ValueError, RecursionError) as exc:
        raise BadInput(f"the metadata is not JSON in UTF-8: {exc}") from exc
    if not isinstance(raw, dict):
        raise BadInput("the metadata is not a JSON object")
    return Metadata(
        name=str(raw.get("name", ""))[:MAX_NAME],
        description=str(raw.get("description", ""))[:MAX_TEXT],
        preferences=preferences_from_json(raw.get("dataMiningPreference", {})),
        license=_license(raw.get("license")),
        model=_object(raw, "model"),
        watermark=_object(raw, "watermark"),
        raw=raw,
    )


def check_bits(metadata: Metadata, bits: int) -> None:
    """Raises IntegrityError unless the JSON says what the bits on chain say."""
    found = metadata.preferences.pack()
    if found != bits:
        raise IntegrityError(
            f"the metadata states preferences {found:#05x}, the chain {bits:#05x}: the chain rules"
        )


def _license(value: Any) -> License | None:
    """The reference, or None when it is missing or unusable (then `constrained` reads as `notAllowed`)."""
    if not isinstance(value, dict):
        return None
    name, document, terms = value.get("name"), value.get("document"), value.get("termsHash")
    if not (isinstance(name, str) and isinstance(document, str) and isinstance(terms, str)):
        return None
    if not (0 < len(name) <= MAX_NAME and 0 < len(document) <= MAX_NAME):
        return None
    try:
        return License(name=name, document=document, terms_hash=to_bytes(terms, 32))
    except BadInput:
        return None


def _object(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key, {})
    if not isinstance(value, dict):
        raise BadInput(f"metadata field {key!r} is not an object")
    return value
