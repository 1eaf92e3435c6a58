"""Golden vectors of the EIP-712 digests: `tests/vectors/eip712.json`, written by `scripts/vectors_eip712.py`.

The digests come from eth-account's encoder, not from the SDK, so that the SDK and the contracts are both checked
against a third party. `--check` fails on a difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak

from zhiyi import eip712
from zhiyi.chain import jsonable
from zhiyi.types import (
    NATIVE,
    Attestation,
    Basis,
    CopyRequest,
    Decision,
    Delivery,
    Kind,
    LicenseTerms,
    ModelSale,
    Offer,
    Order,
    ParentConsent,
    RangeVerdict,
    Renewal,
    Sale,
    SignerPossession,
    Use,
    Verdict,
    Voucher,
)

TARGET = Path(__file__).resolve().parents[1] / "tests" / "vectors" / "eip712.json"
KEY = hashlib.sha256(b"zhiyi test vector key").digest()  # signs nothing else
CHAIN_ID = 31337
CONTRACT = "0x5FbDB2315678afecb367f032d93F642f64180aa3"


def h(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def account(text: str) -> str:
    return str(Account.from_key(h(text)).address)


def cases() -> list[tuple[str, eip712.TypedData]]:
    sale = Sale(
        seller=account("seller"),
        token=NATIVE,
        price=10**18,
        bond=2 * 10**18,
        terms=LicenseTerms(commercial=True, territory=156, uses=frozenset({Use.AI_INFERENCE})).pack(),
        terms_hash=h("terms"),
        request_hash=h("request"),
        basis=Basis.RESALE,
        sale_nonce=2,
        order_nonce=3,
        open_by=1_800_000_000,
        bond_tail=90 * 86_400,
        source=7 << 28 | 41,
    )
    delivery = Delivery(
        license_id=7 << 28 | 42,
        buyer=account("buyer"),
        fingerprinter=account("fingerprinter"),
        deposit=10**18,
        copy_root=h("copy"),
        delivery_root=h("delivery"),
        key_commit=h("key"),
        mark_commit=h("mark"),
        total_bytes=1 << 32,
        chunks=1 << 22,
        chunk_size=1024,
        suite=1,
        reveal_window=14_400,
        grace=1_800,
        complaint_window=86_400,
    )
    largest = Sale(
        seller=account("seller"),
        token=account("token"),
        price=(1 << 96) - 1,
        bond=(1 << 96) - 1,
        terms=(1 << 96) - 1,
        terms_hash=b"\xff" * 32,
        request_hash=b"\xff" * 32,
        basis=Basis.SUBLICENSE,
        sale_nonce=(1 << 24) - 1,
        order_nonce=(1 << 64) - 1,
        open_by=(1 << 40) - 1,
        bond_tail=(1 << 32) - 1,
        source=(1 << 256) - 1,
    )
    renewal = Renewal(
        license_id=7 << 28 | 42,
        seller=account("seller"),
        token=account("token"),
        price=10**18,
        expiry=1_900_000_000,
        sale_nonce=2,
        order_nonce=3,
        open_by=1_800_000_000,
    )
    model_sale = ModelSale(
        model_id=7,
        seller=account("seller"),
        buyer=account("buyer"),
        price=10**20,
        terms_hash=h("contract"),
        sale_nonce=2,
        order_nonce=3,
        open_by=1_800_000_000,
    )
    verdict = Verdict(
        case_id=h("case"),
        license_id=7 << 28 | 42,
        kind=Kind.LEAK,
        decision=Decision.GUILTY,
        evidence_hash=h("evidence"),
        subject=h("subject"),
        detector_hash=h("detector"),
        share_index=3,
        samples=65_536,
        bucket=40,
        epoch=1,
        deadline=1_800_000_000,
    )
    offer = Offer(
        model_id=7,
        seller=account("seller"),
        price=10**18,
        bond=2 * 10**18,
        terms=LicenseTerms(commercial=True),
        terms_hash=h("terms"),
        valid_until=1_800_000_000,
        nonce=1,
        metadata="QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
    )
    resale = offer.model_copy(update={"basis": Basis.RESALE, "source": 7 << 28 | 42})
    request = CopyRequest(
        model_id=7,
        offer_hash=h("offer"),
        buyer=account("buyer"),
        delivery_key=h("delivery key"),
        nonce=9,
        prepare_fee=10**16,
        by=1_800_000_000,
    )
    consent = ParentConsent(
        parent_id=3, weights_root=h("child"), registrant=account("child"), bps=500, deadline=1_800_000_000
    )
    answer = RangeVerdict(
        license_id=7 << 28 | 42, order_hash=h("order"), upheld=True, epoch=2, deadline=1_800_000_000
    )
    possession = SignerPossession(account=account("operator"), deadline=1_800_000_000)
    attestation = Attestation(
        issuer=account("issuer"),
        subject=account("buyer"),
        claim_hash=h("claim"),
        tier=2,
        expiry=1_900_000_000,
        nonce=4,
        deadline=1_800_000_000,
    )
    voucher = Voucher(channel_id=h("channel"), cumulative=123_456_789)
    at = (CHAIN_ID, CONTRACT)
    return [
        ("order", eip712.order(Order(sale=sale, delivery=delivery), *at)),
        ("order, largest sale", eip712.order(Order(sale=largest, delivery=delivery), *at)),
        ("order, another chain", eip712.order(Order(sale=sale, delivery=delivery), 1, CONTRACT)),
        ("verdict", eip712.verdict(verdict, *at)),
        ("range verdict", eip712.range_verdict(answer, *at)),
        ("parent consent", eip712.parent_consent(consent, *at)),
        ("renewal", eip712.renewal(renewal, *at)),
        ("model sale", eip712.model_sale(model_sale, *at)),
        ("voucher", eip712.voucher(voucher, *at)),
        ("attestation", eip712.attestation(attestation, *at)),
        ("signer possession", eip712.signer_possession(possession, *at)),
        ("offer", eip712.offer(offer, *at)),
        ("offer, resale", eip712.offer(resale, *at)),
        ("copy request", eip712.copy_request(request, *at)),
    ]


def section() -> dict[str, Any]:
    """All vectors; domain and message as a wallet gets them."""
    found = []
    for name, data in cases():
        signable = encode_typed_data(data.domain, data.types, data.message)
        signed = Account.sign_message(signable, KEY)
        found.append(
            {
                "name": name,
                "primary": data.primary,
                "domain": data.domain,
                "types": data.types,
                "message": jsonable(data.message),
                "domain_separator": "0x" + signable.header.hex(),
                "struct_hash": "0x" + signable.body.hex(),
                "digest": "0x" + keccak(b"\x19" + signable.version + signable.header + signable.body).hex(),
                "signature": "0x" + bytes(signed.signature).hex(),
            }
        )
    note = "Generated by scripts/vectors_eip712.py; do not edit."
    return {"_note": note, "signer": str(Account.from_key(KEY).address), "vectors": found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check = parser.parse_args().check
    text = json.dumps(section(), indent=1) + "\n"
    if check:
        if not TARGET.is_file() or TARGET.read_text() != text:
            print(f"{TARGET.name} is out of date; run scripts/vectors_eip712.py", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
