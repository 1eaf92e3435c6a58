// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {ILicenseNFT} from "./interfaces/ILicenseNFT.sol";
import {IModelNFT, ModelStatus, Review} from "./interfaces/IModelNFT.sol";
import {Channel, ChannelPhase, ChannelState, IUsageChannel} from "./interfaces/IUsageChannel.sol";
import {IVault} from "./interfaces/IVault.sol";
import {LicenseTerms} from "./libraries/LicenseTerms.sol";
import {RoyaltyMath} from "./libraries/RoyaltyMath.sol";
import {Signatures} from "./libraries/Signatures.sol";

/// @notice What an API user owes: a deposit, cumulative vouchers signed off chain, a close that leaves time to redeem them. Holds no
/// money: it lies in the vault, which pays out no more than channels locked there. No administrator, no pause.
contract UsageChannel is IUsageChannel, EIP712 {
    using LicenseTerms for uint96;

    bytes32 private constant VOUCHER_TYPEHASH = keccak256("Voucher(bytes32 channelId,uint96 cumulative)");
    /// @dev Time to redeem: a provider must look at its channels every other day.
    uint40 private constant CLOSE_WINDOW = 2 days;
    address private constant NATIVE = address(0);

    IVault public immutable vault;
    IModelNFT public immutable models;
    address public immutable licenses;

    mapping(bytes32 channelId => ChannelState) private _states;

    constructor(address vault_, address models_, address licenses_) EIP712("ZhiYiChain UsageChannel", "1") {
        vault = IVault(vault_);
        models = IModelNFT(models_);
        licenses = licenses_;
    }

    /* PAYER */

    /// @inheritdoc IUsageChannel
    function open(Channel calldata channel) external payable returns (bytes32 channelId) {
        channelId = channelIdOf(channel);
        if (msg.sender != channel.payer) revert NotThePayer(msg.sender, channel.payer);
        if (_states[channelId].phase != ChannelPhase.NONE) revert ChannelExists(channelId);
        if (block.timestamp >= channel.expiry) revert ChannelCloses(channelId, _expiryClose(channel));
        uint16 onwardBps = _checkProvider(channel);
        _states[channelId] = ChannelState(channel.amount, 0, 0, onwardBps, ChannelPhase.OPEN);
        emit ChannelOpened(channelId, msg.sender, channel.provider, channel, onwardBps);
        _lock(channel.token, channel.amount);
    }

    /// @inheritdoc IUsageChannel
    function topUp(Channel calldata channel, uint96 amount) external payable {
        (bytes32 channelId, ChannelState memory state) = _openState(channel);
        if (msg.sender != channel.payer) revert NotThePayer(msg.sender, channel.payer);
        if (state.closesAt != 0 || block.timestamp >= channel.expiry) {
            revert ChannelCloses(channelId, _closableAt(channel, state));
        }
        _checkProvider(channel);
        state.deposited += amount;
        _states[channelId] = state;
        emit ChannelToppedUp(channelId, amount, state.deposited);
        _lock(channel.token, amount);
    }

    /// @inheritdoc IUsageChannel
    function requestClose(Channel calldata channel) external {
        (bytes32 channelId, ChannelState memory state) = _openState(channel);
        if (msg.sender != channel.payer) revert NotThePayer(msg.sender, channel.payer);
        if (state.closesAt != 0 || block.timestamp >= channel.expiry) {
            revert ChannelCloses(channelId, _closableAt(channel, state));
        }
        uint40 closesAt = uint40(block.timestamp) + CLOSE_WINDOW;
        _states[channelId].closesAt = closesAt;
        emit CloseRequested(channelId, closesAt);
    }

    /* PROVIDER */

    /// @inheritdoc IUsageChannel
    function redeem(Channel calldata channel, uint96 cumulative, bytes calldata signature) external {
        (bytes32 channelId, ChannelState memory state) = _openState(channel);
        uint96 before = state.redeemed;
        uint96 redeemed = cumulative < state.deposited ? cumulative : state.deposited;
        if (redeemed <= before) revert VoucherTooSmall(redeemed, before);
        if (!Signatures.areValid(channel.signer, voucherDigest(channelId, cumulative), signature)) {
            revert VoucherUnsigned(channel.signer);
        }

        // Of the whole, not of this part: many small vouchers round nothing away from the model.
        uint256 bps = state.onwardBps;
        uint256 toModel = RoyaltyMath.shareDown(redeemed, bps) - RoyaltyMath.shareDown(before, bps);
        uint256 toProvider = redeemed - before - toModel;
        _states[channelId].redeemed = redeemed;
        emit VoucherRedeemed(channelId, redeemed, toProvider, toModel);
        if (toModel != 0) vault.payChannelRoyalty(channel.modelId, channel.token, uint128(toModel));
        if (toProvider != 0) vault.payChannel(channel.token, channel.provider, toProvider);
    }

    /* ANYONE */

    /// @inheritdoc IUsageChannel
    function close(Channel calldata channel) external {
        (bytes32 channelId, ChannelState memory state) = _openState(channel);
        uint256 notBefore = _closableAt(channel, state);
        if (msg.sender != channel.provider && block.timestamp < notBefore) revert TooEarly(notBefore);
        uint256 refund = state.deposited - state.redeemed;
        _states[channelId].phase = ChannelPhase.CLOSED;
        emit ChannelClosed(channelId, state.redeemed, refund);
        if (refund != 0) vault.payChannel(channel.token, channel.payer, refund);
    }

    /* VIEWS */

    /// @inheritdoc IUsageChannel
    function channelIdOf(Channel calldata channel) public view returns (bytes32) {
        return keccak256(abi.encode(address(this), channel));
    }

    /// @inheritdoc IUsageChannel
    function stateOf(bytes32 channelId) external view returns (ChannelState memory) {
        return _states[channelId];
    }

    /// @inheritdoc IUsageChannel
    function closableAt(Channel calldata channel) external view returns (uint256) {
        (, ChannelState memory state) = _openState(channel);
        return _closableAt(channel, state);
    }

    /// @inheritdoc IUsageChannel
    function voucherDigest(bytes32 channelId, uint96 cumulative) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(VOUCHER_TYPEHASH, channelId, cumulative)));
    }

    /* INTERNAL */

    function _openState(Channel calldata channel) private view returns (bytes32 channelId, ChannelState memory state) {
        channelId = channelIdOf(channel);
        state = _states[channelId];
        if (state.phase != ChannelPhase.OPEN) revert ChannelNotOpen(channelId, state.phase);
    }

    function _closableAt(Channel calldata channel, ChannelState memory state) private pure returns (uint256) {
        uint256 byExpiry = _expiryClose(channel);
        return state.closesAt != 0 && state.closesAt < byExpiry ? state.closesAt : byExpiry;
    }

    function _expiryClose(Channel calldata channel) private pure returns (uint256) {
        return uint256(channel.expiry) + CLOSE_WINDOW;
    }

    /// @return onwardBps share of the income that goes to the model
    function _checkProvider(Channel calldata channel) private view returns (uint16 onwardBps) {
        ModelStatus memory status = models.statusOf(channel.modelId);
        if (status.review != Review.APPROVED || status.delisted || block.timestamp < status.frozenUntil) {
            revert ModelNotServed(channel.modelId);
        }
        uint256 licenseId = channel.licenseId;
        address provider = status.owner;
        onwardBps = uint16(RoyaltyMath.BPS);
        if (licenseId != 0) {
            ILicenseNFT license = ILicenseNFT(licenses);
            uint96 terms = license.termsOf(licenseId);
            if (
                !terms.has(LicenseTerms.COMMERCIAL) || !license.isActive(licenseId)
                    || license.modelOf(licenseId) != channel.modelId
            ) revert LicenseNotCommercial(licenseId);
            provider = IERC721(licenses).ownerOf(licenseId);
            onwardBps = terms.onwardBps();
        }
        if (channel.provider != provider) revert NotTheProvider(channel.provider, provider);
    }

    /// @dev Both moves end in the vault's own records: nobody is called back.
    function _lock(address token, uint96 amount) private {
        if (amount == 0) revert EmptyChannel();
        if (token != NATIVE && !vault.isListed(token)) revert TokenNotListed(token);
        if (msg.value != 0) {
            if (token != NATIVE) revert ValueNotTaken(msg.value);
            vault.depositNative{value: msg.value}(msg.sender);
        }
        vault.lockChannel(msg.sender, token, amount);
    }
}
