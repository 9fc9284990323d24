/*
 * batch.h: ops that are computed eight at a time. What a batch computes is what op_perform() computes one by one.
 *
 * A class is what can share a batch: one kind of op, one size of key. The keys may differ.
 */
#ifndef ENGINE_SHIM_BATCH_H
#define ENGINE_SHIM_BATCH_H

#include "op.h"
#include "ossl_types.h"

enum { BATCH_MOST = 8 };

enum batch_class {
    BATCH_NONE = 0, /* OpenSSL performs it, alone */
    BATCH_RSA_2048,
    BATCH_RSA_3072,
    BATCH_RSA_4096,
    BATCH_P256,
    BATCH_CLASSES
};

/* What batches need of a key, beside OpenSSL's own; secret, wiped; immutable once made. */
struct batch_key;

/* NULL: this key, this CPU or this build has no batches (or there is no memory): OpenSSL performs it. */
struct batch_key *batch_key_new(EVP_PKEY *inner, const char *type, int bits) MUST_CHECK;
void batch_key_free(struct batch_key *k);
enum batch_class batch_key_class(const struct batch_key *k); /* BATCH_NONE for NULL */

/* Which ops may share a batch with this one. BATCH_NONE as well for a padding or digest that batches do not have. */
enum batch_class batch_class_of(const struct op *op);

/*
 * Any thread, no lock held. Performs 1 to BATCH_MOST ops of one class (not BATCH_NONE): each ends as op_perform() would
 * have ended it. Returns how many came out wrong and were computed again by OpenSSL. Leaves this thread's error queue empty.
 */
unsigned batch_perform(struct op *const ops[], size_t count);

#endif
