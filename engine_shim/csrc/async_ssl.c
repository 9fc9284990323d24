/*
 * async_ssl.c: one SSL, driven asynchronously, one OpenSSL call a step.
 *
 * Facts. A job is the C stack of one call: what paused must be resumed, until it returns, on the
 * thread that started it. libssl starts jobs by itself (SSL_MODE_ASYNC) and keeps them to itself:
 * SSL_get_error() looks at the error queue before it looks at the job, so a job that failed and
 * pauses once more for the MAC of its alert looks finished; SSL_free() on a paused job leaks it;
 * and OpenSSL 4.0 answers every call on an SSL that has failed at once, so that such a job is
 * never resumed (openssl#29991). Inside a job of somebody else's libssl starts none of its own.
 * The error queue is the thread's, not the job's.
 *
 * What it means. Jobs are ours: libssl runs inside them and cannot tell (docs/decisions/0009).
 * Whether a call has paused is what ASYNC_start_job() says. Clear the error queue before, read it
 * out after, at a pause as well, and keep what the job said before it. Refuse every call but the
 * paused one; refuse other threads, and children of a fork; never free before the job has ended.
 *
 * Decision. struct async_ssl holds a reference to the SSL of its own, so pyOpenSSL's objects may
 * die in any order. Closing cancels, resumes the job once and lets libssl unwind; a job of a
 * third-party engine that goes on is the caller's to drain (SHIM_ERR_BUSY).
 *
 * Trade-off. What a garbage collector frees on another thread, or after a fork, cannot be
 * unwound: it is left behind and counted (jobs_abandoned), rather than crashing.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "ossl.h"
#include "peer_chain.h"
#include "question.h"
#include "runner.h"
#include "socket_bio.h"

enum { ERRORS_MOST = 8 };

/* The thread that made it only, but for async_ssl_free(). */
struct async_ssl {
    SSL *ssl;                /* a reference; NULL: closed */
    struct socket_bio *bio;  /* the SSL's; NULL: it has one that others made, or closed */
    ASYNC_WAIT_CTX *context; /* owned; NULL: no call runs in a job, or closed */
    struct runner runner;
    struct async_step step;
    struct async_error *errors; /* owned; NULL until the first error */
    int flags;
    bool is_server;
    bool asynchronous; /* the next call runs in a job */

    /* The call in hand, or the paused one; the buffer is the caller's, who keeps it. */
    int call;
    void *buffer;
    size_t length;
    int result, system_error; /* of the call, once it has returned */

    /* What OpenSSL has done and the caller is told when it is sent: by the repeated call, whatever came in between. */
    size_t write_owed; /* bytes from the beginning of what is to be written */
    bool goodbye_owed;
    bool read_owes; /* what a read has written: the next one waits */
};

/* Idle connections give their 34 KB of record buffers back (RELEASE_BUFFERS); writes may be short and may move. */
static const long modes =
    SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS;

struct async_ssl *async_ssl_new(void *ssl, int flags) {
    struct async_ssl *a = calloc(1, sizeof *a);
    if (a == NULL) return NULL;
    if (flags != ASYNC_OFF) a->context = ossl.ASYNC_WAIT_CTX_new();
    bool complete = flags == ASYNC_OFF || a->context != NULL;
    if (!complete || ossl.SSL_up_ref(ssl) != 1) {
        ossl.ASYNC_WAIT_CTX_free(a->context);
        free(a);
        return NULL;
    }
    a->ssl = ssl;
    a->flags = flags;
    a->asynchronous = flags != ASYNC_OFF;
    runner_init(&a->runner);
    ossl.SSL_ctrl(ssl, SSL_CTRL_MODE, modes, NULL);
    ossl.SSL_ctrl(ssl, SSL_CTRL_CLEAR_MODE, SSL_MODE_ASYNC, NULL); /* libssl starts no job of its own */
    return a;
}

static struct async_ssl *open_end(void *ssl_ctx, int fd, int flags, void (*set_state)(SSL *)) {
    SSL *ssl = ossl.SSL_new(ssl_ctx);
    if (ssl == NULL) return NULL;
    struct socket_bio *bio = socket_bio_attach(ssl, fd);
    struct async_ssl *a = bio != NULL ? async_ssl_new(ssl, flags) : NULL;
    if (a != NULL) {
        a->bio = bio;
        a->is_server = set_state == ossl.SSL_set_accept_state;
        set_state(ssl);
    }
    ossl.SSL_free(ssl); /* a reference of its own keeps it */
    return a;
}

