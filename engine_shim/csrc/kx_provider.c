/*
 * kx_provider.c: the second built-in provider: X25519 whose key pairs were made ahead.
 *
 * It lives beside OpenSSL's `default` provider in a library context of its own, and works with that provider's key data
 * and that provider's functions (OSSL_PROVIDER_query_operation() hands them out): importing, exporting, comparing,
 * deriving with its check against the all-zero secret (RFC 8446, section 7.4.2) are OpenSSL's own code. Only key
 * generation is ours, and it goes back to OpenSSL's for whatever is not a plain new pair.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "errors.h"
#include "kx.h"
#include "ossl.h"
#include "provider.h"

#define PROPERTY "provider=" KX_PROVIDER_NAME
#define PREFERENCE "?" PROPERTY
#define CAPABILITY "TLS-GROUP" /* provider-base(7); OpenSSL has no name for it */

enum { FUNCTIONS_MOST = 32 };

/* Of the `default` provider in our context, which is never unloaded; written once, before anybody can call. */
static struct {
    OSSL_PROVIDER *provider;
    void *context; /* what its functions take as their provider's context, and ours hand on */
    void *(*new)(void *context);
    void (*free)(void *key);
    int (*import)(void *key, int selection, const OSSL_PARAM parameters[]);
    void *(*begin)(void *context, int selection, const OSSL_PARAM parameters[]);
    int (*set_template)(void *generation, void *template);
    int (*set)(void *generation, const OSSL_PARAM parameters[]);
    const OSSL_PARAM *(*settable)(void *generation, void *context);
    void *(*generate)(void *generation, OSSL_CALLBACK *progress, void *argument);
    void (*end)(void *generation);
} theirs;

/* One generation of a key. Owned by an EVP_PKEY_CTX: one thread. */
struct generation {
    void *theirs; /* the default provider's, owned */
    int selection;
    bool special; /* it was told more than the group's name */
};

static bool only_names_group(const OSSL_PARAM parameters[]) {
    for (const OSSL_PARAM *p = parameters; p != NULL && p->key != NULL; p++)
        if (strcmp(p->key, OSSL_PKEY_PARAM_GROUP_NAME) != 0) return false;
    return true;
}

static void *begin(void *context, int selection, const OSSL_PARAM parameters[]) {
    struct generation *g = calloc(1, sizeof *g);
    if (g == NULL) return NULL;
    g->selection = selection;
    g->special = !only_names_group(parameters);
    g->theirs = theirs.begin(context, selection, parameters);
    if (g->theirs != NULL) return g;
    free(g);
    return NULL;
}

static void end(void *generation) {
    struct generation *g = generation;
    if (g == NULL) return;
    theirs.end(g->theirs);
    free(g);
}

static int set(void *generation, const OSSL_PARAM parameters[]) {
    struct generation *g = generation;
    if (!only_names_group(parameters)) g->special = true;
    return theirs.set(g->theirs, parameters);
}

static const OSSL_PARAM *settable(void *generation, void *context) {
    const struct generation *g = generation;
    return theirs.settable(g != NULL ? g->theirs : NULL, context);
}

static int set_template(void *generation, void *template) {
    struct generation *g = generation;
    return theirs.set_template(g->theirs, template);
}

/* The caller owns the key; NULL: no memory. Both halves are given, so that OpenSSL computes neither. */
static void *imported(struct kx_pair *pair) {
    const OSSL_PARAM halves[] = {
        {OSSL_PKEY_PARAM_PUB_KEY, OSSL_PARAM_OCTET_STRING, pair->public_key, sizeof pair->public_key, 0},
        {OSSL_PKEY_PARAM_PRIV_KEY, OSSL_PARAM_OCTET_STRING, pair->private_key, sizeof pair->private_key, 0},
        {NULL, 0, NULL, 0, 0},
    };
    void *key = theirs.new(theirs.context);
    if (key == NULL || theirs.import(key, OSSL_KEYMGMT_SELECT_KEYPAIR, halves) == 1) return key;
    theirs.free(key);
    return NULL;
}

static bool wants_pair(const struct generation *g) {
    return !g->special && (g->selection & OSSL_KEYMGMT_SELECT_KEYPAIR) == OSSL_KEYMGMT_SELECT_KEYPAIR;
}

