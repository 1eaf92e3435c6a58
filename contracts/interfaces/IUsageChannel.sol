// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice Who pays whom for the use of a model, fixed when the channel is opened; its hash with this contract is the channel's id.
struct Channel {
    address payer;
    address provider; // the model's owner, or the holder of `licenseId`
    address signer; // of vouchers: the payer's API key, or a contract that answers ERC-1271
    address token; // 0: native coin
    uint96 amount; // locked at opening
    uint40 expiry; // unix seconds; like a close request of that time
    uint64 modelId;
    uint256 licenseId; // 0: the owner provides
    bytes32 salt; // tells channels of the same parties apart
}

enum ChannelPhase {
    NONE,
    OPEN,
    CLOSED // for good: the id is not used again, so no voucher counts twice
}

/// @notice The moving part of a channel: one word.
struct ChannelState {
    uint96 deposited; // all that was locked
    uint96 redeemed; // all that was paid out on vouchers
    uint40 closesAt; // unix seconds, 0 without a request of the payer
    uint16 onwardBps; // of the income, to the model; from the license's terms at opening
    ChannelPhase phase;
}

/// @notice What an API user owes. The money lies in the vault.
interface IUsageChannel {
    event ChannelOpened(
        bytes32 indexed channelId, address indexed payer, address indexed provider, Channel channel, uint16 onwardBps
    );
    event ChannelToppedUp(bytes32 indexed channelId, uint256 amount, uint256 deposited);
    /// @param redeemed all so far
    /// @param toProvider into the provider's free balance
    /// @param toModel into the model's royalties
    event VoucherRedeemed(bytes32 indexed channelId, uint256 redeemed, uint256 toProvider, uint256 toModel);
    event CloseRequested(bytes32 indexed channelId, uint40 closesAt);
    /// @param refund into the payer's free balance
    event ChannelClosed(bytes32 indexed channelId, uint256 redeemed, uint256 refund);

    error ChannelNotOpen(bytes32 channelId, ChannelPhase phase);
    error ChannelExists(bytes32 channelId);
    error ChannelCloses(bytes32 channelId, uint256 closesAt);
    error EmptyChannel();
    error NotThePayer(address caller, address payer);
    error NotTheProvider(address account, address provider);
    error LicenseNotCommercial(uint256 licenseId);
    error ModelNotServed(uint64 modelId);
    error VoucherUnsigned(address signer);
    error VoucherTooSmall(uint256 given, uint256 redeemed);
    error TokenNotListed(address token);
    error TooEarly(uint256 notBefore);
    error ValueNotTaken(uint256 value);

    /* PAYER */

    /// @notice Locks `amount` of the payer's free balance in the vault; value sent with a channel in the native coin is added to that
    /// balance first, and what exceeds `amount` stays there. The model must be approved, not delisted, not frozen; the provider its
    /// owner, or the holder of an active license of it that is commercial.
    function open(Channel calldata channel) external payable returns (bytes32 channelId);
    /// @notice Locks more, under the same conditions as opening; not once a close was requested or the channel expired.
    function topUp(Channel calldata channel, uint96 amount) external payable;
    /// @notice From here on the provider has two days to redeem what it holds.
    function requestClose(Channel calldata channel) external;

    /* PROVIDER */

    /// @notice Pays what a voucher adds to what was redeemed, as far as the deposit goes. Anyone may send it; nothing blocks it while
    /// the channel is open. For the owner as provider all goes into the model's royalties; else the license's share, and the rest to
    /// the provider.
    /// @dev A provider that accepts a contract as signer trusts it to stand by its signatures, and should redeem often.
    /// @param cumulative all that is owed since the opening
    function redeem(Channel calldata channel, uint96 cumulative, bytes calldata signature) external;

    /* ANYONE */

    /// @notice The provider at any time; anyone else two days after the payer's request or the expiry. What was not redeemed goes
    /// back to the payer.
    function close(Channel calldata channel) external;

    /* VIEWS */

    function channelIdOf(Channel calldata channel) external view returns (bytes32);
    function stateOf(bytes32 channelId) external view returns (ChannelState memory);
    /// @notice From when on anyone may close the channel, unix seconds.
    function closableAt(Channel calldata channel) external view returns (uint256);
    /// @notice What the signer signs: EIP-712 Voucher(bytes32 channelId,uint96 cumulative).
    function voucherDigest(bytes32 channelId, uint96 cumulative) external view returns (bytes32);
}
