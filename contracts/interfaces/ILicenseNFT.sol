// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice What a case needs of a license; kept on chain as a hash, opened by `LicenseIssued`.
struct LicenseRecord {
    bytes32 orderHash;
    bytes32 copyRoot;
    bytes32 markCommit;
    bytes32 termsHash;
    address fingerprinter;
}

enum LicenseEnd {
    NONE,
    REVOKED,
    SURRENDERED,
    RESOLD
}

interface ILicenseNFT {
    event LicenseIssued(uint256 indexed licenseId, uint64 indexed modelId, address indexed holder, uint96 terms, LicenseRecord record);
    event LicenseRevoked(uint256 indexed licenseId, bytes32 indexed cause);
    event LicenseSurrendered(uint256 indexed licenseId, address indexed holder);
    event LicenseSuspended(uint256 indexed licenseId, bool suspended, bytes32 indexed cause);
    /// @dev Opened or closed again: a resale of the license.
    event LicenseOffered(uint256 indexed licenseId, bool offered);
    /// @dev `source` was resold, or sublicensed, as `licenseId`.
    event LicensePassedOn(uint256 indexed source, uint256 indexed licenseId, bool resale);
    /// @dev ERC-5192
    event Locked(uint256 tokenId);
    event Unlocked(uint256 tokenId);
    /// @dev ERC-5643
    event SubscriptionUpdate(uint256 indexed tokenId, uint64 expiration);
    /// @dev ERC-4906
    event MetadataUpdate(uint256 tokenId);
    event BatchMetadataUpdate(uint256 fromTokenId, uint256 toTokenId);

    error NotAPeer(address caller);
    error LicenseCarriesFingerprint(uint256 licenseId);
    error RenewalIsAnOrder(uint256 licenseId);
    error RecordMismatch(uint256 licenseId, bytes32 given);
    error NotTheHolder(address caller, address holder);
    error LicenseEnded(uint256 licenseId, LicenseEnd end);
    error NoSuchLicense(uint256 licenseId);
    error ValueNotTaken(uint256 value);
    error NotForSale(uint256 licenseId);
    error TermsNotWithin(uint256 source, uint96 terms);
    error NotLonger(uint256 licenseId, uint40 expiry, uint40 current);

    /* PEERS */

    /// @notice Escrow only, once a license id. No receiver is called.
    function issue(address to, uint256 licenseId, uint96 terms, LicenseRecord calldata record) external;
    /// @notice Escrow only: an order passes `source` on. Its holder is the seller; it is active and not offered already; it has the right
    /// (RESALE or SUBLICENSE); `terms` stay within its own; a sublicense gives no right to sublicense.
    function offerOnward(uint256 source, address seller, uint96 terms, bool resale) external;
    /// @notice Escrow only: the resale was refunded.
    function withdrawOnward(uint256 source) external;
    /// @notice Escrow only: `licenseId` was issued from `source`, which a resale ends. Never reverts for a source that was offered.
    /// @return onwardBps part of the price that is the model's
    function settleOnward(uint256 source, uint256 licenseId, bool resale) external returns (uint16 onwardBps);
    /// @notice Escrow only: the holder paid for a later expiry, 0 for never.
    function renew(uint256 licenseId, address holder, uint40 expiry) external;
    /// @notice Court only. Does nothing to a license that has ended: who surrendered and is convicted then stays SURRENDERED.
    function revoke(uint256 licenseId, bytes32 cause) external;
    /// @notice Court only. A suspended license is not active; its end and bond do not change.
    function suspend(uint256 licenseId, bool suspended, bytes32 cause) external;

    /* HOLDER */

    /// @notice The holder ends the license for good; the bond's tail may then be started.
    function surrender(uint256 licenseId) external;

    /* VIEWS */

    /// @notice Minted, not ended, not suspended, not expired.
    function isActive(uint256 licenseId) external view returns (bool);
    /// @notice Revoked, surrendered, resold or expired.
    function hasEnded(uint256 licenseId) external view returns (bool);
    /// @notice How it was ended by someone; NONE for a license that only expired.
    function endOf(uint256 licenseId) external view returns (LicenseEnd);
    function isSuspended(uint256 licenseId) external view returns (bool);
    /// @notice A resale of it is open.
    function isOffered(uint256 licenseId) external view returns (bool);
    /// @notice Packed as LicenseTerms says.
    function termsOf(uint256 licenseId) external view returns (uint96);
    /// @notice keccak256(abi.encode(LicenseRecord)), 0 if none was issued
    function recordHash(uint256 licenseId) external view returns (bytes32);
    /// @notice Reverts unless `record` is the license's.
    function checkRecord(uint256 licenseId, LicenseRecord calldata record) external view;
    function modelOf(uint256 licenseId) external pure returns (uint64);
    /// @dev ERC-5192
    function locked(uint256 tokenId) external view returns (bool);
    /// @dev ERC-5643
    function renewSubscription(uint256 tokenId, uint64 duration) external payable;
    function cancelSubscription(uint256 tokenId) external payable;
    /// @notice ERC-5643: unix seconds; 0 once it was ended before its time, 2^64 - 1 for a license without expiry.
    function expiresAt(uint256 tokenId) external view returns (uint64);
    function isRenewable(uint256 tokenId) external view returns (bool);
}
