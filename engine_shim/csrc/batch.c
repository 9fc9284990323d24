#include "batch.h"

#include "batch_key.h"
#include "batch_lanes.h"
#include "key.h"
#include "ossl.h"
#include "rsa_encode.h"

/* The lanes that are to be spoiled in the next batch; any thread. */
static atomic_uint faults;

void batch_inject_fault(unsigned lanes) {
    atomic_store(&faults, lanes);
}

int batch_is_usable(void) {
    return mb_is_usable();
}

const char *batch_description(void) {
    return mb_description();
}

/* What OpenSSL would refuse is refused by OpenSSL. */
static bool plain_ecdsa(const struct op_parameters *p) {
    return digest_named(p->digest) != NULL && p->padding == OP_UNSET && p->salt_length == OP_UNSET &&
           p->mgf1_digest[0] == '\0';
}

enum batch_class batch_class_of(const struct op *op) {
    struct rsa_encoding encoding;
    const struct batch_key *k = op->key->batch;
    if (k == NULL || op->kind != OP_SIGN) return BATCH_NONE;
    bool fits = k->class == BATCH_P256 ? plain_ecdsa(&op->parameters)
                                       : rsa_encoding_of(&encoding, &op->parameters, (size_t)k->rsa.bits / 8);
    return fits ? k->class : BATCH_NONE;
}

unsigned batch_perform(struct op *const ops[], size_t count) {
    const struct batch b = {.ops = ops, .count = count, .faults = atomic_exchange(&faults, 0)};
    unsigned wrong = 0;
    unsigned right = ops[0]->key->batch->class == BATCH_P256 ? batch_p256(&b, &wrong) : batch_rsa(&b, &wrong);
    ossl.ERR_clear_error();
    for (size_t i = 0; i < count; i++)
        if ((right >> i & 1) == 0) op_perform(ops[i]);
    return (unsigned)__builtin_popcount(wrong);
}
