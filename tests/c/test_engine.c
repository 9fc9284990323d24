/*
 * test_engine.c: ops, wait fds and engines, without a job and without OpenSSL.
 *
 * Invariant: whatever is cancelled, closed, forked or let go, in any order and on any thread, every op
 * is finished or cancelled exactly once, and everything is freed.
 */
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine.h"
#include "pause.h"
#include "unit.h"
#include "wake.h"

enum { WINDOW = 64, ROUNDS = 200, SUBMITTERS = 3 };

static struct shim_counters counted(void) {
    struct shim_counters now;
    shim_counters(&now);
    return now;
}

static int readable(const struct wake *w) {
    struct pollfd p = {.fd = wake_fd(w), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void test_wake_is_never_stale(void) {
    struct wake *w = wake_new();
    CHECK(w != NULL && !readable(w));
    wake_signal(w);
    wake_signal(w);
    CHECK(readable(w));
    wake_clear(w);
    CHECK(!readable(w));
    wake_signal(w);
    int fd = wake_fd(w);
    wake_unref(w);
    struct wake *again = wake_new(); /* the same fd, from the pool, drained */
    CHECK(wake_fd(again) == fd && !readable(again));
    wake_unref(again);
}

static struct op *submitted(struct engine *e, struct key *k, const char *message) {
    struct op *op = fake_op(k, message);
    op->wake = wake_new();
    CHECK(op->wake != NULL);
    CHECK(engine_submit(e, op) == SHIM_OK);
    return op;
}

static void wait_for(struct op *op) {
    while (!op_is_done(op)) wake_wait(op->wake);
}

/* One loop's life: a window of ops, every third cancelled at some moment, the rest awaited. */
static void *submit_rounds(void *argument) {
    struct engine *e = argument;
    struct key *k = fake_key(e);
    struct op *window[WINDOW];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < WINDOW; i++) window[i] = submitted(e, k, "a message");
        for (int i = 0; i < WINDOW; i++) {
            struct op *op = window[(i * 7 + round) % WINDOW];
            if (i % 3 == 0)
                engine_cancel(e, op);
            else
                wait_for(op);
            if (i % 3 != 0) CHECK(fake_is_right(op));
        }
        for (int i = 0; i < WINDOW; i++) op_unref(window[i]);
    }
    key_free(k);
    return NULL;
}

static void test_many_loops_share_an_engine(struct engine *e) {
    pthread_t loops[SUBMITTERS];
    for (int i = 0; i < SUBMITTERS; i++) CHECK(pthread_create(&loops[i], NULL, submit_rounds, e) == 0);
    for (int i = 0; i < SUBMITTERS; i++) pthread_join(loops[i], NULL);
    CHECK(engine_close(e, 10.0));
    struct engine_statistics s;
    engine_statistics(e, &s);
    CHECK(s.submitted == (uint64_t)SUBMITTERS * ROUNDS * WINDOW);
    CHECK(s.performed + s.cancelled == s.submitted && s.failed == 0);
    CHECK(s.queued == 0 && s.waiting == 0 && s.in_flight == 0);
    engine_free(e);
}

static void test_full_queue_waits_in_order(void) {
    struct engine *e = engine_new_threads(1, 1);
    struct key *k = fake_key(e);
    struct op *ops[WINDOW];
    struct engine_statistics s;
    engine_fork_announce(e); /* until it is over the worker begins nothing */
    for (int i = 0; i < WINDOW; i++) ops[i] = submitted(e, k, "crowd");
    engine_statistics(e, &s);
    CHECK(s.queued == 1 && s.queue_full == WINDOW - 1 && s.waiting == WINDOW - 1);
    engine_fork_prepare(e, 0.0);
    engine_fork_parent(e);
    for (int i = 0; i < WINDOW; i++) wait_for(ops[i]);
    engine_statistics(e, &s);
    CHECK(s.queued == 0 && s.waiting == 0);
    for (int i = 0; i < WINDOW; i++) op_unref(ops[i]);
    key_free(k);
    engine_free(e); /* without close: the worker is the last and frees it */
}

static void test_failure(void) {
    struct engine *e = engine_new_threads(1, 8);
    struct key *k = fake_key(e);
    struct op *op = submitted(e, k, "!");
    wait_for(op);
    CHECK(op->status == SHIM_ERR_FAILED && op->output_length == 0);
    op_unref(op);
    key_free(k);
    engine_close(e, 10.0);
    engine_free(e);
}

