// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Strings} from "@openzeppelin/contracts/utils/Strings.sol";
import {ERC721} from "solady/tokens/ERC721.sol";
import {ILicenseNFT} from "./interfaces/ILicenseNFT.sol";
import {
    Ancestor,
    IModelNFT,
    ModelRecord,
    ModelStatus,
    ParentProof,
    Review,
    RoyaltyTerms,
    Split
} from "./interfaces/IModelNFT.sol";
import {LicenseTerms} from "./libraries/LicenseTerms.sol";
import {RoyaltyMath} from "./libraries/RoyaltyMath.sol";
import {Signatures} from "./libraries/Signatures.sol";

/// @notice Model tokens: who owns which model, what is fixed about it, who shares its income.
/// Powers: REGISTRAR reviews each version once; REGULATOR freezes and delists within limits, lifts; the court freezes by a final
/// verdict; STEWARD changes the collection's display metadata. None of them can move a token, change a record or touch money.
/// @dev 96 bits beside the owner: preferences 0-11 | review 12-13 | freezes 14-15 | frozen until 16-55 | delisted until, in days 56-71
/// | sale nonce 72-95. Under each weights root: first 192 bits of the record's hash | model 0-63.
contract ModelNFT is IModelNFT, ERC721, EIP712, AccessManaged {
    using LicenseTerms for uint96;

    struct TraceKey {
        bytes32 commit;
        uint40 since; // unix seconds
    }

    bytes32 private constant CONSENT_TYPEHASH = keccak256(
        "ParentConsent(uint64 parentId,bytes32 weightsRoot,address registrant,uint16 bps,uint40 deadline)"
    );
    /// @dev What is kept of a record's hash; the model's id has the rest of the word.
    bytes32 private constant HASH_MASK = ~bytes32(uint256(type(uint64).max));
    uint256 private constant MAX_PREFERENCES = 0xFFF; // six codes of two bits
    uint8 private constant MAX_FREEZES = 3; // one and two extensions
    uint40 private constant MAX_FREEZE = 30 days;
    uint40 private constant FREEZE_MEMORY = 180 days;
    uint16 private constant MAX_DELIST_DAYS = 365;

    address public immutable licenses;
    address public immutable court;
    /// @notice Gets the platform's fee on sales of the model token itself, by ERC-2981.
    address public immutable treasury;
    /// @inheritdoc IModelNFT
    uint16 public immutable platformBps;

    /// @inheritdoc IModelNFT
    uint64 public modelCount;
    mapping(bytes32 weightsRoot => bytes32 hashAndModel) private _roots;
    mapping(uint64 modelId => bytes32 digest) private _metadata;
    mapping(uint64 modelId => bytes32 weightsRoot) private _underReview; // versions after the first
    mapping(uint64 modelId => TraceKey) private _traceKeys; // rotated ones
    string private _contractURI;

    constructor(
        address authority_,
        address licenses_,
        address court_,
        address treasury_,
        uint16 platformBps_,
        string memory contractURI_
    ) EIP712("ZhiYiChain ModelNFT", "1") AccessManaged(authority_) {
        if (platformBps_ > RoyaltyMath.MAX_PLATFORM_BPS) revert SharesTooLarge(platformBps_, RoyaltyMath.MAX_PLATFORM_BPS);
        licenses = licenses_;
        court = court_;
        treasury = treasury_;
        platformBps = platformBps_;
        _contractURI = contractURI_;
    }

    /* OWNER */

    /// @inheritdoc IModelNFT
    function register(
        ModelRecord calldata record,
        bytes32 digest,
        uint16 preferences,
        Split[] calldata collaborators,
        ParentProof[] calldata parents
    ) external returns (uint64 modelId) {
        if (preferences > MAX_PREFERENCES) revert BadPreferences(preferences);
        _checkFigures(record);
        _checkRootIsFree(record.weightsRoot);
        _checkCollaborators(collaborators);
        RoyaltyTerms memory royalties = RoyaltyTerms(platformBps, collaborators, _lineage(record.weightsRoot, parents));
        bytes memory data = abi.encode(record, royalties, preferences, digest);
        bytes32 hash = _sealRecord(data, digest);

        modelId = ++modelCount;
        _roots[record.weightsRoot] = _rootEntry(modelId, hash);
        _metadata[modelId] = digest;
        _mintAndSetExtraDataUnchecked(msg.sender, modelId, preferences); // no receiver is called
        _emitRegistered(modelId, record.weightsRoot, data);
    }

    /// @dev `data` is abi.encode(record, royalties, preferences, digest): 8 words of record, offset, preferences, digest, royalties.
    /// Writes royaltyHash = keccak256(abi.encode(royalties)) into the record there and returns keccak256(abi.encode(record)).
    /// Hashing and emitting the one coding, instead of coding three times, saves 2,000 gas.
    function _sealRecord(bytes memory data, bytes32 digest) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let head := add(data, 0x160) // the word before the royalties: digest
            mstore(head, 0x20) // abi.encode of a dynamic struct begins with its offset
            let royaltyHash := keccak256(head, sub(mload(data), 0x140))
            mstore(head, digest)
            mstore(add(data, 0x100), royaltyHash)
            hash := keccak256(add(data, 0x20), 0x100)
        }
    }

    /// @dev emit ModelRegistered(modelId, msg.sender, weightsRoot, record, royalties, preferences, digest), with `data` already coded.
    function _emitRegistered(uint64 modelId, bytes32 weightsRoot, bytes memory data) private {
        bytes32 topic = ModelRegistered.selector;
        assembly ("memory-safe") {
            log4(add(data, 0x20), mload(data), topic, modelId, caller(), weightsRoot)
        }
    }

    /// @inheritdoc IModelNFT
    function setPreferences(uint64 modelId, uint16 preferences, bytes32 digest) external {
        _checkOwner(modelId);
        if (preferences > MAX_PREFERENCES) revert BadPreferences(preferences);
        uint96 data = _getExtraData(modelId);
        _setExtraData(modelId, (data & ~uint96(MAX_PREFERENCES)) | preferences);
        _metadata[modelId] = digest;
        emit PreferencesChanged(modelId, uint16(data & MAX_PREFERENCES), preferences, digest);
        emit MetadataUpdate(modelId);
    }

    /// @inheritdoc IModelNFT
    function addVersion(uint64 modelId, ModelRecord calldata record, ModelRecord calldata newRecord, bytes32 digest) external {
        ModelStatus memory status = _checkOwner(modelId);
        if (status.review != Review.APPROVED) revert NotApproved(modelId, status.review);
        checkRecord(modelId, record);
        _checkFigures(newRecord);
        _checkRootIsFree(newRecord.weightsRoot);
        ModelRecord memory added = newRecord;
        added.royaltyHash = record.royaltyHash;

        _roots[added.weightsRoot] = _rootEntry(modelId, keccak256(abi.encode(added)));
        _metadata[modelId] = digest;
        _underReview[modelId] = added.weightsRoot;
        status.review = Review.PENDING;
        _store(modelId, status);
        emit VersionAdded(modelId, added.weightsRoot, added, digest);
        emit MetadataUpdate(modelId);
        TraceKey memory key = _traceKeys[modelId];
        // Records of a model differ in their keys only from the first rotation on.
        bytes32 current = key.since == 0 ? record.traceKeyCommit : key.commit;
        if (added.traceKeyCommit != current) _rotate(modelId, added.traceKeyCommit);
    }

    /// @inheritdoc IModelNFT
    function rotateTraceKey(uint64 modelId, bytes32 traceKeyCommit) external {
        _checkOwner(modelId);
        _rotate(modelId, traceKeyCommit);
    }

    function _rotate(uint64 modelId, bytes32 traceKeyCommit) private {
        _traceKeys[modelId] = TraceKey(traceKeyCommit, uint40(block.timestamp));
        emit TraceKeyRotated(modelId, traceKeyCommit, uint40(block.timestamp));
    }

    /* REGISTRAR, REGULATOR, COURT, ADMIN */

    /// @inheritdoc IModelNFT
    function review(uint64 modelId, bytes32 weightsRoot, Review outcome, bytes32 reasonHash) external restricted {
        ModelStatus memory status = statusOf(modelId);
        if (outcome == Review.PENDING) revert NotAnOutcome(outcome);
        if (status.review != Review.PENDING) revert AlreadyReviewed(modelId, status.review);
        bytes32 version = _underReview[modelId];
        bool isFirst = version == 0;
        if (isFirst ? modelOfRoot(weightsRoot) != modelId : weightsRoot != version) {
            revert NotUnderReview(modelId, weightsRoot);
        }
        status.review = isFirst ? outcome : Review.APPROVED;
        _store(modelId, status);
        if (!isFirst) {
            delete _underReview[modelId];
            // REJECTED is left to models that never sold: their root may be taken. Of an approved one, the rejected root alone.
            if (outcome == Review.REJECTED) delete _roots[weightsRoot];
        }
        emit ModelReviewed(modelId, msg.sender, weightsRoot, outcome, reasonHash);
        if (!isFirst) emit MetadataUpdate(modelId);
    }

    /// @inheritdoc IModelNFT
    function freeze(uint64 modelId, uint40 until, bytes32 reasonHash) external restricted {
        ModelStatus memory status = statusOf(modelId);
        uint40 max = uint40(block.timestamp) + MAX_FREEZE;
        if (until > max || until <= block.timestamp) revert FreezeTooLong(until, max);
        _forgetFreezes(status);
        if (status.freezeCount == MAX_FREEZES) revert FreezeLimit(modelId, status.freezeCount);
        ++status.freezeCount;
        status.frozenUntil = until;
        _store(modelId, status);
        emit ModelFrozen(modelId, msg.sender, until, reasonHash);
    }

    /// @inheritdoc IModelNFT
    function freezeByVerdict(uint64 modelId, bytes32 caseId) external {
        if (msg.sender != court) revert NotTheCourt(msg.sender);
        ModelStatus memory status = statusOf(modelId);
        _forgetFreezes(status);
        status.frozenUntil = uint40(block.timestamp) + MAX_FREEZE; // no freeze before could end later
        _store(modelId, status);
        emit ModelFrozenByVerdict(modelId, caseId, status.frozenUntil);
    }

    /// @inheritdoc IModelNFT
    function lift(uint64 modelId, bytes32 reasonHash) external restricted {
        ModelStatus memory status = statusOf(modelId);
        if (block.timestamp >= status.frozenUntil) revert NotFrozen(modelId);
        status.frozenUntil = uint40(block.timestamp);
        _store(modelId, status);
        emit FreezeLifted(modelId, msg.sender, reasonHash);
    }

    /// @inheritdoc IModelNFT
    function delist(uint64 modelId, uint16 untilDay, bytes32 reasonHash) external restricted {
        ModelStatus memory status = statusOf(modelId);
        uint256 today = block.timestamp / 1 days;
        uint16 max = uint16(today + MAX_DELIST_DAYS);
        if (untilDay != 0 && (untilDay > max || untilDay <= today)) revert DelistTooLong(untilDay, max);
        status.delistedUntil = uint40(untilDay) * 1 days;
        _store(modelId, status);
        emit ModelDelisted(modelId, msg.sender, status.delistedUntil, reasonHash);
    }

    /// @inheritdoc IModelNFT
    function setContractURI(string calldata uri) external restricted {
        _contractURI = uri;
        emit ContractURIUpdated();
    }

    /* VIEWS */

    /// @inheritdoc IModelNFT
    function statusOf(uint64 modelId) public view returns (ModelStatus memory) {
        address owner = _ownerOf(modelId);
        if (owner == address(0)) revert NoSuchModel(modelId);
        uint96 data = _getExtraData(modelId);
        uint40 delistedUntil = uint40(uint16(data >> 56)) * 1 days;
        return ModelStatus({
            owner: owner,
            preferences: uint16(data & MAX_PREFERENCES),
            review: Review(uint8((data >> 12) & 3)),
            delisted: block.timestamp < delistedUntil,
            freezeCount: uint8((data >> 14) & 3),
            frozenUntil: uint40(data >> 16),
            delistedUntil: delistedUntil,
            saleNonce: uint24(data >> 72)
        });
    }

    /// @inheritdoc IModelNFT
    function checkRecord(uint64 modelId, ModelRecord calldata record) public view {
        bytes32 given = keccak256(abi.encode(record));
        if (_roots[record.weightsRoot] != _rootEntry(modelId, given)) revert RecordMismatch(modelId, given);
    }

    /// @inheritdoc IModelNFT
    function modelOfRoot(bytes32 weightsRoot) public view returns (uint64) {
        return uint64(uint256(_roots[weightsRoot]));
    }

    /// @inheritdoc IModelNFT
    function recordHashOf(bytes32 weightsRoot) external view returns (bytes24) {
        return bytes24(_roots[weightsRoot]);
    }

    /// @inheritdoc IModelNFT
    function versionUnderReview(uint64 modelId) external view returns (bytes32) {
        return _underReview[modelId];
    }

    /// @inheritdoc IModelNFT
    function traceKeyOf(uint64 modelId) external view returns (bytes32 commit, uint40 since) {
        TraceKey memory key = _traceKeys[modelId];
        return (key.commit, key.since);
    }

    /// @inheritdoc IModelNFT
    function metadataDigest(uint64 modelId) external view returns (bytes32) {
        return _metadata[modelId];
    }

    /// @inheritdoc IModelNFT
    function consentDigest(uint64 parentId, bytes32 weightsRoot, address registrant, uint16 bps, uint40 deadline)
        public
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(keccak256(abi.encode(CONSENT_TYPEHASH, parentId, weightsRoot, registrant, bps, deadline)));
    }

    /* ERC-721, 2981, 7572 */

    function name() public pure override returns (string memory) {
        return "ZhiYiChain Model";
    }

    function symbol() public pure override returns (string memory) {
        return "ZYM";
    }

    /// @notice ipfs:// and the metadata's CIDv1 in base16: f | 01 (version) | 70 (dag-pb) | 12 (sha2-256) | 20 (32 bytes) | digest.
    function tokenURI(uint256 id) public view override returns (string memory) {
        if (!_exists(id)) revert NoSuchModel(uint64(id));
        bytes memory hexDigest = bytes(Strings.toHexString(uint256(_metadata[uint64(id)]), 32));
        bytes memory digits = new bytes(64);
        for (uint256 i = 0; i < 64; ++i) {
            digits[i] = hexDigest[i + 2]; // without 0x
        }
        return string.concat("ipfs://f01701220", string(digits));
    }

    function contractURI() external view returns (string memory) {
        return _contractURI;
    }

    /// @notice ERC-2981, for sales of the model token: the platform's fee to the treasury.
    function royaltyInfo(uint256, uint256 salePrice) external view returns (address receiver, uint256 amount) {
        return (treasury, RoyaltyMath.shareDown(salePrice, platformBps));
    }

    function supportsInterface(bytes4 interfaceId) public view override returns (bool) {
        return interfaceId == 0x2a55205a // ERC-2981
            || interfaceId == 0x49064906 // ERC-4906
            || super.supportsInterface(interfaceId);
    }

    /// @dev Solady's are payable to save gas; money sent here would be lost.
    function approve(address account, uint256 id) public payable override {
        if (msg.value != 0) revert ValueNotTaken(msg.value);
        super.approve(account, id);
    }

    /// @dev Every change of owner voids what the former owner signed.
    function _beforeTokenTransfer(address from, address, uint256 id) internal override {
        if (from == address(0)) return;
        if (msg.value != 0) revert ValueNotTaken(msg.value);
        _setExtraData(id, _getExtraData(id) + (uint96(1) << 72));
    }

    /* CHECKS */

    function _checkOwner(uint64 modelId) private view returns (ModelStatus memory status) {
        status = statusOf(modelId);
        if (msg.sender != status.owner) revert NotTheOwner(msg.sender, status.owner);
    }

    /// @dev Each file of a bundle starts a new chunk, so there may be more chunks than totalBytes / chunkSize, never fewer.
    function _checkFigures(ModelRecord calldata record) private pure {
        if (record.weightsRoot == 0 || record.totalBytes == 0 || record.chunks == 0) revert EmptyBundle(record.totalBytes, record.chunks);
        if (uint256(record.chunks) * record.chunkSize < record.totalBytes || record.chunks > record.totalBytes) {
            revert ChunksDoNotFit(record.totalBytes, record.chunks, record.chunkSize);
        }
    }

    function _checkRootIsFree(bytes32 weightsRoot) private view {
        uint64 holder = modelOfRoot(weightsRoot);
        if (holder != 0 && statusOf(holder).review != Review.REJECTED) revert RootAlreadyRegistered(weightsRoot, holder);
    }

    function _checkCollaborators(Split[] calldata collaborators) private pure {
        if (collaborators.length > RoyaltyMath.MAX_COLLABORATORS) {
            revert TooManyShares(collaborators.length, RoyaltyMath.MAX_COLLABORATORS);
        }
        uint256 sum = RoyaltyMath.collaboratorBps(collaborators);
        if (sum > RoyaltyMath.BPS) revert SharesTooLarge(sum, RoyaltyMath.BPS);
    }

    function _lineage(bytes32 weightsRoot, ParentProof[] calldata parents) private view returns (Ancestor[] memory lineage) {
        if (parents.length == 0) return lineage;
        lineage = new Ancestor[](RoyaltyMath.MAX_ANCESTORS);
        uint256 count = 0;
        uint256 sum = 0;
        for (uint256 i = 0; i < parents.length; ++i) {
            ParentProof calldata parent = parents[i];
            for (uint256 j = 0; j < i; ++j) {
                if (parents[j].parentId == parent.parentId) revert ParentRepeated(parent.parentId);
            }
            sum += parent.bps;
            if (sum > RoyaltyMath.MAX_LINEAGE_BPS) revert SharesTooLarge(sum, RoyaltyMath.MAX_LINEAGE_BPS);
            if (!_agreed(weightsRoot, parent)) revert ParentNotAgreed(parent.parentId);
            Review review_ = statusOf(parent.parentId).review;
            if (review_ != Review.APPROVED) revert ParentNotApproved(parent.parentId, review_);
            checkRecord(parent.parentId, parent.parentRecord);
            bytes32 termsHash = keccak256(abi.encode(parent.parentTerms));
            if (termsHash != parent.parentRecord.royaltyHash) revert RecordMismatch(parent.parentId, termsHash);
            count = RoyaltyMath.inherit(lineage, count, parent.parentId, parent.bps, parent.parentTerms.ancestors);
            if (count > RoyaltyMath.MAX_ANCESTORS) revert TooManyShares(count, RoyaltyMath.MAX_ANCESTORS);
        }
        assembly ("memory-safe") {
            mstore(lineage, count) // the array was made as long as it may get; this cuts it to what it holds
        }
    }

    /// @dev The parent must exist for its record to be opened, so a missing parent fails there at the latest.
    function _agreed(bytes32 weightsRoot, ParentProof calldata parent) private view returns (bool) {
        if (parent.licenseId != 0) {
            ILicenseNFT license = ILicenseNFT(licenses);
            if (license.modelOf(parent.licenseId) != parent.parentId || !license.isActive(parent.licenseId)) return false;
            uint96 terms = license.termsOf(parent.licenseId);
            return terms.has(LicenseTerms.DERIVATIVES) && parent.bps >= terms.derivativeBps()
                && ERC721(licenses).ownerOf(parent.licenseId) == msg.sender;
        }
        if (block.timestamp > parent.deadline) return false;
        bytes32 digest = consentDigest(parent.parentId, weightsRoot, msg.sender, parent.bps, parent.deadline);
        return Signatures.areValid(statusOf(parent.parentId).owner, digest, parent.signature);
    }

    /* STORAGE */

    function _rootEntry(uint64 modelId, bytes32 hash) private pure returns (bytes32) {
        return (hash & HASH_MASK) | bytes32(uint256(modelId));
    }

    /// @dev A freeze by verdict counts as one here: the regulator's count starts anew 180 d after the last freeze of either kind.
    function _forgetFreezes(ModelStatus memory status) private view {
        if (block.timestamp > status.frozenUntil + FREEZE_MEMORY) status.freezeCount = 0;
    }

    function _store(uint64 modelId, ModelStatus memory status) private {
        _setExtraData(
            modelId,
            uint96(status.preferences) | (uint96(uint8(status.review)) << 12) | (uint96(status.freezeCount) << 14)
                | (uint96(status.frozenUntil) << 16) | (uint96(status.delistedUntil / 1 days) << 56) | (uint96(status.saleNonce) << 72)
        );
    }
}
