/* key_load.c: reading private keys, and taking them over from an SSL_CTX. Secrets are wiped here. */
#include "errors.h"
#include "key.h"
#include "ossl.h"
#include "password.h"

static EVP_PKEY *read_pem(const void *bytes, size_t length, struct password *password) {
    BIO *bio = ossl.BIO_new_mem_buf(bytes, (int)length);
    if (bio == NULL) return NULL;
    EVP_PKEY *inner = ossl.PEM_read_bio_PrivateKey(bio, NULL, password_give, password);
    ossl.BIO_free(bio);
    return inner;
}

static EVP_PKEY *read_der(const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    return ossl.d2i_AutoPrivateKey(NULL, &at, (long)length);
}

/* A SEQUENCE (0x30) opens every DER key and no PEM file. */
static bool looks_like_der(const void *bytes, size_t length) {
    return length > 0 && *(const unsigned char *)bytes == 0x30;
}

enum { LONGEST_KEY_FILE = 1 << 20 };

shim_status key_read_plain(const void *bytes, size_t length, const void *password, size_t password_length,
                           EVP_PKEY **out) {
    struct password secret = {.bytes = password, .length = password_length};
    if (length > LONGEST_KEY_FILE) return errors_say(SHIM_ERR_KEY, "longer than a key can be");
    ossl.ERR_clear_error();
    *out = looks_like_der(bytes, length) ? read_der(bytes, length) : read_pem(bytes, length, &secret);
    if (*out == NULL) return errors_keep(secret.asked ? SHIM_ERR_PASSWORD : SHIM_ERR_KEY);
    ossl.ERR_clear_error();
    return SHIM_OK;
}

int key_load(struct engine *e, const void *bytes, size_t length, const void *password, size_t password_length,
             struct key **out) {
    EVP_PKEY *inner;
    shim_status status = key_read_plain(bytes, length, password, password_length, &inner);
    return (int)(status == SHIM_OK ? key_new(e, inner, out) : status);
}

int key_use_plain(void *ssl_ctx, const void *bytes, size_t length, const void *password, size_t password_length,
                  int *matches) {
    EVP_PKEY *plain;
    shim_status status = key_read_plain(bytes, length, password, password_length, &plain);
    if (status != SHIM_OK) return (int)status;
    X509 *certificate = ossl.SSL_CTX_get0_certificate(ssl_ctx);
    *matches = certificate == NULL || ossl.EVP_PKEY_eq(ossl.X509_get0_pubkey(certificate), plain) == 1;
    if (*matches && ossl.SSL_CTX_use_PrivateKey(ssl_ctx, plain) != 1) status = errors_keep(SHIM_ERR_OPENSSL);
    ossl.EVP_PKEY_free(plain);
    ossl.ERR_clear_error();
    return (int)status;
}

/* A new reference to a certificate's key, which goes. NULL: there is no certificate, or no key that OpenSSL knows. */
static EVP_PKEY *key_out_of(X509 *certificate) {
    EVP_PKEY *public = certificate != NULL ? ossl.X509_get0_pubkey(certificate) : NULL;
    if (public != NULL && ossl.EVP_PKEY_up_ref(public) != 1) public = NULL;
    if (certificate != NULL) ossl.X509_free(certificate);
    return public;
}

static EVP_PKEY *read_public_der(const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    EVP_PKEY *public = key_out_of(ossl.d2i_X509(NULL, &at, (long)length));
    at = bytes;
    return public != NULL ? public : ossl.d2i_PUBKEY(NULL, &at, (long)length);
}

static EVP_PKEY *read_public_pem(const void *bytes, size_t length) {
    BIO *bio = ossl.BIO_new_mem_buf(bytes, (int)length);
    EVP_PKEY *public = bio != NULL ? key_out_of(ossl.PEM_read_bio_X509(bio, NULL, NULL, NULL)) : NULL;
    ossl.BIO_free(bio);
    if (public != NULL || (bio = ossl.BIO_new_mem_buf(bytes, (int)length)) == NULL) return public;
    public = ossl.PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
    ossl.BIO_free(bio);
    return public;
}

int key_load_public(struct engine *e, const void *bytes, size_t length, struct key **out) {
    if (length > LONGEST_KEY_FILE) return (int)errors_say(SHIM_ERR_KEY, "longer than a certificate can be");
    ossl.ERR_clear_error();
    EVP_PKEY *public = looks_like_der(bytes, length) ? read_public_der(bytes, length) : read_public_pem(bytes, length);
    if (public == NULL) return (int)errors_keep(SHIM_ERR_KEY);
    ossl.ERR_clear_error();
    return (int)key_new(e, public, out);
}

/* Through DER, so that a key made by OpenSSL's legacy API gets a key management. */
static EVP_PKEY *copy_key(const EVP_PKEY *original) {
    unsigned char *der = NULL;
    int length = ossl.i2d_PrivateKey(original, &der);
    if (length <= 0) return NULL;
    const unsigned char *at = der;
    EVP_PKEY *copy = ossl.d2i_AutoPrivateKey(NULL, &at, length);
    ossl.CRYPTO_clear_free(der, (size_t)length, __FILE__, 0);
    return copy;
}

/* The current certificate slot of the SSL_CTX. */
static shim_status wrap_slot(struct engine *e, SSL_CTX *ssl_ctx, size_t *wrapped) {
    EVP_PKEY *original = ossl.SSL_CTX_get0_privatekey(ssl_ctx);
    if (original == NULL || key_is_wrapped(original)) return SHIM_OK;
    EVP_PKEY *inner = copy_key(original);
    if (inner == NULL) return SHIM_ERR_OPENSSL;
    struct key *k = NULL;
    shim_status status = key_new(e, inner, &k);
    if (status != SHIM_OK) return status;
    status = (shim_status)key_use(k, ssl_ctx);
    key_unref(k);
    if (status == SHIM_OK) ++*wrapped;
    return status;
}

int key_wrap_context(struct engine *e, void *ssl_ctx, size_t *wrapped) {
    *wrapped = 0;
    ossl.ERR_clear_error();
    X509 *current = ossl.SSL_CTX_get0_certificate(ssl_ctx);
    shim_status status = SHIM_OK;
    long more = ossl.SSL_CTX_ctrl(ssl_ctx, SSL_CTRL_SET_CURRENT_CERT, SSL_CERT_SET_FIRST, NULL);
    while (more == 1 && status == SHIM_OK) {
        status = wrap_slot(e, ssl_ctx, wrapped);
        more = ossl.SSL_CTX_ctrl(ssl_ctx, SSL_CTRL_SET_CURRENT_CERT, SSL_CERT_SET_NEXT, NULL);
    }
    if (status != SHIM_OK) errors_keep(status);
    if (current != NULL) ossl.SSL_CTX_ctrl(ssl_ctx, SSL_CTRL_SELECT_CURRENT_CERT, 0, current);
    ossl.ERR_clear_error();
    return (int)status;
}

void *context_certificate(void *ssl_ctx) {
    return ossl.SSL_CTX_get0_certificate(ssl_ctx);
}
