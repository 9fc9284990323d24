/*
 * cipher.c: the AEAD ciphers of TLS, done by OpenSSL's own when the script lets them go on.
 *
 * A TLS 1.2 record is one call of cipher(), a TLS 1.3 record is init, update for the additional
 * data (no output), update for the text, final: the one operation of a record is where its text is.
 */
#include <limits.h>
#include <stdlib.h>

#include "keys.h"
#include "openssl.h"
#include "operation.h"

#define CIPHER_PROPERTY "provider=scripted-ciphers"

/* Owned by one EVP_CIPHER_CTX; one thread at a time. */
struct context {
    EVP_CIPHER_CTX *inside; /* owned */
    bool encrypts;
};

enum { CIPHERS = 3 };
static const char *const names[CIPHERS] = {"AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305"};
static EVP_CIPHER *inner[CIPHERS]; /* references, for good; written by cipher_prepare() */

int cipher_prepare(void) {
    for (int i = 0; i < CIPHERS; i++) {
        if (inner[i] == NULL) inner[i] = openssl.EVP_CIPHER_fetch(openssl_inner(), names[i], NULL);
        if (inner[i] == NULL) return 0;
    }
    return 1;
}

static void free_context(void *context) {
    struct context *c = context;
    if (c == NULL) return;
    openssl.EVP_CIPHER_CTX_free(c->inside);
    free(c);
}

/* NULL stands for none: then a copy is to be made into it. */
static struct context *new_context(const EVP_CIPHER *cipher) {
    struct context *c = calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    c->inside = openssl.EVP_CIPHER_CTX_new();
    bool made = c->inside != NULL;
    if (made && cipher != NULL) made = openssl.EVP_CipherInit_ex2(c->inside, cipher, NULL, NULL, 1, NULL) == 1;
    if (made) return c;
    free_context(c);
    return NULL;
}

static void *dup_context(void *context) {
    const struct context *from = context;
    struct context *c = new_context(NULL);
    if (c == NULL) return NULL;
    c->encrypts = from->encrypts;
    if (openssl.EVP_CIPHER_CTX_copy(c->inside, from->inside) == 1) return c;
    free_context(c);
    return NULL;
}

static int encrypt_init(void *context, const unsigned char *key, size_t key_length, const unsigned char *iv,
                        size_t iv_length, const OSSL_PARAM parameters[]) {
    struct context *c = context;
    (void)key_length, (void)iv_length; /* OpenSSL has checked them against what the inner cipher told */
    c->encrypts = true;
    return openssl.EVP_CipherInit_ex2(c->inside, NULL, key, iv, 1, parameters);
}

static int decrypt_init(void *context, const unsigned char *key, size_t key_length, const unsigned char *iv,
                        size_t iv_length, const OSSL_PARAM parameters[]) {
    struct context *c = context;
    (void)key_length, (void)iv_length;
    c->encrypts = false;
    return openssl.EVP_CipherInit_ex2(c->inside, NULL, key, iv, 0, parameters);
}

static int run(const struct context *c) {
    return operation_run(c->encrypts ? SCRIPTED_ENCRYPT : SCRIPTED_DECRYPT);
}

static int cipher(void *context, unsigned char *out, size_t *length, size_t room, const unsigned char *in,
                  size_t size) {
    struct context *c = context;
    (void)room;
    if (size > UINT_MAX || !run(c)) return 0;
    int written = openssl.EVP_Cipher(c->inside, out, in, (unsigned)size);
    if (written < 0) return 0;
    *length = (size_t)written;
    return 1;
}

static int update(void *context, unsigned char *out, size_t *length, size_t room, const unsigned char *in,
                  size_t size) {
    struct context *c = context;
    int written = 0;
    (void)room;
    if (size > INT_MAX || (out != NULL && !run(c))) return 0;
    if (openssl.EVP_CipherUpdate(c->inside, out, &written, in, (int)size) != 1) return 0;
    *length = (size_t)written;
    return 1;
}

static int final(void *context, unsigned char *out, size_t *length, size_t room) {
    struct context *c = context;
    int written = 0;
    (void)room;
    if (openssl.EVP_CipherFinal_ex(c->inside, out, &written) != 1) return 0;
    *length = (size_t)written;
    return 1;
}

