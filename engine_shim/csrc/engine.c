#include "engine.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "fork.h"
#include "ossl.h"

int engine_init_condition(pthread_cond_t *condition) {
    pthread_condattr_t attributes;
    int failed = pthread_condattr_init(&attributes);
    if (failed) return failed;
    failed = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (!failed) failed = pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
    return failed;
}

struct engine *engine_create(const struct engine_kind *kind, size_t size, size_t capacity, unsigned workers) {
    struct engine *e = calloc(1, size);
    if (e == NULL) return NULL;
    e->kind = kind;
    e->capacity = capacity;
    e->workers_wanted = workers;
    e->in_progress = SIZE_MAX;
    atomic_init(&e->refs, 1);
    if (pthread_mutex_init(&e->lock, NULL) || engine_init_condition(&e->changed) || engine_init_condition(&e->ended)) {
        free(e); /* glibc's initialisers own nothing */
        return NULL;
    }
    fork_register(e);
    count_up(&counters.engines_alive);
    return e;
}

static void destroy(struct engine *e) {
    fork_unregister(e);
    if (e->kind->clear != NULL) e->kind->clear(e);
    pthread_cond_destroy(&e->changed);
    pthread_cond_destroy(&e->ended);
    pthread_mutex_destroy(&e->lock);
    free(e);
    count_down(&counters.engines_alive);
}

struct engine *engine_ref(struct engine *e) {
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    return e;
}

/* Every op holds a key and every key its engine: an orphan has no ops. */
void engine_free(struct engine *e) {
    if (e == NULL || atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1) return;
    pthread_mutex_lock(&e->lock);
    e->orphan = e->closed = true;
    bool last = e->workers == 0;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
    if (last) destroy(e);
}

const char *engine_name(const struct engine *e) {
    return e->kind->name;
}

int engine_can_block(const struct engine *e) {
    return e->kind->can_block;
}

/*
 * Workers give way to the loop where there are more threads than cores: those who are being served come before those who
 * want to be. Three to one, so that a machine full of other work does not starve handshakes. Linux has one nice value a
 * thread (sched(7)).
 */
enum { GIVES_WAY = 5 };

static void *worker(void *argument) {
    struct engine *e = argument;
    (void)!nice(GIVES_WAY);
    pthread_mutex_lock(&e->lock);
    e->kind->work(e);
    pthread_mutex_unlock(&e->lock);
    ossl.OPENSSL_thread_stop(); /* OpenSSL's state of this thread goes before anybody counts it as ended */
    pthread_mutex_lock(&e->lock);
    bool last = --e->workers == 0 && e->orphan;
    pthread_cond_broadcast(&e->ended);
    pthread_mutex_unlock(&e->lock);
    if (last) destroy(e);
    fork_worker_ended();
    return NULL;
}

/* Under the lock. Signals stay with Python's threads. */
static int start_worker(struct engine *e) {
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;
    if (pthread_attr_init(&attributes) != 0) return -1;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, &attributes, worker, e);
    if (!failed) pthread_setname_np(thread, "tls-engine");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (!failed) {
        e->workers++;
        fork_worker_started();
    }
    errno = failed;
    return failed;
}

/* Under the lock. Workers start with the first op, so that a fork before it costs nothing; fewer than wanted will do. */
static shim_status need_workers(struct engine *e) {
    while (e->workers < e->workers_wanted && start_worker(e) == 0) continue;
    return e->workers > 0 || e->workers_wanted == 0 ? SHIM_OK : SHIM_ERR_SYSTEM;
}

/* Under the lock. */
static void queue_op(struct engine *e, struct op *op) {
    op_list_push(&e->queued, op_ref(op), OP_QUEUED);
    if (e->kind->look != NULL)
        e->kind->look(e);
    else
        pthread_cond_signal(&e->changed);
}

/* Under the lock: an op has left the queue that nobody took out of it. */
static void queue_is_shorter(struct engine *e) {
    if (e->kind->look != NULL) e->kind->look(e);
}

/* Under the lock. */
static void admit_waiting(struct engine *e) {
    struct op *op = op_list_pop(&e->waiting);
    if (op != NULL) queue_op(e, op);
}

