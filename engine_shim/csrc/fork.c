#include "fork.h"

#include <pthread.h>
#include <time.h>

#include "common.h"
#include "engine.h"
#include "identities.h"
#include "key_log.h"
#include "kx.h"
#include "ticket_keys.h"
#include "wake.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct engine *engines; /* under the lock */
static unsigned generation;    /* written in a child that has one thread */

/* What all engines together may take before we fork: it outlasts every honest op. */
static const uint64_t patience_ns = 2000000000u;

static pthread_mutex_t workers_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t worker_ended = PTHREAD_COND_INITIALIZER;
static unsigned workers; /* of all engines, orphans too; under workers_lock */

static double left_until(uint64_t when_ns) {
    uint64_t now = now_ns();
    return now < when_ns ? (double)(when_ns - now) / 1e9 : 0;
}

/* Lock order: engines' list, engines, wakes, workers, the store of key pairs, ticket keys, key logs, certificates. */
static void prepare(void) {
    pthread_mutex_lock(&lock);
    uint64_t until_ns = now_ns() + patience_ns;
    for (struct engine *e = engines; e != NULL; e = e->next) engine_fork_announce(e);
    for (struct engine *e = engines; e != NULL; e = e->next) engine_fork_prepare(e, left_until(until_ns));
    wake_fork_prepare();
    pthread_mutex_lock(&workers_lock);
    kx_store_fork_prepare();
    ticket_keys_fork_prepare();
    key_log_fork_prepare();
    identities_fork_prepare();
}

static void in_parent(void) {
    identities_fork_done();
    key_log_fork_parent();
    ticket_keys_fork_done();
    kx_store_fork_parent();
    pthread_mutex_unlock(&workers_lock);
    wake_fork_parent();
    for (struct engine *e = engines; e != NULL; e = e->next) engine_fork_parent(e);
    pthread_mutex_unlock(&lock);
}

static void in_child(void) {
    identities_fork_done();
    key_log_fork_child();
    ticket_keys_fork_done();
    kx_store_fork_child();
    generation++;
    workers = 0;
    pthread_cond_init(&worker_ended, NULL);
    pthread_mutex_unlock(&workers_lock);
    wake_fork_child();
    for (struct engine *e = engines; e != NULL; e = e->next) engine_fork_child(e);
    pthread_mutex_unlock(&lock);
}

void fork_worker_started(void) {
    pthread_mutex_lock(&workers_lock);
    workers++;
    pthread_mutex_unlock(&workers_lock);
}

void fork_worker_ended(void) {
    pthread_mutex_lock(&workers_lock);
    workers--;
    pthread_cond_broadcast(&worker_ended);
    pthread_mutex_unlock(&workers_lock);
}

/* Until no worker of any engine is left, or the time is over. */
static int wait_for_workers(double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)seconds;
    pthread_mutex_lock(&workers_lock);
    while (workers > 0)
        if (pthread_cond_timedwait(&worker_ended, &workers_lock, &until) != 0) break;
    int ended = workers == 0;
    pthread_mutex_unlock(&workers_lock);
    return ended;
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

/* Engines that were closed before, and orphans, may have a worker with an op in hand, too. */
int engine_close_all(double timeout) {
    for (struct engine *e; (e = next_open()) != NULL; engine_free(e)) engine_close(e, 0);
    return wait_for_workers(timeout);
}

unsigned fork_generation(void) {
    return generation;
}
