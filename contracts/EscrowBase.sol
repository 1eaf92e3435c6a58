// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IEscrowBase} from "./interfaces/IEscrowBase.sol";
import {Basis, Delivery, Order, OrderState, PrepareFee, Sale} from "./interfaces/IEscrowBase.sol";
import {ILicenseNFT, LicenseRecord} from "./interfaces/ILicenseNFT.sol";
import {IModelNFT, ModelStatus} from "./interfaces/IModelNFT.sol";
import {Bond} from "./interfaces/IVault.sol";
import {Peers, VaultBase} from "./VaultBase.sol";

/// @notice Orders as the escrow and its extension see them: storage, hashes, checks, and the two ways an order ends.
abstract contract EscrowBase is IEscrowBase, VaultBase, EIP712 {
    /// @dev state 8 | since 40 | first 208 bits of the order hash; the id's fingerprint number is used up from the first write on.
    type OrderSlot is uint256;

    // Literals, not concatenated constants: only those are hashed by the compiler.
    bytes32 private constant DELIVERY_TYPEHASH = keccak256(
        "Delivery(uint256 licenseId,address buyer,address fingerprinter,uint128 deposit,bytes32 copyRoot,byte"
        "s32 deliveryRoot,bytes32 keyCommit,bytes32 markCommit,uint64 totalBytes,uint32 chunks,uint16 chunkSi"
        "ze,uint8 suite,uint32 revealWindow,uint32 grace,uint32 complaintWindow)"
    );
    bytes32 private constant SALE_TYPEHASH = keccak256(
        "Sale(address seller,address token,uint96 price,uint96 bond,uint96 terms,bytes32 termsHash,bytes32 re"
        "questHash,uint8 basis,uint24 saleNonce,uint64 orderNonce,uint40 openBy,uint32 bondTail,uint256 sourc"
        "e)"
    );
    bytes32 private constant ORDER_TYPEHASH = keccak256(
        "Order(Sale sale,Delivery delivery)"
        "Delivery(uint256 licenseId,address buyer,address fingerprinter,uint128 deposit,bytes32 copyRoot,byte"
        "s32 deliveryRoot,bytes32 keyCommit,bytes32 markCommit,uint64 totalBytes,uint32 chunks,uint16 chunkSi"
        "ze,uint8 suite,uint32 revealWindow,uint32 grace,uint32 complaintWindow)"
        "Sale(address seller,address token,uint96 price,uint96 bond,uint96 terms,bytes32 termsHash,bytes32 re"
        "questHash,uint8 basis,uint24 saleNonce,uint64 orderNonce,uint40 openBy,uint32 bondTail,uint256 sourc"
        "e)"
    );

    uint256 internal constant SALE_WORDS = 13;
    uint256 internal constant DELIVERY_WORDS = 15;

    uint256 internal constant FINGERPRINT_BITS = 28;
    /// @dev Numbers from here on are for what holders pass on: or any holder could take the number of an owner's order first.
    uint256 internal constant FIRST_ONWARD = 1 << (FINGERPRINT_BITS - 1);
    uint256 private constant MAX_FEE_BPS = 500; // prepare fee, of the price
    uint256 internal constant RANGE_ANSWER_TIME = 7 days;
    uint256 private constant RANGE_BOND_BPS = 1_000; // of the price
    uint64 internal constant NONCE_SPAN = 1 << 32;

    /// @dev One slot: opening reads it.
    struct Pause {
        uint40 until;
        uint40 from; // of the running or last pause
        uint40 periodStart;
        uint40 secondsBefore; // of all pauses before the running or last one
    }

    IModelNFT public immutable models;
    ILicenseNFT public immutable licenses;

    mapping(uint256 licenseId => OrderSlot) private _orders;
    mapping(uint256 licenseId => uint64 epoch) internal _rangeEpochs;
    mapping(address seller => mapping(bytes32 hash => bool)) internal _cancelled;
    mapping(address seller => uint64) internal _floors;
    mapping(address buyer => mapping(bytes32 requestHash => PrepareFee)) internal _fees;
    Pause internal _pause;

    constructor(address authority_, Peers memory peers)
        AccessManaged(authority_)
        VaultBase(peers)
        EIP712("ZhiYiChain LicenseEscrow", "1")
    {
        models = IModelNFT(peers.models);
        licenses = ILicenseNFT(peers.licenses);
    }

    /* VIEWS */

    /// @inheritdoc IEscrowBase
    function orderState(uint256 licenseId) public view returns (OrderState state, uint40 since, bytes26 hash) {
        uint256 slot = OrderSlot.unwrap(_orders[licenseId]);
        return (OrderState(uint8(slot)), uint40(slot >> 8), bytes26(uint208(slot >> 48)));
    }

    /// @inheritdoc IEscrowBase
    function orderHashOf(Order calldata order) public pure returns (bytes32) {
        return _hashOrder(saleHash(order.sale), _hashDelivery(order.delivery));
    }

    /// @inheritdoc IEscrowBase
    function saleHash(Sale calldata sale) public pure returns (bytes32) {
        uint256 start;
        assembly {
            start := sale
        }
        return _hashWords(SALE_TYPEHASH, start, SALE_WORDS);
    }

    /* END OF AN ORDER */

    /// @dev Nothing here can fail for a reason from outside: the id is fresh, no receiver is called, the peers are ours and only add.
    function _settle(Order calldata order, bytes32 orderHash) internal {
        Sale calldata sale = order.sale;
        Delivery calldata delivery = order.delivery;
        uint256 licenseId = delivery.licenseId;
        _setOrder(licenseId, OrderState.SETTLED, orderHash);
        _bonds[licenseId] = Bond(sale.bond, sale.price, 0, 0, _indexOf(sale.token));
        _freeDeposit(delivery.fingerprinter, delivery.deposit, 0);
        emit OrderSettled(licenseId, orderHash);
        LicenseRecord memory record =
            LicenseRecord(orderHash, delivery.copyRoot, delivery.markCommit, sale.termsHash, delivery.fingerprinter);
        licenses.issue(delivery.buyer, licenseId, sale.terms, record);
        uint256 toModel = sale.price;
        if (sale.basis != Basis.OWNER) {
            toModel = toModel * licenses.settleOnward(sale.source, licenseId, sale.basis == Basis.RESALE) / BPS;
            _bonds[licenseId].price = uint96(toModel); // a slash gives the owner back at most what he got
            _credit(sale.seller, sale.token, sale.price - toModel, orderHash);
        }
        _payRoyalty(_modelOf(licenseId), sale.token, uint128(toModel)); // at most the price
    }

    function _refund(Order calldata order, bytes32 orderHash, uint8 reason, uint128 penalty) internal {
        Delivery calldata delivery = order.delivery;
        uint256 paid = uint256(order.sale.price) + order.sale.bond;
        _setOrder(delivery.licenseId, OrderState.REFUNDED, orderHash);
        _freeDeposit(delivery.fingerprinter, delivery.deposit, penalty);
        emit OrderRefunded(delivery.licenseId, delivery.buyer, reason, paid, penalty);
        if (order.sale.token == NATIVE) {
            _balances[delivery.buyer][NATIVE] += paid + penalty;
        } else {
            _balances[delivery.buyer][order.sale.token] += paid;
            if (penalty != 0) _balances[delivery.buyer][NATIVE] += penalty;
        }
        if (order.sale.basis == Basis.RESALE) licenses.withdrawOnward(order.sale.source);
    }

    /* CHECKS */

    function _checkNotVoid(address seller, uint64 orderNonce, bytes32 hash) internal view {
        uint64 floor = _floors[seller];
        if (orderNonce < floor || orderNonce - floor >= NONCE_SPAN || _cancelled[seller][hash]) revert OrderVoid(hash);
    }

    function _checkOwner(address seller, ModelStatus memory status) internal pure {
        if (status.owner != seller) revert NotTheOwner(seller, status.owner);
    }

    /// @dev The request must be the buyer's, in this token, for this model and fingerprinter, and small beside the price.
    function _requestOf(Order calldata order) internal view returns (PrepareFee memory request) {
        Sale calldata sale = order.sale;
        request = _fees[order.delivery.buyer][sale.requestHash];
        if (
            request.fee == 0 || request.fingerprinter != order.delivery.fingerprinter
                || _tokenOf(request.tokenIndex) != sale.token || request.modelId != _modelOf(order.delivery.licenseId)
        ) revert RequestUnknown(sale.requestHash);
        uint256 max = sale.price * MAX_FEE_BPS / BPS;
        if (request.fee > max) revert FeeTooLarge(request.fee, max);
    }

    function _checkStored(uint256 licenseId, bytes32 orderHash, OrderState needed) internal view returns (uint256) {
        (OrderState state, uint40 since, bytes26 hash) = orderState(licenseId);
        if (state != needed) revert WrongState(licenseId, state, needed);
        if (hash != bytes26(orderHash)) revert WrongOrder(licenseId, orderHash);
        return since;
    }

    function _checkBuyer(Delivery calldata delivery) internal view {
        if (msg.sender != delivery.buyer) revert NotTheBuyer(msg.sender, delivery.buyer);
    }

    function _checkWindow(uint256 given, uint256 min, uint256 max) internal pure {
        if (given < min || given > max) revert WindowOutOfRange(given, min, max);
    }

    /// @dev A deadline's own second still counts.
    function _checkNotAfter(uint256 deadline) internal view {
        if (block.timestamp > deadline) revert TooLate(deadline);
    }

    function _checkAfter(uint256 deadline) internal view {
        if (block.timestamp <= deadline) revert TooEarly(deadline + 1);
    }

    /* INTERNAL */

    function _setOrder(uint256 licenseId, OrderState state, bytes32 orderHash) internal {
        _orders[licenseId] = OrderSlot.wrap(
            uint256(state) | (block.timestamp << 8) | (uint256(uint208(bytes26(orderHash))) << 48)
        );
    }

    function _takePayment(address token, uint256 amount) internal {
        uint256 native = token == NATIVE ? amount : 0;
        if (msg.value != native) revert PaymentMismatch(msg.value, native);
        if (token != NATIVE && amount != 0) _pullToken(token, amount);
    }

    function _pausedSeconds() internal view returns (uint40) {
        Pause memory pause = _pause;
        return pause.secondsBefore + uint40(Math.min(block.timestamp, pause.until)) - pause.from;
    }

    function _rangeBond(Sale calldata sale) internal pure returns (uint256) {
        return sale.price * RANGE_BOND_BPS / BPS;
    }

    function _modelOf(uint256 licenseId) internal pure returns (uint64) {
        return uint64(licenseId >> FINGERPRINT_BITS);
    }

    function _hashDelivery(Delivery calldata delivery) internal pure returns (bytes32) {
        uint256 start;
        assembly {
            start := delivery
        }
        return _hashWords(DELIVERY_TYPEHASH, start, DELIVERY_WORDS);
    }

    /// @dev EIP-712 struct hash of a calldata struct whose members are one word each: its calldata is encodeData. Saves 2,000 gas an
    /// order against abi.encode. Words are hashed as they came: whoever first hashes a struct reads every member that is smaller than
    /// a word, which refuses one too large for its type, and every later call must bring the hash that was stored then.
    function _hashWords(bytes32 typehash, uint256 start, uint256 words) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typehash)
            calldatacopy(add(free, 0x20), start, shl(5, words))
            hash := keccak256(free, shl(5, add(words, 1)))
        }
    }

    function _hashOrder(bytes32 saleHash_, bytes32 deliveryHash) internal pure returns (bytes32) {
        return keccak256(abi.encode(ORDER_TYPEHASH, saleHash_, deliveryHash));
    }
}
