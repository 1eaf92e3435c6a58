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
    address accused; // holder of the license at opening, 0 if none
    uint96 bond; // R, wei
    bytes32 evidenceHash; // sha256(reporter | salt | canonical root of the evidence), see docs/protocol.md
    bytes32 evidenceDigest; // sha2-256 digest of the CIDv0 of the evidence, sealed to the committee
    uint64 epoch; // committee that may decide
    address authority; // the one appeal authority of this case
    uint40 openedAt;
    uint40 postBy;
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
    uint32 samples; // integers the statistic is over
    uint8 bucket; // -log10 p_global rounded down to 0, 12, 20 or 40
    uint64 epoch;
    uint40 deadline;
}

interface IMisuseCourt {
    event CaseOpened(bytes32 indexed caseId, uint256 indexed licenseId, address indexed reporter, CaseFile file);
    /// @param baseDigest CIDv0 digest of the base tensors of the declared range, sealed to the case's committee
    event ShareOpened(bytes32 indexed caseId, uint256 indexed licenseId, uint8 index, bytes32 seed, bytes32 baseDigest);
    event VerdictPosted(bytes32 indexed caseId, Decision indexed decision, bytes32 verdictHash, Verdict verdict, uint32 bitmap, uint40 challengeUntil);
    event Challenged(bytes32 indexed caseId, address indexed challenger, uint256 bond, uint40 ruleBy);
    event Escalated(bytes32 indexed caseId, uint40 ruleBy);
    event Ruled(bytes32 indexed caseId, address indexed authority, bool upheld);
    event VerdictFinal(bytes32 indexed caseId, CaseState state);
    event Executed(bytes32 indexed caseId, uint256 indexed licenseId, uint256 slashed, uint256 toReporter);
    event Slashed(uint256 indexed licenseId, bytes32 indexed caseId, uint256 amount);
    event FeeClaimed(bytes32 indexed caseId, address indexed account, uint256 amount);
    event DefenceFiled(bytes32 indexed caseId, address indexed accused, bytes32 digest);

    error WrongCaseState(bytes32 caseId, CaseState given, CaseState needed);
    error ReportBondTooSmall(uint256 given, uint256 needed);
    error LicenseNotAccusable(uint256 licenseId);
    error MarkTooYoung(uint256 licenseId, uint256 notBefore);
    error CaseAlreadyOpen(bytes32 caseId);
    error ShareAlreadyOpened(uint256 licenseId, uint8 index);
    error ShareNotInCommit(uint256 licenseId, uint8 index);
    error ShareNotOpened(bytes32 caseId, uint8 index);
    error NotTheFingerprinter(address caller, address fingerprinter);
    error VerdictMismatch(bytes32 caseId);
    error EvidenceTooWeak(uint8 bucket, uint8 needed);
    error TooEarly(uint256 notBefore);
    error TooLate(uint256 deadline);
    error NotAllowedToChallenge(address caller);
    error NotTheAuthority(address caller, address authority);
    error AlreadyCounted(bytes32 nullifier);
    error WrongKind(Kind given);
    error NothingToClaim(bytes32 caseId, address account);
    error NotASigner(address caller);

    /// @notice The bond R is taken from the reporter's free balance in the vault (send value to top it up in the same call).
    function openCase(uint256 licenseId, uint64 modelId, Kind kind, bytes32 evidenceHash, bytes32 evidenceDigest, uint96 bond)
        external
        payable
        returns (bytes32 caseId);
    /// @notice The license's fingerprinter opens one unused share of the confirm mark, after the case fixed its evidence.
    function openShare(
        CaseFile calldata file, LicenseRecord calldata record, uint8 index, bytes32 seed, bytes32[] calldata proof, bytes32 baseDigest
    ) external;
    function postVerdict(
        CaseFile calldata file, Verdict calldata verdict, address[] calldata signers, uint32 bitmap, bytes calldata signatures
    ) external;
    /// @notice Nobody posted in time: the reporter's bond goes back.
    function lapse(CaseFile calldata file) external;
    /// @notice The accused (guilty; the first third of the window is his alone), the reporter (not guilty), with bond C.
    function challenge(CaseFile calldata file, Verdict calldata verdict) external payable;
    function rule(CaseFile calldata file, Verdict calldata verdict, bool uphold, address[] calldata signers, uint32 bitmap) external;
    /// @notice The authority was silent: the last instance may rule for 14 d.
    function escalate(CaseFile calldata file) external;
    /// @notice Silent again: cleared without prejudice.
    function clearSilent(CaseFile calldata file, Verdict calldata verdict) external;
    /// @notice Ends a posted verdict whose window is over: FINAL_GUILTY, DISMISSED or CLOSED, with the money table's payments.
    function finalize(CaseFile calldata file, Verdict calldata verdict) external;
    /// @notice Anyone: slashes, revokes, pays. Finalizes first where the window is over.
    function execute(CaseFile calldata file, Verdict calldata verdict) external;
    /// @notice A signer of the posted verdict takes its part of the fee.
    function claimFee(CaseFile calldata file, Verdict calldata verdict, address[] calldata signers, uint32 bitmap, uint256 seat) external;
    /// @notice No share was opened in time for a LEAK case: the fingerprinter's stake pays.
    function shareMissed(CaseFile calldata file, LicenseRecord calldata record) external;
    function fileDefence(CaseFile calldata file, bytes32 digest) external;

    function caseState(bytes32 caseId) external view returns (CaseState state, Decision decision, uint40 until, uint8 shareIndex);
    function caseIdOf(CaseFile calldata file) external pure returns (bytes32);
    function verdictDigest(Verdict calldata verdict) external view returns (bytes32);
    function minReportBond() external view returns (uint256);
    function sharesOpened(uint256 licenseId) external view returns (uint16 bitmap);
    function slashedFor(uint256 licenseId, Kind kind) external view returns (uint256);
}