static void test_latency_is_kept(void) {
    enum { MS = 20 };
    struct engine *e = engine_new_latency(MS / 1000.0, 2);
    struct key *k = fake_key(e);
    struct op *ops[WINDOW];
    for (int i = 0; i < WINDOW; i++) ops[i] = submitted(e, k, "later");
    for (int i = 0; i < WINDOW; i++) {
        wait_for(ops[i]);
        CHECK(now_ns() - ops[i]->submitted_ns >= (uint64_t)MS * 1000000u);
        op_unref(ops[i]);
    }
    key_free(k);
    engine_close(e, 10.0);
    engine_free(e);
}

/* Cancelled or failed: nobody waits for ten minutes. */
static void test_close_and_cancel_what_is_held(void) {
    struct engine *e = engine_new_latency(600.0, 1);
    struct key *k = fake_key(e);
    struct op *kept = submitted(e, k, "held"), *dropped = submitted(e, k, "held too");
    engine_cancel(e, dropped);
    engine_cancel(e, dropped);
    op_unref(dropped);
    CHECK(engine_close(e, 10.0));
    CHECK(op_is_done(kept) && kept->status == SHIM_ERR_CLOSED);
    struct op *late = fake_op(k, "late");
    CHECK(engine_submit(e, late) == SHIM_ERR_CLOSED);
    op_unref(late);
    op_unref(kept);
    key_free(k);
    engine_free(e);
}

static void test_manual_order(void) {
    struct engine *e = engine_new_manual();
    struct key *k = fake_key(e);
    struct op *a = submitted(e, k, "a"), *b = submitted(e, k, "b"), *c = submitted(e, k, "c");
    CHECK(manual_pending(e) == 3);
    CHECK(manual_perform(e, 1) == SHIM_OK && op_is_done(b) && !op_is_done(a) && !op_is_done(c));
    CHECK(manual_begin(e, 0) == SHIM_OK && manual_begun(e) == 1 && !op_is_done(a));
    engine_cancel(e, a);
    CHECK(manual_begun(e) == 0 && manual_deliver(e, 0) == SHIM_ERR_RANGE);
    CHECK(manual_wake(e, 0) == SHIM_OK && readable(c->wake) && !op_is_done(c));
    CHECK(manual_fail(e, 0) == SHIM_OK && c->status == SHIM_ERR_FAILED);
    CHECK(manual_perform(e, 0) == SHIM_ERR_RANGE);
    op_unref(a);
    op_unref(b);
    op_unref(c);
    key_free(k);
    engine_free(e);
}

/* No job: an engine that can block is waited for, another one is refused at once. */
static void test_without_a_job(void) {
    struct engine *e = engine_new_threads(1, 8), *m = engine_new_manual();
    struct key *k = fake_key(e), *n = fake_key(m);
    struct op *op = fake_op(k, "in place"), *refused = fake_op(n, "deadlock");
    CHECK(pause_for(op) == SHIM_OK && fake_is_right(op));
    CHECK(pause_for(refused) == SHIM_ERR_NO_JOB);
    op_unref(op);
    op_unref(refused);
    key_free(k);
    key_free(n);
    engine_free(e);
    engine_free(m);
}

/* The child has no workers, none of the parent's ops, and none of its fds. */
static void test_fork(void) {
    struct engine *e = engine_new_latency(600.0, 1);
    struct key *k = fake_key(e);
    struct op *op = submitted(e, k, "the parent's");
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct engine_statistics s;
        engine_statistics(e, &s);
        CHECK(s.submitted == 0 && s.queued == 0 && wake_fd(op->wake) == -1);
        wake_signal(op->wake);
        CHECK(engine_close(e, 1.0));
        execl("/bin/true", "true", (char *)NULL); /* not _exit: what the child forgets is no leak to report */
        _exit(1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(!op_is_done(op) && !readable(op->wake));
    engine_cancel(e, op);
    op_unref(op);
    key_free(k);
    engine_close(e, 10.0);
    engine_free(e);
}

/* Detached workers may take a moment longer to free an engine that nobody closed. */
static void wait_until_engines_are_gone(void) {
    for (int i = 0; counted().engines_alive > 0 && i < 10000; i++) poll(NULL, 0, 1);
}

int main(void) {
    fake_openssl();
    test_wake_is_never_stale();
    test_many_loops_share_an_engine(engine_new_threads(4, 16));
    test_many_loops_share_an_engine(engine_new_latency(0.0005, 2));
    test_full_queue_waits_in_order();
    test_failure();
    test_latency_is_kept();
    test_close_and_cancel_what_is_held();
    test_manual_order();
    test_without_a_job();
    test_fork();
    struct engine *left = engine_new_manual();
    CHECK(engine_close_all(5.0));
    engine_free(left);
    wait_until_engines_are_gone();
    struct shim_counters now = counted();
    CHECK(now.ops_alive == 0 && now.keys_alive == 0 && now.engines_alive == 0);
    puts("test_engine: ok");
    return 0;
}
