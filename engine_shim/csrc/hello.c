/*
 * hello.c: what a server does with a ClientHello, before OpenSSL looks for a session: whose certificates the connection
 * has, and under which virtual host its sessions resume.
 *
 * Facts. SSL_CTX_set_client_hello_cb(3): the callback may say "retry"; the call then ends with
 * SSL_ERROR_WANT_CLIENT_HELLO_CB, OpenSSL keeps the ClientHello, and the next call asks again. After a
 * HelloRetryRequest it is asked about the second ClientHello as well.
 *
 * What it means. A question that only Python can answer needs no pause: no job and no stack are held while it is open.
 *
 * Decision. What can be decided at once is. For the rest a copy of what the client said is kept with the SSL, Python
 * answers on the loop's own stack, and the repeated call finds the answer (docs/decisions/0019).
 *
 * Trade-off. The parts of a ClientHello that are lists are copied up to COPY_MOST bytes; no honest client says more.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "context_data.h"
#include "errors.h"
#include "identities.h"
#include "names.h"
#include "ossl.h"
#include "session_id.h"

enum { COPY_MOST = 1024, ALERT_ILLEGAL_PARAMETER = 47, ALERT_INTERNAL_ERROR = 80, ALERT_UNRECOGNIZED_NAME = 112 };

/* Owned by the SSL_CTX (context_data.h); immutable but for the identities, which have their lock. */
struct hosts {
    struct names *names;
    struct identities *loaded;
    int flags;
};

enum state {
    FRESH,   /* nothing is decided */
    ASKING,  /* Python is asked what to do */
    PASSED,  /* it has answered: as without a question */
    LOADING, /* Python is asked for identity `number` */
    GIVEN,   /* it has answered with `identity` */
    REFUSED, /* with `alert` */
    SETTLED  /* decided and done */
};

struct copy {
    size_t length;
    unsigned char *bytes; /* owned; NULL: the client did not say it */
};

/* Owned by the SSL (its ex_data), whose thread is the only one here. */
struct hello {
    enum state state;
    uint32_t number;
    int alert;
    bool unknown;              /* refused because there is no such name */
    struct identity *identity; /* a reference, from GIVEN to SETTLED */
    struct copy copies[HELLO_FIELDS];
};

static int ex_index = -1;

static void forget(struct hello *h) {
    for (int field = 0; field < HELLO_FIELDS; field++) {
        if (field == HELLO_NAME && h->state == SETTLED) continue; /* the second ClientHello is compared with it */
        free(h->copies[field].bytes);
        h->copies[field] = (struct copy){0};
    }
    identity_free(h->identity);
    h->identity = NULL;
}

static void free_hello(void *parent, void *p, CRYPTO_EX_DATA *data, int index, long number, void *pointer) {
    (void)parent;
    (void)data;
    (void)index;
    (void)number;
    (void)pointer;
    struct hello *h = p;
    if (h == NULL) return;
    h->state = FRESH;
    forget(h);
    free(h);
}

static void free_hosts(void *part) {
    struct hosts *hosts = part;
    names_free(hosts->names);
    identities_free(hosts->loaded);
    free(hosts);
}

/* What the client said */

static bool keep(struct hello *h, int field, const unsigned char *bytes, size_t length) {
    if (length > COPY_MOST) length = COPY_MOST;
    struct copy *c = &h->copies[field];
    c->bytes = malloc(length + 1);
    if (c->bytes == NULL) return false;
    memcpy(c->bytes, bytes, length);
    c->length = length;
    return true;
}

static size_t number_at(const unsigned char *bytes) {
    return (size_t)bytes[0] << 8 | bytes[1];
}

/* RFC 6066, 3: a list of one entry, of the type host_name. What has another form is OpenSSL's to refuse. */
static bool keep_name(SSL *ssl, struct hello *h) {
    const unsigned char *e;
    size_t length;
    if (ossl.SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &e, &length) != 1) return true;
    bool is_one = length > 5 && number_at(e) == length - 2 && e[2] == TLSEXT_NAMETYPE_host_name;
    return is_one && number_at(e + 3) == length - 5 ? keep(h, HELLO_NAME, e + 5, length - 5) : true;
}

/* A list with its length in front, of `width` bytes. */
static bool keep_list(SSL *ssl, struct hello *h, int field, unsigned type, size_t width) {
    const unsigned char *e;
    size_t length;
    if (ossl.SSL_client_hello_get0_ext(ssl, type, &e, &length) != 1 || length < width) return true;
    return keep(h, field, e + width, length - width);
}

static bool keep_version(SSL *ssl, struct hello *h) {
    unsigned version = ossl.SSL_client_hello_get0_legacy_version(ssl);
    const unsigned char bytes[] = {(unsigned char)(version >> 8), (unsigned char)version};
    return keep(h, HELLO_LEGACY_VERSION, bytes, sizeof bytes);
}

