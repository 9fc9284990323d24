/*
 * session_id.c: the policy that a client had to satisfy, as the session-id context.
 *
 * Facts. With the same ticket keys a session that was made under one policy resumes under another, unless their
 * session-id contexts differ: without a client certificate, where one is required.
 *
 * Decision. Python tells a digest of everything that decides who may come in; a virtual host is one part more, which is
 * known only when the client has named it. What was never told has no context, as OpenSSL has it. OpenSSL does not tell
 * an SSL's context, so that is kept here as well.
 */
#include "session_id.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "context_data.h"
#include "digests.h"
#include "errors.h"
#include "ossl.h"

/* Owned by the SSL_CTX (context_data.h); immutable. */
struct base {
    unsigned char bytes[SESSION_ID_BYTES];
};

int session_id_set(void *ssl_ctx, const void *bytes) {
    struct base *b = malloc(sizeof *b);
    if (b == NULL) return SHIM_ERR_MEMORY;
    memcpy(b->bytes, bytes, sizeof b->bytes);
    shim_status status = context_data_set(ssl_ctx, CONTEXT_SESSION_ID, b, free);
    if (status != SHIM_OK) {
        free(b);
        return status;
    }
    bool set = ossl.SSL_CTX_set_session_id_context(ssl_ctx, b->bytes, sizeof b->bytes) == 1;
    return set ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}

static int ex_index = -1;

static void free_id(void *parent, void *id, CRYPTO_EX_DATA *data, int index, long number, void *pointer) {
    (void)parent;
    (void)data;
    (void)index;
    (void)number;
    (void)pointer;
    free(id);
}

static void make_index(void) {
    ex_index = ossl.CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL, 0, NULL, NULL, NULL, free_id);
}

/* The SSL owns the copy. */
static bool keep(SSL *ssl, const unsigned char *id) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_index);
    unsigned char *copy = malloc(SESSION_ID_BYTES);
    if (ex_index < 0 || copy == NULL) {
        free(copy);
        return false;
    }
    memcpy(copy, id, SESSION_ID_BYTES);
    unsigned char *before = ossl.SSL_get_ex_data(ssl, ex_index);
    bool kept = ossl.SSL_set_ex_data(ssl, ex_index, copy) == 1;
    free(kept ? before : copy);
    return kept;
}

bool session_id_fits(const SSL *ssl, const SSL_SESSION *session) {
    const unsigned char *ours = ex_index < 0 ? NULL : ossl.SSL_get_ex_data(ssl, ex_index);
    if (ours == NULL) ours = context_data_get(ossl.SSL_get_SSL_CTX(ssl), CONTEXT_SESSION_ID);
    unsigned length = 0;
    const unsigned char *its = ossl.SSL_SESSION_get0_id_context(session, &length);
    return ours != NULL && length == SESSION_ID_BYTES && memcmp(ours, its, length) == 0;
}

shim_status session_id_use(SSL *ssl, const char *host, size_t length) {
    const struct base *b = context_data_get(ossl.SSL_get_SSL_CTX(ssl), CONTEXT_SESSION_ID);
    if (b == NULL) return SHIM_OK;
    const struct piece pieces[] = {{b->bytes, sizeof b->bytes}, {host, length}};
    unsigned char id[SESSION_ID_BYTES];
    EVP_MD_CTX *scratch = ossl.EVP_MD_CTX_new();
    const struct digest *sha256 = digest_named("SHA256");
    bool done = scratch != NULL && sha256 != NULL && digest_compute(sha256, scratch, pieces, 2, id) &&
                ossl.SSL_set_session_id_context(ssl, id, sizeof id) == 1 && keep(ssl, id);
    ossl.EVP_MD_CTX_free(scratch);
    return done ? SHIM_OK : errors_keep(SHIM_ERR_OPENSSL);
}
