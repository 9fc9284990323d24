/*
 * pem_keys.c: an ENGINE for the tests. It reads EC keys from PEM files by the file's stem, and
 * performs with them as long as it is running; what happens to it is appended to a log. As
 * libp11's, its keys hold no reference to it.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/ec.h>
#include <openssl/engine.h>
#include <openssl/pem.h>
#include <openssl/ui.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CMD_FOLDER = ENGINE_CMD_BASE, CMD_LOG, CMD_BROKEN };

static const ENGINE_CMD_DEFN commands[] = {
    {CMD_FOLDER, "FOLDER", "where the keys are", ENGINE_CMD_FLAG_STRING},
    {CMD_LOG, "LOG", "the file that is appended to", ENGINE_CMD_FLAG_STRING},
    {CMD_BROKEN, "BROKEN", "it will not start", ENGINE_CMD_FLAG_NO_INPUT},
    {0, NULL, NULL, 0},
};

static char folder[512], log_path[512];
static int broken, running;
static EC_KEY_METHOD *method;
static int (*openssl_sign)(int, const unsigned char *, int, unsigned char *, unsigned int *, const BIGNUM *,
                           const BIGNUM *, EC_KEY *);

static void tell(const char *what) {
    FILE *file = fopen(log_path, "a");
    if (file == NULL) return;
    fprintf(file, "%s\n", what);
    fclose(file);
}

static int control(ENGINE *e, int command, long number, void *text, void (*function)(void)) {
    (void)e, (void)number, (void)function;
    if (command == CMD_FOLDER) return snprintf(folder, sizeof folder, "%s", (const char *)text) > 0;
    if (command == CMD_LOG) {
        snprintf(log_path, sizeof log_path, "%s", (const char *)text);
        tell(running ? "told again" : "told");
        return 1;
    }
    broken = 1;
    return command == CMD_BROKEN;
}

static int init(ENGINE *e) {
    (void)e;
    if (broken) return 0;
    running = 1;
    tell("started");
    return 1;
}

static int finish(ENGINE *e) {
    (void)e;
    running = 0;
    tell("finished");
    return 1;
}

static int sign(int type, const unsigned char *digest, int length, unsigned char *out, unsigned int *out_length,
                const BIGNUM *inverse, const BIGNUM *r, EC_KEY *key) {
    tell(running ? "signed" : "asked after the end");
    return running && openssl_sign(type, digest, length, out, out_length, inverse, r, key);
}

/* The question goes to whoever asked for the key. */
struct question {
    UI_METHOD *method;
    void *data;
};

static int ask(char *buffer, int size, int writing, void *argument) {
    struct question *question = argument;
    UI *ui = UI_new_method(question->method);
    (void)writing;
    memset(buffer, 0, (size_t)size);
    UI_add_user_data(ui, question->data);
    UI_add_input_string(ui, "PIN", 0, buffer, 1, size - 1);
    int answered = UI_process(ui) == 0;
    UI_free(ui);
    return answered ? (int)strlen(buffer) : -1;
}

/* The same key, performed by us. */
static EVP_PKEY *take_over(EVP_PKEY *pkey) {
    EC_KEY *key = EVP_PKEY_get1_EC_KEY(pkey);
    EVP_PKEY *ours = EVP_PKEY_new();
    EVP_PKEY_free(pkey);
    if (key != NULL && EC_KEY_set_method(key, method) == 1 && EVP_PKEY_assign_EC_KEY(ours, key) == 1) return ours;
    EC_KEY_free(key);
    EVP_PKEY_free(ours);
    return NULL;
}

static EVP_PKEY *load_key(ENGINE *e, const char *id, UI_METHOD *ui, void *data) {
    struct question question = {ui, data};
    char path[1024];
    (void)e;
    snprintf(path, sizeof path, "%s/%s", folder, id);
    BIO *file = BIO_new_file(path, "r");
    EVP_PKEY *pkey = file != NULL ? PEM_read_bio_PrivateKey(file, NULL, ask, &question) : NULL;
    BIO_free(file);
    return pkey != NULL ? take_over(pkey) : NULL;
}

static int bind(ENGINE *e, const char *id) {
    if (id != NULL && strcmp(id, "pem_keys") != 0) return 0;
    int (*setup)(EC_KEY *, BN_CTX *, BIGNUM **, BIGNUM **);
    ECDSA_SIG *(*sign_sig)(const unsigned char *, int, const BIGNUM *, const BIGNUM *, EC_KEY *);
    EC_KEY_METHOD_get_sign(EC_KEY_OpenSSL(), &openssl_sign, &setup, &sign_sig);
    method = EC_KEY_METHOD_new(EC_KEY_OpenSSL());
    EC_KEY_METHOD_set_sign(method, sign, setup, sign_sig);
    return ENGINE_set_id(e, "pem_keys") && ENGINE_set_name(e, "keys in PEM files") && ENGINE_set_EC(e, method) &&
           ENGINE_set_init_function(e, init) && ENGINE_set_finish_function(e, finish) &&
           ENGINE_set_ctrl_function(e, control) && ENGINE_set_cmd_defns(e, commands) &&
           ENGINE_set_load_privkey_function(e, load_key);
}

IMPLEMENT_DYNAMIC_CHECK_FN()
IMPLEMENT_DYNAMIC_BIND_FN(bind)
