/*
 * engine.h: where private-key operations run. One struct an engine, no process-wide state.
 *
 * A kind of engine is one C file that ends in one const struct engine_kind. The queue, its
 * bound, the workers, cancellation and statistics are here, the same for all of them.
 *
 *   post:   engine_submit()   the loop's thread; queued, or waiting for room
 *   cycle:  engine_take()     a worker; the oldest queued op, and the oldest waiting one moves up
 *           engine_perform()  the op is computed, not under the lock
 *   done:   engine_deliver()  the op is finished and its wait fd readable
 *
 * An op that waits for room belongs to its connection alone: the engine takes its reference
 * when the op moves into the queue, and cancelling unlinks it. Nothing spins, order is kept.
 *
 * Users (Python's handle, every key) hold references. Workers do not: when the last user has
 * gone the engine is an orphan, its workers end, and whoever is last frees it.
 */
#ifndef ENGINE_SHIM_ENGINE_H
#define ENGINE_SHIM_ENGINE_H

#include <pthread.h>

#include "op.h"

struct engine_kind {
    const char *name;
    int can_block; /* its answer does not depend on the thread that waits for it */
    int batches;   /* its keys are prepared for batch.h */
    /* A worker's life; entered and left under the lock, returns once the engine is closed. NULL: no workers. */
    void (*work)(struct engine *e);
    /* No lock held; a thread that cannot pause waits for its op: it performs it, if nobody has it in hand. NULL: workers
     * answer. */
    void (*help)(struct engine *e, struct op *op);
    /* Under the lock: nothing is gained by waiting, so the thread that asks performs the op here and now. NULL: never. */
    bool (*at_once)(const struct engine *e, const struct op *op);
    /* Under the lock: takes an op at place OP_HELD out of the kind's own lists. NULL: it holds none. */
    void (*remove_held)(struct engine *e, struct op *op);
    /* Under the lock: moves every held op to `out`. NULL: it holds none. */
    void (*release_held)(struct engine *e, struct op_list *out);
    /* Under the lock: an op was queued or left the queue untaken, the engine was closed, or a fork is over. NULL: those who wait for `changed` see. */
    void (*look)(struct engine *e);
    /* In a forked child, under the lock, which is new: what is the kind's own begins anew. NULL: it has nothing. */
    void (*forked)(struct engine *e);
    /* Nobody else knows the engine: frees what is the kind's own. NULL: it has nothing. */
    void (*clear)(struct engine *e);
};

struct engine {
    const struct engine_kind *kind;
    atomic_uint refs;
    pthread_mutex_t lock;
    pthread_cond_t changed;         /* something was queued, or the engine was closed */
    pthread_cond_t ended;           /* a worker has ended, or nobody is busy any more */
    struct engine *next, *previous; /* every engine of the process; under fork.c's lock */

    /* Under the lock. */
    struct op_list queued;  /* the engine holds a reference to each */
    struct op_list waiting; /* their connections hold the only reference */
    size_t capacity;
    unsigned workers_wanted, workers;
    unsigned busy;      /* threads that perform or deliver at this moment: a fork waits for them (fork.h) */
    size_t in_progress; /* handshakes of the loop that had the last turn; SIZE_MAX: nobody has told */
    bool closed, orphan, forking;
    struct engine_statistics statistics;
};

/* For the kinds: `size` bytes, zeroed, that begin with a struct engine. NULL: no memory. */
struct engine *engine_create(const struct engine_kind *kind, size_t size, size_t capacity, unsigned workers) MUST_CHECK;

/* For the kinds, too: on the monotonic clock. 0, or an error number. */
int engine_init_condition(pthread_cond_t *condition);

/* Any thread that holds a reference. */
struct engine *engine_ref(struct engine *e);

/* The loop's thread. On SHIM_OK the op will be finished, unless it is cancelled. */
shim_status engine_submit(struct engine *e, struct op *op) MUST_CHECK;
/* The loop's thread, instead of submitting. True: the op was performed (or refused) and its status says how it went. */
bool engine_performs_at_once(struct engine *e, struct op *op);
/* The loop's thread. The result is not wanted any more: unlinks the op, or lets it finish into the void. */
void engine_cancel(struct engine *e, struct op *op);

/* Under the lock. The caller owns the reference that the queue held. NULL: nothing may be taken now. */
struct op *engine_take(struct engine *e);
bool engine_take_this(struct engine *e, struct op *op); /* the same for one op, in the queue or waiting for room */
/* Under the lock; let go of until engine_busy_end(). In between a fork waits. */
void engine_busy_begin(struct engine *e);
void engine_busy_end(struct engine *e);
/* Under the lock, let go of meanwhile: whoever begins something in OpenSSL on his own account waits here before. */
void engine_wait_for_fork(struct engine *e);
/* Both: entered and left under the lock, which they let go of meanwhile. */
void engine_perform(struct engine *e, struct op *op);
void engine_deliver(struct engine *e, struct op *op); /* gives the reference back */
/* The same for an op that nobody has in hand: it ends without a result. */
void engine_give_up(struct engine *e, struct op *op, shim_status status, const char *reason);
/* Under the lock, let go of meanwhile: until something is signalled at `condition` or that time has come. */
void engine_wait_until(struct engine *e, pthread_cond_t *condition, uint64_t due_ns);

/* fork.c only. Prepare takes the lock, the last two let it go. */
void engine_fork_announce(struct engine *e);
void engine_fork_prepare(struct engine *e, double seconds);
void engine_fork_parent(struct engine *e);
void engine_fork_child(struct engine *e);

#endif
