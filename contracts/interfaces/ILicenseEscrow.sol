// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Delivery, IEscrowBase, Order} from "./IEscrowBase.sol";

/// @notice Purchase with fair delivery.
interface ILicenseEscrow is IEscrowBase {
    /// @notice Buyer pays price + bond (less a prepare fee already paid for this request) and reserves the fingerprint number.
    /// Every condition is checked here and only here; whatever changes later, the order ends by its own rules.
    /// - Native price: `msg.value` is exactly `quoteOpen`. ERC-20: a listed token that arrives whole, from the caller's allowance.
    /// - Both signatures are over `orderDigest(order)`: 65-byte low-s ECDSA or ERC-1271.
    /// - The fingerprinter is neither seller nor buyer, and has the deposit free in its stake above the reserve.
    function open(Order calldata order, bytes calldata sellerSignature, bytes calldata fingerprinterSignature) external payable;
    /// @notice The same for an ERC-20 price, with an EIP-2612 permit of the token for this contract.
    function openWithPermit(
        Order calldata order,
        bytes calldata sellerSignature,
        bytes calldata fingerprinterSignature,
        uint256 permitDeadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;
    /// @notice Anyone who knows the key may publish it, until openedAt + revealWindow + grace.
    function revealKey(bytes32 saleHash, Delivery calldata delivery, bytes32 key) external;
    /// @notice Buyer proves that chunk `index` decrypts to something else than promised: refund and deposit. A bad proof reverts
    /// with an error of FairDelivery.
    function complain(
        Order calldata order, bytes32 key, uint32 index, bytes calldata cipher, bytes32 plainLeaf, bytes32[] calldata path
    ) external;
    /// @notice Buyer takes the copy as it is and ends the complaint window.
    function accept(Order calldata order) external;
    /// @notice Anyone, after the complaint window: mints the license, credits royalties, locks the bond, frees the deposit.
    function settle(Order calldata order) external;
    /// @notice Anyone, after the reveal deadline (a tenth of the deposit goes to the buyer), or after 7 d without an answer to a
    /// range claim (no penalty, the claim bond goes back).
    function refund(Order calldata order) external;

    /* VIEWS */

    /// @notice What opening costs now, in order.sale.token.
    function quoteOpen(Order calldata order) external view returns (uint256 amount);
}
