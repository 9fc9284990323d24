#include "ticket_keys.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "context_data.h"
#include "digests.h"
#include "errors.h"
#include "fork.h"
#include "ossl.h"

enum { CHAIN_BYTES = 32, SHORT = 48, LONG = 80, SHORT_HALF = 16, LONG_HALF = 32 };

/* Immutable. */
struct ticket_key {
    unsigned char name[TICKET_NAME_BYTES];
    unsigned char hmac[LONG_HALF];
    unsigned char aes[LONG_HALF];
    size_t half; /* bytes of hmac and of aes that count: 16 is AES-128, 32 is AES-256 */
};

/* Immutable but for `refs`. One reference is its ticket_keys', the others are those of callbacks. Wiped with the last. */
struct ring {
    atomic_uint refs;
    size_t count; /* at least 1 */
    struct ticket_key keys[];
};

struct ticket_keys {
    atomic_uint refs;                 /* Python's, and one for each SSL_CTX */
    struct ring *ring;                /* under the lock; owned */
    unsigned char chain[CHAIN_BYTES]; /* under the lock; wiped */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static size_t ring_size(size_t count) {
    return sizeof(struct ring) + count * sizeof(struct ticket_key);
}

/* The caller has the one reference, and fills the keys in. */
static struct ring *ring_new(size_t count) {
    struct ring *r = calloc(1, ring_size(count));
    if (r == NULL) return NULL;
    atomic_init(&r->refs, 1);
    r->count = count;
    return r;
}

static void ring_unref(struct ring *r) {
    if (r == NULL || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1) return;
    wiped_free(r, ring_size(r->count));
}

/* A reference is taken under the lock: the pointer that it is read from may change the moment after. */
static struct ring *ring_of(struct ticket_keys *k) {
    pthread_mutex_lock(&lock);
    struct ring *r = k->ring;
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&lock);
    return r;
}

/* --- What a handshake asks for --- */

/* Fetched once a process and kept; two threads may fetch at once, and one of them keeps what it got. */
static const EVP_CIPHER *fetch(_Atomic(EVP_CIPHER *) *kept, const char *name) {
    EVP_CIPHER *cipher = atomic_load_explicit(kept, memory_order_acquire);
    if (cipher != NULL) return cipher;
    EVP_CIPHER *mine = ossl.EVP_CIPHER_fetch(NULL, name, NULL);
    if (mine == NULL || atomic_compare_exchange_strong(kept, &cipher, mine)) return mine;
    ossl.EVP_CIPHER_free(mine);
    return cipher;
}

static const EVP_CIPHER *cipher_of(const struct ticket_key *key) {
    static _Atomic(EVP_CIPHER *) aes_128, aes_256;
    return key->half == LONG_HALF ? fetch(&aes_256, "AES-256-CBC") : fetch(&aes_128, "AES-128-CBC");
}

static int prepare(const struct ticket_key *key, const unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                   int encrypt) {
    static const char digest[] = "SHA256";
    /* OpenSSL only reads them: its structure has no const. */
    const OSSL_PARAM parameters[] = {
        {OSSL_MAC_PARAM_DIGEST, OSSL_PARAM_UTF8_STRING, (void *)(uintptr_t)digest, sizeof digest - 1, 0},
        {OSSL_MAC_PARAM_KEY, OSSL_PARAM_OCTET_STRING, (void *)(uintptr_t)key->hmac, key->half, 0},
        {NULL, 0, NULL, 0, 0},
    };
    const EVP_CIPHER *kind = cipher_of(key);
    return kind != NULL && ossl.EVP_CipherInit_ex2(cipher, kind, key->aes, iv, encrypt, NULL) == 1 &&
           ossl.EVP_MAC_CTX_set_params(mac, parameters) == 1;
}

static int encrypt_with(const struct ticket_key *key, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                        EVP_MAC_CTX *mac) {
    if (ossl.RAND_bytes(iv, TICKET_IV_BYTES) != 1 || !prepare(key, iv, cipher, mac, 1)) return -1;
    memcpy(name, key->name, sizeof key->name);
    return 1;
}

