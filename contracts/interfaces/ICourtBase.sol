// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

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
    SERVING,
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

/// @notice Fixed at deployment, the same for the court and its extension.
struct CourtPeers {
    address vault;
    address licenses;
    address models;
    address committee;
    address appealAuthority; // an arbitrator that ORACLE_ADMIN does not appoint
    address lastInstance;
}

/// @notice What the court and its extension share.
interface ICourtBase {
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
    /// @dev Not for EXECUTED, which the vault's CaseExecuted tells.
    event VerdictFinal(bytes32 indexed caseId, CaseState state);
    /// @param encryptionKey X25519 public key to which the evidence is to be sealed; @param serveBy court time, the last second for it
    event ServiceRequested(bytes32 indexed caseId, address indexed accused, bytes32 encryptionKey, uint40 serveBy);
    /// @param digest CIDv0 digest of the evidence, sealed to the accused; @param until when the window that starts anew ends, court time
    event Served(bytes32 indexed caseId, address indexed by, bytes32 digest, uint40 until);
    /// @param verdict the passing probe
    event Cured(bytes32 indexed caseId, uint256 indexed licenseId, bytes32 verdictHash, Verdict verdict, uint32 bitmap);
    /// @param leaf plain leaf of the chunk under the license's copy root; its bytes are in the transaction's calldata
    event ChunkOpened(bytes32 indexed caseId, uint256 indexed licenseId, uint32 index, bytes32 leaf);
    /// @param costs paid to the deciding body, @param slashed to the treasury, both from the fingerprinter's stake
    event FaultFound(bytes32 indexed caseId, address indexed fingerprinter, uint256 costs, uint256 slashed);
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
    error NotAllowedToServe(address caller);
    error ServiceAskedBefore(bytes32 caseId);
    error NothingToServe(bytes32 caseId);
    error NothingToCure(bytes32 caseId);
    error EncryptionKeyMissing();
    error ChunkNotInCopy(uint256 licenseId, bytes32 computedRoot, bytes32 copyRoot);
    error NoChunkOpened(bytes32 caseId);
    error NoSuchDuty(uint256 licenseId);
    error OnlyThroughCourt();
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
}
