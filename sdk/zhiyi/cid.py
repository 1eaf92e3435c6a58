"""CIDs of dag-pb objects and the 32-byte SHA-256 digests that contracts keep of them."""

from __future__ import annotations

import base64

from zhiyi.errors import BadInput

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def cid_v0_from_digest(digest: bytes) -> str:
    """Qm... (base58 of the multihash 0x12 0x20 | digest). Raises BadInput unless 32 bytes are given."""
    if len(digest) != 32:
        raise BadInput(f"a CID digest has 32 bytes, not {len(digest)}")
    number, text = int.from_bytes(b"\x12\x20" + digest, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        text = _ALPHABET[rest] + text
    return text


def cid_of(digest: bytes) -> str:
    """CIDv0 of a digest that a contract keeps, empty for zero: none was named."""
    return cid_v0_from_digest(digest) if any(digest) else ""


def digest_of(cid: str) -> bytes:
    """What a contract keeps of a CID, zero for an empty one. Raises BadInput."""
    return digest_from_cid(cid) if cid else bytes(32)


def digest_from_cid(cid: str) -> bytes:
    """SHA-256 digest in a CIDv0, or in a CIDv1 of the dag-pb codec (bases 16 and 32; prefix ipfs:// allowed).

    Raises BadInput for anything else.
    """
    text = cid.removeprefix("ipfs://").removeprefix("/ipfs/")
    if len(text) == 46 and text.startswith("Qm"):
        number = 0
        for character in text:
            place = _ALPHABET.find(character)
            if place < 0:
                break
            number = number * 58 + place
        else:
            raw = number.to_bytes(34, "big") if number.bit_length() <= 272 else b""
            if raw[:2] == b"\x12\x20":
                return raw[2:]
    elif len(text) in (59, 73) and text[0] in "bf":
        try:
            raw = bytes.fromhex(text[1:]) if text[0] == "f" else base64.b32decode(text[1:].upper() + "======")
        except ValueError:
            raw = b""
        if len(raw) == 36 and raw[:4] == b"\x01\x70\x12\x20":
            return raw[4:]
    raise BadInput(f"{cid[:80]!r} is no CID of an IPFS file (Qm..., or CIDv1 with dag-pb and sha2-256)")