struct async_ssl *async_ssl_accept(void *ssl_ctx, int fd, int flags) {
    return open_end(ssl_ctx, fd, flags, ossl.SSL_set_accept_state);
}

struct async_ssl *async_ssl_connect(void *ssl_ctx, int fd, int flags) {
    return open_end(ssl_ctx, fd, flags, ossl.SSL_set_connect_state);
}

const struct async_step *async_ssl_step(struct async_ssl *a) {
    return &a->step;
}

int async_ssl_is_paused(const struct async_ssl *a) {
    return runner_is_paused(&a->runner);
}

void *async_ssl_raw(const struct async_ssl *a) {
    return a->ssl;
}

static shim_status check_call(const struct async_ssl *a, int call, const void *buffer, size_t length) {
    if (a->ssl == NULL) return SHIM_ERR_CLOSED;
    if (length > INT_MAX) return SHIM_ERR_RANGE;
    shim_status status = runner_check(&a->runner);
    if (status != SHIM_OK || !async_ssl_is_paused(a)) return status;
    bool same = call == a->call && buffer == a->buffer && length == a->length;
    return same ? SHIM_OK : SHIM_ERR_BUSY;
}

/*
 * SSL_write(3), as many records as go with one send(2): without our BIO one, for OpenSSL may keep the next, which binds
 * the caller. A failure is told at once; to wait (for a renegotiation) is not.
 */
static int write_records(const struct async_ssl *a) {
    enum { MOST = SOCKET_BIO_RECORDS * 16 * 1024 };
    size_t most = a->length < MOST ? a->length : MOST, taken = 0;
    int result;
    do {
        result = ossl.SSL_write(a->ssl, (const char *)a->buffer + taken, (int)(a->length - taken));
        if (result > 0) taken += (size_t)result;
    } while (result > 0 && a->bio != NULL && taken < most);
    if (taken == 0) return result;
    int error = result > 0 ? SSL_ERROR_NONE : ossl.SSL_get_error(a->ssl, result);
    return error == SSL_ERROR_SSL || error == SSL_ERROR_SYSCALL ? result : (int)taken;
}

static bool is_owed(const struct async_ssl *a) {
    return a->call == CALL_WRITE ? a->write_owed > 0 : a->call == CALL_SHUTDOWN && a->goodbye_owed;
}

/* What an earlier step owes; a write may have become shorter, and the peer may have said goodbye meanwhile. */
static int repeat(const struct async_ssl *a) {
    if (a->call == CALL_SHUTDOWN) return (ossl.SSL_get_shutdown(a->ssl) & SSL_RECEIVED_SHUTDOWN) != 0;
    return (int)(a->write_owed < a->length ? a->write_owed : a->length);
}

static int call_openssl(const struct async_ssl *a) {
    if (is_owed(a)) return repeat(a);
    switch (a->call) {
    case CALL_READ:
        return ossl.SSL_read(a->ssl, a->buffer, (int)a->length);
    case CALL_WRITE:
        return write_records(a);
    case CALL_SHUTDOWN:
        return ossl.SSL_shutdown(a->ssl);
    default:
        return ossl.SSL_do_handshake(a->ssl);
    }
}

/* On the job's stack, if there is one. What it came to is kept: it may be another step that sees it return. */
static int run(void *argument) {
    struct async_ssl *a = *(struct async_ssl **)argument;
    errno = 0;
    a->result = call_openssl(a);
    a->system_error = errno;
    return 1;
}

/* SSL_shutdown(3): 0 means that our close_notify is sent and the peer's has not come, which is no error. */
static bool succeeded(int call, int result) {
    return call == CALL_SHUTDOWN ? result >= 0 : result > 0;
}

static void read_fds(struct async_ssl *a) {
    enum { room = sizeof a->step.fds / sizeof a->step.fds[0] };
    a->step.fd_count = (int)wait_all_fds(a->context, a->step.fds, room);
    a->step.added_count = async_ssl_added(a, a->step.added, room);
    if (a->step.fd_count == 1) a->step.serial = pause_serial(a->context);
    const struct question *q = a->runner.pauser.question;
    a->step.asks = q != NULL && !q->told;
}

