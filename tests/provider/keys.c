/*
 * keys.c: key management for RSA and EC.
 *
 * The names are OpenSSL's own, because libssl asks a key what it is. Private keys come in (from a
 * file, or from store.c) and never go out: so OpenSSL cannot move them to its own provider, and
 * every signature is asked of this one.
 */
#include "keys.h"

#include <stdlib.h>
#include <string.h>

#include "openssl.h"

static struct key *key_new(const char *type) {
    struct key *k = calloc(1, sizeof *k);
    if (k != NULL) k->type = type;
    return k;
}

static void *new_rsa(void *provider) {
    (void)provider;
    return key_new("RSA");
}

static void *new_ec(void *provider) {
    (void)provider;
    return key_new("EC");
}

void key_free(void *key) {
    struct key *k = key;
    if (k == NULL) return;
    openssl.EVP_PKEY_free(k->inner);
    free(k);
}

struct key *key_of(EVP_PKEY *inner) {
    const char *type = openssl.EVP_PKEY_get0_type_name(inner);
    struct key *k = NULL;
    if (type != NULL && strcmp(type, "RSA") == 0) k = new_rsa(NULL);
    if (type != NULL && strcmp(type, "EC") == 0) k = new_ec(NULL);
    if (k == NULL) {
        openssl.EVP_PKEY_free(inner);
        return NULL;
    }
    k->inner = inner;
    k->is_private = true;
    return k;
}

/* The store's key becomes the EVP_PKEY's: it is taken out of where the store keeps it. */
static void *load(const void *reference, size_t size) {
    struct key **place = (struct key **)(uintptr_t)reference;
    if (size != sizeof *place) return NULL;
    struct key *k = *place;
    *place = NULL;
    return k;
}

static void *dup_key(const void *key, int selection) {
    const struct key *from = key;
    struct key *k = key_new(from->type);
    (void)selection;
    if (k == NULL || from->inner == NULL) return k;
    openssl.EVP_PKEY_up_ref(from->inner);
    k->inner = from->inner;
    k->is_private = from->is_private;
    return k;
}

