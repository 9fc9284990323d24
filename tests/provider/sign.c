/* sign.c: signatures. The inner key makes them, on the thread that asks, when the script lets them go on. */
#include <stdlib.h>

#include "keys.h"
#include "openssl.h"
#include "operation.h"

/* Owned by one EVP_PKEY_CTX; one thread at a time. */
struct signing {
    EVP_MD_CTX *digest;   /* owned */
    EVP_PKEY_CTX *inside; /* borrowed from `digest`; NULL before init */
};

static void free_context(void *context) {
    struct signing *s = context;
    if (s == NULL) return;
    openssl.EVP_MD_CTX_free(s->digest);
    free(s);
}

static void *new_context(void *provider, const char *properties) {
    struct signing *s = calloc(1, sizeof *s);
    (void)provider, (void)properties;
    if (s == NULL) return NULL;
    s->digest = openssl.EVP_MD_CTX_new();
    if (s->digest != NULL) return s;
    free(s);
    return NULL;
}

static void *dup_context(void *context) {
    const struct signing *from = context;
    struct signing *s = new_context(NULL, NULL);
    if (s == NULL) return NULL;
    if (openssl.EVP_MD_CTX_copy_ex(s->digest, from->digest) == 1) {
        s->inside = from->inside != NULL ? openssl.EVP_MD_CTX_get_pkey_ctx(s->digest) : NULL;
        return s;
    }
    free_context(s);
    return NULL;
}

static int init(void *context, const char *digest, void *key, const OSSL_PARAM parameters[]) {
    struct signing *s = context;
    const struct key *k = key;
    EVP_PKEY *inner = k != NULL ? k->inner : NULL;
    return openssl.EVP_DigestSignInit_ex(s->digest, &s->inside, digest, openssl_inner(), NULL, inner, parameters);
}

static int update(void *context, const unsigned char *data, size_t length) {
    struct signing *s = context;
    return openssl.EVP_DigestSignUpdate(s->digest, data, length);
}

/* Without room they tell how much is needed. */
static int final(void *context, unsigned char *out, size_t *length, size_t room) {
    struct signing *s = context;
    if (out != NULL && !operation_run(SCRIPTED_SIGN)) return 0;
    *length = room;
    return openssl.EVP_DigestSignFinal(s->digest, out, length);
}

static int sign(void *context, unsigned char *out, size_t *length, size_t room, const unsigned char *message,
                size_t size) {
    struct signing *s = context;
    if (out != NULL && !operation_run(SCRIPTED_SIGN)) return 0;
    *length = room;
    return openssl.EVP_DigestSign(s->digest, out, length, message, size);
}

static int set_parameters(void *context, const OSSL_PARAM parameters[]) {
    const struct signing *s = context;
    return parameters == NULL || (s->inside != NULL && openssl.EVP_PKEY_CTX_set_params(s->inside, parameters) == 1);
}

static int get_parameters(void *context, OSSL_PARAM parameters[]) {
    const struct signing *s = context;
    return parameters == NULL || (s->inside != NULL && openssl.EVP_PKEY_CTX_get_params(s->inside, parameters) == 1);
}

static const OSSL_PARAM *parameters_of(void *context, void *provider) {
    static const OSSL_PARAM known[] = {
        {OSSL_SIGNATURE_PARAM_DIGEST, OSSL_PARAM_UTF8_STRING, NULL, 0, 0},
        {OSSL_SIGNATURE_PARAM_PAD_MODE, OSSL_PARAM_UTF8_STRING, NULL, 0, 0},
        {OSSL_SIGNATURE_PARAM_PSS_SALTLEN, OSSL_PARAM_UTF8_STRING, NULL, 0, 0},
        {OSSL_SIGNATURE_PARAM_MGF1_DIGEST, OSSL_PARAM_UTF8_STRING, NULL, 0, 0},
        {NULL, 0, NULL, 0, 0},
    };
    (void)context, (void)provider;
    return known;
}

static const OSSL_DISPATCH functions[] = {
    {OSSL_FUNC_SIGNATURE_NEWCTX, FUNCTION(new_context)},
    {OSSL_FUNC_SIGNATURE_FREECTX, FUNCTION(free_context)},
    {OSSL_FUNC_SIGNATURE_DUPCTX, FUNCTION(dup_context)},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, FUNCTION(init)},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, FUNCTION(update)},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, FUNCTION(final)},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN, FUNCTION(sign)},
    {OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, FUNCTION(set_parameters)},
    {OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, FUNCTION(parameters_of)},
    {OSSL_FUNC_SIGNATURE_GET_CTX_PARAMS, FUNCTION(get_parameters)},
    {OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS, FUNCTION(parameters_of)},
    {0, NULL},
};

const OSSL_ALGORITHM sign_algorithms[] = {
    {"RSA", PROPERTY, functions, "scripted RSA signatures"},
    {"ECDSA", PROPERTY, functions, "scripted ECDSA signatures"},
    {NULL, NULL, NULL, NULL},
};
