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

interface ILicenseEscrow {
    /* EVENTS */

    /// @dev Carries the whole order: the only on-chain copy of it.
    event OrderOpened(uint256 indexed licenseId, address indexed buyer, bytes32 indexed orderHash, Order order);
    event KeyRevealed(uint256 indexed licenseId, bytes32 key);
    event OrderSettled(uint256 indexed licenseId, bytes32 indexed orderHash);
    /// @param reason 1 no reveal in time, 2 wrong chunk, 3 range claim upheld, 4 range claim unanswered
    event OrderRefunded(uint256 indexed licenseId, address indexed buyer, uint8 reason, uint256 refund, uint256 penalty);
    event ChunkProvenWrong(uint256 indexed licenseId, uint32 index);
    event RangeClaimed(uint256 indexed licenseId, address indexed buyer, uint256 bond);
    event RangeClaimRejected(uint256 indexed licenseId);
    event OrderCancelled(address indexed seller, bytes32 indexed orderHash);
    event OrdersCancelledBelow(address indexed seller, uint64 floor);
    event CopyRequested(
        bytes32 indexed requestHash, address indexed buyer, address indexed fingerprinter, address token, uint256 fee, uint40 by
    );
    event PrepareFeeReclaimed(bytes32 indexed requestHash, address indexed buyer, uint256 fee);
    event PrepareFeeEarned(bytes32 indexed requestHash, address indexed fingerprinter, uint256 fee);
    event BondReleaseRequested(uint256 indexed licenseId, uint40 at);
    event BondReleased(uint256 indexed licenseId, address indexed holder, uint256 amount);

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
    error RequestUnknown(bytes32 requestHash);
    error LicenseStillActive(uint256 licenseId);
    error BondHeld(uint256 licenseId, uint256 openCases, uint256 notBefore);

    /* PURCHASE */

    /// @notice Buyer pays price + bond (less a prepare fee already paid for this request) and reserves the fingerprint number.
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
    /// @notice Buyer proves that chunk `index` decrypts to something else than promised: refund and deposit.
    function complain(
        Order calldata order, bytes32 key, uint32 index, bytes calldata cipher, bytes32 plainLeaf, bytes32[] calldata path
    ) external;
    /// @notice Buyer claims that the declared range was not derived from the registered one within the promised bound.
    function rangeClaim(Order calldata order) external payable;
    /// @notice Committee's answer to a range claim: RangeVerdict(licenseId, orderHash, upheld, epoch, deadline), EIP-712.
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
    /// @notice Anyone, after the reveal deadline (or after 7 d without an answer to a range claim).
    function refund(Order calldata order) external;

    /* BEFORE THE PURCHASE */

    /// @notice Buyer pays the prepare fee for a copy request; native by value, else pulled from the caller's allowance.
    function payPrepareFee(bytes32 requestHash, address fingerprinter, address token, uint96 fee, uint40 by) external payable;
    /// @notice Buyer takes the fee back after `by` when no order was opened with the request and none was proven prepared.
    function reclaimPrepareFee(bytes32 requestHash) external;
    /// @notice Fingerprinter earns the fee by an order signed by the seller for this request that the buyer let pass.
    function earnPrepareFee(Order calldata order, bytes calldata sellerSignature) external;
    function cancel(Order calldata order) external;
    function cancelAll() external;

    /* BOND */

    /// @notice After the license has ended: starts the tail.
    function requestBondRelease(uint256 licenseId) external;
    /// @notice After the tail, with no case open: the bond becomes the holder's free balance.
    function releaseBond(uint256 licenseId, uint32 bondTail) external;

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
}
