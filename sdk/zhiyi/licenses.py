"""License tokens."""

from __future__ import annotations

from zhiyi.chain import Event, TxResult
from zhiyi.errors import IntegrityError, NotFound
from zhiyi.group import Group
from zhiyi.types import (
    Bond,
    License,
    LicenseEnd,
    LicenseRecord,
    LicenseTerms,
    fingerprint_of_license,
    model_of_license,
    to_address,
)


class Licenses(Group):
    """License tokens (contract LicenseNFT); issued when an order settles. They never move to another holder."""

    def get(self, license_id: int) -> License:
        """A license as it stands now. Raises NotFound before it is issued, IntegrityError."""
        found = self._events("LicenseNFT", "LicenseIssued", {"licenseId": license_id})
        if not found:
            raise NotFound(f"license {license_id} was not issued")
        return self._license(found[0])

    def list(self, model_id: int | None = None, holder: str | None = None) -> tuple[License, ...]:
        """Issued licenses, oldest first, of one model, of one first holder, or all."""
        filters: dict[str, object] = {}
        if model_id is not None:
            filters["modelId"] = model_id
        if holder is not None:
            filters["holder"] = to_address(holder)
        return tuple(self._license(event) for event in self._events("LicenseNFT", "LicenseIssued", filters))

    def _license(self, issued: Event) -> License:
        license_id, record = issued["licenseId"], LicenseRecord.from_abi(issued["record"])
        if record.hash() != self._call("LicenseNFT", "recordHash", license_id):
            raise IntegrityError(f"the event of license {license_id} does not hash to its record")
        return License(
            license_id=license_id,
            model_id=model_of_license(license_id),
            fingerprint=fingerprint_of_license(license_id),
            holder=issued["holder"],  # it never moves
            terms=LicenseTerms.unpack(
                self._call("LicenseNFT", "termsOf", license_id)
            ),  # a renewal changes them
            record=record,
            end=LicenseEnd(self._call("LicenseNFT", "endOf", license_id)),
            active=self.is_active(license_id),
            suspended=bool(self._call("LicenseNFT", "isSuspended", license_id)),
            offered=bool(self._call("LicenseNFT", "isOffered", license_id)),
            issued_block=issued.block_number,
            issued_tx=issued.tx_hash,
        )

    def record(self, license_id: int) -> LicenseRecord:
        """What a case needs of the license. Raises as `get`."""
        return self.get(license_id).record

    def is_active(self, license_id: int) -> bool:
        """Minted, not ended, not suspended, not expired."""
        return bool(self._call("LicenseNFT", "isActive", license_id))

    def has_ended(self, license_id: int) -> bool:
        """Revoked, surrendered, resold or expired."""
        return bool(self._call("LicenseNFT", "hasEnded", license_id))

    def surrender(self, license_id: int, *, dry_run: bool = False) -> TxResult:
        """Holder: ends the license for good; then the bond's tail may start."""
        return self._send("LicenseNFT", "surrender", license_id, dry_run=dry_run)

    def bond(self, license_id: int) -> Bond:
        """The misuse bond left."""
        return Bond.from_abi(self._call("LicenseEscrow", "bondOf", license_id))
