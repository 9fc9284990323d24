/*
 * batch_rsa.c: up to eight RSA signatures in lanes.
 *
 * encode -> private operation (CRT) -> public operation on the result, compared with what was encoded -> the op's output.
 *
 * The comparison is not for the client's sake. A fault in one of the two halves of CRT gives a signature from which
 * anybody computes the key, with one gcd (Boneh, DeMillo, Lipton 1997); so nothing leaves that has not been verified, and
 * what is wrong is wiped with the rest. In lanes that costs some 3 % of the private operation.
 */
#include <stdlib.h>
#include <string.h>

#include "batch_key.h"
#include "batch_lanes.h"
#include "key.h"
#include "ossl.h"
#include "rsa_encode.h"

enum { ALIGNMENT = 64 };

/* One batch's memory; owned by rsa_batch_free(), which wipes it: private operations leave secrets in scratch. */
struct rsa_batch {
    const struct mb_rsa_key *keys[MB_LANES]; /* borrowed; NULL: the lane is not used */
    uint8_t *encoded[MB_LANES], *signature[MB_LANES], *verified[MB_LANES];
    uint8_t *scratch;
    size_t size;  /* of a modulus in bytes */
    size_t total; /* of this struct with all that follows */
};

static struct rsa_batch *rsa_batch_new(int bits) {
    size_t size = (size_t)bits / 8, head = (sizeof(struct rsa_batch) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    size_t total = head + 3 * MB_LANES * size + mb_rsa_scratch(bits);
    total = (total + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct rsa_batch *r = aligned_alloc(ALIGNMENT, total);
    if (r == NULL) return NULL;
    *r = (struct rsa_batch){.size = size, .total = total};
    uint8_t *next = (uint8_t *)r + head;
    for (int i = 0; i < MB_LANES; i++, next += 3 * size) {
        r->encoded[i] = next;
        r->signature[i] = next + size;
        r->verified[i] = next + 2 * size;
    }
    r->scratch = next;
    return r;
}

static void rsa_batch_free(struct rsa_batch *r) {
    wiped_free(r, r->total);
}

/* A lane whose op cannot be encoded stays unused. */
static void encode(struct rsa_batch *r, const struct batch *b) {
    EVP_MD_CTX *context = ossl.EVP_MD_CTX_new();
    for (size_t i = 0; context != NULL && i < b->count; i++) {
        const struct op *op = b->ops[i];
        struct rsa_encoding e;
        if (!rsa_encoding_of(&e, &op->parameters, r->size)) continue;
        if (rsa_encode(&e, context, op->input, op->input_length, r->encoded[i])) r->keys[i] = &op->key->batch->rsa;
    }
    ossl.EVP_MD_CTX_free(context);
}

/* The library wants NULL for the buffers of an unused lane as well. */
static unsigned private_operation(struct rsa_batch *r, int bits) {
    const uint8_t *in[MB_LANES];
    uint8_t *out[MB_LANES];
    for (int i = 0; i < MB_LANES; i++) {
        in[i] = r->keys[i] != NULL ? r->encoded[i] : NULL;
        out[i] = r->keys[i] != NULL ? r->signature[i] : NULL;
    }
    return mb_rsa_private(bits, r->keys, in, out, r->scratch);
}

static unsigned public_operation(struct rsa_batch *r, int bits) {
    const uint8_t *in[MB_LANES];
    uint8_t *out[MB_LANES];
    for (int i = 0; i < MB_LANES; i++) {
        in[i] = r->keys[i] != NULL ? r->signature[i] : NULL;
        out[i] = r->keys[i] != NULL ? r->verified[i] : NULL;
    }
    return mb_rsa_public(bits, r->keys, in, out, r->scratch);
}

static void spoil(struct rsa_batch *r, unsigned lanes) {
    for (unsigned i = 0; i < MB_LANES; i++)
        if (lanes >> i & 1) r->signature[i][r->size / 2] ^= 0x10;
}

static bool is_right(const struct rsa_batch *r, size_t lane) {
    return memcmp(r->verified[lane], r->encoded[lane], r->size) == 0;
}

static void deliver(const struct rsa_batch *r, size_t lane, struct op *op) {
    memcpy(op->output, r->signature[lane], r->size);
    op->output_length = r->size;
}

static unsigned run(struct rsa_batch *r, const struct batch *b, unsigned *wrong) {
    int bits = (int)r->size * 8;
    unsigned right = 0;
    encode(r, b);
    unsigned computed = private_operation(r, bits);
    spoil(r, b->faults);
    computed &= public_operation(r, bits);
    for (size_t i = 0; i < b->count; i++) {
        if (r->keys[i] == NULL) continue;
        bool good = (computed >> i & 1) != 0 && is_right(r, i);
        *(good ? &right : wrong) |= 1u << i;
        if (good) deliver(r, i, b->ops[i]);
    }
    return right;
}

bool batch_rsa_fits(const struct batch_key *k) {
    struct rsa_batch *r = rsa_batch_new(k->rsa.bits);
    if (r == NULL) return false;
    memset(r->encoded[0], 0x5a, r->size); /* less than a modulus, whose highest bit is set */
    r->keys[0] = &k->rsa;
    unsigned computed = private_operation(r, k->rsa.bits);
    bool fits = (computed & public_operation(r, k->rsa.bits) & 1) != 0 && is_right(r, 0);
    rsa_batch_free(r);
    return fits;
}

unsigned batch_rsa(const struct batch *b, unsigned *wrong) {
    struct rsa_batch *r = rsa_batch_new(b->ops[0]->key->batch->rsa.bits);
    if (r == NULL) return 0;
    unsigned right = run(r, b, wrong);
    rsa_batch_free(r);
    return right;
}
