/*
 * operation.c: how an operation pauses its job.
 *
 * Facts. ASYNC_pause_job() returns when the job is resumed, for whatever reason, and at once where
 * pausing is blocked. A wait context shows fds by key; clear_fd() does not run the cleanup
 * routine, freeing the wait context does. OpenSSL sets the counts of changed fds back to zero
 * when a paused job comes back, and only then.
 *
 * What it means. Being told is looked at after every return, never the fd. Where the counts are
 * not zero after the first pause the job was not paused, and never will be: the operation then
 * ends as it would outside any job. The cleanup routine means that the connection was freed
 * under us: the job is lost, and all that is left to do is to close the fds.
 *
 * Threads. The job's thread, but for what script.h says of the lock.
 */
#include "operation.h"

#include "keys.h"
#include "openssl.h"
#include "script.h"

/* The wait context is being freed while the operation is paused (SSL_free): any thread. */
static void orphan(ASYNC_WAIT_CTX *context, const void *key, int fd, void *operation) {
    struct operation *op = operation;
    (void)context, (void)key, (void)fd;
    pthread_mutex_lock(&script_lock);
    if (!op->orphaned) {
        op->orphaned = true;
        script_counters.orphaned++;
        script_counters.alive--;
    }
    fds_close(op);
    pthread_mutex_unlock(&script_lock);
}

/* Each fd stands in the wait context under its own address. */
static bool show(struct operation *op, ASYNC_WAIT_CTX *context) {
    for (unsigned i = 0; i < SCRIPTED_FDS; i++)
        if (op->fds[i] >= 0 && openssl.ASYNC_WAIT_CTX_set_wait_fd(context, &op->fds[i], op->fds[i], op, orphan) != 1)
            return false;
    return true;
}

static void hide(struct operation *op, ASYNC_WAIT_CTX *context) {
    for (unsigned i = 0; i < SCRIPTED_FDS; i++)
        if (op->fds[i] >= 0) openssl.ASYNC_WAIT_CTX_clear_fd(context, &op->fds[i]);
}

static bool is_changed(ASYNC_WAIT_CTX *context) {
    size_t added = 0, deleted = 0;
    openssl.ASYNC_WAIT_CTX_get_changed_fds(context, NULL, &added, NULL, &deleted);
    return added + deleted > 0;
}

/* The callback that the application has set, if the script wants it. */
static bool take_callback(struct operation *op, ASYNC_WAIT_CTX *context) {
    ASYNC_callback_fn callback = NULL;
    void *argument = NULL;
    if (!op->step.callback) return false;
    if (openssl.ASYNC_WAIT_CTX_get_callback(context, &callback, &argument) != 1 || callback == NULL) return false;
    openssl.ASYNC_WAIT_CTX_set_status(context, ASYNC_STATUS_OK);
    pthread_mutex_lock(&script_lock);
    op->callback = callback;
    op->callback_arg = argument;
    pthread_mutex_unlock(&script_lock);
    return true;
}

/* With the lock held. Sticky fds are readable from here on. */
static bool opened(struct operation *op, bool done) {
    for (unsigned i = 0; done && op->step.sticky && i < op->step.fds; i++) fds_signal(op, i);
    return done;
}

static bool open_fds(struct operation *op, ASYNC_WAIT_CTX *context) {
    pthread_mutex_lock(&script_lock);
    bool done = opened(op, fds_open(op));
    pthread_mutex_unlock(&script_lock);
    return done && show(op, context);
}

/* Between two pauses. */
static bool change_fds(struct operation *op, ASYNC_WAIT_CTX *context) {
    if (op->step.change == SCRIPTED_KEEP || op->callback != NULL) return true;
    hide(op, context);
    pthread_mutex_lock(&script_lock);
    bool done = opened(op, fds_change(op));
    pthread_mutex_unlock(&script_lock);
    return done && show(op, context);
}

/* The signal is taken back before anybody looks at whether it was told. False: pausing is blocked. */
static bool pause_job(struct operation *op, ASYNC_WAIT_CTX *context) {
    bool provable = is_changed(context);
    openssl.ASYNC_pause_job();
    if (provable && is_changed(context)) return false;
    pthread_mutex_lock(&script_lock);
    script_counters.pauses++;
    fds_clear(op);
    if (op->state != TOLD) script_counters.for_nothing++;
    pthread_mutex_unlock(&script_lock);
    return true;
}

/* All pauses but the first of the operation begin with other fds, where the script says so. */
static bool pause_anew(struct operation *op, ASYNC_WAIT_CTX *context) {
    if (op->has_paused && !change_fds(op, context)) return false;
    op->has_paused = true;
    return pause_job(op, context);
}

/* Whose fd is signalled when nobody says which: each in turn. */
static size_t own_fd(const struct operation *op) {
    return op->step.fds > 0 ? (size_t)(op->serial % op->step.fds) : 0;
}

/* Its signal is there before it pauses, and nothing else will have come. */
static bool pause_for_nothing(struct operation *op, ASYNC_WAIT_CTX *context) {
    if (op->has_paused && !change_fds(op, context)) return false;
    op->has_paused = true;
    pthread_mutex_lock(&script_lock);
    fds_signal(op, own_fd(op));
    pthread_mutex_unlock(&script_lock);
    return pause_job(op, context);
}

static bool interrupt_first_pause(struct operation *op, ASYNC_WAIT_CTX *context) {
    for (unsigned i = 0; i < op->step.false_wakes; i++)
        if (!pause_for_nothing(op, context)) return false;
    return true;
}

static void begin_waiting(struct operation *op) {
    pthread_mutex_lock(&script_lock);
    op->pause++;
    if (op->released || !op->step.told)
        script_tell(op, false, own_fd(op));
    else
        script_wait(op);
    pthread_mutex_unlock(&script_lock);
}

static bool is_told(struct operation *op) {
    pthread_mutex_lock(&script_lock);
    bool told = op->state == TOLD;
    pthread_mutex_unlock(&script_lock);
    return told;
}

/* Fds are changed before it waits: a signal is never given to those that go. */
static bool pause_until_told(struct operation *op, ASYNC_WAIT_CTX *context) {
    if (op->has_paused && !change_fds(op, context)) return false;
    op->has_paused = true;
    begin_waiting(op);
    if (!pause_job(op, context)) return false;
    while (!is_told(op))
        if (!pause_anew(op, context)) return false;
    return true;
}

static bool is_over(struct operation *op) {
    pthread_mutex_lock(&script_lock);
    bool over = op->pause == op->step.pauses || op->released || op->failed;
    op->state = RUNNING;
    fds_clear(op);
    pthread_mutex_unlock(&script_lock);
    return over;
}

/* Returns early where pausing is blocked: then it ends as outside any job. */
static void pause_as_scripted(struct operation *op, ASYNC_WAIT_CTX *context) {
    if (!take_callback(op, context) && !open_fds(op, context)) return;
    if (!interrupt_first_pause(op, context)) return;
    while (!is_over(op))
        if (!pause_until_told(op, context)) return;
}

int operation_run(enum scripted_kind kind) {
    struct operation *op = script_begin(kind);
    if (op == NULL) return 0;
    ASYNC_JOB *job = openssl.ASYNC_get_current_job();
    if (job != NULL && op->step.pauses > 0) {
        ASYNC_WAIT_CTX *context = openssl.ASYNC_get_wait_ctx(job);
        pause_as_scripted(op, context);
        hide(op, context);
    }
    int completed = script_end(op);
    if (!completed) provider_raise_scripted();
    return completed;
}
