/*
 * identity.c: a connection's certificates are set on its SSL, so all names of a server share one SSL_CTX: a context of
 * its own would cost 13 to 15 KB a name.
 */
#include "identity.h"

#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "key.h"
#include "ossl.h"

/* One for each kind of key that OpenSSL tells apart, and no two of one kind: RSA, RSA-PSS, EC, Ed25519, Ed448, ML-DSA. */
enum { PAIRS_MOST = 8 };

/* Each pointer is a reference of its own. */
struct pair {
    X509 *leaf;
    OPENSSL_STACK *chain; /* of X509, without the leaf; owned */
    EVP_PKEY *key;        /* wrapped, a third party's, or OpenSSL's own */
};

struct identity {
    atomic_uint refs;
    size_t count;
    struct pair pairs[PAIRS_MOST];
};

struct identity *identity_new(void) {
    struct identity *i = calloc(1, sizeof *i);
    if (i != NULL) atomic_init(&i->refs, 1);
    return i;
}

struct identity *identity_ref(struct identity *i) {
    atomic_fetch_add_explicit(&i->refs, 1, memory_order_relaxed);
    return i;
}

static void free_certificate(void *certificate) {
    ossl.X509_free(certificate);
}

static void empty(struct pair *p) {
    ossl.X509_free(p->leaf);
    ossl.OPENSSL_sk_pop_free(p->chain, free_certificate);
    ossl.EVP_PKEY_free(p->key);
}

void identity_free(struct identity *i) {
    if (i == NULL || atomic_fetch_sub_explicit(&i->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t at = 0; at < i->count; at++) empty(&i->pairs[at]);
    free(i);
}

/* The end of the certificates is an error of PEM's, and the only one that is none. */
static bool was_the_end(void) {
    unsigned long code = ossl.ERR_peek_error();
    return (code >> ERR_LIB_OFFSET & ERR_LIB_MASK) == ERR_LIB_PEM && (code & ERR_REASON_MASK) == PEM_R_NO_START_LINE;
}

static shim_status read_chain(BIO *bio, OPENSSL_STACK *chain) {
    X509 *next;
    while ((next = ossl.PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        if (ossl.OPENSSL_sk_push(chain, next) > 0) continue;
        ossl.X509_free(next);
        return SHIM_ERR_MEMORY;
    }
    return was_the_end() ? SHIM_OK : SHIM_ERR_OPENSSL;
}

/* What was read before a failure stays in `p`, for the caller to free. */
static shim_status read_certificates(const void *pem, size_t length, struct pair *p) {
    BIO *bio = ossl.BIO_new_mem_buf(pem, (int)length);
    p->chain = ossl.OPENSSL_sk_new_null();
    shim_status status = bio == NULL || p->chain == NULL ? SHIM_ERR_MEMORY : SHIM_OK;
    if (status == SHIM_OK) {
        p->leaf = ossl.PEM_read_bio_X509(bio, NULL, NULL, NULL);
        status = p->leaf != NULL ? read_chain(bio, p->chain) : SHIM_ERR_OPENSSL;
    }
    ossl.BIO_free(bio);
    return status;
}

static bool belong_together(const struct pair *p) {
    const EVP_PKEY *certified = ossl.X509_get0_pubkey(p->leaf);
    return certified != NULL && ossl.EVP_PKEY_eq(certified, p->key) == 1;
}

/* Takes the key. SHIM_ERR_KEY_TYPE: it is not the certificate's. */
static shim_status add(struct identity *i, const void *pem, size_t length, EVP_PKEY *key) {
    struct pair p = {.key = key};
    shim_status status = i->count < PAIRS_MOST ? read_certificates(pem, length, &p) : SHIM_ERR_RANGE;
    if (status == SHIM_OK && !belong_together(&p)) status = SHIM_ERR_KEY_TYPE;
    if (status == SHIM_OK)
        i->pairs[i->count++] = p;
    else
        empty(&p);
    return errors_keep(status);
}

enum { LONGEST_CERTIFICATE_FILE = 1 << 20 };

static shim_status check_length(size_t length) {
    return length <= LONGEST_CERTIFICATE_FILE
               ? SHIM_OK
               : errors_say(SHIM_ERR_OPENSSL, "longer than a chain of certificates can be");
}

int identity_add(struct identity *i, const void *pem, size_t length, struct key *k) {
    shim_status status = check_length(length);
    if (status != SHIM_OK) return (int)status;
    ossl.ERR_clear_error();
    EVP_PKEY *key = key_wrap(k);
    return (int)(key != NULL ? add(i, pem, length, key) : errors_keep(SHIM_ERR_OPENSSL));
}

int identity_add_plain(struct identity *i, const void *pem, size_t length, const void *bytes, size_t bytes_length,
                       const void *password, size_t password_length) {
    EVP_PKEY *key = NULL;
    shim_status status = check_length(length);
    if (status == SHIM_OK) status = key_read_plain(bytes, bytes_length, password, password_length, &key);
    return (int)(status == SHIM_OK ? add(i, pem, length, key) : status);
}

static bool has_kind(const struct identity *i, const EVP_PKEY *key) {
    const char *kind = ossl.EVP_PKEY_get0_type_name(key);
    for (const struct pair *p = i->pairs; p < i->pairs + i->count; p++)
        if (strcmp(ossl.EVP_PKEY_get0_type_name(p->key), kind) == 0) return true;
    return false;
}

static bool copy(const struct pair *p, struct pair *out) {
    struct stack_st_X509 *chain = ossl.X509_chain_up_ref((struct stack_st_X509 *)p->chain);
    if (chain == NULL) return false;
    *out = (struct pair){.leaf = p->leaf, .chain = (OPENSSL_STACK *)chain, .key = p->key};
    ossl.X509_up_ref(p->leaf);
    ossl.EVP_PKEY_up_ref(p->key);
    return true;
}

int identity_take(struct identity *i, const struct identity *other) {
    for (const struct pair *p = other->pairs; p < other->pairs + other->count; p++) {
        if (has_kind(i, p->key)) continue;
        if (i->count == PAIRS_MOST) return SHIM_ERR_RANGE;
        if (!copy(p, &i->pairs[i->count])) return SHIM_ERR_MEMORY;
        i->count++;
    }
    return SHIM_OK;
}

int identity_use_context(const struct identity *i, void *ssl_ctx) {
    ossl.ERR_clear_error();
    for (const struct pair *p = i->pairs; p < i->pairs + i->count; p++) {
        struct stack_st_X509 *chain = (struct stack_st_X509 *)p->chain;
        if (ossl.SSL_CTX_use_cert_and_key(ssl_ctx, p->leaf, p->key, chain, 1) != 1)
            return errors_keep(SHIM_ERR_OPENSSL);
    }
    return SHIM_OK;
}

/* libssl takes references of its own to all three. */
bool identity_use(const struct identity *i, SSL *ssl) {
    ossl.SSL_certs_clear(ssl);
    for (const struct pair *p = i->pairs; p < i->pairs + i->count; p++)
        if (ossl.SSL_use_cert_and_key(ssl, p->leaf, p->key, (struct stack_st_X509 *)p->chain, 1) != 1) return false;
    return true;
}

int identity_check(const struct identity *i, void *ssl_ctx) {
    ossl.ERR_clear_error();
    SSL *ssl = ossl.SSL_new(ssl_ctx);
    bool used = ssl != NULL && identity_use(i, ssl);
    ossl.SSL_free(ssl);
    return used ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}
