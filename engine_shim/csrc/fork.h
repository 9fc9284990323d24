/*
 * fork.h: what a fork does to the shim.
 *
 * The child has none of the parent's threads, but copies of its jobs, ops and wait fds.
 * pthread_atfork() takes every lock of the shim before the fork, once no worker is inside
 * OpenSSL, so that the child finds consistent lists and none of OpenSSL's locks held by a
 * thread that it does not have; in the child engines forget the parent's ops and start their workers
 * anew with the next op, wait fds are closed (they are shared with the parent), and every
 * SSL of the parent's is refused: its generation is over.
 */
#ifndef ENGINE_SHIM_FORK_H
#define ENGINE_SHIM_FORK_H

struct engine;

/* Idempotent. From then on forks are counted and prepared. */
void fork_install(void);
void fork_register(struct engine *e);
void fork_unregister(struct engine *e);
/* Every worker's beginning and, as the last thing that it does, its end. */
void fork_worker_started(void);
void fork_worker_ended(void);
/* Counts the forks between the first process and this one. Any thread. */
unsigned fork_generation(void);

#endif
