/*
 * test_operations.c: ops that many threads finish and one takes.
 *
 * Invariant: whatever finishes is taken once, or was cancelled, or the operations were closed; while something is to be
 * taken the fd is readable; and in the end everything is freed, in whatever order its holders let go.
 */
#include "operations.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine.h"
#include "unit.h"
#include "wake.h"

enum { MANY = 500, ROUNDS = 40, FEW = 7 };

static struct op *submit(struct operations *o, struct key *k, uint64_t number) {
    const struct operation asked = {.kind = OPERATION_SIGN_MESSAGE,
                                    .padding = OP_UNSET,
                                    .salt_length = OP_UNSET,
                                    .number = number,
                                    .input = "a message",
                                    .length = 9};
    struct op *op = NULL;
    CHECK(operations_submit(o, k, &asked, &op) == SHIM_OK && op != NULL);
    return op;
}

static bool readable(const struct operations *o) {
    struct pollfd p = {.fd = operations_fd(o), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void wait_readable(const struct operations *o) {
    struct pollfd p = {.fd = operations_fd(o), .events = POLLIN};
    CHECK(poll(&p, 1, 10000) == 1);
}

static void check_all_freed(void) {
    struct shim_counters now;
    shim_counters(&now);
    CHECK(now.ops_alive == 0 && now.keys_alive == 0 && now.engines_alive == 0);
}

/* Every third is cancelled at some moment. */
static void run_round(struct operations *o, struct key *k, unsigned round) {
    struct op *ops[MANY];
    bool cancelled[MANY] = {false}, taken[MANY] = {false};
    uint64_t numbers[FEW];
    size_t open = MANY, first = round * MANY;
    for (size_t i = 0; i < MANY; i++) ops[i] = submit(o, k, first + i);
    for (size_t i = round % 3; i < MANY; i += 3, open--) {
        cancelled[i] = true;
        operation_free(ops[i]);
    }
    while (open > 0) {
        wait_readable(o);
        size_t count = operations_take(o, numbers, FEW);
        for (size_t j = 0; j < count; j++) {
            if (numbers[j] < first) continue; /* cancelled in an earlier round, when a worker had it in hand */
            size_t i = (size_t)numbers[j] - first;
            CHECK(!taken[i]);
            taken[i] = true;
            if (cancelled[i]) continue; /* the same, in this one */
            CHECK(operation_status(ops[i]) == SHIM_OK && fake_is_right(ops[i]));
            operation_free(ops[i]);
            open--;
        }
    }
}

static void test_taken_once(unsigned workers, size_t capacity) {
    struct engine *e = engine_new_threads(workers, capacity);
    struct key *k = fake_key(e);
    struct operations *o = operations_new();
    CHECK(o != NULL && operations_check(o) == SHIM_OK && !readable(o));
    for (unsigned round = 0; round < ROUNDS; round++) run_round(o, k, round);
    operations_free(o);
    key_free(k);
    CHECK(engine_close(e, 10));
    engine_free(e);
    check_all_freed();
}

static void test_order_and_room(void) {
    struct engine *e = engine_new_manual();
    struct key *k = fake_key(e);
    struct operations *o = operations_new();
    struct op *ops[4];
    uint64_t numbers[4];
    for (uint64_t i = 0; i < 4; i++) ops[i] = submit(o, k, 10 + i);
    CHECK(!readable(o) && operations_take(o, numbers, 4) == 0);
    CHECK(operation_status(ops[0]) == SHIM_ERR_BUSY && operation_output(ops[0], NULL, 0) == 0);
    CHECK(manual_perform(e, 2) == SHIM_OK && manual_perform(e, 0) == SHIM_OK);
    CHECK(operations_take(o, numbers, 1) == 1 && numbers[0] == 12);
    CHECK(readable(o)); /* there is one more */
    CHECK(manual_fail(e, 0) == SHIM_OK);
    CHECK(operations_take(o, numbers, 4) == 2 && numbers[0] == 10 && numbers[1] == 11);
    CHECK(!readable(o));
    CHECK(operation_status(ops[1]) == SHIM_ERR_FAILED && strcmp(operation_reason(ops[1]), "told to fail") == 0);
    CHECK(operation_output(ops[1], numbers, sizeof numbers) == 0);
    CHECK(operation_output(ops[0], NULL, 0) == 9);
    for (size_t i = 0; i < 4; i++) operation_free(ops[i]);
    CHECK(manual_pending(e) == 0);
    operations_free(o);
    key_free(k);
    engine_free(e);
    check_all_freed();
}

/* What finishes after the end goes nowhere; what had finished before it is let go of. */
static void test_closed(void) {
    struct engine *e = engine_new_manual();
    struct key *k = fake_key(e);
    struct operations *o = operations_new();
    struct op *ops[3], *refused = NULL;
    uint64_t number;
    for (uint64_t i = 0; i < 3; i++) ops[i] = submit(o, k, i);
    CHECK(manual_perform(e, 0) == SHIM_OK);
    operations_close(o);
    operations_close(o);
    CHECK(manual_perform(e, 0) == SHIM_OK);
    CHECK(operations_take(o, &number, 1) == 0);
    const struct operation asked = {.kind = OPERATION_SIGN_MESSAGE, .input = "", .length = 0};
    CHECK(operations_submit(o, k, &asked, &refused) == SHIM_ERR_CLOSED && refused == NULL);
    operations_free(o);
    for (size_t i = 0; i < 3; i++) operation_free(ops[i]);
    CHECK(manual_pending(e) == 0);
    CHECK(engine_close(e, 1));
    o = operations_new();
    CHECK(operations_submit(o, k, &asked, &refused) == SHIM_ERR_CLOSED && refused == NULL);
    operations_free(o);
    key_free(k);
    engine_free(e);
    check_all_freed();
}

/* Closing the engine finishes what waits, in the queue and for room in it. */
static void test_engine_closed(void) {
    struct engine *e = engine_new_batch(0, 8);
    struct key *k = fake_key(e);
    struct operations *o = operations_new();
    struct op *ops[20];
    uint64_t numbers[20];
    for (uint64_t i = 0; i < 20; i++) ops[i] = submit(o, k, i);
    engine_close(e, 1);
    CHECK(readable(o) && operations_take(o, numbers, 20) == 20);
    for (size_t i = 0; i < 20; i++) CHECK(operation_status(ops[i]) == SHIM_ERR_CLOSED);
    for (size_t i = 0; i < 20; i++) operation_free(ops[i]);
    operations_free(o);
    key_free(k);
    engine_free(e);
    check_all_freed();
}

static void *use_elsewhere(void *operations) {
    CHECK(operations_check(operations) == SHIM_ERR_THREAD);
    return NULL;
}

static void test_thread_and_fork(void) {
    struct engine *e = engine_new_threads(2, 4);
    struct key *k = fake_key(e);
    struct operations *o = operations_new();
    struct op *ops[MANY];
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, use_elsewhere, o) == 0 && pthread_join(thread, NULL) == 0);
    for (uint64_t i = 0; i < MANY; i++) ops[i] = submit(o, k, i);
    pid_t child = fork();
    if (child == 0) {
        CHECK(operations_check(o) == SHIM_ERR_FORKED);
        for (size_t i = 0; i < MANY; i++) operation_free(ops[i]);
        operations_free(o);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    uint64_t numbers[MANY];
    for (size_t left = MANY; left > 0; left -= operations_take(o, numbers, MANY)) wait_readable(o);
    for (size_t i = 0; i < MANY; i++) operation_free(ops[i]);
    operations_free(o);
    key_free(k);
    CHECK(engine_close(e, 10));
    engine_free(e);
    check_all_freed();
}

int main(void) {
    fake_openssl();
    test_order_and_room();
    test_closed();
    test_engine_closed();
    test_taken_once(1, 4);
    test_taken_once(3, 1024);
    test_thread_and_fork();
    printf("test_operations: ok\n");
    return 0;
}
