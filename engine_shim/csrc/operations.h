/*
 * operations.h: ops outside TLS, any number of them at once on one thread, without a job for each.
 *
 * Facts. A job costs a stack and two switches of it, and a wait fd; a process that does nothing but sign (a key server)
 * needs neither: nothing of OpenSSL's waits for the result.
 *
 * Decision. An op that is submitted here is an op as any other to its engine; op_finish() puts it onto a list that all
 * ops of the same `struct operations` share, and makes their one wait fd readable when the list was empty. The list is a
 * chain to which any thread adds by one compare-and-swap, and which the owner takes as a whole: nobody holds a lock, so
 * none is held across a fork, and how many are in flight makes no difference to the cost of one.
 *
 * Who holds what. An op on the list has a reference of the list's. Each op has a reference to its operations, so that
 * a worker that is late always finds them; closing ends the list for good, else the two would keep each other.
 */
#ifndef ENGINE_SHIM_OPERATIONS_H
#define ENGINE_SHIM_OPERATIONS_H

#include "op.h"

/* op_finish() only; any thread that holds a reference to the op. */
void operations_collect(struct op *op);
/* Any thread; op_unref() for the op's own. */
void operations_unref(struct operations *o);

#endif
