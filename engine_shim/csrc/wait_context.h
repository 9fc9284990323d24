/* wait_context.h: what the rest of the shim needs of wait_context.c. */
#ifndef ENGINE_SHIM_WAIT_CONTEXT_H
#define ENGINE_SHIM_WAIT_CONTEXT_H

#include "common.h"

struct wake;

/* Borrowed: it lives for ever. NULL for NULL. Any thread. */
struct wake *wait_signal_wake(const struct wait_signal *s);

/* Any thread. wait_free() gives the reference back. */
struct wait_context *wait_ref(struct wait_context *c);

#endif
