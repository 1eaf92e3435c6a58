// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

struct Split {
    address account;
    uint16 bps; // of what is left after platform and ancestors
}

struct Ancestor {
    uint64 modelId;
    uint16 bps; // of the gross
}

/// @notice Who shares a model's income; fixed at registration, kept on chain as a hash, opened by `ModelRegistered`.
struct RoyaltyTerms {
    uint16 platformBps;
    Split[] collaborators;
    Ancestor[] ancestors; // flattened, at most 10, together at most 5000 bps
}

/// @notice What is fixed about one version of a model; kept on chain as a hash, opened by `ModelRegistered` and `VersionAdded`.
struct ModelRecord {
    bytes32 weightsRoot; // over the plain leaves of the registered bundle
    uint64 totalBytes;
    uint32 chunks;
    uint16 chunkSize; // bytes
    bytes32 detectorHash; // detector spec: code, tables, thresholds
    bytes32 traceKeyCommit; // commitment of the trace kit, until it is rotated
    bytes32 rangeHash; // declared range and its bound on relative change
    bytes32 royaltyHash; // keccak256(abi.encode(RoyaltyTerms)), the same in every version of a model
}

/// @notice Leave to record a parent: a license of it that allows derivatives, held by the registrant, or its owner's signature over
/// ParentConsent(parentId, weightsRoot, registrant, bps, deadline), EIP-712.
struct ParentProof {
    uint64 parentId;
    uint16 bps; // of the child's gross, shared on by the parent's own lineage
    uint256 licenseId; // 0: by signature
    uint40 deadline;
    bytes signature;
    RoyaltyTerms parentTerms; // opens the parent's record, for its ancestors
    ModelRecord parentRecord;
}

enum Review {
    PENDING,
    APPROVED,
    REJECTED
}

/// @notice Everything an order is checked against, in one word of storage beside the owner.
struct ModelStatus {
    address owner;
    uint16 preferences; // 6 categories, 2 bits each: 0 not stated, 1 allowed, 2 constrained, 3 notAllowed
    Review review;
    bool delisted; // now
    uint8 freezeCount;
    uint40 frozenUntil; // unix seconds
    uint40 delistedUntil; // unix seconds, a whole day; 0: never delisted, or relisted
    uint24 saleNonce;
}

interface IModelNFT {
    /* EVENTS */

    event ModelRegistered(
        uint64 indexed modelId,
        address indexed owner,
        bytes32 indexed weightsRoot,
        ModelRecord record,
        RoyaltyTerms royalties,
        uint16 preferences,
        bytes32 metadataDigest
    );
    /// @dev `record` as it is kept, with the model's royaltyHash. The model waits for review from here on.
    event VersionAdded(uint64 indexed modelId, bytes32 indexed weightsRoot, ModelRecord record, bytes32 metadataDigest);
    /// @param review of the weights under `weightsRoot`. A version rejected after the first leaves the model APPROVED without it.
    event ModelReviewed(
        uint64 indexed modelId, address indexed registrar, bytes32 indexed weightsRoot, Review review, bytes32 reasonHash
    );
    event PreferencesChanged(uint64 indexed modelId, uint16 before, uint16 preferences, bytes32 metadataDigest);
    /// @dev The key counts from `at` on, the one before until then; the first is in the record.
    event TraceKeyRotated(uint64 indexed modelId, bytes32 traceKeyCommit, uint40 at);
    event ModelFrozen(uint64 indexed modelId, address indexed by, uint40 until, bytes32 reasonHash);
    event ModelFrozenByVerdict(uint64 indexed modelId, bytes32 indexed caseId, uint40 until);
    event FreezeLifted(uint64 indexed modelId, address indexed by, bytes32 reasonHash);
    /// @param until unix seconds; 0: listed again
    event ModelDelisted(uint64 indexed modelId, address indexed by, uint40 until, bytes32 reasonHash);
    /// @dev ERC-4906
    event MetadataUpdate(uint256 tokenId);
    event BatchMetadataUpdate(uint256 fromTokenId, uint256 toTokenId);
    /// @dev ERC-7572
    event ContractURIUpdated();

    /* ERRORS */

    error RootAlreadyRegistered(bytes32 weightsRoot, uint64 modelId);
    error RecordMismatch(uint64 modelId, bytes32 given);
    error EmptyBundle(uint64 totalBytes, uint32 chunks);
    error ChunksDoNotFit(uint64 totalBytes, uint32 chunks, uint16 chunkSize);
    error NotTheOwner(address caller, address owner);
    error NoSuchModel(uint64 modelId);
    error BadPreferences(uint16 preferences);
    error SharesTooLarge(uint256 bps, uint256 max);
    error TooManyShares(uint256 given, uint256 max);
    error ParentRepeated(uint64 parentId);
    error ParentNotAgreed(uint64 parentId);
    error ParentNotApproved(uint64 parentId, Review review);
    error FreezeLimit(uint64 modelId, uint8 count);
    error FreezeTooLong(uint40 until, uint40 max);
    error DelistTooLong(uint16 untilDay, uint16 max);
    error NotApproved(uint64 modelId, Review review);
    error AlreadyReviewed(uint64 modelId, Review review);
    error NotUnderReview(uint64 modelId, bytes32 weightsRoot);
    error NotAnOutcome(Review outcome);
    error NotFrozen(uint64 modelId);
    error NotTheCourt(address caller);
    error ValueNotTaken(uint256 value);

