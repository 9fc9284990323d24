/*
 * engine_signer.c: an engine whose ops somebody else answers: Python, an HSM, another machine.
 *
 * Ops are queued as everywhere. Whoever answers takes them, waiting for a descriptor (a loop) or in signer_take() (a
 * worker thread), and answers each at any time, in any order, on any thread (request.c). Nothing is performed here.
 *
 * One thread of the engine's, the keeper, ends what nobody has answered in time. All ops have the same time from their
 * submission, so the oldest one is the next to expire; it sleeps until then, and however many come and go meanwhile do not
 * wake it.
 *
 * Who has work under way for a request may ask to be told when nobody waits for it any more. What is told is numbers, and
 * of a bounded count: an op would keep its key, and that its engine. Who falls behind is told so, and looks at each.
 */
#include "engine_signer.h"

#include <string.h>

#include "fork.h"
#include "key.h"
#include "wake.h"

/* Requests that ended while their signer had them: cancelled, or too late. */
struct ended {
    struct wake *wake; /* a reference; NULL: nobody has asked to be told */
    bool shown;
    size_t count; /* the first of them are in `ids` */
    uint64_t ids[SIGNER_ENDED_MOST];
};

struct signer {
    struct engine engine;
    uint64_t patience_ns; /* immutable */
    /* Under the lock. */
    struct op_list taken;
    pthread_cond_t arrived; /* something was queued, or the engine was closed */
    struct wake *wake;      /* a reference; NULL: no descriptor is to be had */
    bool shown;             /* it is signalled */
    bool idle;              /* the keeper waits for the next op, not for a deadline */
    uint64_t last_id;
    struct ended ended;
    struct signer_times times;
};

/* 1-2-5 steps from 0.1 ms to 50 s. */
static const uint64_t bounds[SIGNER_TIME_BOUNDS] = {
    100000,    200000,    500000,    1000000,    2000000,    5000000,    10000000,    20000000,    50000000,
    100000000, 200000000, 500000000, 1000000000, 2000000000, 5000000000, 10000000000, 20000000000, 50000000000,
};

static struct signer *of(const struct engine *e) {
    return (struct signer *)(uintptr_t)e;
}

static struct signer *signer_of(const struct op *op) {
    return of(op->key->engine);
}

static void observe(uint64_t counts[SIGNER_TIME_BOUNDS + 1], uint64_t *sum, uint64_t ns) {
    size_t i = 0;
    while (i < SIGNER_TIME_BOUNDS && ns > bounds[i]) i++;
    counts[i]++;
    *sum += ns;
}

/* Under the lock. */
static void show_as(struct wake *wake, bool *shown, bool wanted) {
    if (wanted == *shown || wake == NULL) return;
    if (wanted)
        wake_signal(wake);
    else
        wake_take(wake);
    *shown = wanted;
}

/* Under the lock. */
static void show(struct signer *s) {
    show_as(s->wake, &s->shown, s->engine.closed || s->engine.queued.first != NULL);
}

/* Under the lock. */
static void show_ended(struct signer *s) {
    show_as(s->ended.wake, &s->ended.shown, s->engine.closed || s->ended.count > 0);
}

/* Each taker wakes the next one, so that one signal will do. */
static void look(struct engine *e) {
    struct signer *s = of(e);
    show(s);
    show_ended(s);
    if (e->closed)
        pthread_cond_broadcast(&s->arrived);
    else if (e->queued.first != NULL)
        pthread_cond_signal(&s->arrived);
    if (s->idle) pthread_cond_signal(&e->changed);
}

/* Under the lock. */
static void note_ended(struct signer *s, uint64_t id) {
    struct ended *ended = &s->ended;
    if (ended->wake == NULL) return;
    if (ended->count < SIGNER_ENDED_MOST) ended->ids[ended->count] = id;
    if (ended->count <= SIGNER_ENDED_MOST) ended->count++;
    show_ended(s);
}

static void remove_held(struct engine *e, struct op *op) {
    op_list_remove(&of(e)->taken, op);
    note_ended(of(e), op->request.id);
}

