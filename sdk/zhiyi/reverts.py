"""What a contract's refusal means and what to do next, in English and Chinese: one table for all contracts.

Hints are templates over the error's arguments, by Solidity name.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from zhiyi import abi, types
from zhiyi.errors import IntegrityError, TxReverted

PANIC: Final = bytes.fromhex("4e487b71")
ERROR: Final = bytes.fromhex("08c379a0")

_WAIT: Final = ("Wait until {notBefore} (unix seconds).", "请等到 {notBefore}（unix 秒）之后再试。")

HINTS: Final[dict[str, tuple[str, str]]] = {
    # any contract
    "NotAPeer": (
        "Only contracts of this deployment may call this; call the contract that a user calls.",
        "只有本系统的合约可以调用；请调用面向用户的合约。",
    ),
    "TooEarly": _WAIT,
    "TooLate": (
        "The time for this ended at {deadline}; look for the time-out exit of this state.",
        "期限已于 {deadline} 结束；请使用该状态的超时出口。",
    ),
    "NotFactoryOwner": (
        "Only {owner} may create contracts with this factory.",
        "只有 {owner} 可以用此工厂创建合约。",
    ),
    "FactoryClosed": (
        "This deployment is complete; deploy again with another salt.",
        "该部署已完成；请换一个 salt 重新部署。",
    ),
    "NameTaken": ("That contract is there already, at {at}.", "该合约已存在，位于 {at}。"),
    "AccessManagedUnauthorized": (
        "{caller} does not hold the role that may call this; an administrator can grant it.",
        "{caller} 没有调用此功能的角色；可由管理员授予。",
    ),
    "AccessManagedRequiredDelay": (
        "This power has a delay of {delay} s: announce it with `zhiyi access schedule`, repeat this call after that.",
        "该权限有 {delay} 秒延迟：请先用 `zhiyi access schedule` 排期，延迟期结束后再次调用。",
    ),
    "AccessManagerUnauthorizedAccount": (
        "{msgsender} does not hold role {roleId}; an administrator can grant it.",
        "{msgsender} 没有角色 {roleId}；可由管理员授予。",
    ),
    "AccessManagerUnauthorizedCall": (
        "{caller} holds no role for this function, or has no delay and calls it at once; a time must be after "
        "the delay. `zhiyi access holders` lists who holds what.",
        "{caller} 没有该函数的角色，或其角色没有延迟、可直接调用；指定的时间须在延迟期之后。"
        "`zhiyi access holders` 列出各角色的持有人。",
    ),
    "AccessManagerNotScheduled": (
        "This power has a delay: announce it with `zhiyi access schedule` (the same account, function and arguments), "
        "repeat this call after the delay.",
        "该权限有延迟：请先用 `zhiyi access schedule` 排期（同一账户、函数与参数），延迟期结束后再次调用。",
    ),
    "AccessManagerNotReady": (
        "It is announced, its delay is not over: `zhiyi access pending` says from when on it can be done.",
        "已排期但延迟期未结束：`zhiyi access pending` 显示何时可以执行。",
    ),
    "AccessManagerExpired": (
        "It was to be done within a week after its delay: announce it again with `zhiyi access schedule`.",
        "延迟期结束后一周内未执行，排期已失效：请用 `zhiyi access schedule` 重新排期。",
    ),
    "AccessManagerAlreadyScheduled": (
        "It is announced already: `zhiyi access pending` says from when on it can be done.",
        "已排期：`zhiyi access pending` 显示何时可以执行。",
    ),
    "AccessManagerBadConfirmation": (
        "Name your own account to renounce a role.",
        "放弃角色时请填写自己的账户。",
    ),
    "AccessManagerInvalidInitialAdmin": ("Name an administrator.", "请指定管理员。"),
    "AccessManagerLockedFunction": ("This function's role is fixed.", "该函数的角色不可更改。"),
    "AccessManagerLockedRole": ("Role {roleId} is fixed.", "角色 {roleId} 不可更改。"),
    "AccessManagerUnauthorizedCancel": (
        "Only the scheduler, a guardian or an administrator may cancel this operation.",
        "仅排期人、守护者或管理员可取消该操作。",
    ),
    "AccessManagerUnauthorizedConsume": (
        "Only the managed contract may consume a schedule.",
        "仅受管合约可消耗排期。",
    ),
    "AccessManagedInvalidAuthority": ("{authority} is no AccessManager.", "{authority} 不是 AccessManager。"),
    "AddressEmptyCode": ("There is no contract at {target}.", "{target} 处没有合约。"),
    "FailedCall": ("A call inside failed without a reason.", "内部调用失败且未给出原因。"),
    "SafeCastOverflowedUintDowncast": ("{value} does not fit {bits} bits.", "{value} 超出 {bits} 位。"),
    "ReentrancyGuardReentrantCall": (
        "Do not call back from a token or receiver.",
        "不要在代币或接收方中回调。",
    ),
    "SafeERC20FailedOperation": (
        "Token {token} refused: check balance and allowance.",
        "代币 {token} 拒绝：请检查余额与授权额度。",
    ),
    "InsufficientBalance": (
        "The contract holds {balance}, {needed} are needed.",
        "合约余额 {balance}，需要 {needed}。",
    ),
    "ValueNotTaken": ("Send no coin with this call.", "请勿随此调用附带资金。"),
    "BadSignature": (
        "The signature is not by {signer} over this order on this chain: have {signer} sign it again.",
        "签名不是 {signer} 在本链对该订单所签：请 {signer} 重新签名。",
    ),
    "ParamOutOfRange": ("{name} is {given}, at most {max} is allowed.", "{name} 为 {given}，上限为 {max}。"),
    # identity
    "TierOutOfRange": (
        "Tier {given} is out of range: 1 to 3, and at most {max} here.",
        "等级 {given} 超出范围：应为 1 至 3，此处最高 {max}。",
    ),
    "NotTheSubject": (
        "Only {subject}, of whom it speaks, may record it.",
        "只有被证明人 {subject} 本人可以登记。",
    ),
    "WrongNonce": (
        "It has nonce {given}, the issuer's next for you is {needed}: ask the issuer for a new one.",
        "序号为 {given}，签发方对您的下一个序号是 {needed}：请向签发方索取新的证明。",
    ),
    "AttestationExpired": (
        "The attestation counted until {time}: ask the issuer for a new one.",
        "该证明有效期至 {time}：请向签发方索取新的证明。",
    ),
    "AttestationUnsigned": (
        "The signature is not by the issuer {issuer} over this attestation on this chain: ask it to sign again.",
        "签名不是签发方 {issuer} 在本链对该证明所签：请其重新签名。",
    ),
    "NotAttested": ("{account} has recorded no attestation.", "{account} 没有登记任何证明。"),
    # oversight
    "NoSuchSubject": (
        "{subjectId} is no number of a {kind}: check it.",
        "{subjectId} 不是 {kind} 的编号：请核对。",
    ),
    "NoSuchComplaint": (
        "Complaint {complaintId} was never filed: check the number.",
        "投诉 {complaintId} 不存在：请核对编号。",
    ),
    "ComplaintIsAnswered": (
        "Complaint {complaintId} is answered: {outcome}. File a new one for new facts.",
        "投诉 {complaintId} 已答复：{outcome}。如有新事实，请另行投诉。",
    ),
    "AnswerIsPending": (
        "Answer as UPHELD, DISMISSED or REFERRED.",
        "答复应为 UPHELD、DISMISSED 或 REFERRED。",
    ),
    "NoSuchDemand": (
        "Demand {demandId} was never made: check the number.",
        "披露要求 {demandId} 不存在：请核对编号。",
    ),
    "DemandIsOver": (
        "Demand {demandId} is {state}: nothing more can be done about it.",
        "披露要求 {demandId} 状态为 {state}：不可再操作。",
    ),
    "AnswerTimeOutOfRange": (
        "Set the time between {min} and {max} (unix seconds): 1 to 30 days ahead.",
        "期限应在 {min} 与 {max} 之间（unix 秒）：即 1 至 30 天之后。",
    ),
    "NotTheAddressee": (
        "Only {addressee}, who owned the model or held the license when it was demanded, may answer.",
        "只有 {addressee} 可以答复：提出要求时的模型所有者或许可持有人。",
    ),
    # usage channels
    "ChannelNotOpen": (
        "The channel is {phase}: check its terms, salt included, or open a new one.",
        "通道状态为 {phase}：请核对其参数（含 salt），或另开新通道。",
    ),
    "ChannelExists": (
        "There was a channel with these terms already: choose another salt.",
        "相同参数的通道已存在过：请更换 salt。",
    ),
    "ChannelCloses": (
        "The channel closes: from {closesAt} on anyone may end it. Open a new one.",
        "通道正在关闭：自 {closesAt} 起任何人可结束它。请另开新通道。",
    ),
    "EmptyChannel": ("Lock an amount above zero.", "锁定金额须大于零。"),
    "NotThePayer": ("Only the payer {payer} may do this.", "只有付款方 {payer} 可以操作。"),
    "NotTheProvider": (
        "The provider must be {provider}, who owns the model or holds the license, not {account}.",
        "服务方须为模型所有者或许可持有人 {provider}，而非 {account}。",
    ),
    "LicenseNotCommercial": (
        "License {licenseId} is not an active commercial license of this model: name another, or 0 for its owner.",
        "许可 {licenseId} 不是该模型有效的商业许可：请改用其他许可，或填 0 表示由所有者提供服务。",
    ),
    "ModelNotServed": (
        "Model {modelId} is not approved, delisted or frozen: no channel gets more money now.",
        "模型 {modelId} 未通过审核、已下架或被冻结：目前不可向通道注资。",
    ),
    "VoucherUnsigned": (
        "The voucher is not signed by {signer} for this channel on this chain: ask the payer for a new one.",
        "凭证不是 {signer} 在本链为该通道所签：请付款方重新签发。",
    ),
    "VoucherTooSmall": (
        "{redeemed} are redeemed already, this pays up to {given}: bring a later voucher, or ask for a top-up.",
        "已兑付 {redeemed}，此凭证至多 {given}：请使用更新的凭证，或请付款方充值。",
    ),
    # models
    "RootAlreadyRegistered": (
        "These weights are model {modelId} already; if they are yours, show it to a registrar.",
        "该权重已登记为模型 {modelId}；若属于您，请向登记员举证。",
    ),
    "RecordMismatch": (
        "The record is not the one on chain: read it again, it may have changed.",
        "记录与链上不一致：请重新读取，它可能已变更。",
    ),
    "EmptyBundle": ("The bundle is empty: scan the right folder.", "模型包为空：请选择正确的文件夹。"),
    "ChunksDoNotFit": (
        "{chunks} chunks of {chunkSize} bytes cannot hold {totalBytes} bytes: scan the folder again.",
        "{chunks} 个 {chunkSize} 字节分块与 {totalBytes} 字节不符：请重新扫描文件夹。",
    ),
    "NotTheOwner": ("Only the owner {owner} may do this.", "只有所有者 {owner} 可以操作。"),
    "NoSuchModel": (
        "Model {modelId} does not exist: check the number.",
        "模型 {modelId} 不存在：请核对编号。",
    ),
    "BadPreferences": ("Use 2 bits for each of 6 categories.", "偏好应为 6 类、每类 2 位。"),
    "SharesTooLarge": (
        "Shares are {bps} bps, at most {max}: lower them.",
        "份额合计 {bps} bps，上限 {max}：请调低。",
    ),
    "TooManyShares": ("{given} shares, at most {max}: merge some.", "份额 {given} 份，上限 {max}：请合并。"),
    "ParentNotAgreed": (
        "Model {parentId} may be a parent only with a license for derivatives or its owner's consent.",
        "以模型 {parentId} 为父模型，需持有允许衍生的许可或其所有者的同意签名。",
    ),
    "ParentNotApproved": (
        "Model {parentId} is {review}: a parent must be approved; wait for its review.",
        "模型 {parentId} 状态为 {review}：父模型须已通过审核；请等待审核。",
    ),
    "FreezeLimit": (
        "The model was frozen {count} times, no more are allowed now.",
        "该模型已冻结 {count} 次，不可再冻结。",
    ),
    "FreezeTooLong": ("Freeze until {max} at the latest.", "冻结期限最晚到 {max}。"),
    "DelistTooLong": (
        "Delist until a day after today and {max} at the latest (days since 1970), or 0 to list it again.",
        "下架截止日须晚于今天且不晚于 {max}（自 1970 年起的天数）；填 0 表示重新上架。",
    ),
    "NotApproved": (
        "Model {modelId} is {review}: only an approved model gets a new version.",
        "模型 {modelId} 状态为 {review}：仅已通过审核的模型可添加新版本。",
    ),
    "NotUnderReview": (
        "These weights of model {modelId} do not wait for review: read which do, its owner may have added others.",
        "模型 {modelId} 的该权重不在待审状态：请重新读取待审版本，所有者可能已更换。",
    ),
    "NotTheCourt": ("Only the court may do this.", "只有法庭合约可以调用。"),
    "AlreadyReviewed": ("Model {modelId} is reviewed: {review}.", "模型 {modelId} 已审核：{review}。"),
    "NotAnOutcome": ("Review as APPROVED or REJECTED.", "审核结果应为 APPROVED 或 REJECTED。"),
    "NotFrozen": ("Model {modelId} is not frozen.", "模型 {modelId} 未被冻结。"),
    # purchase
    "WrongState": (
        "Order of license {licenseId} is {given}, this needs {needed}: read its state, choose the step that fits.",
        "许可 {licenseId} 的订单处于 {given}，此操作需要 {needed}：请先查询状态。",
    ),
    "WrongOrder": (
        "This is not the order opened for license {licenseId}: read it from the OrderOpened event.",
        "这不是许可 {licenseId} 已开启的订单：请从 OrderOpened 事件读取。",
    ),
    "NotTheBuyer": ("Only the buyer {buyer} may do this.", "只有买方 {buyer} 可以操作。"),
    "SourceMismatch": (
        "License {source} is no source for an order of model {modelId}: an owner's order names none, any other a "
        "license of this model.",
        "许可 {source} 不能作为模型 {modelId} 订单的来源：所有者的订单不填来源，其余须为该模型的许可。",
    ),
    "OnlyThroughEscrow": (
        "This contract is half of the escrow: call the escrow's address.",
        "该合约是托管合约的一半：请调用托管合约的地址。",
    ),
    "OrderExpired": (
        "It had to be opened by {openBy}: ask for a new order.",
        "订单须在 {openBy} 前开启：请索取新订单。",
    ),
    "OrderVoid": ("The seller cancelled it: ask for a new order.", "卖方已取消：请索取新订单。"),
    "SaleNonceStale": (
        "The order has sale nonce {given}, {current} is needed: the model was sold since, ask its owner for a new "
        "order; a resale or sublicense has 0.",
        "订单的 saleNonce 为 {given}，应为 {current}：模型已易主，请向现所有者索取新订单；转售与分许可应为 0。",
    ),
    "WindowOutOfRange": (
        "A window is {given}, allowed are {min} to {max}.",
        "期限为 {given}，允许范围 {min} 至 {max}。",
    ),
    "DepositTooSmall": (
        "The fingerprinter's deposit {given} must be at least {needed}.",
        "指纹方押金 {given} 至少须为 {needed}。",
    ),
    "PaymentMismatch": (
        "Send exactly {needed}, not {given}: ask for a quote.",
        "须恰好支付 {needed}，而非 {given}：请先询价。",
    ),
    "WrongKey": (
        "This key does not open the order's commitment: use its own key.",
        "密钥与订单承诺不符：请使用该订单的密钥。",
    ),
    "ChunkIsRight": (
        "Chunk {index} decrypts to what was promised: there is nothing to complain about.",
        "分块 {index} 解密结果与承诺一致：无可投诉。",
    ),
    "ModelNotOffered": (
        "Model {modelId} is not approved, or delisted: it cannot be ordered now.",
        "模型 {modelId} 未通过审核或已下架：目前不可下单。",
    ),
    "ModelFrozen": (
        "Model {modelId} is frozen until {until}: wait.",
        "模型 {modelId} 冻结至 {until}：请等待。",
    ),
    "UseNotAllowed": (
        "The owner forbids a use in {useMask} (preferences {preferences}): leave it out of the terms.",
        "用途 {useMask} 中有所有者禁止的类别（偏好 {preferences}）：请从条款中去除。",
    ),
    "IdentityTooLow": (
        "Identity tier {needed} is needed, you have {given}.",
        "需要身份等级 {needed}，当前为 {given}。",
    ),
    "FeeTooLarge": ("The prepare fee {given} may be at most {max}.", "制备费 {given} 不得超过 {max}。"),
    "RequestUnknown": ("No prepare fee is held for this request.", "该请求没有托管的制备费。"),
    "RequestTaken": ("A prepare fee is held for this request already.", "该请求已有托管的制备费。"),
    "LicenseStillActive": (
        "License {licenseId} has not ended: its bond stays until expiry, surrender or revocation.",
        "许可 {licenseId} 尚未终止：保证金须待到期、放弃或吊销后才能取回。",
    ),
    "BondHeld": (
        "The bond of {licenseId} is held: {openCases} open cases, not before {notBefore}.",
        "许可 {licenseId} 的保证金被锁定：未结案件 {openCases} 件，最早 {notBefore}。",
    ),
    "ReleaseNotRequested": ("Request the bond's release first.", "请先申请释放保证金。"),
    "BadFigures": (
        "The bundle's figures in the order do not fit together: prepare the copy again.",
        "订单中的模型包参数互不相符：请重新制备。",
    ),
    "NotALicenseId": (
        "{licenseId} is no license id for this order: its fingerprint number is 1 to 2^27-1 where the owner "
        "sells, 2^27 to 2^28-1 where a holder resells or sublicenses.",
        "{licenseId} 不能作为该订单的许可编号：权利人出售用 1 至 2^27-1，持有人转售或再许可用 2^27 至 2^28-1。",
    ),
    "NotNeutral": (
        "The fingerprinter {fingerprinter} sells or buys here, or owns the model that a holder passes "
        "on: take another.",
        "指纹方 {fingerprinter} 是买卖一方，或是被转让许可的模型所有者：请另选指纹方。",
    ),
    "OpeningIsPaused": ("Opening orders is paused until {until}: wait.", "开单暂停至 {until}：请等待。"),
    "NotPaused": ("Nothing is paused.", "当前未暂停。"),
    "PauseTooLong": ("Pause until {max} at the latest.", "暂停最晚到 {max}。"),
    "TermsExpired": (
        "The terms' expiry {expiry} is past: choose a later one.",
        "条款到期时间 {expiry} 已过：请设为更晚。",
    ),
    "TermsMalformed": ("The packed terms have bits that mean nothing.", "条款编码含有无意义的位。"),
    "WrongEpoch": ("Use epoch {needed}, not {given}.", "应使用 epoch {needed}，而非 {given}。"),
    # delivery proof
    "WrongPathLength": (
        "The Merkle path has the wrong length: build the complaint again.",
        "Merkle 路径长度不符：请重新生成。",
    ),
    "IndexOutOfRange": (
        "There is no such chunk: build the complaint again.",
        "分块序号越界：请重新生成投诉。",
    ),
    "NotInDelivery": (
        "The chunk is not under the order's delivery root: use the package of this order.",
        "该分块不在订单的交付根之下：请使用本订单的交付包。",
    ),
    "HashFailed": ("The node's precompile failed: use another node.", "节点预编译失败：请更换节点。"),
    "UnknownSuite": (
        "Suite {suite} is unknown to this deployment: prepare the copy with suite 1.",
        "本部署不支持套件 {suite}：请使用套件 1 制备。",
    ),
    "MemoryInUse": ("This is a fault of the contract: report it.", "这是合约缺陷：请报告。"),
    "WrongChunkLength": (
        "The chunk has {given} bytes, at most {max} are possible: build the complaint again.",
        "分块为 {given} 字节，上限 {max}：请重新生成投诉。",
    ),
    "WrongChunkSize": ("Chunk size {given} is above {max}.", "分块大小 {given} 超过上限 {max}。"),
    # vault
    "TokenNotListed": (
        "Token {token} is not accepted here: use a listed one.",
        "不接受代币 {token}：请使用已列出的代币。",
    ),
    "TooManyTokens": ("At most {max} tokens can be listed.", "最多可列出 {max} 种代币。"),
    "BalanceTooSmall": (
        "{account} has {given} in the vault, {needed} are needed: deposit first.",
        "{account} 在金库中有 {given}，需要 {needed}：请先充值。",
    ),
    "StakeTooSmall": (
        "{account} has {given} of free stake, {needed} are needed: add stake.",
        "{account} 可用质押 {given}，需要 {needed}：请追加质押。",
    ),
    "BondTooSmall": (
        "License {licenseId}: a bond of {given} was given, {needed} are needed. A resale or sublicense carries at "
        "least what is left of its source's bond, in the same token.",
        "许可 {licenseId}：保证金为 {given}，需要 {needed}。转售或分许可的保证金不得低于"
        "来源许可尚余的保证金，且须为同一代币。",
    ),
    "CaseBondTooSmall": ("The case holds {given}, {needed} are needed.", "案件押金 {given}，需要 {needed}。"),
    "RoyaltyTooSmall": (
        "Model {modelId} has {given} of {token} in royalties, {needed} are needed.",
        "模型 {modelId} 的 {token} 版税余额为 {given}，需要 {needed}。",
    ),
    "ChannelFundsTooSmall": (
        "The channels hold {given} of {token}, {needed} are needed.",
        "各通道共有 {given}（代币 {token}），需要 {needed}。",
    ),
    "TransferFailed": (
        "{token} did not reach {to}: withdraw to an account that accepts it.",
        "{token} 未能转至 {to}：请提取到可接收的账户。",
    ),
    "TransferTaxed": (
        "Token {token} delivered {received} of {given}: tokens that keep a fee are not accepted.",
        "代币 {token} 转账 {given} 仅到账 {received}：不接受扣费代币。",
    ),
    "NothingToDo": ("The amount is zero or nothing would change.", "金额为零或没有变化。"),
    # licenses
    "LicenseCarriesFingerprint": (
        "License {licenseId} carries a fingerprint and never moves: resale is an order.",
        "许可 {licenseId} 带有指纹，不可转移：转售须通过订单。",
    ),
    "TokenDoesNotExist": ("There is no such token: check the number.", "该代币不存在：请核对编号。"),
    "TokenAlreadyExists": ("This token exists already.", "该代币已存在。"),
    "NotOwnerNorApproved": (
        "Only the owner or an approved account may move it.",
        "仅所有者或获授权者可转移。",
    ),
    "TransferFromIncorrectOwner": ("It belongs to another account.", "它属于另一账户。"),
    "TransferToZeroAddress": ("Name a receiver.", "请指定接收方。"),
    "TransferToNonERC721ReceiverImplementer": (
        "The receiver is a contract that does not take tokens.",
        "接收合约不接受代币。",
    ),
    "BalanceQueryForZeroAddress": ("Name an account.", "请指定账户。"),
    "RenewalIsAnOrder": (
        "Renew by a renewal that the model's owner signed (escrow, renew).",
        "续期须凭模型所有者签署的续期单（托管合约 renew）。",
    ),
    "NotForSale": (
        "License {licenseId} cannot be passed on now: it is not active, or a resale of it is open.",
        "许可 {licenseId} 目前不可转售或再许可：它未生效，或已有进行中的转售。",
    ),
    "TermsNotWithin": (
        "These terms give more than license {source} may pass on: stay within its own terms.",
        "该条款超出许可 {source} 可转授的范围：请不超出其自身条款。",
    ),
    "NotLonger": (
        "License {licenseId} runs until {current}: renew to a later time (0 is never).",
        "许可 {licenseId} 的期限为 {current}：续期须更晚（0 表示永久）。",
    ),
    "NotTheHolder": ("Only the holder {holder} may do this.", "只有持有人 {holder} 可以操作。"),
    "LicenseEnded": ("License {licenseId} has ended: {end}.", "许可 {licenseId} 已终止：{end}。"),
    "NoSuchLicense": (
        "License {licenseId} was not issued: check the number.",
        "许可 {licenseId} 未签发：请核对编号。",
    ),
    # royalties
    "NotTheVault": ("Royalties come in by sales only.", "版税只能由销售产生。"),
    "TermsMismatch": (
        "These are not the royalty terms of model {modelId}.",
        "不是模型 {modelId} 的版税条款。",
    ),
    "NoSuchShare": ("Model {modelId} has no share {index}.", "模型 {modelId} 没有第 {index} 份。"),
    "NothingToPull": ("Nothing has come in since the last pull.", "自上次领取后没有新收入。"),
    "OwnerPullFrozen": ("The owner's share is frozen until {until}.", "所有者份额冻结至 {until}。"),
    # evidence
    "EmptyCid": ("Name the asset's CID.", "请填写资产 CID。"),
    "EmptyBatch": ("An empty batch cannot be anchored.", "不能锚定空批次。"),
    "BatchTooLarge": (
        "{leafCount} leaves, at most {max}: split the batch.",
        "叶子 {leafCount} 个，上限 {max}：请拆分。",
    ),
    # committee
    "AlreadyMember": ("{account} is a member already.", "{account} 已是成员。"),
    "NotAMember": ("{account} is not a member: join first.", "{account} 不是成员：请先加入。"),
    "NotAnOperator": ("{signer} is no operator's signer key.", "{signer} 不是运营者的签名密钥。"),
    "RoleMissing": ("Join as OPERATOR or FINGERPRINTER.", "请以 OPERATOR 或 FINGERPRINTER 身份加入。"),
    "EncryptionKeyMissing": (
        "Give the X25519 public key that evidence is sealed to; zero is none.",
        "请提供用于封装证据的 X25519 公钥；零不是公钥。",
    ),
    "SignerTaken": (
        "Signer {signer} was used before: make a new key.",
        "签名密钥 {signer} 已被使用：请生成新密钥。",
    ),
    "DepositsNotAllowed": (
        "{account} is no fingerprinter, or is leaving: its stake cannot cover an order's deposit.",
        "{account} 不是指纹制作方或正在退出：其质押不能作为订单押金。",
    ),
    "NoCommittee": (
        "No committee is active yet, so nobody could answer a range claim: complain about a chunk, or wait.",
        "尚无生效的委员会，无人可裁定范围主张：请对数据块提出申诉，或等待。",
    ),
    "ParentRepeated": (
        "Parent model {parentId} is named twice: name it once, with its whole share.",
        "父模型 {parentId} 被重复列出：请只列一次并写明全部份额。",
    ),
    "StakeBelowMinimum": ("Stake {given} is below the minimum {needed}.", "质押 {given} 低于最低 {needed}。"),
    "CommitteeMismatch": (
        "This is not the signer list of epoch {epoch}: read it from the chain.",
        "不是 epoch {epoch} 的签名者名单：请从链上读取。",
    ),
    "ThresholdTooLow": (
        "Threshold {threshold} of {signers} is too low.",
        "{signers} 人中门限 {threshold} 过低。",
    ),
    "TooManySigners": ("{given} signers, at most {max}.", "签名者 {given} 人，上限 {max}。"),
    "SignersNotAscending": ("Sort the signers ascending, each once.", "签名者须升序且不重复。"),
    "NotEnoughSignatures": (
        "{given} signatures, {needed} are needed: collect more.",
        "签名 {given} 个，需要 {needed} 个：请继续收集。",
    ),
    "BadSigner": (
        "Seat {seat} is signed by {recovered}, expected {expected}: drop that signature.",
        "席位 {seat} 的签名来自 {recovered}，应为 {expected}：请剔除。",
    ),
    "SignaturesMalformed": (
        "Give 65 bytes for each set bit, with low s.",
        "每个置位须有 65 字节且 s 为低值的签名。",
    ),
    "BitmapOutOfRange": ("The bitmap names a seat that does not exist.", "位图包含不存在的席位。"),
    "SeatVacant": (
        "A signer asked to leave; its signature no longer counts.",
        "有签名者已申请退出，其签名不再有效。",
    ),
    "NoSuchSeat": ("Epoch {epoch} has no seat {seat}.", "epoch {epoch} 没有席位 {seat}。"),
    "EpochNotActive": ("Epoch {epoch} does not count now.", "epoch {epoch} 当前无效。"),
    "TooManySeatsChanged": ("{changed} seats change, at most {max}.", "变更 {changed} 席，上限 {max}。"),
    "NotEquivocation": ("The two verdicts do not contradict each other.", "两份裁决并不矛盾。"),
    "ExitPending": ("{account} is leaving at {exitAt}.", "{account} 将于 {exitAt} 退出。"),
    "NotInPossession": (
        "{signer} did not sign for this account: have the key say that it is yours (prove-signer), then try again.",
        "签名密钥 {signer} 未声明归本账户所有：请先用该密钥签署持有证明（prove-signer）。",
    ),
    "Barred": (
        "{account} signed two copies under one license number and may not join again.",
        "{account} 曾以同一许可编号签发两份副本，不得再加入。",
    ),
    "NotAFingerprinter": ("{account} is no fingerprinter.", "{account} 不是指纹方。"),
    "NotADoubleCopy": (
        "It takes two orders signed by one fingerprinter, with one license number and another copy or buyer.",
        "须为同一指纹方签署、许可编号相同而副本或买方不同的两份订单。",
    ),
    "CanariesKnown": (
        "Root {root} was committed before: each set of canaries has a root of its own.",
        "根 {root} 已提交过：每组金丝雀案件须有独立的根。",
    ),
    "NotACanary": (
        "This does not lead to a committed root of canaries ({root}): check salt, expectation and path.",
        "无法导出已提交的金丝雀根（{root}）：请核对盐值、预期结果与路径。",
    ),
    "CanaryTooYoung": (
        "The canary was committed at {committedAt}, the case opened at {openedAt}: it must be committed before.",
        "金丝雀于 {committedAt} 提交，案件于 {openedAt} 立案：须先提交后立案。",
    ),
    "CaseMismatch": ("Verdict and case file are not of one case.", "裁决与案件文件不属于同一案件。"),
    "VerdictAsExpected": (
        "The verdict is what the canary expects: there is nothing to accuse.",
        "裁决与金丝雀的预期一致：无可指控。",
    ),
    "WrongCanaryState": (
        "The accusation is {given}, this needs {needed}.",
        "该指控处于 {given}，此操作需要 {needed}。",
    ),
    "AccusationPending": (
        "{account} has {count} accusations by canaries that have not ended: end them first.",
        "{account} 还有 {count} 项未结的金丝雀指控：请先了结。",
    ),
    "ExitNotRequested": ("Request the exit first, then wait.", "请先申请退出并等待。"),
    # court
    "WrongCaseState": (
        "The case is {given}, this needs {needed}: read its state, choose the step that fits.",
        "案件处于 {given}，此操作需要 {needed}：请先查询状态。",
    ),
    "PostingIsPaused": (
        "Posting verdicts is paused until {until}: wait.",
        "裁决提交暂停至 {until}：请等待。",
    ),
    "ReportBondTooSmall": (
        "The report's bond {given} must be at least {needed}.",
        "举报押金 {given} 至少须为 {needed}。",
    ),
    "LicenseNotAccusable": (
        "License {licenseId} cannot be accused of this: it must be settled, of this model, for a leak carry a bond, "
        "for a missing label not have ended.",
        "许可 {licenseId} 不能被如此指控：须已成交并属于该模型；泄露指控须有保证金，标识指控须未终止。",
    ),
    "MarkTooYoung": (
        "The mark of {licenseId} is too young to convict before {notBefore}.",
        "许可 {licenseId} 的标记过新，{notBefore} 之前不能作为依据。",
    ),
    "CaseAlreadyOpen": ("The very same case is open.", "完全相同的案件已立案。"),
    "NoShareLeft": (
        "Every confirm share of {licenseId} was opened.",
        "许可 {licenseId} 的确认份额已全部公开。",
    ),
    "ShareAlreadyOpened": (
        "Share {index} was opened before: take an unused one.",
        "份额 {index} 已公开过：请用未使用的。",
    ),
    "ShareNotInCommit": ("Share {index} is not in the order's commitment.", "份额 {index} 不在订单承诺中。"),
    "ShareNotOpened": ("Share {index} was not opened in this case.", "份额 {index} 未在本案公开。"),
    "ShareOpenedInTime": ("The fingerprinter opened a share in time.", "指纹方已按时公开份额。"),
    "ShareNeverOpened": (
        "No share was opened: end the case by shareMissed.",
        "未公开份额：请以 shareMissed 结束案件。",
    ),
    "NotTheFingerprinter": (
        "Only the fingerprinter {fingerprinter} may do this.",
        "只有指纹方 {fingerprinter} 可以操作。",
    ),
    "NotTheAccused": ("Only the accused {accused} may do this.", "只有被指控方 {accused} 可以操作。"),
    "NotAllowedToServe": (
        "{caller} is neither the reporter nor the operator of that seat: only they serve the accused.",
        "{caller} 既非举报人也非该席位的运营者：只有他们可以送达。",
    ),
    "ServiceAskedBefore": (
        "The evidence was asked for once in this case; it is not sent again.",
        "本案已请求过一次送达，不再重复。",
    ),
    "NothingToServe": (
        "Nobody is held guilty in this case, nor may a ruling do so: there is nothing to be served.",
        "本案未认定有责，裁定也不会认定：无需送达。",
    ),
    "NothingToCure": (
        "No notice was given in this case: only a label that was found missing can be restored this way.",
        "本案未发出整改通知：仅认定缺少标识的案件可以整改。",
    ),
    "ChunkNotInCopy": (
        "This chunk is not under the copy root of license {licenseId}: open one of the copy you got.",
        "该分块不在许可 {licenseId} 的副本根之下：请出示您收到的副本中的分块。",
    ),
    "NoChunkOpened": (
        "A fault is found only on a guilty verdict and against a chunk that the accused opened.",
        "须先有有责裁决，且被指控方已出示分块，方可认定指纹方过错。",
    ),
    "NoSuchDuty": (
        "The terms of license {licenseId} ask for no disclosure: nothing to report.",
        "许可 {licenseId} 的条款没有披露义务：无可举报。",
    ),
    "OnlyThroughCourt": ("Call the court, not its extension.", "请调用法庭合约，而非其扩展。"),
    "VerdictMismatch": ("The verdict is not about this case as it was opened.", "裁决与本案立案内容不符。"),
    "EvidenceTooWeak": (
        "Bucket {bucket} does not convict, {needed} is needed.",
        "显著性等级 {bucket} 不足，需要 {needed}。",
    ),
    "TooFewSamples": ("{given} samples, {needed} are needed.", "样本 {given} 个，需要 {needed} 个。"),
    "NotAllowedToChallenge": (
        "{caller} may not challenge now: a guilty verdict first the accused alone, any other only the reporter; never "
        "who would rule on it.",
        "{caller} 现在不能申诉：有责裁决先由被指控方独享，其他裁决仅举报人可申诉；裁定者本人不得申诉。",
    ),
    "NotTheAuthority": ("Only {authority} rules in this case.", "本案仅由 {authority} 裁定。"),
    "AlreadyCounted": ("This has been counted in an earlier case.", "此前案件已计入。"),
    "WrongKind": ("This step does not exist for cases of kind {given}.", "{given} 类案件没有此步骤。"),
    "NothingToClaim": ("Seat {seat} has no unpaid fee in this case.", "席位 {seat} 在本案没有未领费用。"),
    "NothingHeld": ("The case holds no bond.", "本案没有锁定保证金。"),
}


def reverted(data: bytes, function: str, *, message: str = "", tx_hash: str | None = None) -> TxReverted:
    """The error behind revert data. Unknown data keeps its hex and the node's message."""
    head, body = data[:4], data[4:]
    entry = abi.all_errors().get(head)
    try:
        if head == ERROR:
            from eth_abi.abi import decode
            from eth_abi.exceptions import DecodingError

            try:
                text = decode(["string"], body)[0]
            except (DecodingError, UnicodeDecodeError, OverflowError) as exc:
                raise IntegrityError(str(exc)) from exc
            return TxReverted("Error", {"message": text}, "", function=function, data=data, tx_hash=tx_hash)
        if head == PANIC and len(body) == 32:
            values = {"code": int.from_bytes(body, "big")}
            hint = "This is a fault of the contract: report it with the transaction's data."
            return TxReverted("Panic", values, hint, function=function, data=data, tx_hash=tx_hash)
        if entry is not None:
            return _custom(entry, body, data, function, tx_hash)
    except IntegrityError:
        pass  # data that does not decode is shown as it is
    values_raw: dict[str, Any] = {"data": data} if data else {}
    if message:
        values_raw["message"] = message
    hint = "The contract gave no reason that this version of the SDK knows."
    return TxReverted("Reverted", values_raw, hint, function=function, data=data, tx_hash=tx_hash)


