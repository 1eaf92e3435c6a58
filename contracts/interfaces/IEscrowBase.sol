// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice To whom, what and how it is delivered. Hashed apart from the sale, so that revealing a key needs this half only.
struct Delivery {
    uint256 licenseId; // modelId << 28 | fingerprint number; from 2^27 on where a holder passes his license on, below where the owner sells
    address buyer;
    address fingerprinter;
    uint128 deposit; // wei, locked from the fingerprinter's stake; >= price when the price is native
    bytes32 copyRoot; // over the plain leaves of the delivered copy
    bytes32 deliveryRoot; // over the delivery leaves
    bytes32 keyCommit; // keccak256(abi.encode(key, licenseId, buyer))
    bytes32 markCommit; // Merkle root of the 16 share seeds of the confirm mark
    uint64 totalBytes;
    uint32 chunks;
    uint16 chunkSize; // bytes
    uint8 suite; // keystream and hash suite, see FairDelivery
    uint32 revealWindow; // seconds after opening, 1-48 h
    uint32 grace; // seconds more in which a reveal still counts, >= 30 min
    uint32 complaintWindow; // seconds after the reveal, 1-14 d
}

/// @notice By what right a license is sold.
enum Basis {
    OWNER, // of the model token
    RESALE, // by a license that allows it, which ends
    SUBLICENSE // by a license that allows it, which stays
}

/// @notice What is paid for what.
struct Sale {
    address seller; // owner of the model token at opening, or holder of `source`
    address token; // address(0) is the native coin
    uint96 price; // smallest unit of token
    uint96 bond; // misuse bond, same token
    uint96 terms; // packed, see LicenseTerms
    bytes32 termsHash; // hash of the license text
    bytes32 requestHash; // EIP-712 hash of the buyer's CopyRequest, 0 if none; its prepare fee is credited against the price
    Basis basis;
    uint24 saleNonce; // of the model token: every sale of the model voids older orders
    uint64 orderNonce; // the seller's; orders below the seller's floor are void
    uint40 openBy; // unix seconds
    uint32 bondTail; // seconds the bond stays after the license has ended, >= 90 d
    uint256 source; // license that is resold or sublicensed; 0 on OWNER's basis
}

/// @notice One order for one buyer and one prepared copy, signed by seller and fingerprinter, never stored.
struct Order {
    Sale sale;
    Delivery delivery;
}

enum OrderState {
    NONE,
    OPEN,
    REVEALED,
    RANGE_CHECK,
    SETTLED,
    REFUNDED
}

struct PrepareFee {
    address fingerprinter;
    uint96 fee; // smallest unit of the token
    uint40 by; // unix seconds
    uint8 tokenIndex; // of the vault
    uint64 modelId; // what was asked for
    uint40 paidAt; // unix seconds
}

/// @notice Longer life for a license that has not ended; signed by the model's owner, paid at once by the holder. EIP-712.
struct Renewal {
    uint256 licenseId;
    address seller; // owner of the model token
    address token;
    uint96 price;
    uint40 expiry; // the new one, unix seconds; 0 for never
    uint24 saleNonce;
    uint64 orderNonce;
    uint40 openBy; // unix seconds
}

/// @notice Sale of the model token: copyright transfer. Signed by the owner, who has approved the escrow for the token. EIP-712.
struct ModelSale {
    uint64 modelId;
    address seller;
    address buyer; // address(0): anyone
    address token;
    uint96 price;
    bytes32 termsHash; // hash of the contract's text
    uint24 saleNonce;
    uint64 orderNonce;
    uint40 openBy; // unix seconds
}

/// @notice What the escrow and its extension share.
interface IEscrowBase {
    /* EVENTS */

