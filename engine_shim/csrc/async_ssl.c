/*
 * async_ssl.c: one SSL, driven asynchronously, one OpenSSL call a step.
 *
 * Facts. An SSL has one job slot: while a job is paused, any call resumes that job and gets the
 * paused call's result in the paused call's buffer. SSL_get_error() looks at the error queue
 * first, so an entry hides WANT_ASYNC: a stale one, or one of the job's own, which has failed
 * and pauses once more for the MAC of the alert that says so. The queue is the thread's, not the
 * job's. A job resumes only on the thread that started it. SSL_free() on a paused job leaks it.
 *
 * What it means. Clear the queue before, read it out after, at a pause as well, and keep what the
 * job said before it; ask SSL_waiting_for_async() whether it is paused; refuse every call but the
 * paused one; refuse other threads, and children of a fork; never free before the job has ended.
 *
 * Decision. struct async_ssl holds a reference to the SSL of its own, so pyOpenSSL's objects may
 * die in any order. Closing cancels, resumes the job once and lets libssl unwind; a job of a
 * third-party engine that goes on is the caller's to drain (SHIM_ERR_BUSY).
 *
 * Trade-off. What a garbage collector frees on another thread, or after a fork, cannot be
 * unwound: it is left behind and counted (jobs_abandoned), rather than crashing.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>

#include "errors.h"
#include "fork.h"
#include "ossl.h"
#include "pause.h"
#include "thread_jobs.h"
#include "wait_context.h"

enum { ERRORS_MOST = 8 };

/* The thread that made it only, but for async_ssl_free(). */
struct async_ssl {
    SSL *ssl; /* a reference; NULL: closed */
    struct pauser pauser;
    struct async_step step;
    struct async_error *errors; /* owned; NULL until the first error */
    int flags;
    bool asynchronous; /* SSL_MODE_ASYNC is on */
    pthread_t thread;
    unsigned generation;

    int paused_call; /* CALL_NONE: no job is paused */
    void *paused_buffer;
    size_t paused_length;
};

static void set_asynchronous(struct async_ssl *a, bool on) {
    if (a->asynchronous == on) return;
    ossl.SSL_ctrl(a->ssl, on ? SSL_CTRL_MODE : SSL_CTRL_CLEAR_MODE, SSL_MODE_ASYNC, NULL);
    a->asynchronous = on;
}

/* Idle connections give their 34 KB of record buffers back (RELEASE_BUFFERS); writes may be short and may move. */
static const long modes =
    SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS;

/*
 * libssl tells nobody the wait context of an SSL but on the job's stack, and this is the first code of
 * ours there. Once is enough; whoever set a callback at the SSL_CTX goes on hearing of everything.
 */
static void learn_context(const SSL *ssl, int where, int result) {
    pause_learn_context();
    ossl.SSL_set_info_callback((SSL *)ssl, NULL);
    SSL_info_callback_fn theirs = ossl.SSL_CTX_get_info_callback(ossl.SSL_get_SSL_CTX(ssl));
    if (theirs != NULL) theirs(ssl, where, result);
}

static void watch_for_context(SSL *ssl) {
    SSL_info_callback_fn set = ossl.SSL_get_info_callback(ssl);
    if (set == NULL || set == ossl.SSL_CTX_get_info_callback(ossl.SSL_get_SSL_CTX(ssl)))
        ossl.SSL_set_info_callback(ssl, learn_context);
}

struct async_ssl *async_ssl_new(void *ssl, int flags) {
    struct async_ssl *a = calloc(1, sizeof *a);
    if (a == NULL) return NULL;
    if (ossl.SSL_up_ref(ssl) != 1) {
        free(a);
        return NULL;
    }
    a->ssl = ssl;
    a->flags = flags;
    a->thread = pthread_self();
    a->generation = fork_generation();
    ossl.SSL_ctrl(ssl, SSL_CTRL_MODE, modes, NULL);
    set_asynchronous(a, flags != ASYNC_OFF);
    if (a->asynchronous) watch_for_context(ssl);
    return a;
}

const struct async_step *async_ssl_step(struct async_ssl *a) {
    return &a->step;
}

int async_ssl_is_paused(const struct async_ssl *a) {
    return a->paused_call != CALL_NONE;
}

static shim_status check_owner(const struct async_ssl *a) {
    if (a->generation != fork_generation()) return SHIM_ERR_FORKED;
    return pthread_equal(a->thread, pthread_self()) ? SHIM_OK : SHIM_ERR_THREAD;
}

