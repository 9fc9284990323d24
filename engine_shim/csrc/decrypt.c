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

static int run(struct decryption *d, unsigned char *out, size_t *out_length, const void *in, size_t length) {
    struct op *op = op_new(OP_DECRYPT, d->key, &d->parameters, in, length);
    shim_status status = op != NULL ? pause_for(op) : SHIM_ERR_MEMORY;
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
