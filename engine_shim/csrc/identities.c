/*
 * identities.c: a cache with a bound, by the clock's rule: a hand goes round the loaded ones and takes the first that
 * was not asked for since it last came by. A number costs 12 bytes, loaded or not.
 */
#include "identities.h"

#include <pthread.h>
#include <stdlib.h>

/* One place of the clock: whose it is, and whether that was asked for since the hand was here. */
struct place {
    uint32_t number;
    bool used;
};

/* One for all contexts, so that a fork can wait for it; nothing below can pause, and nothing is freed under it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Everything but `count` and `most` under the lock. */
struct identities {
    size_t count, most;
    size_t taken, hand;
    struct identity **loaded; /* by number, a reference; NULL: not loaded */
    struct place *places;
    uint32_t *place_of; /* by number; meaningful while it is loaded */
};

struct identities *identities_new(size_t count, size_t most) {
    struct identities *all = calloc(1, sizeof *all);
    if (all == NULL) return NULL;
    all->count = count;
    all->most = most < count ? most : count;
    all->loaded = calloc(count, sizeof all->loaded[0]);
    all->places = calloc(all->most, sizeof all->places[0]);
    all->place_of = calloc(count, sizeof all->place_of[0]);
    if (count == 0 || (all->loaded != NULL && all->places != NULL && all->place_of != NULL)) return all;
    identities_free(all);
    return NULL;
}

void identities_free(struct identities *all) {
    if (all == NULL) return;
    for (size_t at = 0; at < all->taken; at++) identity_free(all->loaded[all->places[at].number]);
    free(all->loaded);
    free(all->places);
    free(all->place_of);
    free(all);
}

struct identity *identities_get(struct identities *all, uint32_t number) {
    struct identity *found = NULL;
    if (number >= all->count) return NULL;
    pthread_mutex_lock(&lock);
    if (all->loaded[number] != NULL) {
        found = identity_ref(all->loaded[number]);
        all->places[all->place_of[number]].used = true;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

/* With the lock. The place is free: nobody is in it, or whoever was has given way and is returned in *evicted. */
static size_t make_room(struct identities *all, struct identity **evicted) {
    if (all->taken < all->most) return all->taken++;
    while (all->places[all->hand].used) {
        all->places[all->hand].used = false;
        all->hand = (all->hand + 1) % all->most;
    }
    size_t place = all->hand;
    all->hand = (all->hand + 1) % all->most;
    struct identity **leaving = &all->loaded[all->places[place].number];
    *evicted = *leaving;
    *leaving = NULL;
    return place;
}

void identities_put(struct identities *all, uint32_t number, struct identity *i) {
    if (number >= all->count || all->most == 0) return;
    struct identity *evicted = NULL;
    pthread_mutex_lock(&lock);
    if (all->loaded[number] == NULL) {
        size_t place = make_room(all, &evicted);
        all->places[place] = (struct place){.number = number, .used = true};
        all->place_of[number] = (uint32_t)place;
    } else {
        evicted = all->loaded[number];
    }
    all->loaded[number] = identity_ref(i);
    pthread_mutex_unlock(&lock);
    identity_free(evicted);
}

size_t identities_loaded(struct identities *all) {
    pthread_mutex_lock(&lock);
    size_t taken = all->taken;
    pthread_mutex_unlock(&lock);
    return taken;
}

void identities_fork_prepare(void) {
    pthread_mutex_lock(&lock);
}

void identities_fork_done(void) {
    pthread_mutex_unlock(&lock);
}
