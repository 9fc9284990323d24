/* store.c: keys by URI: scripted:PATH is the private key in a PEM file. */
#include <stdlib.h>
#include <string.h>

#include "keys.h"
#include "openssl.h"

static const char scheme[] = "scripted:";

/* Owned by one OSSL_STORE_CTX; one thread at a time. */
struct loader {
    BIO *file; /* owned */
    bool is_read;
};

static void *open_uri(void *provider, const char *uri) {
    (void)provider;
    if (strncmp(uri, scheme, sizeof scheme - 1) != 0) return NULL;
    struct loader *l = calloc(1, sizeof *l);
    if (l == NULL) return NULL;
    l->file = openssl.BIO_new_file(uri + sizeof scheme - 1, "r");
    if (l->file != NULL) return l;
    free(l);
    return NULL;
}

static int close_loader(void *loader) {
    struct loader *l = loader;
    openssl.BIO_free(l->file);
    free(l);
    return 1;
}

static int is_at_end(void *loader) {
    const struct loader *l = loader;
    return l->is_read;
}

struct passphrase {
    OSSL_PASSPHRASE_CALLBACK *ask;
    void *argument;
};

/* pem_password_cb(3). */
static int give_passphrase(char *buffer, int size, int writing, void *passphrase) {
    const OSSL_PARAM nothing = {NULL, 0, NULL, 0, 0};
    const struct passphrase *p = passphrase;
    size_t length = 0;
    (void)writing;
    if (p->ask == NULL || p->ask(buffer, (size_t)size, &length, &nothing, p->argument) != 1) return -1;
    return (int)length;
}

/* Takes over the key; the receiver takes it out of here (keys.c, load) or leaves it. */
static int hand_over(struct key *k, OSSL_CALLBACK *receive, void *argument) {
    int type = OSSL_OBJECT_PKEY;
    const OSSL_PARAM object[] = {
        {OSSL_OBJECT_PARAM_TYPE, OSSL_PARAM_INTEGER, &type, sizeof type, 0},
        {OSSL_OBJECT_PARAM_DATA_TYPE, OSSL_PARAM_UTF8_STRING, (void *)(uintptr_t)k->type, strlen(k->type), 0},
        {OSSL_OBJECT_PARAM_REFERENCE, OSSL_PARAM_OCTET_STRING, &k, sizeof k, 0},
        {NULL, 0, NULL, 0, 0},
    };
    int received = receive(object, argument);
    key_free(k);
    return received;
}

static int load(void *loader, OSSL_CALLBACK *receive, void *argument, OSSL_PASSPHRASE_CALLBACK *ask, void *ask_arg) {
    struct loader *l = loader;
    struct passphrase passphrase = {ask, ask_arg};
    l->is_read = true;
    EVP_PKEY *inner =
        openssl.PEM_read_bio_PrivateKey_ex(l->file, NULL, give_passphrase, &passphrase, openssl_inner(), NULL);
    struct key *k = inner != NULL ? key_of(inner) : NULL;
    return k != NULL && hand_over(k, receive, argument);
}

static const OSSL_PARAM *settable_parameters(void *provider) {
    static const OSSL_PARAM none = {NULL, 0, NULL, 0, 0};
    (void)provider;
    return &none;
}

/* What is expected, and such: a file has one key, so there is nothing to choose. */
static int set_parameters(void *loader, const OSSL_PARAM parameters[]) {
    (void)loader, (void)parameters;
    return 1;
}

static const OSSL_DISPATCH functions[] = {
    {OSSL_FUNC_STORE_OPEN, FUNCTION(open_uri)},
    {OSSL_FUNC_STORE_SETTABLE_CTX_PARAMS, FUNCTION(settable_parameters)},
    {OSSL_FUNC_STORE_SET_CTX_PARAMS, FUNCTION(set_parameters)},
    {OSSL_FUNC_STORE_LOAD, FUNCTION(load)},
    {OSSL_FUNC_STORE_EOF, FUNCTION(is_at_end)},
    {OSSL_FUNC_STORE_CLOSE, FUNCTION(close_loader)},
    {0, NULL},
};

const OSSL_ALGORITHM store_algorithms[] = {
    {"scripted", PROPERTY, functions, "keys in PEM files, scripted"},
    {NULL, NULL, NULL, NULL},
};
