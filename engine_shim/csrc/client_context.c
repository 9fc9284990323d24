/*
 * client_context.c: settings of an SSL_CTX of a client for which pyOpenSSL has no function in all its releases.
 *
 * Before the first SSL is made of it, on the thread that made it.
 */
#include "errors.h"
#include "ossl.h"

/* Key exchange groups, in OpenSSL's form. SHIM_ERR_OPENSSL: it knows none of them. */
int client_context_groups(void *ssl_ctx, const char *groups) {
    ossl.ERR_clear_error();
    /* libssl reads the text only: its prototype has no const. */
    long done = ossl.SSL_CTX_ctrl(ssl_ctx, SSL_CTRL_SET_GROUPS_LIST, 0, (void *)(uintptr_t)groups);
    return done == 1 ? SHIM_OK : errors_keep(SHIM_ERR_OPENSSL);
}

/* One read(2) takes all that has come, instead of two for each record. */
void client_context_read_ahead(void *ssl_ctx) {
    ossl.SSL_CTX_ctrl(ssl_ctx, SSL_CTRL_SET_READ_AHEAD, 1, NULL);
}

static int believe(X509_STORE_CTX *chain, void *argument) {
    (void)chain;
    (void)argument;
    return 1;
}

/* No chain is built or verified. Whether the peer has the certificate's key is still verified. */
void client_context_believe(void *ssl_ctx) {
    ossl.SSL_CTX_set_cert_verify_callback(ssl_ctx, believe, NULL);
}
