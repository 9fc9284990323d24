/*
 * staple.c: an OCSP response that goes with the certificate (RFC 6066, section 8).
 *
 * Facts. OpenSSL asks for the response in each handshake whose client wants one, on the job's stack, when it is settled
 * which certificate is sent; it frees what it is given. One SSL_CTX may send several certificates: of several kinds of
 * key, or by name.
 *
 * Decision. The response is looked at when it is loaded (Python); here it is sent with the one certificate that it was
 * loaded for, and as long as it is valid. No client is refused for want of a response.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "context_data.h"
#include "errors.h"
#include "ossl.h"

/* Owned by the SSL_CTX (context_data.h); immutable. */
struct staple {
    X509 *certificate; /* a reference */
    int64_t until;     /* seconds since 1970 */
    size_t length;
    unsigned char response[];
};

/* Any thread. */
static void free_staple(void *part) {
    struct staple *s = part;
    ossl.X509_free(s->certificate);
    free(s);
}

/* The certificates of an SSL are those of its SSL_CTX, unless it was given others. */
static bool is_for(const struct staple *s, const X509 *sent) {
    return sent == s->certificate || (sent != NULL && ossl.X509_cmp(sent, s->certificate) == 0);
}

/* On the job's stack. The argument is the SSL_CTX's, which the SSL holds. */
static int send_response(SSL *ssl, void *argument) {
    const struct staple *s = argument;
    if ((int64_t)time(NULL) >= s->until || !is_for(s, ossl.SSL_get_certificate(ssl))) return SSL_TLSEXT_ERR_NOACK;
    void *copy = ossl.CRYPTO_memdup(s->response, s->length, __FILE__, __LINE__);
    if (copy == NULL) return SSL_TLSEXT_ERR_NOACK;
    ossl.SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP, (long)s->length, copy); /* takes it */
    return SSL_TLSEXT_ERR_OK;
}

static struct staple *make(X509 *certificate, const void *response, size_t length, int64_t until) {
    struct staple *s = malloc(sizeof *s + length);
    if (s == NULL || ossl.X509_up_ref(certificate) != 1) {
        free(s);
        return NULL;
    }
    s->certificate = certificate;
    s->until = until;
    s->length = length;
    memcpy(s->response, response, length);
    return s;
}

int staple_set(void *ssl_ctx, const void *response, size_t length, int64_t until) {
    ossl.ERR_clear_error();
    X509 *certificate = ossl.SSL_CTX_get0_certificate(ssl_ctx);
    if (certificate == NULL) return errors_keep(SHIM_ERR_OPENSSL);
    if (length > INT_MAX) return SHIM_ERR_RANGE;
    struct staple *s = make(certificate, response, length, until);
    if (s == NULL) return SHIM_ERR_MEMORY;
    shim_status status = context_data_set(ssl_ctx, CONTEXT_STAPLE, s, free_staple);
    if (status != SHIM_OK) {
        free_staple(s);
        return status;
    }
    ossl.SSL_CTX_ctrl(ssl_ctx, SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB_ARG, 0, s);
    /* Its type is libssl's to know: a callback of (SSL *, void *). */
    ossl.SSL_CTX_callback_ctrl(ssl_ctx, SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB, (void (*)(void))send_response);
    return SHIM_OK;
}
