/*
 * costs.h: what a signature costs alone and in a batch, measured on this machine with this OpenSSL. One table a process.
 */
#ifndef ENGINE_SHIM_COSTS_H
#define ENGINE_SHIM_COSTS_H

#include "batch.h"

/* Any thread. Measures the class of the key's signatures, once a process; some 10 to 40 ms, nothing without batches. */
void costs_measure(struct key *k);
/* Any thread. So many ops are cheaper in a batch than one by one; more than BATCH_MOST: never (BATCH_NONE, or not measured). */
size_t costs_pays_from(enum batch_class c);

#endif
