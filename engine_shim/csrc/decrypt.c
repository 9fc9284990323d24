/*
 * decrypt.c: the provider's RSA decryption, for TLS 1.2 with static RSA.
 *
 * RSA_PKCS1_WITH_TLS_PADDING is the only padding: OpenSSL's own provider then answers a bad one with
 * 48 random bytes in constant time (RFC 5246, 7.4.7.1), so neither result, error, alert nor time tells
 * (Bleichenbacher's oracle). Any other padding would have to report failure, and is refused.
 */
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "keymgmt.h"
#include "op.h"
#include "ossl.h"
#include "parameters.h"
#include "pause.h"
#include "provider.h"
#include "rsa_unpad.h"

/* Owned by one EVP_PKEY_CTX; one thread at a time. */
struct decryption {
    struct key *key; /* a reference; NULL before init */
    struct op_parameters parameters;
};

static void *new_context(void *provider) {
    (void)provider;
    return calloc(1, sizeof(struct decryption));
}

static void free_context(void *context) {
    struct decryption *d = context;
    if (d == NULL) return;
    key_unref(d->key);
    free(d);
}

static void *dup_context(void *context) {
    const struct decryption *from = context;
    struct decryption *d = new_context(NULL);
    if (d == NULL) return NULL;
    d->parameters = from->parameters;
    if (from->key != NULL) d->key = key_ref(from->key);
    return d;
}

static int set_parameters(void *context, const OSSL_PARAM parameters[]) {
    struct decryption *d = context;
    return parameters_read(&d->parameters, parameters);
}

static const OSSL_PARAM *settable_parameters(void *context, void *provider) {
    (void)context;
    (void)provider;
    return parameters_settable(OP_DECRYPT);
}

static int init(void *context, void *key_data, const OSSL_PARAM parameters[]) {
    struct decryption *d = context;
    const struct keymgmt_data *data = key_data;
    if (data == NULL || data->key == NULL) return 0;
    key_unref(d->key);
    d->key = key_ref(data->key);
    d->parameters = (struct op_parameters){.padding = OP_UNSET, .salt_length = OP_UNSET};
    return set_parameters(d, parameters);
}

static int apply(const struct op *op, unsigned char *out, size_t *length) {
    if (op->output_length != PREMASTER_SECRET) return 0;
    memcpy(out, op->output, PREMASTER_SECRET);
    *length = PREMASTER_SECRET;
    return 1;
}

static const OSSL_PARAM *modulus_of(const struct key *k) {
    const OSSL_PARAM *p = k->public_half;
    while (p->key != NULL && strcmp(p->key, OSSL_PKEY_PARAM_RSA_N) != 0) p++;
    return p->key != NULL ? p : NULL;
}

/* One byte of a number as OpenSSL has it, in the machine's order; place 0 is the lowest. */
static uint8_t digit(const OSSL_PARAM *number, size_t place) {
    if (place >= number->data_size) return 0;
    bool little = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
    return ((const uint8_t *)number->data)[little ? place : number->data_size - 1 - place];
}

/*
 * 1 < c < n - 1 (SP 800-56B rev. 2, 7.1.2.1), and n is odd. No client that means it sends another; and whoever does the
 * operation would call it an error of his own, with which a client could make a good signer look ill. All of it is public.
 */
static bool is_ciphertext(const struct key *k, const uint8_t *c, size_t size) {
    const OSSL_PARAM *n = modulus_of(k);
    bool is_more_than_one = false;
    int order = 0;
    if (n == NULL) return false;
    for (size_t i = 0; i < size; i++) {
        size_t place = size - 1 - i;
        uint8_t here = place == 0 ? c[i] | 1 : c[i];
        if (order == 0) order = here - digit(n, place);
        is_more_than_one |= here > (place == 0 ? 1 : 0);
    }
    return order < 0 && is_more_than_one;
}

/* As long as the modulus: OpenSSL, too, takes one without its leading zeros. NULL: it is none, or there is no memory. */
static struct op *make_op(const struct decryption *d, const void *in, size_t length) {
    size_t size = key_output_size(d->key);
    uint8_t *whole = length <= size ? calloc(1, size) : NULL;
    struct op *op = NULL;
    if (whole == NULL) return NULL;
    if (length > 0) memcpy(whole + size - length, in, length);
    if (is_ciphertext(d->key, whole, size)) op = op_new(OP_DECRYPT, d->key, &d->parameters, whole, size);
    free(whole);
    return op;
}

static int run(struct decryption *d, unsigned char *out, size_t *out_length, const void *in, size_t length) {
    struct op *op = make_op(d, in, length);
    if (op == NULL) {
        errors_raise(SHIM_ERR_FAILED, "the number cannot be decrypted with this modulus");
        return 0;
    }
    shim_status status = pause_for(op);
    int done = status == SHIM_OK ? apply(op, out, out_length) : 0;
    if (status != SHIM_OK) errors_raise(status, op_reason(op));
    op_unref(op);
    return done;
}

static int decrypt(void *context, unsigned char *out, size_t *out_length, size_t room, const unsigned char *in,
                   size_t length) {
    struct decryption *d = context;
    if (d->key == NULL) return 0;
    if (d->parameters.padding != RSA_PKCS1_WITH_TLS_PADDING) {
        errors_raise(SHIM_ERR_FAILED, "only TLS padding (RSA_PKCS1_WITH_TLS_PADDING) is decrypted");
        return 0;
    }
    *out_length = PREMASTER_SECRET;
    if (out == NULL) return 1;
    return room >= PREMASTER_SECRET ? run(d, out, out_length, in, length) : 0;
}

const OSSL_DISPATCH decrypt_functions[] = {
    {OSSL_FUNC_ASYM_CIPHER_NEWCTX, FUNCTION(new_context)},
    {OSSL_FUNC_ASYM_CIPHER_FREECTX, FUNCTION(free_context)},
    {OSSL_FUNC_ASYM_CIPHER_DUPCTX, FUNCTION(dup_context)},
    {OSSL_FUNC_ASYM_CIPHER_DECRYPT_INIT, FUNCTION(init)},
    {OSSL_FUNC_ASYM_CIPHER_DECRYPT, FUNCTION(decrypt)},
    {OSSL_FUNC_ASYM_CIPHER_SET_CTX_PARAMS, FUNCTION(set_parameters)},
    {OSSL_FUNC_ASYM_CIPHER_SETTABLE_CTX_PARAMS, FUNCTION(settable_parameters)},
    {0, NULL},
};