static void keep_error(struct async_ssl *a, unsigned long code, const char *data) {
    if (a->errors == NULL) a->errors = calloc(ERRORS_MOST, sizeof a->errors[0]);
    if (a->errors == NULL || a->step.error_count == ERRORS_MOST) return;
    struct async_error *entry = &a->errors[a->step.error_count++];
    entry->code = code;
    entry->ours = errors_ours(code);
    errors_describe(code, data, entry->text, sizeof entry->text);
}

/* Empties the queue, which a call that only has to wait leaves empty. What there is no memory for is left out. */
static void read_errors(struct async_ssl *a) {
    const char *data;
    unsigned long code;
    while (data = NULL, (code = ossl.ERR_get_error_all(NULL, NULL, NULL, &data, NULL)) != 0) keep_error(a, code, data);
}

/* A paused call may have failed already: what is on the queue then was kept, and the rest of it comes later. */
static int status_of(const struct async_ssl *a, int outcome) {
    if (outcome == ASYNC_PAUSE) return SSL_ERROR_WANT_ASYNC;
    if (outcome == ASYNC_NO_JOBS) return SSL_ERROR_WANT_ASYNC_JOB;
    if (outcome == ASYNC_ERR) return SSL_ERROR_SSL;
    if (succeeded(a->call, a->result)) return SSL_ERROR_NONE;
    int status = ossl.SSL_get_error(a->ssl, a->result);
    /* OpenSSL 4 puts an entry of its own, which says nothing, upon a peer that is gone. */
    bool peer_gone = a->system_error == EPIPE || a->system_error == ECONNRESET;
    if (status == SSL_ERROR_SSL && a->call == CALL_WRITE && peer_gone) return SSL_ERROR_SYSCALL;
    return status == SSL_ERROR_SYSCALL && a->step.error_count > 0 ? SSL_ERROR_SSL : status;
}

static bool is_drained(const struct async_ssl *a) {
    return a->bio != NULL && ossl.SSL_has_pending(a->ssl) == 0 && socket_bio_is_drained(a->bio);
}

static void settle_debt(struct async_ssl *a) {
    if (a->call == CALL_WRITE) a->write_owed -= (size_t)a->result;
    if (a->call == CALL_SHUTDOWN) a->goodbye_owed = false;
}

/* The call has returned without an error. */
static void succeed(struct async_ssl *a) {
    a->step.count = a->result;
    a->step.error_count = 0;
    ossl.ERR_clear_error();
    a->step.drained = a->call == CALL_READ && !a->read_owes && is_drained(a);
    if (is_owed(a)) settle_debt(a);
    if (a->call == CALL_HANDSHAKE) a->asynchronous = (a->flags & ASYNC_IO) != 0;
}

/*
 * The step wants to write for as long as bytes of it are left. A read keeps what it has read: only the next one waits,
 * or a peer that asks and does not read could have its answers pile up.
 */
static void wait_to_send(struct async_ssl *a) {
    bool is_done = a->step.status == SSL_ERROR_NONE;
    if (a->call == CALL_READ) a->read_owes = true;
    if (a->call == CALL_READ && is_done) return;
    if (a->call == CALL_WRITE && is_done && !is_owed(a)) a->write_owed = (size_t)a->result;
    if (a->call == CALL_SHUTDOWN && is_done) a->goodbye_owed = true;
    a->step.status = SSL_ERROR_WANT_WRITE;
    ossl.ERR_clear_error();
}

/* All that a server has left then is session tickets: OpenSSL does not fail for them either; the next read will tell. */
static bool does_not_matter(const struct async_ssl *a, int error) {
    bool peer_left = error == EPIPE || error == ECONNRESET;
    bool is_done = a->call == CALL_HANDSHAKE && a->step.status == SSL_ERROR_NONE;
    return peer_left && is_done && a->is_server && ossl.SSL_version(a->ssl) >= TLS1_3_VERSION;
}

/* What was read is not given up for what is unsent. */
static void fail_to_send(struct async_ssl *a, int error) {
    if (does_not_matter(a, error)) {
        socket_bio_drop(a->bio);
        return;
    }
    socket_bio_fail(a->bio, error);
    if (a->call == CALL_READ && a->step.status == SSL_ERROR_NONE) return;
    a->step.status = SSL_ERROR_SYSCALL;
    a->system_error = error;
}

