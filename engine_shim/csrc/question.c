#include "question.h"

#include <stdlib.h>
#include <string.h>

#include "peer_chain.h"
#include "wake.h"

struct question *question_new(const struct stack_st_X509 *chain, const X509 *leaf, bool resumption) {
    size_t length = peer_chain_write(chain, leaf, NULL, 0);
    struct question *q = calloc(1, sizeof *q + length);
    if (q == NULL) return NULL;
    atomic_init(&q->refs, 1);
    atomic_init(&q->verdict, QUESTION_OPEN);
    q->resumption = resumption;
    q->length = peer_chain_write(chain, leaf, q->chain, length);
    count_up(&counters.ops_alive);
    return q;
}

struct question *question_ref(struct question *q) {
    atomic_fetch_add_explicit(&q->refs, 1, memory_order_relaxed);
    return q;
}

/* Any thread. */
void question_free(struct question *q) {
    if (q == NULL || atomic_fetch_sub_explicit(&q->refs, 1, memory_order_acq_rel) != 1) return;
    wake_unref(q->wake);
    wake_unref(q->echo);
    free(q);
    count_down(&counters.ops_alive);
}

size_t question_chain(const struct question *q, unsigned char *out, size_t room) {
    if (q->length <= room) memcpy(out, q->chain, q->length);
    return q->length;
}

int question_is_resumption(const struct question *q) {
    return q->resumption;
}

int question_verdict(const struct question *q) {
    return atomic_load_explicit(&q->verdict, memory_order_acquire);
}

/* The first answer counts. Python has the question only since its job has paused, so the wake is there. */
int question_answer(struct question *q, int verdict) {
    int open = QUESTION_OPEN;
    if (verdict < 0 || !atomic_compare_exchange_strong(&q->verdict, &open, verdict)) return 0;
    wake_signal(q->wake);
    wake_signal(q->echo);
    return 1;
}
