/*
 * sign.c: the provider's signature. Collects the message, makes an op of it, pauses, applies.
 *
 * The whole message goes to the engine, not its digest: Ed25519 and ML-DSA need it, and hashing
 * 150 bytes costs less than deciding. TLS signs once with EVP_DigestSign; update and final are
 * there for the protocol versions that use them.
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

/* Owned by one EVP_PKEY_CTX; one thread at a time. */
struct signing {
    struct key *key; /* a reference; NULL before init */
    struct op_parameters parameters;
    uint8_t *message; /* owned */
    size_t length, room;
};

static void *new_context(void *provider, const char *properties) {
    (void)provider;
    (void)properties;
    return calloc(1, sizeof(struct signing));
}

static void free_context(void *context) {
    struct signing *s = context;
    if (s == NULL) return;
    key_unref(s->key);
    wiped_free(s->message, s->room);
    free(s);
}

static int update(void *context, const unsigned char *data, size_t length) {
    struct signing *s = context;
    if (length > SIZE_MAX / 2 - s->length) return 0;
    if (s->length + length > s->room) {
        size_t room = 2 * (s->length + length);
        uint8_t *bigger = realloc(s->message, room);
        if (bigger == NULL) return 0;
        s->message = bigger;
        s->room = room;
    }
    if (length > 0) memcpy(s->message + s->length, data, length);
    s->length += length;
    return 1;
}

static void *dup_context(void *context) {
    const struct signing *from = context;
    struct signing *s = new_context(NULL, NULL);
    if (s == NULL) return NULL;
    s->parameters = from->parameters;
    if (from->key != NULL) s->key = key_ref(from->key);
    if (update(s, from->message, from->length)) return s;
    free_context(s);
    return NULL;
}

static int set_parameters(void *context, const OSSL_PARAM parameters[]) {
    struct signing *s = context;
    return parameters_read(&s->parameters, parameters);
}

static const OSSL_PARAM *settable_parameters(void *context, void *provider) {
    (void)context;
    (void)provider;
    return parameters_settable(OP_SIGN);
}

/* Without a key it begins anew with the one it has. */
static int init(void *context, const char *digest, void *key_data, const OSSL_PARAM parameters[]) {
    struct signing *s = context;
    const struct keymgmt_data *data = key_data;
    if (data != NULL && data->key != NULL) {
        key_unref(s->key);
        s->key = key_ref(data->key);
    }
    if (s->key == NULL) return 0;
    s->length = 0;
    s->parameters = (struct op_parameters){.padding = OP_UNSET, .salt_length = OP_UNSET};
    if (digest != NULL) {
        if (strlen(digest) >= sizeof s->parameters.digest) return 0;
        strcpy(s->parameters.digest, digest);
    }
    return set_parameters(s, parameters);
}

/* The result goes to OpenSSL, on the job's stack. */
static int apply(const struct op *op, unsigned char *out, size_t *length, size_t room) {
    if (op->output_length > room) return 0;
    memcpy(out, op->output, op->output_length);
    *length = op->output_length;
    return 1;
}

static int run(struct signing *s, const void *message, size_t length, unsigned char *out, size_t *out_length,
               size_t room) {
    struct op *op = op_new(OP_SIGN, s->key, &s->parameters, message, length);
    shim_status status = op != NULL ? pause_for(op) : SHIM_ERR_MEMORY;
    int done = status == SHIM_OK ? apply(op, out, out_length, room) : 0;
    if (status != SHIM_OK) errors_raise(status, op_reason(op));
    op_unref(op);
    return done;
}

/* Without room it tells how much is needed. */
static int sign(void *context, unsigned char *out, size_t *out_length, size_t room, const unsigned char *message,
                size_t length) {
    struct signing *s = context;
    if (s->key == NULL) return 0;
    if (out != NULL) return run(s, message, length, out, out_length, room);
    *out_length = key_output_size(s->key);
    return 1;
}

static int final(void *context, unsigned char *out, size_t *out_length, size_t room) {
    struct signing *s = context;
    return sign(s, out, out_length, room, s->message, s->length);
}

const OSSL_DISPATCH sign_functions[] = {
    {OSSL_FUNC_SIGNATURE_NEWCTX, FUNCTION(new_context)},
    {OSSL_FUNC_SIGNATURE_FREECTX, FUNCTION(free_context)},
    {OSSL_FUNC_SIGNATURE_DUPCTX, FUNCTION(dup_context)},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, FUNCTION(init)},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, FUNCTION(update)},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, FUNCTION(final)},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN, FUNCTION(sign)},
    {OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, FUNCTION(set_parameters)},
    {OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, FUNCTION(settable_parameters)},
    {0, NULL},
};
