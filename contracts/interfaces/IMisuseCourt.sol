// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {LicenseRecord} from "./ILicenseNFT.sol";

enum Kind {
    NONE,
    LEAK,
    TERMS,
    DISCLOSURE,
    UNLICENSED,
    UNDECLARED_PARENT,
    OWNERSHIP
}

enum Decision {
    NONE,
    GUILTY,
    NOT_GUILTY,
    INCONCLUSIVE,
    UNAVAILABLE,
    UNLICENSED
}

enum CaseState {
    NONE,
    OPEN,
    POSTED,
    CHALLENGED,
    ESCALATED,
    FINAL_GUILTY,
    LAPSED,
    CLOSED,
    DISMISSED,
    CLEARED,
    EXECUTED
}

/// @notice A case as it was opened: its keccak256(abi.encode(...)) is the case id, so callers bring it and the contract keeps no copy.
struct CaseFile {
    Kind kind;
    uint64 modelId;
    uint256 licenseId; // 0 where no license is accused
    address reporter;
    address accused; // holder of the license at opening; owner of the model where that is accused; 0 if nobody
    uint96 bond; // R, wei
    bytes32 evidenceHash; // sha256(reporter | salt | canonical root of the evidence), see docs/protocol.md
    bytes32 evidenceDigest; // sha2-256 digest of the CIDv0 of the evidence, sealed to the committee
    uint64 epoch; // committee that may decide
    address authority; // the one appeal authority of this case
    uint40 openedAt; // unix seconds
    uint40 postBy; // court time, last second in which a verdict may be posted
}

struct Verdict {
    bytes32 caseId;
    uint256 licenseId;
    Kind kind;
    Decision decision;
    bytes32 evidenceHash;
    bytes32 subject; // canonical root of the object judged
    bytes32 detectorHash;
    uint8 shareIndex; // confirm share used; 255 where none
    uint32 samples; // integers the statistic is over (LEAK); distinct outputs (TERMS)
    uint8 bucket; // -log10 p_global rounded down to 0, 12, 20 or 40
    uint64 epoch;
    uint40 deadline;
}

/// @notice Fixed at deployment.
struct CourtParams {
    uint96 minReportBond; // wei; doubled for each case open on the license and, for LEAK, each share spent
    uint16 feeBps; // part f of the reporter's bond that the signers of a verdict earn
    uint40 postWindow; // seconds from opening to the last moment for a verdict, <= 14 d
    uint40 challengeWindow; // seconds; the first third belongs to the accused alone
    uint40 rulingWindow; // seconds the appeal authority has
    uint40 lastWindow; // seconds the last instance has
    uint40 markAge; // seconds a license must be older than a LEAK case against it
    uint16 reporterBps; // reporter's part of a slash, <= 1000
    uint16[3] slashBps; // of the original bond, for buckets 12, 20, 40; rising
    uint96 challengeBond; // C, wei
    uint96 missedSharePenalty; // wei; least that a fingerprinter's stake pays when it opens no share for a LEAK case
}

