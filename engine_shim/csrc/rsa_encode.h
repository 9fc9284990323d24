/* rsa_encode.h: what an RSA signature is the signature of: EMSA-PKCS1-v1_5 and EMSA-PSS (RFC 8017, 9.2 and 9.1). */
#ifndef ENGINE_SHIM_RSA_ENCODE_H
#define ENGINE_SHIM_RSA_ENCODE_H

#include "digests.h"
#include "op.h"

struct rsa_encoding {
    const struct digest *digest, *mask; /* `mask` is MGF1's */
    bool is_pss, prehashed;
    size_t salt_length;
    size_t size; /* of the modulus, in bytes; its highest bit is set */
};

/* False: the parameters ask for something else, or it does not fit into the modulus: OpenSSL knows what to say. */
bool rsa_encoding_of(struct rsa_encoding *out, const struct op_parameters *p, size_t size) MUST_CHECK;
/* Any thread. Writes `size` bytes; `context` is scratch. False: OpenSSL has no random bytes, or no digest, or the message should be a digest and is none. */
bool rsa_encode(const struct rsa_encoding *e, EVP_MD_CTX *context, const void *message, size_t length,
                uint8_t *out) MUST_CHECK;

#endif
