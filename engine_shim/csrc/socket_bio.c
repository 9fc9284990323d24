/*
 * socket_bio.c: OpenSSL's way to a socket, with fewer system calls.
 *
 * Facts. OpenSSL's socket BIO makes one read(2) for a record's header and one for its body, since 3.2 also where
 * read-ahead is on, until the handshake is over; and it looks for the next record where the last read came short, so
 * that nothing can be there. The flight of a handshake and each session ticket is flushed, which is a write(2), a
 * segment, and the peer's interrupt each. Each record of data is one as well, of 16 KB at most, and a send(2) costs as
 * much as the encryption of a record.
 *
 * What it means. One recv(2) of all that has come serves a record or several. After a short one the next read waits
 * instead of asking, once: whoever drives the connection watches a level-triggered selector, which tells what came
 * meanwhile. OpenSSL may hold nothing, and this BIO a record: read until told to wait, or that it is drained.
 *
 * Decision. Within a step, one call of async_ssl.c, both directions use buffers of the thread, which no idle connection
 * pays for. At its end the bytes that OpenSSL has not taken move to memory of the BIO's own, freed with the last of
 * them; a job that pauses ends a step, too. What a handshake step writes is collected, and what a step that writes data
 * does: up to four records go with one send(2). Other steps write at once.
 *
 * What the kernel does not take is kept, and goes before everything else. Until it is gone the step wants to write,
 * whatever OpenSSL says: a handshake's peer waits for it, and data counts as written when it is sent.
 *
 * Some loops tell of an error once, and then watch no more (libuv): there a short read is no end, and who says that
 * the socket is drained has looked once more.
 *
 * Trade-off. Bytes of a record are copied once more, which is 1 us for 16 KB. A connection whose peer reads slowly keeps
 * up to 66 KB.
 */
#include "socket_bio.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "ossl.h"

/* Bytes that wait, in memory of their own or in the thread's. */
struct span {
    char *owned; /* NULL: in the thread's */
    char *next;  /* the first of them */
    size_t left;
};

/* Made by socket_bio_attach(), freed by OpenSSL with its BIO. */
struct socket_bio {
    int fd; /* borrowed */
    bool collects;
    bool came_short; /* the last recv(2): the next read waits instead */
    bool at_end;     /* recv(2) has met the end of the stream */
    bool lost;       /* bytes of a stream, for want of memory: every call fails from now on */
    bool looks_twice;
    struct span in, out;
};

/* The longest record, and more. As many records of data as a step writes; a flight with its chain is less. */
enum { IN_ROOM = 17 * 1024, OUT_ROOM = SOCKET_BIO_RECORDS * (16 * 1024 + 256) };

/* One thread's. Each buffer is one BIO's at a time, from its first use in a step to the end of that step. */
struct scratch {
    const struct socket_bio *reader, *writer;
    char in[IN_ROOM], out[OUT_ROOM];
};

static _Thread_local struct scratch *mine;
static pthread_key_t at_thread_end;
static BIO_METHOD *method; /* for good; NULL: no memory for it */

/* NULL: no memory, so OpenSSL's reads and writes go straight to the socket. */
static struct scratch *scratch(void) {
    if (mine != NULL) return mine;
    struct scratch *made = calloc(1, sizeof *made);
    if (made != NULL && pthread_setspecific(at_thread_end, made) != 0) {
        free(made);
        return NULL;
    }
    mine = made;
    return made;
}

static void span_clear(struct span *s) {
    free(s->owned);
    *s = (struct span){0};
}

static void span_drop(struct span *s, size_t count) {
    s->next += count;
    s->left -= count;
    if (s->left == 0) span_clear(s);
}

/* Into memory of its own. */
static bool span_keep(struct span *s) {
    if (s->left == 0 || s->owned != NULL) return true;
    char *copy = malloc(s->left);
    if (copy == NULL) return false;
    memcpy(copy, s->next, s->left);
    s->owned = s->next = copy;
    return true;
}

/* As recv(2). */
static ssize_t receive(struct socket_bio *s, void *out, size_t room) {
    if (s->came_short && !s->looks_twice) {
        s->came_short = false;
        errno = EAGAIN;
        return -1;
    }
    ssize_t got;
    do got = recv(s->fd, out, room, 0);
    while (got < 0 && errno == EINTR);
    s->came_short = got > 0 && (size_t)got < room;
    s->at_end = got == 0;
    return got;
}

/* As recv(2), but reads ahead where the thread's buffer is to be had. */
static ssize_t take(struct socket_bio *s, void *out, size_t length) {
    struct scratch *t = scratch();
    if (t == NULL || (t->reader != NULL && t->reader != s)) return receive(s, out, length);
    ssize_t got = receive(s, t->in, sizeof t->in);
    if (got <= 0) return got;
    t->reader = s;
    s->in = (struct span){NULL, t->in, (size_t)got};
    return 1;
}

static int serve(struct span *in, void *out, size_t length) {
    size_t count = length < in->left ? length : in->left;
    memcpy(out, in->next, count);
    span_drop(in, count);
    return (int)count;
}

static int retry(BIO *bio, int direction) {
    bool later = errno == EAGAIN || errno == EWOULDBLOCK;
    if (later) ossl.BIO_set_flags(bio, direction | BIO_FLAGS_SHOULD_RETRY);
    return -1;
}

static int without_memory(void) {
    errno = ENOMEM;
    return -1;
}

