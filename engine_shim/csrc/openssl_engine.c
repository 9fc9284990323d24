/*
 * openssl_engine.c: an OpenSSL ENGINE, on a shared OpenSSL 3: found, controlled, started, made
 * the default, asked for keys.
 *
 * Facts. ENGINEs are process-wide: what is made the default serves everything in the process.
 * A key that an ENGINE made need not hold a reference to it (libp11's do not), and operates on
 * freed memory once the ENGINE is finished. A file that is loaded twice binds twice, and the
 * ENGINEs share its static variables.
 *
 * Decision. Every key carries a functional reference to its ENGINE as extra data of the
 * EVP_PKEY, given back when OpenSSL has freed the key. What was loaded stays in OpenSSL's list,
 * and nothing is loaded while its id is in the list.
 *
 * Finding: one thread at a time (Python's half holds a lock). The rest: any thread, OpenSSL guards
 * its list and its defaults, and a struct is changed only by its maker.
 */
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "key.h"
#include "ossl.h"
#include "password.h"

struct openssl_engine {
    ENGINE *engine; /* a structural reference */
    bool started;   /* and a functional one */
};

int openssl_engine_exists(void) {
    return ossl.ENGINE_set_default_string != NULL && ossl.ENGINE_get_first != NULL && ossl.OPENSSL_info != NULL &&
           ossl.EVP_PKEY_set_ex_data != NULL;
}

const char *openssl_engine_folder(void) {
    return ossl.OPENSSL_info != NULL ? ossl.OPENSSL_info(OPENSSL_INFO_ENGINES_DIR) : NULL;
}

/* Each step of the list gives the reference to the last one back and takes one to the next. */
int openssl_engine_is_listed(const char *id) {
    ENGINE *e = ossl.ENGINE_get_first();
    while (e != NULL && strcmp(ossl.ENGINE_get_id(e), id) != 0) e = ossl.ENGINE_get_next(e);
    ossl.ENGINE_free(e);
    ossl.ERR_clear_error();
    return e != NULL;
}

static bool command(ENGINE *e, const char *name, const char *value) {
    return ossl.ENGINE_ctrl_cmd_string(e, name, value, 0) == 1;
}

/* LIST_ADD 2: it enters the list or is not loaded. The caller owns the structural reference. */
static ENGINE *load_file(const char *id, const char *path) {
    ENGINE *e = ossl.ENGINE_by_id("dynamic");
    if (e == NULL) return NULL;
    if (command(e, "SO_PATH", path) && command(e, "ID", id) && command(e, "LIST_ADD", "2") && command(e, "LOAD", NULL))
        return e;
    ossl.ENGINE_free(e);
    return NULL;
}

/* CRYPTO_EX_free: OpenSSL has freed the key itself. */
static void release(void *parent, void *engine, CRYPTO_EX_DATA *ad, int index, long argl, void *argp) {
    (void)parent, (void)ad, (void)index, (void)argl, (void)argp;
    if (engine != NULL) ossl.ENGINE_finish(engine);
}

/* CRYPTO_EX_dup: a copy of the key holds a reference of its own. */
static int share(CRYPTO_EX_DATA *to, const CRYPTO_EX_DATA *from, void **engine, int index, long argl, void *argp) {
    (void)to, (void)from, (void)index, (void)argl, (void)argp;
    return *engine == NULL || ossl.ENGINE_init(*engine) == 1;
}

/* Of the references that keys hold. Written by make_key_index() before the first key, read-only afterwards. */
static int key_index = -1;

static bool make_key_index(void) {
    if (key_index < 0)
        key_index = ossl.CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_EVP_PKEY, 0, NULL, NULL, share, release);
    return key_index >= 0;
}

int openssl_engine_find(const char *id, const char *path, struct openssl_engine **out) {
    ossl.ERR_clear_error();
    ossl.OPENSSL_init_crypto(OPENSSL_INIT_ENGINE_DYNAMIC, NULL);
    struct openssl_engine *found = calloc(1, sizeof *found);
    if (found == NULL) return SHIM_ERR_MEMORY;
    found->engine = make_key_index() ? (path != NULL ? load_file(id, path) : ossl.ENGINE_by_id(id)) : NULL;
    if (found->engine == NULL) {
        free(found);
        return (int)errors_keep(SHIM_ERR_OPENSSL);
    }
    ossl.ERR_clear_error();
    *out = found;
    return SHIM_OK;
}

static int told(bool done) {
    if (!done) return (int)errors_keep(SHIM_ERR_OPENSSL);
    ossl.ERR_clear_error();
    return SHIM_OK;
}

int openssl_engine_control(struct openssl_engine *e, const char *name, const char *value) {
    ossl.ERR_clear_error();
    return told(command(e->engine, name, value));
}

int openssl_engine_start(struct openssl_engine *e) {
    ossl.ERR_clear_error();
    e->started = ossl.ENGINE_init(e->engine) == 1;
    return told(e->started);
}

int openssl_engine_set_default(struct openssl_engine *e, const char *algorithms) {
    ossl.ERR_clear_error();
    return told(ossl.ENGINE_set_default_string(e->engine, algorithms) == 1);
}

void openssl_engine_unregister(struct openssl_engine *e) {
    ossl.ENGINE_unregister_RSA(e->engine);
    ossl.ENGINE_unregister_DSA(e->engine);
    ossl.ENGINE_unregister_EC(e->engine);
    ossl.ENGINE_unregister_DH(e->engine);
    ossl.ENGINE_unregister_RAND(e->engine);
    ossl.ENGINE_unregister_ciphers(e->engine);
    ossl.ENGINE_unregister_digests(e->engine);
    ossl.ENGINE_unregister_pkey_meths(e->engine);
    ossl.ENGINE_unregister_pkey_asn1_meths(e->engine);
    ossl.ERR_clear_error();
}

void openssl_engine_free(struct openssl_engine *e) {
    if (e == NULL) return;
    if (e->started) ossl.ENGINE_finish(e->engine);
    ossl.ENGINE_free(e->engine);
    ossl.ERR_clear_error();
    free(e);
}

/* The key holds a functional reference from here on. */
static bool bind_to_engine(EVP_PKEY *pkey, ENGINE *engine) {
    if (ossl.ENGINE_init(engine) != 1) return false;
    if (ossl.EVP_PKEY_set_ex_data(pkey, key_index, engine) == 1) return true;
    ossl.ENGINE_finish(engine);
    return false;
}

/* The caller owns the key. NULL: the reason is on OpenSSL's queue. */
static EVP_PKEY *ask_for_key(ENGINE *engine, const char *id, struct password *secret) {
    UI_METHOD *method = ossl.UI_UTIL_wrap_read_pem_callback(password_give, 0);
    if (method == NULL) return NULL;
    EVP_PKEY *pkey = ossl.ENGINE_load_private_key(engine, id, method, secret);
    ossl.UI_destroy_method(method);
    return pkey;
}

int openssl_engine_load_key(struct openssl_engine *e, const char *id, const void *password, size_t password_length,
                            struct key **out) {
    struct password secret = {.bytes = password, .length = password_length};
    ossl.ERR_clear_error();
    EVP_PKEY *pkey = ask_for_key(e->engine, id, &secret);
    if (pkey == NULL) return (int)errors_keep(secret.asked ? SHIM_ERR_PASSWORD : SHIM_ERR_KEY);
    if (!bind_to_engine(pkey, e->engine)) {
        ossl.EVP_PKEY_free(pkey);
        return (int)errors_keep(SHIM_ERR_OPENSSL);
    }
    ossl.ERR_clear_error();
    return (int)key_adopt(pkey, out);
}
