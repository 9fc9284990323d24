/*
 * engine_batch.c: whatever waits is taken together, up to eight ops of one class, and performed in the lanes of AVX-512.
 *
 * Facts. Eight lanes cost the same however many are full; so a batch of one costs more than twice an ordinary
 * signature, a full one a third of eight. While a batch is computed, the next one gathers by itself.
 *
 * What it means. Nobody waits for a batch to fill: there is no timer. What has gathered is worth a batch, or OpenSSL
 * performs the oldest op alone, and then one looks again.
 *
 * Decision. The workers take turns like that until the engine is closed. Without workers the loop's thread takes the
 * turns, each at the end of one of its own (batch_turn), at most one batch each; and a batch that is not full may be
 * left for the next turn. There, an op that can hope for no batch does not pause at all: the same thread performs it,
 * now or at the end of the turn. One that cannot pause is performed by the thread that waits for it.
 *
 * Trade-off. With several workers the first one finds a batch and the others what is left of it: more in parallel, but
 * less in lanes. One worker is the default.
 */
#include "engine.h"

#include "batch.h"
#include "costs.h"
#include "wake.h"

struct choice {
    struct op *ops[BATCH_MOST];
    size_t count;
    bool in_lanes;
};

/* Under the lock. The oldest op of the queue and those that can share a batch with it; nothing is taken yet. */
static struct choice gather(const struct engine *e) {
    struct choice c = {.count = 0};
    const struct op *oldest = e->queued.first;
    if (oldest == NULL) return c;
    for (struct op *op = e->queued.first; op != NULL && c.count < BATCH_MOST; op = op->next)
        if (op == oldest || (op->share != BATCH_NONE && op->share == oldest->share)) c.ops[c.count++] = op;
    return c;
}

/* Where lanes cost more than OpenSSL does, the oldest goes alone. */
static void settle(struct choice *c) {
    c->in_lanes = c->count >= costs_pays_from(c->ops[0]->share);
    if (!c->in_lanes) c->count = 1;
}

/* Under the lock. False: a fork is in progress, nothing may begin. */
static bool take(struct engine *e, const struct choice *c) {
    for (size_t i = 0; i < c->count; i++)
        if (!engine_take_this(e, c->ops[i])) return false;
    return true;
}

/* Under the lock, which it lets go of meanwhile. */
static void perform(struct engine *e, const struct choice *c) {
    engine_busy_begin(e);
    unsigned recomputed = 0;
    if (c->in_lanes)
        recomputed = batch_perform(c->ops, c->count);
    else
        op_perform(c->ops[0]);
    engine_busy_end(e);
    if (c->in_lanes) {
        e->statistics.batches++;
        e->statistics.batched += c->count;
        e->statistics.recomputed += recomputed;
    }
    for (size_t i = 0; i < c->count; i++) engine_deliver(e, c->ops[i]);
}

/* Under the lock, which it lets go of meanwhile. False: there was nothing that could be done. */
static bool perform_gathered(struct engine *e, struct choice *c) {
    if (c->count == 0) return false;
    settle(c);
    if (!take(e, c)) return false;
    perform(e, c);
    return true;
}

static void work(struct engine *e) {
    while (!e->closed) {
        struct choice c = gather(e);
        if (!perform_gathered(e, &c)) pthread_cond_wait(&e->changed, &e->lock);
    }
}

/* The op alone, through OpenSSL: its thread may stand on a job's stack, which has no room for lanes. */
static void help(struct engine *e, struct op *op) {
    pthread_mutex_lock(&e->lock);
    while (op->place == OP_QUEUED || op->place == OP_WAITING) {
        if (!engine_take_this(e, op)) {
            pthread_cond_wait(&e->changed, &e->lock);
            continue;
        }
        engine_perform(e, op);
        engine_deliver(e, op);
    }
    pthread_mutex_unlock(&e->lock);
    if (!op_is_done(op)) wake_wait(op->wake); /* in another thread's hands */
}

/*
 * The loop's thread performs in any case: pausing pays only if a batch may come together. One that has begun to gather
 * is not passed by.
 */
static bool at_once(const struct engine *e, const struct op *op) {
    if (e->in_progress == SIZE_MAX || e->queued.length > 0) return false;
    size_t pays_from = costs_pays_from(op->share);
    return pays_from > BATCH_MOST || e->in_progress < pays_from;
}

static const struct engine_kind with_workers = {.name = "batch", .can_block = 1, .batches = 1, .work = work};
static const struct engine_kind with_turns = {
    .name = "batch", .can_block = 1, .batches = 1, .help = help, .at_once = at_once};

struct engine *engine_new_batch(unsigned workers, size_t capacity) {
    return engine_create(workers > 0 ? &with_workers : &with_turns, sizeof(struct engine), capacity, workers);
}

/* Under the lock. A batch with room in it is worth a turn's waiting if others may join; what no batch can have is not. */
static bool may_wait(const struct engine *e, const struct choice *c) {
    return e->queued.length < e->in_progress && c->count > 0 && c->count < BATCH_MOST &&
           costs_pays_from(c->ops[0]->share) <= BATCH_MOST;
}

size_t batch_turn(struct engine *e, size_t in_progress, int patient) {
    uint64_t begun = now_ns();
    pthread_mutex_lock(&e->lock);
    e->in_progress = in_progress;
    struct choice c = gather(e);
    if (!(patient && may_wait(e, &c)) && perform_gathered(e, &c)) {
        uint64_t took = now_ns() - begun;
        if (took > e->statistics.turn_max_ns) e->statistics.turn_max_ns = took;
    }
    size_t left = e->queued.length;
    pthread_mutex_unlock(&e->lock);
    return left;
}
