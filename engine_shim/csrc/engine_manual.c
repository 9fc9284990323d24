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

/* Takes the op at `index` out of the queue, as engine_take() does for the first. NULL: out of range. */
static struct op *take_at(struct engine *e, size_t index) {
    pthread_mutex_lock(&e->lock);
    struct op *op = op_list_at(&e->queued, index);
    if (op != NULL) {
        op_list_remove(&e->queued, op);
        op->place = OP_TAKEN;
        e->statistics.in_flight++;
    }
    pthread_mutex_unlock(&e->lock);
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

int manual_perform(struct engine *e, size_t index) {
    struct op *op = take_at(e, index);
    if (op == NULL) return SHIM_ERR_RANGE;
    op_perform(op);
    engine_deliver(e, op);
    return SHIM_OK;
}

int manual_fail(struct engine *e, size_t index) {
    struct op *op = take_at(e, index);
    if (op == NULL) return SHIM_ERR_RANGE;
    op_fail(op, SHIM_ERR_FAILED, "told to fail");
    engine_deliver(e, op);
    return SHIM_OK;
}

int manual_begin(struct engine *e, size_t index) {
    struct op *op = take_at(e, index);
    if (op == NULL) return SHIM_ERR_RANGE;
    op_perform(op);
    pthread_mutex_lock(&e->lock);
    op_list_push(&of(e)->begun, op, OP_HELD);
    pthread_mutex_unlock(&e->lock);
    return SHIM_OK;
}

int manual_deliver(struct engine *e, size_t index) {
    pthread_mutex_lock(&e->lock);
    struct op *op = op_list_at(&of(e)->begun, index);
    if (op != NULL) {
        op_list_remove(&of(e)->begun, op);
        op->place = OP_TAKEN;
    }
    pthread_mutex_unlock(&e->lock);
    if (op == NULL) return SHIM_ERR_RANGE;
    engine_deliver(e, op);
    return SHIM_OK;
}

int manual_wake(struct engine *e, size_t index) {
    pthread_mutex_lock(&e->lock);
    struct op *op = op_list_at(&e->queued, index);
    if (op != NULL) wake_signal(op->wake);
    pthread_mutex_unlock(&e->lock);
    return op != NULL ? SHIM_OK : SHIM_ERR_RANGE;
}
