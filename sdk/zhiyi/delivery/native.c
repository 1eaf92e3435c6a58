// The loops of hashing.py over SHA-256, for many chunks or nodes in one call.
//
// With the x86 SHA extensions two messages are hashed at a time: one alone waits on the latency of the round instruction.
// Elsewhere SHA-256 is that of the interpreter's own OpenSSL; its functions are handed in by address, so nothing is linked.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef int (*sha_init)(void *);
typedef int (*sha_update)(void *, const void *, size_t);
typedef int (*sha_final)(unsigned char *, void *);

// SHA256_CTX has 112 bytes on every platform OpenSSL knows; twice that leaves room.
typedef union {
    uint64_t align;
    unsigned char bytes[256];
} context;

enum { HEAD = 41, MAX_CHUNK = 4096, MESSAGE = (HEAD + MAX_CHUNK + 9 + 63) / 64 * 64 };

static void put32(unsigned char *to, uint32_t value) {
    to[0] = (unsigned char)(value >> 24);
    to[1] = (unsigned char)(value >> 16);
    to[2] = (unsigned char)(value >> 8);
    to[3] = (unsigned char)value;
}

static size_t put_head(unsigned char *to, uint8_t tag, uint32_t index, size_t length, const unsigned char *bound) {
    to[0] = tag;
    put32(to + 1, index);
    put32(to + 5, (uint32_t)length);
    if (!bound) return 9;
    memcpy(to + 9, bound, 32);
    return HEAD;
}

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>
#include <immintrin.h>

static int has_sha(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 19 & 1)) return 0; // SSE4.1
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    return b >> 29 & 1;
}

static const uint32_t K[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

// Two messages of `blocks` padded blocks each, side by side; 32 bytes out for each.
__attribute__((target("sha,sse4.1,ssse3"))) static void sha_pair(const unsigned char *one, const unsigned char *two, size_t blocks,
                                                                 unsigned char *out_one, unsigned char *out_two) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i s0 = _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c); // A B E F
    __m128i s1 = _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19);      // C D G H
    __m128i t0 = s0, t1 = s1;
    for (size_t n = 0; n < blocks; n++, one += 64, two += 64) {
        __m128i m[4], w[4];
        const __m128i a0 = s0, a1 = s1, b0 = t0, b1 = t1;
#pragma GCC unroll 16
        for (int g = 0; g < 16; g++) {
            const __m128i k = _mm_load_si128((const __m128i *)(K + 4 * g));
            if (g < 4) {
                m[g] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(one + 16 * g)), swap);
                w[g] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(two + 16 * g)), swap);
            } else {
                __m128i x = _mm_sha256msg1_epu32(m[g & 3], m[(g + 1) & 3]);
                __m128i y = _mm_sha256msg1_epu32(w[g & 3], w[(g + 1) & 3]);
                x = _mm_add_epi32(x, _mm_alignr_epi8(m[(g + 3) & 3], m[(g + 2) & 3], 4));
                y = _mm_add_epi32(y, _mm_alignr_epi8(w[(g + 3) & 3], w[(g + 2) & 3], 4));
                m[g & 3] = _mm_sha256msg2_epu32(x, m[(g + 3) & 3]);
                w[g & 3] = _mm_sha256msg2_epu32(y, w[(g + 3) & 3]);
            }
            __m128i x = _mm_add_epi32(m[g & 3], k), y = _mm_add_epi32(w[g & 3], k);
            s1 = _mm_sha256rnds2_epu32(s1, s0, x);
            t1 = _mm_sha256rnds2_epu32(t1, t0, y);
            s0 = _mm_sha256rnds2_epu32(s0, s1, _mm_shuffle_epi32(x, 0x0e));
            t0 = _mm_sha256rnds2_epu32(t0, t1, _mm_shuffle_epi32(y, 0x0e));
        }
        s0 = _mm_add_epi32(s0, a0);
        s1 = _mm_add_epi32(s1, a1);
        t0 = _mm_add_epi32(t0, b0);
        t1 = _mm_add_epi32(t1, b1);
    }
    uint32_t words[8];
    for (int lane = 0; lane < 2; lane++) {
        const __m128i abef = lane ? t0 : s0, cdgh = lane ? t1 : s1;
        words[0] = (uint32_t)_mm_extract_epi32(abef, 3);
        words[1] = (uint32_t)_mm_extract_epi32(abef, 2);
        words[2] = (uint32_t)_mm_extract_epi32(cdgh, 3);
        words[3] = (uint32_t)_mm_extract_epi32(cdgh, 2);
        words[4] = (uint32_t)_mm_extract_epi32(abef, 1);
        words[5] = (uint32_t)_mm_extract_epi32(abef, 0);
        words[6] = (uint32_t)_mm_extract_epi32(cdgh, 1);
        words[7] = (uint32_t)_mm_extract_epi32(cdgh, 0);
        for (int k = 0; k < 8; k++) put32((lane ? out_two : out_one) + 4 * k, words[k]);
    }
}

