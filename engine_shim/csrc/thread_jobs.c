/*
 * thread_jobs.c: this thread's pool of jobs (ASYNC_init_thread(3)).
 *
 * OpenSSL makes a pool for each thread with its first job, without a bound; ASYNC_init_thread() on a
 * thread that has one already would drop it with all that is in it. So the old pool is cleaned up
 * first, which is safe only while none of its jobs is paused: they come back into whatever pool is there.
 */
#include "thread_jobs.h"

#include "errors.h"
#include "fork.h"
#include "ossl.h"

static _Thread_local unsigned paused;
static _Thread_local unsigned generation;

/* What was paused at a fork is the parent's: in the child nobody resumes it. */
static unsigned *paused_here(void) {
    if (generation != fork_generation()) paused = 0;
    generation = fork_generation();
    return &paused;
}

uint64_t thread_jobs_self(void) {
    static atomic_uint_fast64_t last;
    static _Thread_local uint64_t number;
    if (number == 0) number = atomic_fetch_add(&last, 1) + 1;
    return number;
}

void thread_jobs_paused(void) {
    ++*paused_here();
}

void thread_jobs_resumed(void) {
    --*paused_here();
}

unsigned thread_jobs_count(void) {
    return *paused_here();
}

static bool is_busy(void) {
    return *paused_here() > 0 || ossl.ASYNC_get_current_job() != NULL;
}

int thread_jobs_init(size_t most, size_t initial) {
    if (is_busy()) return SHIM_ERR_BUSY;
    ossl.ERR_clear_error();
    ossl.ASYNC_cleanup_thread();
    return ossl.ASYNC_init_thread(most, initial) == 1 ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}

int thread_jobs_cleanup(void) {
    if (is_busy()) return SHIM_ERR_BUSY;
    ossl.ASYNC_cleanup_thread();
    return SHIM_OK;
}

int thread_jobs_capable(void) {
    return ossl.ASYNC_is_capable();
}
