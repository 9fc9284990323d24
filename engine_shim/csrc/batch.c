#include "batch.h"

struct batch_key *batch_key_new(EVP_PKEY *inner, const char *type, int bits) {
    (void)inner;
    (void)type;
    (void)bits;
    return NULL;
}

void batch_key_free(struct batch_key *k) {
    (void)k;
}

enum batch_class batch_key_class(const struct batch_key *k) {
    (void)k;
    return BATCH_NONE;
}

enum batch_class batch_class_of(const struct op *op) {
    (void)op;
    return BATCH_NONE;
}

unsigned batch_perform(struct op *const ops[], size_t count) {
    for (size_t i = 0; i < count; i++) op_perform(ops[i]);
    return 0;
}

void batch_inject_fault(unsigned lanes) {
    (void)lanes;
}

int batch_is_usable(void) {
    return 0;
}

const char *batch_description(void) {
    return "not built in";
}
