#include "operations.h"

#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "fork.h"
#include "key.h"
#include "ossl_types.h"
#include "thread_jobs.h"
#include "wake.h"

struct operations {
    atomic_uint refs;               /* Python's, and one of each op */
    struct wake *wake;              /* a reference */
    _Atomic(struct op *) collected; /* the latest first; `closed` once and for good */
    struct op *ready;               /* taken from there, the earliest first; the owner's thread only */
    uint64_t thread;                /* the owner's: thread_jobs_self() */
    unsigned generation;
};

/* Stands where the list was. */
static struct op closed;

struct operations *operations_new(void) {
    struct operations *o = calloc(1, sizeof *o);
    if (o == NULL) return NULL;
    o->wake = wake_new();
    if (o->wake == NULL) {
        free(o);
        return NULL;
    }
    atomic_init(&o->refs, 1);
    o->thread = thread_jobs_self();
    o->generation = fork_generation();
    return o;
}

void operations_unref(struct operations *o) {
    if (o == NULL || atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) != 1) return;
    wake_unref(o->wake);
    free(o);
}

int operations_check(const struct operations *o) {
    if (o->generation != fork_generation()) return SHIM_ERR_FORKED;
    return o->thread == thread_jobs_self() ? SHIM_OK : SHIM_ERR_THREAD;
}

int operations_fd(const struct operations *o) {
    return wake_fd(o->wake);
}

/* Whoever finds the list empty wakes the owner; he takes the signal back before he takes the list, so none is lost. */
void operations_collect(struct op *op) {
    struct operations *o = op->operations;
    struct op *before = atomic_load_explicit(&o->collected, memory_order_relaxed);
    op_ref(op);
    do {
        if (before == &closed) {
            op_unref(op); /* its engine has one more */
            return;
        }
        op->next_finished = before;
    } while (
        !atomic_compare_exchange_weak_explicit(&o->collected, &before, op, memory_order_release, memory_order_relaxed));
    if (before == NULL) wake_signal(o->wake);
}

/* Takes all that was collected behind what is ready, in the order in which it came; leaves `successor` in its place. */
static void gather(struct operations *o, struct op *successor) {
    struct op **end = &o->ready, *turned = NULL;
    struct op *op = atomic_exchange_explicit(&o->collected, successor, memory_order_acquire);
    while (op != NULL && op != &closed) {
        struct op *next = op->next_finished;
        op->next_finished = turned;
        turned = op;
        op = next;
    }
    while (*end != NULL) end = &(*end)->next_finished;
    *end = turned;
}

/* NULL: none is ready. The caller owns the list's reference. */
static struct op *pop(struct operations *o) {
    struct op *op = o->ready;
    if (op != NULL) o->ready = op->next_finished;
    return op;
}

static bool is_closed(const struct operations *o) {
    return atomic_load_explicit(&o->collected, memory_order_relaxed) == &closed;
}

int operations_submit(struct operations *o, struct key *k, const struct operation *asked, struct op **out) {
    if (operations_check(o) != SHIM_OK) return operations_check(o);
    if (is_closed(o)) return SHIM_ERR_CLOSED;
    if (k->engine == NULL) return SHIM_ERR_KEY_TYPE; /* a third party's: no engine of ours performs it */
    struct op_parameters p = {.padding = asked->padding, .salt_length = asked->salt_length};
    p.prehashed = asked->kind == OPERATION_SIGN_DIGEST;
    if (asked->digest != NULL) strncpy(p.digest, asked->digest, sizeof p.digest - 1);
    if (asked->kind == OPERATION_DECRYPT_RAW) p.padding = RSA_NO_PADDING;
    enum op_kind kind = asked->kind == OPERATION_DECRYPT_RAW ? OP_DECRYPT : OP_SIGN;
    struct op *op = op_new(kind, k, &p, asked->input, asked->length);
    if (op == NULL) return SHIM_ERR_MEMORY;
    atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
    op->operations = o;
    op->number = asked->number;
    shim_status status = engine_submit(k->engine, op);
    if (status == SHIM_OK)
        *out = op;
    else
        op_unref(op);
    return (int)status;
}

size_t operations_take(struct operations *o, uint64_t *out, size_t room) {
    size_t count = 0;
    if (is_closed(o)) return 0;
    wake_clear(o->wake);
    gather(o, NULL);
    for (struct op *op; count < room && (op = pop(o)) != NULL; op_unref(op)) out[count++] = op->number;
    if (o->ready != NULL) wake_signal(o->wake); /* no room for the rest: the fd stays readable */
    return count;
}

void operations_close(struct operations *o) {
    struct op *op;
    gather(o, &closed);
    while ((op = pop(o)) != NULL) op_unref(op);
}

void operations_free(struct operations *o) {
    if (o == NULL) return;
    operations_close(o);
    operations_unref(o);
}

int operation_status(const struct op *op) {
    return op_is_done(op) ? (int)op->status : SHIM_ERR_BUSY;
}

const char *operation_reason(const struct op *op) {
    return op_reason(op);
}

size_t operation_output(const struct op *op, void *out, size_t room) {
    if (!op_is_done(op) || op->status != SHIM_OK) return 0;
    if (op->output_length <= room) memcpy(out, op->output, op->output_length);
    return op->output_length;
}

void operation_free(struct op *op) {
    if (op == NULL) return;
    /* One that waits for room is its engine's by a link alone. In a forked child no engine knows it. */
    if (op->operations->generation == fork_generation()) engine_cancel(op->key->engine, op);
    op_unref(op);
}
