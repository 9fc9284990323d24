/* test_question.c: a question is answered once, by whichever thread is first, and outlives all but its last holder. */
#include "question.h"

#include <pthread.h>
#include <string.h>

#include "ossl.h"
#include "peer_chain.h"
#include "unit.h"
#include "wake.h"

enum { THREADS = 4, ROUNDS = 200 };

static const char *const ders[] = {"leaf", "middle", "root"};

/* A certificate is a text here, and a chain all of them. */
static int fake_i2d(const X509 *certificate, unsigned char **out) {
    const char *text = (const void *)certificate;
    size_t length = strlen(text);
    if (out != NULL) {
        memcpy(*out, text, length);
        *out += length;
    }
    return (int)length;
}

static int fake_count(const OPENSSL_STACK *stack) {
    (void)stack;
    return 3;
}

static void *fake_value(const OPENSSL_STACK *stack, int index) {
    (void)stack;
    return (void *)(uintptr_t)ders[index];
}

static const struct stack_st_X509 *whole_chain(void) {
    return (const void *)ders;
}

static void test_chain_in_any_room(void) {
    static const char written[] = "\0\0\0\4leaf\0\0\0\6middle\0\0\0\4root";
    enum { LENGTH = sizeof written - 1 };
    CHECK(peer_chain_write(NULL, NULL, NULL, 0) == 0);
    CHECK(peer_chain_write(NULL, (const void *)ders[0], NULL, 0) == 8);
    for (size_t room = 0; room <= LENGTH; room++) {
        unsigned char *out = malloc(room > 0 ? room : 1); /* as long as it says: the sanitizer sees one byte too many */
        CHECK(out != NULL);
        CHECK(peer_chain_write(whole_chain(), (const void *)ders[0], out, room) == LENGTH);
        if (room == LENGTH) CHECK(memcmp(out, written, LENGTH) == 0);
        free(out);
    }
}

struct race {
    struct question *question; /* a reference for each thread */
    atomic_int won;
};

static void *answer(void *argument) {
    struct race *r = argument;
    if (question_answer(r->question, 23)) atomic_fetch_add(&r->won, 1);
    CHECK(question_verdict(r->question) == 23);
    question_free(r->question);
    return NULL;
}

static void test_one_answer_counts(void) {
    for (int round = 0; round < ROUNDS; round++) {
        struct race r = {.question = question_new(whole_chain(), NULL, true)};
        CHECK(r.question != NULL);
        r.question->wake = wake_new();
        struct wake *wake = wake_ref(r.question->wake);
        pthread_t threads[THREADS];
        CHECK(question_verdict(r.question) == QUESTION_OPEN && question_is_resumption(r.question));
        CHECK(!question_answer(r.question, QUESTION_OPEN));
        for (int i = 1; i < THREADS; i++) question_ref(r.question);
        for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, answer, &r) == 0);
        for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
        CHECK(atomic_load(&r.won) == 1);
        CHECK(wake_take(wake) == 1);
        wake_unref(wake);
    }
    CHECK(atomic_load(&counters.ops_alive) == 0);
}

int main(void) {
    ossl.i2d_X509 = fake_i2d;
    ossl.OPENSSL_sk_num = fake_count;
    ossl.OPENSSL_sk_value = fake_value;
    test_chain_in_any_room();
    test_one_answer_counts();
    return 0;
}
