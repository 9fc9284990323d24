#include "op.h"

#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "key.h"
#include "operations.h"
#include "wake.h"

struct op *op_new(enum op_kind kind, struct key *key, const struct op_parameters *parameters, const void *input,
                  size_t length) {
    struct op *op = calloc(1, sizeof *op);
    if (op == NULL) return NULL;
    op->input = malloc(length > 0 ? length : 1);
    op->output_room = key_output_size(key);
    op->output = malloc(op->output_room);
    if (op->input == NULL || op->output == NULL) {
        free(op->input);
        free(op->output);
        free(op);
        return NULL;
    }
    if (length > 0) memcpy(op->input, input, length);
    op->input_length = length;
    op->kind = kind;
    op->parameters = *parameters;
    op->key = key_ref(key);
    op->share = (unsigned char)batch_class_of(op);
    atomic_init(&op->refs, 1);
    atomic_init(&op->done, false);
    count_up(&counters.ops_alive);
    return op;
}

struct op *op_ref(struct op *op) {
    atomic_fetch_add_explicit(&op->refs, 1, memory_order_relaxed);
    return op;
}

void op_unref(struct op *op) {
    if (op == NULL || atomic_fetch_sub_explicit(&op->refs, 1, memory_order_acq_rel) != 1) return;
    wake_unref(op->wake);
    wake_unref(op->echo);
    operations_unref(op->operations);
    key_unref(op->key);
    wiped_free(op->input, op->input_length);
    wiped_free(op->output, op->output_room);
    free(op);
    count_down(&counters.ops_alive);
}

bool op_is_done(const struct op *op) {
    return atomic_load_explicit(&op->done, memory_order_acquire);
}

const char *op_reason(const struct op *op) {
    return op != NULL && op_is_done(op) ? op->reason : "";
}

void op_fail(struct op *op, shim_status status, const char *reason) {
    op->status = status;
    op->output_length = 0;
    strncpy(op->reason, reason, sizeof op->reason - 1);
}

void op_finish(struct op *op) {
    atomic_store_explicit(&op->done, true, memory_order_release);
    wake_signal(op->wake);
    wake_signal(op->echo);
    if (op->operations != NULL) operations_collect(op);
}

void op_list_push(struct op_list *list, struct op *op, enum op_place place) {
    op_list_insert_after(list, list->last, op, place);
}

void op_list_insert_after(struct op_list *list, struct op *before, struct op *op, enum op_place place) {
    op->previous = before;
    op->next = before != NULL ? before->next : list->first;
    *(op->previous != NULL ? &op->previous->next : &list->first) = op;
    *(op->next != NULL ? &op->next->previous : &list->last) = op;
    op->place = place;
    list->length++;
}

void op_list_remove(struct op_list *list, struct op *op) {
    *(op->previous != NULL ? &op->previous->next : &list->first) = op->next;
    *(op->next != NULL ? &op->next->previous : &list->last) = op->previous;
    op->next = op->previous = NULL;
    op->place = OP_NOWHERE;
    list->length--;
}

struct op *op_list_pop(struct op_list *list) {
    struct op *op = list->first;
    if (op != NULL) op_list_remove(list, op);
    return op;
}

struct op *op_list_at(const struct op_list *list, size_t index) {
    struct op *op = list->first;
    while (op != NULL && index-- > 0) op = op->next;
    return op;
}
