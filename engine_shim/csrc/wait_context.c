/*
 * wait_context.c: ASYNC_WAIT_CTX for Python (ASYNC_WAIT_CTX_new(3)).
 *
 * Facts. OpenSSL knows an fd by a key, which is an address and nothing more. The cleanup routine
 * runs when the context is freed, with whatever the fd was set with, and not at clear_fd. An engine
 * may call the context's callback from a thread of its own, or on the job's stack, and late.
 *
 * What it means. Python must not be called there: the callback counts in an eventfd, which Python
 * reads when it likes. OpenSSL has no word for "the callback is not used any more", so what it
 * signals is never freed: it is used again.
 *
 * Ownership. `context` is the caller's (a connection's: its SSL's) for every function here; the
 * number that stands for Python's objects travels as the custom data. One thread: the job's.
 */
#include "wait_context.h"

#include <pthread.h>
#include <stdlib.h>

#include "errors.h"
#include "ossl.h"
#include "pause.h"
#include "wake.h"

/* Owners: Python's object, and each job that uses it: a garbage collector may take Python's first. */
struct wait_context {
    ASYNC_WAIT_CTX *context; /* owned */
    atomic_uint refs;
};

/* What a callback signals. Never freed; `unused` chains those that nobody has. */
struct wait_signal {
    struct wake *wake; /* a reference */
    struct wait_signal *unused;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct wait_signal *unused;     /* under the lock */
static wait_cleanup_fn python_cleanup; /* set before the first context, and taken back at exit; under the GIL */

void wait_on_cleanup(wait_cleanup_fn run) {
    python_cleanup = run;
}

struct wait_context *wait_new(void) {
    struct wait_context *c = calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    atomic_init(&c->refs, 1);
    c->context = ossl.ASYNC_WAIT_CTX_new();
    if (c->context != NULL) return c;
    free(c);
    return NULL;
}

struct wait_context *wait_ref(struct wait_context *c) {
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void wait_free(struct wait_context *c) {
    if (c == NULL || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return;
    ossl.ASYNC_WAIT_CTX_free(c->context);
    free(c);
}

void *wait_raw(const struct wait_context *c) {
    return c->context;
}

/* Never with a Python frame on a job's stack: whoever frees a context there finds its cleanup left out. */
static void cleanup(ASYNC_WAIT_CTX *context, const void *key, int fd, void *id) {
    (void)context;
    (void)key;
    if (python_cleanup != NULL && ossl.ASYNC_get_current_job() == NULL) python_cleanup((uintptr_t)id, fd);
}

int wait_set_fd(void *context, const void *key, int fd, uintptr_t id) {
    int set = ossl.ASYNC_WAIT_CTX_set_wait_fd(context, key, fd, (void *)id, cleanup);
    return set == 1 ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}

int wait_get_fd(void *context, const void *key, int *fd, uintptr_t *custom) {
    void *data = NULL;
    if (ossl.ASYNC_WAIT_CTX_get_fd(context, key, fd, &data) != 1) return SHIM_ERR_RANGE;
    *custom = (uintptr_t)data;
    return SHIM_OK;
}

int wait_clear_fd(void *context, const void *key) {
    return ossl.ASYNC_WAIT_CTX_clear_fd(context, key) == 1 ? SHIM_OK : SHIM_ERR_RANGE;
}

size_t wait_all_fds(void *context, int *out, size_t room) {
    size_t count = 0;
    if (ossl.ASYNC_WAIT_CTX_get_all_fds(context, NULL, &count) != 1) return 0;
    if (count > 0 && count <= room) ossl.ASYNC_WAIT_CTX_get_all_fds(context, out, &count);
    return count;
}

void wait_changed_fds(void *context, int *added, size_t *added_count, int *deleted, size_t *deleted_count) {
    ossl.ASYNC_WAIT_CTX_get_changed_fds(context, added, added_count, deleted, deleted_count);
}

int wait_set_status(void *context, int status) {
    return ossl.ASYNC_WAIT_CTX_set_status(context, status) == 1 ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}

int wait_get_status(void *context) {
    return ossl.ASYNC_WAIT_CTX_get_status(context);
}

static struct wait_signal *take_unused(void) {
    pthread_mutex_lock(&lock);
    struct wait_signal *s = unused;
    if (s != NULL) unused = s->unused;
    pthread_mutex_unlock(&lock);
    return s;
}

struct wait_signal *wait_signal_new(void) {
    struct wait_signal *s;
    while ((s = take_unused()) != NULL)
        if (wake_fd(s->wake) >= 0) { /* one that a fork closed stays out of use */
            wake_take(s->wake);
            return s;
        }
    s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    s->wake = wake_new();
    if (s->wake != NULL) return s;
    free(s);
    return NULL;
}

void wait_signal_free(struct wait_signal *s) {
    if (s == NULL) return;
    wake_take(s->wake);
    pthread_mutex_lock(&lock);
    s->unused = unused;
    unused = s;
    pthread_mutex_unlock(&lock);
}

int wait_signal_fd(const struct wait_signal *s) {
    return wake_fd(s->wake);
}

uint64_t wait_signal_take(struct wait_signal *s) {
    return wake_take(s->wake);
}

struct wake *wait_signal_wake(const struct wait_signal *s) {
    return s != NULL ? s->wake : NULL;
}

int wait_set_callback(void *context, struct wait_signal *s) {
    int set = ossl.ASYNC_WAIT_CTX_set_callback(context, s != NULL ? pause_call_back : NULL, wait_signal_wake(s));
    return set == 1 ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}

int wait_has_callback(void *context) {
    ASYNC_callback_fn callback = NULL;
    void *argument = NULL;
    return ossl.ASYNC_WAIT_CTX_get_callback(context, &callback, &argument) == 1 && callback != NULL;
}