static int has(const void *key, int selection) {
    const struct key *k = key;
    if (k == NULL || k->inner == NULL) return 0;
    return k->is_private || (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0;
}

static int match(const void *one, const void *other, int selection) {
    const struct key *a = one, *b = other;
    (void)selection;
    return a->inner != NULL && b->inner != NULL && openssl.EVP_PKEY_eq(a->inner, b->inner) == 1;
}

static int import(void *key, int selection, const OSSL_PARAM parameters[]) {
    struct key *k = key;
    if (k->inner != NULL) return 0;
    EVP_PKEY_CTX *context = openssl.EVP_PKEY_CTX_new_from_name(openssl_inner(), k->type, NULL);
    if (context == NULL) return 0;
    /* EVP_PKEY_fromdata() does not write to what it is given. */
    if (openssl.EVP_PKEY_fromdata_init(context) == 1)
        openssl.EVP_PKEY_fromdata(context, &k->inner, selection, (OSSL_PARAM *)(uintptr_t)parameters);
    openssl.EVP_PKEY_CTX_free(context);
    k->is_private = (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0;
    return k->inner != NULL;
}

static int export_public(void *key, int selection, OSSL_CALLBACK *receive, void *argument) {
    const struct key *k = key;
    OSSL_PARAM *half = NULL;
    if (k->inner == NULL || (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0) return 0;
    if (openssl.EVP_PKEY_todata(k->inner, EVP_PKEY_PUBLIC_KEY, &half) != 1) return 0;
    int received = receive(half, argument);
    openssl.OSSL_PARAM_free(half);
    return received;
}

#define TEXT(name) {(name), OSSL_PARAM_UTF8_STRING, NULL, 0, 0}
#define NUMBER(name) {(name), OSSL_PARAM_UNSIGNED_INTEGER, NULL, 0, 0}
#define INTEGER(name) {(name), OSSL_PARAM_INTEGER, NULL, 0, 0}
#define BYTES(name) {(name), OSSL_PARAM_OCTET_STRING, NULL, 0, 0}
#define END {NULL, 0, NULL, 0, 0}

static const OSSL_PARAM public_types[] = {
    TEXT(OSSL_PKEY_PARAM_GROUP_NAME),
    BYTES(OSSL_PKEY_PARAM_PUB_KEY),
    NUMBER(OSSL_PKEY_PARAM_RSA_N),
    NUMBER(OSSL_PKEY_PARAM_RSA_E),
    END,
};
static const OSSL_PARAM all_types[] = {
    TEXT(OSSL_PKEY_PARAM_GROUP_NAME),
    BYTES(OSSL_PKEY_PARAM_PUB_KEY),
    NUMBER(OSSL_PKEY_PARAM_PRIV_KEY),
    NUMBER(OSSL_PKEY_PARAM_RSA_N),
    NUMBER(OSSL_PKEY_PARAM_RSA_E),
    NUMBER(OSSL_PKEY_PARAM_RSA_D),
    END,
};
/* What is not listed here is not asked of the inner key: all of it is public. */
static const OSSL_PARAM gettable[] = {
    INTEGER(OSSL_PKEY_PARAM_BITS),
    INTEGER(OSSL_PKEY_PARAM_SECURITY_BITS),
    INTEGER(OSSL_PKEY_PARAM_MAX_SIZE),
    TEXT(OSSL_PKEY_PARAM_DEFAULT_DIGEST),
    TEXT(OSSL_PKEY_PARAM_GROUP_NAME),
    TEXT(OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT),
    INTEGER(OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS),
    BYTES(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY),
    BYTES(OSSL_PKEY_PARAM_PUB_KEY),
    NUMBER(OSSL_PKEY_PARAM_RSA_N),
    NUMBER(OSSL_PKEY_PARAM_RSA_E),
    END,
};

static const OSSL_PARAM *import_types(int selection) {
    (void)selection;
    return all_types;
}

static const OSSL_PARAM *export_types(int selection) {
    return (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0 ? public_types : NULL;
}

static const OSSL_PARAM *gettable_parameters(void *provider) {
    (void)provider;
    return gettable;
}

static bool is_public(const char *name) {
    for (const OSSL_PARAM *p = gettable; p->key != NULL; p++)
        if (strcmp(p->key, name) == 0) return true;
    return false;
}

static int get_parameters(void *key, OSSL_PARAM parameters[]) {
    const struct key *k = key;
    if (k->inner == NULL) return 0;
    for (OSSL_PARAM *p = parameters; p->key != NULL; p++) {
        OSSL_PARAM one[2] = {*p, END};
        if (is_public(p->key) && openssl.EVP_PKEY_get_params(k->inner, one) == 1) p->return_size = one[0].return_size;
    }
    return 1;
}

static const char *rsa_operation(int operation) {
    return operation == OSSL_OP_SIGNATURE ? "RSA" : NULL;
}

static const char *ec_operation(int operation) {
    return operation == OSSL_OP_SIGNATURE ? "ECDSA" : NULL;
}

#define FUNCTIONS(new_key, operation)                                                                                  \
    {                                                                                                                  \
        {OSSL_FUNC_KEYMGMT_NEW, FUNCTION(new_key)}, {OSSL_FUNC_KEYMGMT_FREE, FUNCTION(key_free)},                      \
            {OSSL_FUNC_KEYMGMT_LOAD, FUNCTION(load)}, {OSSL_FUNC_KEYMGMT_DUP, FUNCTION(dup_key)},                      \
            {OSSL_FUNC_KEYMGMT_HAS, FUNCTION(has)}, {OSSL_FUNC_KEYMGMT_MATCH, FUNCTION(match)},                        \
            {OSSL_FUNC_KEYMGMT_IMPORT, FUNCTION(import)}, {OSSL_FUNC_KEYMGMT_IMPORT_TYPES, FUNCTION(import_types)},    \
            {OSSL_FUNC_KEYMGMT_EXPORT, FUNCTION(export_public)},                                                       \
            {OSSL_FUNC_KEYMGMT_EXPORT_TYPES, FUNCTION(export_types)},                                                  \
            {OSSL_FUNC_KEYMGMT_GET_PARAMS, FUNCTION(get_parameters)},                                                  \
            {OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, FUNCTION(gettable_parameters)},                                        \
            {OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, FUNCTION(operation)}, {                                           \
            0, NULL                                                                                                    \
        }                                                                                                              \
    }

static const OSSL_DISPATCH rsa_functions[] = FUNCTIONS(new_rsa, rsa_operation);
static const OSSL_DISPATCH ec_functions[] = FUNCTIONS(new_ec, ec_operation);

const OSSL_ALGORITHM key_algorithms[] = {
    {"RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTY, rsa_functions, "a scripted RSA key"},
    {"EC:id-ecPublicKey:1.2.840.10045.2.1", PROPERTY, ec_functions, "a scripted EC key"},
    {NULL, NULL, NULL, NULL},
};
