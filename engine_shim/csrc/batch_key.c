/*
 * batch_key.c: what batches need of a key, read from OpenSSL once, straight into memory that is ours and wiped.
 *
 * Whatever is unusual is refused, and OpenSSL performs it: public exponents other than 65537 (the lanes raise to that one
 * only, to verify), primes of unequal length, more than two of them, RSA-PSS keys (they may carry restrictions), curves
 * other than P-256, and RSA keys whose numbers do not fit together: each result would be wrong, and computed twice. The order of the primes does not matter to the lanes: keys of Go's have the smaller one first.
 */
#include "batch_key.h"

#include <stdlib.h>
#include <string.h>

#include "batch_lanes.h"
#include "ossl.h"
#include "parameters.h"

enum { EXPONENT = 65537, UNMODIFIED = -1, GROUP_NAME = 64 };

static struct batch_key *make(enum batch_class class, size_t length) {
    struct batch_key *k = calloc(1, sizeof *k + length * sizeof k->words[0]);
    if (k == NULL) return NULL;
    k->class = class;
    k->length = length;
    return k;
}

void batch_key_free(struct batch_key *k) {
    if (k != NULL) wiped_free(k, sizeof *k + k->length * sizeof k->words[0]);
}

enum batch_class batch_key_class(const struct batch_key *k) {
    return k != NULL ? k->class : BATCH_NONE;
}

/* OpenSSL writes native integers, as wide as there is room: on these machines, words with the least first. */
static OSSL_PARAM number(const char *name, uint64_t *words, size_t count) {
    return (OSSL_PARAM){name, OSSL_PARAM_UNSIGNED_INTEGER, words, count * sizeof *words, (size_t)UNMODIFIED};
}

static bool is_set(const OSSL_PARAM *p) {
    return p->return_size != (size_t)UNMODIFIED;
}

/* The first `count` fields; the others may be missing. May leave something on the error queue. */
static bool read_fields(EVP_PKEY *inner, OSSL_PARAM fields[], size_t count) {
    if (ossl.EVP_PKEY_get_params(inner, fields) != 1) return false;
    for (size_t i = 0; i < count; i++)
        if (!is_set(&fields[i])) return false;
    return true;
}

static bool highest_bit(const uint64_t *words, size_t count) {
    return words[count - 1] >> 63;
}

static bool read_rsa(struct batch_key *k, EVP_PKEY *inner, size_t half) {
    uint64_t *p = k->words, *q = p + half, *dp = q + half, *dq = dp + half, *iq = dq + half, *n = iq + half;
    uint64_t exponent = 0, third = 0;
    OSSL_PARAM fields[] = {
        number(OSSL_PKEY_PARAM_RSA_FACTOR1, p, half),
        number(OSSL_PKEY_PARAM_RSA_FACTOR2, q, half),
        number(OSSL_PKEY_PARAM_RSA_EXPONENT1, dp, half),
        number(OSSL_PKEY_PARAM_RSA_EXPONENT2, dq, half),
        number(OSSL_PKEY_PARAM_RSA_COEFFICIENT1, iq, half),
        number(OSSL_PKEY_PARAM_RSA_N, n, 2 * half),
        number(OSSL_PKEY_PARAM_RSA_E, &exponent, 1),
        number(OSSL_PKEY_PARAM_RSA_FACTOR3, &third, 1),
        *parameters_end(),
    };
    k->rsa = (struct mb_rsa_key){.bits = (int)half * 128, .p = p, .q = q, .dp = dp, .dq = dq, .iq = iq, .n = n};
    return read_fields(inner, fields, 7) && !is_set(&fields[7]) && exponent == EXPONENT && highest_bit(p, half) &&
           highest_bit(q, half) && highest_bit(n, 2 * half) && (p[0] & q[0] & 1) == 1 && batch_rsa_fits(k);
}

static bool read_p256(struct batch_key *k, EVP_PKEY *inner) {
    char group[GROUP_NAME] = "";
    k->p256 = k->words;
    OSSL_PARAM fields[] = {
        number(OSSL_PKEY_PARAM_PRIV_KEY, k->p256, P256_WORDS),
        {OSSL_PKEY_PARAM_GROUP_NAME, OSSL_PARAM_UTF8_STRING, group, sizeof group, (size_t)UNMODIFIED},
        *parameters_end(),
    };
    return read_fields(inner, fields, 2) && strcmp(group, "prime256v1") == 0;
}

static enum batch_class class_for(const char *type, int bits) {
    if (strcmp(type, "EC") == 0) return bits == 256 ? BATCH_P256 : BATCH_NONE;
    if (strcmp(type, "RSA") != 0) return BATCH_NONE;
    if (bits == 2048) return BATCH_RSA_2048;
    if (bits == 3072) return BATCH_RSA_3072;
    return bits == 4096 ? BATCH_RSA_4096 : BATCH_NONE;
}

struct batch_key *batch_key_new(EVP_PKEY *inner, const char *type, int bits) {
    enum batch_class class = mb_is_usable() ? class_for(type, bits) : BATCH_NONE;
    if (class == BATCH_NONE) return NULL;
    size_t half = (size_t)bits / 128;
    struct batch_key *k = make(class, class == BATCH_P256 ? P256_WORDS : 7 * half);
    if (k == NULL) return NULL;
    bool usable = class == BATCH_P256 ? read_p256(k, inner) : read_rsa(k, inner, half);
    ossl.ERR_clear_error();
    if (usable) return k;
    batch_key_free(k);
    return NULL;
}