static shim_status check_call(const struct async_ssl *a, int call, const void *buffer, size_t length) {
    if (a->ssl == NULL) return SHIM_ERR_CLOSED;
    if (length > INT_MAX) return SHIM_ERR_RANGE;
    shim_status status = check_owner(a);
    if (status != SHIM_OK || a->paused_call == CALL_NONE) return status;
    bool same = call == a->paused_call && buffer == a->paused_buffer && length == a->paused_length;
    return same ? SHIM_OK : SHIM_ERR_BUSY;
}

static int call_openssl(SSL *ssl, int call, void *buffer, int length) {
    switch (call) {
    case CALL_READ:
        return ossl.SSL_read(ssl, buffer, length);
    case CALL_WRITE:
        return ossl.SSL_write(ssl, buffer, length);
    case CALL_SHUTDOWN:
        return ossl.SSL_shutdown(ssl);
    default:
        return ossl.SSL_do_handshake(ssl);
    }
}

/* SSL_shutdown(3): 0 means that our close_notify is sent and the peer's has not come, which is no error. */
static bool succeeded(int call, int result) {
    return call == CALL_SHUTDOWN ? result >= 0 : result > 0;
}

static void read_fds(struct async_ssl *a) {
    size_t count = 0;
    if (ossl.SSL_get_all_async_fds(a->ssl, NULL, &count) != 1) count = 0;
    a->step.fd_count = (int)count;
    if (count > 0 && count <= sizeof a->step.fds / sizeof a->step.fds[0])
        ossl.SSL_get_all_async_fds(a->ssl, a->step.fds, &count);
}

/* Empties the queue. Without memory for the entries their number is still told. */
static void read_errors(struct async_ssl *a) {
    const char *data;
    unsigned long code;
    if (a->errors == NULL) a->errors = calloc(ERRORS_MOST, sizeof a->errors[0]);
    while (data = NULL, (code = ossl.ERR_get_error_all(NULL, NULL, NULL, &data, NULL)) != 0) {
        if (a->errors == NULL || a->step.error_count == ERRORS_MOST) continue;
        struct async_error *entry = &a->errors[a->step.error_count++];
        entry->code = code;
        entry->ours = errors_ours(code);
        errors_describe(code, data, entry->text, sizeof entry->text);
    }
}

/* What SSL_get_error() would say if it looked at the job before the queue, and the queue were the job's own. */
static int status_of(struct async_ssl *a, int call, int result) {
    if (succeeded(call, result)) return SSL_ERROR_NONE;
    if (ossl.SSL_waiting_for_async(a->ssl) == 1) return SSL_ERROR_WANT_ASYNC;
    int status = ossl.SSL_get_error(a->ssl, result);
    return status == SSL_ERROR_SYSCALL && a->step.error_count > 0 ? SSL_ERROR_SSL : status;
}

/* The call itself, as this thread's current pauser. */
static int enter(struct async_ssl *a, int call, void *buffer, size_t length) {
    struct pauser *before = pause_enter(&a->pauser);
    ossl.ERR_clear_error();
    errno = 0;
    int result = call_openssl(a->ssl, call, buffer, (int)length);
    int system_error = errno;
    a->step.status = status_of(a, call, result);
    a->step.system_error = a->step.status == SSL_ERROR_SYSCALL ? system_error : 0;
    pause_leave(before);
    return result;
}

/* jobs_started and jobs_finished are equal whenever no job is paused. */
static void follow_job(struct async_ssl *a, int call, void *buffer, size_t length) {
    bool was_paused = a->paused_call != CALL_NONE;
    bool is_paused = a->step.status == SSL_ERROR_WANT_ASYNC;
    bool had_job = was_paused || (a->asynchronous && a->step.status != SSL_ERROR_WANT_ASYNC_JOB);
    if (had_job && !was_paused) count_up(&counters.jobs_started);
    if (had_job && !is_paused) count_up(&counters.jobs_finished);
    if (is_paused && !was_paused) thread_jobs_paused();
    if (was_paused && !is_paused) thread_jobs_resumed();
    a->paused_call = is_paused ? call : CALL_NONE;
    a->paused_buffer = is_paused ? buffer : NULL;
    a->paused_length = is_paused ? length : 0;
}

