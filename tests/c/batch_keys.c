#include "batch_keys.h"

#include <string.h>

#include "openssl.h"
#include "ossl.h"
#include "parameters.h"
#include "unit.h"

enum { MOST_WORDS = 64 };

typedef struct bignum_st BIGNUM;
typedef struct bignum_ctx BN_CTX;

static OSSL_PARAM number(const char *name, void *words, size_t length) {
    return (OSSL_PARAM){name, OSSL_PARAM_UNSIGNED_INTEGER, words, length, 0};
}

static EVP_PKEY *generate(const char *type, const OSSL_PARAM *settings) {
    int (*init)(EVP_PKEY_CTX *) = openssl_function("EVP_PKEY_keygen_init");
    int (*run)(EVP_PKEY_CTX *, EVP_PKEY **) = openssl_function("EVP_PKEY_generate");
    EVP_PKEY_CTX *context = ossl.EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *made = NULL;
    CHECK(context != NULL && init(context) == 1 && ossl.EVP_PKEY_CTX_set_params(context, settings) == 1);
    CHECK(run(context, &made) == 1);
    ossl.EVP_PKEY_CTX_free(context);
    return made;
}

EVP_PKEY *generate_rsa(unsigned bits, unsigned exponent, size_t primes) {
    const OSSL_PARAM settings[] = {number("bits", &bits, sizeof bits), number("e", &exponent, sizeof exponent),
                                   number("primes", &primes, sizeof primes), *parameters_end()};
    return generate("RSA", settings);
}

EVP_PKEY *generate_rsa_pss(unsigned bits) {
    const OSSL_PARAM settings[] = {number("bits", &bits, sizeof bits), *parameters_end()};
    return generate("RSA-PSS", settings);
}

EVP_PKEY *generate_ec(const char *curve) {
    char name[32] = "";
    strncpy(name, curve, sizeof name - 1);
    const OSSL_PARAM settings[] = {{"group", OSSL_PARAM_UTF8_STRING, name, strlen(name), 0}, *parameters_end()};
    return generate("EC", settings);
}

/* An RSA key's numbers, as OpenSSL takes and gives them. */
struct rsa_numbers {
    uint64_t n[MOST_WORDS], e, d[MOST_WORDS], p[MOST_WORDS], q[MOST_WORDS], dp[MOST_WORDS], dq[MOST_WORDS],
        iq[MOST_WORDS];
    OSSL_PARAM fields[9];
};

static void name_fields(struct rsa_numbers *r, size_t whole) {
    const OSSL_PARAM fields[] = {number("n", r->n, whole),
                                 number("e", &r->e, sizeof r->e),
                                 number("d", r->d, whole),
                                 number("rsa-factor1", r->p, whole / 2),
                                 number("rsa-factor2", r->q, whole / 2),
                                 number("rsa-exponent1", r->dp, whole / 2),
                                 number("rsa-exponent2", r->dq, whole / 2),
                                 number("rsa-coefficient1", r->iq, whole / 2),
                                 *parameters_end()};
    memcpy(r->fields, fields, sizeof fields);
}

static EVP_PKEY *rsa_of(struct rsa_numbers *r) {
    EVP_PKEY_CTX *context = ossl.EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    EVP_PKEY *made = NULL;
    CHECK(context != NULL && ossl.EVP_PKEY_fromdata_init(context) == 1);
    CHECK(ossl.EVP_PKEY_fromdata(context, &made, EVP_PKEY_KEYPAIR, r->fields) == 1);
    ossl.EVP_PKEY_CTX_free(context);
    return made;
}

static void read_numbers(struct rsa_numbers *r, EVP_PKEY *from, int bits) {
    memset(r, 0, sizeof *r);
    name_fields(r, (size_t)bits / 8);
    CHECK(ossl.EVP_PKEY_get_params(from, r->fields) == 1);
}

static void swap(uint64_t a[MOST_WORDS], uint64_t b[MOST_WORDS]) {
    for (size_t i = 0; i < MOST_WORDS; i++) {
        uint64_t kept = a[i];
        a[i] = b[i];
        b[i] = kept;
    }
}

