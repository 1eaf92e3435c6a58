// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {IIdentityRegistry} from "./interfaces/IIdentityRegistry.sol";
import {Basis, Delivery, Order, OrderState, Sale} from "./interfaces/IEscrowBase.sol";
import {ILicenseEscrow} from "./interfaces/ILicenseEscrow.sol";
import {ModelStatus, Review} from "./interfaces/IModelNFT.sol";
import {Bond} from "./interfaces/IVault.sol";
import {FairDelivery} from "./libraries/FairDelivery.sol";
import {LicenseTerms} from "./libraries/LicenseTerms.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {EscrowBase} from "./EscrowBase.sol";
import {Vault} from "./Vault.sol";
import {Peers} from "./VaultBase.sol";

/// @notice Who gets the order's money. Powers: STEWARD lists tokens; PAUSER stops opening within limits. Neither touches an order that
/// is open, and nobody can move money otherwise than the order's own rules say.
/// @dev Not upgradeable; peers are fixed at deployment. What is not in here lies in the extension, also fixed, whose code runs on this
/// contract's storage: one contract in two halves, because of the limit on a contract's size. The ABI of both is IEscrow.
contract LicenseEscrow is ILicenseEscrow, EscrowBase, Vault {
    using Address for address;
    using LicenseTerms for uint96;

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
    uint256 private constant NO_REVEAL_BPS = 1_000; // of the deposit

    uint8 private constant NO_REVEAL = 1;
    uint8 private constant WRONG_CHUNK = 2;
    uint8 private constant RANGE_UNANSWERED = 4;

    IIdentityRegistry public immutable identity;
    /// @notice Arithmetic of complaints; stateless, apart because it does not fit in here.
    address public immutable deliveryCheck;
    /// @notice The other half of this contract.
    address public immutable extension;

    constructor(address authority_, Peers memory peers, address extension_) EscrowBase(authority_, peers) {
        identity = IIdentityRegistry(peers.identity);
        deliveryCheck = peers.deliveryCheck;
        extension = extension_;
    }

    /// @dev Every selector that is not here runs in the extension, on this storage, with this caller and value.
    fallback() external payable {
        address target = extension;
        // Memory-safe, or the optimizer works on the whole contract as if any memory could change: 4,700 gas in `open`.
        assembly ("memory-safe") {
            let free := mload(0x40)
            calldatacopy(free, 0, calldatasize())
            let done := delegatecall(gas(), target, free, calldatasize(), 0, 0)
            returndatacopy(free, 0, returndatasize())
            if iszero(done) { revert(free, returndatasize()) }
            return(free, returndatasize())
        }
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
        if (sale.basis != Basis.OWNER) _offerOnward(sale);
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
            _credit(delivery.buyer, order.sale.token, _rangeBond(order.sale), orderHash);
            _refund(order, orderHash, RANGE_UNANSWERED, 0);
        } else {
            uint256 openedAt = _checkStored(delivery.licenseId, orderHash, OrderState.OPEN);
            _checkAfter(openedAt + delivery.revealWindow + delivery.grace);
            _refund(order, orderHash, NO_REVEAL, uint128(delivery.deposit * NO_REVEAL_BPS / BPS));
        }
    }

    /* VIEWS */

    /// @inheritdoc ILicenseEscrow
    function quoteOpen(Order calldata order) public view returns (uint256 amount) {
        amount = uint256(order.sale.price) + order.sale.bond;
        if (order.sale.requestHash != 0) amount -= _requestOf(order).fee;
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
        _checkModel(sale, delivery);
        _checkNotVoid(sale.seller, sale.orderNonce, orderHash);
        uint8 minTier = sale.terms.minTier();
        if (minTier != 0) {
            uint8 tier = identity.tierOf(msg.sender);
            if (tier < minTier) revert IdentityTooLow(tier, minTier);
        }
    }

    /// @dev What the order itself must say, whatever the time and the state of the chain.
    function _checkTerms(Order calldata order) private pure {
        Sale calldata sale = order.sale;
        Delivery calldata delivery = order.delivery;
        uint256 licenseId = delivery.licenseId;
        uint256 number = licenseId & ((1 << FINGERPRINT_BITS) - 1);
        if (licenseId >> (64 + FINGERPRINT_BITS) != 0 || number == 0 || number >= FIRST_ONWARD != (sale.basis != Basis.OWNER)) {
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

    /// @dev What the owner decides later (a version that waits for its review, preferences) stops his own sales, not those of his licensees.
    function _checkModel(Sale calldata sale, Delivery calldata delivery) private view {
        uint64 modelId = _modelOf(delivery.licenseId);
        ModelStatus memory status = models.statusOf(modelId);
        if (sale.basis == Basis.OWNER) {
            _checkOwner(sale.seller, status);
            if (status.saleNonce != sale.saleNonce) revert SaleNonceStale(sale.saleNonce, status.saleNonce);
            if (sale.source != 0) revert SourceMismatch(sale.source, modelId);
            if (status.review != Review.APPROVED) revert ModelNotOffered(modelId);
            if (sale.terms.areRefused(status.preferences)) revert UseNotAllowed(sale.terms.useMask(), status.preferences);
        } else {
            if (_modelOf(sale.source) != modelId) revert SourceMismatch(sale.source, modelId);
            if (sale.saleNonce != 0) revert SaleNonceStale(sale.saleNonce, 0);
            if (delivery.fingerprinter == status.owner) revert NotNeutral(delivery.fingerprinter);
        }
        if (status.delisted) revert ModelNotOffered(modelId);
        if (block.timestamp < status.frozenUntil) revert ModelFrozen(modelId, status.frozenUntil);
    }

    /// @dev Passing a license on must not shed the bond: the new one carries at least what is left of the old, in the same token. The
    /// license token checks the holder, his rights and that the new terms stay within them.
    function _offerOnward(Sale calldata sale) private {
        Bond memory bond = _bonds[sale.source];
        if (bond.openCases != 0) revert BondHeld(sale.source, bond.openCases, 0);
        if (sale.bond < bond.amount || (bond.amount != 0 && _tokenOf(bond.tokenIndex) != sale.token)) {
            revert BondTooSmall(sale.source, sale.bond, bond.amount);
        }
        licenses.offerOnward(sale.source, sale.seller, sale.terms, sale.basis == Basis.RESALE);
    }

    function _checkKey(Delivery calldata delivery, bytes32 key) private pure {
        bytes32 keyCommit = keccak256(abi.encode(key, delivery.licenseId, delivery.buyer));
        if (keyCommit != delivery.keyCommit) revert WrongKey(keyCommit, delivery.keyCommit);
    }

    /* INTERNAL */

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
}
