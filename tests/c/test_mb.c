/*
 * test_mb.c: the lanes answer as published test vectors say, whichever of them are in use; an unused one is left alone.
 * RSA is compared with OpenSSL, in test_batch.c.
 */
#include "mb.h"

#include <string.h>

#include "unit.h"

enum { ALL = 0xff };

static void unhex(const char *text, uint8_t *out) {
    for (size_t i = 0; text[2 * i] != '\0'; i++) {
        unsigned byte;
        CHECK(sscanf(text + 2 * i, "%2x", &byte) == 1);
        out[i] = (uint8_t)byte;
    }
}

/* 256 bits, written most significant first. */
static void unhex_words(const char *text, uint64_t words[4]) {
    uint8_t bytes[32];
    unhex(text, bytes);
    for (int i = 0; i < 4; i++) {
        words[i] = 0;
        for (int j = 0; j < 8; j++) words[i] = words[i] << 8 | bytes[8 * (3 - i) + j];
    }
}

static bool equals(const uint8_t *bytes, const char *text) {
    uint8_t expected[32];
    unhex(text, expected);
    return memcmp(bytes, expected, sizeof expected) == 0;
}

/* RFC 7748, 6.1: Bob's keys, Alice's public one, and the secret they share. */
static void test_x25519(unsigned lanes) {
    uint8_t secret[32], alice[32], out[MB_LANES][32] = {{0}}, shared[MB_LANES][32] = {{0}};
    const uint8_t *secrets[MB_LANES] = {NULL}, *alices[MB_LANES] = {NULL};
    uint8_t *outs[MB_LANES] = {NULL}, *shareds[MB_LANES] = {NULL};
    unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb", secret);
    unhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a", alice);
    for (unsigned i = 0; i < MB_LANES; i++) {
        if ((lanes >> i & 1) == 0) continue;
        secrets[i] = secret;
        alices[i] = alice;
        outs[i] = out[i];
        shareds[i] = shared[i];
    }
    CHECK(mb_x25519_public(outs, secrets) == lanes);
    CHECK(mb_x25519(shareds, secrets, alices) == lanes);
    for (unsigned i = 0; i < MB_LANES; i++) {
        bool used = lanes >> i & 1;
        static const uint8_t untouched[32];
        CHECK(used ? equals(out[i], "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
                   : memcmp(out[i], untouched, 32) == 0);
        CHECK(used ? equals(shared[i], "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
                   : memcmp(shared[i], untouched, 32) == 0);
    }
}

/* A public key of low order gives no secret (RFC 7748, 6.1), and the others of the batch are none the worse for it. */
static void test_low_order(void) {
    uint8_t secret[32], zero[32] = {0}, alice[32], shared[MB_LANES][32];
    const uint8_t *secrets[MB_LANES], *publics[MB_LANES];
    uint8_t *shareds[MB_LANES];
    unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb", secret);
    unhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a", alice);
    for (unsigned i = 0; i < MB_LANES; i++) {
        secrets[i] = secret;
        publics[i] = i == 3 ? zero : alice;
        shareds[i] = shared[i];
    }
    CHECK(mb_x25519(shareds, secrets, publics) == (ALL & ~(1u << 3)));
    CHECK(equals(shared[4], "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"));
}

/* RFC 6979, A.2.5: "sample" with SHA-256. */
static void test_p256(unsigned lanes) {
    uint8_t digest[32], r[MB_LANES][32] = {{0}}, s[MB_LANES][32] = {{0}};
    uint64_t key[4], nonce[4];
    const uint64_t *keys[MB_LANES] = {NULL}, *nonces[MB_LANES] = {NULL};
    const uint8_t *digests[MB_LANES] = {NULL};
    uint8_t *rs[MB_LANES] = {NULL}, *ss[MB_LANES] = {NULL};
    unhex("af2bdbe1aa9b6ec1e2ade1d694f41fc71a831d0268e9891562113d8a62add1bf", digest);
    unhex_words("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721", key);
    unhex_words("a6e3c57dd01abe90086538398355dd4c3b17aa873382b0f24d6129493d8aad60", nonce);
    for (unsigned i = 0; i < MB_LANES; i++) {
        if ((lanes >> i & 1) == 0) continue;
        keys[i] = key;
        nonces[i] = nonce;
        digests[i] = digest;
        rs[i] = r[i];
        ss[i] = s[i];
    }
    CHECK(mb_p256_sign(rs, ss, digests, nonces, keys) == lanes);
    for (unsigned i = 0; i < MB_LANES; i++) {
        if ((lanes >> i & 1) == 0) continue;
        CHECK(equals(r[i], "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"));
        CHECK(equals(s[i], "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"));
    }
}

int main(void) {
    printf("%s\n", mb_description());
    CHECK(mb_is_usable() == mb_is_usable());
    for (unsigned i = 0; mb_is_usable() && i < MB_LANES; i++) {
        test_x25519(1u << i);
        test_p256(1u << i);
    }
    if (mb_is_usable()) {
        test_x25519(ALL);
        test_p256(ALL);
        test_low_order();
    }
    printf("test_mb: ok\n");
    return 0;
}
