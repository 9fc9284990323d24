/*
 * test_signer.c: ops that others answer, without a job and without OpenSSL.
 *
 * Invariant: however takers, answers, cancellation, deadlines and closing meet, every op ends exactly once, and of several
 * answers to one op one counts.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine_signer.h"
#include "key.h"
#include "unit.h"
#include "wake.h"

enum { WINDOW = 48, ROUNDS = 60, TAKERS = 3, FORKS = 5 };

static struct op *submitted(struct engine *e, struct key *k) {
    struct op *op = fake_op(k, "a message");
    op->wake = wake_new();
    CHECK(op->wake != NULL);
    CHECK(engine_submit(e, op) == SHIM_OK);
    return op;
}

static void wait_for(struct op *op) {
    while (!op_is_done(op)) wake_wait(op->wake);
}

static bool is_readable(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

struct race {
    struct op *op; /* a reference for each thread */
    atomic_int won;
};

static void *refuse(void *argument) {
    struct race *r = argument;
    if (request_fail(r->op, "no") == SHIM_OK) atomic_fetch_add(&r->won, 1);
    request_free(r->op);
    return NULL;
}

static void test_one_of_many_answers_counts(void) {
    struct engine *e = engine_new_signer(64, 600, 1);
    struct key *k = fake_key(e);
    for (int round = 0; round < ROUNDS; round++) {
        struct op *op = submitted(e, k), *taken;
        pthread_t threads[TAKERS];
        struct race r = {.won = 0};
        CHECK(signer_take(e, 0, &taken) == SHIM_OK && taken == op);
        r.op = taken;
        for (int i = 0; i < TAKERS; i++) {
            op_ref(op);
            CHECK(pthread_create(&threads[i], NULL, refuse, &r) == 0);
        }
        for (int i = 0; i < TAKERS; i++) pthread_join(threads[i], NULL);
        CHECK(atomic_load(&r.won) == 1 && op_is_done(op) && op->status == SHIM_ERR_FAILED);
        request_free(taken);
        op_unref(op);
    }
    CHECK(engine_close(e, 10));
    key_free(k);
    engine_free(e);
}

/* Every second one is refused, the others are left to their deadline; whose answer that makes late, not double. */
static void *take_and_refuse(void *argument) {
    struct engine *e = argument;
    struct op *op;
    while (signer_take(e, -1, &op) == SHIM_OK) {
        if (op == NULL) continue;
        struct request_facts facts;
        request_facts(op, &facts);
        int state = SHIM_OK;
        if (facts.id % 2 == 0)
            (void)request_fail(op, "no");
        else
            while ((state = request_state(op)) == SHIM_OK) sched_yield();
        CHECK(state == SHIM_OK || state == SHIM_ERR_LATE);
        request_free(op);
    }
    return NULL;
}

/* Expiry, cancellation and a reader that takes what it is told meet. */
static void *take_what_ended(void *argument) {
    struct engine *e = argument;
    uint64_t ids[SIGNER_ENDED_MOST];
    size_t count;
    struct pollfd p = {.fd = signer_ended_fd(e), .events = POLLIN};
    do CHECK(poll(&p, 1, -1) == 1);
    while (signer_take_ended(e, ids, &count) == SHIM_OK);
    return NULL;
}

static void test_takers_deadlines_and_cancellation(void) {
    struct engine *e = engine_new_signer(8, 0.002, 1);
    struct key *k = fake_key(e);
    struct op *window[WINDOW];
    pthread_t takers[TAKERS], told;
    CHECK(pthread_create(&told, NULL, take_what_ended, e) == 0);
    for (int i = 0; i < TAKERS; i++) CHECK(pthread_create(&takers[i], NULL, take_and_refuse, e) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < WINDOW; i++) window[i] = submitted(e, k);
        for (int i = 0; i < WINDOW; i++) {
            if ((i + round) % 3 == 0)
                engine_cancel(e, window[i]);
            else
                wait_for(window[i]);
        }
        for (int i = 0; i < WINDOW; i++) op_unref(window[i]);
    }
    CHECK(engine_close(e, 10));
    for (int i = 0; i < TAKERS; i++) pthread_join(takers[i], NULL);
    pthread_join(told, NULL);
    struct engine_statistics s;
    engine_statistics(e, &s);
    CHECK(s.submitted == WINDOW * ROUNDS && s.failed + s.cancelled == s.submitted);
    CHECK(s.queued == 0 && s.waiting == 0 && s.in_flight == 0);
    key_free(k);
    engine_free(e);
}

static void test_descriptor_and_closing(void) {
    struct engine *e = engine_new_signer(1, 600, 0);
    struct key *k = fake_key(e);
    int fd = signer_fd(e);
    uint64_t last;
    struct op *taken;
    CHECK(!is_readable(fd));
    struct op *one = submitted(e, k), *other = submitted(e, k); /* the other one waits for room */
    CHECK(is_readable(fd));
    CHECK(signer_take(e, 0, &taken) == SHIM_OK && taken == one && is_readable(fd));
    struct op *found = signer_find(e, 1, &last);
    CHECK(found == one && last == 1);
    request_free(found);
    request_free(taken);
    engine_cancel(e, one);
    CHECK(request_state(one) == SHIM_ERR_LATE);
    CHECK(signer_take(e, 0, &taken) == SHIM_OK && taken == other && !is_readable(fd));
    CHECK(engine_close(e, 10));
    CHECK(is_readable(fd) && op_is_done(other) && other->status == SHIM_ERR_CLOSED);
    CHECK(request_state(other) == SHIM_ERR_LATE);
    request_free(taken);
    op_unref(one);
    op_unref(other);
    key_free(k);
    engine_free(e);
}

