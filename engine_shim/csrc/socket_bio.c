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
 * them; a job that pauses ends a step, too. All that a step writes is collected, and sent at its end: the flight of a
 * handshake, and as many records of data as async_ssl.c lets OpenSSL write. OpenSSL is never told to wait: so it never
 * holds a record of its own, which would forbid it every other write ("bad write retry") until the caller repeats.
 *
 * What the kernel does not take is kept, and goes before everything else. async_ssl.c has the step wait for it.
 *
 * A step takes no more of the socket than two buffers, and then waits although more is there: OpenSSL answers small
 * records one by one (a ClientHello that asks for a renegotiation with an alert) for as long as there are any, and a
 * client that sends and does not read would let the answers pile up, and hold the thread.
 *
 * Some loops tell of an error once, and then watch no more (libuv): there a short read is no end, and who says that
 * the socket is drained has looked once more.
 *
 * Trade-off. Bytes of a record are copied once more, which is 1 us for 16 KB. A connection whose peer reads slowly keeps
 * up to 66 KB, and more only where its peer has asked for records of 512 bytes (RFC 6066, 4).
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
    size_t room; /* of what is owned, in bytes from `next` on */
};

/* Made by socket_bio_attach(), freed by OpenSSL with its BIO. */
struct socket_bio {
    int fd;          /* borrowed */
    int failed;      /* errno of a send(2) that bytes were lost by: every write fails from now on; 0: none */
    bool in_step;    /* between begin and end: writes are collected */
    bool added;      /* something, in this step */
    size_t taken;    /* of the socket, in this step */
    bool came_short; /* the last recv(2): the next read waits instead */
    bool at_end;     /* recv(2) has met the end of the stream */
    bool lost;       /* bytes of a stream, for want of memory: every call fails from now on */
    bool looks_twice;
    struct span in, out;
};

/* The longest record, and more; as many records of data as a step writes. A flight with its chain is less. */
enum { IN_ROOM = 17 * 1024, OUT_ROOM = SOCKET_BIO_RECORDS * (16 * 1024 + 256) };

/* Of the socket, in one step: the longest record, wherever it begins. */
enum { TAKEN_MOST = 2 * IN_ROOM };

/* One thread's. Each buffer is one BIO's at a time, from its first use in a step to the end of that step. */
struct scratch {
    const struct socket_bio *reader, *writer;
    char in[IN_ROOM], out[OUT_ROOM];
};

static _Thread_local struct scratch *mine;
static pthread_key_t at_thread_end;
static BIO_METHOD *method; /* for good; NULL: no memory for it */

/* NULL: no memory, so OpenSSL's reads go straight to the socket, and what it writes to memory of the BIO's own. */
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
    if (s->owned != NULL) s->room -= count;
    if (s->left == 0) span_clear(s);
}

/* To memory of its own with so much room, which is no less than what is left. */
static bool span_move(struct span *s, size_t room) {
    char *copy = malloc(room);
    if (copy == NULL) return false;
    if (s->left > 0) memcpy(copy, s->next, s->left);
    free(s->owned);
    *s = (struct span){copy, copy, s->left, room};
    return true;
}

static bool span_keep(struct span *s) {
    return s->left == 0 || s->owned != NULL || span_move(s, s->left);
}

/* Behind what is left, in memory of its own. */
static bool span_append(struct span *s, const void *bytes, size_t length) {
    size_t needed = s->left + length;
    if ((s->owned == NULL || s->room < needed) && !span_move(s, 2 * needed)) return false;
    memcpy(s->next + s->left, bytes, length);
    s->left = needed;
    return true;
}

/* As recv(2). */
static ssize_t receive(struct socket_bio *s, void *out, size_t room) {
    if (s->came_short && !s->looks_twice) {
        s->came_short = false;
        errno = EAGAIN;
        return -1;
    }
    if (s->taken >= TAKEN_MOST) {
        errno = EAGAIN;
        return -1;
    }
    ssize_t got;
    do got = recv(s->fd, out, room, 0);
    while (got < 0 && errno == EINTR);
    if (got > 0 && s->in_step) s->taken += (size_t)got;
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
    s->in = (struct span){.next = t->in, .left = (size_t)got};
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

/* In the thread's buffer. False: it is another's, or full, or what is left is elsewhere. */
static bool collect(struct socket_bio *s, const void *bytes, size_t length) {
    struct scratch *t = s->out.owned != NULL ? NULL : scratch();
    if (t == NULL || (t->writer != NULL && t->writer != s)) return false;
    if (s->out.left == 0) s->out.next = t->out;
    if (length > (size_t)(t->out + sizeof t->out - (s->out.next + s->out.left))) return false;
    t->writer = s;
    memcpy(s->out.next + s->out.left, bytes, length);
    s->out.left += length;
    return true;
}

/* Outside of steps: as OpenSSL's own, behind what is there. */
static int write_through(BIO *bio, struct socket_bio *s, const char *bytes, int length) {
    errno = socket_bio_flush(s);
    if (errno != 0) return retry(bio, BIO_FLAGS_WRITE);
    ssize_t sent = transmit(s, bytes, (size_t)length);
    return sent < 0 ? retry(bio, BIO_FLAGS_WRITE) : (int)sent;
}

static int on_write(BIO *bio, const char *bytes, int length) {
    struct socket_bio *s = ossl.BIO_get_data(bio);
    ossl.BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    if (length <= 0) return 0;
    if (s->lost) return without_memory();
    if (s->failed != 0) {
        errno = s->failed;
        return -1;
    }
    if (!s->in_step) return write_through(bio, s, bytes, length);
    if (!collect(s, bytes, (size_t)length) && !span_append(&s->out, bytes, (size_t)length)) return without_memory();
    s->added = true;
    return length;
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

void socket_bio_begin(struct socket_bio *s, bool resumes) {
    s->in_step = true;
    s->taken = 0;
    if (!resumes) s->added = false;
}

bool socket_bio_added(const struct socket_bio *s) {
    return s->added;
}

int socket_bio_flush(struct socket_bio *s) {
    if (s->failed != 0) return s->failed;
    while (s->out.left > 0) {
        ssize_t sent = transmit(s, s->out.next, s->out.left);
        if (sent < 0) return errno == EWOULDBLOCK ? EAGAIN : errno;
        span_drop(&s->out, (size_t)sent);
    }
    return 0;
}

static void give_scratch_back(const struct socket_bio *s) {
    if (mine != NULL && mine->reader == s) mine->reader = NULL;
    if (mine != NULL && mine->writer == s) mine->writer = NULL;
}

bool socket_bio_end(struct socket_bio *s) {
    if (!span_keep(&s->in) || !span_keep(&s->out)) s->lost = true;
    if (s->lost) s->in.left = s->out.left = 0;
    s->in_step = false;
    s->taken = 0;
    give_scratch_back(s);
    return !s->lost;
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

void socket_bio_fail(struct socket_bio *s, int error) {
    socket_bio_drop(s);
    s->failed = error;
}
