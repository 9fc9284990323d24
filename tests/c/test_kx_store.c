/*
 * test_kx_store.c: the store of X25519 key pairs, with arithmetic and random numbers that can be followed.
 *
 * Invariant: a pair is handed out once, to one thread of one process; what has left the store is nowhere in it; it never
 * holds more than one batch; and whatever fails leaves it as it was.
 */
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kx.h"
#include "ossl.h"
#include "unit.h"

enum { TAKERS = 4, EACH = 2000, ALL = TAKERS * EACH };

static atomic_uint drawn;
static atomic_bool no_random, no_lanes;

/* Numbers that never come twice, the counter in the middle, where clamping does not reach. */
static int draw(unsigned char *out, int length) {
    if (atomic_load(&no_random)) return 0;
    for (int at = 0; at < length; at += MB_X25519_BYTES) {
        unsigned number = atomic_fetch_add(&drawn, 1);
        memset(out + at, 0x5a, MB_X25519_BYTES);
        memcpy(out + at + 8, &number, sizeof number);
    }
    return 1;
}

/* In the place of mb_*.c: the public key is the private one, turned around. */
unsigned mb_x25519_public(uint8_t *const public_key[MB_LANES], const uint8_t *const private_key[MB_LANES]) {
    for (int i = 0; i < MB_LANES; i++)
        for (int at = 0; at < MB_X25519_BYTES; at++) public_key[i][at] = (uint8_t)~private_key[i][at];
    return atomic_load(&no_lanes) ? 0x7f : 0xff;
}

static struct shim_counters counted(void) {
    struct shim_counters now;
    shim_counters(&now);
    return now;
}

static unsigned number_of(const struct kx_pair *pair) {
    unsigned number;
    memcpy(&number, pair->private_key + 8, sizeof number);
    return number;
}

static struct kx_pair taken(void) {
    struct kx_pair pair;
    CHECK(kx_store_take(&pair));
    for (int at = 0; at < MB_X25519_BYTES; at++) CHECK((pair.public_key[at] ^ pair.private_key[at]) == 0xff);
    return pair;
}

static void test_batches(void) {
    struct shim_counters before = counted();
    for (unsigned i = 0; i < 3 * MB_LANES; i++) {
        (void)taken();
        CHECK(counted().x25519_ahead == MB_LANES - 1 - i % MB_LANES);
    }
    CHECK(counted().x25519_made - before.x25519_made == 3 * MB_LANES);
    CHECK(counted().x25519_used - before.x25519_used == 3 * MB_LANES);
}

static void test_clamped(void) {
    struct kx_pair pair = taken();
    CHECK((pair.private_key[0] & 7) == 0);
    CHECK((pair.private_key[31] & 0xc0) == 0x40);
}

static unsigned char seen[1 << 16];

static void *take_many(void *argument) {
    unsigned *numbers = argument;
    for (int i = 0; i < EACH; i++) {
        struct kx_pair pair = taken();
        numbers[i] = number_of(&pair);
        CHECK(counted().x25519_ahead <= MB_LANES);
    }
    return NULL;
}

static void test_threads(void) {
    static unsigned numbers[TAKERS][EACH];
    pthread_t takers[TAKERS];
    for (int i = 0; i < TAKERS; i++) CHECK(pthread_create(&takers[i], NULL, take_many, numbers[i]) == 0);
    for (int i = 0; i < TAKERS; i++) CHECK(pthread_join(takers[i], NULL) == 0);
    for (int i = 0; i < ALL; i++) {
        unsigned number = numbers[i / EACH][i % EACH];
        CHECK(number < sizeof seen && !seen[number]);
        seen[number] = 1;
    }
}

static void empty(void) {
    while (counted().x25519_ahead > 0) (void)taken();
}

static void test_failures(void) {
    struct kx_pair pair;
    empty();
    struct shim_counters before = counted();
    atomic_store(&no_random, true);
    CHECK(!kx_store_take(&pair));
    atomic_store(&no_random, false);
    atomic_store(&no_lanes, true);
    CHECK(!kx_store_take(&pair));
    atomic_store(&no_lanes, false);
    struct shim_counters after = counted();
    CHECK(after.x25519_made == before.x25519_made && after.x25519_used == before.x25519_used);
    CHECK(after.x25519_ahead == 0);
}

/* Where this program's own variables are, the store among them. */
extern uint8_t __data_start[], _end[];

/* Over all variables at once, which the sanitizers would not have. The key is given turned around, so that it does not
 * find itself. */
__attribute__((no_sanitize("address", "thread"))) static bool is_in_memory(const uint8_t turned[MB_X25519_BYTES]) {
    for (const uint8_t *from = __data_start; from + MB_X25519_BYTES <= _end; from++) {
        int at = 0;
        while (at < MB_X25519_BYTES && (from[at] ^ turned[at]) == 0xff) at++;
        if (at == MB_X25519_BYTES) return true;
    }
    return false;
}

/* The next pair to leave is the last one in: its number is known before. */
static void test_wiped(void) {
    empty();
    struct kx_pair first = taken();
    uint8_t next[MB_X25519_BYTES];
    for (int at = 0; at < MB_X25519_BYTES; at++) next[at] = (uint8_t)~first.private_key[at];
    unsigned number = number_of(&first) + 1;
    for (unsigned at = 0; at < sizeof number; at++) next[8 + at] = (uint8_t)~(number >> (8 * at));
    CHECK(is_in_memory(next));
    while (counted().x25519_ahead > 0) (void)taken();
    CHECK(!is_in_memory(next));
}

/* Only the child's end says what it found. */
static void test_fork(void) {
    empty();
    struct kx_pair first = taken();
    struct shim_counters before = counted();
    CHECK(before.x25519_ahead == MB_LANES - 1);
    kx_store_fork_prepare();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        kx_store_fork_child();
        CHECK(counted().x25519_ahead == 0);
        struct kx_pair pair = taken();
        CHECK(number_of(&pair) >= number_of(&first) + MB_LANES);
        _exit(0);
    }
    kx_store_fork_parent();
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(counted().x25519_ahead == before.x25519_ahead);
    (void)taken();
}

int main(void) {
    ossl.RAND_priv_bytes = draw;
    test_batches();
    test_clamped();
    test_threads();
    test_failures();
    test_wiped();
    test_fork();
    return 0;
}
