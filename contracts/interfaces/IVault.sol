// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice What the license bond slot holds: one word.
struct Bond {
    uint96 amount; // left
    uint96 price; // paid for the license, less what its owner got out of slashes: caps what he may still get
    uint16 openCases;
    uint40 releaseRequestedAt; // unix seconds less the seconds paused before; 0: not requested
    uint8 tokenIndex; // 0: native coin
}

struct Stake {
    uint120 staked; // wei, locked part included
    uint120 locked; // wei, deposits of open orders
    bool mayLock; // a fingerprinter that is not leaving; an operator's stake must stay within reach of a slash
}

/// @notice What sales and slashes brought a model in one token, and what of it and of its descendants' shares nobody has pulled yet.
struct Royalty {
    uint128 gross; // never falls
    uint128 balance;
}

/// @notice How a case ends in guilt, as the court tells the vault.
struct CaseEnd {
    bytes32 caseId;
    address reporter;
    uint96 bondBack; // wei of what is locked under the case, to the reporter
    uint256 licenseId; // 0: no bond is at stake
    uint16 tableBps; // of the original bond; 0: no bond moves
    uint16 reporterBps; // of the slash
    uint96 slashedForKind; // by cases of this kind before
    uint96 slashedAll; // by all cases before
    bool unhold; // the case held the bond
}

/// @notice What the escrow and its extension share of the vault.
interface IVaultBase {
    /* EVENTS */

    event Deposited(address indexed account, address indexed token, uint256 amount);
    event Withdrawn(address indexed account, address indexed token, address to, uint256 amount);
    /// @param cause order hash, license id, case id or 0
    event Credited(address indexed account, address indexed token, uint256 amount, bytes32 indexed cause);
    event StakeAdded(address indexed account, uint256 amount);
    event StakeRemoved(address indexed account, uint256 amount);
    event StakeSlashed(address indexed account, address indexed to, uint256 amount);
    /// @dev bondBack of the reporter's own bond, wei; the others in the license bond's token: of `slashed`, toReporter to the reporter's
    /// free balance, toOwner into the model's royalties, the rest to the treasury's free balance; `left` of the bond, 0 without one.
    event CaseExecuted(
        bytes32 indexed caseId,
        uint256 indexed licenseId,
        address indexed reporter,
        uint256 bondBack,
        uint256 slashed,
        uint256 left,
        uint256 toReporter,
        uint256 toOwner
    );
    event CaseBondLocked(bytes32 indexed caseId, address indexed payer, uint256 amount);
    event CaseBondPaid(bytes32 indexed caseId, address indexed to, uint256 amount);
    event RoyaltyPaid(uint64 indexed modelId, address indexed token, uint256 amount);
    event TokenListed(address indexed token, uint8 index, bool listed);

    /* ERRORS */

    error NotAPeer(address caller);
    error TokenNotListed(address token);
    error TooManyTokens(uint256 max);
    error BalanceTooSmall(address account, address token, uint256 given, uint256 needed);
    error DepositsNotAllowed(address account);
    error StakeTooSmall(address account, uint256 given, uint256 needed);
    error BondTooSmall(uint256 licenseId, uint256 given, uint256 needed);
    error CaseBondTooSmall(bytes32 caseId, uint256 given, uint256 needed);
    error RoyaltyTooSmall(uint64 modelId, address token, uint256 given, uint256 needed);
    error ChannelFundsTooSmall(address token, uint256 given, uint256 needed);
    error TransferFailed(address token, address to, uint256 amount);
    error TransferTaxed(address token, uint256 given, uint256 received);
    error NothingToDo();

    function treasury() external view returns (address);
    /// @notice Part of every stake that no deposit may lock, so that there is always something to slash. What is above it can leave
    /// without the delay of a withdrawal, as the deposit of an order made to fail: count on the reserve alone.
    function stakeReserve() external view returns (uint128);
}

/// @notice The only place that holds money. Every peer moves it by a typed call that the vault's own records bound.
interface IVault is IVaultBase {
    /* ANYONE */

    function depositNative(address to) external payable;
    /// @notice Pulls from the caller's allowance; only listed tokens, and only those that arrive whole.
    function depositToken(address token, uint256 amount, address to) external;
    /// @notice The caller's free balance leaves to `to`. Never paused; a delisted token still leaves.
    function withdraw(address token, uint256 amount, address to) external;
    function balanceOf(address account, address token) external view returns (uint256);
    function stakeOf(address account) external view returns (Stake memory);
    function bondOf(uint256 licenseId) external view returns (Bond memory);
    function caseBondOf(bytes32 caseId) external view returns (uint256);
    function royaltyOf(uint64 modelId, address token) external view returns (Royalty memory);
    /// @notice What all usage channels together hold of a token.
    function channelFunds(address token) external view returns (uint256);
    function tokenAt(uint8 index) external view returns (address);
    function isListed(address token) external view returns (bool);

    /* STEWARD */

    /// @notice Allows a token for new orders and deposits, or stops it; what is held stays withdrawable.
    /// @dev Lists only tokens that move exactly what they are told, never rebase, and cannot block one holder alone.
    function listToken(address token, bool listed) external;

    /* COMMITTEE: stakes of operators and fingerprinters, in the native coin, out of the account's free balance */

    function addStake(address account, uint256 amount) external;
    /// @notice Whether orders may lock deposits from the account's stake from now on. Locks that are there stay.
    function allowDeposits(address account, bool allowed) external;
    /// @notice Back to the account's free balance; never the locked part.
    function removeStake(address account, uint256 amount) external;

    /* COMMITTEE, COURT */

    /// @notice Takes min(amount, staked - locked) and credits it to `to`.
    function slashStake(address account, uint256 amount, address to) external returns (uint256 slashed);

    /* COURT */

    /// @notice Adds to what is locked under the case, out of the payer's free native balance.
    function lockCaseBond(bytes32 caseId, address payer, uint256 amount) external;
    function payCaseBond(bytes32 caseId, address to, uint256 amount) external;
    /// @notice Counts an open case on a license that has a bond: the bond stays while any is open.
    function holdBond(uint256 licenseId) external;
    function unholdBond(uint256 licenseId) external;
    /// @notice All that a guilty case moves: bondBack to the reporter; the case's hold on the license bond; and of that bond
    /// min(table - slashedForKind, left): reporterBps (at most 10 %) of it to the reporter, then up to the price paid into the model's
    /// royalties, the rest to the treasury. Never reverts for lack of bond.
    /// @dev Named for its selector, which the dispatch compares early: `executeCase` would cost 900 gas more.
    function enforceCase(CaseEnd calldata end) external returns (uint256 slashed);

    /* ROYALTIES */

    /// @notice Out of the model's balance into an account's free balance.
    function payRoyalty(uint64 modelId, address token, address to, uint256 amount) external;
    /// @notice Out of a model's balance into its ancestor's.
    function passRoyalty(uint64 from, uint64 to, address token, uint256 amount) external;

    /* CHANNELS */

    /// @notice Out of the payer's free balance.
    function lockChannel(address payer, address token, uint256 amount) external;
    function payChannel(address token, address to, uint256 amount) external;
    function payChannelRoyalty(uint64 modelId, address token, uint128 amount) external;
}
