/* digests.h: the digests that TLS signs with, through OpenSSL. Each is fetched once a process and kept. */
#ifndef ENGINE_SHIM_DIGESTS_H
#define ENGINE_SHIM_DIGESTS_H

#include "common.h"
#include "ossl_types.h"

enum { DIGEST_MOST_BYTES = 64, DIGEST_PREFIX_BYTES = 19 };

struct digest {
    const char *names[3]; /* OpenSSL's, the first one is fetched; letters of any case */
    size_t size;
    size_t prefix_length;
    uint8_t prefix[DIGEST_PREFIX_BYTES]; /* what stands before it in a PKCS#1 v1.5 signature (RFC 8017, 9.2) */
};

struct piece {
    const void *bytes;
    size_t length;
};

/* NULL: not one of them. */
const struct digest *digest_named(const char *name);
/* Any thread. The digest of the pieces, one after the other; `context` is scratch. False: OpenSSL refused. */
bool digest_compute(const struct digest *d, EVP_MD_CTX *context, const struct piece *pieces, size_t count,
                    uint8_t *out) MUST_CHECK;
/* Any thread. The digest of a message, or the digest that `data` is already (`prehashed`). False: or of another size. */
bool digest_of(const struct digest *d, EVP_MD_CTX *context, bool prehashed, const void *data, size_t length,
               uint8_t *out) MUST_CHECK;

#endif