static void *generate(void *generation, OSSL_CALLBACK *progress, void *argument) {
    struct generation *g = generation;
    struct kx_pair pair;
    if (!wants_pair(g) || !kx_store_take(&pair)) return theirs.generate(g->theirs, progress, argument);
    void *key = imported(&pair);
    explicit_bzero(&pair, sizeof pair);
    return key;
}

/* Those that take key data or the provider's context. What takes a generation is ours, or is not offered. */
static const int kept[] = {
    OSSL_FUNC_KEYMGMT_NEW,
    OSSL_FUNC_KEYMGMT_FREE,
    OSSL_FUNC_KEYMGMT_GET_PARAMS,
    OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS,
    OSSL_FUNC_KEYMGMT_SET_PARAMS,
    OSSL_FUNC_KEYMGMT_SETTABLE_PARAMS,
    OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME,
    OSSL_FUNC_KEYMGMT_HAS,
    OSSL_FUNC_KEYMGMT_VALIDATE,
    OSSL_FUNC_KEYMGMT_MATCH,
    OSSL_FUNC_KEYMGMT_IMPORT,
    OSSL_FUNC_KEYMGMT_IMPORT_TYPES,
    OSSL_FUNC_KEYMGMT_EXPORT,
    OSSL_FUNC_KEYMGMT_EXPORT_TYPES,
    OSSL_FUNC_KEYMGMT_DUP,
};

static const OSSL_DISPATCH generation_functions[] = {
    {OSSL_FUNC_KEYMGMT_GEN_INIT, FUNCTION(begin)},
    {OSSL_FUNC_KEYMGMT_GEN_SET_PARAMS, FUNCTION(set)},
    {OSSL_FUNC_KEYMGMT_GEN_SETTABLE_PARAMS, FUNCTION(settable)},
    {OSSL_FUNC_KEYMGMT_GEN, FUNCTION(generate)},
    {OSSL_FUNC_KEYMGMT_GEN_CLEANUP, FUNCTION(end)},
    {0, NULL},
};

static OSSL_DISPATCH keymgmt_functions[FUNCTIONS_MOST];
static OSSL_ALGORITHM keymgmts[2], exchanges[2];

static const OSSL_ALGORITHM *query(void *provider, int operation, int *no_cache) {
    (void)provider;
    *no_cache = 0;
    if (operation == OSSL_OP_KEYMGMT) return keymgmts;
    return operation == OSSL_OP_KEYEXCH ? exchanges : NULL;
}

static int get_parameters(void *provider, OSSL_PARAM parameters[]) {
    (void)provider;
    return provider_answer(KX_PROVIDER_NAME, parameters);
}

struct receiver {
    OSSL_CALLBACK *receive;
    void *argument;
};

static bool is_group(const OSSL_PARAM parameters[]) {
    for (const OSSL_PARAM *p = parameters; p->key != NULL; p++)
        if (strcmp(p->key, OSSL_CAPABILITY_TLS_GROUP_ALG) == 0) return strcasecmp(p->data, KX_GROUP) == 0;
    return false;
}

static int pass_group(const OSSL_PARAM parameters[], void *argument) {
    const struct receiver *r = argument;
    return is_group(parameters) ? r->receive(parameters, r->argument) : 1;
}

/* What this OpenSSL says of the group: its number, strength and versions are the default provider's. */
static int capabilities(void *provider, const char *capability, OSSL_CALLBACK *receive, void *argument) {
    struct receiver r = {receive, argument};
    (void)provider;
    if (strcasecmp(capability, CAPABILITY) != 0) return 1;
    return ossl.OSSL_PROVIDER_get_capabilities(theirs.provider, capability, pass_group, &r);
}

static const OSSL_DISPATCH provider_functions[] = {
    {OSSL_FUNC_PROVIDER_QUERY_OPERATION, FUNCTION(query)},
    {OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, FUNCTION(provider_gettable)},
    {OSSL_FUNC_PROVIDER_GET_PARAMS, FUNCTION(get_parameters)},
    {OSSL_FUNC_PROVIDER_GET_CAPABILITIES, FUNCTION(capabilities)},
    {0, NULL},
};

/* The default provider's functions are called with what is given here, so it is the default provider's. */
static int init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **provctx) {
    (void)handle;
    (void)in;
    *out = provider_functions;
    *provctx = theirs.context;
    return 1;
}

