/* batch_lanes.h: a batch of each kind; batch.c is where they meet. */
#ifndef ENGINE_SHIM_BATCH_LANES_H
#define ENGINE_SHIM_BATCH_LANES_H

#include "batch.h"

/* One batch: ops of one class, 1 to BATCH_MOST of them. */
struct batch {
    struct op *const *ops;
    size_t count;
    unsigned faults; /* lanes that a test wants to come out wrong */
};

/*
 * Any thread. They write the outputs of the lanes that came out right, and return these as a mask; in `wrong` those that
 * came out wrong. The other ops are as they were: OpenSSL performs them.
 */
unsigned batch_rsa(const struct batch *b, unsigned *wrong);
unsigned batch_p256(const struct batch *b, unsigned *wrong);

/* Any thread. The private operation of an RSA key undoes its public one. */
bool batch_rsa_fits(const struct batch_key *k);

#endif