static size_t pad(unsigned char *message, size_t length) {
    const size_t blocks = (length + 9 + 63) / 64;
    memset(message + length, 0, blocks * 64 - length);
    message[length] = 0x80;
    put32(message + blocks * 64 - 4, (uint32_t)(length * 8));
    return blocks;
}

static void leaves_in_pairs(uint8_t tag, uint32_t first, const unsigned char *data, size_t size, size_t chunk,
                            const unsigned char *bound, unsigned char *out) {
    static _Thread_local unsigned char message[2][MESSAGE];
    unsigned char spare[32];
    for (size_t at = 0; at < size;) {
        const size_t length = size - at < chunk ? size - at : chunk;
        const size_t rest = size - at - length;
        const int pair = rest >= length; // both of one length, so of as many blocks
        size_t blocks = 0;
        for (int lane = 0; lane < 1 + pair; lane++) {
            const size_t head = put_head(message[lane], tag, first + (uint32_t)lane, length, bound);
            memcpy(message[lane] + head, data + at, length);
            blocks = pad(message[lane], head + length);
            at += length;
            if (bound) bound += 32;
        }
        sha_pair(message[0], message[pair], blocks, out, pair ? out + 32 : spare);
        out += 32 * (1 + pair);
        first += 1 + (uint32_t)pair;
    }
}

static void parents_in_pairs(const unsigned char *level, size_t pairs, unsigned char *out) {
    unsigned char message[2][128], spare[32];
    memset(message, 0, sizeof message);
    for (int lane = 0; lane < 2; lane++) {
        message[lane][0] = 1;
        pad(message[lane], 65);
    }
    for (size_t k = 0; k < pairs; k += 2) {
        const int two = k + 1 < pairs;
        memcpy(message[0] + 1, level + 64 * k, 64);
        if (two) memcpy(message[1] + 1, level + 64 * k + 64, 64);
        sha_pair(message[0], message[1], 2, out + 32 * k, two ? out + 32 * k + 32 : spare);
    }
}
#else
static int has_sha(void) { return 0; }
static void leaves_in_pairs(uint8_t tag, uint32_t first, const unsigned char *data, size_t size, size_t chunk,
                            const unsigned char *bound, unsigned char *out) {
    (void)tag, (void)first, (void)data, (void)size, (void)chunk, (void)bound, (void)out;
}
static void parents_in_pairs(const unsigned char *level, size_t pairs, unsigned char *out) { (void)level, (void)pairs, (void)out; }
#endif

int zhiyi_needs_openssl(void) { return !has_sha(); }

// 1: done; 0: a chunk size that is not served.
int zhiyi_leaves(sha_init init, sha_update update, sha_final final, uint8_t tag, uint32_t first, const unsigned char *data,
                 size_t size, size_t chunk, const unsigned char *bound, unsigned char *out) {
    if (chunk == 0 || chunk > MAX_CHUNK) return 0;
    if (!init) {
        leaves_in_pairs(tag, first, data, size, chunk, bound, out);
        return 1;
    }
    context c;
    unsigned char head[HEAD];
    for (size_t at = 0; at < size; at += chunk, first++, out += 32) {
        const size_t length = size - at < chunk ? size - at : chunk;
        const size_t used = put_head(head, tag, first, length, bound);
        if (bound) bound += 32;
        init(&c);
        update(&c, head, used);
        update(&c, data + at, length);
        final(out, &c);
    }
    return 1;
}

void zhiyi_parents(sha_init init, sha_update update, sha_final final, const unsigned char *level, size_t pairs, unsigned char *out) {
    if (!init) {
        parents_in_pairs(level, pairs, out);
        return;
    }
    context c;
    const unsigned char tag = 1;
    for (size_t k = 0; k < pairs; k++, level += 64, out += 32) {
        init(&c);
        update(&c, &tag, 1);
        update(&c, level, 64);
        final(out, &c);
    }
}
