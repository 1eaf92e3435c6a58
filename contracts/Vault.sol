// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IRoyaltyLedger} from "./interfaces/IRoyaltyLedger.sol";
import {Bond, IVault, Stake} from "./interfaces/IVault.sol";

/// @notice All money of the system: free balances, stakes, license bonds, case bonds, royalty pools. Money leaves only by `withdraw`,
/// to where the owner of a free balance says; everything else is a move between accounts of this contract.
/// The one power here is ADMIN's allow-list of tokens, which touches nothing that is held.
abstract contract Vault is IVault, AccessManaged, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    struct TokenEntry {
        uint8 index; // place in _tokens; 0 for the native coin and for tokens never listed
        bool listed;
    }

    address internal constant NATIVE = address(0);
    uint256 internal constant BPS = 10_000;
    /// @dev A reporter who got more would be paid to provoke leaks.
    uint256 private constant MAX_REPORTER_BPS = 1_000;
    uint256 private constant MAX_TOKENS = 256; // indexes are uint8

    address public immutable committee;
    address public immutable court;
    address public immutable royalties;
    /// @inheritdoc IVault
    address public immutable treasury;
    /// @inheritdoc IVault
    uint128 public immutable stakeReserve;

    mapping(address account => mapping(address token => uint256 amount)) internal _balances;
    mapping(address account => Stake) private _stakes;
    mapping(uint256 licenseId => Bond) internal _bonds;
    mapping(bytes32 caseId => uint256 amount) private _caseBonds;
    mapping(address token => uint256 amount) private _royaltyPools;
    mapping(address token => TokenEntry) private _entries;
    address[] private _tokens; // 0 is the native coin; a delisted token keeps its place, bonds refer to it

    modifier onlyPeer(address peer) {
        if (msg.sender != peer) revert NotAPeer(msg.sender);
        _;
    }

    constructor(address committee_, address court_, address royalties_, address treasury_, uint128 stakeReserve_) {
        committee = committee_;
        court = court_;
        royalties = royalties_;
        treasury = treasury_;
        stakeReserve = stakeReserve_;
        _tokens.push(NATIVE);
    }

    /* ANYONE */

    /// @inheritdoc IVault
    function depositNative(address to) external payable {
        _balances[to][NATIVE] += msg.value;
        emit Deposited(to, NATIVE, msg.value);
    }

    /// @inheritdoc IVault
    function depositToken(address token, uint256 amount, address to) external nonReentrant {
        _checkListed(token);
        if (token == NATIVE) revert TokenNotListed(token);
        _balances[to][token] += amount;
        emit Deposited(to, token, amount);
        _pullToken(token, amount);
    }

    /// @inheritdoc IVault
    function withdraw(address token, uint256 amount, address to) external nonReentrant {
        _debit(msg.sender, token, amount);
        emit Withdrawn(msg.sender, token, to, amount);
        if (token == NATIVE) {
            (bool sent,) = to.call{value: amount}("");
            if (!sent) revert TransferFailed(token, to, amount);
        } else {
            IERC20(token).safeTransfer(to, amount);
        }
    }

    /// @inheritdoc IVault
    function balanceOf(address account, address token) external view returns (uint256) {
        return _balances[account][token];
    }

    /// @inheritdoc IVault
    function stakeOf(address account) external view returns (Stake memory) {
        return _stakes[account];
    }

    /// @inheritdoc IVault
    function bondOf(uint256 licenseId) external view returns (Bond memory) {
        return _bonds[licenseId];
    }

    /// @inheritdoc IVault
    function caseBondOf(bytes32 caseId) external view returns (uint256) {
        return _caseBonds[caseId];
    }

    /// @inheritdoc IVault
    function royaltyPool(address token) external view returns (uint256) {
        return _royaltyPools[token];
    }

    /// @inheritdoc IVault
    function tokenAt(uint8 index) external view returns (address) {
        return _tokens[index];
    }

    /// @inheritdoc IVault
    function isListed(address token) external view returns (bool) {
        return token == NATIVE || _entries[token].listed;
    }

    /* ADMIN */

    /// @inheritdoc IVault
    function listToken(address token, bool listed) external restricted {
        if (token == NATIVE || token.code.length == 0) revert TokenNotListed(token);
        TokenEntry storage entry = _entries[token];
        if (entry.index == 0) {
            if (_tokens.length == MAX_TOKENS) revert TooManyTokens(MAX_TOKENS);
            entry.index = uint8(_tokens.length);
            _tokens.push(token);
        }
        entry.listed = listed;
        emit TokenListed(token, entry.index, listed);
    }

    /* COMMITTEE */

    /// @inheritdoc IVault
    function addStake(address account, uint256 amount) external onlyPeer(committee) {
        _debit(account, NATIVE, amount);
        _stakes[account].staked += uint120(amount); // below 2^120: it was a balance of the native coin
        emit StakeAdded(account, amount);
    }

    /// @inheritdoc IVault
    function allowDeposits(address account, bool allowed) external onlyPeer(committee) {
        _stakes[account].mayLock = allowed;
    }

    /// @inheritdoc IVault
    function removeStake(address account, uint256 amount) external onlyPeer(committee) {
        Stake storage stake = _stakes[account];
        uint256 free = stake.staked - stake.locked;
        if (free < amount) revert StakeTooSmall(account, free, amount);
        stake.staked -= uint120(amount);
        _balances[account][NATIVE] += amount;
        emit StakeRemoved(account, amount);
    }

    /* COMMITTEE, COURT */

    /// @inheritdoc IVault
    function slashStake(address account, uint256 amount, address to) external returns (uint256 slashed) {
        if (msg.sender != committee && msg.sender != court) revert NotAPeer(msg.sender);
        Stake storage stake = _stakes[account];
        slashed = Math.min(amount, stake.staked - stake.locked);
        if (slashed == 0) return 0;
        stake.staked -= uint120(slashed);
        _balances[to][NATIVE] += slashed;
        emit StakeSlashed(account, to, slashed);
    }

    /* COURT */

    /// @inheritdoc IVault
    function lockCaseBond(bytes32 caseId, address payer, uint256 amount) external onlyPeer(court) {
        _debit(payer, NATIVE, amount);
        _caseBonds[caseId] += amount;
        emit CaseBondLocked(caseId, payer, amount);
    }

    /// @inheritdoc IVault
    function payCaseBond(bytes32 caseId, address to, uint256 amount) external onlyPeer(court) {
        uint256 held = _caseBonds[caseId];
        if (held < amount) revert CaseBondTooSmall(caseId, held, amount);
        _caseBonds[caseId] = held - amount;
        _balances[to][NATIVE] += amount;
        emit CaseBondPaid(caseId, to, amount);
    }

    /// @inheritdoc IVault
    function holdBond(uint256 licenseId) external onlyPeer(court) {
        Bond storage bond = _bonds[licenseId];
        if (bond.amount == 0) revert BondTooSmall(licenseId, 0, 1);
        ++bond.openCases;
    }

    /// @inheritdoc IVault
    function unholdBond(uint256 licenseId) external onlyPeer(court) {
        --_bonds[licenseId].openCases;
    }

    /// @inheritdoc IVault
    function slashBond(uint256 licenseId, uint256 amount, address reporter, uint16 reporterBps)
        external
        onlyPeer(court)
        returns (uint256 slashed)
    {
        Bond memory bond = _bonds[licenseId];
        slashed = Math.min(amount, bond.amount);
        if (slashed == 0) return 0;
        uint256 toReporter = slashed * Math.min(reporterBps, MAX_REPORTER_BPS) / BPS;
        uint256 toOwner = Math.min(slashed - toReporter, bond.price);
        bond.amount -= uint96(slashed);
        bond.price -= uint96(toOwner);
        _bonds[licenseId] = bond;
        emit BondSlashed(licenseId, reporter, slashed, bond.amount, toReporter, toOwner);
        address token = _tokenOf(bond.tokenIndex);
        if (toReporter != 0) _balances[reporter][token] += toReporter;
        uint256 rest = slashed - toReporter - toOwner;
        if (rest != 0) _balances[treasury][token] += rest;
        _payRoyalty(uint64(licenseId >> 28), token, toOwner);
    }

    /* ROYALTIES */

    /// @inheritdoc IVault
    function payRoyalty(address token, address to, uint256 amount) external onlyPeer(royalties) {
        uint256 pool = _royaltyPools[token];
        if (pool < amount) revert RoyaltyPoolTooSmall(token, pool, amount);
        _royaltyPools[token] = pool - amount;
        _balances[to][token] += amount; // the ledger's event names model, account, token and amount
    }

    /* INTERNAL */

    function _checkListed(address token) internal view {
        if (token != NATIVE && !_entries[token].listed) revert TokenNotListed(token);
    }

    function _indexOf(address token) internal view returns (uint8) {
        return token == NATIVE ? 0 : _entries[token].index;
    }

    /// @dev Spares the native coin two reads.
    function _tokenOf(uint8 index) internal view returns (address) {
        return index == 0 ? NATIVE : _tokens[index];
    }

    function _credit(address account, address token, uint256 amount, bytes32 cause) internal {
        if (amount == 0) return;
        _balances[account][token] += amount;
        emit Credited(account, token, amount, cause);
    }

    function _debit(address account, address token, uint256 amount) private {
        uint256 free = _balances[account][token];
        if (free < amount) revert BalanceTooSmall(account, token, free, amount);
        _balances[account][token] = free - amount;
    }

    /// @dev The last thing a function does: a listed token may still call back.
    function _pullToken(address token, uint256 amount) internal {
        uint256 before = IERC20(token).balanceOf(address(this));
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = IERC20(token).balanceOf(address(this)) - before;
        if (received != amount) revert TransferTaxed(token, amount, received);
    }

    function _payRoyalty(uint64 modelId, address token, uint256 amount) internal {
        if (amount == 0) return;
        _royaltyPools[token] += amount;
        IRoyaltyLedger(royalties).pay(modelId, token, amount);
    }

    function _lockDeposit(address account, uint128 deposit) internal {
        Stake memory stake = _stakes[account];
        if (!stake.mayLock) revert DepositsNotAllowed(account);
        uint256 needed = uint256(stake.locked) + deposit + stakeReserve;
        if (stake.staked < needed) revert StakeTooSmall(account, stake.staked, needed);
        stake.locked += uint120(deposit); // not above what is staked
        _stakes[account] = stake;
    }

    /// @dev Frees the deposit, less the penalty, which leaves the stake. Cannot revert: a lock is never slashed.
    function _freeDeposit(address account, uint128 deposit, uint128 penalty) internal {
        Stake memory stake = _stakes[account];
        stake.locked -= uint120(deposit); // what was locked
        stake.staked -= uint120(penalty); // not above the deposit
        _stakes[account] = stake;
    }
}
