/* fake_openssl.c: just enough of OpenSSL for the engines. Thread-safe, allocates what the real one would. */
#include <string.h>

#include "key.h"
#include "op.h"
#include "ossl.h"
#include "unit.h"

struct evp_pkey_st {
    atomic_int refs;
};

enum { SIZE = 256 };

static void clear_error(void) {
}

static unsigned long get_error(const char **file, int *line, const char **func, const char **data, int *flags) {
    (void)file, (void)line, (void)func, (void)data, (void)flags;
    return 0;
}

static void free_pkey(EVP_PKEY *pkey) {
    if (pkey != NULL && atomic_fetch_sub(&pkey->refs, 1) == 1) free(pkey);
}

static const char *type_name(const EVP_PKEY *pkey) {
    (void)pkey;
    return "RSA";
}

static int size_of(const EVP_PKEY *pkey) {
    (void)pkey;
    return SIZE;
}

static int to_data(const EVP_PKEY *pkey, int selection, OSSL_PARAM **out) {
    (void)pkey, (void)selection;
    *out = calloc(1, sizeof **out);
    return *out != NULL;
}

static void free_params(OSSL_PARAM *params) {
    free(params);
}

static EVP_MD_CTX *new_digest(void) {
    return malloc(1);
}

static void free_digest(EVP_MD_CTX *context) {
    free(context);
}

static int init_digest(EVP_MD_CTX *context, EVP_PKEY_CTX **signing, const char *digest, OSSL_LIB_CTX *libctx,
                       const char *properties, EVP_PKEY *pkey, const OSSL_PARAM params[]) {
    (void)context, (void)signing, (void)digest, (void)libctx, (void)properties, (void)pkey, (void)params;
    return 1;
}

static int digest_sign(EVP_MD_CTX *context, unsigned char *out, size_t *length, const unsigned char *in, size_t size) {
    (void)context;
    if (size > *length || (size > 0 && in[0] == '!')) return 0;
    for (size_t i = 0; i < size; i++) out[i] = (unsigned char)~in[i];
    *length = size;
    return 1;
}

/* Takes as long as a verification; a signature is right if it is the message. */
static int digest_verify(EVP_MD_CTX *context, const unsigned char *signature, size_t length, const unsigned char *in,
                         size_t size) {
    (void)context;
    uint64_t until_ns = now_ns() + 100000;
    while (now_ns() < until_ns) continue;
    return length == size && memcmp(signature, in, size) == 0;
}

static void thread_stop(void) {
}

static ASYNC_JOB *no_job(void) {
    return NULL;
}

void fake_openssl(void) {
    ossl.ERR_clear_error = clear_error;
    ossl.ERR_get_error_all = get_error;
    ossl.EVP_PKEY_free = free_pkey;
    ossl.EVP_PKEY_get0_type_name = type_name;
    ossl.EVP_PKEY_get_bits = size_of;
    ossl.EVP_PKEY_get_size = size_of;
    ossl.EVP_PKEY_todata = to_data;
    ossl.OSSL_PARAM_free = free_params;
    ossl.EVP_MD_CTX_new = new_digest;
    ossl.EVP_MD_CTX_free = free_digest;
    ossl.EVP_DigestSignInit_ex = init_digest;
    ossl.EVP_DigestSign = digest_sign;
    ossl.EVP_DigestVerifyInit_ex = init_digest;
    ossl.EVP_DigestVerify = digest_verify;
    ossl.OPENSSL_thread_stop = thread_stop;
    ossl.ASYNC_get_current_job = no_job;
}

struct key *fake_key(struct engine *e) {
    EVP_PKEY *inner = calloc(1, sizeof *inner);
    struct key *k = NULL;
    CHECK(inner != NULL);
    atomic_init(&inner->refs, 1);
    CHECK(key_new(e, inner, &k) == SHIM_OK);
    return k;
}

struct op *fake_op(struct key *k, const char *message) {
    static const struct op_parameters parameters = {.padding = OP_UNSET, .salt_length = OP_UNSET};
    struct op *op = op_new(OP_SIGN, k, &parameters, message, strlen(message));
    CHECK(op != NULL);
    return op;
}

int fake_is_right(const struct op *op) {
    if (op->status != SHIM_OK || op->output_length != op->input_length) return 0;
    for (size_t i = 0; i < op->input_length; i++)
        if ((op->output[i] ^ op->input[i]) != 0xff) return 0;
    return 1;
}
