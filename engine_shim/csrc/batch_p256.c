/*
 * batch_p256.c: up to eight ECDSA signatures with P-256 in lanes (FIPS 186-5, 6.4).
 *
 * Nonces. Each is the SHA-256 of 32 bytes from OpenSSL's private generator, the private key and the message's digest, taken
 * again with new bytes while it is 0 or not below the order. The generator alone would do; the hash is for the day when it
 * repeats itself (a virtual machine that was copied while it ran): two messages then still get two nonces. A nonce signs
 * once and is wiped with the batch; nothing keeps it.
 *
 * The result is not verified, as OpenSSL's is not: no gcd reads the key from one bad signature as it does for RSA-CRT, and
 * to verify costs three and a half times what signing does in lanes, so that nothing would be gained.
 */
#include <stdlib.h>
#include <string.h>

#include "batch_key.h"
#include "batch_lanes.h"
#include "digests.h"
#include "key.h"
#include "ossl.h"

enum { BYTES = MB_P256_BYTES, RANDOM = 32, DER_MOST = 2 + 2 * (2 + BYTES + 1), SEQUENCE = 0x30, INTEGER = 0x02 };

/* The order of the group, the least word first. */
static const uint64_t order[P256_WORDS] = {0xf3b9cac2fc632551, 0xbce6faada7179e84, 0xffffffffffffffff,
                                           0xffffffff00000000};

/* One batch; wiped. */
struct p256_batch {
    const uint64_t *keys[MB_LANES], *nonces[MB_LANES]; /* NULL: the lane is not used */
    const uint8_t *digests[MB_LANES];
    uint8_t *r[MB_LANES], *s[MB_LANES];
    uint8_t bytes[MB_LANES][3][BYTES];
    uint64_t secrets[MB_LANES][P256_WORDS];
};

static bool is_below_order(const uint64_t *x) {
    for (int i = P256_WORDS - 1; i > 0; i--)
        if (x[i] != order[i]) return x[i] < order[i];
    return x[0] < order[0];
}

static bool is_zero(const uint64_t *x) {
    return (x[0] | x[1] | x[2] | x[3]) == 0;
}

static bool make_nonce(EVP_MD_CTX *context, const uint64_t *key, const uint8_t *digest, uint64_t *nonce) {
    const struct digest *sha256 = digest_named("SHA256");
    uint8_t random[RANDOM], hash[DIGEST_MOST_BYTES];
    const struct piece pieces[] = {{random, RANDOM}, {key, BYTES}, {digest, BYTES}};
    bool made = true;
    do {
        made = ossl.RAND_priv_bytes(random, RANDOM) == 1 && digest_compute(sha256, context, pieces, 3, hash);
        memcpy(nonce, hash, BYTES);
    } while (made && (is_zero(nonce) || !is_below_order(nonce)));
    explicit_bzero(random, sizeof random);
    explicit_bzero(hash, sizeof hash);
    return made;
}

/* The leftmost 256 bits of a longer digest, a shorter one with zeros before it. */
static bool fitted_digest(const struct op *op, EVP_MD_CTX *context, uint8_t *out) {
    const struct digest *d = digest_named(op->parameters.digest);
    uint8_t hash[DIGEST_MOST_BYTES];
    if (d == NULL || !digest_of(d, context, op->parameters.prehashed, op->input, op->input_length, hash)) return false;
    size_t used = d->size < BYTES ? d->size : BYTES;
    memset(out, 0, BYTES - used);
    memcpy(out + BYTES - used, hash, used);
    return true;
}

static void prepare(struct p256_batch *p, EVP_MD_CTX *context, const struct op *op, size_t i) {
    const uint64_t *key = op->key->batch->p256;
    if (!fitted_digest(op, context, p->bytes[i][0]) || !make_nonce(context, key, p->bytes[i][0], p->secrets[i])) return;
    p->keys[i] = key;
    p->nonces[i] = p->secrets[i];
    p->digests[i] = p->bytes[i][0];
    p->r[i] = p->bytes[i][1];
    p->s[i] = p->bytes[i][2];
}

/* Unsigned, the most significant byte first, as DER's INTEGER: no zeros before it but one where the sign would be. */
static size_t put_integer(uint8_t *out, const uint8_t *number) {
    size_t skip = 0;
    while (skip < BYTES - 1 && number[skip] == 0) skip++;
    size_t sign = number[skip] >> 7, length = BYTES - skip;
    out[0] = INTEGER;
    out[1] = (uint8_t)(sign + length);
    out[2] = 0;
    memcpy(out + 2 + sign, number + skip, length);
    return 2 + sign + length;
}

/* False: no room, which no key of this curve has. */
static bool deliver(const struct p256_batch *p, size_t lane, struct op *op) {
    if (op->output_room < DER_MOST) return false;
    size_t length = put_integer(op->output + 2, p->r[lane]);
    length += put_integer(op->output + 2 + length, p->s[lane]);
    op->output[0] = SEQUENCE;
    op->output[1] = (uint8_t)length;
    op->output_length = 2 + length;
    return true;
}

static unsigned run(struct p256_batch *p, EVP_MD_CTX *context, const struct batch *b) {
    unsigned right = 0;
    for (size_t i = 0; i < b->count; i++) prepare(p, context, b->ops[i], i);
    unsigned computed = mb_p256_sign(p->r, p->s, p->digests, p->nonces, p->keys);
    for (size_t i = 0; i < b->count; i++)
        if (p->keys[i] != NULL && (computed >> i & 1) && deliver(p, i, b->ops[i])) right |= 1u << i;
    return right;
}

unsigned batch_p256(const struct batch *b, unsigned *wrong) {
    struct p256_batch p = {.keys = {NULL}};
    EVP_MD_CTX *context = ossl.EVP_MD_CTX_new();
    unsigned right = context != NULL ? run(&p, context, b) : 0;
    ossl.EVP_MD_CTX_free(context);
    explicit_bzero(&p, sizeof p);
    (void)wrong;
    return right;
}