static bool keep_all(SSL *ssl, struct hello *h) {
    const unsigned char *ciphers = NULL;
    size_t length = ossl.SSL_client_hello_get0_ciphers(ssl, &ciphers);
    return keep(h, HELLO_CIPHERS, ciphers, length) && keep_version(ssl, h) &&
           keep_list(ssl, h, HELLO_ALPN, TLSEXT_TYPE_application_layer_protocol_negotiation, 2) &&
           keep_list(ssl, h, HELLO_VERSIONS, TLSEXT_TYPE_supported_versions, 1) &&
           keep_list(ssl, h, HELLO_GROUPS, TLSEXT_TYPE_supported_groups, 2) &&
           keep_list(ssl, h, HELLO_SIGNATURE_ALGORITHMS, TLSEXT_TYPE_signature_algorithms, 2);
}

/* What is decided. All of it on the job's stack, if there is one; the results are those of OpenSSL's callback. */

static int settle(struct hello *h) {
    h->state = SETTLED;
    forget(h);
    return SSL_CLIENT_HELLO_SUCCESS;
}

static int refuse(struct hello *h, int *alert, int with) {
    h->state = REFUSED;
    h->alert = with;
    *alert = with;
    return SSL_CLIENT_HELLO_ERROR;
}

static int use(SSL *ssl, struct hello *h, int *alert, const struct identity *i) {
    return identity_use(i, ssl) ? settle(h) : refuse(h, alert, ALERT_INTERNAL_ERROR);
}

/* The host's sessions are its own from now on. */
static bool enter(SSL *ssl, const char *name, size_t length) {
    return session_id_use(ssl, name, length) == SHIM_OK;
}

/* By the table of names; whom it does not have, and who names nobody, has the certificates that the SSL began with. */
static int choose(SSL *ssl, struct hello *h, int *alert, const struct hosts *hosts) {
    const struct copy *said = &h->copies[HELLO_NAME];
    if (said->bytes == NULL) return settle(h);
    char name[NAME_LONGEST];
    size_t length = names_normalize((const char *)said->bytes, said->length, name);
    uint32_t number = length > 0 ? names_find(hosts->names, name, length) : NAMES_NONE;
    if (number == NAMES_NONE) {
        h->unknown = (hosts->flags & HELLO_STRICT) != 0;
        return h->unknown ? refuse(h, alert, ALERT_UNRECOGNIZED_NAME) : settle(h);
    }
    if (!enter(ssl, name, length)) return refuse(h, alert, ALERT_INTERNAL_ERROR);
    if (number == HELLO_MAIN) return settle(h);
    struct identity *i = identities_get(hosts->loaded, number);
    if (i == NULL) {
        h->state = LOADING;
        h->number = number;
        return SSL_CLIENT_HELLO_RETRY;
    }
    int result = use(ssl, h, alert, i);
    identity_free(i);
    return result;
}

static int use_given(SSL *ssl, struct hello *h, int *alert) {
    const struct copy *said = &h->copies[HELLO_NAME];
    char name[NAME_LONGEST];
    size_t length = said->bytes != NULL ? names_normalize((const char *)said->bytes, said->length, name) : 0;
    return enter(ssl, name, length) ? use(ssl, h, alert, h->identity) : refuse(h, alert, ALERT_INTERNAL_ERROR);
}

/* RFC 8446, 4.1.2: the second ClientHello names whom the first one named. */
static int compare(SSL *ssl, struct hello *h, int *alert) {
    struct hello second = {0};
    const struct copy *a = &h->copies[HELLO_NAME], *b = &second.copies[HELLO_NAME];
    bool kept = keep_name(ssl, &second);
    bool same = a->length == b->length && (a->length == 0 || memcmp(a->bytes, b->bytes, a->length) == 0);
    free(second.copies[HELLO_NAME].bytes);
    if (!kept) return refuse(h, alert, ALERT_INTERNAL_ERROR);
    return same ? SSL_CLIENT_HELLO_SUCCESS : refuse(h, alert, ALERT_ILLEGAL_PARAMETER);
}

static int begin(SSL *ssl, struct hello *h, int *alert, const struct hosts *hosts) {
    if (!keep_name(ssl, h)) return refuse(h, alert, ALERT_INTERNAL_ERROR);
    if ((hosts->flags & HELLO_ASKS) == 0) return choose(ssl, h, alert, hosts);
    if (!keep_all(ssl, h)) return refuse(h, alert, ALERT_INTERNAL_ERROR);
    h->state = ASKING;
    return SSL_CLIENT_HELLO_RETRY;
}

static struct hello *hello_of(SSL *ssl) {
    struct hello *h = ossl.SSL_get_ex_data(ssl, ex_index);
    if (h != NULL) return h;
    h = calloc(1, sizeof *h);
    if (h == NULL) return NULL;
    if (ossl.SSL_set_ex_data(ssl, ex_index, h) == 1) return h;
    free(h);
    return NULL;
}