    /* OWNER */

    /// @notice Mints the model token to the caller. A root that a model not rejected holds is refused. Parents must be approved.
    /// @param record royaltyHash is filled in by the contract from `collaborators` and the flattened lineage; pass zero
    /// @param digest sha2-256 multihash digest of the metadata's CIDv0 (dag-pb)
    function register(
        ModelRecord calldata record,
        bytes32 digest,
        uint16 preferences,
        Split[] calldata collaborators,
        ParentProof[] calldata parents
    ) external returns (uint64 modelId);
    /// @notice Owner of an approved model: new weights under the same token, shares and licenses. No new order until they are
    /// reviewed; opened orders, licenses and income go on. A trace key other than the present one is rotated.
    /// @param record any version's of this model
    /// @param newRecord its royaltyHash is replaced by the model's; pass zero
    /// @param digest replaces the model's at once
    function addVersion(
        uint64 modelId, ModelRecord calldata record, ModelRecord calldata newRecord, bytes32 digest
    ) external;
    /// @notice Owner. Orders signed before are checked against the new bits when they are opened.
    function setPreferences(uint64 modelId, uint16 preferences, bytes32 digest) external;
    /// @notice Owner. Copies marked under the old key stay traceable with the kit that the record or the older event commits to.
    function rotateTraceKey(uint64 modelId, bytes32 traceKeyCommit) external;

    /* REGISTRAR, REGULATOR, COURT */

    /// @notice REGISTRAR, once a version: APPROVED or REJECTED. A rejected root may be registered anew, by anyone. Rejecting a later
    /// version leaves the model approved as it was before, but for metadata and trace key, which are the owner's to set.
    /// @param weightsRoot what was reviewed, so that no owner can put other weights in its place meanwhile
    function review(uint64 modelId, bytes32 weightsRoot, Review outcome, bytes32 reasonHash) external;
    /// @notice REGULATOR: no new order, no pull by the owner until `until` (<= 30 d ahead). At most three times in a row; the count
    /// starts anew 180 d after the last freeze ended.
    function freeze(uint64 modelId, uint40 until, bytes32 reasonHash) external;
    /// @notice Court: 30 days from a final OWNERSHIP or UNDECLARED_PARENT verdict on, outside the regulator's count. Cannot revert
    /// for a model that exists.
    function freezeByVerdict(uint64 modelId, bytes32 caseId) external;
    /// @notice REGULATOR: ends a freeze early, a verdict's too.
    function lift(uint64 modelId, bytes32 reasonHash) external;
    /// @notice REGULATOR: no new order until the day begins; renewable with a new reason. Licenses, opened orders and money are
    /// untouched.
    /// @param untilDay days since 1970-01-01 (UTC), at most 365 ahead; 0 lists the model again
    function delist(uint64 modelId, uint16 untilDay, bytes32 reasonHash) external;
    /// @notice STEWARD: ERC-7572 metadata of the collection.
    function setContractURI(string calldata uri) external;

    /* VIEWS */

    /// @notice Reverts for a model that does not exist.
    function statusOf(uint64 modelId) external view returns (ModelStatus memory);
    /// @notice Reverts unless `record` is that of one of the model's versions.
    function checkRecord(uint64 modelId, ModelRecord calldata record) external view;
    /// @notice The latest model registered with this root, 0 if none.
    function modelOfRoot(bytes32 weightsRoot) external view returns (uint64);
    /// @notice First 24 bytes of keccak256(abi.encode(ModelRecord)) of the record with this root, 0 if none. A twin of 192 bits costs
    /// whoever made both records 2^96 hashes; of another's record, 2^192.
    function recordHashOf(bytes32 weightsRoot) external view returns (bytes24);
    /// @notice Root of the version added last while it waits for review, 0 if none does.
    function versionUnderReview(uint64 modelId) external view returns (bytes32 weightsRoot);
    /// @return commit the trace key's commitment now; 0 with `since` 0: not rotated, the record's counts from registration on
    /// @return since unix seconds
    function traceKeyOf(uint64 modelId) external view returns (bytes32 commit, uint40 since);
    /// @notice sha2-256 multihash digest of the metadata's CIDv0
    function metadataDigest(uint64 modelId) external view returns (bytes32);
    /// @notice EIP-712 digest of ParentConsent that a parent's owner signs.
    function consentDigest(uint64 parentId, bytes32 weightsRoot, address registrant, uint16 bps, uint40 deadline)
        external
        view
        returns (bytes32);
    /// @notice Of the gross of models registered here; fixed at deployment.
    function platformBps() external view returns (uint16);
    function modelCount() external view returns (uint64);
}
