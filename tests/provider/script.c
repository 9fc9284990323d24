#include "script.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

pthread_mutex_t script_lock = PTHREAD_MUTEX_INITIALIZER;
struct scripted_counters script_counters;

/* More waits than before: scripted_wait() looks again. */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

struct entry {
    struct entry *next;
    struct scripted_step step;
};

/* Lock: script_lock, all three. */
static struct entry *scripts[SCRIPTED_KINDS]; /* owned; the next operation's first */
static struct scripted_step defaults[SCRIPTED_KINDS];
static struct operation *operations; /* borrowed; oldest first */
static uint64_t serial;

static bool is_kind(int kind) {
    return kind >= 0 && kind < SCRIPTED_KINDS;
}

static struct scripted_step sane(const struct scripted_step *step) {
    struct scripted_step s = *step;
    if (s.fds > SCRIPTED_FDS) s.fds = SCRIPTED_FDS;
    /* A callback may be Python, which must not run on a job's stack: only a test calls it. */
    if (s.callback) s.told = 1;
    return s;
}

static void clear_script(int kind) {
    while (scripts[kind] != NULL) {
        struct entry *first = scripts[kind];
        scripts[kind] = first->next;
        free(first);
    }
}

void scripted_reset(void) {
    pthread_mutex_lock(&script_lock);
    for (int kind = 0; kind < SCRIPTED_KINDS; kind++) {
        clear_script(kind);
        defaults[kind] = (struct scripted_step){0};
    }
    uint64_t alive = script_counters.alive, open = script_counters.fds_open;
    script_counters = (struct scripted_counters){.alive = alive, .fds_open = open};
    pthread_mutex_unlock(&script_lock);
}

int scripted_push(int kind, const struct scripted_step *step) {
    struct entry *made = is_kind(kind) ? calloc(1, sizeof *made) : NULL;
    if (made == NULL) return 0;
    made->step = sane(step);
    pthread_mutex_lock(&script_lock);
    struct entry **end = &scripts[kind];
    while (*end != NULL) end = &(*end)->next;
    *end = made;
    pthread_mutex_unlock(&script_lock);
    return 1;
}

void scripted_default(int kind, const struct scripted_step *step) {
    if (!is_kind(kind)) return;
    pthread_mutex_lock(&script_lock);
    defaults[kind] = sane(step);
    pthread_mutex_unlock(&script_lock);
}

/* With the lock held. */
static struct scripted_step take_step(enum scripted_kind kind) {
    struct entry *first = scripts[kind];
    if (first == NULL) return defaults[kind];
    struct scripted_step step = first->step;
    scripts[kind] = first->next;
    free(first);
    return step;
}

static void append(struct operation *op) {
    struct operation **end = &operations;
    while (*end != NULL) end = &(*end)->next;
    *end = op;
}

static void take_out(struct operation *op) {
    struct operation **at = &operations;
    while (*at != NULL && *at != op) at = &(*at)->next;
    if (*at == op) *at = op->next;
}

struct operation *script_begin(enum scripted_kind kind) {
    struct operation *op = calloc(1, sizeof *op);
    if (op == NULL) return NULL;
    for (int i = 0; i < SCRIPTED_FDS; i++) op->fds[i] = -1;
    op->kind = kind;
    pthread_mutex_lock(&script_lock);
    op->step = take_step(kind);
    op->serial = ++serial;
    append(op);
    script_counters.started++;
    script_counters.alive++;
    pthread_mutex_unlock(&script_lock);
    return op;
}

int script_end(struct operation *op) {
    pthread_mutex_lock(&script_lock);
    int completed = !op->failed && !op->step.fails;
    take_out(op);
    fds_close(op);
    if (completed)
        script_counters.completed++;
    else
        script_counters.failed++;
    script_counters.alive--;
    pthread_mutex_unlock(&script_lock);
    free(op);
    return completed;
}

void script_wait(struct operation *op) {
    op->state = WAITING;
    pthread_cond_broadcast(&changed);
}

void script_tell(struct operation *op, bool fail, size_t fd) {
    op->state = TOLD;
    op->failed |= fail;
    fds_signal(op, fd);
}

/* With the lock held. NULL: there is no such operation, or it has no such fd. */
static struct operation *find(size_t index, size_t fd) {
    for (struct operation *op = operations; op != NULL; op = op->next) {
        if (op->state != WAITING || op->orphaned || index-- > 0) continue;
        bool without = op->callback != NULL || op->step.fds == 0;
        return without || fd < op->step.fds ? op : NULL;
    }
    return NULL;
}

static int tell(size_t index, bool fail, size_t fd) {
    pthread_mutex_lock(&script_lock);
    struct operation *op = find(index, fd);
    if (op != NULL) script_tell(op, fail, fd);
    pthread_mutex_unlock(&script_lock);
    return op != NULL;
}

int scripted_complete(size_t index, size_t fd) {
    return tell(index, false, fd);
}

int scripted_fail(size_t index, size_t fd) {
    return tell(index, true, fd);
}

int scripted_wake(size_t index, size_t fd) {
    pthread_mutex_lock(&script_lock);
    struct operation *op = find(index, fd);
    if (op != NULL) fds_signal(op, fd);
    pthread_mutex_unlock(&script_lock);
    return op != NULL;
}

void scripted_release_all(void) {
    pthread_mutex_lock(&script_lock);
    for (struct operation *op = operations; op != NULL; op = op->next) {
        op->released = true;
        if (op->state == WAITING && !op->orphaned) script_tell(op, false, 0);
    }
    pthread_mutex_unlock(&script_lock);
}

static struct scripted_waiting describe(const struct operation *op) {
    struct scripted_waiting told = {.serial = op->serial, .kind = op->kind, .pause = op->pause};
    told.has_callback = op->callback != NULL;
    memcpy(told.fds, op->fds, sizeof told.fds);
    return told;
}

/* With the lock held. */
static size_t list_waiting(struct scripted_waiting *out, size_t room) {
    size_t count = 0;
    for (const struct operation *op = operations; op != NULL; op = op->next) {
        if (op->state != WAITING || op->orphaned) continue;
        if (count < room) out[count] = describe(op);
        count++;
    }
    return count;
}

size_t scripted_waiting(struct scripted_waiting *out, size_t room) {
    pthread_mutex_lock(&script_lock);
    size_t count = list_waiting(out, room);
    pthread_mutex_unlock(&script_lock);
    return count;
}

/* By the clock of a condition variable, unless it was told another. */
static struct timespec in_seconds(double seconds) {
    const long second = 1000000000;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)((seconds - (double)(time_t)seconds) * (double)second);
    until.tv_sec += (time_t)seconds + until.tv_nsec / second;
    until.tv_nsec %= second;
    return until;
}

int scripted_wait(size_t count, double seconds) {
    struct timespec until = in_seconds(seconds);
    int late = 0;
    pthread_mutex_lock(&script_lock);
    while (list_waiting(NULL, 0) < count && late == 0) late = pthread_cond_timedwait(&changed, &script_lock, &until);
    int enough = list_waiting(NULL, 0) >= count;
    pthread_mutex_unlock(&script_lock);
    return enough;
}

void scripted_counters(struct scripted_counters *out) {
    pthread_mutex_lock(&script_lock);
    *out = script_counters;
    pthread_mutex_unlock(&script_lock);
}