/* The end of the step for the BIO; a read sends only what is its own. 0, or errno. */
static int send_and_end(struct async_ssl *a) {
    bool sends = a->call != CALL_READ || socket_bio_added(a->bio);
    int error = sends ? socket_bio_flush(a->bio) : 0;
    return socket_bio_end(a->bio) ? error : ENOMEM;
}

/* What has failed already, or has paused, stays so. */
static void finish_sending(struct async_ssl *a) {
    int error = a->bio != NULL ? send_and_end(a) : 0;
    int status = a->step.status;
    if (error == 0 || (status != SSL_ERROR_NONE && status != SSL_ERROR_WANT_READ && status != SSL_ERROR_WANT_WRITE))
        return;
    if (error == EAGAIN)
        wait_to_send(a);
    else
        fail_to_send(a, error);
}

/* An earlier read has written, and that is still not sent. */
static bool must_wait(struct async_ssl *a) {
    if (a->call != CALL_READ || !a->read_owes || async_ssl_is_paused(a)) return false;
    a->read_owes = socket_bio_flush(a->bio) == EAGAIN;
    return a->read_owes;
}

static int do_nothing(void *argument) {
    (void)argument;
    return 1;
}

int async_ssl_call(struct async_ssl *a, int call, void *buffer, size_t length) {
    shim_status refused = check_call(a, call, buffer, length);
    if (refused != SHIM_OK) return -(int)refused;
    a->step = (struct async_step){.error_count = async_ssl_is_paused(a) ? a->step.error_count : 0};
    a->call = call;
    a->buffer = buffer;
    a->length = length;
    if (a->bio != NULL) socket_bio_begin(a->bio, async_ssl_is_paused(a));
    bool waits = must_wait(a);
    bool in_job = a->asynchronous && !waits && !is_owed(a);
    int outcome = runner_enter(&a->runner, in_job ? a->context : NULL, waits ? do_nothing : run, a);
    a->step.status = waits ? SSL_ERROR_WANT_WRITE : status_of(a, outcome);
    finish_sending(a);
    if (a->step.status == SSL_ERROR_SYSCALL) a->step.system_error = a->system_error;
    if (a->step.status == SSL_ERROR_WANT_ASYNC) read_fds(a);
    if (a->step.status == SSL_ERROR_NONE)
        succeed(a);
    else
        read_errors(a);
    runner_leave(&a->runner);
    return a->step.status;
}

void async_ssl_look_twice(struct async_ssl *a) {
    if (a->bio != NULL) socket_bio_look_twice(a->bio);
}

const struct async_error *async_ssl_errors(struct async_ssl *a) {
    return a->errors;
}

int async_ssl_fds(struct async_ssl *a, int *out, size_t room) {
    bool known = a->context != NULL && runner_check(&a->runner) == SHIM_OK;
    return known ? (int)wait_all_fds(a->context, out, room) : 0;
}

int async_ssl_added(struct async_ssl *a, int *out, size_t room) {
    size_t added = 0, deleted = 0;
    if (a->context == NULL || runner_check(&a->runner) != SHIM_OK) return 0;
    wait_changed_fds(a->context, NULL, &added, NULL, &deleted);
    if (added > 0 && added <= room) wait_changed_fds(a->context, out, &added, NULL, &deleted);
    return (int)added;
}

void *async_ssl_wait_context(const struct async_ssl *a) {
    return a->context;
}

void async_ssl_cancel(struct async_ssl *a) {
    runner_cancel(&a->runner);
}

/* Freeing the wait context may call Python, which finds a connection that is closed. */
static void give_back(struct async_ssl *a) {
    SSL *ssl = a->ssl;
    ASYNC_WAIT_CTX *context = a->context;
    a->ssl = NULL;
    a->bio = NULL;
    a->context = NULL;
    ossl.SSL_free(ssl);
    ossl.ASYNC_WAIT_CTX_free(context);
    ossl.ERR_clear_error();
}

/* The job, and the wait context that it uses, are left behind. */
static void forget(struct async_ssl *a) {
    a->ssl = NULL;
    a->bio = NULL;
    a->context = NULL;
}