/* out = a^-1 mod m */
static void invert(uint64_t *out, const uint64_t *a, const uint64_t *m, int length) {
    BIGNUM *(*from_bytes)(const unsigned char *, int, BIGNUM *) = openssl_function("BN_lebin2bn");
    int (*to_bytes)(const BIGNUM *, unsigned char *, int) = openssl_function("BN_bn2lebinpad");
    BIGNUM *(*inverse)(BIGNUM *, const BIGNUM *, const BIGNUM *, BN_CTX *) = openssl_function("BN_mod_inverse");
    void (*free_number)(BIGNUM *) = openssl_function("BN_free");
    BN_CTX *(*new_context)(void) = openssl_function("BN_CTX_new");
    void (*free_context)(BN_CTX *) = openssl_function("BN_CTX_free");
    BIGNUM *x = from_bytes((const unsigned char *)a, length, NULL);
    BIGNUM *modulus = from_bytes((const unsigned char *)m, length, NULL);
    BN_CTX *context = new_context();
    CHECK(inverse(x, x, modulus, context) == x && to_bytes(x, (unsigned char *)out, length) == length);
    free_context(context);
    free_number(x);
    free_number(modulus);
}

EVP_PKEY *with_swapped_primes(EVP_PKEY *from, int bits) {
    struct rsa_numbers r;
    read_numbers(&r, from, bits);
    swap(r.p, r.q);
    swap(r.dp, r.dq);
    invert(r.iq, r.q, r.p, bits / 16);
    return rsa_of(&r);
}

EVP_PKEY *with_wrong_coefficient(EVP_PKEY *from, int bits) {
    struct rsa_numbers r;
    read_numbers(&r, from, bits);
    r.iq[1] ^= 1;
    return rsa_of(&r);
}

struct key *key_in(struct engine *e, EVP_PKEY *pkey) {
    struct key *k = NULL;
    CHECK(key_new(e, pkey, &k) == SHIM_OK);
    return k;
}

/* The input is the digest. */
static bool verifies_digest(const struct op *op) {
    int (*init)(EVP_PKEY_CTX *) = openssl_function("EVP_PKEY_verify_init");
    int (*verify)(EVP_PKEY_CTX *, const unsigned char *, size_t, const unsigned char *, size_t) =
        openssl_function("EVP_PKEY_verify");
    OSSL_PARAM parameters[PARAMETERS_MOST];
    EVP_PKEY_CTX *context = ossl.EVP_PKEY_CTX_new_from_pkey(NULL, op->key->inner, NULL);
    parameters_for_signing(&op->parameters, parameters);
    CHECK(context != NULL && init(context) == 1 && ossl.EVP_PKEY_CTX_set_params(context, parameters) == 1);
    bool right = verify(context, op->output, op->output_length, op->input, op->input_length) == 1;
    ossl.EVP_PKEY_CTX_free(context);
    ossl.ERR_clear_error();
    return right;
}

bool verifies(const struct op *op) {
    if (op->parameters.prehashed) return verifies_digest(op);
    int (*init)(EVP_MD_CTX *, EVP_PKEY_CTX **, const char *, OSSL_LIB_CTX *, const char *, EVP_PKEY *,
                const OSSL_PARAM *) = openssl_function("EVP_DigestVerifyInit_ex");
    int (*verify)(EVP_MD_CTX *, const unsigned char *, size_t, const unsigned char *, size_t) =
        openssl_function("EVP_DigestVerify");
    OSSL_PARAM parameters[PARAMETERS_MOST];
    EVP_PKEY_CTX *verifying;
    EVP_MD_CTX *context = ossl.EVP_MD_CTX_new();
    parameters_for_signing(&op->parameters, parameters);
    CHECK(init(context, &verifying, op->parameters.digest, NULL, NULL, op->key->inner, NULL) == 1);
    CHECK(parameters[0].key == NULL || ossl.EVP_PKEY_CTX_set_params(verifying, parameters) == 1);
    bool right = verify(context, op->output, op->output_length, op->input, op->input_length) == 1;
    ossl.EVP_MD_CTX_free(context);
    ossl.ERR_clear_error();
    return right;
}
