/*
 * session_id.c: the policy that a client had to satisfy, as the session-id context.
 *
 * Facts. With the same ticket keys a session that was made under one policy resumes under another, unless their
 * session-id contexts differ: without a client certificate, where one is required.
 *
 * Decision. Python tells a digest of everything that decides who may come in; a virtual host is one part more, which is
 * known only when the client has named it. What was never told has no context, as OpenSSL has it.
 */
#include "session_id.h"

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
    return (int)(set ? SHIM_OK : errors_keep(SHIM_ERR_OPENSSL));
}

shim_status session_id_use(SSL *ssl, const char *host, size_t length) {
    const struct base *b = context_data_get(ossl.SSL_get_SSL_CTX(ssl), CONTEXT_SESSION_ID);
    if (b == NULL) return SHIM_OK;
    const struct piece pieces[] = {{b->bytes, sizeof b->bytes}, {host, length}};
    unsigned char id[SESSION_ID_BYTES];
    EVP_MD_CTX *scratch = ossl.EVP_MD_CTX_new();
    const struct digest *sha256 = digest_named("SHA256");
    bool done = scratch != NULL && sha256 != NULL && digest_compute(sha256, scratch, pieces, 2, id) &&
                ossl.SSL_set_session_id_context(ssl, id, sizeof id) == 1;
    ossl.EVP_MD_CTX_free(scratch);
    return done ? SHIM_OK : errors_keep(SHIM_ERR_OPENSSL);
}