/* Under the lock. */
static shim_status accept_op(struct engine *e, struct op *op) {
    if (e->closed) return SHIM_ERR_CLOSED;
    shim_status status = need_workers(e);
    if (status != SHIM_OK) return status;
    struct engine_statistics *s = &e->statistics;
    s->submitted++;
    if (e->queued.length < e->capacity) {
        queue_op(e, op);
    } else {
        op_list_push(&e->waiting, op, OP_WAITING);
        s->queue_full++;
    }
    uint64_t now = e->queued.length + e->waiting.length + s->in_flight;
    if (now > s->in_flight_max) s->in_flight_max = now;
    return SHIM_OK;
}

shim_status engine_submit(struct engine *e, struct op *op) {
    op->submitted_ns = now_ns();
    pthread_mutex_lock(&e->lock);
    shim_status status = accept_op(e, op);
    pthread_mutex_unlock(&e->lock);
    return status;
}

bool engine_take_this(struct engine *e, struct op *op) {
    if (e->forking) return false;
    bool makes_room = op->place == OP_QUEUED;
    op_list_remove(makes_room ? &e->queued : &e->waiting, makes_room ? op : op_ref(op));
    op->place = OP_TAKEN;
    e->statistics.in_flight++;
    if (makes_room) admit_waiting(e);
    return true;
}

struct op *engine_take(struct engine *e) {
    struct op *op = e->queued.first;
    return op != NULL && engine_take_this(e, op) ? op : NULL;
}

void engine_wait_for_fork(struct engine *e) {
    while (e->forking) pthread_cond_wait(&e->changed, &e->lock);
}

void engine_busy_begin(struct engine *e) {
    e->busy++;
    pthread_mutex_unlock(&e->lock);
}

void engine_busy_end(struct engine *e) {
    pthread_mutex_lock(&e->lock);
    if (--e->busy == 0) pthread_cond_broadcast(&e->ended);
}

/* Under the lock, which it lets go of meanwhile. */
static void perform_at_once(struct engine *e, struct op *op) {
    e->statistics.submitted++;
    e->statistics.in_flight++;
    engine_perform(e, op);
    e->statistics.in_flight--;
    *(op->status == SHIM_OK ? &e->statistics.performed : &e->statistics.failed) += 1;
}

bool engine_performs_at_once(struct engine *e, struct op *op) {
    if (e->kind->at_once == NULL) return false;
    pthread_mutex_lock(&e->lock);
    bool at_once = !e->closed && e->kind->at_once(e, op);
    if (at_once) {
        engine_wait_for_fork(e);
        perform_at_once(e, op);
    }
    pthread_mutex_unlock(&e->lock);
    return at_once;
}

void engine_perform(struct engine *e, struct op *op) {
    engine_busy_begin(e);
    op_perform(op);
    engine_busy_end(e);
}

void engine_deliver(struct engine *e, struct op *op) {
    struct engine_statistics *s = &e->statistics;
    s->in_flight--;
    if (!op->cancelled) *(op->status == SHIM_OK ? &s->performed : &s->failed) += 1;
    op->place = OP_NOWHERE;
    engine_busy_begin(e);
    op_finish(op);
    op_unref(op);
    engine_busy_end(e);
}

void engine_give_up(struct engine *e, struct op *op, shim_status status, const char *reason) {
    if (op->place == OP_HELD)
        e->kind->remove_held(e, op);
    else if (!engine_take_this(e, op))
        return;
    else
        queue_is_shorter(e);
    op->place = OP_TAKEN;
    op_fail(op, status, reason);
    engine_deliver(e, op);
}

/* Under the lock. True: the engine's reference is now the caller's to give back. */
static bool unlink_op(struct engine *e, struct op *op) {
    switch (op->place) {
    case OP_WAITING:
        op_list_remove(&e->waiting, op);
        return false;
    case OP_QUEUED:
        op_list_remove(&e->queued, op);
        admit_waiting(e);
        queue_is_shorter(e);
        return true;
    case OP_HELD:
        e->kind->remove_held(e, op);
        e->statistics.in_flight--;
        return true;
    case OP_TAKEN: /* its worker lets go of it */
    case OP_NOWHERE:
    default:
        return false;
    }
}

void engine_cancel(struct engine *e, struct op *op) {
    pthread_mutex_lock(&e->lock);
    bool unlinked = false;
    if (!op->cancelled && op->place != OP_NOWHERE) { /* at OP_NOWHERE its outcome is counted already */
        op->cancelled = true;
        e->statistics.cancelled++;
        unlinked = unlink_op(e, op);
    }
    pthread_mutex_unlock(&e->lock);
    if (unlinked) op_unref(op);
}

