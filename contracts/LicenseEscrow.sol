// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IIdentityRegistry} from "./interfaces/IIdentityRegistry.sol";
import {Delivery, ILicenseEscrow, Order, OrderState, PrepareFee, Sale} from "./interfaces/ILicenseEscrow.sol";
import {ILicenseNFT, LicenseRecord} from "./interfaces/ILicenseNFT.sol";
import {IModelNFT, ModelStatus, Review} from "./interfaces/IModelNFT.sol";
import {IOracleCommittee} from "./interfaces/IOracleCommittee.sol";
import {Bond} from "./interfaces/IVault.sol";
import {FairDelivery} from "./libraries/FairDelivery.sol";
import {LicenseTerms} from "./libraries/LicenseTerms.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {Vault} from "./Vault.sol";

/// @notice Who gets the order's money. Powers: ADMIN lists tokens; PAUSER stops opening within limits. Neither touches an order that
/// is open, and nobody can move money otherwise than the order's own rules say.
/// @dev Not upgradeable; peers are fixed at deployment.
contract LicenseEscrow is ILicenseEscrow, Vault, EIP712 {
    using Address for address;
    using LicenseTerms for uint96;

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
        "questHash,uint8 minTier,uint24 saleNonce,uint64 orderNonce,uint40 openBy,uint32 bondTail)"
    );
    bytes32 private constant ORDER_TYPEHASH = keccak256(
        "Order(Sale sale,Delivery delivery)"
        "Delivery(uint256 licenseId,address buyer,address fingerprinter,uint128 deposit,bytes32 copyRoot,byte"
        "s32 deliveryRoot,bytes32 keyCommit,bytes32 markCommit,uint64 totalBytes,uint32 chunks,uint16 chunkSi"
        "ze,uint8 suite,uint32 revealWindow,uint32 grace,uint32 complaintWindow)"
        "Sale(address seller,address token,uint96 price,uint96 bond,uint96 terms,bytes32 termsHash,bytes32 re"
        "questHash,uint8 minTier,uint24 saleNonce,uint64 orderNonce,uint40 openBy,uint32 bondTail)"
    );
    bytes32 private constant RANGE_VERDICT_TYPEHASH =
        keccak256("RangeVerdict(uint256 licenseId,bytes32 orderHash,bool upheld,uint64 epoch,uint40 deadline)");

    uint256 private constant SALE_WORDS = 12;
    uint256 private constant DELIVERY_WORDS = 15;

    uint256 private constant FINGERPRINT_BITS = 28;
    /// @dev Long enough for a fingerprinter to see a finalized open, short enough that the buyer's money is not a loan.
    uint256 private constant MIN_REVEAL_WINDOW = 1 hours;
    uint256 private constant MAX_REVEAL_WINDOW = 48 hours;
    /// @dev A reveal sent inside its window still counts if the chain was full for half an hour.
    uint256 private constant MIN_GRACE = 30 minutes;
    uint256 private constant MAX_GRACE = 1 days;
    uint256 private constant MIN_COMPLAINT_WINDOW = 1 days;
    uint256 private constant MAX_COMPLAINT_WINDOW = 14 days;
    /// @dev Leaks surface late.
    uint256 private constant MIN_BOND_TAIL = 90 days;
    uint256 private constant MAX_BOND_TAIL = 1825 days;
    uint256 private constant RANGE_ANSWER_TIME = 7 days;
    uint256 private constant RANGE_BOND_BPS = 1_000; // of the price
    uint256 private constant NO_REVEAL_BPS = 1_000; // of the deposit
    uint256 private constant MAX_FEE_BPS = 500; // prepare fee, of the price
    uint256 private constant MAX_REQUEST_TIME = 30 days;
    uint256 private constant MAX_PAUSE = 7 days;
    uint256 private constant PAUSE_PERIOD = 30 days;
    uint64 private constant NONCE_SPAN = 1 << 32;

    uint8 private constant NO_REVEAL = 1;
    uint8 private constant WRONG_CHUNK = 2;
    uint8 private constant RANGE_UPHELD = 3;
    uint8 private constant RANGE_UNANSWERED = 4;

    /// @dev One slot: opening reads it.
    struct Pause {
        uint40 until;
        uint40 from; // of the running or last pause
        uint40 periodStart;
        uint40 secondsBefore; // of all pauses before the running or last one
    }

    IModelNFT public immutable models;
    ILicenseNFT public immutable licenses;
    /// @notice address(0): no registry, so orders that ask for a tier cannot be opened.
    IIdentityRegistry public immutable identity;
    /// @notice Arithmetic of complaints; stateless, apart because it does not fit in here.
    address public immutable deliveryCheck;

    mapping(uint256 licenseId => OrderSlot) private _orders;
    mapping(uint256 licenseId => uint64 epoch) private _rangeEpochs;
    mapping(bytes32 orderHash => bool) private _cancelled;
    mapping(address seller => uint64) private _floors;
    mapping(address buyer => mapping(bytes32 requestHash => PrepareFee)) private _fees;
    Pause private _pause;

    constructor(
        address authority_,
        address models_,
        address licenses_,
        address royalties_,
        address committee_,
        address court_,
        address identity_,
        address deliveryCheck_,
        address treasury_,
        uint128 stakeReserve_
    )
        AccessManaged(authority_)
        Vault(committee_, court_, royalties_, treasury_, stakeReserve_)
        EIP712("ZhiYiChain LicenseEscrow", "1")
    {
        models = IModelNFT(models_);
        licenses = ILicenseNFT(licenses_);
        identity = IIdentityRegistry(identity_);
        deliveryCheck = deliveryCheck_;
    }

    /* PURCHASE */

    /// @inheritdoc ILicenseEscrow
    function open(Order calldata order, bytes calldata sellerSignature, bytes calldata fingerprinterSignature)
        external
        payable
        nonReentrant
    {
        _open(order, sellerSignature, fingerprinterSignature);
    }

    /// @inheritdoc ILicenseEscrow
    function openWithPermit(
        Order calldata order,
        bytes calldata sellerSignature,
        bytes calldata fingerprinterSignature,
        uint256 permitDeadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external nonReentrant {
        if (order.sale.token == NATIVE) revert TokenNotListed(NATIVE);
        _checkListed(order.sale.token);
        // A permit that somebody else already sent has done its work: what counts is the allowance when the token is pulled.
        try IERC20Permit(order.sale.token).permit(
            msg.sender, address(this), quoteOpen(order), permitDeadline, v, r, s
        ) {} catch {}
        _open(order, sellerSignature, fingerprinterSignature);
    }

    function _open(Order calldata order, bytes calldata sellerSignature, bytes calldata fingerprinterSignature) private {
        Sale calldata sale = order.sale;
        Delivery calldata delivery = order.delivery;
        bytes32 orderHash = orderHashOf(order);
        _checkOpening(order, orderHash);
        bytes32 digest = _hashTypedDataV4(orderHash);
        if (!Signatures.areValid(sale.seller, digest, sellerSignature)) revert BadSignature(sale.seller);
        if (!Signatures.areValid(delivery.fingerprinter, digest, fingerprinterSignature)) {
            revert BadSignature(delivery.fingerprinter);
        }

        uint256 due = quoteOpen(order);
        if (sale.requestHash != 0) {
            delete _fees[msg.sender][sale.requestHash];
            emit PrepareFeeCredited(sale.requestHash, orderHash, uint256(sale.price) + sale.bond - due);
        }
        _setOrder(delivery.licenseId, OrderState.OPEN, orderHash);
        _lockDeposit(delivery.fingerprinter, delivery.deposit);
        _emitOpened(order, delivery.licenseId, orderHash);
        _takePayment(sale.token, due);
    }

    /// @inheritdoc ILicenseEscrow
    function revealKey(bytes32 saleHash_, Delivery calldata delivery, bytes32 key) external {
        bytes32 orderHash = _hashOrder(saleHash_, _hashDelivery(delivery));
        uint256 openedAt = _checkStored(delivery.licenseId, orderHash, OrderState.OPEN);
        _checkNotAfter(openedAt + delivery.revealWindow + delivery.grace);
        _checkKey(delivery, key);
        _setOrder(delivery.licenseId, OrderState.REVEALED, orderHash);
        emit KeyRevealed(delivery.licenseId, key);
    }

    /// @inheritdoc ILicenseEscrow
    /// @dev The proof's last four parameters are read by the arithmetic contract alone.
    function complain(Order calldata order, bytes32 key, uint32 index, bytes calldata, bytes32, bytes32[] calldata) external {
        Delivery calldata delivery = order.delivery;
        bytes32 orderHash = orderHashOf(order);
        uint256 revealedAt = _checkStored(delivery.licenseId, orderHash, OrderState.REVEALED);
        _checkBuyer(delivery);
        _checkNotAfter(revealedAt + delivery.complaintWindow);
        _checkKey(delivery, key);
        // `complain` there has the same signature, so the calldata goes on as it came: 2,000 gas less than coding it anew.
        bool wrong = abi.decode(deliveryCheck.functionStaticCall(msg.data), (bool));
        if (!wrong) revert ChunkIsRight(delivery.licenseId, index);
        emit ChunkProvenWrong(delivery.licenseId, index);
        _refund(order, orderHash, WRONG_CHUNK, delivery.deposit);
    }

    /// @inheritdoc ILicenseEscrow
    function rangeClaim(Order calldata order) external payable nonReentrant {
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
        emit RangeClaimed(delivery.licenseId, msg.sender, bond, epoch);
        _takePayment(order.sale.token, bond);
    }

    /// @inheritdoc ILicenseEscrow
    function resolveRange(
        Order calldata order,
        bool upheld,
        uint64 epoch,
        uint40 deadline,
        address[] calldata signers,
        uint32 bitmap,
        bytes calldata signatures
    ) external {
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
            _refund(order, orderHash, RANGE_UPHELD, order.delivery.deposit);
            _credit(order.delivery.buyer, order.sale.token, bond, orderHash);
        } else {
            emit RangeClaimRejected(order.delivery.licenseId);
            _credit(treasury, order.sale.token, bond, orderHash);
            _settle(order, orderHash);
        }
    }

    /// @inheritdoc ILicenseEscrow
    function accept(Order calldata order) external {
        bytes32 orderHash = orderHashOf(order);
        _checkStored(order.delivery.licenseId, orderHash, OrderState.REVEALED);
        _checkBuyer(order.delivery);
        _settle(order, orderHash);
    }

    /// @inheritdoc ILicenseEscrow
    function settle(Order calldata order) external {
        bytes32 orderHash = orderHashOf(order);
        uint256 revealedAt = _checkStored(order.delivery.licenseId, orderHash, OrderState.REVEALED);
        _checkAfter(revealedAt + order.delivery.complaintWindow);
        _settle(order, orderHash);
    }

    /// @inheritdoc ILicenseEscrow
    function refund(Order calldata order) external {
        Delivery calldata delivery = order.delivery;
        bytes32 orderHash = orderHashOf(order);
        (OrderState state,,) = orderState(delivery.licenseId);
        if (state == OrderState.RANGE_CHECK) {
            _checkAfter(_checkStored(delivery.licenseId, orderHash, state) + RANGE_ANSWER_TIME);
            _refund(order, orderHash, RANGE_UNANSWERED, 0);
            _credit(delivery.buyer, order.sale.token, _rangeBond(order.sale), orderHash);
        } else {
            uint256 openedAt = _checkStored(delivery.licenseId, orderHash, OrderState.OPEN);
            _checkAfter(openedAt + delivery.revealWindow + delivery.grace);
            _refund(order, orderHash, NO_REVEAL, uint128(delivery.deposit * NO_REVEAL_BPS / BPS));
        }
    }

    /// @dev Nothing here can fail for a reason from outside: the id is fresh, no receiver is called, the peers are ours and only add.
    function _settle(Order calldata order, bytes32 orderHash) private {
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
        _payRoyalty(_modelOf(licenseId), sale.token, sale.price);
    }

    function _refund(Order calldata order, bytes32 orderHash, uint8 reason, uint128 penalty) private {
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
    }

    /* BEFORE THE PURCHASE */

    /// @inheritdoc ILicenseEscrow
    function payPrepareFee(bytes32 requestHash, address fingerprinter, address token, uint96 fee, uint40 by)
        external
        payable
        nonReentrant
    {
        if (fee == 0 || requestHash == 0) revert NothingToDo();
        _checkListed(token);
        _checkWindow(by, block.timestamp + 1, block.timestamp + MAX_REQUEST_TIME);
        if (_fees[msg.sender][requestHash].fee != 0) revert RequestTaken(requestHash);
        _fees[msg.sender][requestHash] = PrepareFee(fingerprinter, fee, by, _indexOf(token));
        emit CopyRequested(requestHash, msg.sender, fingerprinter, token, fee, by);
        _takePayment(token, fee);
    }

    /// @inheritdoc ILicenseEscrow
    function reclaimPrepareFee(bytes32 requestHash) external {
        PrepareFee memory request = _fees[msg.sender][requestHash];
        if (request.fee == 0) revert RequestUnknown(requestHash);
        _checkAfter(request.by);
        delete _fees[msg.sender][requestHash];
        emit PrepareFeeReclaimed(requestHash, msg.sender, request.fee);
        _credit(msg.sender, _tokenOf(request.tokenIndex), request.fee, requestHash);
    }

    /// @inheritdoc ILicenseEscrow
    function earnPrepareFee(Order calldata order, bytes calldata sellerSignature) external {
        Sale calldata sale = order.sale;
        Delivery calldata delivery = order.delivery;
        bytes32 orderHash = orderHashOf(order);
        PrepareFee memory request = _requestOf(order);
        _checkAfter(sale.openBy);
        _checkNotAfter(request.by);
        _checkNotVoid(sale, orderHash);
        address owner = models.statusOf(_modelOf(delivery.licenseId)).owner;
        if (owner != sale.seller) revert NotTheOwner(sale.seller, owner);
        if (!Signatures.areValid(sale.seller, _hashTypedDataV4(orderHash), sellerSignature)) revert BadSignature(sale.seller);
        delete _fees[delivery.buyer][sale.requestHash];
        emit PrepareFeeEarned(sale.requestHash, delivery.fingerprinter, request.fee);
        _credit(delivery.fingerprinter, sale.token, request.fee, sale.requestHash);
    }

    /// @inheritdoc ILicenseEscrow
    function cancel(Order calldata order) external {
        if (msg.sender != order.sale.seller) revert NotTheSeller(msg.sender, order.sale.seller);
        bytes32 orderHash = orderHashOf(order);
        _cancelled[orderHash] = true;
        emit OrderCancelled(msg.sender, orderHash);
    }

    /// @inheritdoc ILicenseEscrow
    function cancelAll() external {
        uint64 floor = _floors[msg.sender] + NONCE_SPAN;
        _floors[msg.sender] = floor;
        emit OrdersCancelledBelow(msg.sender, floor);
    }

    /* BOND */

    /// @inheritdoc ILicenseEscrow
    function requestBondRelease(uint256 licenseId) external {
        Bond storage bond = _bonds[licenseId];
        if (bond.amount == 0 || bond.releaseRequestedAt != 0) revert NothingToDo();
        if (!licenses.hasEnded(licenseId)) revert LicenseStillActive(licenseId);
        bond.releaseRequestedAt = uint40(block.timestamp) - pausedSeconds();
        emit BondReleaseRequested(licenseId, uint40(block.timestamp));
    }

    /// @inheritdoc ILicenseEscrow
    function releaseBond(Order calldata order) external {
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

    /// @inheritdoc ILicenseEscrow
    function pauseOpening(uint40 until) external restricted {
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

    /// @inheritdoc ILicenseEscrow
    function resumeOpening() external restricted {
        if (block.timestamp >= _pause.until) revert NotPaused();
        _pause.until = uint40(block.timestamp);
        emit OpeningResumed(msg.sender);
    }

    /* VIEWS */

    /// @inheritdoc ILicenseEscrow
    function orderState(uint256 licenseId) public view returns (OrderState state, uint40 since, bytes26 hash) {
        uint256 slot = OrderSlot.unwrap(_orders[licenseId]);
        return (OrderState(uint8(slot)), uint40(slot >> 8), bytes26(uint208(slot >> 48)));
    }

    /// @inheritdoc ILicenseEscrow
    function orderDigest(Order calldata order) external view returns (bytes32) {
        return _hashTypedDataV4(orderHashOf(order));
    }

    /// @inheritdoc ILicenseEscrow
    function orderHashOf(Order calldata order) public pure returns (bytes32) {
        return _hashOrder(saleHash(order.sale), _hashDelivery(order.delivery));
    }

    /// @inheritdoc ILicenseEscrow
    function saleHash(Sale calldata sale) public pure returns (bytes32) {
        uint256 start;
        assembly {
            start := sale
        }
        return _hashWords(SALE_TYPEHASH, start, SALE_WORDS);
    }

    /// @inheritdoc ILicenseEscrow
    function rangeVerdictDigest(uint256 licenseId, bytes32 orderHash, bool upheld, uint64 epoch, uint40 deadline)
        public
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(
            keccak256(abi.encode(RANGE_VERDICT_TYPEHASH, licenseId, orderHash, upheld, epoch, deadline))
        );
    }

    /// @inheritdoc ILicenseEscrow
    function quoteOpen(Order calldata order) public view returns (uint256 amount) {
        amount = uint256(order.sale.price) + order.sale.bond;
        if (order.sale.requestHash != 0) amount -= _requestOf(order).fee;
    }

    /// @inheritdoc ILicenseEscrow
    function checkOrder(Order calldata order) external view {
        bytes32 orderHash = orderHashOf(order);
        (,, bytes26 hash) = orderState(order.delivery.licenseId);
        if (hash != bytes26(orderHash)) revert WrongOrder(order.delivery.licenseId, orderHash);
    }

    /// @inheritdoc ILicenseEscrow
    function orderFloor(address seller) external view returns (uint64) {
        return _floors[seller];
    }

    /// @inheritdoc ILicenseEscrow
    function prepareFeeOf(address buyer, bytes32 requestHash) external view returns (PrepareFee memory) {
        return _fees[buyer][requestHash];
    }

    /// @inheritdoc ILicenseEscrow
    function rangeClaimEpoch(uint256 licenseId) external view returns (uint64) {
        return _rangeEpochs[licenseId];
    }

    /// @inheritdoc ILicenseEscrow
    function pausedSeconds() public view returns (uint40) {
        Pause memory pause = _pause;
        return pause.secondsBefore + uint40(Math.min(block.timestamp, pause.until)) - pause.from;
    }

    /* CHECKS */

    function _checkOpening(Order calldata order, bytes32 orderHash) private view {
        Sale calldata sale = order.sale;
        Delivery calldata delivery = order.delivery;
        if (block.timestamp < _pause.until) revert OpeningIsPaused(_pause.until);
        _checkBuyer(delivery);
        if (block.timestamp > sale.openBy) revert OrderExpired(sale.openBy);
        (OrderState state,,) = orderState(delivery.licenseId);
        if (state != OrderState.NONE) revert WrongState(delivery.licenseId, state, OrderState.NONE);
        _checkTerms(order);
        if (sale.terms.hasExpired(block.timestamp)) revert TermsExpired(sale.terms.expiry());
        _checkListed(sale.token);
        _checkModel(sale, _modelOf(delivery.licenseId));
        _checkNotVoid(sale, orderHash);
        if (sale.minTier != 0) {
            uint8 tier = address(identity) == address(0) ? 0 : identity.tierOf(msg.sender);
            if (tier < sale.minTier) revert IdentityTooLow(tier, sale.minTier);
        }
    }

    /// @dev What the order itself must say, whatever the time and the state of the chain.
    function _checkTerms(Order calldata order) private pure {
        Sale calldata sale = order.sale;
        Delivery calldata delivery = order.delivery;
        uint256 licenseId = delivery.licenseId;
        if (licenseId >> (64 + FINGERPRINT_BITS) != 0 || licenseId & ((1 << FINGERPRINT_BITS) - 1) == 0) {
            revert NotALicenseId(licenseId);
        }
        if (delivery.fingerprinter == sale.seller || delivery.fingerprinter == delivery.buyer) {
            revert NotNeutral(delivery.fingerprinter);
        }
        if (!sale.terms.isWellFormed()) revert TermsMalformed(sale.terms);
        _checkWindow(delivery.revealWindow, MIN_REVEAL_WINDOW, MAX_REVEAL_WINDOW);
        _checkWindow(delivery.grace, MIN_GRACE, MAX_GRACE);
        _checkWindow(delivery.complaintWindow, MIN_COMPLAINT_WINDOW, MAX_COMPLAINT_WINDOW);
        _checkWindow(sale.bondTail, MIN_BOND_TAIL, MAX_BOND_TAIL);
        if (sale.token == NATIVE && delivery.deposit < sale.price) revert DepositTooSmall(delivery.deposit, sale.price);
        _checkFigures(delivery);
    }

    /// @dev What makes every complaint decidable. Each file of a bundle starts a new chunk, so there may be more chunks than
    /// totalBytes / chunkSize, never fewer.
    function _checkFigures(Delivery calldata delivery) private pure {
        if (
            delivery.suite != FairDelivery.SUITE_CHACHA20 || delivery.chunkSize > FairDelivery.MAX_CHUNK_SIZE
                || delivery.chunkSize % 64 != 0 || delivery.chunks > delivery.totalBytes || delivery.totalBytes == 0
                || uint256(delivery.chunks) * delivery.chunkSize < delivery.totalBytes
        ) revert BadFigures(delivery.totalBytes, delivery.chunks, delivery.chunkSize, delivery.suite);
    }

    function _checkModel(Sale calldata sale, uint64 modelId) private view {
        ModelStatus memory status = models.statusOf(modelId);
        if (status.owner != sale.seller) revert NotTheOwner(sale.seller, status.owner);
        if (status.saleNonce != sale.saleNonce) revert SaleNonceStale(sale.saleNonce, status.saleNonce);
        if (status.review != Review.APPROVED || status.delisted) revert ModelNotOffered(modelId);
        if (block.timestamp < status.frozenUntil) revert ModelFrozen(modelId, status.frozenUntil);
        if (sale.terms.areRefused(status.preferences)) revert UseNotAllowed(sale.terms.useMask(), status.preferences);
    }

    function _checkNotVoid(Sale calldata sale, bytes32 orderHash) private view {
        uint64 floor = _floors[sale.seller];
        if (sale.orderNonce < floor || sale.orderNonce - floor >= NONCE_SPAN || _cancelled[orderHash]) {
            revert OrderVoid(orderHash);
        }
    }

    /// @dev The request must be the buyer's, in this token, for this fingerprinter, and small beside the price.
    function _requestOf(Order calldata order) private view returns (PrepareFee memory request) {
        Sale calldata sale = order.sale;
        request = _fees[order.delivery.buyer][sale.requestHash];
        if (
            request.fee == 0 || request.fingerprinter != order.delivery.fingerprinter
                || _tokenOf(request.tokenIndex) != sale.token
        ) revert RequestUnknown(sale.requestHash);
        uint256 max = sale.price * MAX_FEE_BPS / BPS;
        if (request.fee > max) revert FeeTooLarge(request.fee, max);
    }

    function _checkStored(uint256 licenseId, bytes32 orderHash, OrderState needed) private view returns (uint256) {
        (OrderState state, uint40 since, bytes26 hash) = orderState(licenseId);
        if (state != needed) revert WrongState(licenseId, state, needed);
        if (hash != bytes26(orderHash)) revert WrongOrder(licenseId, orderHash);
        return since;
    }

    function _checkBuyer(Delivery calldata delivery) private view {
        if (msg.sender != delivery.buyer) revert NotTheBuyer(msg.sender, delivery.buyer);
    }

    function _checkKey(Delivery calldata delivery, bytes32 key) private pure {
        bytes32 keyCommit = keccak256(abi.encode(key, delivery.licenseId, delivery.buyer));
        if (keyCommit != delivery.keyCommit) revert WrongKey(keyCommit, delivery.keyCommit);
    }

    function _checkWindow(uint256 given, uint256 min, uint256 max) private pure {
        if (given < min || given > max) revert WindowOutOfRange(given, min, max);
    }

    /// @dev A deadline's own second still counts.
    function _checkNotAfter(uint256 deadline) private view {
        if (block.timestamp > deadline) revert TooLate(deadline);
    }

    function _checkAfter(uint256 deadline) private view {
        if (block.timestamp <= deadline) revert TooEarly(deadline + 1);
    }

    /* INTERNAL */

    function _setOrder(uint256 licenseId, OrderState state, bytes32 orderHash) private {
        _orders[licenseId] = OrderSlot.wrap(
            uint256(state) | (block.timestamp << 8) | (uint256(uint208(bytes26(orderHash))) << 48)
        );
    }

    function _takePayment(address token, uint256 amount) private {
        uint256 native = token == NATIVE ? amount : 0;
        if (msg.value != native) revert PaymentMismatch(msg.value, native);
        if (token != NATIVE && amount != 0) _pullToken(token, amount);
    }

    function _rangeBond(Sale calldata sale) private pure returns (uint256) {
        return sale.price * RANGE_BOND_BPS / BPS;
    }

    function _modelOf(uint256 licenseId) private pure returns (uint64) {
        return uint64(licenseId >> FINGERPRINT_BITS);
    }

    function _hashDelivery(Delivery calldata delivery) private pure returns (bytes32) {
        uint256 start;
        assembly {
            start := delivery
        }
        return _hashWords(DELIVERY_TYPEHASH, start, DELIVERY_WORDS);
    }

    /// @dev emit OrderOpened(licenseId, msg.sender, orderHash, order): the order's calldata is its ABI coding, checked member by member
    /// before. Saves 1,500 gas and 1 kB of code against coding it anew.
    function _emitOpened(Order calldata order, uint256 licenseId, bytes32 orderHash) private {
        bytes32 topic = OrderOpened.selector;
        assembly ("memory-safe") {
            let free := mload(0x40)
            calldatacopy(free, order, shl(5, add(SALE_WORDS, DELIVERY_WORDS)))
            log4(free, shl(5, add(SALE_WORDS, DELIVERY_WORDS)), topic, licenseId, caller(), orderHash)
        }
    }

    /// @dev EIP-712 struct hash of a calldata struct whose members are one word each: its calldata is encodeData. Saves 2,000 gas an
    /// order against abi.encode. Words are hashed as they came: `open` reads every member that is smaller than a word, which refuses
    /// one too large for its type, and every later call must bring the hash that was stored then.
    function _hashWords(bytes32 typehash, uint256 start, uint256 words) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typehash)
            calldatacopy(add(free, 0x20), start, shl(5, words))
            hash := keccak256(free, shl(5, add(words, 1)))
        }
    }

    function _hashOrder(bytes32 saleHash_, bytes32 deliveryHash) private pure returns (bytes32) {
        return keccak256(abi.encode(ORDER_TYPEHASH, saleHash_, deliveryHash));
    }
}
