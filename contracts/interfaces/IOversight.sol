// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

enum SubjectKind {
    MODEL,
    LICENSE
}

enum ComplaintOutcome {
    PENDING,
    UPHELD, // the regulator acted, or had it put right
    DISMISSED,
    REFERRED // to the court or to an authority outside
}

struct Complaint {
    SubjectKind kind;
    uint96 subjectId;
    uint40 filedAt; // unix seconds
    ComplaintOutcome outcome;
}

enum DemandState {
    NONE,
    OPEN,
    ANSWERED,
    UNANSWERED
}

struct Demand {
    SubjectKind kind;
    uint96 subjectId;
    uint40 answerBy; // unix seconds
    DemandState state;
    address addressee;
}

/// @notice What the public puts to the regulator and the regulator to owners and holders, with times that anyone can see missed.
interface IOversight {
    /// @param evidenceHash salted, of the complaint's papers
    /// @param cidDigest sha2-256 multihash digest of the CIDv0 under which they lie, encrypted where they must be
    event ComplaintFiled(
        uint64 indexed complaintId,
        SubjectKind kind,
        uint256 indexed subjectId,
        address indexed complainant,
        bytes32 evidenceHash,
        bytes32 cidDigest,
        uint40 answerDue
    );
    event ComplaintAnswered(uint64 indexed complaintId, address indexed by, ComplaintOutcome outcome, bytes32 reasonHash);
    /// @param addressee who owned the model or held the license then
    event DisclosureDemanded(
        uint64 indexed demandId,
        SubjectKind kind,
        uint256 indexed subjectId,
        address indexed addressee,
        address by,
        bytes32 reasonHash,
        uint40 answerBy
    );
    /// @param digest sha2-256 multihash digest of the CIDv0 of what was disclosed, encrypted to the regulator
    event DemandAnswered(uint64 indexed demandId, address indexed by, bytes32 digest);
    event DemandUnanswered(uint64 indexed demandId, address indexed addressee);

    error NoSuchSubject(SubjectKind kind, uint256 subjectId);
    error NoSuchComplaint(uint64 complaintId);
    error ComplaintIsAnswered(uint64 complaintId, ComplaintOutcome outcome);
    error AnswerIsPending();
    error NoSuchDemand(uint64 demandId);
    error DemandIsOver(uint64 demandId, DemandState state);
    error AnswerTimeOutOfRange(uint40 given, uint40 min, uint40 max);
    error NotTheAddressee(address caller, address addressee);
    error TooEarly(uint256 notBefore);
    error TooLate(uint256 deadline);

    /* COMPLAINTS */

    /// @notice Anyone, about a model or license that exists. The regulator owes an answer within 15 days.
    function fileComplaint(SubjectKind kind, uint256 subjectId, bytes32 evidenceHash, bytes32 cidDigest)
        external
        returns (uint64 complaintId);
    /// @notice REGULATOR, once; late answers count, and are seen to be late.
    function answerComplaint(uint64 complaintId, ComplaintOutcome outcome, bytes32 reasonHash) external;

    /* DISCLOSURE */

    /// @notice REGULATOR: asks whoever owns the model or holds the license now to disclose, by a time 1 to 30 days ahead. The duty does
    /// not pass with the token: who buys it is not the one on record as silent.
    function demandDisclosure(SubjectKind kind, uint256 subjectId, bytes32 reasonHash, uint40 answerBy)
        external
        returns (uint64 demandId);
    /// @notice The addressee, in time.
    function answerDemand(uint64 demandId, bytes32 digest) external;
    /// @notice Anyone, once the time is over: puts on record that there was no answer. Nothing else follows from it here.
    function markUnanswered(uint64 demandId) external;

    /* VIEWS */

    /// @notice Reverts for one that was never filed.
    function complaintOf(uint64 complaintId) external view returns (Complaint memory);
    /// @notice Whether the answer is late and still missing.
    function isOverdue(uint64 complaintId) external view returns (bool);
    /// @notice Reverts for one that was never made.
    function demandOf(uint64 demandId) external view returns (Demand memory);
    function complaintCount() external view returns (uint64);
    function demandCount() external view returns (uint64);
}