int async_ssl_call(struct async_ssl *a, int call, void *buffer, size_t length) {
    shim_status refused = check_call(a, call, buffer, length);
    if (refused != SHIM_OK) return -(int)refused;
    a->step = (struct async_step){.error_count = async_ssl_is_paused(a) ? a->step.error_count : 0};
    int result = enter(a, call, buffer, length);
    follow_job(a, call, buffer, length);
    if (a->step.status == SSL_ERROR_WANT_ASYNC) read_fds(a);
    if (a->step.status != SSL_ERROR_NONE)
        read_errors(a);
    else
        a->step.count = result, a->step.error_count = 0;
    if (call == CALL_HANDSHAKE && a->step.status == SSL_ERROR_NONE) set_asynchronous(a, (a->flags & ASYNC_IO) != 0);
    return a->step.status;
}

const struct async_error *async_ssl_errors(struct async_ssl *a) {
    return a->errors;
}

int async_ssl_fds(struct async_ssl *a, int *out, size_t room) {
    size_t count = 0;
    if (a->ssl == NULL || ossl.SSL_get_all_async_fds(a->ssl, NULL, &count) != 1) return 0;
    if (count <= room) ossl.SSL_get_all_async_fds(a->ssl, out, &count);
    return (int)count;
}

int async_ssl_added(struct async_ssl *a, int *out, size_t room) {
    size_t added = 0, deleted = 0;
    if (a->ssl == NULL || ossl.SSL_get_changed_async_fds(a->ssl, NULL, &added, NULL, &deleted) != 1) return 0;
    if (added > 0 && added <= room) ossl.SSL_get_changed_async_fds(a->ssl, out, &added, NULL, &deleted);
    return (int)added;
}

void *async_ssl_wait_context(const struct async_ssl *a) {
    return a->ssl != NULL ? a->pauser.context : NULL;
}

void async_ssl_set_callback(struct async_ssl *a, struct wait_signal *s) {
    pause_set_callback(&a->pauser, wait_signal_wake(s));
}

/* In a forked child the op is the parent's; on another thread it may be ending at this moment. */
void async_ssl_cancel(struct async_ssl *a) {
    if (check_owner(a) == SHIM_OK) pause_cancel(&a->pauser);
}

static void give_back(struct async_ssl *a) {
    a->pauser.context = NULL; /* the SSL's, which others may hold: ours no longer */
    ossl.SSL_free(a->ssl);
    ossl.ERR_clear_error();
    a->ssl = NULL;
}

static void abandon(struct async_ssl *a) {
    count_up(&counters.jobs_abandoned);
    a->ssl = NULL;
    a->paused_call = CALL_NONE;
}

/* After a fork a paused job is the parent's: it is left as it is. */
int async_ssl_close(struct async_ssl *a) {
    if (a->ssl != NULL && async_ssl_is_paused(a)) {
        shim_status status = check_owner(a);
        if (status == SHIM_ERR_FORKED) abandon(a);
        if (status != SHIM_OK) return status == SHIM_ERR_FORKED ? SHIM_OK : (int)status;
        async_ssl_cancel(a);
        async_ssl_call(a, a->paused_call, a->paused_buffer, a->paused_length);
        if (async_ssl_is_paused(a)) return SHIM_ERR_BUSY;
    }
    if (a->ssl != NULL) give_back(a);
    return SHIM_OK;
}

/* Any thread. */
void async_ssl_free(struct async_ssl *a) {
    if (a == NULL) return;
    if (async_ssl_close(a) != SHIM_OK) {
        abandon(a);
        return; /* its job still points here */
    }
    free(a->errors);
    free(a);
}

int async_ssl_reused(struct async_ssl *a) {
    return a->ssl != NULL && ossl.SSL_session_reused(a->ssl) == 1;
}

/* OpenSSL before 3.2 names a group by its NID only; its short name is close enough to the registered one. */
const char *async_ssl_group(struct async_ssl *a) {
    if (a->ssl == NULL) return NULL;
    if (ossl.SSL_get0_group_name != NULL) return ossl.SSL_get0_group_name(a->ssl);
    long nid = ossl.SSL_ctrl(a->ssl, SSL_CTRL_GET_NEGOTIATED_GROUP, 0, NULL);
    return nid > 0 && nid < TLSEXT_nid_unknown ? ossl.OBJ_nid2sn((int)nid) : NULL;
}

int async_job_is_current(void) {
    return ossl.ASYNC_get_current_job != NULL && ossl.ASYNC_get_current_job() != NULL;
}
