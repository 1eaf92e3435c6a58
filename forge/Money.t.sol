// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessManager} from "@openzeppelin/contracts/access/manager/AccessManager.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {EscrowExtension} from "../contracts/EscrowExtension.sol";
import {IEscrow} from "../contracts/interfaces/IEscrow.sol";
import {Basis, Delivery, Order, OrderState, Sale} from "../contracts/interfaces/IEscrowBase.sol";
import {ModelRecord, ParentProof, Review, Split} from "../contracts/interfaces/IModelNFT.sol";
import {IRoyaltyLedger, RoyaltyTerms} from "../contracts/interfaces/IRoyaltyLedger.sol";
import {Bond, Stake} from "../contracts/interfaces/IVault.sol";
import {LicenseEscrow} from "../contracts/LicenseEscrow.sol";
import {LicenseNFT} from "../contracts/LicenseNFT.sol";
import {ModelNFT} from "../contracts/ModelNFT.sol";
import {RoyaltyLedger} from "../contracts/RoyaltyLedger.sol";
import {Peers} from "../contracts/VaultBase.sol";
import {vm} from "./Vm.sol";

contract Coin is ERC20("Coin", "COIN") {
    constructor(address holder) {
        _mint(holder, type(uint96).max);
    }
}

/// @notice Everybody who may touch the vault, with what forge's fuzzer makes of them. It is committee, court and channels itself: what
/// these peers may ask for is wider than what their own code asks for.
contract Market {
    uint256 private constant FINGERPRINTER_KEY = 0xF1;
    uint256 private constant OWNER_KEY = 0x0E;
    bytes32 private constant KEY = keccak256("delivery key");
    uint64 private constant MODEL = 1;
    uint16 private constant PLATFORM_BPS = 500;

    IEscrow public immutable escrow;
    LicenseNFT public immutable licenses;
    RoyaltyLedger public immutable royalties;
    Coin public immutable coin;
    address public immutable treasury = address(0x7EA);
    address public immutable fingerprinter = vm.addr(FINGERPRINTER_KEY);
    address public immutable owner = vm.addr(OWNER_KEY);
    address public immutable buyer = address(0xB0B);

    Order[] public orders;
    bytes32[] public caseIds;
    RoyaltyTerms private _terms;
    mapping(address token => uint256) public moneyIn;
    mapping(address token => uint256) public moneyOut;

    constructor() {
        AccessManager authority = new AccessManager(address(this));
        uint64 next = vm.getNonce(address(this));
        address escrowAt = vm.computeCreateAddress(address(this), next + 4);
        address modelsAt = vm.computeCreateAddress(address(this), next + 1);
        licenses = new LicenseNFT(escrowAt, address(this));
        ModelNFT models = new ModelNFT(address(authority), address(licenses), address(this), treasury, PLATFORM_BPS, "ipfs://");
        royalties = new RoyaltyLedger(escrowAt, modelsAt, treasury);
        Peers memory peers = Peers({
            models: modelsAt,
            licenses: address(licenses),
            royalties: address(royalties),
            committee: address(this),
            court: address(this),
            channels: address(this),
            identity: address(0),
            deliveryCheck: address(0),
            treasury: treasury,
            stakeReserve: 1 ether
        });
        address extension = address(new EscrowExtension(address(authority), peers));
        escrow = IEscrow(address(new LicenseEscrow(address(authority), peers, extension)));
        require(address(escrow) == escrowAt && address(models) == modelsAt, "addresses");
        coin = new Coin(address(this));
        coin.approve(address(escrow), type(uint256).max);
        coin.transfer(buyer, type(uint64).max);
        vm.prank(buyer);
        coin.approve(address(escrow), type(uint256).max);
        escrow.listToken(address(coin), true);

        ModelRecord memory record = ModelRecord(keccak256("weights"), 64, 1, 64, 0, 0, 0, 0);
        vm.prank(owner);
        models.register(record, keccak256("metadata"), 0, new Split[](0), new ParentProof[](0));
        models.review(MODEL, record.weightsRoot, Review.APPROVED, 0);
        _terms.platformBps = PLATFORM_BPS;
        record.royaltyHash = keccak256(abi.encode(_terms));
        royalties.openTerms(MODEL, record, _terms);

        _fund(fingerprinter, 1000 ether);
        escrow.addStake(fingerprinter, 500 ether);
        escrow.allowDeposits(fingerprinter, true);
    }

    /* ANYONE */

    function deposit(uint96 amount, uint256 who, bool inCoin) external {
        address to = _someone(who);
        if (!inCoin) return _fund(to, amount);
        amount %= uint96(1 ether);
        moneyIn[address(coin)] += amount;
        escrow.depositToken(address(coin), amount, to);
    }

    function withdraw(uint256 amount, uint256 who, bool inCoin) external {
        (address account, address token) = (_someone(who), inCoin ? address(coin) : address(0));
        amount %= escrow.balanceOf(account, token) + 1;
        moneyOut[token] += amount;
        vm.prank(account);
        escrow.withdraw(token, amount, address(0xDEAD));
    }

    function pass(uint256 time) external {
        vm.warp(block.timestamp + time % 100 days);
    }

    /* PURCHASE */

    function open(uint96 price, uint96 bond, bool inCoin) external {
        Order memory order = _order(price % 1 ether, bond % 1 ether, inCoin);
        Stake memory stake = escrow.stakeOf(fingerprinter);
        if (stake.staked < uint256(stake.locked) + order.delivery.deposit + escrow.stakeReserve()) return;
        bytes32 digest = escrow.orderDigest(order);
        uint256 due = uint256(order.sale.price) + order.sale.bond;
        orders.push(order);
        moneyIn[order.sale.token] += due;
        vm.deal(buyer, due);
        vm.prank(buyer);
        escrow.open{value: inCoin ? 0 : due}(order, _sign(OWNER_KEY, digest), _sign(FINGERPRINTER_KEY, digest));
    }

    function reveal(uint256 which) external {
        (Order memory order, uint256 since) = _find(which, OrderState.OPEN);
        if (since == 0) return;
        Delivery memory delivery = order.delivery;
        if (block.timestamp > since + delivery.revealWindow + delivery.grace) return;
        escrow.revealKey(escrow.saleHash(order.sale), delivery, KEY);
    }

    function accept(uint256 which) external {
        (Order memory order, uint256 since) = _find(which, OrderState.REVEALED);
        if (since == 0) return;
        vm.prank(buyer);
        escrow.accept(order);
    }

    function settle(uint256 which) external {
        (Order memory order, uint256 since) = _find(which, OrderState.REVEALED);
        if (since == 0) return;
        if (block.timestamp <= since + order.delivery.complaintWindow) vm.warp(since + order.delivery.complaintWindow + 1);
        escrow.settle(order);
    }

    function refund(uint256 which) external {
        (Order memory order, uint256 since) = _find(which, OrderState.OPEN);
        if (since == 0) (order, since) = _find(which, OrderState.RANGE_CHECK);
        if (since == 0) return;
        if (block.timestamp <= since + 7 days) vm.warp(since + 7 days + 1);
        escrow.refund(order);
    }

    function claimRange(uint256 which) external {
        (Order memory order, uint256 since) = _find(which, OrderState.REVEALED);
        if (since == 0 || block.timestamp > since + order.delivery.complaintWindow) return;
        uint256 bond = rangeBondOf(order);
        moneyIn[order.sale.token] += bond;
        vm.deal(buyer, bond);
        vm.prank(buyer);
        escrow.rangeClaim{value: order.sale.token == address(0) ? bond : 0}(order, 0);
    }

    function answerRange(uint256 which, bool upheld) external {
        (Order memory order, uint256 since) = _find(which, OrderState.RANGE_CHECK);
        if (since == 0 || block.timestamp > since + 7 days) return;
        escrow.resolveRange(order, upheld, 1, type(uint40).max, new address[](0), 0, "");
    }

    function releaseBond(uint256 which) external {
        (Order memory order, uint256 since) = _find(which, OrderState.SETTLED);
        Bond memory bond = escrow.bondOf(order.delivery.licenseId);
        if (since == 0 || bond.amount == 0 || bond.openCases != 0) return;
        if (bond.releaseRequestedAt == 0) {
            if (!licenses.hasEnded(order.delivery.licenseId)) licenses.revoke(order.delivery.licenseId, 0);
            return escrow.requestBondRelease(order.delivery.licenseId);
        }
        vm.warp(block.timestamp + order.sale.bondTail);
        escrow.releaseBond(order);
    }

    /* PEERS */

    function openCase(uint256 which, uint96 bond) external {
        uint256 free = escrow.balanceOf(buyer, address(0));
        bytes32 caseId = keccak256(abi.encode(caseIds.length));
        caseIds.push(caseId);
        escrow.lockCaseBond(caseId, buyer, bond % (free + 1));
        (Order memory order, uint256 since) = _find(which, OrderState.SETTLED);
        if (since != 0 && escrow.bondOf(order.delivery.licenseId).amount != 0) escrow.holdBond(order.delivery.licenseId);
    }

    function payCase(uint256 which, uint96 amount, uint256 who) external {
        if (caseIds.length == 0) return;
        bytes32 caseId = caseIds[which % caseIds.length];
        escrow.payCaseBond(caseId, _someone(who), amount % (escrow.caseBondOf(caseId) + 1));
    }

    function slashBond(uint256 which, uint96 amount, uint16 bps) external {
        (Order memory order, uint256 since) = _find(which, OrderState.SETTLED);
        if (since == 0) return;
        if (escrow.bondOf(order.delivery.licenseId).openCases != 0) escrow.unholdBond(order.delivery.licenseId);
        escrow.slashBond(order.delivery.licenseId, amount, buyer, bps);
    }

    function slashStake(uint96 amount) external {
        escrow.slashStake(fingerprinter, amount % 1 ether, treasury);
    }

    function unstake(uint96 amount) external {
        Stake memory stake = escrow.stakeOf(fingerprinter);
        escrow.removeStake(fingerprinter, amount % (uint256(stake.staked) - stake.locked + 1));
    }

    function channel(uint96 amount, bool inCoin, bool toModel) external {
        address token = inCoin ? address(coin) : address(0);
        amount %= uint96(escrow.balanceOf(buyer, token) + 1);
        escrow.lockChannel(buyer, token, amount);
        if (toModel) escrow.payChannelRoyalty(MODEL, token, amount / 2);
        else escrow.payChannel(token, owner, amount / 2);
    }

    function pull(bool inCoin, bool platform) external {
        address token = inCoin ? address(coin) : address(0);
        function (uint64, address, RoyaltyTerms memory) external returns (uint256) take =
            platform ? royalties.pullPlatform : royalties.pullOwner;
        try take(MODEL, token, _terms) {}
        catch (bytes memory reason) {
            require(bytes4(reason) == IRoyaltyLedger.NothingToPull.selector, "pull");
        }
    }

    /* COMMITTEE, as the escrow sees it */

    function currentEpoch() external pure returns (uint64) {
        return 1;
    }

    function verify(uint64, bytes32, address[] calldata, uint32, bytes calldata) external pure returns (uint256) {
        return 1;
    }

    /* BOOKS */

    /// @notice Everything that the vault owes, account by account.
    function owed(address token) external view returns (uint256 sum) {
        for (uint256 i; i < 4; ++i) sum += escrow.balanceOf(_someone(i), token);
        if (token == address(0)) {
            sum += escrow.stakeOf(fingerprinter).staked;
            for (uint256 i; i < caseIds.length; ++i) sum += escrow.caseBondOf(caseIds[i]);
        }
        for (uint256 i; i < orders.length; ++i) {
            Order memory order = orders[i];
            if (order.sale.token != token) continue;
            OrderState state = stateOf(order);
            sum += escrow.bondOf(order.delivery.licenseId).amount;
            if (isRunning(state)) sum += uint256(order.sale.price) + order.sale.bond;
            if (state == OrderState.RANGE_CHECK) sum += rangeBondOf(order);
        }
        sum += escrow.royaltyOf(MODEL, token).balance + escrow.channelFunds(token);
    }

    /// @notice Deposits of all orders that have not ended.
    function deposits() external view returns (uint256 sum) {
        for (uint256 i; i < orders.length; ++i) {
            if (isRunning(stateOf(orders[i]))) sum += orders[i].delivery.deposit;
        }
    }

    function stateOf(Order memory order) public view returns (OrderState state) {
        (state,,) = escrow.orderState(order.delivery.licenseId);
    }

    function isRunning(OrderState state) public pure returns (bool) {
        return state == OrderState.OPEN || state == OrderState.REVEALED || state == OrderState.RANGE_CHECK;
    }

    function rangeBondOf(Order memory order) public pure returns (uint256) {
        return uint256(order.sale.price) / 10;
    }

    function held(address token) external view returns (uint256) {
        return token == address(0) ? address(escrow).balance : IERC20(token).balanceOf(address(escrow));
    }

    /* PRIVATE */

    function _fund(address to, uint256 amount) private {
        moneyIn[address(0)] += amount;
        vm.deal(address(this), amount);
        escrow.depositNative{value: amount}(to);
    }

    function _someone(uint256 who) private view returns (address) {
        address[4] memory people = [owner, buyer, fingerprinter, treasury];
        return people[who % 4];
    }

    /// @dev An order in the state, from the one asked for onward; since 0 if there is none.
    function _find(uint256 which, OrderState needed) private view returns (Order memory order, uint256 since) {
        for (uint256 i; i < orders.length; ++i) {
            order = orders[(which % orders.length + i) % orders.length];
            OrderState state;
            (state, since,) = escrow.orderState(order.delivery.licenseId);
            if (state == needed) return (order, since);
        }
        since = 0;
    }

    function _order(uint96 price, uint96 bond, bool inCoin) private view returns (Order memory) {
        uint256 licenseId = uint256(MODEL) << 28 | (orders.length + 1);
        return Order({
            sale: Sale({
                seller: owner,
                token: inCoin ? address(coin) : address(0),
                price: price,
                bond: bond,
                terms: 1,
                termsHash: 0,
                requestHash: 0,
                basis: Basis.OWNER,
                saleNonce: 0,
                orderNonce: 0,
                openBy: type(uint40).max,
                bondTail: 90 days,
                source: 0
            }),
            delivery: Delivery({
                licenseId: licenseId,
                buyer: buyer,
                fingerprinter: fingerprinter,
                deposit: price,
                copyRoot: 0,
                deliveryRoot: 0,
                keyCommit: keccak256(abi.encode(KEY, licenseId, buyer)),
                markCommit: 0,
                totalBytes: 64,
                chunks: 1,
                chunkSize: 64,
                suite: 1,
                revealWindow: 1 hours,
                grace: 30 minutes,
                complaintWindow: 1 days
            })
        });
    }

    function _sign(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }
}

/// @notice Money is never made and never lost, whatever the peers ask for.
contract MoneyInvariant {
    Market private _market;

    function setUp() external {
        _market = new Market();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_market);
    }

    function invariant_the_vault_holds_what_it_owes() external view {
        _check(address(0));
        _check(address(_market.coin()));
    }

    function invariant_locked_stakes_are_the_deposits_of_running_orders() external view {
        Stake memory stake = _market.escrow().stakeOf(_market.fingerprinter());
        require(stake.locked == _market.deposits(), "locked");
        require(stake.locked <= stake.staked, "staked");
    }

    function _check(address token) private view {
        uint256 held = _market.held(token);
        require(held == _market.owed(token), "owed");
        require(held == _market.moneyIn(token) - _market.moneyOut(token), "in and out");
    }
}