static int set_parameters(void *context, const OSSL_PARAM parameters[]) {
    const struct context *c = context;
    return parameters == NULL || openssl.EVP_CIPHER_CTX_set_params(c->inside, parameters) == 1;
}

static int get_parameters(void *context, OSSL_PARAM parameters[]) {
    const struct context *c = context;
    return openssl.EVP_CIPHER_CTX_get_params(c->inside, parameters);
}

/* What one of them lets be read and set, all of them do. */
static const OSSL_PARAM *gettable(void *provider) {
    (void)provider;
    return openssl.EVP_CIPHER_gettable_params(inner[0]);
}

static const OSSL_PARAM *gettable_of_context(void *context, void *provider) {
    (void)context, (void)provider;
    return openssl.EVP_CIPHER_gettable_ctx_params(inner[0]);
}

static const OSSL_PARAM *settable_of_context(void *context, void *provider) {
    (void)context, (void)provider;
    return openssl.EVP_CIPHER_settable_ctx_params(inner[0]);
}

/* OpenSSL does not say which cipher it asks, so each has functions of its own. */
#define CIPHER(index)                                                                                                  \
    static void *new_##index(void *provider) {                                                                         \
        (void)provider;                                                                                                \
        return new_context(inner[index]);                                                                              \
    }                                                                                                                  \
    static int get_##index(OSSL_PARAM parameters[]) {                                                                  \
        return openssl.EVP_CIPHER_get_params(inner[index], parameters);                                                \
    }                                                                                                                  \
    static const OSSL_DISPATCH functions_##index[] = {                                                                 \
        {OSSL_FUNC_CIPHER_NEWCTX, FUNCTION(new_##index)},                                                              \
        {OSSL_FUNC_CIPHER_FREECTX, FUNCTION(free_context)},                                                            \
        {OSSL_FUNC_CIPHER_DUPCTX, FUNCTION(dup_context)},                                                              \
        {OSSL_FUNC_CIPHER_ENCRYPT_INIT, FUNCTION(encrypt_init)},                                                       \
        {OSSL_FUNC_CIPHER_DECRYPT_INIT, FUNCTION(decrypt_init)},                                                       \
        {OSSL_FUNC_CIPHER_UPDATE, FUNCTION(update)},                                                                   \
        {OSSL_FUNC_CIPHER_FINAL, FUNCTION(final)},                                                                     \
        {OSSL_FUNC_CIPHER_CIPHER, FUNCTION(cipher)},                                                                   \
        {OSSL_FUNC_CIPHER_GET_PARAMS, FUNCTION(get_##index)},                                                          \
        {OSSL_FUNC_CIPHER_GETTABLE_PARAMS, FUNCTION(gettable)},                                                        \
        {OSSL_FUNC_CIPHER_GET_CTX_PARAMS, FUNCTION(get_parameters)},                                                   \
        {OSSL_FUNC_CIPHER_GETTABLE_CTX_PARAMS, FUNCTION(gettable_of_context)},                                         \
        {OSSL_FUNC_CIPHER_SET_CTX_PARAMS, FUNCTION(set_parameters)},                                                   \
        {OSSL_FUNC_CIPHER_SETTABLE_CTX_PARAMS, FUNCTION(settable_of_context)},                                         \
        {0, NULL},                                                                                                     \
    };

CIPHER(0)
CIPHER(1)
CIPHER(2)

const OSSL_ALGORITHM cipher_algorithms[] = {
    {"AES-128-GCM:id-aes128-GCM:2.16.840.1.101.3.4.1.6", CIPHER_PROPERTY, functions_0, "scripted AES-128-GCM"},
    {"AES-256-GCM:id-aes256-GCM:2.16.840.1.101.3.4.1.46", CIPHER_PROPERTY, functions_1, "scripted AES-256-GCM"},
    {"ChaCha20-Poly1305", CIPHER_PROPERTY, functions_2, "scripted ChaCha20-Poly1305"},
    {NULL, NULL, NULL, NULL},
};
