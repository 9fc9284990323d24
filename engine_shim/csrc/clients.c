/*
 * clients.c: what a server asks of its clients, and whom it trusts. Verification itself is OpenSSL's: its default
 * purpose for a server is sslclient, and it sends the alerts (ssl_x509err2alert).
 */
#include <limits.h>

#include "common.h"
#include "errors.h"
#include "ossl.h"

void clients_ask(void *ssl_ctx, int required, int depth, int partial) {
    ossl.SSL_CTX_set_verify(ssl_ctx, SSL_VERIFY_PEER | (required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    ossl.SSL_CTX_set_verify_depth(ssl_ctx, depth);
    if (partial) ossl.X509_STORE_set_flags(ossl.SSL_CTX_get_cert_store(ssl_ctx), X509_V_FLAG_PARTIAL_CHAIN);
}

/* The store and the list of names each take a reference. */
int clients_trust(void *ssl_ctx, const void *der, size_t length, int named) {
    const unsigned char *at = der;
    if (length > LONG_MAX) return SHIM_ERR_RANGE;
    X509 *authority = ossl.d2i_X509(NULL, &at, (long)length);
    bool trusted = authority != NULL &&
                   ossl.X509_STORE_add_cert(ossl.SSL_CTX_get_cert_store(ssl_ctx), authority) == 1 &&
                   (!named || ossl.SSL_CTX_add_client_CA(ssl_ctx, authority) == 1);
    ossl.X509_free(authority);
    return trusted ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}

int clients_revoke(void *ssl_ctx, const void *der, size_t length, unsigned long flags) {
    const unsigned char *at = der;
    if (length > LONG_MAX) return SHIM_ERR_RANGE;
    X509_STORE *store = ossl.SSL_CTX_get_cert_store(ssl_ctx);
    X509_CRL *crl = ossl.d2i_X509_CRL(NULL, &at, (long)length);
    bool added =
        crl != NULL && ossl.X509_STORE_add_crl(store, crl) == 1 && ossl.X509_STORE_set_flags(store, flags) == 1;
    ossl.X509_CRL_free(crl);
    return added ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}

int clients_flags(void *ssl_ctx, unsigned long flags) {
    int set = ossl.X509_STORE_set_flags(ossl.SSL_CTX_get_cert_store(ssl_ctx), flags);
    return set == 1 ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}
