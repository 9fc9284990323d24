#include "wake.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Enough for the parked handshakes of a busy moment; more are closed as they come back. */
enum { POOL_LIMIT = 1024 };

struct wake {
    atomic_uint refs;             /* 0: in the pool */
    int fd;                       /* -1: forked away */
    atomic_uint signals;          /* written and not yet taken back; counted after the write */
    uint64_t serial;              /* immutable; from 1 */
    struct wake *next, *previous; /* all wakes; under the lock */
    struct wake *pooled;          /* the pool's chain; under the lock */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct wake *all;     /* under the lock */
static struct wake *pool;    /* under the lock */
static unsigned pool_length; /* under the lock */
static uint64_t last_serial; /* under the lock */

/* Under the lock. */
static struct wake *take_from_pool(void) {
    struct wake *w = pool;
    if (w == NULL) return NULL;
    pool = w->pooled;
    pool_length--;
    atomic_store(&w->refs, 1);
    return w;
}

/* Under the lock. */
static void link_wake(struct wake *w) {
    w->next = all;
    if (all != NULL) all->previous = w;
    all = w;
}

/* Under the lock. */
static void unlink_wake(struct wake *w) {
    if (w->previous != NULL) w->previous->next = w->next;
    if (w->next != NULL) w->next->previous = w->previous;
    if (all == w) all = w->next;
}

/* Under the lock. */
static struct wake *create(void) {
    struct wake *w = calloc(1, sizeof *w);
    if (w == NULL) return NULL;
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->fd < 0) {
        free(w);
        return NULL;
    }
    w->serial = ++last_serial;
    atomic_init(&w->refs, 1);
    count_up(&counters.wait_fds_open);
    return w;
}

struct wake *wake_new(void) {
    pthread_mutex_lock(&lock);
    struct wake *w = take_from_pool();
    if (w == NULL && (w = create()) != NULL) link_wake(w);
    pthread_mutex_unlock(&lock);
    return w;
}

struct wake *wake_ref(struct wake *w) {
    atomic_fetch_add_explicit(&w->refs, 1, memory_order_relaxed);
    return w;
}

static void destroy(struct wake *w) {
    if (w->fd >= 0) {
        close(w->fd);
        count_down(&counters.wait_fds_open);
    }
    free(w);
}

void wake_unref(struct wake *w) {
    if (w == NULL || atomic_fetch_sub_explicit(&w->refs, 1, memory_order_acq_rel) != 1) return;
    wake_clear(w);
    pthread_mutex_lock(&lock);
    bool keep = w->fd >= 0 && pool_length < POOL_LIMIT;
    if (keep) {
        w->pooled = pool;
        pool = w;
        pool_length++;
    } else {
        unlink_wake(w);
    }
    pthread_mutex_unlock(&lock);
    if (!keep) destroy(w);
}

void wake_signal(struct wake *w) {
    if (w == NULL || w->fd < 0) return;
    ssize_t written;
    do written = write(w->fd, &(uint64_t){1}, sizeof(uint64_t));
    while (written < 0 && errno == EINTR);
    atomic_fetch_add_explicit(&w->signals, 1, memory_order_release);
}

/*
 * Without a signal there is nothing to read. One that is given at this moment may be missed: then the fd stays
 * readable. Whoever lets go of the last reference misses none, because signalling takes one.
 */
uint64_t wake_clear(struct wake *w) {
    return atomic_load_explicit(&w->signals, memory_order_acquire) == 0 ? 0 : wake_take(w);
}

/* The signals are forgotten before the read: one that comes in between is counted, and read once more for nothing. */
uint64_t wake_take(struct wake *w) {
    if (w->fd < 0) return 0;
    atomic_store_explicit(&w->signals, 0, memory_order_seq_cst);
    uint64_t count;
    ssize_t got;
    do got = read(w->fd, &count, sizeof count);
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof count ? count : 0;
}

int wake_fd(const struct wake *w) {
    return w->fd;
}

uint64_t wake_serial(const struct wake *w) {
    return w->serial;
}

void wake_wait(struct wake *w) {
    struct pollfd waiting = {.fd = w->fd, .events = POLLIN};
    while (poll(&waiting, 1, -1) < 0 && errno == EINTR) continue;
    wake_clear(w);
}

void wake_fork_prepare(void) {
    pthread_mutex_lock(&lock);
}

void wake_fork_parent(void) {
    pthread_mutex_unlock(&lock);
}

/* The eventfds are shared with the parent: a write here would wake the parent's loop. */
void wake_fork_child(void) {
    for (struct wake *w = all; w != NULL; w = w->next) {
        if (w->fd >= 0) close(w->fd);
        w->fd = -1;
    }
    pool = NULL;
    pool_length = 0;
    atomic_store(&counters.wait_fds_open, 0);
    pthread_mutex_unlock(&lock);
}