/* Names are no secrets: they stand in the ticket. */
static int decrypt_with(const struct ring *r, const unsigned char *name, const unsigned char *iv,
                        EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac) {
    for (size_t i = 0; i < r->count; i++) {
        const struct ticket_key *key = &r->keys[i];
        if (memcmp(name, key->name, sizeof key->name) != 0) continue;
        if (!prepare(key, iv, cipher, mac, 0)) return -1;
        return i == 0 ? 1 : 2;
    }
    return 0;
}

int ticket_keys_answer(struct ticket_keys *k, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                       EVP_MAC_CTX *mac, int encrypt) {
    struct ring *r = ring_of(k);
    int answer = encrypt ? encrypt_with(&r->keys[0], name, iv, cipher, mac) : decrypt_with(r, name, iv, cipher, mac);
    ring_unref(r);
    return answer;
}

/*
 * On the job's stack. TLS 1.3's clients use a ticket once (RFC 8446, C.4), so each resumption gives them another one, as
 * libssl does by itself with keys of its own.
 */
static int asked(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                 int encrypt) {
    struct ticket_keys *k = context_data_get(ossl.SSL_get_SSL_CTX(ssl), CONTEXT_TICKET_KEYS);
    int answer = k == NULL ? 0 : ticket_keys_answer(k, name, iv, cipher, mac, encrypt);
    return answer == 1 && !encrypt && ossl.SSL_version(ssl) == TLS1_3_VERSION ? 2 : answer;
}

/* --- Changing them --- */

/* One of the chain's digests: of the secret and a word. */
static bool draw(const unsigned char chain[CHAIN_BYTES], const char *word, unsigned char out[CHAIN_BYTES]) {
    const struct piece pieces[] = {{chain, CHAIN_BYTES}, {word, strlen(word)}};
    EVP_MD_CTX *scratch = ossl.EVP_MD_CTX_new();
    bool done = scratch != NULL && digest_compute(digest_named("SHA256"), scratch, pieces, 2, out);
    ossl.EVP_MD_CTX_free(scratch);
    return done;
}

/* The key that the secret stands for, and the secret after it, in its place. */
static bool draw_key(unsigned char chain[CHAIN_BYTES], struct ticket_key *out) {
    unsigned char name[CHAIN_BYTES], next[CHAIN_BYTES];
    bool done = draw(chain, "name", name) && draw(chain, "hmac", out->hmac) && draw(chain, "aes", out->aes) &&
                draw(chain, "next", next);
    if (done) {
        memcpy(out->name, name, sizeof out->name);
        out->half = LONG_HALF;
        memcpy(chain, next, sizeof next);
    }
    explicit_bzero(next, sizeof next);
    return done;
}

/* Takes the ring. Lets go of the one before, unlocked. */
static void publish(struct ticket_keys *k, struct ring *r) {
    pthread_mutex_lock(&lock);
    struct ring *before = k->ring;
    k->ring = r;
    pthread_mutex_unlock(&lock);
    ring_unref(before);
}

/* nginx's forms: the name, then in 48 bytes AES-128 and HMAC, in 80 bytes HMAC and AES-256. False: neither. */
static bool read_key(struct ticket_key *key, const unsigned char *bytes, size_t length) {
    if (length != SHORT && length != LONG) return false;
    key->half = length == LONG ? LONG_HALF : SHORT_HALF;
    const unsigned char *first = bytes + TICKET_NAME_BYTES, *second = first + key->half;
    memcpy(key->name, bytes, TICKET_NAME_BYTES);
    memcpy(key->hmac, length == LONG ? first : second, key->half);
    memcpy(key->aes, length == LONG ? second : first, key->half);
    return true;
}

int ticket_keys_set(struct ticket_keys *k, const void *bytes, const size_t *lengths, size_t count) {
    if (count < 1 || count > TICKET_KEYS_MOST) return SHIM_ERR_RANGE;
    struct ring *r = ring_new(count);
    if (r == NULL) return SHIM_ERR_MEMORY;
    const unsigned char *at = bytes;
    for (size_t i = 0; i < count; at += lengths[i++]) {
        if (read_key(&r->keys[i], at, lengths[i])) continue;
        ring_unref(r);
        return SHIM_ERR_RANGE;
    }
    publish(k, r);
    return SHIM_OK;
}

