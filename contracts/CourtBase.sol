// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {
    CaseFile,
    CaseState,
    CourtParams,
    CourtPeers,
    Decision,
    ICourtBase,
    Kind,
    Verdict
} from "./interfaces/ICourtBase.sol";
import {ILicenseNFT} from "./interfaces/ILicenseNFT.sol";
import {IModelNFT} from "./interfaces/IModelNFT.sol";
import {IOracleCommittee} from "./interfaces/IOracleCommittee.sol";
import {Bond, IVault} from "./interfaces/IVault.sol";
import {CourtMoney} from "./libraries/CourtMoney.sol";

/// @notice Cases as the court and its extension see them: storage, clock, checks, and the ends that both reach.
abstract contract CourtBase is ICourtBase, AccessManaged, EIP712, ReentrancyGuardTransient {
    /// @dev Packed into one word, this order, first field in the low bits. An empty word is a case that is OPEN, and holds the license
    /// bond, if the vault holds a bond for it: opening writes no word (22k gas), the first step after it does.
    struct Case {
        address challenger; // 0: nobody challenged
        uint40 until; // deadline of the present state; while CLEARED and held: when the hold ends
        uint32 unpaidSeats; // signers of the verdict, less those that took their fee
        CaseState state; // 4 bits
        Decision decision; // 4 bits
        uint16 flags; // see below
    }

    /// @dev One word a license, this order, first field in the low bits; written whole, which saves 700 gas an execution.
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
    uint40 internal constant NOTICE = 96 hours;
    /// @dev To seal evidence that one has to a key and put it where the accused finds it.
    uint40 internal constant SERVICE_TIME = 24 hours;
    /// @dev With the pauses that fall into it (28 d at most) less than OracleCommittee.EXIT_DELAY: no stake leaves before its cases end.
    uint40 private constant MAX_CASE_LIFE = 60 days;
    /// @dev OracleCommittee.OVERLAP, where announcing takes as long: a committee replaced right after the opening still counts at `postBy`,
    /// pauses apart.
    uint40 private constant MAX_POST_WINDOW = 14 days;
    uint8 internal constant NO_SHARE = 255;

    // Case.flags
    uint256 internal constant SHARE_MASK = 0x1f; // share + 1
    uint256 internal constant ROW_SHIFT = 5; // two bits: row of the slash table
    uint256 internal constant FREE = 0x80; // does not hold the license bond
    uint256 internal constant SERVICE_ASKED = 0x100;
    uint256 internal constant CHUNK_OPENED = 0x200;

    IVault public immutable VAULT;
    ILicenseNFT public immutable LICENSES;
    IModelNFT public immutable MODELS;
    IOracleCommittee public immutable COMMITTEE;
    /// @notice Rules on challenged verdicts; ORACLE_ADMIN does not appoint it.
    address public immutable APPEAL_AUTHORITY;
    address public immutable LAST_INSTANCE;

    uint96 internal immutable MIN_REPORT_BOND;
    uint96 internal immutable CHALLENGE_BOND;
    uint96 internal immutable MISSED_SHARE_PENALTY;
    uint40 internal immutable POST_WINDOW;
    uint40 internal immutable CHALLENGE_WINDOW;
    uint40 internal immutable RULING_WINDOW;
    uint40 internal immutable LAST_WINDOW;
    uint40 internal immutable MARK_AGE;
    uint16 internal immutable FEE_BPS;
    uint16 internal immutable REPORTER_BPS;
    uint16 internal immutable SLASH_BPS_12;
    uint16 internal immutable SLASH_BPS_20;
    uint16 internal immutable SLASH_BPS_40;

    Pause internal _pause;
    mapping(bytes32 caseId => uint256 word) private _cases;
    mapping(uint256 licenseId => uint256 word) private _dockets;
    mapping(bytes32 caseId => bytes32) internal _subjects; // TERMS, UNDECLARED_PARENT, OWNERSHIP
    mapping(bytes32 caseId => uint40 courtTime) internal _cureBy; // DISCLOSURE, once notice was given
    /// @dev By license id; by model id for the kinds that freeze a model. Ids of licenses are 2^28 and above.
    mapping(uint256 id => mapping(bytes32 subject => bool)) internal _counted;

    constructor(address authority, CourtPeers memory peers, CourtParams memory p)
        AccessManaged(authority)
        EIP712("ZhiYiChain MisuseCourt", "1")
    {
        _atMost("feeBps", p.feeBps, CourtMoney.BPS);
        _atMost("reporterBps", p.reporterBps, 1000);
        _atMost("slashBps[2]", p.slashBps[2], CourtMoney.BPS);
        _atMost("slashBps[1]", p.slashBps[1], p.slashBps[2]);
        _atMost("slashBps[0]", p.slashBps[0], p.slashBps[1]);
        _atMost("postWindow", p.postWindow, MAX_POST_WINDOW);
        uint256 window = p.challengeWindow > NOTICE ? p.challengeWindow : NOTICE;
        // The accused is served once: the window that was running then runs twice.
        uint256 twice = window > p.rulingWindow ? window : p.rulingWindow;
        _atMost("case life", p.postWindow + window + p.rulingWindow + SERVICE_TIME + twice + p.lastWindow, MAX_CASE_LIFE);
        VAULT = IVault(peers.vault);
        LICENSES = ILicenseNFT(peers.licenses);
        MODELS = IModelNFT(peers.models);
        COMMITTEE = IOracleCommittee(peers.committee);
        APPEAL_AUTHORITY = peers.appealAuthority;
        LAST_INSTANCE = peers.lastInstance;
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

    /* CLOCK */

    function _clock() internal view returns (uint40) {
        return uint40(block.timestamp) - _pausedSeconds();
    }

    function _pausedSeconds() internal view returns (uint40) {
        Pause memory pause = _pause;
        uint40 end = pause.until < block.timestamp ? pause.until : uint40(block.timestamp);
        return pause.secondsBefore + end - pause.from;
    }

    function _before(uint40 deadline) internal view {
        require(_clock() <= deadline, TooLate(deadline));
    }

    function _after(uint40 deadline) internal view {
        require(_clock() > deadline, TooEarly(deadline));
    }

    /// @dev The last second for a share: half of the window is left to whoever measures and posts.
    function _shareBy(CaseFile calldata file) internal view returns (uint40) {
        return file.postBy - POST_WINDOW / 2;
    }

    function _challengeWindow(Kind kind, Decision decision) internal view returns (uint40) {
        return kind == Kind.DISCLOSURE && decision == Decision.GUILTY ? NOTICE : CHALLENGE_WINDOW;
    }

    /* ENTRY CHECKS */

    function _atMost(string memory name, uint256 given, uint256 max) private pure {
        require(given <= max, ParamOutOfRange(name, given, max));
    }

    function _in(CaseFile calldata file, CaseState needed) internal view returns (bytes32 caseId, Case memory c) {
        caseId = _idOf(file);
        c = _load(caseId);
        require(c.state == needed, WrongCaseState(caseId, c.state, needed));
    }

    /// @dev The caller must be whoever decides now, in time.
    function _judging(CaseFile calldata file) internal view returns (bytes32 caseId, Case memory c, address judge) {
        caseId = _idOf(file);
        c = _load(caseId);
        bool escalated = c.state == CaseState.ESCALATED;
        require(escalated || c.state == CaseState.CHALLENGED, WrongCaseState(caseId, c.state, CaseState.CHALLENGED));
        judge = escalated ? LAST_INSTANCE : file.authority;
        require(msg.sender == judge, NotTheAuthority(msg.sender, judge));
        _before(c.until);
    }

    function _checkPosting(uint40 deadline) internal view {
        require(block.timestamp >= _pause.until, PostingIsPaused(_pause.until));
        require(block.timestamp <= deadline, TooLate(deadline));
    }

    /// @dev Cases that hold the license's bond now count for every kind, or cheap cases of one kind would price another out.
    function _leastBond(uint256 licenseId, Kind kind, Bond memory stake) internal view returns (uint256) {
        uint256 times = stake.openCases;
        if (kind == Kind.LEAK) {
            for (uint256 left = _docketOf(licenseId).shares; left != 0; left &= left - 1) ++times;
        }
        uint256 held = stake.tokenIndex == 0 && kind != Kind.DISCLOSURE ? stake.amount : 0;
        return CourtMoney.doubledUp(CourtMoney.leastReportUp(MIN_REPORT_BOND, held), times);
    }

    /* ENDS */

    /// @dev Writes the end, gives the license bond free and ends a suspension. `c.unpaidSeats` stays for `_restOf` and the fees.
    function _end(CaseFile calldata file, bytes32 caseId, Case memory c, CaseState end) internal {
        bool held = c.flags & FREE == 0;
        c.state = end;
        c.flags |= uint16(FREE);
        _save(caseId, c);
        emit VerdictFinal(caseId, end);
        _unsuspend(file, caseId);
        if (held) VAULT.unholdBond(file.licenseId);
    }

    function _clear(CaseFile calldata file, bytes32 caseId, Case memory c) internal {
        _end(file, caseId, c, CaseState.CLEARED);
        _pay(caseId, _accusedOrTreasury(file), _restOf(file, c));
    }

    /// @dev Notice was given in this case; the last such case that ends lifts the suspension.
    function _unsuspend(CaseFile calldata file, bytes32 caseId) internal {
        if (file.kind != Kind.DISCLOSURE || _cureBy[caseId] == 0) return;
        Docket memory docket = _docketOf(file.licenseId);
        bool last = --docket.suspensions == 0;
        _saveDocket(file.licenseId, docket);
        if (last) LICENSES.suspend(file.licenseId, false, caseId);
    }

    function _pay(bytes32 caseId, address to, uint256 amount) internal {
        VAULT.payCaseBond(caseId, to, amount);
    }

    /// @dev R - f; R where nobody signed or a ruling took the fee from those who did.
    function _restOf(CaseFile calldata file, Case memory c) internal view returns (uint256 rest) {
        if (c.unpaidSeats == 0) return file.bond;
        (, rest) = CourtMoney.feeDown(file.bond, FEE_BPS);
    }

    function _accusedOrTreasury(CaseFile calldata file) internal view returns (address) {
        return file.accused == address(0) ? VAULT.treasury() : file.accused;
    }

    /* HASHES */

    /// @dev The words of a static struct in calldata are its ABI encoding; a word with dirty high bits names no case.
    function _idOf(CaseFile calldata file) internal pure returns (bytes32 id) {
        assembly ("memory-safe") {
            let at := mload(0x40)
            calldatacopy(at, file, 384)
            id := keccak256(at, 384)
        }
    }

    function _digestOf(Verdict calldata verdict) internal view returns (bytes32) {
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

    /* PACKED WORD */

    function _load(bytes32 caseId) internal view returns (Case memory c) {
        uint256 word = _cases[caseId];
        if (word == 0) {
            if (VAULT.caseBondOf(caseId) != 0) c.state = CaseState.OPEN;
            return c;
        }
        c.challenger = address(uint160(word));
        c.until = uint40(word >> 160);
        c.unpaidSeats = uint32(word >> 200);
        c.state = CaseState(uint8(word >> 232) & 15);
        c.decision = Decision(uint8(word >> 236) & 15);
        c.flags = uint16(word >> 240);
    }

    function _save(bytes32 caseId, Case memory c) internal {
        _cases[caseId] = uint160(c.challenger) | uint256(c.until) << 160 | uint256(c.unpaidSeats) << 200
            | uint256(c.state) << 232 | uint256(c.decision) << 236 | uint256(c.flags) << 240;
    }

    function _docketOf(uint256 licenseId) internal view returns (Docket memory docket) {
        uint256 word = _dockets[licenseId];
        docket.slashedLeak = uint96(word);
        docket.slashedTerms = uint96(word >> 96);
        docket.shares = uint16(word >> 192);
        docket.suspensions = uint16(word >> 208);
        docket.leakBucket = uint8(word >> 224);
    }

    function _saveDocket(uint256 licenseId, Docket memory docket) internal {
        _dockets[licenseId] = docket.slashedLeak | uint256(docket.slashedTerms) << 96 | uint256(docket.shares) << 192
            | uint256(docket.suspensions) << 208 | uint256(docket.leakBucket) << 224;
    }

    function _bucketOf(uint16 flags) internal pure returns (uint8) {
        uint256 row = flags >> ROW_SHIFT & 3;
        return row == 0 ? 0 : row == 1 ? 12 : row == 2 ? 20 : 40;
    }
}
