/*
 * mb.h: eight lanes of AVX-512: Intel's crypto_mb, statically linked.
 *
 * A variant is a file: mb_ifma.c where crypto_mb is built in (x86-64), mb_none.c elsewhere. No OpenSSL type or
 * function is here or behind it. Lanes that are not used are NULL. Numbers are 64-bit words, the least first.
 * Any thread; nothing is kept between calls.
 */
#ifndef ENGINE_SHIM_MB_H
#define ENGINE_SHIM_MB_H

#include "common.h"

enum { MB_LANES = 8, MB_X25519_BYTES = 32, MB_P256_BYTES = 32 };

/* Whether the lanes can be used: built in, and this CPU and kernel have what they need. */
bool mb_is_usable(void);
/* One line for people: the library and its version, or why there is none. */
const char *mb_description(void);

/* The private half of an RSA key with public exponent 65537; borrowed. Each number has bits / 2 / 64 words. */
struct mb_rsa_key {
    int bits; /* 2048, 3072 or 4096 */
    const uint64_t *p, *q, *dp, *dq, *iq;
    const uint64_t *n; /* bits / 64 words */
};

/*
 * Both read bits / 8 bytes from in[i] and write as many to out[i], most significant byte first; all keys have `bits`.
 * `scratch` has mb_rsa_scratch(bits) bytes; the private one leaves secrets there: the caller wipes it.
 * The bit i of the result says that lane i was computed (a lane that is NULL is 0).
 */
size_t mb_rsa_scratch(int bits);
unsigned mb_rsa_private(int bits, const struct mb_rsa_key *const keys[MB_LANES], const uint8_t *const in[MB_LANES],
                        uint8_t *const out[MB_LANES], uint8_t *scratch);
unsigned mb_rsa_public(int bits, const struct mb_rsa_key *const keys[MB_LANES], const uint8_t *const in[MB_LANES],
                       uint8_t *const out[MB_LANES], uint8_t *scratch);

/* ECDSA with P-256. `digest`, `r` and `s`: 32 bytes, most significant first; `nonce` and `key`: 4 words. */
unsigned mb_p256_sign(uint8_t *const r[MB_LANES], uint8_t *const s[MB_LANES], const uint8_t *const digest[MB_LANES],
                      const uint64_t *const nonce[MB_LANES], const uint64_t *const key[MB_LANES]);

/* RFC 7748: the public keys of private ones, and the shared secrets of private and public ones; 32 bytes each. */
unsigned mb_x25519_public(uint8_t *const public_key[MB_LANES], const uint8_t *const private_key[MB_LANES]);
unsigned mb_x25519(uint8_t *const shared[MB_LANES], const uint8_t *const private_key[MB_LANES],
                   const uint8_t *const public_key[MB_LANES]);

#endif
