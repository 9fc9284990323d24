/*
 * openssl_provider.c: loadable providers of others, and the keys that they hold.
 *
 * Facts. What a provider implements is fetched in the library context that it was loaded into, by
 * name and property query. A key carries its provider's functions with it; it may outlive the
 * SSL_CTX, the Python objects and the interpreter's clean-up. In the process's default context a
 * provider takes part in everything that the process does with OpenSSL.
 *
 * Decision. Each provider gets a library context of its own, beside "default", which does what it
 * leaves undone. The context is never freed: nobody knows when the last key is gone. Whoever opens
 * the same one again gets the same context (openssl_provider.py keeps them), so nothing adds up.
 * The default context is touched by openssl_provider_share() and _set_query() alone.
 *
 * Threads. A struct is immutable once made, OpenSSL locks its contexts: any thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "key.h"
#include "ossl.h"
#include "password.h"

struct openssl_provider {
    OSSL_LIB_CTX *context; /* owned, for good */
    char *name;            /* owned */
    char *only;            /* owned; the query that nobody else answers */
};

/* A module of many objects may have some that cannot be read, before the key. */
enum { MOST_FAILURES = 16 };

/* POSIX lets a function's address be kept in a void *. */
static OSSL_provider_init_fn *as_init(void *address) {
    OSSL_provider_init_fn *init;
    memcpy(&init, &address, sizeof init);
    return init;
}

/* "default" first: loading any provider by name keeps OpenSSL from loading it by itself. */
static bool load(OSSL_LIB_CTX *context, const char *name, void *init) {
    if (ossl.OSSL_PROVIDER_load(context, "default") == NULL) return false;
    if (init != NULL && ossl.OSSL_PROVIDER_add_builtin(context, name, as_init(init)) != 1) return false;
    return ossl.OSSL_PROVIDER_load(context, name) != NULL;
}

static bool fill(OSSL_LIB_CTX *context, const char *name, void *init, const char *config) {
    if (config != NULL && ossl.OSSL_LIB_CTX_load_config(context, config) != 1) return false;
    return load(context, name, init);
}

/* Only what was never handed out. */
static void discard(struct openssl_provider *p) {
    ossl.OSSL_LIB_CTX_free(p->context);
    free(p->name);
    free(p->only);
    free(p);
}

static struct openssl_provider *make(const char *name) {
    struct openssl_provider *p = calloc(1, sizeof *p);
    if (p == NULL) return NULL;
    p->name = strdup(name);
    p->context = ossl.OSSL_LIB_CTX_new();
    if (p->context != NULL && p->name != NULL && asprintf(&p->only, "provider=%s", name) > 0) return p;
    discard(p);
    return NULL;
}

int openssl_provider_open(const char *name, void *init, const char *config, struct openssl_provider **out) {
    ossl.ERR_clear_error();
    struct openssl_provider *p = make(name);
    if (p == NULL) return SHIM_ERR_MEMORY;
    if (!fill(p->context, name, init, config)) {
        shim_status status = errors_keep(SHIM_ERR_OPENSSL);
        discard(p);
        return (int)status;
    }
    ossl.ERR_clear_error();
    *out = p;
    return SHIM_OK;
}

/* The caller owns the key; NULL: there is none. */
static EVP_PKEY *first_key(OSSL_STORE_CTX *store) {
    EVP_PKEY *found = NULL;
    ossl.OSSL_STORE_expect(store, OSSL_STORE_INFO_PKEY);
    for (int failures = 0; found == NULL && failures < MOST_FAILURES && !ossl.OSSL_STORE_eof(store);) {
        OSSL_STORE_INFO *info = ossl.OSSL_STORE_load(store);
        if (info == NULL) {
            failures++;
            continue;
        }
        if (ossl.OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PKEY) found = ossl.OSSL_STORE_INFO_get1_PKEY(info);
        ossl.OSSL_STORE_INFO_free(info);
    }
    return found;
}

/* The caller owns the key; NULL: OpenSSL's queue says why. */
static EVP_PKEY *read_store(OSSL_LIB_CTX *context, const char *uri, const char *properties, struct password *secret) {
    EVP_PKEY *found = NULL;
    UI_METHOD *method = ossl.UI_UTIL_wrap_read_pem_callback(password_give, 0);
    if (method == NULL) return NULL;
    OSSL_STORE_CTX *store = ossl.OSSL_STORE_open_ex(uri, context, properties, method, secret, NULL, NULL, NULL);
    if (store != NULL) {
        found = first_key(store);
        ossl.OSSL_STORE_close(store);
    }
    ossl.UI_destroy_method(method);
    return found;
}

