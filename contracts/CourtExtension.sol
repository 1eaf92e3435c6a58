// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {
    CaseFile,
    CaseState,
    CourtParams,
    CourtPeers,
    Decision,
    Kind,
    Verdict
} from "./interfaces/ICourtBase.sol";
import {ICourtExtension} from "./interfaces/ICourtExtension.sol";
import {LicenseRecord} from "./interfaces/ILicenseNFT.sol";
import {Bond} from "./interfaces/IVault.sol";
import {CourtMoney} from "./libraries/CourtMoney.sol";
import {FairDelivery} from "./libraries/FairDelivery.sol";
import {CourtBase} from "./CourtBase.sol";

/// @notice The other half of MisuseCourt: serving, defences, exits by time, pauses, views. Runs by delegatecall on the court's storage;
/// called directly it refuses, and no peer knows it.
contract CourtExtension is ICourtExtension, CourtBase {
    bytes32 private constant CURE_DOMAIN = keccak256("zhiyi.cure.v1");
    /// @dev After a clearing without ruling the matter may be brought again before the bond leaves.
    uint40 private constant AFTERMATH = 14 days;
    uint40 private constant MAX_PAUSE = 7 days;
    uint40 private constant PAUSE_PERIOD = 30 days;
    /// @dev In place of the time to cure while the accused waits to be served.
    uint40 private constant WAITING = type(uint40).max;

    address private immutable SELF = address(this);

    /// @dev On every function that writes.
    modifier throughCourt() {
        require(address(this) != SELF, OnlyThroughCourt());
        _;
    }

    constructor(address authority, CourtPeers memory peers, CourtParams memory p) CourtBase(authority, peers, p) {}

    /* SERVING */

    /// @inheritdoc ICourtExtension
    function requestService(CaseFile calldata file, bytes32 encryptionKey) external throughCourt {
        bytes32 caseId = _idOf(file);
        Case memory c = _load(caseId);
        require(
            c.state == CaseState.POSTED || c.state == CaseState.CHALLENGED,
            WrongCaseState(caseId, c.state, CaseState.POSTED)
        );
        bool accused = c.decision == Decision.GUILTY || (c.state == CaseState.CHALLENGED && c.decision == Decision.NOT_GUILTY);
        require(accused, NothingToServe(caseId));
        require(msg.sender == file.accused, NotTheAccused(msg.sender, file.accused));
        require(encryptionKey != 0, EncryptionKeyMissing());
        require(c.flags & SERVICE_ASKED == 0, ServiceAskedBefore(caseId));
        _before(c.until);
        if (_cureBy[caseId] >= _clock()) _cureBy[caseId] = WAITING;
        c.state = CaseState.SERVING;
        c.until = _clock() + SERVICE_TIME;
        c.flags |= uint16(SERVICE_ASKED);
        _save(caseId, c);
        emit ServiceRequested(caseId, msg.sender, encryptionKey, c.until);
    }

    /// @inheritdoc ICourtExtension
    function serve(CaseFile calldata file, uint256 seat, bytes32 digest) external throughCourt {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.SERVING);
        _before(c.until);
        require(msg.sender == file.reporter || _sitsAt(file.epoch, seat), NotAllowedToServe(msg.sender));
        // A guilty TERMS verdict is before the authority without a challenger.
        bool ruled = c.challenger != address(0) || (file.kind == Kind.TERMS && c.decision == Decision.GUILTY);
        c.state = ruled ? CaseState.CHALLENGED : CaseState.POSTED;
        c.until = _clock() + (ruled ? RULING_WINDOW : _challengeWindow(file.kind, c.decision));
        if (_cureBy[caseId] == WAITING) _cureBy[caseId] = _clock() + NOTICE;
        _save(caseId, c);
        emit Served(caseId, msg.sender, digest, c.until);
    }

    /// @inheritdoc ICourtExtension
    function clearUnserved(CaseFile calldata file) external throughCourt {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.SERVING);
        _after(c.until);
        _clearWithoutRuling(file, caseId, c);
    }

    /* DEFENCE */

    /// @inheritdoc ICourtExtension
    function fileDefence(CaseFile calldata file, bytes32 digest) external throughCourt {
        bytes32 caseId = _idOf(file);
        CaseState state = _load(caseId).state;
        require(
            state != CaseState.NONE && state <= CaseState.ESCALATED, WrongCaseState(caseId, state, CaseState.POSTED)
        );
        require(msg.sender == file.accused, NotTheAccused(msg.sender, file.accused));
        emit DefenceFiled(caseId, msg.sender, digest);
    }

    /// @inheritdoc ICourtExtension
    function cure(
        CaseFile calldata file, Verdict calldata verdict, address[] calldata signers, uint32 bitmap, bytes calldata signatures
    ) external throughCourt {
        bytes32 caseId = _idOf(file);
        Case memory c = _load(caseId);
        require(
            c.state >= CaseState.POSTED && c.state <= CaseState.FINAL_GUILTY,
            WrongCaseState(caseId, c.state, CaseState.POSTED)
        );
        require(_cureBy[caseId] != 0, NothingToCure(caseId));
        _before(_cureBy[caseId]);
        _checkPosting(verdict.deadline);
        require(
            verdict.caseId == cureIdOf(caseId) && verdict.licenseId == file.licenseId && verdict.kind == Kind.DISCLOSURE
                && verdict.decision == Decision.NOT_GUILTY && verdict.epoch >= file.epoch,
            VerdictMismatch(caseId)
        );
        bytes32 digest = _digestOf(verdict);
        COMMITTEE.verify(verdict.epoch, digest, signers, bitmap, signatures);
        emit Cured(caseId, file.licenseId, digest, verdict, bitmap);
        address challenger = c.state == CaseState.FINAL_GUILTY ? address(0) : c.challenger; // paid at the ruling
        _end(file, caseId, c, CaseState.CLOSED);
        _pay(caseId, file.reporter, _restOf(file, c));
        if (challenger != address(0)) _pay(caseId, challenger, CHALLENGE_BOND);
    }

    /// @inheritdoc ICourtExtension
    function openChunk(
        CaseFile calldata file, LicenseRecord calldata record, uint32 chunks, uint32 index, bytes calldata data, bytes32[] calldata path
    ) external throughCourt {
        (bytes32 caseId, Case memory c) = _undecided(file);
        require(file.kind == Kind.LEAK, WrongKind(file.kind));
        require(msg.sender == file.accused, NotTheAccused(msg.sender, file.accused));
        LICENSES.checkRecord(file.licenseId, record);
        bytes32 leaf = FairDelivery.plainLeafOf(index, data);
        bytes32 root = FairDelivery.rootOf(leaf, index, chunks, path);
        require(root == record.copyRoot, ChunkNotInCopy(file.licenseId, root, record.copyRoot));
        if (c.flags & CHUNK_OPENED == 0) {
            c.flags |= uint16(CHUNK_OPENED);
            _save(caseId, c);
        }
        emit ChunkOpened(caseId, file.licenseId, index, leaf);
    }

    /// @inheritdoc ICourtExtension
    function ruleFault(CaseFile calldata file, LicenseRecord calldata record) external throughCourt {
        (bytes32 caseId, Case memory c, address judge) = _judging(file);
        require(file.kind == Kind.LEAK, WrongKind(file.kind));
        require(c.decision == Decision.GUILTY && c.flags & CHUNK_OPENED != 0, NoChunkOpened(caseId));
        LICENSES.checkRecord(file.licenseId, record);
        emit Ruled(caseId, judge, false);
        address challenger = c.challenger;
        uint256 penalty = _penaltyFor(file.licenseId);
        _clear(file, caseId, c);
        _pay(caseId, challenger, CHALLENGE_BOND); // a LEAK case has a challenger where it is ruled on
        uint256 costs = VAULT.slashStake(record.fingerprinter, CHALLENGE_BOND, judge);
        uint256 slashed = VAULT.slashStake(record.fingerprinter, penalty, VAULT.treasury());
        emit FaultFound(caseId, record.fingerprinter, costs, slashed);
    }

    /* EXITS BY TIME */

    /// @inheritdoc ICourtExtension
    function lapse(CaseFile calldata file) external throughCourt {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.OPEN);
        _after(file.postBy);
        require(file.kind != Kind.LEAK || c.flags & SHARE_MASK != 0, ShareNeverOpened(caseId));
        _end(file, caseId, c, CaseState.LAPSED);
        _pay(caseId, file.reporter, file.bond);
    }

    /// @inheritdoc ICourtExtension
    function shareMissed(CaseFile calldata file, LicenseRecord calldata record) external throughCourt {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.OPEN);
        require(file.kind == Kind.LEAK, WrongKind(file.kind));
        _after(_shareBy(file));
        require(c.flags & SHARE_MASK == 0, ShareOpenedInTime(caseId));
        LICENSES.checkRecord(file.licenseId, record);
        c.decision = Decision.INCONCLUSIVE;
        _end(file, caseId, c, CaseState.CLOSED);
        uint256 slashed;
        // Nobody can open a share when all have been opened: no fault.
        if (_docketOf(file.licenseId).shares != type(uint16).max) {
            slashed = VAULT.slashStake(record.fingerprinter, _penaltyFor(file.licenseId), VAULT.treasury());
        }
        emit ShareMissed(caseId, record.fingerprinter, slashed);
        _pay(caseId, file.reporter, file.bond);
    }

    /// @inheritdoc ICourtExtension
    function escalate(CaseFile calldata file) external throughCourt {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.CHALLENGED);
        _after(c.until);
        c.state = CaseState.ESCALATED;
        c.until = _clock() + LAST_WINDOW;
        _save(caseId, c);
        emit Escalated(caseId, c.until);
    }

    /// @inheritdoc ICourtExtension
    function clearSilent(CaseFile calldata file) external throughCourt {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.ESCALATED);
        _after(c.until);
        _clearWithoutRuling(file, caseId, c);
    }

    /// @inheritdoc ICourtExtension
    function releaseHold(CaseFile calldata file) external throughCourt {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.CLEARED);
        require(c.flags & FREE == 0, NothingHeld(caseId));
        _after(c.until);
        c.flags |= uint16(FREE);
        _save(caseId, c);
        emit HoldReleased(caseId, file.licenseId);
        VAULT.unholdBond(file.licenseId);
    }

    /* PAUSER */

    /// @inheritdoc ICourtExtension
    function pausePosting(uint40 until) external throughCourt restricted {
        Pause memory pause = _pause;
        if (block.timestamp >= pause.periodStart + PAUSE_PERIOD) pause.periodStart = uint40(block.timestamp);
        uint40 max = pause.periodStart + MAX_PAUSE;
        require(until > block.timestamp && until <= max, PauseTooLong(until, max));
        pause.secondsBefore = _pausedSeconds();
        pause.from = uint40(block.timestamp);
        pause.until = until;
        _pause = pause;
        emit PostingPaused(msg.sender, until);
    }

    /// @inheritdoc ICourtExtension
    function resumePosting() external throughCourt restricted {
        require(block.timestamp < _pause.until, NotPaused());
        _pause.until = uint40(block.timestamp);
        emit PostingResumed(msg.sender);
    }

    /* VIEWS */

    /// @inheritdoc ICourtExtension
    function clock() external view returns (uint40) {
        return _clock();
    }

    /// @inheritdoc ICourtExtension
    function caseState(bytes32 caseId) external view returns (CaseState state, Decision decision, uint40 until, uint8 shareIndex) {
        Case memory c = _load(caseId);
        uint256 share = c.flags & SHARE_MASK;
        return (c.state, c.decision, c.until, share == 0 ? NO_SHARE : uint8(share - 1));
    }

    /// @inheritdoc ICourtExtension
    function caseDetail(bytes32 caseId) external view returns (address challenger, uint32 unpaidSeats, uint8 bucket, bool held) {
        Case memory c = _load(caseId);
        return (c.challenger, c.unpaidSeats, _bucketOf(c.flags), c.state != CaseState.NONE && c.flags & FREE == 0);
    }

    /// @inheritdoc ICourtExtension
    function defenceOf(bytes32 caseId) external view returns (bool serviceAsked, bool chunkOpened, uint40 cureBy) {
        uint16 flags = _load(caseId).flags;
        return (flags & SERVICE_ASKED != 0, flags & CHUNK_OPENED != 0, _cureBy[caseId]);
    }

    /// @inheritdoc ICourtExtension
    function caseIdOf(CaseFile calldata file) external pure returns (bytes32) {
        return _idOf(file);
    }

    /// @inheritdoc ICourtExtension
    function cureIdOf(bytes32 caseId) public pure returns (bytes32) {
        return keccak256(abi.encode(CURE_DOMAIN, caseId));
    }

    /// @inheritdoc ICourtExtension
    function verdictDigest(Verdict calldata verdict) external view returns (bytes32) {
        return _digestOf(verdict);
    }

    /// @inheritdoc ICourtExtension
    function params() external view returns (CourtParams memory) {
        return CourtParams({
            minReportBond: MIN_REPORT_BOND,
            feeBps: FEE_BPS,
            postWindow: POST_WINDOW,
            challengeWindow: CHALLENGE_WINDOW,
            rulingWindow: RULING_WINDOW,
            lastWindow: LAST_WINDOW,
            markAge: MARK_AGE,
            reporterBps: REPORTER_BPS,
            slashBps: [SLASH_BPS_12, SLASH_BPS_20, SLASH_BPS_40],
            challengeBond: CHALLENGE_BOND,
            missedSharePenalty: MISSED_SHARE_PENALTY
        });
    }

    /// @inheritdoc ICourtExtension
    function minReportBond() external view returns (uint256) {
        return MIN_REPORT_BOND;
    }

    /// @inheritdoc ICourtExtension
    function minReportBondFor(uint256 licenseId, Kind kind) external view returns (uint256) {
        return _leastBond(licenseId, kind, VAULT.bondOf(licenseId));
    }

    /// @inheritdoc ICourtExtension
    function sharesOpened(uint256 licenseId) external view returns (uint16) {
        return _docketOf(licenseId).shares;
    }

    /// @inheritdoc ICourtExtension
    function slashedFor(uint256 licenseId, Kind kind) external view returns (uint256) {
        if (kind == Kind.LEAK) return _docketOf(licenseId).slashedLeak;
        if (kind == Kind.TERMS) return _docketOf(licenseId).slashedTerms;
        return 0;
    }

    /// @inheritdoc ICourtExtension
    function leakBucket(uint256 licenseId) external view returns (uint8) {
        return _docketOf(licenseId).leakBucket;
    }

    /// @inheritdoc ICourtExtension
    function counted(uint256 id, bytes32 subject) external view returns (bool) {
        return _counted[id][subject];
    }

    /* INTERNAL */

    /// @dev A verdict was posted and is not final.
    function _undecided(CaseFile calldata file) private view returns (bytes32 caseId, Case memory c) {
        caseId = _idOf(file);
        c = _load(caseId);
        require(
            c.state >= CaseState.POSTED && c.state <= CaseState.ESCALATED,
            WrongCaseState(caseId, c.state, CaseState.POSTED)
        );
    }

    /// @dev The caller is the seat's account, which is never zero, or signs for it: an operator's service holds the signer's key only.
    function _sitsAt(uint64 epoch, uint256 seat) private view returns (bool) {
        address account = COMMITTEE.accountAt(epoch, seat);
        return msg.sender == account || COMMITTEE.accountOfSigner(msg.sender) == account;
    }

    function _clearWithoutRuling(CaseFile calldata file, bytes32 caseId, Case memory c) private {
        c.state = CaseState.CLEARED;
        c.until = _clock() + AFTERMATH;
        _save(caseId, c);
        emit VerdictFinal(caseId, CaseState.CLEARED);
        _unsuspend(file, caseId);
        _pay(caseId, file.reporter, _restOf(file, c));
        if (c.challenger != address(0)) _pay(caseId, c.challenger, CHALLENGE_BOND);
    }

    function _penaltyFor(uint256 licenseId) private view returns (uint256) {
        Bond memory held = VAULT.bondOf(licenseId);
        return CourtMoney.missedShareDown(MISSED_SHARE_PENALTY, held.tokenIndex == 0 ? held.amount : 0);
    }
}
