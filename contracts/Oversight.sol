// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {IModelNFT} from "./interfaces/IModelNFT.sol";
import {Complaint, ComplaintOutcome, Demand, DemandState, IOversight, SubjectKind} from "./interfaces/IOversight.sol";

/// @notice The regulator's desk: complaints come in, demands for disclosure go out, and every missed time is on record. Holds no
/// money and moves no token; what the regulator may do to a model it does in ModelNFT.
contract Oversight is IOversight, AccessManaged {
    uint40 private constant COMPLAINT_TIME = 15 days;
    uint40 private constant MIN_ANSWER_TIME = 1 days;
    uint40 private constant MAX_ANSWER_TIME = 30 days;

    address public immutable models;
    address public immutable licenses;

    /// @inheritdoc IOversight
    uint64 public complaintCount;
    /// @inheritdoc IOversight
    uint64 public demandCount;
    mapping(uint64 complaintId => Complaint) private _complaints;
    mapping(uint64 demandId => Demand) private _demands;

    constructor(address authority_, address models_, address licenses_) AccessManaged(authority_) {
        models = models_;
        licenses = licenses_;
    }

    /* COMPLAINTS */

    /// @inheritdoc IOversight
    function fileComplaint(SubjectKind kind, uint256 subjectId, bytes32 evidenceHash, bytes32 cidDigest)
        external
        returns (uint64 complaintId)
    {
        _addressee(kind, subjectId);
        uint40 time = uint40(block.timestamp);
        complaintId = ++complaintCount;
        _complaints[complaintId] = Complaint(kind, uint96(subjectId), time, ComplaintOutcome.PENDING);
        emit ComplaintFiled(complaintId, kind, subjectId, msg.sender, evidenceHash, cidDigest, time + COMPLAINT_TIME);
    }

    /// @inheritdoc IOversight
    function answerComplaint(uint64 complaintId, ComplaintOutcome outcome, bytes32 reasonHash) external restricted {
        Complaint memory complaint = complaintOf(complaintId);
        if (complaint.outcome != ComplaintOutcome.PENDING) revert ComplaintIsAnswered(complaintId, complaint.outcome);
        if (outcome == ComplaintOutcome.PENDING) revert AnswerIsPending();
        _complaints[complaintId].outcome = outcome;
        emit ComplaintAnswered(complaintId, msg.sender, outcome, reasonHash);
    }

    /* DISCLOSURE */

    /// @inheritdoc IOversight
    function demandDisclosure(SubjectKind kind, uint256 subjectId, bytes32 reasonHash, uint40 answerBy)
        external
        restricted
        returns (uint64 demandId)
    {
        address addressee = _addressee(kind, subjectId);
        uint40 min = uint40(block.timestamp) + MIN_ANSWER_TIME;
        uint40 max = uint40(block.timestamp) + MAX_ANSWER_TIME;
        if (answerBy < min || answerBy > max) revert AnswerTimeOutOfRange(answerBy, min, max);
        demandId = ++demandCount;
        _demands[demandId] = Demand(kind, uint96(subjectId), answerBy, DemandState.OPEN, addressee);
        emit DisclosureDemanded(demandId, kind, subjectId, addressee, msg.sender, reasonHash, answerBy);
    }

    /// @inheritdoc IOversight
    function answerDemand(uint64 demandId, bytes32 digest) external {
        Demand memory demand = _openDemand(demandId);
        if (block.timestamp > demand.answerBy) revert TooLate(demand.answerBy);
        if (msg.sender != demand.addressee) revert NotTheAddressee(msg.sender, demand.addressee);
        _demands[demandId].state = DemandState.ANSWERED;
        emit DemandAnswered(demandId, msg.sender, digest);
    }

    /// @inheritdoc IOversight
    function markUnanswered(uint64 demandId) external {
        Demand memory demand = _openDemand(demandId);
        if (block.timestamp <= demand.answerBy) revert TooEarly(uint256(demand.answerBy) + 1);
        _demands[demandId].state = DemandState.UNANSWERED;
        emit DemandUnanswered(demandId, demand.addressee);
    }

    /* VIEWS */

    /// @inheritdoc IOversight
    function complaintOf(uint64 complaintId) public view returns (Complaint memory complaint) {
        complaint = _complaints[complaintId];
        if (complaint.filedAt == 0) revert NoSuchComplaint(complaintId);
    }

    /// @inheritdoc IOversight
    function isOverdue(uint64 complaintId) external view returns (bool) {
        Complaint memory complaint = complaintOf(complaintId);
        return complaint.outcome == ComplaintOutcome.PENDING && block.timestamp > complaint.filedAt + COMPLAINT_TIME;
    }

    /// @inheritdoc IOversight
    function demandOf(uint64 demandId) public view returns (Demand memory demand) {
        demand = _demands[demandId];
        if (demand.state == DemandState.NONE) revert NoSuchDemand(demandId);
    }

    /* INTERNAL */

    function _openDemand(uint64 demandId) private view returns (Demand memory demand) {
        demand = demandOf(demandId);
        if (demand.state != DemandState.OPEN) revert DemandIsOver(demandId, demand.state);
    }

    /// @dev Reverts for a subject that does not exist. None ever stops existing: neither token is burned.
    function _addressee(SubjectKind kind, uint256 subjectId) private view returns (address) {
        if (kind == SubjectKind.LICENSE) return IERC721(licenses).ownerOf(subjectId);
        if (subjectId > type(uint64).max) revert NoSuchSubject(kind, subjectId);
        return IModelNFT(models).statusOf(uint64(subjectId)).owner;
    }
}
