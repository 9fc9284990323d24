/*
 * runner.h: whoever starts jobs and resumes them, one at a time: a connection (async_ssl.c) and Python's Job (job.c).
 *
 * A job resumes only on the thread that started it, and never in a forked child, where it is the parent's. Other
 * threads may come along while it runs, because Python's lock is let go of: they find `running` and are refused.
 * Embedded in its owner and never copied: a paused job points to both.
 */
#ifndef ENGINE_SHIM_RUNNER_H
#define ENGINE_SHIM_RUNNER_H

#include "ossl_types.h"
#include "pause.h"

struct runner {
    ASYNC_JOB *job;    /* OpenSSL's; NULL: not paused */
    const char *frame; /* the job's first on its stack; while it runs or is paused */
    struct pauser pauser;
    uint64_t thread; /* thread_jobs_self() */
    unsigned generation;
    atomic_bool running; /* between runner_enter() and runner_leave(); any thread reads it */
};

/* The thread whose jobs these will be. */
void runner_init(struct runner *r);
/* SHIM_OK on that thread; else SHIM_ERR_FORKED or SHIM_ERR_THREAD. */
shim_status runner_check(const struct runner *r) MUST_CHECK;
bool runner_is_paused(const struct runner *r);

/*
 * That thread. Runs run(&owner) in a job, or resumes the paused one; without a context it runs in no job.
 * Returns what ASYNC_start_job() does; OpenSSL's error queue is the call's, and nobody's before it.
 */
int runner_enter(struct runner *r, ASYNC_WAIT_CTX *context, int (*run)(void *), void *owner) MUST_CHECK;
/* The owner's state is its own again: others may close it. */
void runner_leave(struct runner *r);

/* Does nothing for others: in a forked child the op is the parent's, on another thread it may be ending now. */
void runner_cancel(struct runner *r);
/* Left behind, and counted. */
void runner_abandon(struct runner *r);
/*
 * Before the owner is freed. SHIM_OK: no job is there. SHIM_ERR_BUSY: it is cancelled, resume it once more.
 * SHIM_ERR_FORKED: it was the parent's, and is left to it. SHIM_ERR_THREAD: not this thread's to end.
 */
shim_status runner_close(struct runner *r) MUST_CHECK;

#endif
