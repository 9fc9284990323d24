#include "provider.h"

#include <string.h>

#include "errors.h"
#include "keymgmt.h"
#include "ossl.h"
#include "parameters.h"

#define ROW(names) {names, PROVIDER_PROPERTY, sign_functions, "signatures by an engine"}

/* By the names that keymgmt.c gives for each kind of key. */
static const OSSL_ALGORITHM signatures[] = {
    ROW(PROVIDER_OWN_NAME), ROW("RSA"),       ROW("ECDSA"),     ROW("ED25519"),           ROW("ED448"),
    ROW("ML-DSA-44"),       ROW("ML-DSA-65"), ROW("ML-DSA-87"), {NULL, NULL, NULL, NULL},
};

static const OSSL_ALGORITHM asym_ciphers[] = {
    {PROVIDER_OWN_NAME, PROVIDER_PROPERTY, decrypt_functions, "RSA decryption by an engine"},
    {"RSA", PROVIDER_PROPERTY, decrypt_functions, "RSA decryption by an engine"},
    {NULL, NULL, NULL, NULL},
};

static const OSSL_ALGORITHM *query(void *provider, int operation, int *no_cache) {
    (void)provider;
    *no_cache = 0;
    switch (operation) {
    case OSSL_OP_KEYMGMT:
        return keymgmt_algorithms();
    case OSSL_OP_SIGNATURE:
        return signatures;
    case OSSL_OP_ASYM_CIPHER:
        return asym_ciphers;
    default:
        return NULL;
    }
}

const OSSL_PARAM *provider_gettable(void *provider) {
    static const OSSL_PARAM gettable[] = {
        {OSSL_PROV_PARAM_NAME, OSSL_PARAM_UTF8_PTR, NULL, 0, 0},
        {OSSL_PROV_PARAM_STATUS, OSSL_PARAM_INTEGER, NULL, 0, 0},
        {NULL, 0, NULL, 0, 0},
    };
    (void)provider;
    return gettable;
}

int provider_answer(const char *name, OSSL_PARAM parameters[]) {
    for (OSSL_PARAM *p = parameters; p->key != NULL; p++) {
        if (strcmp(p->key, OSSL_PROV_PARAM_NAME) == 0 && p->data_type == OSSL_PARAM_UTF8_PTR) {
            *(const char **)p->data = name;
            p->return_size = strlen(name);
        } else if (strcmp(p->key, OSSL_PROV_PARAM_STATUS) == 0 && p->data_size == sizeof(int)) {
            *(int *)p->data = 1;
            p->return_size = sizeof(int);
        }
    }
    return 1;
}

static int get_parameters(void *provider, OSSL_PARAM parameters[]) {
    (void)provider;
    return provider_answer(PROVIDER_NAME, parameters);
}

static const OSSL_DISPATCH functions[] = {
    {OSSL_FUNC_PROVIDER_QUERY_OPERATION, FUNCTION(query)},
    {OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, FUNCTION(provider_gettable)},
    {OSSL_FUNC_PROVIDER_GET_PARAMS, FUNCTION(get_parameters)},
    {0, NULL},
};

static int init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **provctx) {
    static int nothing; /* OpenSSL wants one that is not NULL; there is nothing to keep in it */
    (void)handle;
    (void)in;
    *out = functions;
    *provctx = &nothing;
    return 1;
}

static OSSL_LIB_CTX *context; /* never freed: keys may outlive everything else */

shim_status provider_load(void) {
    if (context != NULL) return SHIM_OK;
    ossl.ERR_clear_error();
    OSSL_LIB_CTX *made = ossl.OSSL_LIB_CTX_new();
    if (made == NULL) return errors_keep(SHIM_ERR_OPENSSL);
    if (ossl.OSSL_PROVIDER_add_builtin(made, PROVIDER_NAME, init) != 1) return errors_keep(SHIM_ERR_OPENSSL);
    if (ossl.OSSL_PROVIDER_load(made, PROVIDER_NAME) == NULL) return errors_keep(SHIM_ERR_OPENSSL);
    context = made;
    return SHIM_OK;
}

OSSL_LIB_CTX *provider_context(void) {
    return context;
}