/* A ring that begins with the chain's next key; `chain` is replaced. */
static shim_status next_ring(const struct ring *before, size_t keep, unsigned char chain[CHAIN_BYTES],
                             struct ring **out) {
    size_t kept = before->count < keep ? before->count : keep;
    struct ring *r = ring_new(kept + 1);
    if (r == NULL) return SHIM_ERR_MEMORY;
    memcpy(r->keys + 1, before->keys, kept * sizeof *before->keys);
    if (!draw_key(chain, &r->keys[0])) {
        ring_unref(r);
        return errors_keep(SHIM_ERR_OPENSSL);
    }
    *out = r;
    return SHIM_OK;
}

/* If nobody has been quicker: then that change stands. `before` is referenced, so no other ring can be at its place. */
static void replace(struct ticket_keys *k, struct ring *before, struct ring *after,
                    const unsigned char chain[CHAIN_BYTES]) {
    pthread_mutex_lock(&lock);
    bool is_first = k->ring == before;
    if (is_first) {
        k->ring = after;
        memcpy(k->chain, chain, CHAIN_BYTES);
    }
    pthread_mutex_unlock(&lock);
    ring_unref(is_first ? before : after);
}

int ticket_keys_rotate(struct ticket_keys *k, size_t keep) {
    if (keep >= TICKET_KEYS_MOST) return SHIM_ERR_RANGE;
    unsigned char chain[CHAIN_BYTES];
    pthread_mutex_lock(&lock);
    struct ring *before = k->ring, *after = NULL;
    atomic_fetch_add_explicit(&before->refs, 1, memory_order_relaxed);
    memcpy(chain, k->chain, sizeof chain);
    pthread_mutex_unlock(&lock);
    shim_status status = next_ring(before, keep, chain, &after);
    if (status == SHIM_OK) replace(k, before, after, chain);
    explicit_bzero(chain, sizeof chain);
    ring_unref(before);
    return status;
}

/* --- Life --- */

static shim_status begin(struct ticket_keys *k) {
    if (ossl.RAND_priv_bytes(k->chain, sizeof k->chain) != 1) return errors_keep(SHIM_ERR_OPENSSL);
    if ((k->ring = ring_new(1)) == NULL) return SHIM_ERR_MEMORY;
    return draw_key(k->chain, &k->ring->keys[0]) ? SHIM_OK : errors_keep(SHIM_ERR_OPENSSL);
}

int ticket_keys_new(struct ticket_keys **out) {
    fork_install();
    struct ticket_keys *k = calloc(1, sizeof *k);
    if (k == NULL) return SHIM_ERR_MEMORY;
    atomic_init(&k->refs, 1);
    shim_status status = begin(k);
    if (status == SHIM_OK) {
        *out = k;
    } else {
        ticket_keys_free(k);
    }
    return status;
}

/* Any thread. */
void ticket_keys_free(struct ticket_keys *k) {
    if (k == NULL || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1) return;
    ring_unref(k->ring);
    wiped_free(k, sizeof *k);
}

static void let_go(void *k) {
    ticket_keys_free(k);
}

int ticket_keys_use(struct ticket_keys *k, void *ssl_ctx) {
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed); /* the SSL_CTX's */
    shim_status status = context_data_set(ssl_ctx, CONTEXT_TICKET_KEYS, k, let_go);
    if (status != SHIM_OK) {
        ticket_keys_free(k);
        return status;
    }
    bool set = ossl.SSL_CTX_set_tlsext_ticket_key_evp_cb(ssl_ctx, asked) == 1;
    return set ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}

size_t ticket_keys_names(struct ticket_keys *k, void *out, size_t room) {
    struct ring *r = ring_of(k);
    size_t count = r->count;
    for (size_t i = 0; i < count && (i + 1) * TICKET_NAME_BYTES <= room; i++)
        memcpy((unsigned char *)out + i * TICKET_NAME_BYTES, r->keys[i].name, TICKET_NAME_BYTES);
    ring_unref(r);
    return count;
}

void ticket_keys_fork_prepare(void) {
    pthread_mutex_lock(&lock);
}

void ticket_keys_fork_done(void) {
    pthread_mutex_unlock(&lock);
}
