// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice To whom, what and how it is delivered. Hashed apart from the sale, so that revealing a key needs this half only.
struct Delivery {
    uint256 licenseId; // modelId << 28 | fingerprint number
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

/// @notice What is paid for what.
struct Sale {
    address seller; // owner of the model token at opening
    address token; // address(0) is the native coin
    uint96 price; // smallest unit of token
    uint96 bond; // misuse bond, same token
    uint96 terms; // packed, see LicenseTerms
    bytes32 termsHash; // hash of the license text
    bytes32 requestHash; // EIP-712 hash of the buyer's CopyRequest, 0 if none; its prepare fee is credited against the price
    uint8 minTier; // identity tier the buyer must hold, 0 for none
    uint24 saleNonce; // of the model token: every sale of the model voids older orders
    uint64 orderNonce; // the seller's; orders below the seller's floor are void
    uint40 openBy; // unix seconds
    uint32 bondTail; // seconds the bond stays after the license has ended, >= 90 d
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
}

interface ILicenseEscrow {
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
    event RangeClaimed(uint256 indexed licenseId, address indexed buyer, uint256 bond, uint64 epoch);
    event RangeClaimRejected(uint256 indexed licenseId);
    event OrderCancelled(address indexed seller, bytes32 indexed orderHash);
    event OrdersCancelledBelow(address indexed seller, uint64 floor);
    event CopyRequested(
        bytes32 indexed requestHash, address indexed buyer, address indexed fingerprinter, address token, uint256 fee, uint40 by
    );
    event PrepareFeeCredited(bytes32 indexed requestHash, bytes32 indexed orderHash, uint256 fee);
    event PrepareFeeReclaimed(bytes32 indexed requestHash, address indexed buyer, uint256 fee);
    event PrepareFeeEarned(bytes32 indexed requestHash, address indexed fingerprinter, uint256 fee);
    event BondReleaseRequested(uint256 indexed licenseId, uint40 at);
    event BondReleased(uint256 indexed licenseId, address indexed holder, uint256 amount);
    event OpeningPaused(address indexed by, uint40 until);
    event OpeningResumed(address indexed by);

    /* ERRORS */

    error WrongState(uint256 licenseId, OrderState given, OrderState needed);
    error WrongOrder(uint256 licenseId, bytes32 given);
    error NotTheBuyer(address given, address buyer);
    error NotTheSeller(address given, address seller);
    error NotTheOwner(address seller, address owner);
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

    /* PURCHASE */

