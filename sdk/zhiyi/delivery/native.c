// Loops over SHA-256 of the interpreter's own OpenSSL; the functions are handed in by address, so nothing is linked.
// Formats: hashing.py.
#include <stddef.h>
#include <stdint.h>

typedef int (*sha_init)(void *);
typedef int (*sha_update)(void *, const void *, size_t);
typedef int (*sha_final)(unsigned char *, void *);

// SHA256_CTX has 112 bytes on every platform OpenSSL knows; twice that leaves room.
typedef union {
    uint64_t align;
    unsigned char bytes[256];
} context;

static void put32(unsigned char *to, uint32_t value) {
    to[0] = (unsigned char)(value >> 24);
    to[1] = (unsigned char)(value >> 16);
    to[2] = (unsigned char)(value >> 8);
    to[3] = (unsigned char)value;
}

void zhiyi_leaves(sha_init init, sha_update update, sha_final final, uint8_t tag, uint32_t first, const unsigned char *data,
                  size_t size, size_t chunk, const unsigned char *bound, unsigned char *out) {
    context c;
    unsigned char head[41];
    head[0] = tag;
    for (size_t at = 0; at < size; at += chunk, first++, out += 32) {
        size_t length = size - at < chunk ? size - at : chunk;
        size_t used = 9;
        put32(head + 1, first);
        put32(head + 5, (uint32_t)length);
        if (bound) {
            for (int k = 0; k < 32; k++) head[9 + k] = bound[k];
            bound += 32;
            used = 41;
        }
        init(&c);
        update(&c, head, used);
        update(&c, data + at, length);
        final(out, &c);
    }
}

void zhiyi_parents(sha_init init, sha_update update, sha_final final, const unsigned char *level, size_t pairs, unsigned char *out) {
    context c;
    const unsigned char tag = 1;
    for (size_t k = 0; k < pairs; k++, level += 64, out += 32) {
        init(&c);
        update(&c, &tag, 1);
        update(&c, level, 64);
        final(out, &c);
    }
}
