"""`zhiyi identity` from the naming of an issuer to the check of a claim."""

from __future__ import annotations

import json

from test_cli import Shell
from test_cli import ipfs_node as ipfs_node  # fixtures
from test_cli import zhiyi as zhiyi


def test_an_identity_is_attested_recorded_checked_and_revoked(zhiyi: Shell) -> None:
    issuer = zhiyi("authority", "keys", "address")["address"]
    buyer = zhiyi("buyer", "keys", "address")["address"]
    zhiyi("registrar", "identity", "set-issuer", issuer, 2)
    assert zhiyi("", "identity", "issuers") == [{"issuer": issuer, "max_tier": 2}]
    claim, file, opening = (zhiyi.folder / name for name in ("claim", "attestation", "opening"))
    claim.write_text("Zhang San, passport seen")
    sign = ("identity", "sign", buyer, "--tier", 2, "--claim", claim, "--out", file, "--opening", opening)
    zhiyi("authority", *sign)
    assert opening.stat().st_mode & 0o777 == 0o600
    assert "passport" not in file.read_text()
    zhiyi("authority", *sign, code=3)  # an opening is never overwritten
    assert zhiyi("buyer", "identity", "record", file, "--dry-run")["status"] == "simulated"
    assert zhiyi("buyer", "identity", "record", file)["tier"] == 2
    assert zhiyi("", "identity", "show", buyer)["tier"] == 2
    assert zhiyi("", "identity", "check-claim", opening)["ok"]
    other = json.loads(opening.read_text())
    (zhiyi.folder / "other").write_text(json.dumps(other | {"claim": "0x00"}))
    zhiyi("", "identity", "check-claim", zhiyi.folder / "other", code=5)
    zhiyi("authority", "identity", "revoke", buyer, "--reason", "false document")
    assert zhiyi("", "identity", "show", buyer)["tier"] == 0
    zhiyi("", "identity", "check-claim", opening, code=5)
    assert zhiyi("buyer", "identity", "withdraw", code=6)["error"]["error_name"] == "NotAttested"
    zhiyi("authority", "identity", "resign")
    assert zhiyi("", "identity", "issuers") == []
