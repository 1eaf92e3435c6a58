// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IEscrowBase, ModelSale, Order, PrepareFee, Renewal} from "./IEscrowBase.sol";
import {RoyaltyTerms} from "./IModelNFT.sol";

/// @notice What of the escrow lies in its extension; called at the escrow's address.
interface IEscrowExtension is IEscrowBase {
    /* RANGE CLAIMS */

    /// @notice Buyer claims that the declared range was not derived from the registered one within the promised bound, with a bond
    /// of a tenth of the price in the order's token (native by value, else from the allowance).
    /// @param evidenceDigest sha2-256 digest of the CIDv0 of the chunks in question, sealed to the committee; 0 if handed over otherwise
    function rangeClaim(Order calldata order, bytes32 evidenceDigest) external payable;
    /// @notice Answer to a range claim by the committee that was active when it was made:
    /// RangeVerdict(uint256 licenseId,bytes32 orderHash,bool upheld,uint64 epoch,uint40 deadline), EIP-712. Upheld: refund, deposit
    /// and claim bond to the buyer. Rejected: the order settles and the claim bond goes to the treasury.
    function resolveRange(
        Order calldata order,
        bool upheld,
        uint64 epoch,
        uint40 deadline,
        address[] calldata signers,
        uint32 bitmap,
        bytes calldata signatures
    ) external;

    /* BEFORE THE PURCHASE */

    /// @notice Buyer pays the prepare fee for a copy of the model; native by value, else pulled from the caller's allowance.
    /// @param by unix seconds, at most 30 d ahead: until then the fingerprinter may earn it, then the buyer may take it back
    function payPrepareFee(
        bytes32 requestHash, uint64 modelId, address fingerprinter, address token, uint96 fee, uint40 by
    ) external payable;
    /// @notice The caller takes the fee of its own request back after `by`, when no order was opened with it and none proven prepared.
    function reclaimPrepareFee(bytes32 requestHash) external;
    /// @notice Fingerprinter earns the fee by an order signed by the seller for this request that the buyer let pass: after its
    /// `openBy` and a day after the fee was paid, until the request's `by`. Anyone may call; the fee (at most 5 % of the price) becomes its free balance.
    /// @dev The chain sees the seller's signature, not the copy: a buyer trusts a fingerprinter with no more than this fee.
    function earnPrepareFee(Order calldata order, bytes calldata sellerSignature) external;
    /// @notice What the caller signed with this EIP-712 struct hash (Order, Renewal or ModelSale) cannot be used any more. An open order
    /// is not touched.
    function cancel(bytes32 hash) external;
    /// @notice Seller: no order signed so far can be opened any more; the floor rises by 2^32. Sign with orderNonce from `orderFloor`
    /// to `orderFloor` + 2^32 - 1; higher ones are refused, so that none can outlive this call.
    function cancelAll() external;

    /* SALES WITHOUT DELIVERY */

    /// @notice The holder extends a license that has not ended, at the price that the model's owner signed; native by value, else from
    /// the allowance. The price goes to the model's royalties. The bond stays as it is.
    function renew(Renewal calldata renewal, bytes calldata sellerSignature) external payable;
    /// @notice Copyright transfer: the price is paid as the model's income, so platform, ancestors and collaborators have their shares;
    /// what is left of it, with all the owner has not pulled in this token, goes to the seller, then the token moves. Licenses stay. Only of a model whose newest version is approved: what the seller changes at the
    /// last moment must not reach the buyer.
    /// @param terms opened in the ledger before (`RoyaltyLedger.openTerms`)
    function buyModel(ModelSale calldata sale, RoyaltyTerms calldata terms, bytes calldata sellerSignature) external payable;

    /* BOND */

    /// @notice After the license has ended: starts the tail.
    function requestBondRelease(uint256 licenseId) external;
    /// @notice After the order's bondTail (time in which opening was paused does not count), with no case open: what is left of the
    /// bond becomes the holder's free balance. Anyone may call.
    function releaseBond(Order calldata order) external;

    /* PAUSER */

    /// @notice Stops opening until `until`: at most 7 d from the start of a period, periods at least 30 d apart, so never more than
    /// 7 d in any 30. Nothing else stops; the bond tails stand still meanwhile.
    function pauseOpening(uint40 until) external;
    function resumeOpening() external;

    /* VIEWS */

    /// @notice EIP-712 digest that seller and fingerprinter sign.
    function orderDigest(Order calldata order) external view returns (bytes32);
    /// @notice Reverts unless this is the order stored under its license id.
    function checkOrder(Order calldata order) external view;
    function orderFloor(address seller) external view returns (uint64);
    /// @notice EIP-712 digest that a committee signs to answer a range claim.
    function rangeVerdictDigest(uint256 licenseId, bytes32 orderHash, bool upheld, uint64 epoch, uint40 deadline)
        external
        view
        returns (bytes32);
    /// @notice A buyer's prepare fee; all zero if none waits.
    function prepareFeeOf(address buyer, bytes32 requestHash) external view returns (PrepareFee memory);
    /// @notice The committee that may answer the range claim on this order, 0 if none was made.
    function rangeClaimEpoch(uint256 licenseId) external view returns (uint64);
    /// @notice Seconds for which opening has ever been paused; clocks that a pause extends count `block.timestamp` less this.
    function pausedSeconds() external view returns (uint40);
    /// @notice EIP-712 struct hash; `cancel` takes it, wallets sign the digest made from it.
    function renewalHash(Renewal calldata renewal) external pure returns (bytes32);
    function modelSaleHash(ModelSale calldata sale) external pure returns (bytes32);
}
