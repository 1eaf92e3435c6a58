// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Order} from "./IEscrowBase.sol";
import {CaseFile, Decision, Verdict} from "./ICourtBase.sol";

/// @notice A hidden test case: its evidence was made by whoever committed the root, so the right verdict is known.
/// @dev leaf = keccak256(abi.encode(keccak256("zhiyi.canary.v1"), salt, evidenceHash, decision, bucket, samples)); nodes hash sorted pairs.
struct Canary {
    bytes32 root;
    bytes32 salt; // keeps the leaves of a small tree from being guessed
    Decision decision;
    uint8 bucket;
    uint32 samples;
    bytes32[] path;
}

/// @notice Whose signatures count. An operator is an account that staked; its signer key signs verdicts; a seat is a signer's place in
/// the ascending list of an epoch. Verdicts bring that list, of which one slot holds the hash.
interface IOracleCommittee {
    enum Role {
        NONE,
        OPERATOR,
        FINGERPRINTER
    }

    enum CanaryState {
        NONE,
        ACCUSED,
        CONTESTED,
        ENDED
    }

    struct Member {
        Role role;
        address signer; // EOA; signs verdicts (a fingerprinter's orders are signed by its account)
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
    /// @param until court time, last second in which the operator may contest
    event CanaryAccused(address indexed account, bytes32 indexed caseId, bytes32 root, Decision decision, uint8 bucket, uint32 samples, uint40 until);
    /// @param digest CIDv0 digest of the operator's answer; @param until court time, last second for the appeal authority
    event CanaryContested(address indexed account, bytes32 indexed caseId, bytes32 digest, uint40 until);
    event CanaryEnded(address indexed account, bytes32 indexed caseId, bool upheld, uint256 slashed);
    /// @param licenseId under which two copies were signed
    event DoubleCopied(address indexed account, uint256 indexed licenseId, uint256 slashed);
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
    error TooLate(uint256 deadline);
    error NotInPossession(address signer);
    error Barred(address account);
    error NotAFingerprinter(address account);
    error NotADoubleCopy();
    error CanariesKnown(bytes32 root);
    error NotACanary(bytes32 root);
    error CanaryTooYoung(uint256 committedAt, uint256 openedAt);
    error CaseMismatch(bytes32 caseId);
    error VerdictAsExpected(bytes32 caseId);
    error WrongCanaryState(address account, bytes32 caseId, CanaryState given, CanaryState needed);
    error AccusationPending(address account, uint256 count);
    error NotTheAuthority(address caller, address authority);
    error NotEquivocation();
    error ExitPending(address account, uint40 exitAt);
    error ExitNotRequested(address account);

    /* MEMBERS: stake comes from the caller's free balance in the vault */

    /// @notice One account, one role, one signer; `stake` with what is staked already must reach the role's minimum.
    /// @param deadline unix seconds, last second in which `possession` counts
    /// @param possession 65 bytes by the signer key over SignerPossession(address account,uint40 deadline), domain "ZhiYiChain
    /// OracleCommittee", version "1", so that nobody joins with a key that is not his; left out where the signer is the caller itself
    /// @dev A signer key is never freed, so an old verdict always finds the account that answers for it.
    function join(
        Role role,
        address signer,
        bytes32 encryptionKey,
        uint256 stake,
        string calldata url,
        uint40 deadline,
        bytes calldata possession
    ) external;
    /// @notice A new signer key takes a seat with the next epoch; seats of the old key count until then. No possession is asked for a
    /// key that the account has had before.
    function update(
        address signer, bytes32 encryptionKey, string calldata url, uint40 deadline, bytes calldata possession
    ) external;
    function addStake(uint256 amount) external;
    /// @notice Starts the 90 days after which the stake may leave. The caller's seats stop counting at once, and every case lasts less
    /// than that, so that nothing it signed is still open when the stake leaves.
    function requestExit() external;
    /// @notice Stake back to the free balance. A fingerprinter with deposits locked in open orders waits for them, an operator for the
    /// end of every accusation by a canary.
    function leave() external;

    /* ORACLE_ADMIN */

    /// @notice Names the next epoch: signers ascending, 2k > n, k >= the deployment's minimum; at most a third of the seats change
    /// (at least one may), active after the announcement delay (the first epoch at once). Present seats that cannot be named again
    /// (key replaced, leaving, stake too small) do not count: each may go, and one more new seat may come for it.
    function announceEpoch(address[] calldata signers, uint8 threshold) external returns (uint64 epoch);
    /// @notice Anyone, from `activeFrom` on. The epoch before counts on for the overlap (14 d, or the announcement delay if that is
    /// shorter), the one before that no longer.
    function activateEpoch(uint64 epoch) external;
    /// @notice Fixes the hidden test cases of an epoch by their Merkle root, with the block's time; see `Canary`. A root is committed once.
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

    /// @notice Anyone who holds two orders that one fingerprinter signed under one license id, for another copy or another buyer: its
    /// whole free stake goes to the treasury and it never makes a copy again. May be called again when a locked deposit came free.
    /// @dev The escrow lets one of them settle at most; the other copy would name its buyer in a leak of the first.
    function proveDoubleCopy(Order calldata orderA, bytes calldata signatureA, Order calldata orderB, bytes calldata signatureB) external;

    /* CANARIES: whether operators look at what they sign */

    /// @notice Anyone who can open a canary committed before the case was opened, with an operator's signature over a verdict on that
    /// case whose decision, bucket or samples are not those expected. Once an account and case; the operator may contest for 7 days.
    /// Nobody pays unless the appeal authority finds the expectation right: whoever commits canaries could expect nonsense.
    function accuseCanary(CaseFile calldata file, Verdict calldata verdict, bytes calldata signature, Canary calldata expected) external;
    /// @notice The accused operator answers (CIDv0 digest); the authority's 14 days begin.
    function contestCanary(bytes32 caseId, bytes32 digest) external;
    /// @notice The court's appeal authority, after running the pinned detector again, once the operator has answered or could have.
    /// Upheld: a fifth of the minimum stake goes to the treasury.
    function ruleCanary(address account, bytes32 caseId, bool upheld) external;
    /// @notice Anyone, when the authority's time is over: the accusation is dropped.
    function endCanary(address account, bytes32 caseId) external;

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
    /// @notice EIP-712 digest by which a signer key says that it is `account`'s.
    function possessionDigest(address account, uint40 deadline) external view returns (bytes32);
    /// @notice Unix seconds; 0 for a root that was not committed.
    function canariesCommittedAt(bytes32 root) external view returns (uint40);
    /// @param until court time, see MisuseCourt.clock
    function canaryAccusation(address account, bytes32 caseId) external view returns (CanaryState state, uint40 until);
    /// @notice Accusations by canaries that have not ended.
    function accusations(address account) external view returns (uint256);
    /// @notice Whether the account signed two copies under one license id.
    function barred(address account) external view returns (bool);
}
