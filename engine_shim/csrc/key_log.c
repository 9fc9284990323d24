/*
 * key_log.c: the secrets of handshakes in a file, for Wireshark and the like (RFC 9850; SSL_CTX_set_keylog_callback(3)).
 *
 * Facts. OpenSSL calls with one line, without its end, on the job's stack, from any thread that has a connection. It
 * wipes the line itself. A write(2) to a file opened with O_APPEND goes to its end as a whole.
 *
 * Decision. Line and end go out by one writev(2): nothing is copied, no lock is held, and processes after a fork may
 * share the file. One file is open once, however many SSL_CTXs write to it: the next context of a reload finds it.
 * A write that fails costs the line and no handshake: it is counted, and said once for each file.
 *
 * Trade-off. Saying it is a line on standard error, because no Python may run here; not where somebody else has that
 * descriptor by then, nor where it would have to wait.
 */
#include "key_log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "context_data.h"
#include "errors.h"
#include "fork.h"
#include "ossl.h"

/* Which file a descriptor leads to. */
struct identity {
    dev_t device;
    ino_t inode;
};

/* Owned by the SSL_CTXs that write to it, each with a reference. */
struct key_log {
    struct key_log *next; /* under the lock */
    size_t references;    /* under the lock */
    int fd;               /* owned; from here on immutable, but for the two flags */
    struct identity file, standard_error;
    atomic_bool is_torn, has_complained;
    char path[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct key_log *logs; /* under the lock; borrowed: who gives back the last reference takes it out */

static bool identify(int fd, struct identity *out) {
    struct stat found;
    if (fstat(fd, &found) != 0) return false;
    *out = (struct identity){found.st_dev, found.st_ino};
    return true;
}

static bool is_same(const struct identity *a, const struct identity *b) {
    return a->device == b->device && a->inode == b->inode;
}

#define TEXT(text) {(void *)(uintptr_t)(text), strlen(text)}

/* Any thread, on a job's stack too. */
static void complain(struct key_log *k, int error) {
    struct identity now;
    struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (atomic_exchange(&k->has_complained, true)) return;
    if (!identify(STDERR_FILENO, &now) || !is_same(&now, &k->standard_error) || poll(&room, 1, 0) != 1) return;
    char buffer[64];
    const char *why = strerror_r(error, buffer, sizeof buffer);
    const struct iovec parts[] = {TEXT("engine_shim: key log "), TEXT(k->path), TEXT(": "), TEXT(why),
                                  TEXT(": lines are missing\n")};
    if (writev(STDERR_FILENO, parts, sizeof parts / sizeof parts[0]) < 0) return; /* there is nobody left to tell */
}

/* The rest of a line that did not fit is lost; what comes next begins on a line of its own. */
static bool write_whole(struct key_log *k, const char *line, int *error) {
    bool was_torn = atomic_exchange(&k->is_torn, false);
    const struct iovec parts[] = {TEXT(was_torn ? "\n" : ""), TEXT(line), TEXT("\n")};
    size_t length = parts[0].iov_len + parts[1].iov_len + parts[2].iov_len;
    ssize_t written;
    do written = writev(k->fd, parts, 3);
    while (written < 0 && errno == EINTR);
    if (written == (ssize_t)length) return true;
    *error = written < 0 ? errno : ENOSPC;
    if (written > 0 || was_torn) atomic_store(&k->is_torn, true);
    return false;
}

/* Any thread, on a job's stack too. The line is OpenSSL's. */
static void write_line(const SSL *ssl, const char *line) {
    struct key_log *k = context_data_get(ossl.SSL_get_SSL_CTX(ssl), CONTEXT_KEY_LOG);
    int before = errno, error = 0;
    if (k == NULL) return;
    if (write_whole(k, line, &error)) {
        count_up(&counters.key_log_lines);
    } else {
        count_up(&counters.key_log_failures);
        complain(k, error);
    }
    errno = before; /* the SSL call's may be wanted */
}

/* Any thread. */
static void give_back(void *part) {
    struct key_log *k = part;
    pthread_mutex_lock(&lock);
    bool is_last = --k->references == 0;
    struct key_log **at = &logs;
    while (is_last && *at != k) at = &(*at)->next;
    if (is_last) *at = k->next;
    pthread_mutex_unlock(&lock);
    if (!is_last) return;
    close(k->fd);
    free(k);
}

/* Under the lock: one that is open already, with a reference more; NULL: there is none. */
static struct key_log *find(const struct identity *file) {
    struct key_log *k = logs;
    while (k != NULL && !is_same(&k->file, file)) k = k->next;
    if (k != NULL) k->references++;
    return k;
}

/* Under the lock. Takes fd, unless it gives NULL. */
static struct key_log *add(const struct identity *file, int fd, const char *path) {
    struct key_log *k = calloc(1, sizeof *k + strlen(path) + 1);
    if (k == NULL) return NULL;
    k->references = 1;
    k->fd = fd;
    k->file = *file;
    identify(STDERR_FILENO, &k->standard_error);
    memcpy(k->path, path, strlen(path) + 1);
    k->next = logs;
    return logs = k;
}

/* Before the SSL_CTX has its first SSL; any one thread. */
int key_log_use(void *ssl_ctx, int fd, const char *path, int *is_new) {
    struct identity file;
    fork_install();
    if (!identify(fd, &file)) {
        close(fd);
        return SHIM_ERR_SYSTEM;
    }
    pthread_mutex_lock(&lock);
    struct key_log *k = find(&file);
    *is_new = k == NULL;
    if (k == NULL) k = add(&file, fd, path);
    pthread_mutex_unlock(&lock);
    if (!*is_new || k == NULL) close(fd);
    if (k == NULL) return SHIM_ERR_MEMORY;
    shim_status status = context_data_set(ssl_ctx, CONTEXT_KEY_LOG, k, give_back);
    if (status != SHIM_OK) {
        give_back(k);
        return status;
    }
    ossl.SSL_CTX_set_keylog_callback(ssl_ctx, write_line);
    return SHIM_OK;
}

void key_log_fork_prepare(void) {
    pthread_mutex_lock(&lock);
}

void key_log_fork_parent(void) {
    pthread_mutex_unlock(&lock);
}

/* The files stay open, and are written to by both. */
void key_log_fork_child(void) {
    pthread_mutex_unlock(&lock);
}
