// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Delivery, Order} from "./interfaces/IEscrowBase.sol";
import {IEscrowExtension} from "./interfaces/IEscrowExtension.sol";
import {ICourt} from "./interfaces/ICourt.sol";
import {CaseFile, Verdict} from "./interfaces/ICourtBase.sol";
import {Canary, IOracleCommittee} from "./interfaces/IOracleCommittee.sol";
import {IVault} from "./interfaces/IVault.sol";
import {Signatures} from "./libraries/Signatures.sol";

/// @title OracleCommittee
/// @notice Decides whose signatures count. Holds no money: stakes lie in the vault.
/// ORACLE_ADMIN (through the AccessManager) names the seats of the next epoch, two weeks ahead and a third at a time,
/// besides seats that cannot be named again; it cannot touch a stake, unseat an operator at once or reach the committee of a case that is
/// open.
contract OracleCommittee is IOracleCommittee, AccessManaged, EIP712 {
    struct Epoch {
        bytes32 hash;
        uint40 activeFrom;
        uint40 activatedAt; // 0: only announced
        uint40 countsUntil; // last second; type(uint40).max while current
        uint32 vacated; // seats whose signatures stopped counting
        uint8 threshold;
    }

    struct Accusation {
        CanaryState state;
        uint40 until; // court time
    }

    bytes32 private constant POSSESSION_TYPEHASH = keccak256("SignerPossession(address account,uint40 deadline)");
    bytes32 private constant CANARY_DOMAIN = keccak256("zhiyi.canary.v1");
    uint256 public constant MAX_SEATS = 31;
    /// @dev Longer than any case lasts, pauses included (MisuseCourt.MAX_CASE_LIFE), so a stake outlives what it answers for.
    uint40 public constant EXIT_DELAY = 90 days;
    /// @dev A case opened under an epoch can still be judged when the epoch is replaced at that moment: post windows are <= 14 d.
    uint40 private constant MAX_OVERLAP = 14 days;
    uint40 private constant CONTEST_TIME = 7 days;
    /// @dev Time to run a detector again. With CONTEST_TIME and pauses shorter than EXIT_DELAY.
    uint40 private constant CANARY_RULING_TIME = 14 days;
    /// @dev Of the minimum stake: one slip costs the seat unless stake is added, five cost everything.
    uint256 private constant CANARY_PENALTY_PARTS = 5;

    IVault public immutable VAULT;
    ICourt public immutable COURT;
    uint8 public immutable MIN_THRESHOLD;
    uint256 public immutable MIN_OPERATOR_STAKE;
    uint256 public immutable MIN_FINGERPRINTER_STAKE;
    uint40 public immutable ANNOUNCE_DELAY;
    /// @notice How long a replaced epoch counts on. Never longer than the delay: the epoch after the next one ends it.
    uint40 public immutable OVERLAP;

    /// @inheritdoc IOracleCommittee
    uint64 public currentEpoch;
    /// @inheritdoc IOracleCommittee
    mapping(address signer => address account) public accountOfSigner;
    mapping(address account => Member) private _members;
    mapping(uint64 epoch => Epoch) private _epochs;
    mapping(uint64 epoch => address[]) private _seats;
    mapping(address account => mapping(bytes32 caseId => bool)) private _equivocated;
    /// @inheritdoc IOracleCommittee
    mapping(bytes32 root => uint40) public canariesCommittedAt;
    mapping(address account => mapping(bytes32 caseId => Accusation)) private _accused;
    /// @inheritdoc IOracleCommittee
    mapping(address account => uint256) public accusations;
    /// @inheritdoc IOracleCommittee
    mapping(address account => bool) public barred;

    modifier onlyCourt() {
        require(msg.sender == address(COURT), NotAPeer(msg.sender));
        _;
    }

    constructor(
        address authority,
        address vault,
        address court,
        uint8 minThreshold,
        uint256 minOperatorStake,
        uint256 minFingerprinterStake,
        uint40 announceDelay
    ) AccessManaged(authority) EIP712("ZhiYiChain OracleCommittee", "1") {
        VAULT = IVault(vault);
        COURT = ICourt(court);
        MIN_THRESHOLD = minThreshold;
        MIN_OPERATOR_STAKE = minOperatorStake;
        MIN_FINGERPRINTER_STAKE = minFingerprinterStake;
        ANNOUNCE_DELAY = announceDelay;
        OVERLAP = announceDelay < MAX_OVERLAP ? announceDelay : MAX_OVERLAP;
    }

    /* MEMBERS */

    /// @inheritdoc IOracleCommittee
    function join(
        Role role,
        address signer,
        bytes32 encryptionKey,
        uint256 stake,
        string calldata url,
        uint40 deadline,
        bytes calldata possession
    ) external {
        require(role != Role.NONE, RoleMissing());
        require(!barred[msg.sender], Barred(msg.sender));
        require(_members[msg.sender].role == Role.NONE, AlreadyMember(msg.sender));
        uint256 total = VAULT.stakeOf(msg.sender).staked + stake;
        require(total >= minStake(role), StakeBelowMinimum(total, minStake(role)));
        require(encryptionKey != 0, EncryptionKeyMissing());
        _takeSigner(signer, deadline, possession);
        _members[msg.sender] = Member(role, signer, 0, encryptionKey);
        emit MemberJoined(msg.sender, role, signer, encryptionKey, url);
        if (stake != 0) VAULT.addStake(msg.sender, stake);
        if (role == Role.FINGERPRINTER) VAULT.allowDeposits(msg.sender, true);
    }

    /// @inheritdoc IOracleCommittee
    function update(
        address signer, bytes32 encryptionKey, string calldata url, uint40 deadline, bytes calldata possession
    ) external {
        Member storage member = _remaining(msg.sender);
        require(encryptionKey != 0, EncryptionKeyMissing());
        _takeSigner(signer, deadline, possession);
        member.signer = signer;
        member.encryptionKey = encryptionKey;
        emit MemberUpdated(msg.sender, signer, encryptionKey, url);
    }

    /// @inheritdoc IOracleCommittee
    function addStake(uint256 amount) external {
        _remaining(msg.sender);
        VAULT.addStake(msg.sender, amount);
    }

    /// @inheritdoc IOracleCommittee
    function requestExit() external {
        Member storage member = _remaining(msg.sender);
        uint40 exitAt = uint40(block.timestamp) + EXIT_DELAY;
        member.exitAt = exitAt;
        emit ExitRequested(msg.sender, exitAt);
        _vacateSeats(msg.sender);
        if (member.role == Role.FINGERPRINTER) VAULT.allowDeposits(msg.sender, false);
    }

    /// @inheritdoc IOracleCommittee
    function leave() external {
        Member storage member = _members[msg.sender];
        require(member.role != Role.NONE, NotAMember(msg.sender));
        require(member.exitAt != 0, ExitNotRequested(msg.sender));
        require(block.timestamp >= member.exitAt, TooEarly(member.exitAt));
        require(accusations[msg.sender] == 0, AccusationPending(msg.sender, accusations[msg.sender]));
        delete _members[msg.sender];
        emit MemberLeft(msg.sender);
        uint256 staked = VAULT.stakeOf(msg.sender).staked;
        if (staked != 0) VAULT.removeStake(msg.sender, staked);
    }

    /* ORACLE_ADMIN */

    /// @inheritdoc IOracleCommittee
    function announceEpoch(address[] calldata signers, uint8 k) external restricted returns (uint64 epoch) {
        uint256 n = signers.length;
        require(n <= MAX_SEATS, TooManySigners(n, MAX_SEATS));
        require(k >= MIN_THRESHOLD && k <= n && 2 * uint256(k) > n, ThresholdTooLow(k, n));
        address last;
        for (uint256 i; i < n; ++i) {
            require(signers[i] > last, SignersNotAscending(i));
            last = signers[i];
            _checkSeatable(last);
        }
        uint64 current = currentEpoch;
        uint40 from = uint40(block.timestamp);
        if (current != 0) {
            _checkRotation(_seats[current], signers);
            from += ANNOUNCE_DELAY;
        }
        epoch = current + 1;
        _epochs[epoch] = Epoch({
            hash: keccak256(abi.encode(signers, k)), activeFrom: from, activatedAt: 0, countsUntil: 0, vacated: 0, threshold: k
        });
        _seats[epoch] = signers;
        emit EpochAnnounced(epoch, signers, k, from);
    }

    /// @inheritdoc IOracleCommittee
    function activateEpoch(uint64 epoch) external {
        Epoch storage next = _epochs[epoch];
        uint64 current = currentEpoch;
        require(epoch == current + 1 && next.threshold != 0, EpochNotActive(epoch));
        require(block.timestamp >= next.activeFrom, TooEarly(next.activeFrom));
        if (current != 0) _epochs[current].countsUntil = uint40(block.timestamp) + OVERLAP - 1;
        if (current > 1) _epochs[current - 1].countsUntil = 0;
        next.activatedAt = uint40(block.timestamp);
        next.countsUntil = type(uint40).max;
        currentEpoch = epoch;
        emit EpochActivated(epoch, next.hash);
        uint32 vacated = _unseatable(_seats[epoch], false);
        if (vacated != 0) {
            next.vacated = vacated;
            emit SeatsVacated(epoch, vacated);
        }
    }

    /// @inheritdoc IOracleCommittee
    function commitCanaries(uint64 epoch, bytes32 root) external restricted {
        require(canariesCommittedAt[root] == 0, CanariesKnown(root));
        canariesCommittedAt[root] = uint40(block.timestamp);
        emit CanariesCommitted(epoch, root);
    }

    /* SIGNATURES */

    /// @inheritdoc IOracleCommittee
    function verify(uint64 epoch, bytes32 digest, address[] calldata signers, uint32 bitmap, bytes calldata signatures)
        external
        view
        returns (uint256 count)
    {
        Epoch storage e = _epochs[epoch];
        uint256 k = e.threshold;
        require(block.timestamp <= e.countsUntil, EpochNotActive(epoch));
        bytes32 given = keccak256(abi.encode(signers, uint8(k)));
        require(given == e.hash, CommitteeMismatch(epoch, given));
        require(bitmap & e.vacated == 0, SeatVacant(bitmap & e.vacated));
        require(uint256(bitmap) >> signers.length == 0, BitmapOutOfRange(bitmap, signers.length));
        count = _bits(bitmap);
        require(count >= k, NotEnoughSignatures(count, k));
        require(signatures.length == 65 * count, SignaturesMalformed(signatures.length));
        uint256 at;
        for (uint256 seat; bitmap >> seat != 0; ++seat) {
            if ((bitmap >> seat) & 1 == 0) continue;
            (address recovered,,) = ECDSA.tryRecoverCalldata(digest, signatures[at:at + 65]); // 0 for high s and bad v
            require(recovered == signers[seat], BadSigner(seat, recovered, signers[seat]));
            at += 65;
        }
    }

    /// @inheritdoc IOracleCommittee
    function proveEquivocation(bytes calldata verdictA, bytes calldata signatureA, bytes calldata verdictB, bytes calldata signatureB)
        external
    {
        Verdict memory a = abi.decode(verdictA, (Verdict));
        Verdict memory b = abi.decode(verdictB, (Verdict));
        require(a.caseId == b.caseId && (a.decision != b.decision || a.licenseId != b.licenseId), NotEquivocation());
        (address signer,,) = ECDSA.tryRecoverCalldata(COURT.verdictDigest(a), signatureA);
        (address other,,) = ECDSA.tryRecoverCalldata(COURT.verdictDigest(b), signatureB);
        require(signer != address(0) && signer == other, NotEquivocation());
        address account = accountOfSigner[signer];
        require(_members[account].role == Role.OPERATOR && !_equivocated[account][a.caseId], NotEquivocation());
        _equivocated[account][a.caseId] = true;
        _vacateSeats(account);
        uint256 slashed = VAULT.slashStake(account, type(uint256).max, VAULT.treasury());
        emit Equivocated(account, a.caseId, slashed);
    }

    /// @inheritdoc IOracleCommittee
    function proveDoubleCopy(Order calldata orderA, bytes calldata signatureA, Order calldata orderB, bytes calldata signatureB)
        external
    {
        Delivery calldata a = orderA.delivery;
        Delivery calldata b = orderB.delivery;
        address account = a.fingerprinter;
        require(_members[account].role == Role.FINGERPRINTER, NotAFingerprinter(account));
        require(
            b.fingerprinter == account && a.licenseId == b.licenseId && (a.copyRoot != b.copyRoot || a.buyer != b.buyer),
            NotADoubleCopy()
        );
        IEscrowExtension escrow = IEscrowExtension(address(VAULT));
        require(
            Signatures.areValid(account, escrow.orderDigest(orderA), signatureA)
                && Signatures.areValid(account, escrow.orderDigest(orderB), signatureB),
            NotADoubleCopy()
        );
        barred[account] = true;
        VAULT.allowDeposits(account, false);
        uint256 slashed = VAULT.slashStake(account, type(uint256).max, VAULT.treasury());
        emit DoubleCopied(account, a.licenseId, slashed);
    }

    /* CANARIES */

    /// @inheritdoc IOracleCommittee
    function accuseCanary(CaseFile calldata file, Verdict calldata verdict, bytes calldata signature, Canary calldata expected)
        external
    {
        bytes32 caseId = verdict.caseId;
        require(
            COURT.caseIdOf(file) == caseId && file.evidenceHash == verdict.evidenceHash, CaseMismatch(caseId)
        );
        _checkCanary(file, expected);
        require(
            verdict.decision != expected.decision || verdict.bucket != expected.bucket || verdict.samples != expected.samples,
            VerdictAsExpected(caseId)
        );
        (address signer,,) = ECDSA.tryRecoverCalldata(COURT.verdictDigest(verdict), signature);
        address account = accountOfSigner[signer];
        require(_members[account].role == Role.OPERATOR, NotAnOperator(signer));
        _checkCanaryState(account, caseId, CanaryState.NONE);
        uint40 until = COURT.clock() + CONTEST_TIME;
        _accused[account][caseId] = Accusation(CanaryState.ACCUSED, until);
        ++accusations[account];
        emit CanaryAccused(account, caseId, expected.root, expected.decision, expected.bucket, expected.samples, until);
    }

    /// @inheritdoc IOracleCommittee
    function contestCanary(bytes32 caseId, bytes32 digest) external {
        Accusation memory accusation = _checkCanaryState(msg.sender, caseId, CanaryState.ACCUSED);
        uint40 time = COURT.clock();
        require(time <= accusation.until, TooLate(accusation.until));
        uint40 until = time + CANARY_RULING_TIME;
        _accused[msg.sender][caseId] = Accusation(CanaryState.CONTESTED, until);
        emit CanaryContested(msg.sender, caseId, digest, until);
    }

    /// @inheritdoc IOracleCommittee
    function ruleCanary(address account, bytes32 caseId, bool upheld) external {
        address authority_ = COURT.APPEAL_AUTHORITY();
        require(msg.sender == authority_, NotTheAuthority(msg.sender, authority_));
        Accusation memory accusation = _accusationOf(account, caseId);
        uint40 time = COURT.clock();
        uint40 ruleBy = _ruleBy(accusation);
        require(accusation.state == CanaryState.CONTESTED || time > accusation.until, TooEarly(accusation.until));
        require(time <= ruleBy, TooLate(ruleBy));
        _endCanary(account, caseId, upheld);
    }

    /// @inheritdoc IOracleCommittee
    function endCanary(address account, bytes32 caseId) external {
        uint40 ruleBy = _ruleBy(_accusationOf(account, caseId));
        require(COURT.clock() > ruleBy, TooEarly(ruleBy));
        _endCanary(account, caseId, false);
    }

    /* COURT */

    /// @inheritdoc IOracleCommittee
    function slashSigners(bytes32 caseId, uint64 epoch, uint32 bitmap, uint256 total, address to)
        external
        onlyCourt
        returns (uint256 slashed)
    {
        uint256 part = total / _bits(bitmap);
        for (uint256 seat; bitmap >> seat != 0; ++seat) {
            if ((bitmap >> seat) & 1 == 1) slashed += VAULT.slashStake(accountAt(epoch, seat), part, to);
        }
        emit SignersSlashed(caseId, slashed);
    }

    /* VIEWS */

    /// @inheritdoc IOracleCommittee
    function committeeHash(uint64 epoch) external view returns (bytes32) {
        return _epochs[epoch].hash;
    }

    /// @inheritdoc IOracleCommittee
    function threshold(uint64 epoch) external view returns (uint8) {
        return _epochs[epoch].threshold;
    }

    /// @inheritdoc IOracleCommittee
    function signersOf(uint64 epoch) external view returns (address[] memory) {
        return _seats[epoch];
    }

    /// @inheritdoc IOracleCommittee
    function accountAt(uint64 epoch, uint256 seat) public view returns (address) {
        address[] storage seats = _seats[epoch];
        require(seat < seats.length, NoSuchSeat(epoch, seat));
        return accountOfSigner[seats[seat]];
    }

    /// @inheritdoc IOracleCommittee
    function vacatedSeats(uint64 epoch) external view returns (uint32) {
        return _epochs[epoch].vacated;
    }

    /// @inheritdoc IOracleCommittee
    function epochCounts(uint64 epoch) external view returns (bool) {
        return block.timestamp <= _epochs[epoch].countsUntil;
    }

    /// @inheritdoc IOracleCommittee
    function activeFrom(uint64 epoch) external view returns (uint40) {
        return _epochs[epoch].activeFrom;
    }

    /// @inheritdoc IOracleCommittee
    function memberOf(address account) external view returns (Member memory) {
        return _members[account];
    }

    /// @inheritdoc IOracleCommittee
    function minStake(Role role) public view returns (uint256) {
        return role == Role.FINGERPRINTER ? MIN_FINGERPRINTER_STAKE : MIN_OPERATOR_STAKE;
    }

    /// @inheritdoc IOracleCommittee
    function possessionDigest(address account, uint40 deadline) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(POSSESSION_TYPEHASH, account, deadline)));
    }

    /// @inheritdoc IOracleCommittee
    function canaryAccusation(address account, bytes32 caseId) external view returns (CanaryState state, uint40 until) {
        Accusation memory accusation = _accused[account][caseId];
        return (accusation.state, accusation.until);
    }

    /* INTERNAL */

    /// @dev The member, which must not be leaving.
    function _remaining(address account) private view returns (Member storage member) {
        member = _members[account];
        require(member.role != Role.NONE, NotAMember(account));
        require(member.exitAt == 0, ExitPending(account, member.exitAt));
    }

    /// @dev A key that the caller has had before needs no proof, nor does the caller's own, which sends this.
    function _takeSigner(address signer, uint40 deadline, bytes calldata possession) private {
        address holder = accountOfSigner[signer];
        if (holder == msg.sender) return;
        require(signer != address(0) && holder == address(0), SignerTaken(signer));
        if (signer != msg.sender) {
            require(block.timestamp <= deadline, TooLate(deadline));
            (address recovered,,) = ECDSA.tryRecoverCalldata(possessionDigest(msg.sender, deadline), possession);
            require(recovered == signer, NotInPossession(signer));
        }
        accountOfSigner[signer] = msg.sender;
    }

    /// @dev Committed in an earlier block than the case was opened: whoever opens it must not know the verdict first.
    function _checkCanary(CaseFile calldata file, Canary calldata expected) private view {
        bytes32 leaf = keccak256(
            abi.encode(
                CANARY_DOMAIN, expected.salt, file.evidenceHash, expected.decision, expected.bucket, expected.samples
            )
        );
        uint40 committedAt = canariesCommittedAt[expected.root];
        require(
            committedAt != 0 && MerkleProof.verifyCalldata(expected.path, expected.root, leaf), NotACanary(expected.root)
        );
        require(committedAt < file.openedAt, CanaryTooYoung(committedAt, file.openedAt));
    }

    function _checkCanaryState(address account, bytes32 caseId, CanaryState needed)
        private
        view
        returns (Accusation memory accusation)
    {
        accusation = _accused[account][caseId];
        require(accusation.state == needed, WrongCanaryState(account, caseId, accusation.state, needed));
    }

    /// @dev One that has not ended.
    function _accusationOf(address account, bytes32 caseId) private view returns (Accusation memory accusation) {
        accusation = _accused[account][caseId];
        require(
            accusation.state == CanaryState.ACCUSED || accusation.state == CanaryState.CONTESTED,
            WrongCanaryState(account, caseId, accusation.state, CanaryState.ACCUSED)
        );
    }

    /// @dev The authority's time begins with the operator's answer, or when the time for one is over.
    function _ruleBy(Accusation memory accusation) private pure returns (uint40) {
        return accusation.state == CanaryState.CONTESTED ? accusation.until : accusation.until + CANARY_RULING_TIME;
    }

    function _endCanary(address account, bytes32 caseId, bool upheld) private {
        _accused[account][caseId].state = CanaryState.ENDED;
        --accusations[account];
        uint256 slashed;
        if (upheld) slashed = VAULT.slashStake(account, MIN_OPERATOR_STAKE / CANARY_PENALTY_PARTS, VAULT.treasury());
        emit CanaryEnded(account, caseId, upheld, slashed);
    }

    /// @dev The signer must be the present key of an operator that stays and whose stake reaches the minimum.
    function _checkSeatable(address signer) private view {
        address account = accountOfSigner[signer];
        Member storage member = _members[account];
        require(member.role == Role.OPERATOR && member.signer == signer, NotAnOperator(signer));
        require(member.exitAt == 0, ExitPending(account, member.exitAt));
        uint256 staked = VAULT.stakeOf(account).staked;
        require(staked >= MIN_OPERATOR_STAKE, StakeBelowMinimum(staked, MIN_OPERATOR_STAKE));
    }

    /// @dev Seats whose operator left, is leaving or lost its stake since they were announced.
    /// @param orReplaced also seats whose signer is no longer the operator's key: what `_checkSeatable` refuses, as a bitmap
    function _unseatable(address[] storage seats, bool orReplaced) private view returns (uint32 bitmap) {
        for (uint256 i; i < seats.length; ++i) {
            address account = accountOfSigner[seats[i]];
            Member storage member = _members[account];
            if (
                member.role != Role.OPERATOR || member.exitAt != 0 || VAULT.stakeOf(account).staked < MIN_OPERATOR_STAKE
                    || orReplaced && member.signer != seats[i]
            ) {
                bitmap |= uint32(1 << i);
            }
        }
    }

    /// @dev Both lists ascend. At most a third of the present seats (rounded down, at least one) may be new, and as many may go.
    /// Seats that cannot be named again go, and are replaced, besides: their operators could stop every rotation otherwise.
    function _checkRotation(address[] storage present, address[] calldata next) private view {
        uint256 kept;
        uint256 i;
        for (uint256 j; j < next.length; ++j) {
            while (i < present.length && present[i] < next[j]) ++i;
            if (i < present.length && present[i] == next[j]) ++kept;
        }
        uint256 max = present.length < 3 ? 1 : present.length / 3;
        uint256 gone = _bits(_unseatable(present, true)); // none of them is in `next`, which was checked
        uint256 added = next.length - kept;
        added = added > gone ? added - gone : 0;
        uint256 removed = present.length - kept - gone;
        uint256 changed = added > removed ? added : removed;
        require(changed <= max, TooManySeatsChanged(changed, max));
    }

    /// @dev In the only epochs whose signatures can count: the current one and the one before.
    function _vacateSeats(address account) private {
        uint64 epoch = currentEpoch;
        for (uint256 i; i < 2 && epoch != 0; ++i) {
            address[] storage seats = _seats[epoch];
            uint32 bitmap;
            for (uint256 seat; seat < seats.length; ++seat) {
                if (accountOfSigner[seats[seat]] == account) bitmap |= uint32(1 << seat);
            }
            if (bitmap != 0) {
                _epochs[epoch].vacated |= bitmap;
                emit SeatsVacated(epoch, bitmap);
            }
            --epoch;
        }
    }

    function _bits(uint32 bitmap) private pure returns (uint256 count) {
        for (; bitmap != 0; bitmap &= bitmap - 1) ++count;
    }
}
