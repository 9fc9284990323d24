/*
 * engine_latency.c: a simulated accelerator. Ops are performed at once on a thread of its
 * own and held until `seconds` after their submission; any number is in flight.
 */
#include "engine.h"

struct latency {
    struct engine engine;
    uint64_t delay_ns;
    struct op_list held; /* performed, by due time; under the lock */
};

static struct latency *of(struct engine *e) {
    return (struct latency *)e;
}

/* Under the lock. With several workers ops finish out of order; they are delivered in order. */
static void hold(struct latency *l, struct op *op) {
    struct op *before = l->held.last;
    while (before != NULL && before->submitted_ns > op->submitted_ns) before = before->previous;
    op_list_insert_after(&l->held, before, op, OP_HELD);
}

/* Under the lock, which it lets go of meanwhile. */
static void deliver_first(struct latency *l) {
    struct op *op = op_list_pop(&l->held);
    op->place = OP_TAKEN;
    engine_deliver(&l->engine, op);
}

/* Under the lock, which it lets go of meanwhile. What nobody waits for any more is not held. */
static void perform_one(struct latency *l, struct op *op) {
    engine_perform(&l->engine, op);
    if (!op->cancelled && !l->engine.closed) {
        hold(l, op);
        return;
    }
    if (l->engine.closed) op_fail(op, SHIM_ERR_CLOSED, "the engine was closed");
    engine_deliver(&l->engine, op);
}

static void work(struct engine *e) {
    struct latency *l = of(e);
    while (!e->closed) {
        struct op *op;
        if (e->forking) {
            pthread_cond_wait(&e->changed, &e->lock);
            continue;
        }
        uint64_t due_ns = l->held.first != NULL ? l->held.first->submitted_ns + l->delay_ns : UINT64_MAX;
        if (due_ns <= now_ns())
            deliver_first(l);
        else if ((op = engine_take(e)) != NULL)
            perform_one(l, op);
        else if (due_ns != UINT64_MAX)
            engine_wait_until(e, &e->changed, due_ns);
        else
            pthread_cond_wait(&e->changed, &e->lock);
    }
}

static void remove_held(struct engine *e, struct op *op) {
    op_list_remove(&of(e)->held, op);
}

static void release_held(struct engine *e, struct op_list *out) {
    struct op *op;
    while ((op = op_list_pop(&of(e)->held)) != NULL) op_list_push(out, op, OP_NOWHERE);
}

static const struct engine_kind latency = {
    .name = "latency",
    .can_block = 1,
    .work = work,
    .remove_held = remove_held,
    .release_held = release_held,
};

struct engine *engine_new_latency(double seconds, unsigned workers) {
    struct engine *e = engine_create(&latency, sizeof(struct latency), SIZE_MAX, workers);
    if (e != NULL) of(e)->delay_ns = (uint64_t)(seconds * 1e9);
    return e;
}
