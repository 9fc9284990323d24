/*
 * pause.h: how an op pauses the job that asked for it. The loop's thread only.
 *
 * Facts. An ASYNC_JOB is a fibre: ASYNC_pause_job() returns only when the job is resumed, for
 * whatever reason. "Resumed" does not mean "finished": a wait fd may be readable for nothing.
 * ASYNC_pause_job() also returns at once, as if resumed, where pausing is blocked; and there may be
 * no job at all (a signature outside TLS). An SSL that is freed while its job is paused leaks it.
 *
 * What it means. The op is looked at after every return, never the fd; a return that changed
 * nothing pauses again; a pause that did not pause must be told from a resume for nothing, or it
 * spins for ever. The connection must be able to end the job: it says "cancelled" and resumes.
 *
 * Decision. `struct pauser` belongs to whoever starts and resumes the job (async_ssl.c) and is this
 * thread's current one while the job runs. It carries the cancellation, counts the entries, and
 * names the op in flight, so that leaving removes it from the engine's queue. An entry between
 * before and after is the proof of a real pause. A job of somebody else's has no pauser: there
 * the wait context proves it (OpenSSL resets its counts only when a paused job comes back).
 *
 * Trade-off. Where no pausing is possible the op is waited for on this thread if the engine says
 * that it can block, and fails with SHIM_ERR_NO_JOB where the answer could depend on this thread.
 */
#ifndef ENGINE_SHIM_PAUSE_H
#define ENGINE_SHIM_PAUSE_H

#include "op.h"
#include "ossl_types.h"

struct question;

struct pauser {
    bool cancelled;
    unsigned entries;          /* how often the job was started or resumed */
    struct op *op;             /* in flight; borrowed from the frame on the job's stack */
    struct question *question; /* open; borrowed from the same */
    const char *frame;         /* of the last pause, on the job's stack; NULL: none yet, or it was a third party's */
};

/* The ASYNC_callback_fn of the shim: signals the wake. Any thread, any stack. */
int pause_call_back(void *wake);

/* The number of the wake that a wait context shows (wake.h), 0: it shows none of ours. */
uint64_t pause_serial(ASYNC_WAIT_CTX *context);

/* This thread runs (or resumes) a job of p's until pause_leave(), which takes what pause_enter() gave. */
struct pauser *pause_enter(struct pauser *p);
void pause_leave(struct pauser *before);
/* Not on the job's stack: the op in flight is dropped from its engine; it and all later ones fail. */
void pause_cancel(struct pauser *p);

/* On the job's stack, or outside any job. Returns once the op is done or given up; SHIM_OK: read op->output. */
shim_status pause_for(struct op *op) MUST_CHECK;

/* The same for a question: SHIM_OK: it is answered. Only in a job that we started: else SHIM_ERR_NO_JOB. */
shim_status pause_for_answer(struct question *q) MUST_CHECK;

#endif