/// @notice What follows from a verdict.
///
/// A case moves OPEN -> POSTED -> (CHALLENGED -> ESCALATED) -> an end; callers bring the `CaseFile` of `CaseOpened`, the contract keeps one
/// word. Every state has an exit that anyone may call once its time is over. A deadline is the last second that counts, in court time:
/// unix seconds less the seconds for which posting was paused, see `clock`.
///
/// | end | reporter's bond R, less the signers' fee f | challenge bond C, license bond, stakes |
/// |---|---|---|
/// | LAPSED: no verdict in time | R back, no fee | - |
/// | CLOSED: no share in time | R back, no fee | fingerprinter's stake pays half the bond in native coin, at least a fixed penalty |
/// | CLOSED: inconclusive, unlicensed, already counted | to the reporter | C to the deciding body |
/// | CLOSED: evidence unavailable | to the treasury | - |
/// | DISMISSED | half to the accused, half to the treasury | C to the deciding body |
/// | EXECUTED | to the reporter | slash: reporter <= 10 %, model's royalties <= the price paid, treasury the rest; C to the deciding body |
/// | CLEARED by ruling | to the accused | C back; the deciding body is paid as much from the signers' stakes |
/// | CLEARED by silence | to the reporter | C back; the license bond stays 14 d more |
///
/// A ruling that turns "not guilty" into guilty returns C, too, at the signers' cost. Where nobody is accused, the treasury stands in.
interface IMisuseCourt {
    event CaseOpened(bytes32 indexed caseId, uint256 indexed licenseId, address indexed reporter, CaseFile file);
    /// @param baseDigest CIDv0 digest of the base tensors of the declared range, sealed to the case's committee
    event ShareOpened(bytes32 indexed caseId, uint256 indexed licenseId, uint8 index, bytes32 seed, bytes32 baseDigest);
    event ShareMissed(bytes32 indexed caseId, address indexed fingerprinter, uint256 slashed);
    /// @param challengeUntil for a TERMS case judged guilty: until when the appeal authority may rule, which it must
    event VerdictPosted(
        bytes32 indexed caseId, Decision indexed decision, bytes32 verdictHash, Verdict verdict, uint32 bitmap, uint40 challengeUntil
    );
    event Challenged(bytes32 indexed caseId, address indexed challenger, uint256 bond, uint40 ruleBy);
    event Escalated(bytes32 indexed caseId, uint40 ruleBy);
    event Ruled(bytes32 indexed caseId, address indexed authority, bool upheld);
    event VerdictFinal(bytes32 indexed caseId, CaseState state);
    /// @param slashed of the license bond, in the bond's token; @param toReporter of the reporter's own bond, wei
    event Executed(bytes32 indexed caseId, uint256 indexed licenseId, uint256 slashed, uint256 toReporter);
    event Slashed(uint256 indexed licenseId, bytes32 indexed caseId, uint256 amount);
    event FeeClaimed(bytes32 indexed caseId, address indexed account, uint256 amount);
    event DefenceFiled(bytes32 indexed caseId, address indexed accused, bytes32 digest);
    event HoldReleased(bytes32 indexed caseId, uint256 indexed licenseId);
    event PostingPaused(address indexed by, uint40 until);
    event PostingResumed(address indexed by);

    error ParamOutOfRange(string name, uint256 given, uint256 max);
    error WrongCaseState(bytes32 caseId, CaseState given, CaseState needed);
    error ReportBondTooSmall(uint256 given, uint256 needed);
    error LicenseNotAccusable(uint256 licenseId);
    error MarkTooYoung(uint256 licenseId, uint256 notBefore);
    error CaseAlreadyOpen(bytes32 caseId);
    error ShareAlreadyOpened(uint256 licenseId, uint8 index);
    error ShareNotInCommit(uint256 licenseId, uint8 index);
    error ShareNotOpened(bytes32 caseId, uint8 index);
    error ShareOpenedInTime(bytes32 caseId);
    error ShareNeverOpened(bytes32 caseId);
    error NotTheFingerprinter(address caller, address fingerprinter);
    error NotTheAccused(address caller, address accused);
    error VerdictMismatch(bytes32 caseId);
    error EvidenceTooWeak(uint8 bucket, uint8 needed);
    error TooFewSamples(uint32 given, uint32 needed);
    error TooEarly(uint256 notBefore);
    error TooLate(uint256 deadline);
    error NotAllowedToChallenge(address caller);
    error NotTheAuthority(address caller, address authority);
    error AlreadyCounted(uint256 licenseId);
    error NoShareLeft(uint256 licenseId);
    error WrongKind(Kind given);
    error PostingIsPaused(uint40 until);
    error PauseTooLong(uint40 until, uint40 max);
    error NotPaused();
    error NothingHeld(bytes32 caseId);
    error NothingToClaim(bytes32 caseId, uint256 seat);

    /* CASE */

    /// @notice The bond R is taken from the reporter's free balance in the vault; value sent is added to that balance first.
    /// LEAK, TERMS and DISCLOSURE name a settled license of the model; UNLICENSED, UNDECLARED_PARENT and OWNERSHIP name none.
    /// A LEAK case needs a license bond, a license older than `markAge` and an unopened confirm share.
    /// R must reach `minReportBondFor`.
    function openCase(uint256 licenseId, uint64 modelId, Kind kind, bytes32 evidenceHash, bytes32 evidenceDigest, uint96 bond)
        external
        payable
        returns (bytes32 caseId);
    /// @notice The license's fingerprinter opens one unused share of the confirm mark, after the case fixed its evidence and in the first
    /// half of the posting window, `postBy - postWindow / 2`: the other half is for measuring and posting.
    /// @param proof four nodes, index order: leaf = keccak256(abi.encode(keccak256("zhiyi.share.v1"), licenseId, index, seed)),
    /// node = keccak256(l | r)
    function openShare(
        CaseFile calldata file, LicenseRecord calldata record, uint8 index, bytes32 seed, bytes32[] calldata proof, bytes32 baseDigest
    ) external;
    /// @notice Anyone who holds k signatures of the case's committee over one verdict. Guilty needs bucket >= 12 (LEAK, TERMS), the share
    /// opened in this case (LEAK), three samples (TERMS, which then goes to the appeal authority); it suspends the license (DISCLOSURE).
    function postVerdict(
        CaseFile calldata file, Verdict calldata verdict, address[] calldata signers, uint32 bitmap, bytes calldata signatures
    ) external;
    /// @notice Anyone, after `postBy`: the reporter's bond goes back. A LEAK case without a share ends by `shareMissed` instead.
    function lapse(CaseFile calldata file) external;
    /// @notice Anyone, once the time to open a share in a LEAK case is over and none was: the fingerprinter's stake pays half the license
    /// bond where that is in the native coin, at least the fixed penalty and at most what is free (nothing where every share had been
    /// opened in other cases); the reporter's bond goes back.
    function shareMissed(CaseFile calldata file, LicenseRecord calldata record) external;
    /// @notice The accused names his defence (CIDv0 digest) to whoever decides.
    function fileDefence(CaseFile calldata file, bytes32 digest) external;

