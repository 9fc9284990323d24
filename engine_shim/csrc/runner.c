#include "runner.h"

#include <errno.h>

#include "fork.h"
#include "ossl.h"
#include "stacks.h"
#include "thread_jobs.h"

void runner_init(struct runner *r) {
    r->thread = thread_jobs_self();
    r->generation = fork_generation();
}

shim_status runner_check(const struct runner *r) {
    if (r->generation != fork_generation()) return SHIM_ERR_FORKED;
    return r->thread == thread_jobs_self() ? SHIM_OK : SHIM_ERR_THREAD;
}

bool runner_is_paused(const struct runner *r) {
    return r->job != NULL;
}

/* jobs_started and jobs_finished are equal whenever no job is paused. */
static void follow(struct runner *r, bool was_paused, int outcome) {
    bool is_paused = outcome == ASYNC_PAUSE;
    bool ran = was_paused || is_paused || outcome == ASYNC_FINISH;
    if (ran && !was_paused) count_up(&counters.jobs_started);
    if (ran && !is_paused) count_up(&counters.jobs_finished);
    if (is_paused && !was_paused) thread_jobs_paused();
    if (was_paused && !is_paused) thread_jobs_resumed();
    if (!is_paused) r->job = NULL;
}

/*
 * A paused job has been 16 KB deep, but stands on less than 4; one that has ended goes back to the pool with all that
 * it has touched. Giving a stack's pages back and touching them anew costs some 10 us, which is too much for a busy
 * server's every handshake. Beyond this many paused jobs memory is what matters.
 */
enum { WARM_JOBS = 512 };

static void spare(const struct runner *r, int outcome) {
    const char *last = outcome == ASYNC_PAUSE ? r->pauser.frame : r->frame;
    bool is_left = outcome == ASYNC_PAUSE || outcome == ASYNC_FINISH;
    if (is_left && last != NULL && thread_jobs_count() >= WARM_JOBS) stacks_give_back(r->frame, last);
}

/* What OpenSSL copies for the job. */
struct start {
    struct runner *runner;
    int (*run)(void *);
    void *owner;
};

/* On the job's stack. */
static int begin(void *argument) {
    struct start *s = argument;
    s->runner->frame = __builtin_frame_address(0);
    return s->run(&s->owner);
}

static int start_or_resume(struct runner *r, ASYNC_WAIT_CTX *context, int (*run)(void *), void *owner) {
    bool was_paused = runner_is_paused(r);
    struct start start = {r, run, owner};
    int returned = 0;
    int outcome = ossl.ASYNC_start_job(&r->job, context, &returned, begin, &start, sizeof start);
    follow(r, was_paused, outcome);
    if (was_paused || outcome == ASYNC_PAUSE) spare(r, outcome); /* others use what is warm, and leave it so */
    return outcome;
}

int runner_enter(struct runner *r, ASYNC_WAIT_CTX *context, int (*run)(void *), void *owner) {
    atomic_store(&r->running, true);
    struct pauser *before = pause_enter(&r->pauser);
    ossl.ERR_clear_error();
    errno = 0;
    int outcome = ASYNC_FINISH;
    if (context != NULL)
        outcome = start_or_resume(r, context, run, owner);
    else
        run(&owner);
    pause_leave(before);
    return outcome;
}

void runner_leave(struct runner *r) {
    atomic_store(&r->running, false);
}

void runner_cancel(struct runner *r) {
    if (runner_check(r) == SHIM_OK) pause_cancel(&r->pauser);
}

void runner_abandon(struct runner *r) {
    count_up(&counters.jobs_abandoned);
    r->job = NULL;
}

shim_status runner_close(struct runner *r) {
    bool running = atomic_load(&r->running);
    if (!running && !runner_is_paused(r)) return SHIM_OK;
    shim_status status = runner_check(r);
    if (status == SHIM_ERR_FORKED) {
        runner_abandon(r);
        return status;
    }
    if (running || status != SHIM_OK) return SHIM_ERR_THREAD;
    runner_cancel(r);
    return SHIM_ERR_BUSY;
}
