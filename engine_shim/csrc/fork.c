#include "fork.h"

#include <pthread.h>

#include "common.h"
#include "engine.h"
#include "wake.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct engine *engines; /* under the lock */
static unsigned generation;    /* written in a child that has one thread */

/* Lock order: engines' list, engines, wakes. */
static void prepare(void) {
    pthread_mutex_lock(&lock);
    for (struct engine *e = engines; e != NULL; e = e->next) engine_fork_prepare(e);
    wake_fork_prepare();
}

static void in_parent(void) {
    wake_fork_parent();
    for (struct engine *e = engines; e != NULL; e = e->next) pthread_mutex_unlock(&e->lock);
    pthread_mutex_unlock(&lock);
}

static void in_child(void) {
    generation++;
    wake_fork_child();
    for (struct engine *e = engines; e != NULL; e = e->next) {
        engine_fork_child(e);
        pthread_mutex_unlock(&e->lock);
    }
    pthread_mutex_unlock(&lock);
}

static void install(void) {
    pthread_atfork(prepare, in_parent, in_child);
}

void fork_install(void) {
    pthread_once(&once, install);
}

void fork_register(struct engine *e) {
    fork_install();
    pthread_mutex_lock(&lock);
    e->next = engines;
    e->previous = NULL;
    if (engines != NULL) engines->previous = e;
    engines = e;
    pthread_mutex_unlock(&lock);
}

void fork_unregister(struct engine *e) {
    pthread_mutex_lock(&lock);
    if (e->previous != NULL) e->previous->next = e->next;
    if (e->next != NULL) e->next->previous = e->previous;
    if (engines == e) engines = e->next;
    pthread_mutex_unlock(&lock);
}

/* The first engine that is still open, with a reference; not one whose last user is leaving at this moment. */
static struct engine *next_open(void) {
    pthread_mutex_lock(&lock);
    struct engine *e = engines;
    for (; e != NULL; e = e->next) {
        pthread_mutex_lock(&e->lock);
        bool open = !e->closed;
        pthread_mutex_unlock(&e->lock);
        unsigned refs = atomic_load(&e->refs);
        while (open && refs > 0 && !atomic_compare_exchange_weak(&e->refs, &refs, refs + 1)) continue;
        if (open && refs > 0) break;
    }
    pthread_mutex_unlock(&lock);
    return e;
}

int engine_close_all(double timeout) {
    int ended = 1;
    for (struct engine *e; (e = next_open()) != NULL; engine_free(e)) ended &= engine_close(e, timeout);
    return ended;
}

unsigned fork_generation(void) {
    return generation;
}
