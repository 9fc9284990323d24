/*
 * facts.c: what a handshake has come to, for those who ask for more than async_ssl_settled() tells.
 *
 * The connection's thread, after the handshake; nothing here changes it.
 */
#include "common.h"
#include "ossl.h"
#include "peer_chain.h"

size_t facts_finished(void *ssl, int peers, unsigned char *out, size_t room) {
    return peers ? ossl.SSL_get_peer_finished(ssl, out, room) : ossl.SSL_get_finished(ssl, out, room);
}

static const SSL_CIPHER *cipher_of(SSL *ssl, int list, int at) {
    if (list == FACTS_CIPHER_IN_USE) return at == 0 ? ossl.SSL_get_current_cipher(ssl) : NULL;
    const OPENSSL_STACK *all = (const OPENSSL_STACK *)(list == FACTS_CIPHERS_PEERS ? ossl.SSL_get_client_ciphers(ssl)
                                                                                   : ossl.SSL_get_ciphers(ssl));
    return all != NULL && at < ossl.OPENSSL_sk_num(all) ? ossl.OPENSSL_sk_value(all, at) : NULL;
}

/* The texts are OpenSSL's own, for good. */
int facts_cipher(void *ssl, int list, int at, const char **name, const char **version, int *bits) {
    const SSL_CIPHER *cipher = cipher_of(ssl, list, at);
    if (cipher == NULL) return 0;
    *name = ossl.SSL_CIPHER_get_name(cipher);
    *version = ossl.SSL_CIPHER_get_version(cipher);
    *bits = ossl.SSL_CIPHER_get_bits(cipher, NULL);
    return 1;
}

/* A server is not told the client's own certificate as part of it (SSL_get_peer_cert_chain(3)). */
size_t facts_sent_chain(void *ssl, unsigned char *out, size_t room) {
    return peer_chain_write(ossl.SSL_get_peer_cert_chain(ssl), NULL, out, room);
}

size_t facts_own_certificate(void *ssl, unsigned char *out, size_t room) {
    return peer_chain_write(NULL, ossl.SSL_get_certificate(ssl), out, room);
}

int facts_pending(void *ssl) {
    return ossl.SSL_pending(ssl);
}

int facts_security_level(void *ssl_ctx) {
    return ossl.SSL_CTX_get_security_level(ssl_ctx);
}

/* SSL_CTX_sess_number(3) and its neighbours are macros of this. */
long facts_session_count(void *ssl_ctx, int number) {
    return ossl.SSL_CTX_ctrl(ssl_ctx, number, 0, NULL);
}
