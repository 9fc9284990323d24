/*
 * wake.h: a wait fd (an eventfd) that outlives everyone who may write to it.
 *
 * Owners: the op that signals it and the wait context that shows it each hold a
 * reference. The last one to let go puts the fd into a pool, drained: it is never
 * closed while somebody may still write to it, and a reused one is never stale.
 */
#ifndef ENGINE_SHIM_WAKE_H
#define ENGINE_SHIM_WAKE_H

#include "common.h"

struct wake;

/* Any thread. NULL: no fd is to be had (errno). */
struct wake *wake_new(void) MUST_CHECK;
/* Any thread that holds a reference. */
struct wake *wake_ref(struct wake *w);
void wake_unref(struct wake *w);
void wake_signal(struct wake *w);
int wake_fd(const struct wake *w);
/* Its number, which no other wake of the process ever has: with it, an fd that comes again is known to be the same. */
uint64_t wake_serial(const struct wake *w);
/* Blocks the calling thread until the wake is readable, then takes the signal back. */
void wake_wait(struct wake *w);
/* The thread that resumed: takes the signal back; returns how often it was given. One given just now may stay. */
uint64_t wake_clear(struct wake *w);
/* The same, but none stays that has made the fd readable; a read(2) in any case. */
uint64_t wake_take(struct wake *w);

/* fork.c only: all wakes are locked across a fork; the child closes its copies of the fds. */
void wake_fork_prepare(void);
void wake_fork_parent(void);
void wake_fork_child(void);

#endif
