// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Bond, IVaultBase, Royalty, Stake} from "./interfaces/IVault.sol";

/// @notice What is fixed at deployment, the same for the escrow and its extension.
struct Peers {
    address models;
    address licenses;
    address royalties;
    address committee;
    address court;
    address channels;
    address identity;
    address deliveryCheck;
    address treasury;
    uint128 stakeReserve; // wei
}

/// @notice Storage of the vault and the moves between its accounts.
/// @dev First base of the escrow and of its extension, so that both see the same storage.
abstract contract VaultBase is IVaultBase, AccessManaged, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    struct TokenEntry {
        uint8 index; // place in _tokens; 0 for the native coin and for tokens never listed
        bool listed;
    }

    address internal constant NATIVE = address(0);
    uint256 internal constant BPS = 10_000;

    address public immutable committee;
    address public immutable court;
    address public immutable royalties;
    address public immutable channels;
    /// @inheritdoc IVaultBase
    address public immutable treasury;
    /// @inheritdoc IVaultBase
    uint128 public immutable stakeReserve;

    mapping(address account => mapping(address token => uint256 amount)) internal _balances;
    mapping(address account => Stake) internal _stakes;
    mapping(uint256 licenseId => Bond) internal _bonds;
    mapping(bytes32 caseId => uint256 amount) internal _caseBonds;
    mapping(uint64 modelId => mapping(address token => Royalty)) internal _royalties;
    mapping(address token => uint256 amount) internal _channelFunds;
    mapping(address token => TokenEntry) internal _entries;
    address[] internal _tokens; // 0 is the native coin; a delisted token keeps its place, bonds refer to it

    constructor(Peers memory peers) {
        committee = peers.committee;
        court = peers.court;
        royalties = peers.royalties;
        channels = peers.channels;
        treasury = peers.treasury;
        stakeReserve = peers.stakeReserve;
    }

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

    function _debit(address account, address token, uint256 amount) internal {
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

    /// @dev Cannot wrap: a token's supply fits 128 bits or is not listed, and 2^32 payments below 2^96 are more than a chain holds.
    function _payRoyalty(uint64 modelId, address token, uint128 amount) internal {
        if (amount == 0) return;
        Royalty memory royalty = _royalties[modelId][token];
        royalty.gross += amount;
        royalty.balance += amount;
        _royalties[modelId][token] = royalty;
        emit RoyaltyPaid(modelId, token, amount);
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
