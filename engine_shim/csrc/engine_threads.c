/* engine_threads.c: native threads, each performing one op at a time. They never take the GIL. */
#include "engine.h"

static void work(struct engine *e) {
    while (!e->closed) {
        struct op *op = engine_take(e);
        if (op == NULL) {
            pthread_cond_wait(&e->changed, &e->lock);
            continue;
        }
        engine_perform(e, op);
        engine_deliver(e, op);
    }
}

static const struct engine_kind threads = {.name = "threads", .can_block = 1, .work = work};

struct engine *engine_new_threads(unsigned workers, size_t capacity) {
    return engine_create(&threads, sizeof(struct engine), capacity, workers);
}
