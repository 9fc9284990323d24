#include "digests.h"

#include <string.h>
#include <strings.h>

#include "ossl.h"

enum { DIGESTS = 5, SHA1 = 15, SHA2 = 19 };

/* DigestInfo in DER: SEQUENCE, AlgorithmIdentifier (the digest's OID, NULL), OCTET STRING of the digest's size. */
#define SHA2_PREFIX(total, oid, size)                                                                                  \
    {0x30, total, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, oid, 0x05, 0x00, 0x04, size}

static const struct digest digests[DIGESTS] = {
    {{"SHA256", "SHA2-256", "SHA-256"}, 32, SHA2, SHA2_PREFIX(0x31, 0x01, 0x20)},
    {{"SHA384", "SHA2-384", "SHA-384"}, 48, SHA2, SHA2_PREFIX(0x41, 0x02, 0x30)},
    {{"SHA512", "SHA2-512", "SHA-512"}, 64, SHA2, SHA2_PREFIX(0x51, 0x03, 0x40)},
    {{"SHA224", "SHA2-224", "SHA-224"}, 28, SHA2, SHA2_PREFIX(0x2d, 0x04, 0x1c)},
    {{"SHA1", "SHA-1", "SHA1"},
     20,
     SHA1,
     {0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14}},
};

/* The rows as OpenSSL has them; owned by the process, for good. */
static _Atomic(EVP_MD *) fetched[DIGESTS];

const struct digest *digest_named(const char *name) {
    for (size_t i = 0; i < DIGESTS; i++)
        for (size_t j = 0; j < 3; j++)
            if (strcasecmp(digests[i].names[j], name) == 0) return &digests[i];
    return NULL;
}

/* Two threads may fetch at once; one of them keeps what it got. */
static const EVP_MD *fetch(const struct digest *d) {
    _Atomic(EVP_MD *) *kept = &fetched[d - digests];
    EVP_MD *md = atomic_load_explicit(kept, memory_order_acquire);
    if (md != NULL) return md;
    EVP_MD *mine = ossl.EVP_MD_fetch(NULL, d->names[0], NULL);
    if (mine == NULL || atomic_compare_exchange_strong(kept, &md, mine)) return mine;
    ossl.EVP_MD_free(mine);
    return md;
}

bool digest_compute(const struct digest *d, EVP_MD_CTX *context, const struct piece *pieces, size_t count,
                    uint8_t *out) {
    const EVP_MD *md = fetch(d);
    if (md == NULL || ossl.EVP_DigestInit_ex2(context, md, NULL) != 1) return false;
    for (size_t i = 0; i < count; i++)
        if (ossl.EVP_DigestUpdate(context, pieces[i].bytes, pieces[i].length) != 1) return false;
    unsigned length = 0;
    return ossl.EVP_DigestFinal_ex(context, out, &length) == 1 && length == d->size;
}

bool digest_of(const struct digest *d, EVP_MD_CTX *context, bool prehashed, const void *data, size_t length,
               uint8_t *out) {
    const struct piece whole = {data, length};
    if (!prehashed) return digest_compute(d, context, &whole, 1, out);
    if (length == d->size) memcpy(out, data, length);
    return length == d->size;
}
