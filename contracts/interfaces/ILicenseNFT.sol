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

    /* PEERS */

    /// @notice Escrow only, once a license id. No receiver is called.
    function issue(address to, uint256 licenseId, uint96 terms, LicenseRecord calldata record) external;
    /// @notice Court only, and only for a license that has not ended: a holder who surrendered and is convicted then stays SURRENDERED,
    /// the slash apart. Marks an ended license revoked, too, if called.
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
    function expiresAt(uint256 tokenId) external view returns (uint64);
    function isRenewable(uint256 tokenId) external view returns (bool);
}
