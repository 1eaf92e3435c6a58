// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC721 as OpenZeppelinERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";
import {ERC721 as SoladyERC721} from "solady/tokens/ERC721.sol";

// For docs/decisions/0002 only: the same three things with the status in the owner's slot and in a slot of its own.

contract Packed is SoladyERC721 {
    function name() public pure override returns (string memory) {
        return "Packed";
    }

    function symbol() public pure override returns (string memory) {
        return "P";
    }

    function tokenURI(uint256) public pure override returns (string memory) {
        return "";
    }

    function mint(address to, uint256 id, uint96 status) external {
        _mintAndSetExtraDataUnchecked(to, id, status);
    }

    /// @dev A transaction, so that its gas is the benchmark's; the read is what every opened order does.
    function read(uint256 id) external returns (address owner, uint96 status) {
        (owner, status) = (_ownerOf(id), _getExtraData(id));
    }

    function set(uint256 id, uint96 status) external {
        _setExtraData(id, status);
    }
}

contract Apart is OpenZeppelinERC721 {
    mapping(uint256 id => uint96) private _status;

    constructor() OpenZeppelinERC721("Apart", "A") {}

    function mint(address to, uint256 id, uint96 status) external {
        _mint(to, id);
        _status[id] = status;
    }

    function read(uint256 id) external returns (address owner, uint96 status) {
        (owner, status) = (_ownerOf(id), _status[id]);
    }

    function set(uint256 id, uint96 status) external {
        _status[id] = status;
    }
}