static void release_held(struct engine *e, struct op_list *out) {
    struct op *op;
    while ((op = op_list_pop(&of(e)->taken)) != NULL) op_list_push(out, op, OP_NOWHERE);
}

/* The parent's descriptor is the parent's. */
static void forked(struct engine *e) {
    struct signer *s = of(e);
    engine_init_condition(&s->arrived);
    wake_unref(s->wake);
    s->wake = wake_new();
    s->shown = s->idle = false;
    s->times = (struct signer_times){.taken = 0};
    show(s);
    bool told = s->ended.wake != NULL;
    wake_unref(s->ended.wake);
    s->ended = (struct ended){.wake = told ? wake_new() : NULL};
    show_ended(s);
}

static void clear(struct engine *e) {
    pthread_cond_destroy(&of(e)->arrived);
    wake_unref(of(e)->wake);
    wake_unref(of(e)->ended.wake);
}

static const struct op *older(const struct op *one, const struct op *other) {
    if (one == NULL || other == NULL) return one != NULL ? one : other;
    return one->submitted_ns <= other->submitted_ns ? one : other;
}

/* Under the lock. Each list is in the order of submission. NULL: nobody waits. */
static struct op *oldest(const struct signer *s) {
    const struct engine *e = &s->engine;
    return (struct op *)(uintptr_t)older(s->taken.first, older(e->queued.first, e->waiting.first));
}

static void expire(struct engine *e, struct op *op) {
    of(e)->times.expired++;
    op->request.expired = true;
    engine_give_up(e, op, SHIM_ERR_EXPIRED, "");
}

static void rest(struct signer *s) {
    s->idle = true;
    pthread_cond_wait(&s->engine.changed, &s->engine.lock);
    s->idle = false;
}

/* The keeper. */
static void work(struct engine *e) {
    while (!e->closed) {
        struct op *op = e->forking ? NULL : oldest(of(e));
        if (op == NULL)
            rest(of(e));
        else if (signer_deadline(op) <= now_ns())
            expire(e, op);
        else
            engine_wait_until(e, &e->changed, signer_deadline(op));
    }
}

/* Whether the answer can come while the asking thread waits is known to whoever answers. */
#define KIND(blocks)                                                                                                   \
    {.name = "signer",                                                                                                 \
     .can_block = (blocks),                                                                                            \
     .work = work,                                                                                                     \
     .remove_held = remove_held,                                                                                       \
     .release_held = release_held,                                                                                     \
     .look = look,                                                                                                     \
     .forked = forked,                                                                                                 \
     .clear = clear}
static const struct engine_kind on_this_thread = KIND(0), elsewhere = KIND(1);

struct engine *engine_new_signer(size_t capacity, double seconds, int can_block) {
    const struct engine_kind *kind = can_block ? &elsewhere : &on_this_thread;
    struct wake *wake = wake_new();
    struct engine *e = wake != NULL ? engine_create(kind, sizeof(struct signer), capacity, 1) : NULL;
    if (e == NULL) {
        wake_unref(wake);
        return NULL;
    }
    of(e)->patience_ns = (uint64_t)(seconds * 1e9);
    of(e)->wake = wake;
    if (engine_init_condition(&of(e)->arrived) == 0) return e;
    engine_free(e);
    return NULL;
}

/* A forked child may have had none to be had. */
int signer_fd(struct engine *e) {
    pthread_mutex_lock(&e->lock);
    if (of(e)->wake == NULL) of(e)->wake = wake_new();
    show(of(e));
    int fd = of(e)->wake != NULL ? wake_fd(of(e)->wake) : -1;
    pthread_mutex_unlock(&e->lock);
    return fd;
}

int signer_ended_fd(struct engine *e) {
    struct ended *ended = &of(e)->ended;
    pthread_mutex_lock(&e->lock);
    if (ended->wake == NULL) ended->wake = wake_new();
    show_ended(of(e));
    int fd = ended->wake != NULL ? wake_fd(ended->wake) : -1;
    pthread_mutex_unlock(&e->lock);
    return fd;
}