/* By the first of its names; NULL: the default provider has no such row. */
static const OSSL_ALGORITHM *row_of(int operation) {
    int no_cache = 0;
    const size_t length = strlen(KX_GROUP);
    const OSSL_ALGORITHM *row = ossl.OSSL_PROVIDER_query_operation(theirs.provider, operation, &no_cache);
    for (; row != NULL && row->algorithm_names != NULL; row++) {
        const char *names = row->algorithm_names;
        if (strncasecmp(names, KX_GROUP, length) == 0 && (names[length] == ':' || names[length] == '\0')) return row;
    }
    return NULL;
}

static void (*function_of(const OSSL_DISPATCH *functions, int id))(void) {
    for (; functions->function_id != 0; functions++)
        if (functions->function_id == id) return functions->function;
    return NULL;
}

/* Copies between pointers to functions of two types, as OpenSSL casts them. */
static bool borrow(void *out, const OSSL_DISPATCH *functions, int id) {
    void (*function)(void) = function_of(functions, id);
    memcpy(out, &function, sizeof function);
    return function != NULL;
}

static bool borrow_generation(const OSSL_DISPATCH *functions) {
    return borrow(&theirs.new, functions, OSSL_FUNC_KEYMGMT_NEW) &&
           borrow(&theirs.free, functions, OSSL_FUNC_KEYMGMT_FREE) &&
           borrow(&theirs.import, functions, OSSL_FUNC_KEYMGMT_IMPORT) &&
           borrow(&theirs.begin, functions, OSSL_FUNC_KEYMGMT_GEN_INIT) &&
           borrow(&theirs.set, functions, OSSL_FUNC_KEYMGMT_GEN_SET_PARAMS) &&
           borrow(&theirs.settable, functions, OSSL_FUNC_KEYMGMT_GEN_SETTABLE_PARAMS) &&
           borrow(&theirs.generate, functions, OSSL_FUNC_KEYMGMT_GEN) &&
           borrow(&theirs.end, functions, OSSL_FUNC_KEYMGMT_GEN_CLEANUP);
}

static void fill_functions(const OSSL_DISPATCH *functions) {
    OSSL_DISPATCH *next = keymgmt_functions;
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        if (function_of(functions, kept[i]) != NULL)
            *next++ = (OSSL_DISPATCH){kept[i], function_of(functions, kept[i])};
    for (const OSSL_DISPATCH *f = generation_functions; f->function_id != 0; f++) *next++ = *f;
    if (borrow(&theirs.set_template, functions, OSSL_FUNC_KEYMGMT_GEN_SET_TEMPLATE))
        *next++ = (OSSL_DISPATCH){OSSL_FUNC_KEYMGMT_GEN_SET_TEMPLATE, FUNCTION(set_template)};
    *next = (OSSL_DISPATCH){0, NULL};
}

/* Fills `theirs` and our tables from the default provider of `context`. */
static bool build(OSSL_LIB_CTX *context) {
    theirs.provider = ossl.OSSL_PROVIDER_load(context, "default");
    if (theirs.provider == NULL) return false;
    theirs.context = ossl.OSSL_PROVIDER_get0_provider_ctx(theirs.provider);
    const OSSL_ALGORITHM *keymgmt = row_of(OSSL_OP_KEYMGMT), *exchange = row_of(OSSL_OP_KEYEXCH);
    if (keymgmt == NULL || exchange == NULL || !borrow_generation(keymgmt->implementation)) return false;
    fill_functions(keymgmt->implementation);
    keymgmts[0] = (OSSL_ALGORITHM){keymgmt->algorithm_names, PROPERTY, keymgmt_functions, "X25519, made ahead"};
    exchanges[0] = (OSSL_ALGORITHM){exchange->algorithm_names, PROPERTY, exchange->implementation, "X25519"};
    return true;
}

static OSSL_LIB_CTX *context; /* written once; never freed: keys and sessions may outlive everything else */

static void load(void) {
    OSSL_LIB_CTX *made = ossl.OSSL_LIB_CTX_new();
    if (made == NULL || !build(made)) return;
    if (ossl.OSSL_PROVIDER_add_builtin(made, KX_PROVIDER_NAME, init) != 1) return;
    if (ossl.OSSL_PROVIDER_load(made, KX_PROVIDER_NAME) == NULL) return;
    if (ossl.EVP_set_default_properties(made, PREFERENCE) == 1) context = made;
}

OSSL_LIB_CTX *kx_provider_context(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return context;
}
