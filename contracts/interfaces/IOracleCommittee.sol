// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice Whose signatures count. An operator is an account that staked; its signer key signs verdicts; a seat is a signer's place in
/// the ordered list of an epoch, of which the contract keeps the hash.
interface IOracleCommittee {
    enum Role {
        NONE,
        OPERATOR,
        FINGERPRINTER
    }

    struct Member {
        Role role;
        address signer; // EOA; signs verdicts (operators) or orders (fingerprinters)
        uint40 exitAt; // 0: not leaving
        uint40 lastSignedUntil; // unix seconds until which signed cases may still be open
        bytes32 encryptionKey; // X25519 public key
    }

    event MemberJoined(address indexed account, Role indexed role, address signer, bytes32 encryptionKey, string url);
    event MemberUpdated(address indexed account, address signer, bytes32 encryptionKey, string url);
    event ExitRequested(address indexed account, uint40 exitAt);
    event MemberLeft(address indexed account);
    event EpochAnnounced(uint64 indexed epoch, address[] signers, uint8 threshold, uint40 activeFrom);
    event EpochActivated(uint64 indexed epoch, bytes32 committeeHash);
    event CanariesCommitted(uint64 indexed epoch, bytes32 root);
    event Equivocated(address indexed account, bytes32 indexed caseId, uint256 slashed);
    event SignersSlashed(bytes32 indexed caseId, uint256 slashed);

    error AlreadyMember(address account);
    error NotAMember(address account);
    error NotAPeer(address caller);
    error SignerTaken(address signer);
    error StakeBelowMinimum(uint256 given, uint256 needed);
    error CommitteeMismatch(uint64 epoch, bytes32 given);
    error ThresholdTooLow(uint256 threshold, uint256 signers);
    error TooManySigners(uint256 given, uint256 max);
    error NotEnoughSignatures(uint256 given, uint256 needed);
    error BadSigner(uint256 seat, address recovered, address expected);
    error SignaturesMalformed(uint256 length);
    error EpochNotActive(uint64 epoch);
    error TooManySeatsChanged(uint256 changed, uint256 max);
    error TooEarly(uint256 notBefore);
    error NotEquivocation();
    error ExitPending(address account, uint40 exitAt);

    /* MEMBERS: stake comes from the caller's free balance in the vault */

    function join(Role role, address signer, bytes32 encryptionKey, uint256 stake, string calldata url) external;
    function update(address signer, bytes32 encryptionKey, string calldata url) external;
    function addStake(uint256 amount) external;
    function requestExit() external;
    function leave() external;

    /* ORACLE_ADMIN */

    /// @notice Seats by signer, ascending; 2k > n, and k >= 3 outside development chains (k >= minThreshold set at deployment).
    function announceEpoch(address[] calldata signers, uint8 threshold) external returns (uint64 epoch);
    /// @notice Anyone, from `activeFrom` on (at once for the first epoch).
    function activateEpoch(uint64 epoch) external;
    function commitCanaries(uint64 epoch, bytes32 root) external;

    /* SIGNATURES */

    /// @notice Reverts unless the signers whose bits are set signed `digest` and are at least the epoch's threshold.
    /// @param signers the whole list of the epoch; @param signatures 65 bytes r|s|v each, in bit order
    function verify(uint64 epoch, bytes32 digest, address[] calldata signers, uint32 bitmap, bytes calldata signatures)
        external
        view
        returns (uint256 count);
    /// @notice Two verdict struct digests of one case, signed by one seat, that differ in decision or license: slashes the signer.
    function proveEquivocation(bytes calldata verdictA, bytes calldata signatureA, bytes calldata verdictB, bytes calldata signatureB)
        external;

    /* COURT */

    /// @notice Remembers until when the signers may not leave.
    function bindSigners(uint64 epoch, address[] calldata signers, uint32 bitmap, uint40 until) external;
    function slashSigners(bytes32 caseId, uint64 epoch, address[] calldata signers, uint32 bitmap, uint256 total, address to)
        external
        returns (uint256 slashed);

    /* VIEWS */

    function currentEpoch() external view returns (uint64);
    function committeeHash(uint64 epoch) external view returns (bytes32);
    function threshold(uint64 epoch) external view returns (uint8);
    /// @notice Active, or replaced less than the overlap (14 d) ago.
    function epochCounts(uint64 epoch) external view returns (bool);
    function memberOf(address account) external view returns (Member memory);
    function accountOfSigner(address signer) external view returns (address);
    function minStake(Role role) external view returns (uint256);
}