void engine_statistics(struct engine *e, struct engine_statistics *out) {
    pthread_mutex_lock(&e->lock);
    *out = e->statistics;
    out->queued = e->queued.length;
    out->waiting = e->waiting.length;
    pthread_mutex_unlock(&e->lock);
}

/* Under the lock. Everything that no worker has in hand, each with a reference of the caller's. */
static struct op_list give_up(struct engine *e) {
    struct op_list given = {0};
    struct op *op;
    if (e->kind->release_held != NULL) e->kind->release_held(e, &given);
    e->statistics.in_flight -= given.length;
    while ((op = op_list_pop(&e->queued)) != NULL) op_list_push(&given, op, OP_NOWHERE);
    while ((op = op_list_pop(&e->waiting)) != NULL) op_list_push(&given, op_ref(op), OP_NOWHERE);
    e->statistics.failed += given.length;
    return given;
}

/* The ops are at OP_NOWHERE: a connection that cancels one meanwhile leaves the links alone. */
static void fail_all(struct op_list *given) {
    struct op *op;
    while ((op = op_list_pop(given)) != NULL) {
        op_fail(op, SHIM_ERR_CLOSED, "the engine was closed");
        op_finish(op);
        op_unref(op);
    }
}

/* A century is for ever, and does not overflow; less than nothing (or no number) is nothing. */
static struct timespec from_now(double seconds) {
    const double longest = 3e9;
    if (!(seconds > 0)) seconds = 0;
    if (seconds > longest) seconds = longest;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    long long ns = until.tv_nsec + (long long)(seconds * 1e9);
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    return until;
}

void engine_wait_until(struct engine *e, pthread_cond_t *condition, uint64_t due_ns) {
    struct timespec until = {.tv_sec = (time_t)(due_ns / 1000000000u), .tv_nsec = (long)(due_ns % 1000000000u)};
    pthread_cond_timedwait(condition, &e->lock, &until);
}

/* Under the lock, which it lets go of meanwhile: until `count` is zero or the time is over. */
static int wait_for_none(struct engine *e, const unsigned *count, double seconds) {
    struct timespec until = from_now(seconds);
    while (*count > 0)
        if (pthread_cond_timedwait(&e->ended, &e->lock, &until) != 0) break;
    return *count == 0;
}

/* Under the lock. */
static void wake_all(struct engine *e) {
    pthread_cond_broadcast(&e->changed);
    if (e->kind->look != NULL) e->kind->look(e);
}

int engine_close(struct engine *e, double timeout) {
    struct op_list given = {0};
    pthread_mutex_lock(&e->lock);
    if (!e->closed) given = give_up(e);
    e->closed = true;
    wake_all(e);
    pthread_mutex_unlock(&e->lock);
    fail_all(&given);
    pthread_mutex_lock(&e->lock);
    int ended = wait_for_none(e, &e->workers, timeout);
    pthread_mutex_unlock(&e->lock);
    return ended;
}

/*
 * A worker inside OpenSSL may hold one of its locks (a key's blinding, the store of algorithms), which the child
 * would find locked for ever: so workers begin nothing while we fork, and what they have in hand is waited for.
 */
void engine_fork_announce(struct engine *e) {
    pthread_mutex_lock(&e->lock);
    e->forking = true;
    pthread_mutex_unlock(&e->lock);
}

void engine_fork_prepare(struct engine *e, double seconds) {
    pthread_mutex_lock(&e->lock);
    wait_for_none(e, &e->busy, seconds);
}

void engine_fork_parent(struct engine *e) {
    e->forking = false;
    wake_all(e);
    pthread_mutex_unlock(&e->lock);
}

/* The parent's ops are the parent's: the child forgets them, it must not finish them, nor find them in a list. */
void engine_fork_child(struct engine *e) {
    while (op_list_pop(&e->queued) != NULL) continue;
    while (op_list_pop(&e->waiting) != NULL) continue;
    if (e->kind->release_held != NULL) e->kind->release_held(e, &(struct op_list){0});
    e->statistics = (struct engine_statistics){0};
    e->workers = e->busy = 0;
    e->forking = false;
    engine_init_condition(&e->changed);
    engine_init_condition(&e->ended);
    if (e->kind->forked != NULL) e->kind->forked(e);
    pthread_mutex_unlock(&e->lock);
}
