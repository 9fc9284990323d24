/*
 * engine_manual.c: the engine of the tests. It performs only when told to, on the thread
 * that tells it, in the order told. What is pending is queued; what is begun is held.
 */
#include "engine.h"
#include "wake.h"

struct manual {
    struct engine engine;
    struct op_list begun; /* performed, not delivered; under the lock */
};

static struct manual *of(struct engine *e) {
    return (struct manual *)e;
}

static void remove_held(struct engine *e, struct op *op) {
    op_list_remove(&of(e)->begun, op);
}

static void release_held(struct engine *e, struct op_list *out) {
    struct op *op;
    while ((op = op_list_pop(&of(e)->begun)) != NULL) op_list_push(out, op, OP_NOWHERE);
}

static const struct engine_kind manual = {
    .name = "manual",
    .can_block = 0, /* the thread that waits may be the one that must tell it to perform */
    .remove_held = remove_held,
    .release_held = release_held,
};

struct engine *engine_new_manual(void) {
    return engine_create(&manual, sizeof(struct manual), SIZE_MAX, 0);
}

/* Under the lock: takes the op at `index` out of the queue. NULL: out of range. */
static struct op *take_at(struct engine *e, size_t index) {
    struct op *op = op_list_at(&e->queued, index);
    if (op == NULL) return NULL;
    op_list_remove(&e->queued, op);
    op->place = OP_TAKEN;
    e->statistics.in_flight++;
    return op;
}

static size_t length_of(struct engine *e, const struct op_list *list) {
    pthread_mutex_lock(&e->lock);
    size_t length = list->length;
    pthread_mutex_unlock(&e->lock);
    return length;
}

size_t manual_pending(struct engine *e) {
    return length_of(e, &e->queued);
}

size_t manual_begun(struct engine *e) {
    return length_of(e, &of(e)->begun);
}

/* Under the lock, which they let go of meanwhile. */
static void perform_and_deliver(struct engine *e, struct op *op) {
    engine_perform(e, op);
    engine_deliver(e, op);
}

static void fail_and_deliver(struct engine *e, struct op *op) {
    op_fail(op, SHIM_ERR_FAILED, "told to fail");
    engine_deliver(e, op);
}

static void perform_and_hold(struct engine *e, struct op *op) {
    engine_perform(e, op);
    if (op->cancelled)
        engine_deliver(e, op);
    else
        op_list_push(&of(e)->begun, op, OP_HELD);
}

static int with_pending(struct engine *e, size_t index, void (*act)(struct engine *e, struct op *op)) {
    pthread_mutex_lock(&e->lock);
    struct op *op = take_at(e, index);
    if (op != NULL) act(e, op);
    pthread_mutex_unlock(&e->lock);
    return op != NULL ? SHIM_OK : SHIM_ERR_RANGE;
}

int manual_perform(struct engine *e, size_t index) {
    return with_pending(e, index, perform_and_deliver);
}

int manual_fail(struct engine *e, size_t index) {
    return with_pending(e, index, fail_and_deliver);
}

int manual_begin(struct engine *e, size_t index) {
    return with_pending(e, index, perform_and_hold);
}

int manual_deliver(struct engine *e, size_t index) {
    pthread_mutex_lock(&e->lock);
    struct op *op = op_list_at(&of(e)->begun, index);
    if (op != NULL) {
        op_list_remove(&of(e)->begun, op);
        op->place = OP_TAKEN;
        engine_deliver(e, op);
    }
    pthread_mutex_unlock(&e->lock);
    return op != NULL ? SHIM_OK : SHIM_ERR_RANGE;
}

int manual_wake(struct engine *e, size_t index) {
    pthread_mutex_lock(&e->lock);
    struct op *op = op_list_at(&e->queued, index);
    if (op != NULL) op_ref(op);
    pthread_mutex_unlock(&e->lock);
    if (op == NULL) return SHIM_ERR_RANGE;
    wake_signal(op->wake);
    op_unref(op);
    return SHIM_OK;
}
