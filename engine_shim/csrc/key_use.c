/* key_use.c: a wrapped key used outside TLS, through OpenSSL's public interface, as anybody else would. */
#include <string.h>

#include "errors.h"
#include "evp.h"
#include "key.h"
#include "ossl.h"

/* The first error on the queue says whether the shim refused. */
static shim_status outcome(int done) {
    if (done == 1) return SHIM_OK;
    int ours = errors_ours(ossl.ERR_peek_error());
    return errors_keep(ours != 0 ? (shim_status)ours : SHIM_ERR_OPENSSL);
}

int key_sign(struct key *k, const char *digest, int padding, int salt_length, const void *data, size_t length,
             void *out, size_t *out_length) {
    struct op_parameters p = {.padding = padding, .salt_length = salt_length};
    if (digest != NULL) strncpy(p.digest, digest, sizeof p.digest - 1);
    ossl.ERR_clear_error();
    EVP_PKEY *wrapped = key_wrap(k);
    int done = wrapped != NULL ? evp_sign(wrapped, &p, data, length, out, out_length) : 0;
    ossl.EVP_PKEY_free(wrapped);
    return outcome(done);
}

int key_decrypt(struct key *k, int tls_version, const void *data, size_t length, void *out, size_t *out_length) {
    struct op_parameters p = {.padding = RSA_PKCS1_WITH_TLS_PADDING, .tls_client_version = (unsigned)tls_version};
    ossl.ERR_clear_error();
    EVP_PKEY *wrapped = key_wrap(k);
    int done = wrapped != NULL ? evp_decrypt(wrapped, &p, data, length, out, out_length) : 0;
    ossl.EVP_PKEY_free(wrapped);
    return outcome(done);
}
