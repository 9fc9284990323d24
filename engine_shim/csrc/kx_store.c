/*
 * kx_store.c: X25519 key pairs that nobody has used yet.
 *
 * Whoever finds the store empty makes eight pairs, uses one and leaves seven: that takes as long as OpenSSL takes for one,
 * so no handshake waits longer than it would have without the store, and nothing runs unasked. The bound is therefore
 * one batch. Two threads that find it empty at once both make eight, and what has no room is wiped: pairs are cheap, and
 * neither the random generator nor the arithmetic is ever entered with the lock held.
 *
 * Each pair leaves the store once: what is handed out is wiped here. A child of fork() begins with an empty store.
 */
#include <pthread.h>
#include <string.h>

#include "kx.h"
#include "ossl.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kx_pair pairs[MB_LANES]; /* under the lock; all zero from `held` on */
static size_t held;                    /* under the lock */

static void publish_held(void) {
    atomic_store_explicit(&counters.x25519_ahead, held, memory_order_relaxed);
}

/* Moves the last pair out. False: the store is empty. */
static bool take_one(struct kx_pair *out) {
    pthread_mutex_lock(&lock);
    bool found = held > 0;
    if (found) {
        *out = pairs[--held];
        explicit_bzero(&pairs[held], sizeof pairs[held]);
        publish_held();
    }
    pthread_mutex_unlock(&lock);
    return found;
}

/* As many as there is room for; the caller wipes them all. */
static void keep(const struct kx_pair *made, size_t count) {
    pthread_mutex_lock(&lock);
    while (count > 0 && held < MB_LANES) pairs[held++] = made[--count];
    publish_held();
    pthread_mutex_unlock(&lock);
}

/* RFC 7748, section 5: what every implementation does before it uses a private key; here once, for all to see the same. */
static void clamp(uint8_t key[MB_X25519_BYTES]) {
    key[0] &= 248;
    key[MB_X25519_BYTES - 1] &= 127;
    key[MB_X25519_BYTES - 1] |= 64;
}

/* One call of OpenSSL's private generator for all eight. The caller wipes `made`, also on failure. */
static bool make(struct kx_pair made[MB_LANES]) {
    uint8_t seed[MB_LANES * MB_X25519_BYTES];
    uint8_t *public_keys[MB_LANES];
    const uint8_t *private_keys[MB_LANES];
    if (ossl.RAND_priv_bytes(seed, (int)sizeof seed) != 1) return false;
    for (size_t i = 0; i < MB_LANES; i++) {
        memcpy(made[i].private_key, seed + i * MB_X25519_BYTES, MB_X25519_BYTES);
        clamp(made[i].private_key);
        private_keys[i] = made[i].private_key;
        public_keys[i] = made[i].public_key;
    }
    explicit_bzero(seed, sizeof seed);
    return mb_x25519_public(public_keys, private_keys) == (1u << MB_LANES) - 1;
}

/* Makes a batch: the first is the caller's, the others are kept. */
static bool make_and_take(struct kx_pair *out) {
    struct kx_pair made[MB_LANES];
    bool done = make(made);
    if (done) {
        atomic_fetch_add_explicit(&counters.x25519_made, MB_LANES, memory_order_relaxed);
        *out = made[0];
        keep(made + 1, MB_LANES - 1);
    }
    explicit_bzero(made, sizeof made);
    return done;
}

bool kx_store_take(struct kx_pair *out) {
    if (!take_one(out) && !make_and_take(out)) return false;
    count_up(&counters.x25519_used);
    return true;
}

void kx_store_fork_prepare(void) {
    pthread_mutex_lock(&lock);
}

void kx_store_fork_parent(void) {
    pthread_mutex_unlock(&lock);
}

void kx_store_fork_child(void) {
    explicit_bzero(pairs, sizeof pairs);
    held = 0;
    publish_held();
    pthread_mutex_unlock(&lock);
}
