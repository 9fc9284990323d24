/* evp.h: signing and decrypting with any EVP_PKEY, inner or wrapped. 1: done; else OpenSSL's queue says why. */
#ifndef ENGINE_SHIM_EVP_H
#define ENGINE_SHIM_EVP_H

#include "op.h"
#include "ossl_types.h"

/* `length` is the room in `out` before and the bytes written after. */
int evp_sign(EVP_PKEY *pkey, const struct op_parameters *p, const void *data, size_t size, void *out, size_t *length);
int evp_decrypt(EVP_PKEY *pkey, const struct op_parameters *p, const void *data, size_t size, void *out,
                size_t *length);
/* The public half alone will do. */
int evp_verify(EVP_PKEY *pkey, const struct op_parameters *p, const void *data, size_t size, const void *signature,
               size_t length);

#endif
