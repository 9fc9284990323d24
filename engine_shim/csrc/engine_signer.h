/*
 * engine_signer.h: what an op's signer and its engine know of each other (engine_signer.c, request.c).
 *
 * A taken op is at OP_HELD in the engine's list `taken`, and the engine keeps its reference; each request of Python's
 * holds another. So a request outlives its handshake, and an answer that comes late touches nothing but the op.
 */
#ifndef ENGINE_SHIM_ENGINE_SIGNER_H
#define ENGINE_SHIM_ENGINE_SIGNER_H

#include "engine.h"

enum signer_outcome { SIGNER_COMPLETED, SIGNER_REFUSED, SIGNER_WRONG };

/* CLOCK_MONOTONIC; immutable. */
uint64_t signer_deadline(const struct op *op);
/* Under the lock. SHIM_OK: the op waits for an answer. Else what an answer is: late, double, or in a forked child. */
shim_status signer_state(const struct op *op) MUST_CHECK;
/* The same, and SHIM_OK takes it into the caller's hands: nobody else can answer it now. */
shim_status signer_claim(struct op *op) MUST_CHECK;
/* Under the lock, let go of meanwhile. A claimed op: it has its output, or has failed. */
void signer_deliver(struct op *op, enum signer_outcome outcome);
/* Under the lock. */
void signer_count_wrong(struct op *op);

#endif