int signer_take_ended(struct engine *e, uint64_t *ids, size_t *count) {
    struct ended *ended = &of(e)->ended;
    pthread_mutex_lock(&e->lock);
    int status = e->closed ? SHIM_ERR_CLOSED : SHIM_OK;
    *count = ended->count;
    memcpy(ids, ended->ids, sizeof ended->ids);
    ended->count = 0;
    show_ended(of(e));
    pthread_mutex_unlock(&e->lock);
    return status;
}

uint64_t signer_deadline(const struct op *op) {
    return op->submitted_ns + signer_of(op)->patience_ns;
}

/* Under the lock. */
static void hold(struct signer *s, struct op *op) {
    op_list_push(&s->taken, op, OP_HELD);
    op->request.id = ++s->last_id;
    op->request.taken_ns = now_ns();
    op->request.generation = fork_generation();
    s->times.taken++;
    observe(s->times.queue_counts, &s->times.queue_ns, op->request.taken_ns - op->submitted_ns);
}

/* Under the lock. NULL: nothing is there. */
static struct op *take(struct signer *s) {
    struct op *op = engine_take(&s->engine);
    if (op != NULL) {
        hold(s, op);
        if (s->engine.queued.first != NULL) pthread_cond_signal(&s->arrived);
    }
    show(s);
    return op;
}

/* Under the lock, which it lets go of meanwhile. False: the time is over. */
static bool wait_for_more(struct signer *s, uint64_t until_ns) {
    if (until_ns == UINT64_MAX) {
        pthread_cond_wait(&s->arrived, &s->engine.lock);
        return true;
    }
    if (until_ns <= now_ns()) return false;
    engine_wait_until(&s->engine, &s->arrived, until_ns);
    return true;
}

int signer_take(struct engine *e, double seconds, struct op **out) {
    uint64_t until_ns = seconds < 0 ? UINT64_MAX : now_ns() + (uint64_t)(seconds * 1e9);
    struct op *op = NULL;
    pthread_mutex_lock(&e->lock);
    while (!e->closed && (op = take(of(e))) == NULL && wait_for_more(of(e), until_ns)) continue;
    *out = op != NULL ? op_ref(op) : NULL;
    int status = e->closed && op == NULL ? SHIM_ERR_CLOSED : SHIM_OK;
    pthread_mutex_unlock(&e->lock);
    return status;
}

struct op *signer_find(struct engine *e, uint64_t id, uint64_t *last) {
    pthread_mutex_lock(&e->lock);
    struct op *op = of(e)->taken.first;
    while (op != NULL && op->request.id != id) op = op->next;
    if (op != NULL) op_ref(op);
    *last = of(e)->last_id;
    pthread_mutex_unlock(&e->lock);
    return op;
}

void signer_times(struct engine *e, struct signer_times *out) {
    pthread_mutex_lock(&e->lock);
    *out = of(e)->times;
    pthread_mutex_unlock(&e->lock);
}

const uint64_t *signer_time_bounds(void) {
    return bounds;
}

/* What has neither expired nor was given up, somebody has answered, or is doing it at this moment. */
shim_status signer_state(const struct op *op) {
    if (op->request.generation != fork_generation()) return SHIM_ERR_FORKED;
    if (op->place == OP_HELD) return SHIM_OK;
    return op->cancelled || op->request.expired || op->key->engine->closed ? SHIM_ERR_LATE : SHIM_ERR_DOUBLE;
}

shim_status signer_claim(struct op *op) {
    shim_status state = signer_state(op);
    if (state != SHIM_OK) return state;
    op_list_remove(&signer_of(op)->taken, op);
    op->place = OP_TAKEN;
    return SHIM_OK;
}

void signer_count_wrong(struct op *op) {
    signer_of(op)->times.wrong++;
}

void signer_deliver(struct op *op, enum signer_outcome outcome) {
    struct signer_times *t = &signer_of(op)->times;
    uint64_t now = now_ns();
    if (outcome == SIGNER_COMPLETED) t->completed++;
    if (outcome == SIGNER_REFUSED) t->refused++;
    observe(t->run_counts, &t->run_ns, now - op->request.taken_ns);
    observe(t->total_counts, &t->total_ns, now - op->submitted_ns);
    engine_deliver(op->key->engine, op);
}
