#include "evp.h"

#include "ossl.h"
#include "parameters.h"

static int sign_in(EVP_MD_CTX *context, EVP_PKEY *pkey, const struct op_parameters *p, const void *data, size_t size,
                   void *out, size_t *length) {
    OSSL_PARAM parameters[PARAMETERS_MOST];
    EVP_PKEY_CTX *signing;
    const char *digest = p->digest[0] != '\0' ? p->digest : NULL;
    if (ossl.EVP_DigestSignInit_ex(context, &signing, digest, NULL, NULL, pkey, NULL) != 1) return 0;
    parameters_for_signing(p, parameters);
    if (parameters[0].key != NULL && ossl.EVP_PKEY_CTX_set_params(signing, parameters) != 1) return 0;
    return ossl.EVP_DigestSign(context, out, length, data, size);
}

static int sign_digest_in(EVP_PKEY_CTX *context, const struct op_parameters *p, const void *digest, size_t size,
                          void *out, size_t *length) {
    OSSL_PARAM parameters[PARAMETERS_MOST];
    if (ossl.EVP_PKEY_sign_init(context) != 1) return 0;
    parameters_for_signing(p, parameters);
    if (parameters[0].key != NULL && ossl.EVP_PKEY_CTX_set_params(context, parameters) != 1) return 0;
    return ossl.EVP_PKEY_sign(context, out, length, digest, size);
}

static int sign_digest(EVP_PKEY *pkey, const struct op_parameters *p, const void *digest, size_t size, void *out,
                       size_t *length) {
    EVP_PKEY_CTX *context = ossl.EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
    int done = context != NULL ? sign_digest_in(context, p, digest, size, out, length) : 0;
    ossl.EVP_PKEY_CTX_free(context);
    return done;
}

int evp_sign(EVP_PKEY *pkey, const struct op_parameters *p, const void *data, size_t size, void *out, size_t *length) {
    if (p->prehashed) return sign_digest(pkey, p, data, size, out, length);
    EVP_MD_CTX *context = ossl.EVP_MD_CTX_new();
    int done = context != NULL ? sign_in(context, pkey, p, data, size, out, length) : 0;
    ossl.EVP_MD_CTX_free(context);
    return done;
}

static int verify_in(EVP_MD_CTX *context, EVP_PKEY *pkey, const struct op_parameters *p, const void *data, size_t size,
                     const void *signature, size_t length) {
    OSSL_PARAM parameters[PARAMETERS_MOST];
    EVP_PKEY_CTX *verifying;
    const char *digest = p->digest[0] != '\0' ? p->digest : NULL;
    if (ossl.EVP_DigestVerifyInit_ex(context, &verifying, digest, NULL, NULL, pkey, NULL) != 1) return 0;
    parameters_for_signing(p, parameters);
    if (parameters[0].key != NULL && ossl.EVP_PKEY_CTX_set_params(verifying, parameters) != 1) return 0;
    return ossl.EVP_DigestVerify(context, signature, length, data, size);
}

int evp_verify(EVP_PKEY *pkey, const struct op_parameters *p, const void *data, size_t size, const void *signature,
               size_t length) {
    EVP_MD_CTX *context = ossl.EVP_MD_CTX_new();
    int right = context != NULL ? verify_in(context, pkey, p, data, size, signature, length) : 0;
    ossl.EVP_MD_CTX_free(context);
    return right;
}

static int decrypt_in(EVP_PKEY_CTX *context, const struct op_parameters *p, const void *data, size_t size, void *out,
                      size_t *length) {
    OSSL_PARAM parameters[PARAMETERS_MOST];
    if (ossl.EVP_PKEY_decrypt_init(context) != 1) return 0;
    parameters_for_decryption(p, parameters);
    if (ossl.EVP_PKEY_CTX_set_params(context, parameters) != 1) return 0;
    return ossl.EVP_PKEY_decrypt(context, out, length, data, size);
}

int evp_decrypt(EVP_PKEY *pkey, const struct op_parameters *p, const void *data, size_t size, void *out,
                size_t *length) {
    EVP_PKEY_CTX *context = ossl.EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
    int done = context != NULL ? decrypt_in(context, p, data, size, out, length) : 0;
    ossl.EVP_PKEY_CTX_free(context);
    return done;
}
