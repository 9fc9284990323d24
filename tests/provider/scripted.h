/*
 * scripted.h: what a test tells the provider, and what it hears of it. It is the cdef of
 * tlsserver/testing/control.py as it stands: plain declarations, no preprocessor beyond the guard.
 *
 * Any thread may call any of these, but never on a job's stack.
 */
#ifndef SCRIPTED_H
#define SCRIPTED_H

#include <stddef.h>
#include <stdint.h>

enum scripted_kind { SCRIPTED_SIGN, SCRIPTED_ENCRYPT, SCRIPTED_DECRYPT, SCRIPTED_KINDS };
/* What becomes of the wait fds from one pause to the next. */
enum scripted_change {
    SCRIPTED_KEEP,
    SCRIPTED_RENEW, /* other fds, with other numbers */
    SCRIPTED_REUSE  /* other fds, with the same numbers */
};
enum scripted_limits { SCRIPTED_FDS = 3 };

/* What one operation does. */
struct scripted_step {
    unsigned pauses;      /* how often it pauses; 0: never */
    unsigned false_wakes; /* how often its first pause is interrupted for nothing */
    unsigned fds;         /* how many wait fds it shows, 0 to SCRIPTED_FDS */
    int told;             /* 1: a pause lasts until the test ends it; 0: it has ended when it begins */
    int fails;            /* 1: its answer is an error */
    int change;           /* enum scripted_change */
    int sticky;           /* 1: its fds are readable from the first pause on, whatever comes */
    int callback;         /* 1: no fds, where the wait context has a callback: that is called instead */
};

struct scripted_waiting {
    uint64_t serial; /* of the operation, from 1 on */
    int kind;        /* enum scripted_kind */
    unsigned pause;  /* which of its pauses this is, from 1 on */
    int has_callback;
    int fds[3]; /* -1: none */
};

struct scripted_counters {
    uint64_t started;
    uint64_t completed;
    uint64_t failed;
    uint64_t pauses;
    uint64_t for_nothing; /* resumed, and nothing had come */
    uint64_t orphaned;    /* their wait context was freed under them */
    uint64_t alive;       /* now: neither ended nor orphaned */
    uint64_t fds_open;    /* now */
};

/* The functions of OpenSSL that the provider calls: it is linked to none. All are bound before it is loaded. */
#pragma GCC visibility push(default)
size_t scripted_function_count(void);
const char *scripted_function_name(size_t index);
void scripted_bind(size_t index, void *address);

/* Empty scripts, operations that complete at once, counters at 0; what waits is left alone. */
void scripted_reset(void);
int scripted_push(int kind, const struct scripted_step *step); /* for the next operation; 0: no memory */
void scripted_default(int kind, const struct scripted_step *step);

/* The operations that are paused until a test says more, oldest first; returns how many there are. */
size_t scripted_waiting(struct scripted_waiting *out, size_t room);
int scripted_wait(size_t count, double seconds); /* until so many wait at least; 0: not in time */
/* 0: there is no such operation, or it has no such fd. */
int scripted_complete(size_t index, size_t fd);
int scripted_fail(size_t index, size_t fd);
int scripted_wake(size_t index, size_t fd); /* readable for nothing */
void scripted_release_all(void);            /* complete them all, without further pauses */
void scripted_counters(struct scripted_counters *out);
#pragma GCC visibility pop

#endif
