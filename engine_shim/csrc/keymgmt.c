/*
 * keymgmt.c: key management for wrapped keys.
 *
 * OpenSSL may know a key by several providers and prefers to move it to the one that does the
 * work. This one exports the public half only, so the private operation always comes back to
 * us, while comparing with a certificate works. Importing anything but our own marker is
 * refused: a peer's key never becomes ours. The names must be OpenSSL's ("RSA"), because libssl
 * asks a key what it is; they live in a library context of our own (provider.c), where nobody
 * else looks.
 */
#include "keymgmt.h"

#include <stdlib.h>
#include <string.h>

#include "ossl.h"
#include "parameters.h"
#include "provider.h"

static const char marker[] = "engine_shim-key";

/* The key goes in by this pointer, not by a parameter: no number from outside is ever taken for an address. */
static _Thread_local struct key *offered;

void keymgmt_offer(struct key *k, OSSL_PARAM out[2]) {
    static char nothing;
    offered = k;
    out[0] = (OSSL_PARAM){marker, OSSL_PARAM_OCTET_STRING, &nothing, 0, 0};
    out[1] = (OSSL_PARAM){NULL, 0, NULL, 0, 0};
}

static void *new_data(void *provider) {
    (void)provider;
    return calloc(1, sizeof(struct keymgmt_data));
}

static void free_data(void *data) {
    struct keymgmt_data *d = data;
    if (d == NULL) return;
    key_unref(d->key);
    free(d);
}

static void *dup_data(const void *data, int selection) {
    const struct keymgmt_data *from = data;
    struct keymgmt_data *d = new_data(NULL);
    (void)selection; /* the key is immutable: a duplicate shares it */
    if (d != NULL && from->key != NULL) d->key = key_ref(from->key);
    return d;
}

static int has(const void *data, int selection) {
    const struct keymgmt_data *d = data;
    (void)selection;
    return d != NULL && d->key != NULL;
}

static int match(const void *one, const void *other, int selection) {
    const struct keymgmt_data *a = one, *b = other;
    (void)selection;
    if (a->key == NULL || b->key == NULL) return 0;
    return a->key == b->key || ossl.EVP_PKEY_eq(a->key->inner, b->key->inner) == 1;
}

static int import(void *data, int selection, const OSSL_PARAM parameters[]) {
    struct keymgmt_data *d = data;
    (void)selection;
    bool marked = parameters != NULL && parameters[0].key != NULL && strcmp(parameters[0].key, marker) == 0;
    if (!marked || offered == NULL || d->key != NULL) return 0;
    d->key = key_ref(offered);
    return 1;
}

static const OSSL_PARAM *import_types(int selection) {
    static const OSSL_PARAM types[] = {{marker, OSSL_PARAM_OCTET_STRING, NULL, 0, 0}, {NULL, 0, NULL, 0, 0}};
    (void)selection;
    return types;
}

/*
 * Before OpenSSL 3.0.8, EVP_PKEY_eq() asks for the whole key to compare its public half (and takes a refusal for an
 * unknown kind of key). There it gets the public half alone: no private number leaves in either case.
 */
static bool compares_whole_keys(void) {
    return ossl.OpenSSL_version_num() < 0x30000080UL;
}

static int export_public(void *data, int selection, OSSL_CALLBACK *receive, void *argument) {
    struct keymgmt_data *d = data;
    if (d->key == NULL) return 0;
    if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0 && !compares_whole_keys()) return 0;
    return receive(d->key->public_half, argument);
}

