// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title The arithmetic of a complaint: does a delivered chunk decrypt to what was promised?
/// @notice H is SHA-256 (precompile 0x02), integers are big-endian u32:
///   plainLeaf_i    = H(0x00 | i | len | bytes)
///   deliveryLeaf_i = H(0x02 | i | len | plainLeaf_i | cipher bytes)
///   node           = H(0x01 | left | right), missing leaf = H(0x03), path length exactly ceil(log2 n)
/// Suite 1: cipher = bytes XOR ChaCha20 (RFC 8439 block function, nonce 0) from byte i * chunkSize of the stream; the
/// block number has 64 bits, its low half is the RFC's counter, its high half the first nonce word.
/// @dev Works in memory above 0x1000 and refuses to run when the caller's memory reaches so far.
library FairDelivery {
    uint8 internal constant SUITE_CHACHA20 = 1;
    /// @dev Bytes. Keeps a complaint far below a block's gas: under 100 gas a byte.
    uint256 internal constant MAX_CHUNK_SIZE = 4096;

    error IndexOutOfRange(uint256 index, uint256 chunks);
    error WrongPathLength(uint256 given, uint256 needed);
    error WrongChunkLength(uint256 given, uint256 max);
    error WrongChunkSize(uint256 given, uint256 max);
    error UnknownSuite(uint8 suite);
    error NotInDelivery(bytes32 computedRoot, bytes32 deliveryRoot);
    error HashFailed();
    error MemoryInUse(uint256 free, uint256 max);

    /// @notice Whether chunk `index` of the delivery decrypts to something whose plain leaf is not `plainLeaf`.
    /// @dev Reverts when the proof itself is bad. A chunk whose promised leaf was made over another length is wrong too.
    ///   The caller has checked that `key` is the one committed to.
    function chunkIsWrong(
        bytes32 deliveryRoot,
        uint256 chunks,
        uint256 chunkSize,
        uint8 suite,
        bytes32 key,
        uint256 index,
        bytes calldata cipher,
        bytes32 plainLeaf,
        bytes32[] calldata path
    ) internal view returns (bool) {
        if (suite != SUITE_CHACHA20) revert UnknownSuite(suite);
        if (chunkSize == 0 || chunkSize % 64 != 0 || chunkSize > MAX_CHUNK_SIZE) {
            revert WrongChunkSize(chunkSize, MAX_CHUNK_SIZE);
        }
        if (cipher.length == 0 || cipher.length > chunkSize) revert WrongChunkLength(cipher.length, chunkSize);
        bytes32 root = rootOf(_deliveryLeaf(index, cipher, plainLeaf), index, chunks, path);
        if (root != deliveryRoot) revert NotInDelivery(root, deliveryRoot);
        _decrypt(key, index * chunkSize / 64, cipher.length);
        return _plainLeafOfDecrypted(index, cipher.length) != plainLeaf;
    }

    /// @notice Whether `leaf` is number `index` of the `leaves` leaves under `root`. Reverts on a path of another length.
    function verify(bytes32 root, bytes32 leaf, uint256 index, uint256 leaves, bytes32[] calldata path)
        internal
        view
        returns (bool)
    {
        return rootOf(leaf, index, leaves, path) == root;
    }

    /// @notice The root to which `path` leads from leaf `index`.
    function rootOf(bytes32 leaf, uint256 index, uint256 leaves, bytes32[] calldata path)
        internal
        view
        returns (bytes32 root)
    {
        if (index >= leaves) revert IndexOutOfRange(index, leaves);
        uint256 last = leaves - 1;
        bool fits = path.length <= 32 && last >> path.length == 0;
        if (!fits || (path.length != 0 && last >> (path.length - 1) == 0)) {
            revert WrongPathLength(path.length, depthOf(leaves));
        }
        _checkMemory();
        bool ok;
        assembly ("memory-safe") {
            // tag at 0x127f, left at 0x1280, right at 0x12a0: `place` is where the node on the way up stands
            mstore8(0x127f, 1)
            index := shl(5, index)
            let place := or(0x1280, and(index, 0x20))
            mstore(place, leaf)
            ok := 1
            let end := add(path.offset, shl(5, path.length))
            for { let step := path.offset } lt(step, end) { step := add(step, 0x20) } {
                mstore(xor(place, 0x20), calldataload(step))
                index := shr(1, index)
                place := or(0x1280, and(index, 0x20))
                ok := and(ok, staticcall(gas(), 2, 0x127f, 65, place, 0x20))
            }
            root := mload(place)
        }
        if (!ok) revert HashFailed();
    }

    /// @notice Path length in a tree of so many leaves: ceil(log2 n). `leaves` is at least 1.
    function depthOf(uint256 leaves) internal pure returns (uint256 depth) {
        while (((leaves - 1) >> depth) != 0) ++depth;
    }

    /// @notice The plain leaf of a chunk, as in the registered bundle and the delivered copy.
    function plainLeafOf(uint256 index, bytes calldata data) internal view returns (bytes32) {
        if (index >> 32 != 0) revert IndexOutOfRange(index, 1 << 32);
        if (data.length > MAX_CHUNK_SIZE) revert WrongChunkLength(data.length, MAX_CHUNK_SIZE);
        _checkMemory();
        assembly ("memory-safe") {
            calldatacopy(0x1609, data.offset, data.length)
        }
        return _plainLeafOfDecrypted(index, data.length);
    }

    function _deliveryLeaf(uint256 index, bytes calldata cipher, bytes32 plainLeaf) private view returns (bytes32 leaf) {
        _checkMemory();
        bool ok;
        assembly ("memory-safe") {
            mstore(0x1600, or(or(shl(248, 2), shl(216, index)), shl(184, cipher.length)))
            mstore(0x1609, plainLeaf)
            calldatacopy(0x1629, cipher.offset, cipher.length)
            ok := staticcall(gas(), 2, 0x1600, add(41, cipher.length), 0, 0x20)
            leaf := mload(0)
        }
        if (!ok) revert HashFailed(); // without this a call starved of gas would pass for another leaf
    }

    /// @dev Over the bytes at 0x1609, where `_decrypt` leaves them.
    function _plainLeafOfDecrypted(uint256 index, uint256 length) private view returns (bytes32 leaf) {
        bool ok;
        assembly ("memory-safe") {
            let first := mload(0x1609)
            mstore(0x1600, or(shl(216, index), shl(184, length)))
            mstore(0x1609, first)
            ok := staticcall(gas(), 2, 0x1600, add(9, length), 0, 0x20)
            leaf := mload(0)
        }
        if (!ok) revert HashFailed();
    }

    /// @dev Decrypts what `_deliveryLeaf` left at 0x1629 to 0x1609. Seven blocks at a time: lane j of a word, bits
    ///   36j .. 36j+31, is that state word of block j. The four bits above a lane take the carries of the additions of a
    ///   double round (sums stay below 5 * 2^32) and the masks of the rotations drop them. State at 0x1000, initial state
    ///   at 0x1300, keystream at 0x1200.
    ///   Every mask is or'ed with a zero that the optimizer cannot see through: else it rebuilds the constants by
    ///   arithmetic in the inner loop, which doubles the gas at 200 optimizer runs.
    function _decrypt(bytes32 key, uint256 blockNumber, uint256 length) private pure {
        assembly ("memory-safe") {
            let i := shr(128, mload(0x40)) // 0, but the optimizer cannot know
            let m := or(0x00ffffffff0ffffffff0ffffffff0ffffffff0ffffffff0ffffffff0ffffffff, i)
            let h16 := or(0x00ffff00000ffff00000ffff00000ffff00000ffff00000ffff00000ffff0000, i)
            let h12 := or(0x00fffff0000fffff0000fffff0000fffff0000fffff0000fffff0000fffff000, i)
            let l12 := or(0x0000000fff000000fff000000fff000000fff000000fff000000fff000000fff, i)
            let h8 := or(0x00ffffff000ffffff000ffffff000ffffff000ffffff000ffffff000ffffff00, i)
            let l8 := or(0x00000000ff0000000ff0000000ff0000000ff0000000ff0000000ff0000000ff, i)
            let h7 := or(0x00ffffff800ffffff800ffffff800ffffff800ffffff800ffffff800ffffff80, i)
            let l7 := or(0x000000007f00000007f00000007f00000007f00000007f00000007f00000007f, i)
            let ones := or(0x0000000001000000001000000001000000001000000001000000001000000001, i)
            mstore(0x1580, or(0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff, i))
            mstore(0x15a0, or(0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff, i))
            {
                mstore(0x1300, mul(0x61707865, ones)) // "expand 32-byte k"
                mstore(0x1320, mul(0x3320646e, ones))
                mstore(0x1340, mul(0x79622d32, ones))
                mstore(0x1360, mul(0x6b206574, ones))
                let k := key
                let bytes2 := mload(0x1580)
                let bytes4 := mload(0x15a0)
                k := or(shl(8, and(k, bytes2)), and(shr(8, k), bytes2))
                k := or(shl(16, and(k, bytes4)), and(shr(16, k), bytes4))
                mstore(0x1380, mul(and(shr(224, k), 0xffffffff), ones))
                mstore(0x13a0, mul(and(shr(192, k), 0xffffffff), ones))
                mstore(0x13c0, mul(and(shr(160, k), 0xffffffff), ones))
                mstore(0x13e0, mul(and(shr(128, k), 0xffffffff), ones))
                mstore(0x1400, mul(and(shr(96, k), 0xffffffff), ones))
                mstore(0x1420, mul(and(shr(64, k), 0xffffffff), ones))
                mstore(0x1440, mul(and(shr(32, k), 0xffffffff), ones))
                mstore(0x1460, mul(and(shr(0, k), 0xffffffff), ones))
                mstore(0x14c0, 0) // nonce
                mstore(0x14e0, 0)
            }
            for { let at := 0 } lt(at, length) { at := add(at, 448) } {
                {
                    // lanes 0 .. 6 hold blocks blockNumber + at / 64 + 0 .. 6; a low half that overflows carries into the high
                    let n := add(blockNumber, shr(6, at))
                    let low := add(mul(and(n, 0xffffffff), ones), 0x0000000006000000005000000004000000003000000002000000001000000000)
                    mstore(0x1480, and(low, m))
                    mstore(0x14a0, add(mul(shr(32, n), ones), and(shr(32, low), ones)))
                }
                mcopy(0x1000, 0x1300, 0x200)
                let a
                let b
                let c
                let d
                for { i := 10 } i { i := sub(i, 1) } {
                    // columns
                    b := mload(0x1080)
                    a := add(mload(0x1000), b)
                    d := xor(mload(0x1180), a)
                    d := or(and(shl(16, d), h16), shr(16, and(d, h16)))
                    c := add(mload(0x1100), d)
                    b := xor(b, c)
                    b := or(and(shl(12, b), h12), and(shr(20, b), l12))
                    a := add(a, b)
                    mstore(0x1000, a)
                    d := xor(d, a)
                    d := or(and(shl(8, d), h8), and(shr(24, d), l8))
                    mstore(0x1180, d)
                    c := add(c, d)
                    mstore(0x1100, c)
                    b := xor(b, c)
                    b := or(and(shl(7, b), h7), and(shr(25, b), l7))
                    mstore(0x1080, b)
                    b := mload(0x10a0)
                    a := add(mload(0x1020), b)
                    d := xor(mload(0x11a0), a)
                    d := or(and(shl(16, d), h16), shr(16, and(d, h16)))
                    c := add(mload(0x1120), d)
                    b := xor(b, c)
                    b := or(and(shl(12, b), h12), and(shr(20, b), l12))
                    a := add(a, b)
                    mstore(0x1020, a)
                    d := xor(d, a)
                    d := or(and(shl(8, d), h8), and(shr(24, d), l8))
                    mstore(0x11a0, d)
                    c := add(c, d)
                    mstore(0x1120, c)
                    b := xor(b, c)
                    b := or(and(shl(7, b), h7), and(shr(25, b), l7))
                    mstore(0x10a0, b)
                    b := mload(0x10c0)
                    a := add(mload(0x1040), b)
                    d := xor(mload(0x11c0), a)
                    d := or(and(shl(16, d), h16), shr(16, and(d, h16)))
                    c := add(mload(0x1140), d)
                    b := xor(b, c)
                    b := or(and(shl(12, b), h12), and(shr(20, b), l12))
                    a := add(a, b)
                    mstore(0x1040, a)
                    d := xor(d, a)
                    d := or(and(shl(8, d), h8), and(shr(24, d), l8))
                    mstore(0x11c0, d)
                    c := add(c, d)
                    mstore(0x1140, c)
                    b := xor(b, c)
                    b := or(and(shl(7, b), h7), and(shr(25, b), l7))
                    mstore(0x10c0, b)
                    mstore(i, i) // in scratch space, but the optimizer cannot know: else it keeps all state words on the stack
                    b := mload(0x10e0)
                    a := add(mload(0x1060), b)
                    d := xor(mload(0x11e0), a)
                    d := or(and(shl(16, d), h16), shr(16, and(d, h16)))
                    c := add(mload(0x1160), d)
                    b := xor(b, c)
                    b := or(and(shl(12, b), h12), and(shr(20, b), l12))
                    a := add(a, b)
                    mstore(0x1060, a)
                    d := xor(d, a)
                    d := or(and(shl(8, d), h8), and(shr(24, d), l8))
                    mstore(0x11e0, d)
                    c := add(c, d)
                    mstore(0x1160, c)
                    b := xor(b, c)
                    b := or(and(shl(7, b), h7), and(shr(25, b), l7))
                    mstore(0x10e0, b)
                    // diagonals
                    b := mload(0x1080)
                    a := add(mload(0x1060), b)
                    d := xor(mload(0x11c0), a)
                    d := or(and(shl(16, d), h16), shr(16, and(d, h16)))
                    c := add(mload(0x1120), d)
                    b := xor(b, c)
                    b := or(and(shl(12, b), h12), and(shr(20, b), l12))
                    a := and(add(a, b), m)
                    mstore(0x1060, a)
                    d := xor(d, a)
                    d := or(and(shl(8, d), h8), and(shr(24, d), l8))
                    mstore(0x11c0, d)
                    c := and(add(c, d), m)
                    mstore(0x1120, c)
                    b := xor(b, c)
                    b := or(and(shl(7, b), h7), and(shr(25, b), l7))
                    mstore(0x1080, b)
                    b := mload(0x10e0)
                    a := add(mload(0x1040), b)
                    d := xor(mload(0x11a0), a)
                    d := or(and(shl(16, d), h16), shr(16, and(d, h16)))
                    c := add(mload(0x1100), d)
                    b := xor(b, c)
                    b := or(and(shl(12, b), h12), and(shr(20, b), l12))
                    a := and(add(a, b), m)
                    mstore(0x1040, a)
                    d := xor(d, a)
                    d := or(and(shl(8, d), h8), and(shr(24, d), l8))
                    mstore(0x11a0, d)
                    c := and(add(c, d), m)
                    mstore(0x1100, c)
                    b := xor(b, c)
                    b := or(and(shl(7, b), h7), and(shr(25, b), l7))
                    mstore(0x10e0, b)
                    b := mload(0x10c0)
                    a := add(mload(0x1020), b)
                    d := xor(mload(0x1180), a)
                    d := or(and(shl(16, d), h16), shr(16, and(d, h16)))
                    c := add(mload(0x1160), d)
                    b := xor(b, c)
                    b := or(and(shl(12, b), h12), and(shr(20, b), l12))
                    a := and(add(a, b), m)
                    mstore(0x1020, a)
                    d := xor(d, a)
                    d := or(and(shl(8, d), h8), and(shr(24, d), l8))
                    mstore(0x1180, d)
                    c := and(add(c, d), m)
                    mstore(0x1160, c)
                    b := xor(b, c)
                    b := or(and(shl(7, b), h7), and(shr(25, b), l7))
                    mstore(0x10c0, b)
                    b := mload(0x10a0)
                    a := add(mload(0x1000), b)
                    d := xor(mload(0x11e0), a)
                    d := or(and(shl(16, d), h16), shr(16, and(d, h16)))
                    c := add(mload(0x1140), d)
                    b := xor(b, c)
                    b := or(and(shl(12, b), h12), and(shr(20, b), l12))
                    a := and(add(a, b), m)
                    mstore(0x1000, a)
                    d := xor(d, a)
                    d := or(and(shl(8, d), h8), and(shr(24, d), l8))
                    mstore(0x11e0, d)
                    c := and(add(c, d), m)
                    mstore(0x1140, c)
                    b := xor(b, c)
                    b := or(and(shl(7, b), h7), and(shr(25, b), l7))
                    mstore(0x10a0, b)
                }
                mstore(0x1000, and(add(mload(0x1000), mload(0x1300)), m))
                mstore(0x1020, and(add(mload(0x1020), mload(0x1320)), m))
                mstore(0x1040, and(add(mload(0x1040), mload(0x1340)), m))
                mstore(0x1060, and(add(mload(0x1060), mload(0x1360)), m))
                mstore(0x1080, and(add(mload(0x1080), mload(0x1380)), m))
                mstore(0x10a0, and(add(mload(0x10a0), mload(0x13a0)), m))
                mstore(0x10c0, and(add(mload(0x10c0), mload(0x13c0)), m))
                mstore(0x10e0, and(add(mload(0x10e0), mload(0x13e0)), m))
                mstore(0x1100, and(add(mload(0x1100), mload(0x1400)), m))
                mstore(0x1120, and(add(mload(0x1120), mload(0x1420)), m))
                mstore(0x1140, and(add(mload(0x1140), mload(0x1440)), m))
                mstore(0x1160, and(add(mload(0x1160), mload(0x1460)), m))
                mstore(0x1180, and(add(mload(0x1180), mload(0x1480)), m))
                mstore(0x11a0, and(add(mload(0x11a0), mload(0x14a0)), m))
                mstore(0x11c0, and(add(mload(0x11c0), mload(0x14c0)), m))
                mstore(0x11e0, and(add(mload(0x11e0), mload(0x14e0)), m))
                // words of block j, most significant lane bits first, then each word's bytes reversed: ChaCha is little-endian
                let bytes2 := mload(0x1580)
                let bytes4 := mload(0x15a0)
                let from := at
                let end := add(at, 448)
                if gt(end, length) { end := length }
                for { let up := 224 } lt(from, end) { up := sub(up, 36) } {
                    mstore(0x1200, shl(up, mload(0x1000)))
                    mstore(0x1204, shl(up, mload(0x1020)))
                    mstore(0x1208, shl(up, mload(0x1040)))
                    mstore(0x120c, shl(up, mload(0x1060)))
                    mstore(0x1210, shl(up, mload(0x1080)))
                    mstore(0x1214, shl(up, mload(0x10a0)))
                    mstore(0x1218, shl(up, mload(0x10c0)))
                    mstore(0x121c, shl(up, mload(0x10e0)))
                    mstore(0x1220, shl(up, mload(0x1100)))
                    mstore(0x1224, shl(up, mload(0x1120)))
                    mstore(0x1228, shl(up, mload(0x1140)))
                    mstore(0x122c, shl(up, mload(0x1160)))
                    mstore(0x1230, shl(up, mload(0x1180)))
                    mstore(0x1234, shl(up, mload(0x11a0)))
                    mstore(0x1238, shl(up, mload(0x11c0)))
                    mstore(0x123c, shl(up, mload(0x11e0)))
                    let x := mload(0x1200)
                    x := or(shl(8, and(x, bytes2)), and(shr(8, x), bytes2))
                    x := or(shl(16, and(x, bytes4)), and(shr(16, x), bytes4))
                    mstore(add(0x1609, from), xor(x, mload(add(0x1629, from))))
                    x := mload(0x1220)
                    x := or(shl(8, and(x, bytes2)), and(shr(8, x), bytes2))
                    x := or(shl(16, and(x, bytes4)), and(shr(16, x), bytes4))
                    mstore(add(0x1629, from), xor(x, mload(add(0x1649, from))))
                    from := add(from, 64)
                }
            }
        }
    }

    function _checkMemory() private pure {
        uint256 free;
        assembly ("memory-safe") {
            free := mload(0x40)
        }
        if (free > 0x1000) revert MemoryInUse(free, 0x1000);
    }
}
