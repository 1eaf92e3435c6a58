// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {
    CaseFile,
    CaseState,
    CourtParams,
    CourtPeers,
    Decision,
    Kind,
    Verdict
} from "./interfaces/ICourtBase.sol";
import {IEscrowBase, OrderState} from "./interfaces/IEscrowBase.sol";
import {LicenseRecord} from "./interfaces/ILicenseNFT.sol";
import {IMisuseCourt} from "./interfaces/IMisuseCourt.sol";
import {IOracleCommittee} from "./interfaces/IOracleCommittee.sol";
import {Bond, CaseEnd} from "./interfaces/IVault.sol";
import {CourtMoney} from "./libraries/CourtMoney.sol";
import {LicenseTerms} from "./libraries/LicenseTerms.sol";
import {MarkShares} from "./libraries/MarkShares.sol";
import {CourtBase} from "./CourtBase.sol";

/// @title MisuseCourt
/// @notice Decides what follows from a verdict. Holds no money. Its one power: PAUSER stops the posting of verdicts, at most 7 days in 30,
/// and the court's clock with it. Nobody can decide a case, change a window or move a bond.
/// @dev Not upgradeable. What is not in here lies in the extension, fixed at deployment, whose code runs on this contract's storage: one
/// contract in two halves, because of the limit on a contract's size. The ABI of both is ICourt.
contract MisuseCourt is IMisuseCourt, CourtBase {
    using LicenseTerms for uint96;

    uint8 private constant WEAKEST_BUCKET = 12; // 2^-43 rounded down in -log10
    uint32 private constant MIN_TERMS_SAMPLES = 3; // one imprinted picture must not convict (WATERMARKS, Forgery)

    /// @notice The other half of this contract.
    address public immutable COURT_EXTENSION;

    constructor(address authority, CourtPeers memory peers, CourtParams memory p, address extension)
        CourtBase(authority, peers, p)
    {
        COURT_EXTENSION = extension;
    }

    /// @dev Every selector that is not here runs in the extension, on this storage, with this caller.
    fallback() external {
        address target = COURT_EXTENSION;
        // At the free pointer: a block that is not memory-safe costs the whole contract the optimizer's use of memory, 3,000 gas a call.
        assembly ("memory-safe") {
            let at := mload(0x40)
            calldatacopy(at, 0, calldatasize())
            let done := delegatecall(gas(), target, at, calldatasize(), 0, 0)
            returndatacopy(at, 0, returndatasize())
            if iszero(done) { revert(at, returndatasize()) }
            return(at, returndatasize())
        }
    }

    /* CASE */

    /// @inheritdoc IMisuseCourt
    function openCase(uint256 licenseId, uint64 modelId, Kind kind, bytes32 evidenceHash, bytes32 evidenceDigest, uint96 bond)
        external
        payable
        nonReentrant
        returns (bytes32 caseId)
    {
        return _open(licenseId, modelId, kind, evidenceHash, evidenceDigest, bond);
    }

    /// @inheritdoc IMisuseCourt
    function reportDisclosureDisabled(uint256 licenseId, bytes32 evidenceHash, bytes32 evidenceDigest, uint96 bond)
        external
        payable
        nonReentrant
        returns (bytes32 caseId)
    {
        return _open(licenseId, uint64(licenseId >> 28), Kind.DISCLOSURE, evidenceHash, evidenceDigest, bond);
    }

    function _open(uint256 licenseId, uint64 modelId, Kind kind, bytes32 evidenceHash, bytes32 evidenceDigest, uint96 bond)
        private
        returns (bytes32 caseId)
    {
        (address accused, Bond memory stake, bool hold) = _accuse(licenseId, modelId, kind);
        uint256 least = _leastBond(licenseId, kind, stake);
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
            postBy: _clock() + POST_WINDOW
        });
        require(file.epoch != 0, IOracleCommittee.EpochNotActive(0));
        caseId = keccak256(abi.encode(file));
        Case memory c = _load(caseId);
        require(c.state == CaseState.NONE, CaseAlreadyOpen(caseId));
        if (!hold) {
            c.state = CaseState.OPEN;
            c.flags = uint16(FREE);
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
        Docket memory docket = _docketOf(file.licenseId);
        require(c.flags & SHARE_MASK == 0 && docket.shares >> index & 1 == 0, ShareAlreadyOpened(file.licenseId, index));
        docket.shares |= uint16(1 << index);
        _saveDocket(file.licenseId, docket);
        c.flags |= index + 1;
        _save(caseId, c);
        emit ShareOpened(caseId, file.licenseId, index, seed, baseDigest);
    }

    /// @inheritdoc IMisuseCourt
    function postVerdict(
        CaseFile calldata file, Verdict calldata verdict, address[] calldata signers, uint32 bitmap, bytes calldata signatures
    ) external {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.OPEN);
        _before(file.postBy);
        _checkPosting(verdict.deadline);
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
        bytes32 digest = _digestOf(verdict);
        COMMITTEE.verify(file.epoch, digest, signers, bitmap, signatures);

        c.decision = verdict.decision;
        c.unpaidSeats = bitmap;
        c.flags |= uint16(_row(verdict) << ROW_SHIFT);
        bool ruled = verdict.kind == Kind.TERMS && verdict.decision == Decision.GUILTY;
        c.state = ruled ? CaseState.CHALLENGED : CaseState.POSTED;
        c.until = _clock() + (ruled ? RULING_WINDOW : _challengeWindow(file.kind, c.decision));
        _save(caseId, c);
        if (verdict.kind == Kind.TERMS || verdict.kind > Kind.UNLICENSED) _subjects[caseId] = verdict.subject;
        emit VerdictPosted(caseId, c.decision, digest, verdict, bitmap, c.until);
        if (ruled) emit Challenged(caseId, address(0), 0, c.until);
        if (verdict.kind == Kind.DISCLOSURE && verdict.decision == Decision.GUILTY) _giveNotice(file.licenseId, caseId);
    }

    /* APPEAL */

    /// @inheritdoc IMisuseCourt
    function challenge(CaseFile calldata file) external payable nonReentrant {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.POSTED);
        _before(c.until);
        if (c.decision == Decision.GUILTY) {
            uint40 window = _challengeWindow(file.kind, c.decision);
            bool open = _clock() > c.until - window + window / 3;
            require(open || msg.sender == file.accused, NotAllowedToChallenge(msg.sender));
        } else {
            require(msg.sender == file.reporter, NotAllowedToChallenge(msg.sender));
        }
        // Who rules must not be paid for overturning his own challenge.
        require(msg.sender != file.authority && msg.sender != LAST_INSTANCE, NotAllowedToChallenge(msg.sender));
        c.state = CaseState.CHALLENGED;
        c.challenger = msg.sender;
        c.until = _clock() + RULING_WINDOW;
        _save(caseId, c);
        emit Challenged(caseId, msg.sender, CHALLENGE_BOND, c.until);
        _lock(caseId, CHALLENGE_BOND);
    }

    /// @inheritdoc IMisuseCourt
    function rule(CaseFile calldata file, bool uphold) external {
        (bytes32 caseId, Case memory c, address judge) = _judging(file);
        address challenger = c.challenger;
        uint32 seats = c.unpaidSeats;
        bool decided = c.decision == Decision.GUILTY || c.decision == Decision.NOT_GUILTY;
        emit Ruled(caseId, judge, uphold);
        if (!uphold) c.unpaidSeats = 0; // or a false verdict on a large R would pay more than it costs
        if (!decided) {
            if (!uphold) c.decision = Decision.INCONCLUSIVE; // R goes back; whoever was let off may be accused again
            _close(file, caseId, c);
        } else if ((c.decision == Decision.GUILTY) == uphold) {
            // Committee and ruling disagree on outputs that a human can read: the lowest row, or a lie of the committee costs nothing.
            if (file.kind == Kind.TERMS && c.flags >> ROW_SHIFT & 3 == 0) c.flags |= uint16(1 << ROW_SHIFT);
            _convict(file, caseId, c);
        } else if (uphold) {
            _dismiss(file, caseId, c);
        } else {
            _clear(file, caseId, c);
        }
        if (challenger == address(0)) return;
        _pay(caseId, uphold ? judge : challenger, CHALLENGE_BOND);
        // Evidence can be hidden until the signers say that they cannot measure, and shown to the authority: that costs them no stake.
        if (!uphold && decided) COMMITTEE.slashSigners(caseId, file.epoch, seats, CHALLENGE_BOND, judge);
    }

    /* END */

    /// @inheritdoc IMisuseCourt
    function finalize(CaseFile calldata file) external {
        (bytes32 caseId, Case memory c) = _in(file, CaseState.POSTED);
        _after(c.until);
        if (c.decision == Decision.GUILTY) _convict(file, caseId, c);
        else if (c.decision == Decision.NOT_GUILTY) _dismiss(file, caseId, c);
        else _close(file, caseId, c);
    }

    /// @inheritdoc IMisuseCourt
    /// @dev The slash is computed at execution, so that two cases cannot take more than the table gives for one kind. The vault's event
    /// tells the end; the vault calls nobody.
    function execute(CaseFile calldata file) external {
        bytes32 caseId = _idOf(file);
        Case memory c = _load(caseId);
        uint256 licenseId = file.licenseId;
        bool slashes = file.kind == Kind.LEAK || file.kind == Kind.TERMS;
        Docket memory docket;
        if (slashes) docket = _docketOf(licenseId);
        if (c.state == CaseState.POSTED && c.decision == Decision.GUILTY) {
            _after(c.until);
            if (!_count(file, caseId, c.flags, docket)) {
                _close(file, caseId, c);
                return;
            }
            emit VerdictFinal(caseId, CaseState.FINAL_GUILTY);
        } else {
            require(c.state == CaseState.FINAL_GUILTY, WrongCaseState(caseId, c.state, CaseState.FINAL_GUILTY));
        }
        if (file.kind == Kind.DISCLOSURE) _after(_cureBy[caseId]); // a ruling does not shorten the time to cure
        uint16 flags = c.flags;
        c.state = CaseState.EXECUTED;
        c.flags = flags | uint16(FREE);
        _save(caseId, c);
        uint256 slashed = VAULT.enforceCase(
            CaseEnd({
                caseId: caseId,
                reporter: file.reporter,
                bondBack: uint96(_restOf(file, c)),
                licenseId: licenseId,
                tableBps: slashes ? _slashBps(flags) : 0,
                reporterBps: REPORTER_BPS,
                slashedForKind: file.kind == Kind.LEAK ? docket.slashedLeak : docket.slashedTerms,
                slashedAll: docket.slashedLeak + docket.slashedTerms,
                unhold: flags & FREE == 0
            })
        );
        if (slashes) {
            if (file.kind == Kind.LEAK) docket.slashedLeak += uint96(slashed);
            else docket.slashedTerms += uint96(slashed);
            _saveDocket(licenseId, docket);
        }
        _unsuspend(file, caseId);
        if (licenseId != 0) LICENSES.revoke(licenseId, caseId);
        else if (file.kind != Kind.UNLICENSED) MODELS.freezeByVerdict(file.modelId, caseId);
    }

    /// @inheritdoc IMisuseCourt
    function claimFee(CaseFile calldata file, uint256 seat) external {
        bytes32 caseId = _idOf(file);
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

    /* ENTRY CHECKS */

    /// @return accused who answers; @return stake the license's bond; @return hold whether the case may take of it
    function _accuse(uint256 licenseId, uint64 modelId, Kind kind)
        private
        view
        returns (address accused, Bond memory stake, bool hold)
    {
        require(kind != Kind.NONE, WrongKind(kind));
        if (kind > Kind.DISCLOSURE) {
            require(licenseId == 0, LicenseNotAccusable(licenseId));
            address owner = MODELS.statusOf(modelId).owner; // reverts where there is no such model
            return (kind == Kind.UNLICENSED ? address(0) : owner, stake, false);
        }
        require(licenseId >> 28 == modelId, LicenseNotAccusable(licenseId));
        (OrderState state, uint40 since,) = IEscrowBase(address(VAULT)).orderState(licenseId);
        require(state == OrderState.SETTLED, LicenseNotAccusable(licenseId));
        stake = VAULT.bondOf(licenseId);
        hold = stake.amount != 0 && kind != Kind.DISCLOSURE;
        if (kind == Kind.LEAK) {
            require(hold, LicenseNotAccusable(licenseId));
            require(block.timestamp >= since + MARK_AGE, MarkTooYoung(licenseId, since + MARK_AGE));
            Docket memory docket = _docketOf(licenseId);
            require(docket.leakBucket < 40, AlreadyCounted(licenseId));
            require(docket.shares != type(uint16).max, NoShareLeft(licenseId));
        }
        if (kind == Kind.DISCLOSURE) {
            require(LICENSES.termsOf(licenseId).has(LicenseTerms.DISCLOSURE), NoSuchDuty(licenseId));
            require(!LICENSES.hasEnded(licenseId), LicenseNotAccusable(licenseId));
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

    /// @dev The license is suspended; in the time to cure nobody revokes it.
    function _giveNotice(uint256 licenseId, bytes32 caseId) private {
        _cureBy[caseId] = _clock() + NOTICE;
        Docket memory docket = _docketOf(licenseId);
        ++docket.suspensions;
        _saveDocket(licenseId, docket);
        LICENSES.suspend(licenseId, true, caseId);
    }

    /// @dev Where this misuse had been counted the case is closed.
    function _convict(CaseFile calldata file, bytes32 caseId, Case memory c) private {
        Docket memory docket = _docketOf(file.licenseId);
        if (_count(file, caseId, c.flags, docket)) {
            if (file.kind == Kind.LEAK) _saveDocket(file.licenseId, docket);
            c.state = CaseState.FINAL_GUILTY;
            _save(caseId, c);
            emit VerdictFinal(caseId, CaseState.FINAL_GUILTY);
            // A verdict of not guilty that was overturned.
            if (file.kind == Kind.DISCLOSURE && _cureBy[caseId] == 0) _giveNotice(file.licenseId, caseId);
        } else {
            _close(file, caseId, c);
        }
    }

    /// @dev The nullifier: (license, bucket) for LEAK, left in `docket` for the caller to save; (license, subject) for TERMS and
    /// (model, subject) for what freezes a model, written. False where it was there.
    function _count(CaseFile calldata file, bytes32 caseId, uint16 flags, Docket memory docket) private returns (bool) {
        if (file.kind == Kind.LEAK) {
            uint8 bucket = _bucketOf(flags);
            if (docket.leakBucket != 0 && bucket <= docket.leakBucket) return false;
            docket.leakBucket = bucket;
        } else if (file.kind == Kind.TERMS || file.kind > Kind.UNLICENSED) {
            uint256 id = file.kind == Kind.TERMS ? file.licenseId : file.modelId;
            bytes32 subject = _subjects[caseId];
            if (_counted[id][subject]) return false;
            _counted[id][subject] = true;
        }
        return true;
    }

    function _dismiss(CaseFile calldata file, bytes32 caseId, Case memory c) private {
        _end(file, caseId, c, CaseState.DISMISSED);
        (uint256 toAccused, uint256 toTreasury) = CourtMoney.halvesDown(_restOf(file, c));
        _pay(caseId, _accusedOrTreasury(file), toAccused);
        _pay(caseId, VAULT.treasury(), toTreasury);
    }

    function _close(CaseFile calldata file, bytes32 caseId, Case memory c) private {
        _end(file, caseId, c, CaseState.CLOSED);
        _pay(caseId, c.decision == Decision.UNAVAILABLE ? VAULT.treasury() : file.reporter, _restOf(file, c));
    }

    /// @dev 0 none, 1, 2, 3 for buckets 12, 20, 40. Without the share's p-value a LEAK verdict slashes nothing.
    function _row(Verdict calldata verdict) private pure returns (uint256) {
        if (verdict.kind == Kind.LEAK && verdict.shareIndex == NO_SHARE) return 0;
        if (verdict.bucket < WEAKEST_BUCKET) return 0;
        return verdict.bucket < 20 ? 1 : verdict.bucket < 40 ? 2 : 3;
    }

    function _slashBps(uint16 flags) private view returns (uint16) {
        uint256 row = flags >> ROW_SHIFT & 3;
        return row == 0 ? 0 : row == 1 ? SLASH_BPS_12 : row == 2 ? SLASH_BPS_20 : SLASH_BPS_40;
    }
}
