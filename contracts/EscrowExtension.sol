// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Basis, Delivery, ModelSale, Order, OrderState, PrepareFee, Renewal, Sale} from "./interfaces/IEscrowBase.sol";
import {IEscrowExtension} from "./interfaces/IEscrowExtension.sol";
import {ModelStatus, Review, RoyaltyTerms} from "./interfaces/IModelNFT.sol";
import {IOracleCommittee} from "./interfaces/IOracleCommittee.sol";
import {IRoyaltyLedger} from "./interfaces/IRoyaltyLedger.sol";
import {Bond} from "./interfaces/IVault.sol";
import {LicenseTerms} from "./libraries/LicenseTerms.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {EscrowBase} from "./EscrowBase.sol";
import {Peers} from "./VaultBase.sol";

/// @notice The other half of LicenseEscrow: range claims, prepare fees, cancelling, renewals, sales of model tokens, the end of a bond,
/// pauses. Runs by delegatecall on the escrow's storage; called directly it refuses, and holds nothing.
contract EscrowExtension is IEscrowExtension, EscrowBase {
    using LicenseTerms for uint96;

    bytes32 private constant RANGE_VERDICT_TYPEHASH =
        keccak256("RangeVerdict(uint256 licenseId,bytes32 orderHash,bool upheld,uint64 epoch,uint40 deadline)");
    bytes32 private constant RENEWAL_TYPEHASH = keccak256(
        "Renewal(uint256 licenseId,address seller,address token,uint96 price,uint40 expiry,uint24 saleNonce,uint64 orderNonce,uint40 openBy)"
    );
    bytes32 private constant MODEL_SALE_TYPEHASH = keccak256(
        "ModelSale(uint64 modelId,address seller,address buyer,address token,uint96 price,bytes32 termsHash,uint24 saleNonce,uint64 orderNonce,uint40 openBy)"
    );

    uint256 private constant MAX_REQUEST_TIME = 30 days;
    /// @dev A prepare fee is earned by a copy that the buyer could have opened for a day.
    uint256 private constant MIN_FEE_TIME = 1 days;
    uint256 private constant MAX_PAUSE = 7 days;
    uint256 private constant PAUSE_PERIOD = 30 days;

    uint8 private constant RANGE_UPHELD = 3;

    address private immutable SELF = address(this);

    /// @dev On every function that writes: on this contract's own storage money would be stranded.
    modifier throughEscrow() {
        if (address(this) == SELF) revert OnlyThroughEscrow();
        _;
    }

    constructor(address authority_, Peers memory peers) EscrowBase(authority_, peers) {}

    /* RANGE CLAIMS */

    /// @inheritdoc IEscrowExtension
    function rangeClaim(Order calldata order, bytes32 evidenceDigest) external payable throughEscrow nonReentrant {
        Delivery calldata delivery = order.delivery;
        bytes32 orderHash = orderHashOf(order);
        uint256 revealedAt = _checkStored(delivery.licenseId, orderHash, OrderState.REVEALED);
        _checkBuyer(delivery);
        _checkNotAfter(revealedAt + delivery.complaintWindow);
        uint64 epoch = IOracleCommittee(committee).currentEpoch();
        if (epoch == 0) revert NoCommittee();
        _rangeEpochs[delivery.licenseId] = epoch;
        _setOrder(delivery.licenseId, OrderState.RANGE_CHECK, orderHash);
        uint256 bond = _rangeBond(order.sale);
        emit RangeClaimed(delivery.licenseId, msg.sender, bond, epoch, evidenceDigest);
        _takePayment(order.sale.token, bond);
    }

    /// @inheritdoc IEscrowExtension
    function resolveRange(
        Order calldata order,
        bool upheld,
        uint64 epoch,
        uint40 deadline,
        address[] calldata signers,
        uint32 bitmap,
        bytes calldata signatures
    ) external throughEscrow {
        bytes32 orderHash = _checkAnswer(order, epoch, deadline);
        bytes32 digest = rangeVerdictDigest(order.delivery.licenseId, orderHash, upheld, epoch, deadline);
        IOracleCommittee(committee).verify(epoch, digest, signers, bitmap, signatures); // reverts unless k of n signed
        _resolve(order, orderHash, upheld);
    }

    function _checkAnswer(Order calldata order, uint64 epoch, uint40 deadline) private view returns (bytes32 orderHash) {
        uint256 licenseId = order.delivery.licenseId;
        orderHash = orderHashOf(order);
        uint256 claimedAt = _checkStored(licenseId, orderHash, OrderState.RANGE_CHECK);
        _checkNotAfter(Math.min(claimedAt + RANGE_ANSWER_TIME, deadline));
        if (epoch != _rangeEpochs[licenseId]) revert WrongEpoch(epoch, _rangeEpochs[licenseId]);
    }

    function _resolve(Order calldata order, bytes32 orderHash, bool upheld) private {
        uint256 bond = _rangeBond(order.sale);
        if (upheld) {
            _credit(order.delivery.buyer, order.sale.token, bond, orderHash);
            _refund(order, orderHash, RANGE_UPHELD, order.delivery.deposit);
        } else {
            emit RangeClaimRejected(order.delivery.licenseId);
            _credit(treasury, order.sale.token, bond, orderHash);
            _settle(order, orderHash);
        }
    }

    /* BEFORE THE PURCHASE */

    /// @inheritdoc IEscrowExtension
    function payPrepareFee(
        bytes32 requestHash, uint64 modelId, address fingerprinter, address token, uint96 fee, uint40 by
    ) external payable throughEscrow nonReentrant {
        if (fee == 0 || requestHash == 0) revert NothingToDo();
        _checkListed(token);
        _checkWindow(by, block.timestamp + 1, block.timestamp + MAX_REQUEST_TIME);
        if (_fees[msg.sender][requestHash].fee != 0) revert RequestTaken(requestHash);
        _fees[msg.sender][requestHash] =
            PrepareFee(fingerprinter, fee, by, _indexOf(token), modelId, uint40(block.timestamp));
        emit CopyRequested(requestHash, msg.sender, fingerprinter, modelId, token, fee, by);
        _takePayment(token, fee);
    }

    /// @inheritdoc IEscrowExtension
    function reclaimPrepareFee(bytes32 requestHash) external throughEscrow {
        PrepareFee memory request = _fees[msg.sender][requestHash];
        if (request.fee == 0) revert RequestUnknown(requestHash);
        _checkAfter(request.by);
        delete _fees[msg.sender][requestHash];
        emit PrepareFeeReclaimed(requestHash, msg.sender, request.fee);
        _credit(msg.sender, _tokenOf(request.tokenIndex), request.fee, requestHash);
    }

    /// @inheritdoc IEscrowExtension
    function earnPrepareFee(Order calldata order, bytes calldata sellerSignature) external throughEscrow {
        Sale calldata sale = order.sale;
        Delivery calldata delivery = order.delivery;
        bytes32 orderHash = orderHashOf(order);
        PrepareFee memory request = _requestOf(order);
        _checkAfter(Math.max(sale.openBy, request.paidAt + MIN_FEE_TIME));
        _checkNotAfter(request.by);
        _checkNotVoid(sale.seller, sale.orderNonce, orderHash);
        _checkMaySell(order, request.modelId);
        if (!Signatures.areValid(sale.seller, _hashTypedDataV4(orderHash), sellerSignature)) revert BadSignature(sale.seller);
        delete _fees[delivery.buyer][sale.requestHash];
        emit PrepareFeeEarned(sale.requestHash, delivery.fingerprinter, request.fee);
        _credit(delivery.fingerprinter, sale.token, request.fee, sale.requestHash);
    }

    /// @dev As for opening, as far as it is a matter of who sells: a fee must not be earned by whoever ever held a license.
    function _checkMaySell(Order calldata order, uint64 modelId) private view {
        Sale calldata sale = order.sale;
        address fingerprinter = order.delivery.fingerprinter;
        address owner = models.statusOf(modelId).owner;
        if (fingerprinter == owner || fingerprinter == sale.seller || fingerprinter == order.delivery.buyer) {
            revert NotNeutral(fingerprinter);
        }
        if (sale.basis == Basis.OWNER) {
            if (owner != sale.seller) revert NotTheOwner(sale.seller, owner);
            return;
        }
        uint8 right = sale.basis == Basis.RESALE ? LicenseTerms.RESALE : LicenseTerms.SUBLICENSE;
        if (_modelOf(sale.source) != modelId || !licenses.isActive(sale.source) || !licenses.termsOf(sale.source).has(right)) {
            revert SourceMismatch(sale.source, modelId);
        }
        address holder = IERC721(address(licenses)).ownerOf(sale.source);
        if (holder != sale.seller) revert NotTheOwner(sale.seller, holder);
    }

    /// @inheritdoc IEscrowExtension
    function cancel(bytes32 hash) external throughEscrow {
        _cancelled[msg.sender][hash] = true;
        emit OrderCancelled(msg.sender, hash);
    }

    /// @inheritdoc IEscrowExtension
    function cancelAll() external throughEscrow {
        uint64 floor = _floors[msg.sender] + NONCE_SPAN;
        _floors[msg.sender] = floor;
        emit OrdersCancelledBelow(msg.sender, floor);
    }

    /* SALES WITHOUT DELIVERY */

    /// @inheritdoc IEscrowExtension
    function renew(Renewal calldata renewal, bytes calldata sellerSignature) external payable throughEscrow nonReentrant {
        uint64 modelId = _modelOf(renewal.licenseId);
        bytes32 hash = renewalHash(renewal);
        _checkNotAfter(renewal.openBy);
        _checkListed(renewal.token);
        _checkSeller(modelId, renewal.seller, renewal.saleNonce, renewal.orderNonce, hash, sellerSignature);
        emit LicenseRenewed(renewal.licenseId, msg.sender, renewal.token, renewal.price, renewal.expiry);
        licenses.renew(renewal.licenseId, msg.sender, renewal.expiry);
        _payRoyalty(modelId, renewal.token, renewal.price);
        _takePayment(renewal.token, renewal.price);
    }

    /// @inheritdoc IEscrowExtension
    function buyModel(ModelSale calldata sale, RoyaltyTerms calldata terms, bytes calldata sellerSignature)
        external
        payable
        throughEscrow
        nonReentrant
    {
        bytes32 hash = modelSaleHash(sale);
        _checkNotAfter(sale.openBy);
        _checkListed(sale.token);
        if (sale.buyer != address(0) && msg.sender != sale.buyer) revert NotTheBuyer(msg.sender, sale.buyer);
        ModelStatus memory status =
            _checkSeller(sale.modelId, sale.seller, sale.saleNonce, sale.orderNonce, hash, sellerSignature);
        // Or the seller could add a version in front of the purchase, and the buyer could sell no license until its review.
        if (status.review != Review.APPROVED) revert ModelNotOffered(sale.modelId);
        emit ModelSold(sale.modelId, sale.seller, msg.sender, sale.token, sale.price, sale.termsHash);
        _payRoyalty(sale.modelId, sale.token, sale.price);
        // Before the token moves: what the owner has not pulled is the seller's.
        IRoyaltyLedger(royalties).settleOwner(sale.modelId, sale.token, terms);
        IERC721(address(models)).transferFrom(sale.seller, msg.sender, sale.modelId);
        _takePayment(sale.token, sale.price);
    }

    function _checkSeller(
        uint64 modelId, address seller, uint24 saleNonce, uint64 orderNonce, bytes32 hash, bytes calldata signature
    ) private view returns (ModelStatus memory status) {
        status = models.statusOf(modelId);
        _checkOwner(seller, status);
        if (status.saleNonce != saleNonce) revert SaleNonceStale(saleNonce, status.saleNonce);
        if (block.timestamp < status.frozenUntil) revert ModelFrozen(modelId, status.frozenUntil);
        _checkNotVoid(seller, orderNonce, hash);
        if (!Signatures.areValid(seller, _hashTypedDataV4(hash), signature)) revert BadSignature(seller);
    }

    /* BOND */

    /// @inheritdoc IEscrowExtension
    function requestBondRelease(uint256 licenseId) external throughEscrow {
        Bond storage bond = _bonds[licenseId];
        if (bond.amount == 0 || bond.releaseRequestedAt != 0) revert NothingToDo();
        if (!licenses.hasEnded(licenseId)) revert LicenseStillActive(licenseId);
        bond.releaseRequestedAt = uint40(block.timestamp) - pausedSeconds();
        emit BondReleaseRequested(licenseId, uint40(block.timestamp));
    }

    /// @inheritdoc IEscrowExtension
    function releaseBond(Order calldata order) external throughEscrow {
        uint256 licenseId = order.delivery.licenseId;
        bytes32 orderHash = orderHashOf(order);
        _checkStored(licenseId, orderHash, OrderState.SETTLED);
        Bond memory bond = _bonds[licenseId];
        if (bond.amount == 0) revert NothingToDo();
        if (bond.releaseRequestedAt == 0) revert ReleaseNotRequested(licenseId);
        uint256 notBefore = uint256(bond.releaseRequestedAt) + order.sale.bondTail + pausedSeconds();
        if (bond.openCases != 0 || block.timestamp < notBefore) revert BondHeld(licenseId, bond.openCases, notBefore);
        delete _bonds[licenseId];
        emit BondReleased(licenseId, order.delivery.buyer, bond.amount);
        _credit(order.delivery.buyer, order.sale.token, bond.amount, orderHash);
    }

    /* PAUSER */

    /// @inheritdoc IEscrowExtension
    function pauseOpening(uint40 until) external throughEscrow restricted {
        Pause memory pause = _pause;
        if (block.timestamp >= pause.periodStart + PAUSE_PERIOD) pause.periodStart = uint40(block.timestamp);
        uint256 max = pause.periodStart + MAX_PAUSE;
        if (until <= block.timestamp || until > max) revert PauseTooLong(until, uint40(max));
        pause.secondsBefore = pausedSeconds();
        pause.from = uint40(block.timestamp);
        pause.until = until;
        _pause = pause;
        emit OpeningPaused(msg.sender, until);
    }

    /// @inheritdoc IEscrowExtension
    function resumeOpening() external throughEscrow restricted {
        if (block.timestamp >= _pause.until) revert NotPaused();
        _pause.until = uint40(block.timestamp);
        emit OpeningResumed(msg.sender);
    }

    /* VIEWS */

    /// @inheritdoc IEscrowExtension
    function orderDigest(Order calldata order) external view returns (bytes32) {
        return _hashTypedDataV4(orderHashOf(order));
    }

    /// @inheritdoc IEscrowExtension
    function renewalHash(Renewal calldata renewal) public pure returns (bytes32) {
        return keccak256(abi.encode(RENEWAL_TYPEHASH, renewal));
    }

    /// @inheritdoc IEscrowExtension
    function modelSaleHash(ModelSale calldata sale) public pure returns (bytes32) {
        return keccak256(abi.encode(MODEL_SALE_TYPEHASH, sale));
    }

    /// @inheritdoc IEscrowExtension
    function rangeVerdictDigest(uint256 licenseId, bytes32 orderHash, bool upheld, uint64 epoch, uint40 deadline)
        public
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(
            keccak256(abi.encode(RANGE_VERDICT_TYPEHASH, licenseId, orderHash, upheld, epoch, deadline))
        );
    }

    /// @inheritdoc IEscrowExtension
    function checkOrder(Order calldata order) external view {
        bytes32 orderHash = orderHashOf(order);
        (,, bytes26 hash) = orderState(order.delivery.licenseId);
        if (hash != bytes26(orderHash)) revert WrongOrder(order.delivery.licenseId, orderHash);
    }

    /// @inheritdoc IEscrowExtension
    function orderFloor(address seller) external view returns (uint64) {
        return _floors[seller];
    }

    /// @inheritdoc IEscrowExtension
    function prepareFeeOf(address buyer, bytes32 requestHash) external view returns (PrepareFee memory) {
        return _fees[buyer][requestHash];
    }

    /// @inheritdoc IEscrowExtension
    function rangeClaimEpoch(uint256 licenseId) external view returns (uint64) {
        return _rangeEpochs[licenseId];
    }

    /// @inheritdoc IEscrowExtension
    function pausedSeconds() public view returns (uint40) {
        return _pausedSeconds();
    }
}
