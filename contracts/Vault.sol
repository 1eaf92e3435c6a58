// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Bond, CaseEnd, IVault, Royalty, Stake} from "./interfaces/IVault.sol";
import {CourtMoney} from "./libraries/CourtMoney.sol";
import {VaultBase} from "./VaultBase.sol";

/// @notice All money of the system: free balances, stakes, license bonds, case bonds, royalties, channels. Money leaves only by
/// `withdraw`, to where the owner of a free balance says; everything else is a move between accounts of this contract.
/// The one power here is STEWARD's allow-list of tokens, which touches nothing that is held.
abstract contract Vault is IVault, VaultBase {
    using SafeERC20 for IERC20;

    /// @dev A reporter who got more would be paid to provoke leaks.
    uint256 private constant MAX_REPORTER_BPS = 1_000;
    uint256 private constant MAX_TOKENS = 256; // indexes are uint8

    modifier onlyPeer(address peer) {
        if (msg.sender != peer) revert NotAPeer(msg.sender);
        _;
    }

    constructor() {
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
        // Tokens sent to nobody, or to this contract, would be nobody's.
        if (to == address(0) || to == address(this)) revert TransferFailed(token, to, amount);
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
    function royaltyOf(uint64 modelId, address token) external view returns (Royalty memory) {
        return _royalties[modelId][token];
    }

    /// @inheritdoc IVault
    function channelFunds(address token) external view returns (uint256) {
        return _channelFunds[token];
    }

    /// @inheritdoc IVault
    function tokenAt(uint8 index) external view returns (address) {
        return _tokens[index];
    }

    /// @inheritdoc IVault
    function isListed(address token) external view returns (bool) {
        return token == NATIVE || _entries[token].listed;
    }

    /* STEWARD */

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
        _takeCaseBond(caseId, amount);
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
    function enforceCase(CaseEnd calldata end) external onlyPeer(court) returns (uint256 slashed) {
        _takeCaseBond(end.caseId, end.bondBack);
        uint256 licenseId = end.licenseId;
        uint256 left;
        uint256 toReporter;
        uint256 toOwner;
        uint256 bondBack = end.bondBack;
        if (end.unhold || end.tableBps != 0) {
            Bond memory bond = _bonds[licenseId];
            if (end.unhold) --bond.openCases;
            slashed = CourtMoney.slashDown(bond.amount, end.slashedAll, end.slashedForKind, end.tableBps);
            toReporter = slashed * Math.min(end.reporterBps, MAX_REPORTER_BPS) / BPS;
            toOwner = Math.min(slashed - toReporter, bond.price);
            bond.amount -= uint96(slashed); // not above it
            bond.price -= uint96(toOwner); // not above it
            left = bond.amount;
            _bonds[licenseId] = bond;
            if (slashed != 0) {
                address token = _tokenOf(bond.tokenIndex);
                if (token == NATIVE) bondBack += toReporter;
                else _balances[end.reporter][token] += toReporter;
                uint256 rest = slashed - toReporter - toOwner;
                if (rest != 0) _balances[treasury][token] += rest;
                _payRoyalty(uint64(licenseId >> 28), token, uint128(toOwner)); // at most the price
            }
        }
        _balances[end.reporter][NATIVE] += bondBack;
        emit CaseExecuted(end.caseId, licenseId, end.reporter, end.bondBack, slashed, left, toReporter, toOwner);
    }

    function _takeCaseBond(bytes32 caseId, uint256 amount) private {
        uint256 held = _caseBonds[caseId];
        if (held < amount) revert CaseBondTooSmall(caseId, held, amount);
        _caseBonds[caseId] = held - amount;
    }

    /* ROYALTIES */

    /// @inheritdoc IVault
    function payRoyalty(uint64 modelId, address token, address to, uint256 amount) external onlyPeer(royalties) {
        _takeRoyalty(modelId, token, amount);
        _balances[to][token] += amount; // the ledger's event names model, account, token and amount
    }

    /// @inheritdoc IVault
    function passRoyalty(uint64 from, uint64 to, address token, uint256 amount) external onlyPeer(royalties) {
        _takeRoyalty(from, token, amount);
        _royalties[to][token].balance += uint128(amount);
    }

    function _takeRoyalty(uint64 modelId, address token, uint256 amount) private {
        Royalty storage royalty = _royalties[modelId][token];
        uint256 balance = royalty.balance;
        if (balance < amount) revert RoyaltyTooSmall(modelId, token, balance, amount);
        royalty.balance = uint128(balance - amount);
    }

    /* CHANNELS */

    /// @inheritdoc IVault
    function lockChannel(address payer, address token, uint256 amount) external onlyPeer(channels) {
        _debit(payer, token, amount);
        _channelFunds[token] += amount; // the channel's event names payer, token and amount
    }

    /// @inheritdoc IVault
    function payChannel(address token, address to, uint256 amount) external onlyPeer(channels) {
        _takeFromChannels(token, amount);
        _balances[to][token] += amount;
    }

    /// @inheritdoc IVault
    function payChannelRoyalty(uint64 modelId, address token, uint128 amount) external onlyPeer(channels) {
        _takeFromChannels(token, amount);
        _payRoyalty(modelId, token, amount);
    }

    function _takeFromChannels(address token, uint256 amount) private {
        uint256 held = _channelFunds[token];
        if (held < amount) revert ChannelFundsTooSmall(token, held, amount);
        _channelFunds[token] = held - amount;
    }
}