static bool holds(const struct openssl_provider *p, const EVP_PKEY *key) {
    const OSSL_PROVIDER *provider = ossl.EVP_PKEY_get0_provider(key);
    return provider != NULL && strcmp(ossl.OSSL_PROVIDER_get0_name(provider), p->name) == 0;
}

/* OpenSSL leaves the numbers of the key where they were. */
static void wipe(OSSL_PARAM *numbers) {
    for (OSSL_PARAM *n = numbers; n != NULL && n->key != NULL; n++)
        if (n->data != NULL) explicit_bzero(n->data, n->data_size);
    ossl.OSSL_PARAM_free(numbers);
}

/* The same key in the provider; the caller owns it. NULL: the provider does not take it. */
static EVP_PKEY *copy_to(const struct openssl_provider *p, const EVP_PKEY *key) {
    EVP_PKEY *copy = NULL;
    OSSL_PARAM *numbers = NULL;
    EVP_PKEY_CTX *maker = ossl.EVP_PKEY_CTX_new_from_name(p->context, ossl.EVP_PKEY_get0_type_name(key), p->only);
    if (maker == NULL) return NULL;
    if (ossl.EVP_PKEY_fromdata_init(maker) == 1 && ossl.EVP_PKEY_todata(key, EVP_PKEY_KEYPAIR, &numbers) == 1)
        ossl.EVP_PKEY_fromdata(maker, &copy, EVP_PKEY_KEYPAIR, numbers);
    wipe(numbers);
    ossl.EVP_PKEY_CTX_free(maker);
    return copy;
}

/*
 * What a file holds is read by OpenSSL's own decoders, and is OpenSSL's own key: here it becomes the provider's, which
 * must be able to import. Takes over the reference; where the provider does not take the key, it is given back as it is.
 */
static EVP_PKEY *move_to(const struct openssl_provider *p, EVP_PKEY *key) {
    if (holds(p, key)) return key;
    EVP_PKEY *copy = copy_to(p, key);
    if (copy == NULL) return key;
    ossl.EVP_PKEY_free(key);
    return copy;
}

/* OpenSSL tries a URI as a file first: the last entry of its queue, not the first, is about what was meant. */
static shim_status keep_last(shim_status status) {
    char text[256] = "";
    const char *data;
    unsigned long code;
    while (data = NULL, (code = ossl.ERR_get_error_all(NULL, NULL, NULL, &data, NULL)) != 0)
        errors_describe(code, data, text, sizeof text);
    return errors_say(status, text);
}

int openssl_provider_load_key(struct openssl_provider *p, const char *uri, const char *properties, const void *password,
                              size_t password_length, struct key **out) {
    struct password secret = {.bytes = password, .length = password_length};
    ossl.ERR_clear_error();
    EVP_PKEY *found = read_store(p->context, uri, properties, &secret);
    if (found == NULL) return (int)keep_last(secret.asked ? SHIM_ERR_PASSWORD : SHIM_ERR_KEY);
    found = move_to(p, found);
    ossl.ERR_clear_error();
    return (int)key_adopt(found, out);
}

const char *openssl_provider_of(const struct key *k) {
    const OSSL_PROVIDER *provider = ossl.EVP_PKEY_get0_provider(k->inner);
    return provider != NULL ? ossl.OSSL_PROVIDER_get0_name(provider) : NULL;
}

static int told(bool done) {
    if (!done) return (int)errors_keep(SHIM_ERR_OPENSSL);
    ossl.ERR_clear_error();
    return SHIM_OK;
}

int openssl_provider_share(const char *name, void *init) {
    ossl.ERR_clear_error();
    return told(load(NULL, name, init));
}

int openssl_provider_set_query(const char *properties) {
    ossl.ERR_clear_error();
    return told(ossl.EVP_set_default_properties(NULL, properties) == 1);
}

size_t openssl_provider_get_query(char *out, size_t room) {
    char *query = ossl.EVP_get1_default_properties != NULL ? ossl.EVP_get1_default_properties(NULL) : NULL;
    size_t length = query != NULL ? strlen(query) : 0;
    if (length < room) memcpy(out, query != NULL ? query : "", length + 1);
    ossl.CRYPTO_clear_free(query, length, __FILE__, 0);
    ossl.ERR_clear_error();
    return length;
}