static int on_hello(SSL *ssl, int *alert, void *argument) {
    const struct hosts *hosts = argument;
    struct hello *h = hello_of(ssl);
    *alert = ALERT_INTERNAL_ERROR;
    if (h == NULL) return SSL_CLIENT_HELLO_ERROR;
    switch (h->state) {
    case FRESH:
        return begin(ssl, h, alert, hosts);
    case PASSED:
        return choose(ssl, h, alert, hosts);
    case GIVEN:
        return use_given(ssl, h, alert);
    case REFUSED:
        return refuse(h, alert, h->alert);
    case SETTLED:
        return compare(ssl, h, alert);
    default:
        return SSL_CLIENT_HELLO_RETRY;
    }
}

/* For Python: the connection's thread, between two calls of OpenSSL. */

static struct hello *maybe_hello(void *ssl) {
    return ssl != NULL && ex_index >= 0 ? ossl.SSL_get_ex_data(ssl, ex_index) : NULL;
}

static void make_index(void) {
    ex_index = ossl.CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL, 0, NULL, NULL, NULL, free_hello);
}

/* The SSL_CTX takes `hosts`, which is freed here if that fails. */
static shim_status give_hosts(SSL_CTX *ctx, struct hosts *hosts) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_index);
    shim_status status = ex_index < 0 ? errors_keep(SHIM_ERR_OPENSSL) : SHIM_OK;
    if (status == SHIM_OK) status = context_data_set(ctx, CONTEXT_HELLO, hosts, free_hosts);
    if (status != SHIM_OK) {
        free_hosts(hosts);
        return status;
    }
    ossl.SSL_CTX_set_client_hello_cb(ctx, on_hello, hosts);
    return SHIM_OK;
}

int hello_set(void *ssl_ctx, const char *text, size_t length, const uint32_t *numbers, size_t count,
              const struct hello_limits *limits, int flags, size_t *bad) {
    struct hosts *hosts = calloc(1, sizeof *hosts);
    if (hosts == NULL) return SHIM_ERR_MEMORY;
    hosts->flags = flags;
    hosts->loaded = identities_new(limits->identities, limits->loaded_most);
    shim_status status =
        hosts->loaded != NULL ? names_new(text, length, numbers, count, bad, &hosts->names) : SHIM_ERR_MEMORY;
    if (status == SHIM_OK) return (int)give_hosts(ssl_ctx, hosts);
    free_hosts(hosts);
    return (int)status;
}

size_t hello_table_bytes(void *ssl_ctx) {
    const struct hosts *hosts = context_data_get(ssl_ctx, CONTEXT_HELLO);
    return hosts == NULL ? 0 : names_bytes(hosts->names);
}

size_t hello_loaded(void *ssl_ctx) {
    const struct hosts *hosts = context_data_get(ssl_ctx, CONTEXT_HELLO);
    return hosts == NULL ? 0 : identities_loaded(hosts->loaded);
}

uint32_t hello_number_of(void *ssl_ctx, const char *name, size_t length) {
    const struct hosts *hosts = context_data_get(ssl_ctx, CONTEXT_HELLO);
    char normal[NAME_LONGEST];
    size_t normal_length = names_normalize(name, length, normal);
    return hosts == NULL || normal_length == 0 ? NAMES_NONE : names_find(hosts->names, normal, normal_length);
}

int hello_is_name(const char *name, size_t length) {
    return names_is_pattern(name, length);
}

void hello_put(void *ssl_ctx, uint32_t number, struct identity *i) {
    const struct hosts *hosts = context_data_get(ssl_ctx, CONTEXT_HELLO);
    if (hosts != NULL) identities_put(hosts->loaded, number, i);
}

int hello_wants(void *ssl, uint32_t *number) {
    const struct hello *h = maybe_hello(ssl);
    if (h == NULL) return HELLO_NOTHING;
    *number = h->number;
    return h->state == ASKING ? HELLO_DECISION : h->state == LOADING ? HELLO_IDENTITY : HELLO_NOTHING;
}

size_t hello_copy(void *ssl, int field, void *out, size_t room) {
    const struct hello *h = maybe_hello(ssl);
    if (h == NULL || field < 0 || field >= HELLO_FIELDS || h->copies[field].bytes == NULL) return 0;
    size_t length = h->copies[field].length;
    if (length <= room) memcpy(out, h->copies[field].bytes, length);
    return length;
}

/* The question is open, and is answered once. */
static struct hello *asked(void *ssl) {
    struct hello *h = maybe_hello(ssl);
    return h != NULL && (h->state == ASKING || h->state == LOADING) ? h : NULL;
}

int hello_give(void *ssl, struct identity *i) {
    struct hello *h = asked(ssl);
    if (h == NULL) return SHIM_ERR_CLOSED;
    h->identity = i != NULL ? identity_ref(i) : NULL;
    h->state = i != NULL ? GIVEN : PASSED;
    return SHIM_OK;
}

int hello_refuse(void *ssl, int alert) {
    struct hello *h = asked(ssl);
    if (h == NULL) return SHIM_ERR_CLOSED;
    h->state = REFUSED;
    h->alert = alert;
    return SHIM_OK;
}

int hello_refused(void *ssl, int *unknown) {
    const struct hello *h = maybe_hello(ssl);
    if (h == NULL || h->state != REFUSED) return -1;
    *unknown = h->unknown;
    return h->alert;
}
