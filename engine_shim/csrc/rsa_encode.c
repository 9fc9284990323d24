#include "rsa_encode.h"

#include <string.h>

#include "ossl.h"

enum { PKCS1_FRAME = 11, PSS_FRAME = 2, PSS_ZEROS = 8, PSS_TRAILER = 0xbc };

/* RSA_PSS_SALTLEN_AUTO means for a signature what MAX does. False: a length that no encoding has, or that OpenSSL chooses. */
static bool salt_length_of(struct rsa_encoding *e, int given) {
    if (e->size < e->digest->size + PSS_FRAME) return false;
    size_t most = e->size - e->digest->size - PSS_FRAME;
    if (given == RSA_PSS_SALTLEN_DIGEST)
        e->salt_length = e->digest->size;
    else if (given == RSA_PSS_SALTLEN_MAX || given == RSA_PSS_SALTLEN_AUTO)
        e->salt_length = most;
    else if (given >= 0)
        e->salt_length = (size_t)given;
    else
        return false;
    return e->salt_length <= most;
}

static bool pss_of(struct rsa_encoding *e, const struct op_parameters *p) {
    e->is_pss = true;
    e->mask = p->mgf1_digest[0] != '\0' ? digest_named(p->mgf1_digest) : e->digest;
    return e->mask != NULL && salt_length_of(e, p->salt_length);
}

bool rsa_encoding_of(struct rsa_encoding *out, const struct op_parameters *p, size_t size) {
    *out = (struct rsa_encoding){.size = size, .digest = digest_named(p->digest), .prehashed = p->prehashed};
    if (out->digest == NULL) return false;
    if (p->padding == RSA_PKCS1_PSS_PADDING) return pss_of(out, p);
    if (p->padding != RSA_PKCS1_PADDING && p->padding != OP_UNSET) return false; /* unset: PKCS#1 is the default */
    bool plain = p->salt_length == OP_UNSET && p->mgf1_digest[0] == '\0';
    return plain && size >= PKCS1_FRAME + out->digest->prefix_length + out->digest->size;
}

/* 00 01 ff ... ff 00, DigestInfo. */
static void encode_pkcs1(const struct rsa_encoding *e, const uint8_t *hash, uint8_t *out) {
    const struct digest *d = e->digest;
    size_t tail = d->prefix_length + d->size;
    memset(out, 0xff, e->size);
    out[0] = 0;
    out[1] = 1;
    out[e->size - tail - 1] = 0;
    memcpy(out + e->size - tail, d->prefix, d->prefix_length);
    memcpy(out + e->size - d->size, hash, d->size);
}

/* MGF1 (RFC 8017, B.2.1), added onto `data`. */
static bool mask(const struct digest *d, EVP_MD_CTX *context, const uint8_t *seed, size_t seed_length, uint8_t *data,
                 size_t length) {
    uint8_t block[DIGEST_MOST_BYTES];
    for (size_t done = 0, counter = 0; done < length; counter++) {
        const uint8_t number[4] = {0, 0, (uint8_t)(counter >> 8), (uint8_t)counter};
        const struct piece pieces[] = {{seed, seed_length}, {number, sizeof number}};
        if (!digest_compute(d, context, pieces, 2, block)) return false;
        for (size_t i = 0; i < d->size && done < length; i++) data[done++] ^= block[i];
    }
    return true;
}

/*
 * The modulus' highest bit is set, so emBits is 8 * size - 1: as many bytes, the highest bit clear.
 * maskedDB || H || bc, where DB is 00 ... 00 01 || salt and H the digest of eight zeros, the message's digest and the salt.
 */
static bool encode_pss(const struct rsa_encoding *e, EVP_MD_CTX *context, const uint8_t *hash, uint8_t *out) {
    static const uint8_t zeros[PSS_ZEROS];
    size_t masked = e->size - e->digest->size - 1;
    uint8_t *salt = out + masked - e->salt_length, *h = out + masked;
    memset(out, 0, masked);
    salt[-1] = 1;
    if (e->salt_length > 0 && ossl.RAND_bytes(salt, (int)e->salt_length) != 1) return false;
    const struct piece pieces[] = {{zeros, sizeof zeros}, {hash, e->digest->size}, {salt, e->salt_length}};
    if (!digest_compute(e->digest, context, pieces, 3, h)) return false;
    if (!mask(e->mask, context, h, e->digest->size, out, masked)) return false;
    out[0] &= 0x7f;
    out[e->size - 1] = PSS_TRAILER;
    return true;
}

bool rsa_encode(const struct rsa_encoding *e, EVP_MD_CTX *context, const void *message, size_t length, uint8_t *out) {
    uint8_t hash[DIGEST_MOST_BYTES];
    if (!digest_of(e->digest, context, e->prehashed, message, length, hash)) return false;
    if (e->is_pss) return encode_pss(e, context, hash, out);
    encode_pkcs1(e, hash, out);
    return true;
}
