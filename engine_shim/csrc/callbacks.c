/*
 * callbacks.c: what pyOpenSSL would do by calling Python, done in C, because it runs on a job's stack.
 *
 * ALPN (RFC 7301): the first protocol of the server's list that the client offers; none in
 * common ends the handshake with no_application_protocol, as section 3.2 asks.
 */
#include <stdlib.h>
#include <string.h>

#include "context_data.h"
#include "ossl.h"

/* Owned by the SSL_CTX (context_data.h); immutable. Wire form: a byte of length, the name, and so on. */
struct protocols {
    size_t length;
    unsigned char list[];
};

/* libssl has checked the form of the peer's list; the bounds are ours all the same. */
static bool offers(const unsigned char *offered, unsigned length, const unsigned char *name) {
    for (unsigned at = 0; at < length && at + offered[at] < length; at += 1u + offered[at])
        if (offered[at] == name[0] && memcmp(offered + at + 1, name + 1, name[0]) == 0) return true;
    return false;
}

/* On the job's stack. The answer points into our list, which the SSL_CTX outlives the handshake with. */
static int select_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
                           unsigned length, void *argument) {
    const struct protocols *ours = argument;
    (void)ssl;
    for (size_t at = 0; at < ours->length; at += 1u + ours->list[at]) {
        const unsigned char *name = ours->list + at;
        if (!offers(in, length, name)) continue;
        *out = name + 1;
        *out_length = name[0];
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

int callbacks_set_alpn(void *ssl_ctx, const void *list, size_t length) {
    struct protocols *p = malloc(sizeof *p + length);
    if (p == NULL) return SHIM_ERR_MEMORY;
    p->length = length;
    memcpy(p->list, list, length);
    shim_status status = context_data_set(ssl_ctx, CONTEXT_ALPN, p, free);
    if (status != SHIM_OK) {
        free(p);
        return status;
    }
    ossl.SSL_CTX_set_alpn_select_cb(ssl_ctx, select_protocol, p);
    return SHIM_OK;
}