/* On the job's stack, as all of OpenSSL's calls. */
static int on_read(BIO *bio, char *out, int length) {
    struct socket_bio *s = ossl.BIO_get_data(bio);
    ossl.BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    if (length <= 0) return 0;
    if (s->lost) return without_memory();
    ssize_t got = s->in.left > 0 ? 1 : take(s, out, (size_t)length);
    if (got < 0) return retry(bio, BIO_FLAGS_READ);
    return s->in.left > 0 ? serve(&s->in, out, (size_t)length) : (int)got;
}

/* As send(2). */
static ssize_t transmit(const struct socket_bio *s, const void *bytes, size_t length) {
    ssize_t sent;
    do sent = send(s->fd, bytes, length, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent;
}

/* What was collected. False: not all of it, and errno says why. */
static bool flush(struct socket_bio *s) {
    while (s->out.left > 0) {
        ssize_t sent = transmit(s, s->out.next, s->out.left);
        if (sent < 0) return false;
        span_drop(&s->out, (size_t)sent);
    }
    return true;
}

/* Behind what is there. False: it is not collected, or there is no room. */
static bool collect(struct socket_bio *s, const void *bytes, size_t length) {
    if (!s->collects || s->out.owned != NULL) return false;
    struct scratch *t = scratch();
    if (t == NULL || (t->writer != NULL && t->writer != s)) return false;
    if (s->out.left == 0) s->out.next = t->out;
    if (length > (size_t)(t->out + sizeof t->out - (s->out.next + s->out.left))) return false;
    t->writer = s;
    memcpy(s->out.next + s->out.left, bytes, length);
    s->out.left += length;
    return true;
}

static int on_write(BIO *bio, const char *bytes, int length) {
    struct socket_bio *s = ossl.BIO_get_data(bio);
    ossl.BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    if (length <= 0) return 0;
    if (s->lost) return without_memory();
    if (collect(s, bytes, (size_t)length)) return length;
    if (!flush(s)) return retry(bio, BIO_FLAGS_WRITE);
    if (collect(s, bytes, (size_t)length)) return length;
    ssize_t sent = transmit(s, bytes, (size_t)length);
    return sent < 0 ? retry(bio, BIO_FLAGS_WRITE) : (int)sent;
}

static long on_ctrl(BIO *bio, int command, long number, void *pointer) {
    const struct socket_bio *s = ossl.BIO_get_data(bio);
    (void)number;
    switch (command) {
    case BIO_CTRL_FLUSH: /* the end of the step flushes */
    case BIO_CTRL_DUP:
        return 1;
    case BIO_CTRL_EOF:
        return s->at_end;
    case BIO_CTRL_PENDING:
        return (long)s->in.left;
    case BIO_CTRL_WPENDING:
        return (long)s->out.left;
    case BIO_C_GET_FD:
        if (pointer != NULL) *(int *)pointer = s->fd;
        return s->fd;
    default:
        return 0;
    }
}

/* Any thread, between steps: the thread's buffers are not in use. */
static int on_destroy(BIO *bio) {
    struct socket_bio *s = ossl.BIO_get_data(bio);
    if (s != NULL) {
        span_clear(&s->in);
        span_clear(&s->out);
    }
    free(s);
    return 1;
}

static void forget_scratch(void *scratch_of_thread) {
    mine = NULL;
    free(scratch_of_thread);
}

static void make_method(void) {
    if (pthread_key_create(&at_thread_end, forget_scratch) != 0) return;
    int type = ossl.BIO_get_new_index() | BIO_TYPE_SOURCE_SINK | BIO_TYPE_DESCRIPTOR;
    BIO_METHOD *made = ossl.BIO_meth_new(type, "socket of engine_shim");
    if (made == NULL) return;
    ossl.BIO_meth_set_read(made, on_read);
    ossl.BIO_meth_set_write(made, on_write);
    ossl.BIO_meth_set_ctrl(made, on_ctrl);
    ossl.BIO_meth_set_destroy(made, on_destroy);
    method = made;
}

struct socket_bio *socket_bio_attach(SSL *ssl, int fd) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_method);
    BIO *bio = method == NULL ? NULL : ossl.BIO_new(method);
    struct socket_bio *s = bio == NULL ? NULL : calloc(1, sizeof *s);
    if (s == NULL) {
        ossl.BIO_free(bio);
        return NULL;
    }
    s->fd = fd;
    ossl.BIO_set_data(bio, s);
    ossl.BIO_set_init(bio, 1);
    ossl.SSL_set_bio(ssl, bio, bio);
    return s;
}

void socket_bio_begin(struct socket_bio *s, bool collects) {
    s->collects = collects;
}

static void give_scratch_back(const struct socket_bio *s) {
    if (mine != NULL && mine->reader == s) mine->reader = NULL;
    if (mine != NULL && mine->writer == s) mine->writer = NULL;
}

int socket_bio_end(struct socket_bio *s) {
    int error = !s->collects || flush(s) ? 0 : errno;
    if (!span_keep(&s->in) || !span_keep(&s->out)) s->lost = true;
    if (s->lost) s->in.left = s->out.left = 0;
    s->collects = false;
    give_scratch_back(s);
    return s->lost ? ENOMEM : error;
}

bool socket_bio_is_drained(struct socket_bio *s) {
    char next;
    if (!s->came_short || s->in.left > 0) return false;
    if (s->looks_twice && (recv(s->fd, &next, sizeof next, MSG_PEEK) >= 0 || errno != EAGAIN)) return false;
    s->came_short = false;
    return true;
}

void socket_bio_look_twice(struct socket_bio *s) {
    s->looks_twice = true;
}

void socket_bio_drop(struct socket_bio *s) {
    span_clear(&s->out);
}
