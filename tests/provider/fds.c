/* fds.c: the wait fds of an operation: eventfds of the provider's own. Every function with script_lock held. */
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "script.h"

static int open_one(void) {
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd >= 0) script_counters.fds_open++;
    return fd;
}

static void close_one(int *fd) {
    if (*fd < 0) return;
    close(*fd);
    *fd = -1;
    script_counters.fds_open--;
}

bool fds_open(struct operation *op) {
    for (unsigned i = 0; i < op->step.fds; i++) {
        if (op->fds[i] < 0) op->fds[i] = open_one();
        if (op->fds[i] < 0) return false;
    }
    return true;
}

void fds_close(struct operation *op) {
    for (unsigned i = 0; i < SCRIPTED_FDS; i++) close_one(&op->fds[i]);
}

/* The old one is still open while the new one is made, so that the number differs. */
static bool renew(int *fd) {
    int made = open_one();
    if (made < 0) return false;
    close_one(fd);
    *fd = made;
    return true;
}

/* dup3 closes the old one and gives its number to the new one in one step: no other thread can take it. */
static bool reuse(int *fd) {
    int made = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (made < 0) return false;
    int same = dup3(made, *fd, O_CLOEXEC);
    close(made);
    return same == *fd;
}

bool fds_change(struct operation *op) {
    bool done = true;
    for (unsigned i = 0; i < op->step.fds && done; i++) {
        if (op->step.change == SCRIPTED_RENEW) done = renew(&op->fds[i]);
        if (op->step.change == SCRIPTED_REUSE) done = reuse(&op->fds[i]);
    }
    return done;
}

void fds_clear(struct operation *op) {
    if (op->step.sticky) return;
    for (unsigned i = 0; i < SCRIPTED_FDS; i++) {
        uint64_t signals;
        /* Empty already: EAGAIN, which is as good. */
        if (op->fds[i] >= 0 && read(op->fds[i], &signals, sizeof signals) < 0) continue;
    }
}

void fds_signal(struct operation *op, size_t index) {
    const uint64_t one = 1;
    if (op->callback != NULL) {
        op->callback(op->callback_arg);
        return;
    }
    /* A full counter is readable already. */
    if (index < SCRIPTED_FDS && op->fds[index] >= 0 && write(op->fds[index], &one, sizeof one) < 0) return;
}
