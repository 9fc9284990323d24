#include "pause.h"

#include "engine.h"
#include "key.h"
#include "ossl.h"
#include "question.h"
#include "wake.h"

static _Thread_local struct pauser *current;

/* The address under which our wait fd stands in a wait context. One op at a time pauses a job, so one key will do. */
static const char wait_key;

struct pauser *pause_enter(struct pauser *p) {
    struct pauser *before = current;
    current = p;
    p->entries++;
    return before;
}

void pause_leave(struct pauser *before) {
    current = before;
}

void pause_cancel(struct pauser *p) {
    p->cancelled = true;
    if (p->op != NULL) engine_cancel(p->op->key->engine, p->op);
}

int pause_call_back(void *wake) {
    wake_signal(wake);
    return 1;
}

/* A new reference to what the context's callback signals; NULL: no callback, or somebody else's. */
static struct wake *echo_of(ASYNC_WAIT_CTX *context) {
    ASYNC_callback_fn callback = NULL;
    void *argument = NULL;
    bool ours = ossl.ASYNC_WAIT_CTX_get_callback(context, &callback, &argument) == 1 && callback == pause_call_back;
    return ours ? wake_ref(argument) : NULL;
}

static void cleanup(ASYNC_WAIT_CTX *context, const void *key, int fd, void *wake) {
    (void)context;
    (void)key;
    (void)fd;
    wake_unref(wake);
}

/* The wait context holds a reference to the wake for as long as it shows its fd. */
static bool show(ASYNC_WAIT_CTX *context, struct wake *w) {
    if (ossl.ASYNC_WAIT_CTX_set_wait_fd(context, &wait_key, wake_fd(w), wake_ref(w), cleanup) == 1) return true;
    wake_unref(w);
    return false;
}

/* clear_fd does not run the cleanup routine. */
static void hide(ASYNC_WAIT_CTX *context, struct wake *w) {
    if (ossl.ASYNC_WAIT_CTX_clear_fd(context, &wait_key) == 1) wake_unref(w);
}

uint64_t pause_serial(ASYNC_WAIT_CTX *context) {
    int fd;
    void *wake = NULL;
    return ossl.ASYNC_WAIT_CTX_get_fd(context, &wait_key, &fd, &wake) == 1 ? wake_serial(wake) : 0;
}

static size_t changes(ASYNC_WAIT_CTX *context) {
    size_t added = 0, deleted = 0;
    ossl.ASYNC_WAIT_CTX_get_changed_fds(context, NULL, &added, NULL, &deleted);
    return added + deleted;
}

/* Shows the fd anew, so that its counts are not zero: they are zero again after a real pause, and only then. */
static bool pause_and_prove(ASYNC_WAIT_CTX *context, struct wake *w) {
    if (changes(context) == 0) {
        hide(context, w);
        if (!show(context, w)) return false;
    }
    ossl.ASYNC_pause_job();
    return changes(context) == 0;
}

/* False: the job was not paused, because pausing is blocked. */
static bool pause_once(ASYNC_WAIT_CTX *context, struct wake *w) {
    count_up(&counters.pauses);
    struct pauser *p = current;
    if (p == NULL) return pause_and_prove(context, w);
    unsigned entries = p->entries;
    p->frame = __builtin_frame_address(0);
    ossl.ASYNC_pause_job();
    p->frame = NULL;
    return p->entries != entries;
}

static bool cancelled(void) {
    return current != NULL && current->cancelled;
}

/* The engine can block. */
static void wait_for_answer(struct op *op) {
    struct engine *e = op->key->engine;
    if (e->kind->help != NULL)
        e->kind->help(e, op);
    else
        wake_wait(op->wake);
}

/*
 * The op is submitted. It pauses once even if the engine was quicker than this line: whether a handshake
 * parks does not depend on the scheduler. The signal is taken back before the op is looked at again: one
 * that comes later resumes again.
 */
static shim_status wait_in_job(struct op *op, ASYNC_WAIT_CTX *context) {
    do {
        if (pause_once(context, op->wake)) {
            wake_clear(op->wake);
        } else if (op->key->engine->kind->can_block) {
            wait_for_answer(op);
        } else {
            return SHIM_ERR_NO_JOB;
        }
        if (cancelled()) return SHIM_ERR_CANCELLED;
    } while (!op_is_done(op));
    return op->status;
}

static shim_status wait_on_thread(struct op *op) {
    while (!op_is_done(op)) wait_for_answer(op);
    return op->status;
}

static shim_status submit_and_wait(struct op *op, ASYNC_WAIT_CTX *context) {
    struct engine *e = op->key->engine;
    shim_status status = engine_submit(e, op);
    if (status != SHIM_OK) return status;
    status = context != NULL ? wait_in_job(op, context) : wait_on_thread(op);
    if (!op_is_done(op)) engine_cancel(e, op);
    return status;
}

/* The pauser knows the op while it is in flight, so that cancelling finds it. */
static shim_status run_in_job(struct op *op, ASYNC_WAIT_CTX *context) {
    struct pauser *p = current;
    if (!show(context, op->wake)) return SHIM_ERR_MEMORY;
    op->echo = echo_of(context);
    if (p != NULL) p->op = op;
    shim_status status = submit_and_wait(op, context);
    if (p != NULL) p->op = NULL;
    hide(context, op->wake);
    return status;
}

shim_status pause_for(struct op *op) {
    if (cancelled()) return SHIM_ERR_CANCELLED;
    ASYNC_JOB *job = ossl.ASYNC_get_current_job();
    if (job == NULL && !op->key->engine->kind->can_block) return SHIM_ERR_NO_JOB;
    if (engine_performs_at_once(op->key->engine, op)) return op->status;
    op->wake = wake_new();
    if (op->wake == NULL) return SHIM_ERR_SYSTEM;
    return job != NULL ? run_in_job(op, ossl.ASYNC_get_wait_ctx(job)) : submit_and_wait(op, NULL);
}

/* Nobody performs a question, so there is nothing to wait for where no pausing is possible. */
static shim_status wait_for_verdict(const struct question *q, ASYNC_WAIT_CTX *context) {
    do {
        if (!pause_once(context, q->wake)) return SHIM_ERR_NO_JOB;
        wake_clear(q->wake);
        if (cancelled()) return SHIM_ERR_CANCELLED;
    } while (question_verdict(q) == QUESTION_OPEN);
    return SHIM_OK;
}

shim_status pause_for_answer(struct question *q) {
    if (cancelled()) return SHIM_ERR_CANCELLED;
    ASYNC_JOB *job = ossl.ASYNC_get_current_job();
    struct pauser *p = current;
    if (job == NULL || p == NULL) return SHIM_ERR_NO_JOB;
    ASYNC_WAIT_CTX *context = ossl.ASYNC_get_wait_ctx(job);
    q->wake = wake_new();
    if (q->wake == NULL) return SHIM_ERR_SYSTEM;
    if (!show(context, q->wake)) return SHIM_ERR_MEMORY;
    q->echo = echo_of(context);
    p->question = q;
    shim_status status = wait_for_verdict(q, context);
    p->question = NULL;
    hide(context, q->wake);
    return status;
}
