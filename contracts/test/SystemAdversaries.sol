// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC721Receiver} from "@openzeppelin/contracts/token/ERC721/IERC721Receiver.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

// For tests only: strangers who attack the system as a whole.

/// @notice Says that it moved what it did not move, once `lying` is set.
contract LyingToken is ERC20 {
    bool public lying;

    constructor() ERC20("Lying", "LIE") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setLying(bool lying_) external {
        lying = lying_;
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        return lying || super.transferFrom(from, to, amount);
    }
}

/// @notice Moves nothing and says so instead of reverting, once `failing` is set.
contract FailingToken is ERC20 {
    bool public failing;

    constructor() ERC20("Failing", "FAIL") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setFailing(bool failing_) external {
        failing = failing_;
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        return !failing && super.transfer(to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        return !failing && super.transferFrom(from, to, amount);
    }
}

/// @notice Returns nothing where ERC-20 says a bool, as some of the oldest tokens do.
contract SilentToken {
    mapping(address account => uint256) public balanceOf;
    mapping(address account => mapping(address spender => uint256)) public allowance;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function approve(address spender, uint256 amount) external {
        allowance[msg.sender][spender] = amount;
    }

    function transfer(address to, uint256 amount) external {
        _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external {
        allowance[from][msg.sender] -= amount;
        _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) private {
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// @notice Receives coins and ERC-721 tokens in the mood it was told: it takes them, reverts, burns all gas, or calls somebody first.
contract MoodyReceiver is IERC721Receiver {
    enum Mood {
        CALM,
        REVERTING,
        BURNING,
        CALLING
    }

    Mood public mood;
    address public target;
    bytes public data;
    bool public called;
    bool public succeeded;

    function arm(Mood mood_, address target_, bytes calldata data_) external {
        (mood, target, data, called, succeeded) = (mood_, target_, data_, false, false);
    }

    function execute(address to, uint256 value, bytes calldata data_) external payable {
        (bool ok, bytes memory answer) = to.call{value: value}(data_);
        if (!ok) {
            assembly ("memory-safe") {
                revert(add(answer, 0x20), mload(answer))
            }
        }
    }

    function onERC721Received(address, address, uint256, bytes calldata) external returns (bytes4) {
        _react();
        return IERC721Receiver.onERC721Received.selector;
    }

    receive() external payable {
        _react();
    }

    function _react() private {
        require(mood != Mood.REVERTING, "not today");
        if (mood == Mood.BURNING) assembly ("memory-safe") { invalid() }
        if (mood == Mood.CALLING && !called) {
            called = true;
            (succeeded,) = target.call(data);
        }
    }
}

/// @notice A wallet contract that makes many calls in one transaction, signs with its owner's key, and takes no coins it did not ask for.
contract BatchWallet is IERC1271 {
    struct Call {
        address to;
        uint256 value;
        bytes data;
    }

    address public immutable owner;

    constructor(address owner_) payable {
        owner = owner_;
    }

    function execute(Call[] calldata calls) external payable {
        for (uint256 i; i < calls.length; ++i) {
            (bool ok, bytes memory answer) = calls[i].to.call{value: calls[i].value}(calls[i].data);
            if (!ok) {
                assembly ("memory-safe") {
                    revert(add(answer, 0x20), mload(answer))
                }
            }
        }
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        (address recovered, ECDSA.RecoverError err,) = ECDSA.tryRecoverCalldata(digest, signature);
        return err == ECDSA.RecoverError.NoError && recovered == owner ? IERC1271.isValidSignature.selector : bytes4(0);
    }
}
