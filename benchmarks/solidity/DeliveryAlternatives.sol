// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {FairDelivery} from "../../contracts/libraries/FairDelivery.sol";

/// @notice The same chunk check with the keystreams that were not chosen. For `benchmarks/delivery.py` only, never deployed.
contract DeliveryAlternatives {
    event Checked(bool wrong);

    struct Proof {
        bytes32 deliveryRoot;
        uint256 chunks;
        uint256 chunkSize;
        bytes32 key;
        uint256 index;
        bytes cipher;
        bytes32 plainLeaf;
        bytes32[] path;
    }

    /// @notice BLAKE2b-CTR through precompile 0x09: block n is BLAKE2b-512(key, n as 8 little-endian bytes).
    function blake2bCtr(Proof calldata p) external {
        emit Checked(_check(p, _blake2b(p.key, p.index * p.chunkSize / 64, p.cipher)));
    }

    /// @notice ChaCha20, one block at a time, its four rows in four words of four 64-bit slots.
    function chachaRows(Proof calldata p) external {
        emit Checked(_check(p, _rows(p.key, p.index * p.chunkSize / 64, p.cipher)));
    }

    function _check(Proof calldata p, bytes memory plain) private view returns (bool) {
        uint32 length = uint32(p.cipher.length);
        bytes32 leaf = sha256(abi.encodePacked(uint8(2), uint32(p.index), length, p.plainLeaf, p.cipher));
        bytes32 at = leaf;
        bytes32 root = p.deliveryRoot;
        uint256 index = p.index;
        assembly ("memory-safe") {
            let free := mload(0x40)
            let node := and(add(free, 0x5f), not(0x3f))
            mstore8(sub(node, 1), 1)
            let place := or(node, shl(5, and(index, 1)))
            mstore(place, at)
            let path := add(p, calldataload(add(p, 0xe0)))
            let end := add(add(path, 0x20), shl(5, calldataload(path)))
            for { let step := add(path, 0x20) } lt(step, end) { step := add(step, 0x20) } {
                mstore(xor(place, 0x20), calldataload(step))
                index := shr(1, index)
                place := or(node, shl(5, and(index, 1)))
                if iszero(staticcall(gas(), 2, sub(node, 1), 65, place, 0x20)) { revert(0, 0) }
            }
            at := mload(place)
        }
        require(at == root, "not in the delivery");
        return sha256(abi.encodePacked(uint8(0), uint32(p.index), length, plain)) != p.plainLeaf;
    }

    function _blake2b(bytes32 key, uint256 first, bytes calldata cipher) private view returns (bytes memory plain) {
        plain = new bytes(cipher.length + 64);
        assembly ("memory-safe") {
            let f := mload(0x40) // rounds 4 | h 64 | m 128 | t 16 | final 1
            mstore(f, shl(224, 12))
            // IV xor parameter block: digest 64, key 32, fanout 1, depth 1
            mstore(add(f, 4), 0x48e9bdf267e6096a3ba7ca8485ae67bb2bf894fe72f36e3cf1361d5f3af54fa5)
            mstore(add(f, 36), 0xd182e6ad7f520e511f6c3e2b8c68059b6bbd41fbabd9831f79217e1319cde05b)
            mstore(add(f, 68), key)
            calldatacopy(add(f, 100), calldatasize(), 96)
            mstore(add(f, 196), shl(248, 128)) // t = 128, little-endian
            mstore8(add(f, 212), 0)
            if iszero(staticcall(gas(), 9, f, 213, add(f, 4), 64)) { revert(0, 0) }
            let one := mload(add(f, 4))
            let two := mload(add(f, 36))
            mstore(add(f, 68), 0)
            mstore8(add(f, 196), 136)
            mstore8(add(f, 212), 1)
            let out := add(plain, 0x20)
            for { let at := 0 } lt(at, cipher.length) { at := add(at, 64) } {
                let n := add(first, shr(6, at))
                n := or(shl(8, and(n, 0x00ff00ff00ff00ff)), and(shr(8, n), 0x00ff00ff00ff00ff))
                n := or(shl(16, and(n, 0x0000ffff0000ffff)), and(shr(16, n), 0x0000ffff0000ffff))
                n := or(shl(32, and(n, 0xffffffff)), shr(32, n))
                mstore(add(f, 4), one)
                mstore(add(f, 36), two)
                mstore(add(f, 68), shl(192, n))
                if iszero(staticcall(gas(), 9, f, 213, add(out, at), 64)) { revert(0, 0) }
                mstore(add(out, at), xor(mload(add(out, at)), calldataload(add(cipher.offset, at))))
                mstore(add(add(out, at), 32), xor(mload(add(add(out, at), 32)), calldataload(add(add(cipher.offset, at), 32))))
            }
            mstore(plain, cipher.length)
        }
    }

    function _rows(bytes32 key, uint256 first, bytes calldata cipher) private pure returns (bytes memory plain) {
        plain = new bytes(cipher.length + 64);
        assembly ("memory-safe") {
            // four 32-bit words of a row, first word in the highest slot, each reversed: key bytes are little-endian
            function reversed(x) -> y {
                y := or(shl(8, and(x, 0x00ff00ff00ff00ff00ff00ff00ff00ff)), and(shr(8, x), 0x00ff00ff00ff00ff00ff00ff00ff00ff))
                y := or(shl(16, and(y, 0x0000ffff0000ffff0000ffff0000ffff)), and(shr(16, y), 0x0000ffff0000ffff0000ffff0000ffff))
            }
            function spread(x) -> y {
                y := or(and(shl(64, x), shl(128, 0xffffffffffffffff)), and(x, 0xffffffffffffffff))
                y := and(or(y, shl(32, y)), 0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff)
                y := or(y, 0)
            }
            function gathered(x) -> y {
                y := or(x, shr(32, x))
                y := or(and(shr(64, y), shl(64, 0xffffffffffffffff)), and(y, 0xffffffffffffffff))
            }
            // the initial rows, kept in memory: the stack holds the working rows
            let rows := mload(0x40)
            mstore(rows, spread(0x617078653320646e79622d326b206574))
            mstore(add(rows, 32), spread(reversed(shr(128, key))))
            mstore(add(rows, 64), spread(reversed(and(key, 0xffffffffffffffffffffffffffffffff))))
            for { let at := 0 } lt(at, calldataload(sub(cipher.offset, 32))) { at := add(at, 64) } {
                {
                    let n := add(first, shr(6, at))
                    mstore(add(rows, 96), or(shl(192, and(n, 0xffffffff)), shl(128, shr(32, n))))
                }
                let i := shr(128, mload(0x40)) // 0, but the optimizer cannot know
                let m := or(0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff, i)
                let a := mload(rows)
                let b := mload(add(rows, 32))
                let c := mload(add(rows, 64))
                let d := mload(add(rows, 96))
                for { i := 10 } i { i := sub(i, 1) } {
                    a := add(a, b)
                    d := and(xor(d, a), m)
                    d := and(shr(32, mul(d, 0x1000000010000)), m)
                    c := add(c, d)
                    b := and(xor(b, c), m)
                    b := and(shr(32, mul(b, 0x100000001000)), m)
                    a := and(add(a, b), m)
                    d := xor(d, a)
                    d := and(shr(32, mul(d, 0x10000000100)), m)
                    c := and(add(c, d), m)
                    b := xor(b, c)
                    b := and(shr(32, mul(b, 0x8000000080)), m)
                    // to the diagonals
                    b := or(shl(64, b), shr(192, b))
                    c := or(shl(128, c), shr(128, c))
                    d := or(shl(192, d), shr(64, d))
                    a := add(a, b)
                    d := and(xor(d, a), m)
                    d := and(shr(32, mul(d, 0x1000000010000)), m)
                    c := add(c, d)
                    b := and(xor(b, c), m)
                    b := and(shr(32, mul(b, 0x100000001000)), m)
                    a := and(add(a, b), m)
                    d := xor(d, a)
                    d := and(shr(32, mul(d, 0x10000000100)), m)
                    c := and(add(c, d), m)
                    b := xor(b, c)
                    b := and(shr(32, mul(b, 0x8000000080)), m)
                    // and back
                    b := or(shl(192, b), shr(64, b))
                    c := or(shl(128, c), shr(128, c))
                    d := or(shl(64, d), shr(192, d))
                }
                a := reversed(gathered(and(add(a, mload(rows)), m)))
                b := reversed(gathered(and(add(b, mload(add(rows, 32))), m)))
                c := reversed(gathered(and(add(c, mload(add(rows, 64))), m)))
                d := reversed(gathered(and(add(d, mload(add(rows, 96))), m)))
                let out := add(add(plain, 0x20), at)
                mstore(out, xor(or(shl(128, a), b), calldataload(add(cipher.offset, at))))
                mstore(add(out, 32), xor(or(shl(128, c), d), calldataload(add(add(cipher.offset, at), 32))))
            }
            mstore(plain, calldataload(sub(cipher.offset, 32)))
        }
    }
}
