/*
 * script.h: the scripts, and the operations that are under way.
 *
 * One lock guards all of it. It is held for a few assignments and system calls, never while a job
 * is paused. An operation is on the heap and not on the job's stack: a job that is leaked while it
 * is paused leaves the operation behind, where a test can see it.
 */
#ifndef SCRIPTED_SCRIPT_H
#define SCRIPTED_SCRIPT_H

#include <pthread.h>
#include <stdbool.h>

#include "scripted.h"
#include "types.h"

enum state { RUNNING, WAITING, TOLD };

/* Owned by operation_run() (an orphaned one by nobody: its job is lost); in the list from script_begin() to script_end(). Lock: script_lock, except where noted. */
struct operation {
    struct operation *next;
    uint64_t serial;           /* immutable */
    enum scripted_kind kind;   /* immutable */
    struct scripted_step step; /* immutable */
    enum state state;
    unsigned pause; /* which one, from 1 on */
    bool failed;
    bool released;         /* no more pauses */
    bool orphaned;         /* its wait context is gone */
    bool has_paused;       /* the job's thread only */
    int fds[SCRIPTED_FDS]; /* owned; -1: none */
    ASYNC_callback_fn callback;
    void *callback_arg; /* borrowed from the wait context, while the job is paused */
};

extern pthread_mutex_t script_lock;
extern struct scripted_counters script_counters; /* lock: script_lock */

/* NULL: no memory. The caller owns it. */
struct operation *script_begin(enum scripted_kind kind);
/* Takes the operation out of the list, closes its fds, frees it. 1: it has completed. */
int script_end(struct operation *op);

/* The following with the lock held. */
bool fds_open(struct operation *op);   /* as many as its script says; false: the system has none */
bool fds_change(struct operation *op); /* as its script says */
void fds_clear(struct operation *op);  /* not readable any more */
void fds_close(struct operation *op);
void fds_signal(struct operation *op, size_t index); /* or calls its callback, which must not come back here */
void script_tell(struct operation *op, bool fail, size_t fd);
void script_wait(struct operation *op); /* it waits from now on */

#endif
