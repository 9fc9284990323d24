/*
 * peer.c: what a client learns of its server, for which pyOpenSSL has no function in all its releases.
 *
 * On the client's thread; clients have no jobs.
 */
#include <stdlib.h>

#include "context_data.h"
#include "errors.h"
#include "ossl.h"

/* Owned by the SSL_CTX (context_data.h); its only thread is the client's. */
struct sessions {
    unsigned count;
};

int peer_ask_name(void *ssl, const char *name) {
    /* libssl reads the text only: its prototype has no const. */
    long done = ossl.SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, (void *)(uintptr_t)name);
    return done == 1 ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}

/* X509_check_host(3); a wildcard stands for a whole label, as RFC 9525, 6.3 has it. */
int peer_expect_name(void *ssl, const char *name, int common_name) {
    X509_VERIFY_PARAM *expected = ossl.SSL_get0_param(ssl);
    unsigned flags = X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | (common_name ? 0 : X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    ossl.X509_VERIFY_PARAM_set_hostflags(expected, flags);
    return ossl.X509_VERIFY_PARAM_set1_host(expected, name, 0) == 1 ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}

int peer_expect_ip(void *ssl, const void *ip, size_t length) {
    int done = ossl.X509_VERIFY_PARAM_set1_ip(ossl.SSL_get0_param(ssl), ip, length);
    return done == 1 ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}

int peer_ask_staple(void *ssl) {
    long done = ossl.SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_STATUS_REQ_TYPE, TLSEXT_STATUSTYPE_ocsp, NULL);
    if (done != 1) return errors_keep(SHIM_ERR_OPENSSL);
    return SHIM_OK;
}

long peer_staple(void *ssl, const unsigned char **out) {
    *out = NULL;
    long length = ossl.SSL_ctrl(ssl, SSL_CTRL_GET_TLSEXT_STATUS_REQ_OCSP_RESP, 0, out);
    return *out == NULL || length < 0 ? 0 : length;
}

const char *peer_verify_reason(void *ssl, int *number) {
    long result = ossl.SSL_get_verify_result(ssl);
    *number = (int)result;
    return ossl.X509_verify_cert_error_string(result);
}

int peer_renegotiates_securely(void *ssl) {
    return ossl.SSL_ctrl(ssl, SSL_CTRL_GET_RI_SUPPORT, 0, NULL) == 1;
}

int peer_has_ticket(void *ssl) {
    const SSL_SESSION *session = ossl.SSL_get_session(ssl);
    return session != NULL && ossl.SSL_SESSION_has_ticket(session) == 1;
}

/* Takes no reference: libssl keeps the session for the SSL alone. */
static int count(SSL *ssl, SSL_SESSION *session) {
    (void)session;
    struct sessions *s = context_data_get(ossl.SSL_get_SSL_CTX(ssl), CONTEXT_TICKETS);
    if (s != NULL) s->count++;
    return 0;
}

int peer_count_sessions(void *ssl_ctx) {
    struct sessions *s = calloc(1, sizeof *s);
    if (s == NULL) return SHIM_ERR_MEMORY;
    shim_status status = context_data_set(ssl_ctx, CONTEXT_TICKETS, s, free);
    if (status != SHIM_OK) {
        free(s);
        return status;
    }
    ossl.SSL_CTX_ctrl(ssl_ctx, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL, NULL);
    ossl.SSL_CTX_sess_set_new_cb(ssl_ctx, count);
    return SHIM_OK;
}

unsigned peer_sessions(void *ssl_ctx) {
    const struct sessions *s = context_data_get(ssl_ctx, CONTEXT_TICKETS);
    return s == NULL ? 0 : s->count;
}