static void test_descriptor_of_what_left_untaken(void) {
    struct engine *e = engine_new_signer(1, 600, 0);
    struct key *k = fake_key(e);
    struct op *one = submitted(e, k), *other = submitted(e, k);
    int fd = signer_fd(e);
    engine_cancel(e, one);
    CHECK(is_readable(fd)); /* the other one has moved up */
    engine_cancel(e, other);
    CHECK(!is_readable(fd));
    op_unref(one);
    op_unref(other);
    key_free(k);
    CHECK(engine_close(e, 10));
    engine_free(e);
    e = engine_new_signer(1, 0.001, 0);
    k = fake_key(e);
    one = submitted(e, k);
    wait_for(one);
    CHECK(one->status == SHIM_ERR_EXPIRED && !is_readable(signer_fd(e)));
    op_unref(one);
    key_free(k);
    CHECK(engine_close(e, 10));
    engine_free(e);
}

struct answering {
    struct op *op;
    atomic_bool over;
};

static void *answer_wrongly(void *argument) {
    struct answering *a = argument;
    while (!atomic_load(&a->over)) CHECK(request_complete(a->op, "another", 7, 0) == SHIM_ERR_WRONG);
    return NULL;
}

/* However many answers are verified without a pause between them, a fork finds a moment with none. */
static void test_fork_among_answers(void) {
    struct engine *e = engine_new_signer(1, 600, 1);
    struct key *k = fake_key(e);
    struct op *op = submitted(e, k);
    struct answering a = {.over = false};
    pthread_t threads[TAKERS];
    CHECK(signer_take(e, 0, &a.op) == SHIM_OK && a.op == op);
    for (int i = 0; i < TAKERS; i++) CHECK(pthread_create(&threads[i], NULL, answer_wrongly, &a) == 0);
    for (int round = 0; round < FORKS; round++) {
        uint64_t begun = now_ns();
        pid_t child = fork();
        if (child == 0) _exit(request_state(op) == SHIM_ERR_FORKED ? 0 : 1);
        CHECK(now_ns() - begun < 1000000000u); /* half of its patience: fork.c */
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    atomic_store(&a.over, true);
    for (int i = 0; i < TAKERS; i++) pthread_join(threads[i], NULL);
    CHECK(request_complete(op, "a message", 9, 1) == SHIM_OK && op_is_done(op) && op->output_length == 9);
    CHECK(request_complete(op, "a message", 9, 1) == SHIM_ERR_DOUBLE);
    request_free(a.op);
    op_unref(op);
    key_free(k);
    CHECK(engine_close(e, 10));
    engine_free(e);
}

static size_t take_ended(struct engine *e, uint64_t *ids) {
    size_t count;
    CHECK(signer_take_ended(e, ids, &count) == SHIM_OK);
    return count;
}

/* Half of them leave, the others are answered: those are no news. */
static void test_who_left_is_told(void) {
    struct engine *e = engine_new_signer(64, 600, 1);
    struct key *k = fake_key(e);
    uint64_t ids[SIGNER_ENDED_MOST];
    struct op *unheard = submitted(e, k), *taken;
    CHECK(signer_take(e, 0, &taken) == SHIM_OK);
    engine_cancel(e, unheard); /* nobody has asked to be told */
    request_free(taken);
    op_unref(unheard);
    int fd = signer_ended_fd(e);
    CHECK(fd >= 0 && fd == signer_ended_fd(e) && !is_readable(fd) && take_ended(e, ids) == 0);
    for (int i = 0; i < WINDOW; i++) {
        struct op *op = submitted(e, k);
        CHECK(signer_take(e, 0, &taken) == SHIM_OK && taken == op);
        if (i % 2 == 0)
            engine_cancel(e, op);
        else
            CHECK(request_fail(op, "no") == SHIM_OK);
        request_free(taken);
        op_unref(op);
    }
    CHECK(is_readable(fd) && take_ended(e, ids) == WINDOW / 2 && !is_readable(fd));
    for (uint64_t i = 0; i < WINDOW / 2; i++) CHECK(ids[i] == 2 + 2 * i);
    for (int i = 0; i < 2 * SIGNER_ENDED_MOST; i++) {
        struct op *op = submitted(e, k);
        CHECK(signer_take(e, 0, &taken) == SHIM_OK);
        engine_cancel(e, op);
        request_free(taken);
        op_unref(op);
    }
    CHECK(take_ended(e, ids) == SIGNER_ENDED_MOST + 1 && take_ended(e, ids) == 0);
    CHECK(engine_close(e, 10));
    size_t count;
    CHECK(is_readable(fd) && signer_take_ended(e, ids, &count) == SHIM_ERR_CLOSED && is_readable(fd));
    key_free(k);
    engine_free(e);
}

int main(void) {
    fake_openssl();
    test_descriptor_and_closing();
    test_descriptor_of_what_left_untaken();
    test_who_left_is_told();
    test_fork_among_answers();
    test_one_of_many_answers_counts();
    test_takers_deadlines_and_cancellation();
    struct shim_counters now;
    shim_counters(&now);
    CHECK(now.ops_alive == 0 && now.keys_alive == 0 && now.engines_alive == 0);
    puts("test_signer: ok");
    return 0;
}