    /* APPEAL */

    /// @notice Guilty: anyone, in the first third of the window the accused alone. Not guilty: the reporter. The bond C is taken like R.
    function challenge(CaseFile calldata file) external payable;
    /// @notice The case's authority while CHALLENGED, the last instance while ESCALATED. A TERMS verdict of not guilty without a bucket
    /// that is overturned slashes by the table's lowest row.
    function rule(CaseFile calldata file, bool uphold) external;
    /// @notice Anyone: the authority was silent, the last instance may rule.
    function escalate(CaseFile calldata file) external;
    /// @notice Anyone: silent again, cleared without prejudice.
    function clearSilent(CaseFile calldata file) external;
    /// @notice Anyone, 14 d after a clearing by silence: the license bond is no longer held by this case.
    function releaseHold(CaseFile calldata file) external;

    /* END */

    /// @notice Anyone: ends a posted verdict whose window is over, with the payments of the table: FINAL_GUILTY, DISMISSED or CLOSED.
    function finalize(CaseFile calldata file) external;
    /// @notice Anyone: slashes, revokes, pays. Finalizes first where the window is over.
    /// Slash = min(table by bucket - already slashed for this kind, bond left); OWNERSHIP and UNDECLARED_PARENT leave a record only.
    function execute(CaseFile calldata file) external;
    /// @notice Anyone: the account behind a seat that signed the verdict gets its part of the fee.
    function claimFee(CaseFile calldata file, uint256 seat) external;

    /* PAUSER */

    /// @notice Stops posting and the court's clock until then, unix seconds; at most 7 days in 30.
    function pausePosting(uint40 until) external;
    function resumePosting() external;

    /* VIEWS */

    /// @notice Court time now.
    function clock() external view returns (uint40);
    /// @param shareIndex 255 where none was opened
    function caseState(bytes32 caseId) external view returns (CaseState state, Decision decision, uint40 until, uint8 shareIndex);
    /// @param unpaidSeats signers of the verdict that have not been paid; @param held the case holds the license bond
    function caseDetail(bytes32 caseId) external view returns (address challenger, uint32 unpaidSeats, uint8 bucket, bool held);
    function caseIdOf(CaseFile calldata file) external pure returns (bytes32);
    /// @notice EIP-712 digest that operators sign; domain "ZhiYiChain MisuseCourt", version "1".
    function verdictDigest(Verdict calldata verdict) external view returns (bytes32);
    function params() external view returns (CourtParams memory);
    /// @notice Rules on challenged verdicts; ORACLE_ADMIN does not appoint it.
    function APPEAL_AUTHORITY() external view returns (address);
    function minReportBond() external view returns (uint256);
    /// @notice Least R of the next case: doubled for each case that holds the license's bond now and, for LEAK, for each share ever
    /// opened, at most eight times. Spending a license's shares on purpose gets dear before they run out.
    function minReportBondFor(uint256 licenseId, Kind kind) external view returns (uint256);
    function sharesOpened(uint256 licenseId) external view returns (uint16 bitmap);
    function slashedFor(uint256 licenseId, Kind kind) external view returns (uint256);
    /// @notice Highest bucket of a final guilty LEAK verdict against the license; an equal or lower one does not count again.
    function leakBucket(uint256 licenseId) external view returns (uint8);
    /// @notice Whether a final guilty TERMS verdict counted this subject against the license.
    function counted(uint256 licenseId, bytes32 subject) external view returns (bool);
}
