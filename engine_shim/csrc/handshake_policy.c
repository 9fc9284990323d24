/*
 * handshake_policy.c: what a server's SSL_CTX is told about suites, signatures and sessions, for which pyOpenSSL has no
 * function in all its releases.
 *
 * Before the first SSL is made of it, on any one thread. What OpenSSL refuses leaves the SSL_CTX as it was.
 */
#include "errors.h"
#include "ossl.h"

static int said(bool done) {
    return done ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}

int policy_ciphers(void *ssl_ctx, const char *list) {
    ossl.ERR_clear_error();
    return said(ossl.SSL_CTX_set_cipher_list(ssl_ctx, list) == 1);
}

int policy_ciphersuites(void *ssl_ctx, const char *list) {
    ossl.ERR_clear_error();
    return said(ossl.SSL_CTX_set_ciphersuites(ssl_ctx, list) == 1);
}

int policy_signature_algorithms(void *ssl_ctx, const char *list) {
    ossl.ERR_clear_error();
    /* libssl reads the text only: its prototype has no const. */
    return said(ossl.SSL_CTX_ctrl(ssl_ctx, SSL_CTRL_SET_SIGALGS_LIST, 0, (void *)(uintptr_t)list) == 1);
}

int policy_num_tickets(void *ssl_ctx, size_t count) {
    ossl.ERR_clear_error();
    return said(ossl.SSL_CTX_set_num_tickets(ssl_ctx, count) == 1);
}

/* To OpenSSL 0 means no bound, and it makes room once the bound is reached, not when it is passed. */
void policy_session_cache(void *ssl_ctx, long most) {
    ossl.SSL_CTX_ctrl(ssl_ctx, SSL_CTRL_SET_SESS_CACHE_MODE, most > 0 ? SSL_SESS_CACHE_SERVER : SSL_SESS_CACHE_OFF,
                      NULL);
    ossl.SSL_CTX_ctrl(ssl_ctx, SSL_CTRL_SET_SESS_CACHE_SIZE, most + 1, NULL);
}
