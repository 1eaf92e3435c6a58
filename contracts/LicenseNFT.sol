// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Base64} from "@openzeppelin/contracts/utils/Base64.sol";
import {Strings} from "@openzeppelin/contracts/utils/Strings.sol";
import {ERC721} from "solady/tokens/ERC721.sol";
import {ILicenseNFT, LicenseEnd, LicenseRecord} from "./interfaces/ILicenseNFT.sol";
import {LicenseTerms} from "./libraries/LicenseTerms.sol";

/// @notice License tokens. The escrow issues, the court revokes and suspends, the holder surrenders; nobody else can change anything.
/// An ended license is not burned: it stays with the last holder as the record of who had it.
/// @dev 96 bits beside the owner: terms in the low 92, offered for resale in bit 92, suspended in 93, end in 94-95.
contract LicenseNFT is ILicenseNFT, ERC721 {
    using LicenseTerms for uint96;
    using Strings for uint256;

    uint96 private constant TERMS_MASK = uint96((1 << LicenseTerms.BITS) - 1);
    uint96 private constant OFFERED = 1 << 92;
    uint96 private constant SUSPENDED = 1 << 93;
    uint256 private constant END_SHIFT = 94;
    uint256 private constant FINGERPRINT_BITS = 28;

    address public immutable escrow;
    address public immutable court;

    mapping(uint256 licenseId => bytes32 hash) private _records;

    modifier onlyEscrow() {
        if (msg.sender != escrow) revert NotAPeer(msg.sender);
        _;
    }

    modifier onlyCourt() {
        if (msg.sender != court) revert NotAPeer(msg.sender);
        _;
    }

    constructor(address escrow_, address court_) {
        escrow = escrow_;
        court = court_;
    }

    /* PEERS */

    /// @inheritdoc ILicenseNFT
    function issue(address to, uint256 licenseId, uint96 terms, LicenseRecord calldata record)
        external
        onlyEscrow
    {
        _records[licenseId] = keccak256(abi.encode(record));
        // The escrow issues an id once (its order slot never leaves SETTLED), so the id is free.
        _mintAndSetExtraDataUnchecked(to, licenseId, terms & TERMS_MASK);
        emit LicenseIssued(licenseId, _modelOf(licenseId), to, terms, record);
        emit Locked(licenseId);
        if (terms.expiry() != 0) emit SubscriptionUpdate(licenseId, terms.expiry());
    }

    /// @inheritdoc ILicenseNFT
    function offerOnward(uint256 source, address seller, uint96 terms, bool resale) external onlyEscrow {
        uint96 data = _dataOf(source);
        address holder = _ownerOf(source);
        if (seller != holder) revert NotTheHolder(seller, holder);
        if (!_isActive(data) || data & OFFERED != 0) revert NotForSale(source);
        uint8 right = resale ? LicenseTerms.RESALE : LicenseTerms.SUBLICENSE;
        bool chained = !resale && terms.has(LicenseTerms.SUBLICENSE);
        if (!data.has(right) || chained || !terms.areWithin(data & TERMS_MASK)) revert TermsNotWithin(source, terms);
        if (resale) {
            _setExtraData(source, data | OFFERED);
            emit LicenseOffered(source, true);
        }
    }

    /// @inheritdoc ILicenseNFT
    function withdrawOnward(uint256 source) external onlyEscrow {
        _setExtraData(source, _dataOf(source) & ~OFFERED);
        emit LicenseOffered(source, false);
    }

    /// @inheritdoc ILicenseNFT
    function settleOnward(uint256 source, uint256 licenseId, bool resale) external onlyEscrow returns (uint16 onwardBps) {
        uint96 data = _dataOf(source);
        emit LicensePassedOn(source, licenseId, resale);
        if (resale) _end(source, data & ~OFFERED, LicenseEnd.RESOLD);
        return data.onwardBps();
    }

    /// @inheritdoc ILicenseNFT
    function renew(uint256 licenseId, address holder, uint40 expiry) external onlyEscrow {
        uint96 data = _dataOf(licenseId);
        if (holder != _ownerOf(licenseId)) revert NotTheHolder(holder, _ownerOf(licenseId));
        if (_hasEnded(data)) revert LicenseEnded(licenseId, _endIn(data));
        uint40 before = data.expiry();
        if (before == 0 || (expiry != 0 && expiry <= before)) revert NotLonger(licenseId, expiry, before);
        _setExtraData(licenseId, data.withExpiry(expiry));
        emit SubscriptionUpdate(licenseId, _expiresAt(data.withExpiry(expiry)));
        emit MetadataUpdate(licenseId);
    }

    /// @inheritdoc ILicenseNFT
    function revoke(uint256 licenseId, bytes32 cause) external onlyCourt {
        if (_end(licenseId, _dataOf(licenseId), LicenseEnd.REVOKED)) emit LicenseRevoked(licenseId, cause);
    }

    /// @inheritdoc ILicenseNFT
    function suspend(uint256 licenseId, bool suspended, bytes32 cause) external onlyCourt {
        uint96 data = _dataOf(licenseId);
        _setExtraData(licenseId, suspended ? data | SUSPENDED : data & ~SUSPENDED);
        emit LicenseSuspended(licenseId, suspended, cause);
        emit MetadataUpdate(licenseId);
    }

    /* HOLDER */

    /// @inheritdoc ILicenseNFT
    function surrender(uint256 licenseId) external {
        _surrender(licenseId);
    }

    /// @notice ERC-5643: the same as `surrender`. No value is taken.
    function cancelSubscription(uint256 tokenId) external payable {
        if (msg.value != 0) revert ValueNotTaken(msg.value);
        _surrender(tokenId);
    }

    /// @notice ERC-5643: always reverts; a renewal is the owner's signed order and goes through the escrow.
    function renewSubscription(uint256 tokenId, uint64) external payable {
        revert RenewalIsAnOrder(tokenId);
    }

    function _surrender(uint256 licenseId) private {
        uint96 data = _dataOf(licenseId);
        address holder = _ownerOf(licenseId);
        if (msg.sender != holder) revert NotTheHolder(msg.sender, holder);
        if (!_end(licenseId, data, LicenseEnd.SURRENDERED)) revert LicenseEnded(licenseId, _endIn(data));
        emit LicenseSurrendered(licenseId, holder);
    }

    /// @return done false where somebody has ended it before: then only `data` is stored
    function _end(uint256 licenseId, uint96 data, LicenseEnd end) private returns (bool done) {
        done = _endIn(data) == LicenseEnd.NONE;
        _setExtraData(licenseId, done ? data | (uint96(end) << uint96(END_SHIFT)) : data);
        if (!done) return false;
        emit SubscriptionUpdate(licenseId, 0);
        emit MetadataUpdate(licenseId);
    }

    /* VIEWS */

    /// @inheritdoc ILicenseNFT
    function isActive(uint256 licenseId) external view returns (bool) {
        return _exists(licenseId) && _isActive(_getExtraData(licenseId));
    }

    /// @inheritdoc ILicenseNFT
    function hasEnded(uint256 licenseId) external view returns (bool) {
        return _hasEnded(_dataOf(licenseId));
    }

    /// @inheritdoc ILicenseNFT
    function endOf(uint256 licenseId) external view returns (LicenseEnd) {
        return _endIn(_dataOf(licenseId));
    }

    /// @inheritdoc ILicenseNFT
    function termsOf(uint256 licenseId) external view returns (uint96) {
        return _dataOf(licenseId) & TERMS_MASK;
    }

    /// @inheritdoc ILicenseNFT
    function isOffered(uint256 licenseId) external view returns (bool) {
        return _dataOf(licenseId) & OFFERED != 0;
    }

    /// @inheritdoc ILicenseNFT
    function isSuspended(uint256 licenseId) external view returns (bool) {
        return _dataOf(licenseId) & SUSPENDED != 0;
    }

    /// @inheritdoc ILicenseNFT
    function recordHash(uint256 licenseId) external view returns (bytes32) {
        return _records[licenseId];
    }

    /// @inheritdoc ILicenseNFT
    function checkRecord(uint256 licenseId, LicenseRecord calldata record) external view {
        bytes32 given = keccak256(abi.encode(record));
        if (given != _records[licenseId]) revert RecordMismatch(licenseId, given);
    }

    /// @inheritdoc ILicenseNFT
    function modelOf(uint256 licenseId) external pure returns (uint64) {
        return _modelOf(licenseId);
    }

    /// @inheritdoc ILicenseNFT
    function locked(uint256 tokenId) external view returns (bool) {
        _dataOf(tokenId);
        return true; // every license carries a fingerprint, and a fingerprint names one person
    }

    /// @inheritdoc ILicenseNFT
    function expiresAt(uint256 tokenId) external view returns (uint64) {
        return _expiresAt(_dataOf(tokenId));
    }

    /// @inheritdoc ILicenseNFT
    function isRenewable(uint256 tokenId) external view returns (bool) {
        uint96 data = _dataOf(tokenId);
        return data.expiry() != 0 && !_hasEnded(data);
    }

    /* ERC-721 */

    function name() public pure override returns (string memory) {
        return "ZhiYiChain License";
    }

    function symbol() public pure override returns (string memory) {
        return "ZYL";
    }

    /// @notice Names only; terms and state are read from the views, so that the picture never disagrees with the record.
    function tokenURI(uint256 id) public view override returns (string memory) {
        _dataOf(id);
        string memory json = string.concat(
            "{\"name\":\"ZhiYiChain License ",
            id.toString(),
            "\",\"description\":\"License of model ",
            uint256(_modelOf(id)).toString(),
            ", fingerprint ",
            (id & ((1 << FINGERPRINT_BITS) - 1)).toString(),
            ". Not transferable.\"}"
        );
        return string.concat("data:application/json;base64,", Base64.encode(bytes(json)));
    }

    function supportsInterface(bytes4 interfaceId) public view override returns (bool) {
        return interfaceId == 0xb45a3c0e // ERC-5192
            || interfaceId == 0x8c65f84d // ERC-5643
            || interfaceId == 0x49064906 // ERC-4906
            || super.supportsInterface(interfaceId);
    }

    /// @dev Approving moves nothing: no license can be transferred.
    function approve(address account, uint256 id) public payable override {
        if (msg.value != 0) revert ValueNotTaken(msg.value);
        super.approve(account, id);
    }

    function _beforeTokenTransfer(address from, address, uint256 id) internal pure override {
        if (from != address(0)) revert LicenseCarriesFingerprint(id);
    }

    function _dataOf(uint256 licenseId) private view returns (uint96) {
        if (!_exists(licenseId)) revert NoSuchLicense(licenseId);
        return _getExtraData(licenseId);
    }

    function _hasEnded(uint96 data) private view returns (bool) {
        return _endIn(data) != LicenseEnd.NONE || data.hasExpired(block.timestamp);
    }

    function _isActive(uint96 data) private view returns (bool) {
        return !_hasEnded(data) && data & SUSPENDED == 0;
    }

    /// @dev ERC-5643 has no word for never, and 0 for cancelled.
    function _expiresAt(uint96 data) private pure returns (uint64) {
        if (_endIn(data) != LicenseEnd.NONE) return 0;
        return data.expiry() == 0 ? type(uint64).max : data.expiry();
    }

    function _endIn(uint96 data) private pure returns (LicenseEnd) {
        return LicenseEnd(uint8(data >> uint96(END_SHIFT)));
    }

    function _modelOf(uint256 licenseId) private pure returns (uint64) {
        return uint64(licenseId >> FINGERPRINT_BITS);
    }
}