static const OSSL_PARAM *export_types(int selection) {
    static const OSSL_PARAM types[] = {
        {OSSL_PKEY_PARAM_PUB_KEY, OSSL_PARAM_OCTET_STRING, NULL, 0, 0},
        {OSSL_PKEY_PARAM_GROUP_NAME, OSSL_PARAM_UTF8_STRING, NULL, 0, 0},
        {OSSL_PKEY_PARAM_RSA_N, OSSL_PARAM_UNSIGNED_INTEGER, NULL, 0, 0},
        {OSSL_PKEY_PARAM_RSA_E, OSSL_PARAM_UNSIGNED_INTEGER, NULL, 0, 0},
        {NULL, 0, NULL, 0, 0},
    };
    return (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0 || compares_whole_keys() ? types : parameters_end();
}

/* All of it is public. What is not listed here is never asked of the inner key. */
static const OSSL_PARAM gettable[] = {
    {OSSL_PKEY_PARAM_BITS, OSSL_PARAM_INTEGER, NULL, 0, 0},
    {OSSL_PKEY_PARAM_SECURITY_BITS, OSSL_PARAM_INTEGER, NULL, 0, 0},
    {OSSL_PKEY_PARAM_MAX_SIZE, OSSL_PARAM_INTEGER, NULL, 0, 0},
    {OSSL_PKEY_PARAM_DEFAULT_DIGEST, OSSL_PARAM_UTF8_STRING, NULL, 0, 0},
    {OSSL_PKEY_PARAM_MANDATORY_DIGEST, OSSL_PARAM_UTF8_STRING, NULL, 0, 0},
    {OSSL_PKEY_PARAM_GROUP_NAME, OSSL_PARAM_UTF8_STRING, NULL, 0, 0},
    {OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, OSSL_PARAM_UTF8_STRING, NULL, 0, 0},
    {OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS, OSSL_PARAM_INTEGER, NULL, 0, 0},
    {OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, OSSL_PARAM_OCTET_STRING, NULL, 0, 0},
    {OSSL_PKEY_PARAM_PUB_KEY, OSSL_PARAM_OCTET_STRING, NULL, 0, 0},
    {OSSL_PKEY_PARAM_RSA_N, OSSL_PARAM_UNSIGNED_INTEGER, NULL, 0, 0},
    {OSSL_PKEY_PARAM_RSA_E, OSSL_PARAM_UNSIGNED_INTEGER, NULL, 0, 0},
    {NULL, 0, NULL, 0, 0},
};

static const OSSL_PARAM *gettable_parameters(void *provider) {
    (void)provider;
    return gettable;
}

static bool is_public(const char *name) {
    for (const OSSL_PARAM *p = gettable; p->key != NULL; p++)
        if (strcmp(p->key, name) == 0) return true;
    return false;
}

/* One by one: the inner key's provider may answer more than is asked for here. */
static int get_parameters(void *data, OSSL_PARAM parameters[]) {
    const struct keymgmt_data *d = data;
    if (d->key == NULL) return 0;
    for (OSSL_PARAM *p = parameters; p->key != NULL; p++) {
        if (!is_public(p->key)) continue;
        OSSL_PARAM one[2] = {*p, {NULL, 0, NULL, 0, 0}};
        if (ossl.EVP_PKEY_get_params(d->key->inner, one) == 1) p->return_size = one[0].return_size;
    }
    return 1;
}

/*
 * What OpenSSL should look for to sign or decrypt: first by that name where it likes, and, when the key may not go
 * there, by that name here. Where whole keys are compared (above) the public half would go there, so there the name
 * is one that only we have.
 */
static const char *operation(int id, const char *signature) {
    if (id == OSSL_OP_ASYM_CIPHER) return compares_whole_keys() ? PROVIDER_OWN_NAME : "RSA";
    if (id != OSSL_OP_SIGNATURE) return NULL;
    return compares_whole_keys() ? PROVIDER_OWN_NAME : signature;
}

static const char *rsa_operation(int id) {
    return operation(id, "RSA");
}

static const char *ec_operation(int id) {
    return operation(id, "ECDSA");
}

/* NULL stands for the key's own name. */
static const char *other_operation(int id) {
    return operation(id, NULL);
}

#define FUNCTIONS(operation_name)                                                                                      \
    {                                                                                                                  \
        {OSSL_FUNC_KEYMGMT_NEW, FUNCTION(new_data)}, {OSSL_FUNC_KEYMGMT_FREE, FUNCTION(free_data)},                    \
            {OSSL_FUNC_KEYMGMT_DUP, FUNCTION(dup_data)}, {OSSL_FUNC_KEYMGMT_HAS, FUNCTION(has)},                       \
            {OSSL_FUNC_KEYMGMT_MATCH, FUNCTION(match)}, {OSSL_FUNC_KEYMGMT_IMPORT, FUNCTION(import)},                  \
            {OSSL_FUNC_KEYMGMT_IMPORT_TYPES, FUNCTION(import_types)},                                                  \
            {OSSL_FUNC_KEYMGMT_EXPORT, FUNCTION(export_public)},                                                       \
            {OSSL_FUNC_KEYMGMT_EXPORT_TYPES, FUNCTION(export_types)},                                                  \
            {OSSL_FUNC_KEYMGMT_GET_PARAMS, FUNCTION(get_parameters)},                                                  \
            {OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, FUNCTION(gettable_parameters)},                                        \
            {OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, FUNCTION(operation_name)}, {                                      \
            0, NULL                                                                                                    \
        }                                                                                                              \
    }

static const OSSL_DISPATCH rsa_functions[] = FUNCTIONS(rsa_operation);
static const OSSL_DISPATCH ec_functions[] = FUNCTIONS(ec_operation);
static const OSSL_DISPATCH other_functions[] = FUNCTIONS(other_operation);

/* A kind of key: OpenSSL's name, and all the names by which libssl may ask for it. */
static const struct kind {
    const char *type, *names;
    const OSSL_DISPATCH *functions;
} kinds[] = {
    {"RSA", "RSA:rsaEncryption:1.2.840.113549.1.1.1", rsa_functions},
    {"RSA-PSS", "RSA-PSS:RSASSA-PSS:1.2.840.113549.1.1.10", rsa_functions},
    {"EC", "EC:id-ecPublicKey:1.2.840.10045.2.1", ec_functions},
    {"ED25519", "ED25519:1.3.101.112", other_functions},
    {"ED448", "ED448:1.3.101.113", other_functions},
    {"ML-DSA-44", "ML-DSA-44:MLDSA44:2.16.840.1.101.3.4.3.17:id-ml-dsa-44", other_functions},
    {"ML-DSA-65", "ML-DSA-65:MLDSA65:2.16.840.1.101.3.4.3.18:id-ml-dsa-65", other_functions},
    {"ML-DSA-87", "ML-DSA-87:MLDSA87:2.16.840.1.101.3.4.3.19:id-ml-dsa-87", other_functions},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

bool keymgmt_knows(const char *type) {
    for (size_t i = 0; i < KINDS; i++)
        if (strcmp(kinds[i].type, type) == 0) return true;
    return false;
}

const OSSL_ALGORITHM *keymgmt_algorithms(void) {
    static OSSL_ALGORITHM algorithms[KINDS + 1];
    for (size_t i = 0; i < KINDS; i++)
        algorithms[i] =
            (OSSL_ALGORITHM){kinds[i].names, PROVIDER_PROPERTY, kinds[i].functions, "a private key in an engine"};
    return algorithms;
}
