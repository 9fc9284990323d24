#include "ossl.h"
#include "shim.h"

/* ASYNC_init_thread() replaces a pool that is there already, and leaks it: so that one goes first. */
int thread_jobs_init(size_t max, size_t initial) {
    ossl.ASYNC_cleanup_thread();
    int done = ossl.ASYNC_init_thread(max, initial);
    ossl.ERR_clear_error();
    return done;
}

void thread_jobs_cleanup(void) {
    ossl.ASYNC_cleanup_thread();
}
