"""`zhiyi offer`: what an owner, or a license's holder, offers to anybody; signed off chain."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from zhiyi.cli import words
from zhiyi.cli.models import MAX_TEXT_BYTES, terms_hash
from zhiyi.cli.session import Session, read_bytes, read_document, session_of, write_document
from zhiyi.errors import BadInput
from zhiyi.types import NATIVE, Basis, LicenseTerms, Offer, SignedOffer, TermsFlag, to_address

app = typer.Typer(name="offer", help="Sign and check offers; they cost no gas.", no_args_is_help=True)


@app.command()
def sign(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model id.")],
    price: Annotated[
        str, typer.Option(help="Price, as 1.5eth, or a whole number of the token's smallest unit.")
    ],
    bond: Annotated[str, typer.Option(help="Misuse bond of the buyer.")],
    license_text: Annotated[Path, typer.Option(help="License text; its hash becomes part of the terms.")],
    out: Annotated[Path, typer.Option(help="File to write the signed offer to.")],
    use: Annotated[list[str] | None, typer.Option(help="Category of use that the license grants.")] = None,
    commercial: Annotated[bool, typer.Option("--commercial", help="Commercial use.")] = False,
    resale: Annotated[bool, typer.Option("--resale", help="The license may be resold.")] = False,
    sublicense: Annotated[bool, typer.Option("--sublicense", help="Sublicenses may be given.")] = False,
    derivatives: Annotated[
        bool, typer.Option("--derivatives", help="Derived models may be registered.")
    ] = False,
    disclosure: Annotated[bool, typer.Option("--disclosure", help="Outputs must be labelled.")] = False,
    updates: Annotated[
        bool, typer.Option("--updates", help="Later versions of the model are owed without a new price.")
    ] = False,
    derivative_share: Annotated[
        str, typer.Option(help="Least share of a derivative's income, as 5%.")
    ] = "0%",
    onward_share: Annotated[
        str, typer.Option(help="The model's share when the license is resold or sublicensed, as 10%.")
    ] = "0%",
    min_tier: Annotated[int, typer.Option(help="Identity tier (0 to 3) that a buyer must have.")] = 0,
    resell: Annotated[
        str | None, typer.Option(help="Holder: this license is resold; it ends with the sale.")
    ] = None,
    sublicense_of: Annotated[
        str | None, typer.Option(help="Holder: a sublicense of this license is sold.")
    ] = None,
    territory: Annotated[int, typer.Option(help="ISO 3166-1 number, 0 worldwide.")] = 0,
    expires: Annotated[str | None, typer.Option(help="End of the license: unix seconds, or +365d.")] = None,
    valid: Annotated[str, typer.Option(help="End of the offer: unix seconds, or +30d.")] = "+30d",
    fingerprinter: Annotated[
        str | None, typer.Option(help="The only fingerprinter that may make the copy.")
    ] = None,
    token: Annotated[str, typer.Option(help="ERC-20 address; default: the chain's coin.")] = NATIVE,
    reveal_window: Annotated[str, typer.Option(help="Time to reveal the key, 1h to 48h.")] = "4h",
    grace: Annotated[str, typer.Option(help="Time more in which a reveal counts, at least 30m.")] = "30m",
    complaint_window: Annotated[str, typer.Option(help="Time to complain, 1d to 14d.")] = "1d",
    bond_tail: Annotated[
        str, typer.Option(help="How long the bond stays after the license, at least 90d.")
    ] = "90d",
    publish: Annotated[bool, typer.Option("--publish", help="Put license text and offer on IPFS.")] = False,
) -> None:
    """Owner: sign an offer to anybody. Holder: the same, to resell or sublicense what his license's terms allow."""
    session = session_of(ctx)
    client = session.client
    basis, source = _basis(resell, sublicense_of)
    now = client.chain.now()
    text = read_bytes(license_text, MAX_TEXT_BYTES)
    offer = Offer(
        model_id=model_id,
        seller=client.account,
        fingerprinter=to_address(fingerprinter) if fingerprinter else None,
        token=to_address(token),
        price=words.amount(price),
        bond=words.amount(bond),
        terms=LicenseTerms(
            commercial=commercial,
            resale=resale,
            sublicense=sublicense,
            derivatives=derivatives,
            disclosure_duty=disclosure,
            updates=updates,
            territory=territory,
            expires_at=words.moment(expires, now) if expires else 0,
            uses=words.uses(use or []),
            derivative_bps=words.share(derivative_share),
            onward_bps=words.share(onward_share),
            min_tier=min_tier,
        ),
        terms_hash=terms_hash(text),
        reveal_window=words.duration(reveal_window),
        grace=words.duration(grace),
        complaint_window=words.duration(complaint_window),
        bond_tail=words.duration(bond_tail),
        valid_until=words.moment(valid, now),
        nonce=secrets.randbits(63),
        metadata=session.ipfs.add_bytes(text) if publish else "",
        basis=basis,
        source=source,
    )
    signed = client.offers.sign(offer)
    client.offers.verify(signed)
    write_document(out, signed)
    cid = session.ipfs.add_file(out) if publish else None
    session.console.result(
        {"file": str(out), "cid": cid, "offer_hash": client.offers.hash(offer), **described(offer)}
    )


@app.command()
def check(ctx: typer.Context, file: Annotated[Path, typer.Argument(help="Signed offer.")]) -> None:
    """Check signature, validity, ownership and preferences, and say what the offer means."""
    session = session_of(ctx)
    signed = read_document(file, SignedOffer)
    session.reader.offers.verify(signed)
    digest = session.reader.offers.hash(signed.offer)
    session.console.result({"ok": True, "offer_hash": digest, **described(signed.offer)})


def described(offer: Offer) -> dict[str, Any]:
    """An offer in words."""
    return {
        "model_id": offer.model_id,
        "seller": offer.seller,
        "basis": offer.basis.name.lower(),
        "source": offer.source or None,
        "fingerprinter": offer.fingerprinter or "any staked fingerprinter",
        "token": "native coin" if offer.token == NATIVE else offer.token,
        "price": offer.price,
        "bond": offer.bond,
        "terms": described_terms(offer.terms),
        "terms_hash": offer.terms_hash,
        "reveal_window": offer.reveal_window,
        "complaint_window": offer.complaint_window,
        "bond_tail": offer.bond_tail,
        "valid_until": offer.valid_until,
    }


def described_terms(terms: LicenseTerms) -> dict[str, Any]:
    """License terms in words."""
    flags = (str(flag.name).lower() for flag in TermsFlag)
    return {
        **{flag: getattr(terms, flag) for flag in flags},
        "territory": terms.territory or "worldwide",
        "expires_at": terms.expires_at or "never",
        "uses": sorted(use.name.lower() for use in terms.uses),
        "derivative_bps": terms.derivative_bps,
        "onward_bps": terms.onward_bps,
        "min_tier": terms.min_tier,
    }


def _basis(resell: str | None, sublicense_of: str | None) -> tuple[Basis, int]:
    if resell is not None and sublicense_of is not None:
        raise BadInput("a license is resold or sublicensed, not both")
    if resell is not None:
        return Basis.RESALE, words.license_id(resell)
    return (Basis.SUBLICENSE, words.license_id(sublicense_of)) if sublicense_of else (Basis.OWNER, 0)


def checked_offer(session: Session, file: Path) -> SignedOffer:
    """A signed offer that holds now. Raises BadInput, BadSignature."""
    signed = read_document(file, SignedOffer)
    session.reader.offers.verify(signed)
    return signed
