/* The table of names against a model, and the clock of loaded identities under threads. */
#include "names.h"

#include <pthread.h>
#include <string.h>

#include "identities.h"
#include "unit.h"

static uint32_t lookup(const struct names *n, const char *asked) {
    char normal[NAME_LONGEST];
    size_t length = names_normalize(asked, strlen(asked), normal);
    return length == 0 ? NAMES_NONE : names_find(n, normal, length);
}

static void names_are_found(void) {
    static const char text[] = "a.test\n*.A.Test.\nb.a.test\na.test\n";
    const uint32_t numbers[] = {1, 2, 3, 4};
    struct names *n;
    size_t bad;
    CHECK(names_new(text, strlen(text), numbers, 4, &bad, &n) == SHIM_OK);
    CHECK(lookup(n, "A.TEST.") == 1);
    CHECK(lookup(n, "x.a.test") == 2);
    CHECK(lookup(n, "b.a.test") == 3);
    CHECK(lookup(n, "x.b.a.test") == NAMES_NONE);
    CHECK(lookup(n, "*.a.test") == NAMES_NONE);
    CHECK(names_bytes(n) > 0);
    names_free(n);
}

/* Whatever the bytes are, nothing is read or written beyond them. */
static void any_bytes(void) {
    char *text = malloc(400);
    CHECK(text != NULL);
    for (size_t length = 0; length < 400; length++) {
        for (int fill = 0; fill < 256; fill += 5) {
            memset(text, fill, length);
            char normal[NAME_LONGEST];
            size_t found = names_normalize(text, length, normal);
            CHECK(found <= NAME_LONGEST && found <= length);
            names_is_pattern(text, length);
        }
    }
    free(text);
}

static void a_bad_name_is_told(void) {
    const uint32_t numbers[] = {1, 2, 3};
    struct names *n = NULL;
    size_t bad = 0;
    CHECK(names_new("good\nb ad\ngood\n", 15, numbers, 3, &bad, &n) == SHIM_ERR_RANGE && bad == 1);
    CHECK(names_new("good\ngood", 9, numbers, 2, &bad, &n) == SHIM_ERR_RANGE && bad == 1);
    CHECK(names_new("", 0, numbers, 1, &bad, &n) == SHIM_ERR_RANGE && bad == 0);
    CHECK(names_new("", 0, numbers, 0, &bad, &n) == SHIM_OK);
    CHECK(lookup(n, "good") == NAMES_NONE);
    names_free(n);
}

enum { NUMBERS = 50, MOST = 7, ROUNDS = 20000, THREADS = 4 };

static void *use(void *argument) {
    struct identities *all = argument;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t number = (uint32_t)rand_r(&seed) % (NUMBERS + 1);
        struct identity *i = identities_get(all, number);
        if (i == NULL) {
            i = identity_new();
            CHECK(i != NULL);
            identities_put(all, number, i);
        }
        CHECK(identities_loaded(all) <= MOST);
        identity_free(i);
    }
    return NULL;
}

static void many_threads(void) {
    struct identities *all = identities_new(NUMBERS, MOST);
    pthread_t threads[THREADS];
    CHECK(all != NULL);
    for (int t = 0; t < THREADS; t++) CHECK(pthread_create(&threads[t], NULL, use, all) == 0);
    for (int t = 0; t < THREADS; t++) CHECK(pthread_join(threads[t], NULL) == 0);
    CHECK(identities_loaded(all) == MOST);
    identities_free(all);
    all = identities_new(0, 5);
    CHECK(all != NULL && identities_get(all, 0) == NULL && identities_loaded(all) == 0);
    identities_free(all);
}

int main(void) {
    names_are_found();
    any_bytes();
    a_bad_name_is_told();
    many_threads();
    return 0;
}
