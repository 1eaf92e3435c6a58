// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

// For tests only: what honest and hostile strangers bring to the market.

contract PermitToken is ERC20, ERC20Permit {
    constructor() ERC20("Test Dollar", "TUSD") ERC20Permit("Test Dollar") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

/// @notice Takes 1 % of every transfer once `taxed` is set.
contract TaxedToken is ERC20 {
    bool public taxed;

    constructor() ERC20("Taxed", "TAX") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setTaxed(bool taxed_) external {
        taxed = taxed_;
    }

    function _update(address from, address to, uint256 amount) internal override {
        if (taxed && from != address(0) && to != address(0)) {
            uint256 tax = amount / 100;
            super._update(from, address(0), tax);
            amount -= tax;
        }
        super._update(from, to, amount);
    }
}

/// @notice Calls `target` with `data` in the middle of a transfer, after or before it moves, or of a permit; remembers how that went.
contract ReentrantToken is ERC20 {
    enum Moment {
        AFTER,
        BEFORE,
        PERMIT
    }

    address public target;
    bytes public data;
    Moment public moment;
    bool public called;
    bool public succeeded;
    bytes public answer;

    constructor() ERC20("Reentrant", "RE") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function arm(address target_, bytes calldata data_) external {
        (target, data, called) = (target_, data_, false);
    }

    function setMoment(Moment moment_) external {
        moment = moment_;
    }

    function permit(address, address, uint256, uint256, uint8, bytes32, bytes32) external {
        _callBack(Moment.PERMIT);
    }

    function _update(address from, address to, uint256 amount) internal override {
        _callBack(Moment.BEFORE);
        super._update(from, to, amount);
        _callBack(Moment.AFTER);
    }

    function _callBack(Moment now_) private {
        if (now_ == moment && target != address(0) && !called) {
            called = true;
            (succeeded, answer) = target.call(data);
        }
    }
}

/// @notice A wallet contract that signs with its owner's key, forwards calls, and takes coins only while `open` is set.
contract TestWallet is IERC1271 {
    address public immutable owner;
    bool public open;
    bytes public onReceive; // called back to the sender of coins
    bool public reentered;

    constructor(address owner_) payable {
        owner = owner_;
    }

    function setOpen(bool open_) external {
        open = open_;
    }

    function setOnReceive(bytes calldata data) external {
        onReceive = data;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        (address recovered, ECDSA.RecoverError err,) = ECDSA.tryRecoverCalldata(digest, signature);
        return err == ECDSA.RecoverError.NoError && recovered == owner ? IERC1271.isValidSignature.selector : bytes4(0);
    }

    function execute(address to, uint256 value, bytes calldata data) external returns (bytes memory) {
        (bool ok, bytes memory answer) = to.call{value: value}(data);
        if (!ok) {
            assembly ("memory-safe") {
                revert(add(answer, 0x20), mload(answer))
            }
        }
        return answer;
    }

    receive() external payable {
        require(open, "closed");
        if (onReceive.length != 0) {
            (reentered,) = msg.sender.call(onReceive);
        }
    }
}
