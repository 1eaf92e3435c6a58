"""Addresses of contracts that do not exist yet."""

from __future__ import annotations

from typing import Final

from zhiyi.errors import BadInput
from zhiyi.types import keccak, to_address, to_bytes, to_hex

# Hash of the creation code of CREATE3's inner proxy (solady/utils/CREATE3.sol): it is the same for every contract.
CREATE3_PROXY_HASH: Final = bytes.fromhex("21c35dbe1b344a2488cf3321d6ce542f8e9f305544ff09e4993a62319a497c1f")


def create_address(creator: str, nonce: int) -> str:
    """What `creator` creates with `nonce`: the low 20 bytes of keccak(rlp([creator, nonce])). Raises BadInput."""
    if nonce < 0 or nonce >= 2**64 - 1:
        raise BadInput(f"nonce {nonce} is not an account nonce (0 to 2^64 - 2)")
    number = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    coded = number if len(number) == 1 and number[0] < 0x80 else bytes([0x80 + len(number)]) + number
    payload = b"\x94" + to_bytes(creator, 20) + coded
    return to_address(to_hex(keccak(bytes([0xC0 + len(payload)]) + payload)[12:]))


def create2_address(creator: str, salt: bytes, code_hash: bytes) -> str:
    """What `creator` creates by CREATE2 from creation code of that hash."""
    return to_address(to_hex(keccak(b"\xff" + to_bytes(creator, 20) + salt + code_hash)[12:]))


def create3_address(creator: str, salt: bytes) -> str:
    """What `creator` creates by CREATE3, whatever the code."""
    return create_address(create2_address(creator, salt, CREATE3_PROXY_HASH), 1)
