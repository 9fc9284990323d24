/*
 * identities.h: the identities of one SSL_CTX that are loaded, by number, at most so many at a time. Any thread.
 */
#ifndef ENGINE_SHIM_IDENTITIES_H
#define ENGINE_SHIM_IDENTITIES_H

#include "identity.h"

struct identities;

/* Numbers are below `count`. NULL: out of memory. */
struct identities *identities_new(size_t count, size_t most) MUST_CHECK;
void identities_free(struct identities *all);
/* A reference for the caller; NULL: it is not loaded. */
struct identity *identities_get(struct identities *all, uint32_t number) MUST_CHECK;
/* Takes a reference of its own; whoever was not asked for lately gives way. */
void identities_put(struct identities *all, uint32_t number, struct identity *i);
size_t identities_loaded(struct identities *all);
/* fork.c calls them, the second one in parent and child: the child finds the lock free, and nothing half done. */
void identities_fork_prepare(void);
void identities_fork_done(void);

#endif
