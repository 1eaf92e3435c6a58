// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {IERC721Receiver} from "@openzeppelin/contracts/token/ERC721/IERC721Receiver.sol";

/// @notice Remembers how it was called, who owned the token then, and answers as it is told; passes the token on if told to.
contract TokenReceiver is IERC721Receiver {
    bytes4 public answer = IERC721Receiver.onERC721Received.selector;
    address public passOnTo;
    bytes32 public seen; // keccak256(abi.encode(token contract, operator, from, id, data, owner))

    function tell(bytes4 answer_, address passOnTo_) external {
        (answer, passOnTo) = (answer_, passOnTo_);
    }

    function onERC721Received(address operator, address from, uint256 id, bytes calldata data) external returns (bytes4) {
        address owner = IERC721(msg.sender).ownerOf(id);
        seen = keccak256(abi.encode(msg.sender, operator, from, id, data, owner));
        if (passOnTo != address(0)) IERC721(msg.sender).transferFrom(address(this), passOnTo, id);
        return answer;
    }
}