    /// @notice Buyer pays price + bond (less a prepare fee already paid for this request) and reserves the fingerprint number.
    /// Every condition is checked here and only here; whatever changes later, the order ends by its own rules.
    /// - Native price: `msg.value` is exactly `quoteOpen`. ERC-20: a listed token that arrives whole, from the caller's allowance.
    /// - Both signatures are over `orderDigest(order)`: 65-byte low-s ECDSA or ERC-1271.
    /// - The fingerprinter is neither seller nor buyer, and has the deposit free in its stake above the reserve.
    function open(Order calldata order, bytes calldata sellerSignature, bytes calldata fingerprinterSignature) external payable;
    /// @notice The same for an ERC-20 price, with an EIP-2612 permit of the token for this contract.
    function openWithPermit(
        Order calldata order,
        bytes calldata sellerSignature,
        bytes calldata fingerprinterSignature,
        uint256 permitDeadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;
    /// @notice Anyone who knows the key may publish it, until openedAt + revealWindow + grace.
    function revealKey(bytes32 saleHash, Delivery calldata delivery, bytes32 key) external;
    /// @notice Buyer proves that chunk `index` decrypts to something else than promised: refund and deposit. A bad proof reverts
    /// with an error of FairDelivery.
    function complain(
        Order calldata order, bytes32 key, uint32 index, bytes calldata cipher, bytes32 plainLeaf, bytes32[] calldata path
    ) external;
    /// @notice Buyer claims that the declared range was not derived from the registered one within the promised bound, with a bond
    /// of a tenth of the price in the order's token (native by value, else from the allowance).
    function rangeClaim(Order calldata order) external payable;
    /// @notice Answer to a range claim by the committee that was active when it was made:
    /// RangeVerdict(uint256 licenseId,bytes32 orderHash,bool upheld,uint64 epoch,uint40 deadline), EIP-712. Upheld: refund, deposit
    /// and claim bond to the buyer. Rejected: the order settles and the claim bond goes to the treasury.
    function resolveRange(
        Order calldata order,
        bool upheld,
        uint64 epoch,
        uint40 deadline,
        address[] calldata signers,
        uint32 bitmap,
        bytes calldata signatures
    ) external;
    /// @notice Buyer takes the copy as it is and ends the complaint window.
    function accept(Order calldata order) external;
    /// @notice Anyone, after the complaint window: mints the license, credits royalties, locks the bond, frees the deposit.
    function settle(Order calldata order) external;
    /// @notice Anyone, after the reveal deadline (a tenth of the deposit goes to the buyer), or after 7 d without an answer to a
    /// range claim (no penalty, the claim bond goes back).
    function refund(Order calldata order) external;

    /* BEFORE THE PURCHASE */

    /// @notice Buyer pays the prepare fee for a copy request; native by value, else pulled from the caller's allowance.
    /// @param by unix seconds, at most 30 d ahead: until then the fingerprinter may earn it, then the buyer may take it back
    function payPrepareFee(bytes32 requestHash, address fingerprinter, address token, uint96 fee, uint40 by) external payable;
    /// @notice The caller takes the fee of its own request back after `by`, when no order was opened with it and none proven prepared.
    function reclaimPrepareFee(bytes32 requestHash) external;
    /// @notice Fingerprinter earns the fee by an order signed by the seller for this request that the buyer let pass: after its
    /// `openBy`, until the request's `by`. Anyone may call; the fee (at most 5 % of the price) becomes its free balance.
    /// @dev The chain sees the seller's signature, not the copy: a buyer trusts a fingerprinter with no more than this fee.
    function earnPrepareFee(Order calldata order, bytes calldata sellerSignature) external;
    /// @notice Seller: this order cannot be opened any more. An open order is not touched.
    function cancel(Order calldata order) external;
    /// @notice Seller: no order signed so far can be opened any more; the floor rises by 2^32. Sign with orderNonce from `orderFloor`
    /// to `orderFloor` + 2^32 - 1; higher ones are refused, so that none can outlive this call.
    function cancelAll() external;

    /* BOND */

    /// @notice After the license has ended: starts the tail.
    function requestBondRelease(uint256 licenseId) external;
    /// @notice After the order's bondTail (time in which opening was paused does not count), with no case open: what is left of the
    /// bond becomes the holder's free balance. Anyone may call.
    function releaseBond(Order calldata order) external;

    /* PAUSER */

    /// @notice Stops opening until `until`: at most 7 d from the start of a period, periods at least 30 d apart, so never more than
    /// 7 d in any 30. Nothing else stops; the bond tails stand still meanwhile.
    function pauseOpening(uint40 until) external;
    function resumeOpening() external;

    /* VIEWS */

    /// @notice State, unix time of the last transition, first 208 bits of the order hash.
    function orderState(uint256 licenseId) external view returns (OrderState state, uint40 since, bytes26 hash);
    /// @notice EIP-712 digest that seller and fingerprinter sign.
    function orderDigest(Order calldata order) external view returns (bytes32);
    function saleHash(Sale calldata sale) external pure returns (bytes32);
    /// @notice What opening costs now, in order.sale.token.
    function quoteOpen(Order calldata order) external view returns (uint256 amount);
    /// @notice Reverts unless this is the order stored under its license id.
    function checkOrder(Order calldata order) external view;
    function orderFloor(address seller) external view returns (uint64);
    /// @notice EIP-712 struct hash of the order, of which `orderState` shows the first 208 bits.
    function orderHashOf(Order calldata order) external pure returns (bytes32);
    /// @notice EIP-712 digest that a committee signs to answer a range claim.
    function rangeVerdictDigest(uint256 licenseId, bytes32 orderHash, bool upheld, uint64 epoch, uint40 deadline)
        external
        view
        returns (bytes32);
    /// @notice A buyer's prepare fee; all zero if none waits.
    function prepareFeeOf(address buyer, bytes32 requestHash) external view returns (PrepareFee memory);
    /// @notice The committee that may answer the range claim on this order, 0 if none was made.
    function rangeClaimEpoch(uint256 licenseId) external view returns (uint64);
    /// @notice Seconds for which opening has ever been paused; clocks that a pause extends count `block.timestamp` less this.
    function pausedSeconds() external view returns (uint40);
}
