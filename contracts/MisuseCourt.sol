// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ILicenseEscrow} from "./interfaces/ILicenseEscrow.sol";
import {OrderState} from "./interfaces/IEscrowBase.sol";
import {ILicenseNFT, LicenseEnd, LicenseRecord} from "./interfaces/ILicenseNFT.sol";
import {CaseFile, CaseState, CourtParams, Decision, IMisuseCourt, Kind, Verdict} from "./interfaces/IMisuseCourt.sol";
import {IModelNFT} from "./interfaces/IModelNFT.sol";
import {IOracleCommittee} from "./interfaces/IOracleCommittee.sol";
import {Bond, IVault} from "./interfaces/IVault.sol";
import {CourtMoney} from "./libraries/CourtMoney.sol";
import {MarkShares} from "./libraries/MarkShares.sol";

/// @title MisuseCourt
/// @notice Decides what follows from a verdict. Holds no money. Its one power: PAUSER stops the posting of verdicts, at most 7 days in 30,
/// and the court's clock with it. Nobody can decide a case, change a window or move a bond.
contract MisuseCourt is IMisuseCourt, AccessManaged, EIP712, ReentrancyGuardTransient {
    /// @dev Packed into one word, this order, first field in the low bits. An empty word is a case that is OPEN, and holds the license
    /// bond, if the vault holds a bond for it: opening writes no word (22k gas), the first step after it does.
    struct Case {
        address challenger; // 0: nobody challenged
        uint40 until; // deadline of the present state; while CLEARED and held: when the hold ends
        uint32 unpaidSeats; // signers of the verdict, less those that took their fee
        CaseState state;
        Decision decision;
        uint8 flags; // share + 1: bits 0-4, row of the slash table: bits 5-6, does not hold the license bond: bit 7
    }

    /// @dev One word a license.
    struct Docket {
        uint96 slashedLeak; // smallest unit of the bond's token
        uint96 slashedTerms;
        uint16 shares; // confirm shares opened, bit i for share i
        uint16 suspensions; // guilty DISCLOSURE verdicts not yet ended
        uint8 leakBucket; // highest bucket of a final guilty LEAK verdict
    }

    /// @dev One slot: every deadline reads it.
    struct Pause {
        uint40 until;
        uint40 from; // of the running or last pause
        uint40 periodStart;
        uint40 secondsBefore; // of all pauses before the running or last one
    }

    bytes32 private constant VERDICT_TYPEHASH = keccak256(
        "Verdict(bytes32 caseId,uint256 licenseId,uint8 kind,uint8 decision,bytes32 evidenceHash,bytes32 subject,bytes32 detectorHash,uint8 shareIndex,uint32 samples,uint8 bucket,uint64 epoch,uint40 deadline)"
    );
    /// @dev A label probe that failed can be answered within four days; then the suspended license may be revoked.
    uint40 private constant NOTICE = 96 hours;
    /// @dev After a clearing by silence the matter may be brought again before the bond leaves.
    uint40 private constant AFTERMATH = 14 days;
    /// @dev With the pauses that fall into it (28 d at most) less than OracleCommittee.EXIT_DELAY: no stake leaves before its cases end.
    uint40 private constant MAX_CASE_LIFE = 60 days;
    uint40 private constant MAX_PAUSE = 7 days;
    uint40 private constant PAUSE_PERIOD = 30 days;
    /// @dev OracleCommittee.OVERLAP, where announcing takes as long: a committee replaced right after the opening still counts at `postBy`,
    /// pauses apart.
    uint40 private constant MAX_POST_WINDOW = 14 days;
    uint8 private constant WEAKEST_BUCKET = 12; // 2^-43 rounded down in -log10
    uint32 private constant MIN_TERMS_SAMPLES = 3; // one imprinted picture must not convict (WATERMARKS, Forgery)
    uint8 private constant NO_SHARE = 255;
    uint256 private constant SHARE_MASK = 0x1f;
    uint256 private constant ROW_SHIFT = 5;
    uint256 private constant FREE = 0x80;

    IVault public immutable VAULT;
    ILicenseNFT public immutable LICENSES;
    IModelNFT public immutable MODELS;
    IOracleCommittee public immutable COMMITTEE;
    ILicenseEscrow public immutable ESCROW;
    /// @inheritdoc IMisuseCourt
    address public immutable APPEAL_AUTHORITY;
    address public immutable LAST_INSTANCE;

    uint96 private immutable MIN_REPORT_BOND;
    uint96 private immutable CHALLENGE_BOND;
    uint96 private immutable MISSED_SHARE_PENALTY;
    uint40 private immutable POST_WINDOW;
    uint40 private immutable CHALLENGE_WINDOW;
    uint40 private immutable RULING_WINDOW;
    uint40 private immutable LAST_WINDOW;
    uint40 private immutable MARK_AGE;
    uint16 private immutable FEE_BPS;
    uint16 private immutable REPORTER_BPS;
    uint16 private immutable SLASH_BPS_12;
    uint16 private immutable SLASH_BPS_20;
    uint16 private immutable SLASH_BPS_40;

    Pause private _pause;
    mapping(bytes32 caseId => uint256 word) private _cases;
    mapping(uint256 licenseId => Docket) private _dockets;
    mapping(bytes32 caseId => bytes32) private _subjects; // TERMS only
    /// @inheritdoc IMisuseCourt
    mapping(uint256 licenseId => mapping(bytes32 subject => bool)) public counted;

    constructor(
        address authority,
        address vault,
        address licenses,
        address models,
        address committee,
        address escrow,
        address appealAuthority,
        address lastInstance,
        CourtParams memory p
    ) AccessManaged(authority) EIP712("ZhiYiChain MisuseCourt", "1") {
        _atMost("feeBps", p.feeBps, CourtMoney.BPS);
        _atMost("reporterBps", p.reporterBps, 1000);
        _atMost("slashBps[2]", p.slashBps[2], CourtMoney.BPS);
        _atMost("slashBps[1]", p.slashBps[1], p.slashBps[2]);
        _atMost("slashBps[0]", p.slashBps[0], p.slashBps[1]);
        _atMost("postWindow", p.postWindow, MAX_POST_WINDOW);
        uint256 window = p.challengeWindow > NOTICE ? p.challengeWindow : NOTICE;
        _atMost("case life", p.postWindow + window + p.rulingWindow + p.lastWindow, MAX_CASE_LIFE);
        VAULT = IVault(vault);
        LICENSES = ILicenseNFT(licenses);
        MODELS = IModelNFT(models);
        COMMITTEE = IOracleCommittee(committee);
        ESCROW = ILicenseEscrow(escrow);
        APPEAL_AUTHORITY = appealAuthority;
        LAST_INSTANCE = lastInstance;
        MIN_REPORT_BOND = p.minReportBond;
        CHALLENGE_BOND = p.challengeBond;
        MISSED_SHARE_PENALTY = p.missedSharePenalty;
        POST_WINDOW = p.postWindow;
        CHALLENGE_WINDOW = p.challengeWindow;
        RULING_WINDOW = p.rulingWindow;
        LAST_WINDOW = p.lastWindow;
        MARK_AGE = p.markAge;
        FEE_BPS = p.feeBps;
        REPORTER_BPS = p.reporterBps;
        SLASH_BPS_12 = p.slashBps[0];
        SLASH_BPS_20 = p.slashBps[1];
        SLASH_BPS_40 = p.slashBps[2];
    }

    /* CASE */

    /// @inheritdoc IMisuseCourt
    function openCase(uint256 licenseId, uint64 modelId, Kind kind, bytes32 evidenceHash, bytes32 evidenceDigest, uint96 bond)
        external
        payable
        nonReentrant
        returns (bytes32 caseId)
    {
        (address accused, uint256 heldBy, bool hold) = _accuse(licenseId, modelId, kind);
        uint256 least = _leastBond(licenseId, kind, heldBy);
        require(bond != 0 && bond >= least, ReportBondTooSmall(bond, least));
        CaseFile memory file = CaseFile({
            kind: kind,
            modelId: modelId,
            licenseId: licenseId,
            reporter: msg.sender,
            accused: accused,
            bond: bond,
            evidenceHash: evidenceHash,
            evidenceDigest: evidenceDigest,
            epoch: COMMITTEE.currentEpoch(),
            authority: APPEAL_AUTHORITY,
            openedAt: uint40(block.timestamp),
            postBy: clock() + POST_WINDOW
        });
        require(file.epoch != 0, IOracleCommittee.EpochNotActive(0));
        caseId = keccak256(abi.encode(file));
        Case memory c = _load(caseId);
        require(c.state == CaseState.NONE, CaseAlreadyOpen(caseId));
        if (!hold) {
            c.state = CaseState.OPEN;
            c.flags = uint8(FREE);
            _save(caseId, c);
        }
        emit CaseOpened(caseId, licenseId, msg.sender, file);
        _lock(caseId, bond);
        if (hold) VAULT.holdBond(licenseId);
    }

    /// @inheritdoc IMisuseCourt
    function openShare(
        CaseFile calldata file, LicenseRecord calldata record, uint8 index, bytes32 seed, bytes32[] calldata proof, bytes32 baseDigest
    ) external {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.OPEN);
        require(file.kind == Kind.LEAK, WrongKind(file.kind));
        _before(_shareBy(file));
        LICENSES.checkRecord(file.licenseId, record);
        require(msg.sender == record.fingerprinter, NotTheFingerprinter(msg.sender, record.fingerprinter));
        require(MarkShares.contains(record.markCommit, file.licenseId, index, seed, proof), ShareNotInCommit(file.licenseId, index));
        Docket storage docket = _dockets[file.licenseId];
        require(c.flags & SHARE_MASK == 0 && docket.shares >> index & 1 == 0, ShareAlreadyOpened(file.licenseId, index));
        docket.shares |= uint16(1 << index);
        c.flags |= index + 1;
        _save(caseId, c);
        emit ShareOpened(caseId, file.licenseId, index, seed, baseDigest);
    }

    /// @inheritdoc IMisuseCourt
    function postVerdict(
        CaseFile calldata file, Verdict calldata verdict, address[] calldata signers, uint32 bitmap, bytes calldata signatures
    ) external {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.OPEN);
        require(block.timestamp >= _pause.until, PostingIsPaused(_pause.until));
        _before(file.postBy);
        require(block.timestamp <= verdict.deadline, TooLate(verdict.deadline));
        require(
            verdict.caseId == caseId && verdict.licenseId == file.licenseId && verdict.kind == file.kind
                && verdict.evidenceHash == file.evidenceHash && verdict.epoch == file.epoch && verdict.decision != Decision.NONE,
            VerdictMismatch(caseId)
        );
        require(
            verdict.shareIndex == NO_SHARE || uint256(verdict.shareIndex) + 1 == c.flags & SHARE_MASK,
            ShareNotOpened(caseId, verdict.shareIndex)
        );
        if (verdict.decision == Decision.GUILTY) _checkStrength(caseId, verdict);
        bytes32 digest = verdictDigest(verdict);
        COMMITTEE.verify(file.epoch, digest, signers, bitmap, signatures);

        c.decision = verdict.decision;
        c.unpaidSeats = bitmap;
        c.flags |= uint8(_row(verdict) << ROW_SHIFT);
        bool ruled = verdict.kind == Kind.TERMS && verdict.decision == Decision.GUILTY;
        c.state = ruled ? CaseState.CHALLENGED : CaseState.POSTED;
        c.until = clock() + (ruled ? RULING_WINDOW : _challengeWindow(file.kind, c.decision));
        _save(caseId, c);
        if (verdict.kind == Kind.TERMS) _subjects[caseId] = verdict.subject;
        emit VerdictPosted(caseId, c.decision, digest, verdict, bitmap, c.until);
        if (ruled) emit Challenged(caseId, address(0), 0, c.until);
        if (verdict.kind == Kind.DISCLOSURE && verdict.decision == Decision.GUILTY) _suspend(file.licenseId, caseId);
    }

    /// @inheritdoc IMisuseCourt
    function lapse(CaseFile calldata file) external {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.OPEN);
        _after(file.postBy);
        require(file.kind != Kind.LEAK || c.flags & SHARE_MASK != 0, ShareNeverOpened(caseId));
        _end(file, caseId, c, CaseState.LAPSED);
        _pay(caseId, file.reporter, file.bond);
    }

    /// @inheritdoc IMisuseCourt
    function shareMissed(CaseFile calldata file, LicenseRecord calldata record) external {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.OPEN);
        require(file.kind == Kind.LEAK, WrongKind(file.kind));
        _after(_shareBy(file));
        require(c.flags & SHARE_MASK == 0, ShareOpenedInTime(caseId));
        LICENSES.checkRecord(file.licenseId, record);
        c.decision = Decision.INCONCLUSIVE;
        _end(file, caseId, c, CaseState.CLOSED);
        uint256 slashed;
        // Nobody can open a share when all have been opened: no fault.
        if (_dockets[file.licenseId].shares != type(uint16).max) {
            Bond memory held = VAULT.bondOf(file.licenseId);
            uint256 penalty = CourtMoney.missedShareDown(MISSED_SHARE_PENALTY, held.tokenIndex == 0 ? held.amount : 0);
            slashed = VAULT.slashStake(record.fingerprinter, penalty, VAULT.treasury());
        }
        emit ShareMissed(caseId, record.fingerprinter, slashed);
        _pay(caseId, file.reporter, file.bond);
    }

    /// @inheritdoc IMisuseCourt
    function fileDefence(CaseFile calldata file, bytes32 digest) external {
        bytes32 caseId = caseIdOf(file);
        CaseState state = _load(caseId).state;
        require(
            state != CaseState.NONE && state <= CaseState.ESCALATED, WrongCaseState(caseId, state, CaseState.POSTED)
        );
        require(msg.sender == file.accused, NotTheAccused(msg.sender, file.accused));
        emit DefenceFiled(caseId, msg.sender, digest);
    }

    /* APPEAL */

    /// @inheritdoc IMisuseCourt
    function challenge(CaseFile calldata file) external payable nonReentrant {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.POSTED);
        _before(c.until);
        if (c.decision == Decision.GUILTY) {
            uint40 window = _challengeWindow(file.kind, c.decision);
            bool open = clock() > c.until - window + window / 3;
            require(open || msg.sender == file.accused, NotAllowedToChallenge(msg.sender));
        } else {
            require(c.decision == Decision.NOT_GUILTY && msg.sender == file.reporter, NotAllowedToChallenge(msg.sender));
        }
        c.state = CaseState.CHALLENGED;
        c.challenger = msg.sender;
        c.until = clock() + RULING_WINDOW;
        _save(caseId, c);
        emit Challenged(caseId, msg.sender, CHALLENGE_BOND, c.until);
        _lock(caseId, CHALLENGE_BOND);
    }

    /// @inheritdoc IMisuseCourt
    function rule(CaseFile calldata file, bool uphold) external {
        bytes32 caseId = caseIdOf(file);
        Case memory c = _load(caseId);
        bool escalated = c.state == CaseState.ESCALATED;
        require(escalated || c.state == CaseState.CHALLENGED, WrongCaseState(caseId, c.state, CaseState.CHALLENGED));
        address judge = escalated ? LAST_INSTANCE : file.authority;
        require(msg.sender == judge, NotTheAuthority(msg.sender, judge));
        _before(c.until);
        address challenger = c.challenger;
        uint32 seats = c.unpaidSeats;
        emit Ruled(caseId, judge, uphold);
        if ((c.decision == Decision.GUILTY) == uphold) {
            // Committee and ruling disagree on outputs that a human can read: the lowest row, or a lie of the committee costs nothing.
            if (file.kind == Kind.TERMS && c.flags >> ROW_SHIFT & 3 == 0) c.flags |= uint8(1 << ROW_SHIFT);
            _convict(file, caseId, c);
        } else if (uphold) {
            _dismiss(file, caseId, c);
        } else {
            _clear(file, caseId, c);
        }
        if (challenger == address(0)) return;
        _pay(caseId, uphold ? judge : challenger, CHALLENGE_BOND);
        if (!uphold) COMMITTEE.slashSigners(caseId, file.epoch, seats, CHALLENGE_BOND, judge);
    }

    /// @inheritdoc IMisuseCourt
    function escalate(CaseFile calldata file) external {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.CHALLENGED);
        _after(c.until);
        c.state = CaseState.ESCALATED;
        c.until = clock() + LAST_WINDOW;
        _save(caseId, c);
        emit Escalated(caseId, c.until);
    }

    /// @inheritdoc IMisuseCourt
    function clearSilent(CaseFile calldata file) external {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.ESCALATED);
        _after(c.until);
        c.state = CaseState.CLEARED;
        c.until = clock() + AFTERMATH;
        _save(caseId, c);
        emit VerdictFinal(caseId, CaseState.CLEARED);
        _unsuspend(file, caseId, c.decision);
        _pay(caseId, file.reporter, _rest(file));
        if (c.challenger != address(0)) _pay(caseId, c.challenger, CHALLENGE_BOND);
    }

    /// @inheritdoc IMisuseCourt
    function releaseHold(CaseFile calldata file) external {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.CLEARED);
        require(c.flags & FREE == 0, NothingHeld(caseId));
        _after(c.until);
        c.flags |= uint8(FREE);
        _save(caseId, c);
        emit HoldReleased(caseId, file.licenseId);
        VAULT.unholdBond(file.licenseId);
    }

    /* END */

    /// @inheritdoc IMisuseCourt
    function finalize(CaseFile calldata file) external {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.POSTED);
        if (c.decision == Decision.GUILTY || c.decision == Decision.NOT_GUILTY) {
            _after(c.until);
        }
        if (c.decision == Decision.GUILTY) _convict(file, caseId, c);
        else if (c.decision == Decision.NOT_GUILTY) _dismiss(file, caseId, c);
        else _close(file, caseId, c);
    }

    /// @inheritdoc IMisuseCourt
    function execute(CaseFile calldata file) external {
        bytes32 caseId = caseIdOf(file);
        Case memory c = _load(caseId);
        if (c.state == CaseState.POSTED && c.decision == Decision.GUILTY) {
            _after(c.until);
            if (!_convict(file, caseId, c)) return;
        }
        require(c.state == CaseState.FINAL_GUILTY, WrongCaseState(caseId, c.state, CaseState.FINAL_GUILTY));
        uint256 due = _bookSlash(file, c.flags);
        uint256 rest = _rest(file);
        emit Executed(caseId, file.licenseId, due, rest);
        _end(file, caseId, c, CaseState.EXECUTED);
        _pay(caseId, file.reporter, rest);
        if (due != 0) {
            emit Slashed(file.licenseId, caseId, due);
            VAULT.slashBond(file.licenseId, due, file.reporter, REPORTER_BPS);
        }
        if (file.licenseId != 0 && LICENSES.endOf(file.licenseId) == LicenseEnd.NONE) LICENSES.revoke(file.licenseId, caseId);
    }

    /// @inheritdoc IMisuseCourt
    function claimFee(CaseFile calldata file, uint256 seat) external {
        bytes32 caseId = caseIdOf(file);
        Case memory c = _load(caseId);
        require(c.state >= CaseState.CLOSED && seat < 32 && c.unpaidSeats >> seat & 1 == 1, NothingToClaim(caseId, seat));
        uint256 unpaid;
        for (uint32 left = c.unpaidSeats; left != 0; left &= left - 1) ++unpaid;
        uint256 part = VAULT.caseBondOf(caseId) / unpaid;
        address account = COMMITTEE.accountAt(file.epoch, seat);
        c.unpaidSeats ^= uint32(1 << seat);
        _save(caseId, c);
        emit FeeClaimed(caseId, account, part);
        _pay(caseId, account, part);
    }

    /* PAUSER */

    /// @inheritdoc IMisuseCourt
    function pausePosting(uint40 until) external restricted {
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

    /// @inheritdoc IMisuseCourt
    function resumePosting() external restricted {
        require(block.timestamp < _pause.until, NotPaused());
        _pause.until = uint40(block.timestamp);
        emit PostingResumed(msg.sender);
    }

    /* VIEWS */

    /// @inheritdoc IMisuseCourt
    function clock() public view returns (uint40) {
        return uint40(block.timestamp) - _pausedSeconds();
    }

    /// @inheritdoc IMisuseCourt
    function caseState(bytes32 caseId) external view returns (CaseState state, Decision decision, uint40 until, uint8 shareIndex) {
        Case memory c = _load(caseId);
        uint256 share = c.flags & SHARE_MASK;
        return (c.state, c.decision, c.until, share == 0 ? NO_SHARE : uint8(share - 1));
    }

    /// @inheritdoc IMisuseCourt
    function caseDetail(bytes32 caseId) external view returns (address challenger, uint32 unpaidSeats, uint8 bucket, bool held) {
        Case memory c = _load(caseId);
        return (c.challenger, c.unpaidSeats, _bucketOf(c.flags), c.state != CaseState.NONE && c.flags & FREE == 0);
    }

    /// @inheritdoc IMisuseCourt
    /// @dev The words of a static struct in calldata are its ABI encoding; a word with dirty high bits names no case.
    function caseIdOf(CaseFile calldata file) public pure returns (bytes32 id) {
        assembly ("memory-safe") {
            let at := mload(0x40)
            calldatacopy(at, file, 384)
            id := keccak256(at, 384)
        }
    }

    /// @inheritdoc IMisuseCourt
    function verdictDigest(Verdict calldata verdict) public view returns (bytes32) {
        bytes32 typeHash = VERDICT_TYPEHASH;
        bytes32 hash;
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore(at, typeHash)
            calldatacopy(add(at, 32), verdict, 384)
            hash := keccak256(at, 416)
        }
        return _hashTypedDataV4(hash);
    }

    /// @inheritdoc IMisuseCourt
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

    /// @inheritdoc IMisuseCourt
    function minReportBond() external view returns (uint256) {
        return MIN_REPORT_BOND;
    }

    /// @inheritdoc IMisuseCourt
    function minReportBondFor(uint256 licenseId, Kind kind) external view returns (uint256) {
        return _leastBond(licenseId, kind, VAULT.bondOf(licenseId).openCases);
    }

    /// @inheritdoc IMisuseCourt
    function sharesOpened(uint256 licenseId) external view returns (uint16) {
        return _dockets[licenseId].shares;
    }

    /// @inheritdoc IMisuseCourt
    function slashedFor(uint256 licenseId, Kind kind) external view returns (uint256) {
        if (kind == Kind.LEAK) return _dockets[licenseId].slashedLeak;
        if (kind == Kind.TERMS) return _dockets[licenseId].slashedTerms;
        return 0;
    }

    /// @inheritdoc IMisuseCourt
    function leakBucket(uint256 licenseId) external view returns (uint8) {
        return _dockets[licenseId].leakBucket;
    }

    /* ENTRY CHECKS */

    function _before(uint40 deadline) private view {
        require(clock() <= deadline, TooLate(deadline));
    }

    function _after(uint40 deadline) private view {
        require(clock() > deadline, TooEarly(deadline));
    }

    function _pausedSeconds() private view returns (uint40) {
        Pause memory pause = _pause;
        uint40 end = pause.until < block.timestamp ? pause.until : uint40(block.timestamp);
        return pause.secondsBefore + end - pause.from;
    }

    function _atMost(string memory name, uint256 given, uint256 max) private pure {
        require(given <= max, ParamOutOfRange(name, given, max));
    }

    function _in(CaseFile calldata file, CaseState needed) private view returns (bytes32 caseId, Case memory c) {
        caseId = caseIdOf(file);
        c = _load(caseId);
        require(c.state == needed, WrongCaseState(caseId, c.state, needed));
    }

    /// @dev The last second for a share: half of the window is left to whoever measures and posts.
    function _shareBy(CaseFile calldata file) private view returns (uint40) {
        return file.postBy - POST_WINDOW / 2;
    }

    /// @param heldBy cases that hold the license's bond now. They count for every kind, or cheap cases of one kind would price another out.
    function _leastBond(uint256 licenseId, Kind kind, uint256 heldBy) private view returns (uint256) {
        if (kind == Kind.LEAK) {
            for (uint256 left = _dockets[licenseId].shares; left != 0; left &= left - 1) ++heldBy;
        }
        return CourtMoney.doubledUp(MIN_REPORT_BOND, heldBy);
    }

    /// @return accused who answers; @return heldBy cases that hold the license's bond; @return hold whether one is at stake
    function _accuse(uint256 licenseId, uint64 modelId, Kind kind) private view returns (address accused, uint256 heldBy, bool hold) {
        require(kind != Kind.NONE, WrongKind(kind));
        if (kind > Kind.DISCLOSURE) {
            require(licenseId == 0, LicenseNotAccusable(licenseId));
            address owner = MODELS.statusOf(modelId).owner; // reverts where there is no such model
            return (kind == Kind.UNLICENSED ? address(0) : owner, 0, false);
        }
        require(licenseId >> 28 == modelId, LicenseNotAccusable(licenseId));
        (OrderState state, uint40 since,) = ESCROW.orderState(licenseId);
        require(state == OrderState.SETTLED, LicenseNotAccusable(licenseId));
        Bond memory stake = VAULT.bondOf(licenseId);
        (heldBy, hold) = (stake.openCases, stake.amount != 0);
        if (kind == Kind.LEAK) {
            require(hold, LicenseNotAccusable(licenseId));
            require(block.timestamp >= since + MARK_AGE, MarkTooYoung(licenseId, since + MARK_AGE));
            Docket memory docket = _dockets[licenseId];
            require(docket.leakBucket < 40, AlreadyCounted(licenseId));
            require(docket.shares != type(uint16).max, NoShareLeft(licenseId));
        }
        accused = IERC721(address(LICENSES)).ownerOf(licenseId);
    }

    function _checkStrength(bytes32 caseId, Verdict calldata verdict) private pure {
        if (verdict.kind != Kind.LEAK && verdict.kind != Kind.TERMS) return;
        require(verdict.bucket >= WEAKEST_BUCKET, EvidenceTooWeak(verdict.bucket, WEAKEST_BUCKET));
        if (verdict.kind == Kind.LEAK) {
            require(verdict.shareIndex != NO_SHARE, ShareNotOpened(caseId, NO_SHARE));
        } else {
            require(verdict.samples >= MIN_TERMS_SAMPLES, TooFewSamples(verdict.samples, MIN_TERMS_SAMPLES));
        }
    }

    /* STEPS */

    /// @dev Value sent becomes the caller's free balance before `amount` is locked from it.
    function _lock(bytes32 caseId, uint256 amount) private {
        if (msg.value != 0) VAULT.depositNative{value: msg.value}(msg.sender);
        VAULT.lockCaseBond(caseId, msg.sender, amount);
    }

    /// @dev Writes the end and gives the license bond free.
    function _end(CaseFile calldata file, bytes32 caseId, Case memory c, CaseState end) private {
        bool held = c.flags & FREE == 0;
        c.state = end;
        c.flags |= uint8(FREE);
        _save(caseId, c);
        if (end != CaseState.EXECUTED) emit VerdictFinal(caseId, end); // there it was final before
        if (held) VAULT.unholdBond(file.licenseId);
    }

    function _pay(bytes32 caseId, address to, uint256 amount) private {
        VAULT.payCaseBond(caseId, to, amount);
    }

    /// @dev R - f
    function _rest(CaseFile calldata file) private view returns (uint256 rest) {
        (, rest) = CourtMoney.feeDown(file.bond, FEE_BPS);
    }

    /// @return guilty false where this misuse had been counted: the case is then closed
    function _convict(CaseFile calldata file, bytes32 caseId, Case memory c) private returns (bool guilty) {
        if (_count(file, caseId, c.flags)) {
            c.state = CaseState.FINAL_GUILTY;
            _save(caseId, c);
            emit VerdictFinal(caseId, CaseState.FINAL_GUILTY);
            return true;
        }
        _close(file, caseId, c);
    }

    /// @dev Writes the nullifier: (license, bucket) for LEAK, (license, subject) for TERMS. False where it was there.
    function _count(CaseFile calldata file, bytes32 caseId, uint8 flags) private returns (bool) {
        if (file.kind == Kind.LEAK) {
            uint8 bucket = _bucketOf(flags);
            Docket storage docket = _dockets[file.licenseId];
            uint8 before = docket.leakBucket;
            if (before != 0 && bucket <= before) return false;
            docket.leakBucket = bucket;
        } else if (file.kind == Kind.TERMS) {
            bytes32 subject = _subjects[caseId];
            if (counted[file.licenseId][subject]) return false;
            counted[file.licenseId][subject] = true;
        }
        return true;
    }

    function _dismiss(CaseFile calldata file, bytes32 caseId, Case memory c) private {
        _end(file, caseId, c, CaseState.DISMISSED);
        (uint256 toAccused, uint256 toTreasury) = CourtMoney.halvesDown(_rest(file));
        _pay(caseId, _accusedOrTreasury(file), toAccused);
        _pay(caseId, VAULT.treasury(), toTreasury);
    }

    function _clear(CaseFile calldata file, bytes32 caseId, Case memory c) private {
        _end(file, caseId, c, CaseState.CLEARED);
        _unsuspend(file, caseId, c.decision);
        _pay(caseId, _accusedOrTreasury(file), _rest(file));
    }

    function _close(CaseFile calldata file, bytes32 caseId, Case memory c) private {
        _end(file, caseId, c, CaseState.CLOSED);
        _pay(caseId, c.decision == Decision.UNAVAILABLE ? VAULT.treasury() : file.reporter, _rest(file));
    }

    function _accusedOrTreasury(CaseFile calldata file) private view returns (address) {
        return file.accused == address(0) ? VAULT.treasury() : file.accused;
    }

    /// @dev Computed at execution, so that two cases cannot take more than the table gives for one kind.
    function _bookSlash(CaseFile calldata file, uint8 flags) private returns (uint256 due) {
        uint256 bps = _slashBps(flags);
        if (bps == 0 || (file.kind != Kind.LEAK && file.kind != Kind.TERMS)) return 0;
        Docket memory docket = _dockets[file.licenseId];
        uint256 all = uint256(docket.slashedLeak) + docket.slashedTerms;
        uint256 before = file.kind == Kind.LEAK ? docket.slashedLeak : docket.slashedTerms;
        due = CourtMoney.slashDown(VAULT.bondOf(file.licenseId).amount, all, before, bps);
        if (file.kind == Kind.LEAK) docket.slashedLeak += uint96(due);
        else docket.slashedTerms += uint96(due);
        _dockets[file.licenseId] = docket;
    }

    function _suspend(uint256 licenseId, bytes32 caseId) private {
        ++_dockets[licenseId].suspensions;
        if (LICENSES.endOf(licenseId) == LicenseEnd.NONE) LICENSES.suspend(licenseId, true, caseId);
    }

    /// @dev The last guilty DISCLOSURE verdict that falls lifts the suspension.
    function _unsuspend(CaseFile calldata file, bytes32 caseId, Decision decision) private {
        if (file.kind != Kind.DISCLOSURE || decision != Decision.GUILTY) return;
        uint16 left = --_dockets[file.licenseId].suspensions;
        if (left == 0 && LICENSES.endOf(file.licenseId) == LicenseEnd.NONE) LICENSES.suspend(file.licenseId, false, caseId);
    }

    /* PACKED WORD */

    function _load(bytes32 caseId) private view returns (Case memory c) {
        uint256 word = _cases[caseId];
        if (word == 0) {
            if (VAULT.caseBondOf(caseId) != 0) c.state = CaseState.OPEN;
            return c;
        }
        c.challenger = address(uint160(word));
        c.until = uint40(word >> 160);
        c.unpaidSeats = uint32(word >> 200);
        c.state = CaseState(uint8(word >> 232));
        c.decision = Decision(uint8(word >> 240));
        c.flags = uint8(word >> 248);
    }

    function _save(bytes32 caseId, Case memory c) private {
        _cases[caseId] = uint160(c.challenger) | uint256(c.until) << 160 | uint256(c.unpaidSeats) << 200
            | uint256(c.state) << 232 | uint256(c.decision) << 240 | uint256(c.flags) << 248;
    }

    /// @dev 0 none, 1, 2, 3 for buckets 12, 20, 40. Without the share's p-value a LEAK verdict slashes nothing.
    function _row(Verdict calldata verdict) private pure returns (uint256) {
        if (verdict.kind == Kind.LEAK && verdict.shareIndex == NO_SHARE) return 0;
        if (verdict.bucket < WEAKEST_BUCKET) return 0;
        return verdict.bucket < 20 ? 1 : verdict.bucket < 40 ? 2 : 3;
    }

    function _bucketOf(uint8 flags) private pure returns (uint8) {
        uint256 row = flags >> ROW_SHIFT & 3;
        return row == 0 ? 0 : row == 1 ? 12 : row == 2 ? 20 : 40;
    }

    function _slashBps(uint8 flags) private view returns (uint256) {
        uint256 row = flags >> ROW_SHIFT & 3;
        return row == 0 ? 0 : row == 1 ? SLASH_BPS_12 : row == 2 ? SLASH_BPS_20 : SLASH_BPS_40;
    }

    function _challengeWindow(Kind kind, Decision decision) private view returns (uint40) {
        return kind == Kind.DISCLOSURE && decision == Decision.GUILTY ? NOTICE : CHALLENGE_WINDOW;
    }
}
