// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice Whose signatures count. An operator is an account that staked; its signer key signs verdicts; a seat is a signer's place in
/// the ascending list of an epoch. Verdicts bring that list, of which one slot holds the hash.
interface IOracleCommittee {
    enum Role {
        NONE,
        OPERATOR,
        FINGERPRINTER
    }

    struct Member {
        Role role;
        address signer; // EOA; signs verdicts (operators) or orders (fingerprinters)
        uint40 exitAt; // unix seconds from which the stake may leave; 0: not leaving
        bytes32 encryptionKey; // X25519 public key
    }

    event MemberJoined(address indexed account, Role indexed role, address signer, bytes32 encryptionKey, string url);
    event MemberUpdated(address indexed account, address signer, bytes32 encryptionKey, string url);
    event ExitRequested(address indexed account, uint40 exitAt);
    event MemberLeft(address indexed account);
    /// @dev Announced again before activation, the later list counts.
    event EpochAnnounced(uint64 indexed epoch, address[] signers, uint8 threshold, uint40 activeFrom);
    event EpochActivated(uint64 indexed epoch, bytes32 committeeHash);
    /// @param seats bits of the seats whose signatures stop counting in `epoch`
    event SeatsVacated(uint64 indexed epoch, uint32 seats);
    event CanariesCommitted(uint64 indexed epoch, bytes32 root);
    event Equivocated(address indexed account, bytes32 indexed caseId, uint256 slashed);
    event SignersSlashed(bytes32 indexed caseId, uint256 slashed);

    error AlreadyMember(address account);
    error NotAMember(address account);
    error NotAnOperator(address signer);
    error NotAPeer(address caller);
    error RoleMissing();
    error EncryptionKeyMissing();
    error SignerTaken(address signer);
    error StakeBelowMinimum(uint256 given, uint256 needed);
    error CommitteeMismatch(uint64 epoch, bytes32 given);
    error ThresholdTooLow(uint256 threshold, uint256 signers);
    error TooManySigners(uint256 given, uint256 max);
    error SignersNotAscending(uint256 seat);
    error NotEnoughSignatures(uint256 given, uint256 needed);
    error BadSigner(uint256 seat, address recovered, address expected);
    error SignaturesMalformed(uint256 length);
    error BitmapOutOfRange(uint32 bitmap, uint256 seats);
    error SeatVacant(uint32 seats);
    error NoSuchSeat(uint64 epoch, uint256 seat);
    error EpochNotActive(uint64 epoch);
    error TooManySeatsChanged(uint256 changed, uint256 max);
    error TooEarly(uint256 notBefore);
    error NotEquivocation();
    error ExitPending(address account, uint40 exitAt);
    error ExitNotRequested(address account);

    /* MEMBERS: stake comes from the caller's free balance in the vault */

    /// @notice One account, one role, one signer; `stake` with what is staked already must reach the role's minimum.
    /// @dev A signer key is never freed, so an old verdict always finds the account that answers for it.
    function join(Role role, address signer, bytes32 encryptionKey, uint256 stake, string calldata url) external;
    /// @notice A new signer key takes a seat with the next epoch; seats of the old key count until then.
    function update(address signer, bytes32 encryptionKey, string calldata url) external;
    function addStake(uint256 amount) external;
    /// @notice Starts the 90 days after which the stake may leave. The caller's seats stop counting at once, and every case lasts less
    /// than that, so that nothing it signed is still open when the stake leaves.
    function requestExit() external;
    /// @notice Stake back to the free balance. A fingerprinter with deposits locked in open orders waits for them.
    function leave() external;

    /* ORACLE_ADMIN */

    /// @notice Names the next epoch: signers ascending, 2k > n, k >= the deployment's minimum; at most a third of the seats change
    /// (at least one may), active after the announcement delay (the first epoch at once). Present seats that cannot be named again
    /// (key replaced, leaving, stake too small) do not count: each may go, and one more new seat may come for it.
    /// @dev A signer key belongs to whoever joined with it first: look at `accountOfSigner` before naming it.
    function announceEpoch(address[] calldata signers, uint8 threshold) external returns (uint64 epoch);
    /// @notice Anyone, from `activeFrom` on. The epoch before counts on for the overlap (14 d, or the announcement delay if that is
    /// shorter), the one before that no longer.
    function activateEpoch(uint64 epoch) external;
    /// @notice Fixes the hidden test cases of an epoch by their Merkle root; leaf = H(salt, evidence hash, expected integers).
    function commitCanaries(uint64 epoch, bytes32 root) external;

    /* SIGNATURES */

    /// @notice Reverts unless the signers whose bits are set signed `digest` and are at least the epoch's threshold.
    /// @param signers the whole list of the epoch; @param signatures 65 bytes r|s|v each, low s, in bit order
    function verify(uint64 epoch, bytes32 digest, address[] calldata signers, uint32 bitmap, bytes calldata signatures)
        external
        view
        returns (uint256 count);
    /// @notice Two verdicts (abi.encode(Verdict)) on one case, signed by one operator, that differ in decision or license: its whole
    /// free stake goes to the treasury.
    function proveEquivocation(bytes calldata verdictA, bytes calldata signatureA, bytes calldata verdictB, bytes calldata signatureB)
        external;

    /* COURT */

    /// @notice Takes total / (number of seats in `bitmap`) from each of these operators, as far as their free stake reaches.
    function slashSigners(bytes32 caseId, uint64 epoch, uint32 bitmap, uint256 total, address to) external returns (uint256 slashed);

    /* VIEWS */

    function currentEpoch() external view returns (uint64);
    /// @notice keccak256(abi.encode(address[] signers, uint8 threshold))
    function committeeHash(uint64 epoch) external view returns (bytes32);
    function threshold(uint64 epoch) external view returns (uint8);
    function signersOf(uint64 epoch) external view returns (address[] memory);
    /// @notice Account that answers for a seat.
    function accountAt(uint64 epoch, uint256 seat) external view returns (address);
    /// @notice Seats of members that asked to leave: their signatures do not count.
    function vacatedSeats(uint64 epoch) external view returns (uint32 bitmap);
    /// @notice Active, or replaced less than the overlap ago.
    function epochCounts(uint64 epoch) external view returns (bool);
    function activeFrom(uint64 epoch) external view returns (uint40);
    function memberOf(address account) external view returns (Member memory);
    function accountOfSigner(address signer) external view returns (address);
    function minStake(Role role) external view returns (uint256);
}
