/*
 * client_hook.c: what is decided about a client's certificate once OpenSSL has verified it, and when a session that it
 * was shown for is to be resumed.
 *
 * Facts. OpenSSL's server cannot be made to wait for a verdict: SSL_set_retry_verify(3) is for clients. On a resumption
 * nothing is verified, not even whether the certificate has expired since. A ticket that is ignored is followed by a
 * full handshake; a verdict there becomes an alert by ssl_x509err2alert().
 *
 * Decision. The handshake runs in a job, which pauses until Python has answered. A session whose client is refused is
 * ignored, so that the full handshake asks once more and refuses with the alert. Sessions of another policy are ignored
 * without asking: OpenSSL would not resume them, and their certificates were never verified here.
 *
 * Trade-off. Whoever is refused on a resumption is asked about twice.
 */
#include "errors.h"
#include "ossl.h"
#include "pause.h"
#include "question.h"
#include "session_id.h"

enum { UNANSWERED = -1 };

/* On the job's stack: X509_V_OK, the X509_V_ERR_* that was chosen, or UNANSWERED, with the reason on the queue. */
static int ask(const struct stack_st_X509 *chain, const X509 *leaf, bool resumption) {
    struct question *q = question_new(chain, leaf, resumption);
    shim_status status = q != NULL ? pause_for_answer(q) : SHIM_ERR_MEMORY;
    int verdict = status == SHIM_OK ? question_verdict(q) : UNANSWERED;
    if (status != SHIM_OK) errors_raise(status, "");
    question_free(q);
    return verdict;
}

/* On the job's stack, in the place of OpenSSL's own verification. */
static int verify_and_ask(X509_STORE_CTX *store, void *unused) {
    (void)unused;
    if (ossl.X509_verify_cert(store) <= 0) return 0;
    int verdict = ask(ossl.X509_STORE_CTX_get0_chain(store), NULL, false);
    if (verdict == X509_V_OK) return 1;
    ossl.X509_STORE_CTX_set_error(store, verdict == UNANSWERED ? X509_V_ERR_UNSPECIFIED : verdict);
    return 0;
}

static bool has_expired(const X509 *certificate) {
    return ossl.X509_cmp_current_time(ossl.X509_get0_notAfter(certificate)) <= 0;
}

/* Nobody is asked about a session without a certificate: whether one is required, its policy says. */
static int look_at(SSL *ssl, SSL_SESSION *session, bool has_hook) {
    const X509 *leaf = ossl.SSL_SESSION_get0_peer(session);
    if (leaf == NULL) return X509_V_OK;
    if (has_expired(leaf)) return X509_V_ERR_CERT_HAS_EXPIRED;
    if (!has_hook) return X509_V_OK;
    return session_id_fits(ssl, session) ? ask(NULL, leaf, true) : X509_V_ERR_CERT_REJECTED;
}

/* On the job's stack, when a ticket was opened, or could not be. */
static SSL_TICKET_RETURN on_ticket(SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t length,
                                   SSL_TICKET_STATUS status, void *hook) {
    (void)name;
    (void)length;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) return SSL_TICKET_RETURN_IGNORE_RENEW;
    int verdict = look_at(ssl, session, hook != NULL);
    if (verdict == UNANSWERED) return SSL_TICKET_RETURN_ABORT;
    if (verdict != X509_V_OK) return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

void client_hook_sessions(void *ssl_ctx) {
    ossl.SSL_CTX_set_session_ticket_cb(ssl_ctx, NULL, on_ticket, NULL);
}

/* The argument says that there is a hook; it is not followed. */
void client_hook_set(void *ssl_ctx) {
    ossl.SSL_CTX_set_cert_verify_callback(ssl_ctx, verify_and_ask, NULL);
    ossl.SSL_CTX_set_session_ticket_cb(ssl_ctx, NULL, on_ticket, ssl_ctx);
}