    /// @dev Carries the whole order: the only on-chain copy of it.
    event OrderOpened(uint256 indexed licenseId, address indexed buyer, bytes32 indexed orderHash, Order order);
    event KeyRevealed(uint256 indexed licenseId, bytes32 key);
    event OrderSettled(uint256 indexed licenseId, bytes32 indexed orderHash);
    /// @dev The buyer's free balance grew by `refund` of the order's token and by `penalty` wei out of the fingerprinter's stake.
    /// @param reason 1 no reveal in time, 2 wrong chunk, 3 range claim upheld, 4 range claim unanswered
    event OrderRefunded(uint256 indexed licenseId, address indexed buyer, uint8 reason, uint256 refund, uint256 penalty);
    event ChunkProvenWrong(uint256 indexed licenseId, uint32 index);
    /// @param epoch the committee that may answer
    event RangeClaimed(
        uint256 indexed licenseId, address indexed buyer, uint256 bond, uint64 epoch, bytes32 evidenceDigest
    );
    event RangeClaimRejected(uint256 indexed licenseId);
    /// @param hash EIP-712 struct hash of an Order, a Renewal or a ModelSale
    event OrderCancelled(address indexed seller, bytes32 indexed hash);
    event OrdersCancelledBelow(address indexed seller, uint64 floor);
    event CopyRequested(
        bytes32 indexed requestHash,
        address indexed buyer,
        address indexed fingerprinter,
        uint64 modelId,
        address token,
        uint256 fee,
        uint40 by
    );
    event PrepareFeeCredited(bytes32 indexed requestHash, bytes32 indexed orderHash, uint256 fee);
    event PrepareFeeReclaimed(bytes32 indexed requestHash, address indexed buyer, uint256 fee);
    event PrepareFeeEarned(bytes32 indexed requestHash, address indexed fingerprinter, uint256 fee);
    event LicenseRenewed(uint256 indexed licenseId, address indexed holder, address token, uint256 price, uint40 expiry);
    event ModelSold(
        uint64 indexed modelId, address indexed seller, address indexed buyer, address token, uint256 price, bytes32 termsHash
    );
    event BondReleaseRequested(uint256 indexed licenseId, uint40 at);
    event BondReleased(uint256 indexed licenseId, address indexed holder, uint256 amount);
    event OpeningPaused(address indexed by, uint40 until);
    event OpeningResumed(address indexed by);

    /* ERRORS */

    error WrongState(uint256 licenseId, OrderState given, OrderState needed);
    error WrongOrder(uint256 licenseId, bytes32 given);
    error NotTheBuyer(address given, address buyer);
    error NotTheOwner(address seller, address owner);
    error SourceMismatch(uint256 source, uint64 modelId);
    error OnlyThroughEscrow();
    error BadSignature(address signer);
    error OrderExpired(uint40 openBy);
    error OrderVoid(bytes32 orderHash);
    error SaleNonceStale(uint24 given, uint24 current);
    error WindowOutOfRange(uint256 given, uint256 min, uint256 max);
    error DepositTooSmall(uint256 given, uint256 needed);
    error PaymentMismatch(uint256 given, uint256 needed);
    error WrongKey(bytes32 commit, bytes32 needed);
    error TooEarly(uint256 notBefore);
    error TooLate(uint256 deadline);
    error ChunkIsRight(uint256 licenseId, uint32 index);
    error ModelNotOffered(uint64 modelId);
    error ModelFrozen(uint64 modelId, uint40 until);
    error UseNotAllowed(uint16 useMask, uint16 preferences);
    error IdentityTooLow(uint8 given, uint8 needed);
    error FeeTooLarge(uint256 given, uint256 max);
    error NoCommittee();
    error RequestUnknown(bytes32 requestHash);
    error RequestTaken(bytes32 requestHash);
    error LicenseStillActive(uint256 licenseId);
    error BondHeld(uint256 licenseId, uint256 openCases, uint256 notBefore);
    error ReleaseNotRequested(uint256 licenseId);
    error OpeningIsPaused(uint40 until);
    error PauseTooLong(uint40 until, uint40 max);
    error NotPaused();
    error NotALicenseId(uint256 licenseId);
    error TermsMalformed(uint96 terms);
    error TermsExpired(uint40 expiry);
    error BadFigures(uint64 totalBytes, uint32 chunks, uint16 chunkSize, uint8 suite);
    error NotNeutral(address fingerprinter);
    error WrongEpoch(uint64 given, uint64 needed);

    /* VIEWS */

    /// @notice State, unix time of the last transition, first 208 bits of the order hash.
    function orderState(uint256 licenseId) external view returns (OrderState state, uint40 since, bytes26 hash);
    function saleHash(Sale calldata sale) external pure returns (bytes32);
    /// @notice EIP-712 struct hash of the order, of which `orderState` shows the first 208 bits.
    function orderHashOf(Order calldata order) external pure returns (bytes32);
}