def _custom(entry: abi.Entry, body: bytes, data: bytes, function: str, tx_hash: str | None) -> TxReverted:
    values = abi.decode_arguments(entry, body)
    for parameter in entry["inputs"]:
        values[parameter["name"]] = _enum(parameter.get("internalType", ""), values[parameter["name"]])
    english, chinese = HINTS.get(entry["name"], ("", ""))
    shown = {key: value.name if isinstance(value, IntEnum) else value for key, value in values.items()}
    return TxReverted(
        entry["name"],
        shown,
        _fill(english, shown),
        hint_zh=_fill(chinese, shown),
        function=function,
        data=data,
        tx_hash=tx_hash,
    )


def _enum(internal: str, value: Any) -> Any:
    """An IntEnum where the ABI says `enum X` and the SDK has X."""
    if not internal.startswith("enum "):
        return value
    known = getattr(types, internal.removeprefix("enum ").split(".")[-1], None)
    if isinstance(known, type) and issubclass(known, IntEnum) and value in set(known):
        return known(value)
    return value


def _fill(template: str, values: dict[str, Any]) -> str:
    """The template with the values it names; one that names others (an older ABI) stays as it is."""
    text = template
    for key, value in values.items():
        text = text.replace("{" + key + "}", "0x" + value.hex() if isinstance(value, bytes) else str(value))
    return text
