/* mb_none.c: no lanes: another CPU than x86-64, or built without crypto_mb. Nobody calls more than the first two. */
#include "mb.h"

bool mb_is_usable(void) {
    return false;
}

const char *mb_description(void) {
    return "built without crypto_mb (it is for x86-64)";
}

size_t mb_rsa_scratch(int bits) {
    (void)bits;
    return 0;
}

unsigned mb_rsa_private(int bits, const struct mb_rsa_key *const keys[MB_LANES], const uint8_t *const in[MB_LANES],
                        uint8_t *const out[MB_LANES], uint8_t *scratch) {
    (void)bits, (void)keys, (void)in, (void)out, (void)scratch;
    return 0;
}

unsigned mb_rsa_public(int bits, const struct mb_rsa_key *const keys[MB_LANES], const uint8_t *const in[MB_LANES],
                       uint8_t *const out[MB_LANES], uint8_t *scratch) {
    (void)bits, (void)keys, (void)in, (void)out, (void)scratch;
    return 0;
}

unsigned mb_p256_sign(uint8_t *const r[MB_LANES], uint8_t *const s[MB_LANES], const uint8_t *const digest[MB_LANES],
                      const uint64_t *const nonce[MB_LANES], const uint64_t *const key[MB_LANES]) {
    (void)r, (void)s, (void)digest, (void)nonce, (void)key;
    return 0;
}

unsigned mb_x25519_public(uint8_t *const public_key[MB_LANES], const uint8_t *const private_key[MB_LANES]) {
    (void)public_key, (void)private_key;
    return 0;
}

unsigned mb_x25519(uint8_t *const shared[MB_LANES], const uint8_t *const private_key[MB_LANES],
                   const uint8_t *const public_key[MB_LANES]) {
    (void)shared, (void)private_key, (void)public_key;
    return 0;
}