int async_ssl_close(struct async_ssl *a) {
    if (a->ssl == NULL) return SHIM_OK;
    shim_status status = runner_close(&a->runner);
    if (status == SHIM_ERR_FORKED) {
        forget(a);
        return SHIM_OK;
    }
    if (status == SHIM_ERR_THREAD) return status;
    if (status == SHIM_ERR_BUSY) async_ssl_call(a, a->call, a->buffer, a->length);
    if (async_ssl_is_paused(a)) return SHIM_ERR_BUSY;
    give_back(a);
    return SHIM_OK;
}

/* Any thread. */
void async_ssl_free(struct async_ssl *a) {
    if (a == NULL) return;
    if (async_ssl_close(a) != SHIM_OK) {
        runner_abandon(&a->runner);
        forget(a);
        return; /* its job still points here */
    }
    free(a->errors);
    free(a);
}

int async_ssl_reused(struct async_ssl *a) {
    return a->ssl != NULL && ossl.SSL_session_reused(a->ssl) == 1;
}

/* OpenSSL before 3.2 names a group by its NID only; its short name is close enough to the registered one. */
const char *async_ssl_group(struct async_ssl *a) {
    if (a->ssl == NULL) return NULL;
    if (ossl.SSL_get0_group_name != NULL) return ossl.SSL_get0_group_name(a->ssl);
    long nid = ossl.SSL_ctrl(a->ssl, SSL_CTRL_GET_NEGOTIATED_GROUP, 0, NULL);
    return nid > 0 && nid < TLSEXT_nid_unknown ? ossl.OBJ_nid2sn((int)nid) : NULL;
}

/* One after the other behind what is there already, each with its NUL. */
struct texts {
    char *out;
    size_t length, room;
};

static void put(struct texts *t, const void *text, size_t length) {
    if (t->length + length < t->room) {
        if (length > 0) memcpy(t->out + t->length, text, length);
        t->out[t->length + length] = '\0';
    }
    t->length += length + 1;
}

static void put_string(struct texts *t, const char *text) {
    put(t, text, text == NULL ? 0 : strlen(text));
}

/* RFC 6066, 3. */
enum { NAME_MOST = 255 };

/* In TLS 1.2 OpenSSL does not keep the name where a session is resumed: there it is as the ClientHello had it. */
static void put_server_name(struct texts *t, SSL *ssl) {
    char said[NAME_MOST];
    const char *name = ossl.SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    size_t length = name == NULL ? hello_copy(ssl, HELLO_NAME, said, sizeof said) : 0;
    bool is_text = length <= sizeof said && memchr(said, '\0', length) == NULL;
    if (name != NULL)
        put_string(t, name);
    else
        put(t, said, is_text ? length : 0);
}

size_t async_ssl_settled(struct async_ssl *a, char *out, size_t room) {
    if (a->ssl == NULL) return 0;
    struct texts t = {.out = out, .room = room};
    const SSL_CIPHER *cipher = ossl.SSL_get_current_cipher(a->ssl);
    const unsigned char *alpn = NULL;
    unsigned int length = 0;
    ossl.SSL_get0_alpn_selected(a->ssl, &alpn, &length);
    put_string(&t, ossl.SSL_get_version(a->ssl));
    put_string(&t, cipher == NULL ? NULL : ossl.SSL_CIPHER_get_name(cipher));
    put_string(&t, async_ssl_group(a));
    put_string(&t, async_ssl_reused(a) ? "reused" : NULL);
    put_server_name(&t, a->ssl);
    put(&t, alpn, length);
    return t.length <= room ? t.length : 0;
}

struct question *async_ssl_question(struct async_ssl *a) {
    struct question *q = a->runner.pauser.question;
    if (q == NULL || q->told) return NULL;
    q->told = true;
    return question_ref(q);
}

const char *async_ssl_verify_error(struct async_ssl *a) {
    long error = a->ssl == NULL ? X509_V_OK : ossl.SSL_get_verify_result(a->ssl);
    return error == X509_V_OK ? NULL : ossl.X509_verify_cert_error_string(error);
}

size_t async_ssl_peer_chain(struct async_ssl *a, unsigned char *out, size_t room) {
    if (a->ssl == NULL) return 0;
    X509 *leaf = ossl.SSL_get0_peer_certificate(a->ssl);
    return leaf == NULL ? 0 : peer_chain_write(ossl.SSL_get0_verified_chain(a->ssl), leaf, out, room);
}

int async_job_is_current(void) {
    return ossl.ASYNC_get_current_job != NULL && ossl.ASYNC_get_current_job() != NULL;
}
