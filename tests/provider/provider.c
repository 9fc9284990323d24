/*
 * provider.c: OSSL_provider_init: the scripted provider, in two parts.
 *
 * Loaded as "scripted" it has keys and signatures, loaded as "scripted-ciphers" it has ciphers.
 * Keys need not be in the process's default library context, where their names are OpenSSL's own;
 * ciphers have to be, and nothing else may come with them.
 */
#include <stdarg.h>
#include <string.h>

#include "keys.h"
#include "openssl.h"

#define EXPORTED __attribute__((visibility("default")))

typedef int get_parameters_fn(const OSSL_CORE_HANDLE *handle, OSSL_PARAM parameters[]);
typedef void new_error_fn(const OSSL_CORE_HANDLE *handle);
typedef void vset_error_fn(const OSSL_CORE_HANDLE *handle, uint32_t reason, const char *format, va_list arguments);

static const char ciphers_name[] = "scripted-ciphers";

/* What OpenSSL offers, to whichever part was loaded first; borrowed, as long as the process. */
static const OSSL_CORE_HANDLE *core;
static new_error_fn *new_error;
static vset_error_fn *vset_error;

enum { REASON_SCRIPTED = 1 };

static const OSSL_ITEM *reasons(void *provider) {
    static char scripted[] = "the script says that this operation fails";
    static const OSSL_ITEM items[] = {{REASON_SCRIPTED, scripted}, {0, NULL}};
    (void)provider;
    return items;
}

static void raise_reason(uint32_t reason, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    new_error(core);
    vset_error(core, reason, format, arguments);
    va_end(arguments);
}

void provider_raise_scripted(void) {
    if (core != NULL && new_error != NULL && vset_error != NULL) raise_reason(REASON_SCRIPTED, NULL);
}

EXPORTED OSSL_provider_init_fn OSSL_provider_init;

static const OSSL_ALGORITHM *query_keys(void *provider, int operation, int *no_cache) {
    (void)provider;
    *no_cache = 0;
    switch (operation) {
    case OSSL_OP_KEYMGMT:
        return key_algorithms;
    case OSSL_OP_SIGNATURE:
        return sign_algorithms;
    case OSSL_OP_STORE:
        return store_algorithms;
    default:
        return NULL;
    }
}

static const OSSL_ALGORITHM *query_ciphers(void *provider, int operation, int *no_cache) {
    (void)provider;
    *no_cache = 0;
    return operation == OSSL_OP_CIPHER ? cipher_algorithms : NULL;
}

static const OSSL_DISPATCH key_functions[] = {
    {OSSL_FUNC_PROVIDER_QUERY_OPERATION, FUNCTION(query_keys)},
    {OSSL_FUNC_PROVIDER_GET_REASON_STRINGS, FUNCTION(reasons)},
    {0, NULL},
};

static const OSSL_DISPATCH cipher_functions[] = {
    {OSSL_FUNC_PROVIDER_QUERY_OPERATION, FUNCTION(query_ciphers)},
    {OSSL_FUNC_PROVIDER_GET_REASON_STRINGS, FUNCTION(reasons)},
    {0, NULL},
};

static void take_error_functions(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in) {
    if (core != NULL) return;
    for (; in->function_id != 0; in++) {
        if (in->function_id == OSSL_FUNC_CORE_NEW_ERROR) new_error = (new_error_fn *)in->function;
        if (in->function_id == OSSL_FUNC_CORE_VSET_ERROR) vset_error = (vset_error_fn *)in->function;
    }
    core = handle;
}

/* The name under which we are being loaded; "" where OpenSSL does not tell. */
static const char *own_name(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in) {
    const char *name = "";
    OSSL_PARAM asked[] = {{OSSL_PROV_PARAM_CORE_PROV_NAME, OSSL_PARAM_UTF8_PTR, &name, 0, 0}, {NULL, 0, NULL, 0, 0}};
    for (; in->function_id != 0; in++)
        if (in->function_id == OSSL_FUNC_CORE_GET_PARAMS) ((get_parameters_fn *)in->function)(handle, asked);
    return name;
}

int OSSL_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out,
                       void **provctx) {
    static int nothing; /* OpenSSL wants one that is not NULL; there is nothing to keep in it */
    if (!openssl_is_bound() || openssl_inner() == NULL) return 0;
    take_error_functions(handle, in);
    bool ciphers = strcmp(own_name(handle, in), ciphers_name) == 0;
    if (ciphers && !cipher_prepare()) return 0;
    *out = ciphers ? cipher_functions : key_functions;
    *provctx = &nothing;
    return 1;
}
