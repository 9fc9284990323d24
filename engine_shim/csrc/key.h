/*
 * key.h: a private key, wrapped or a third party's.
 *
 * Wrapped: the inner key belongs to OpenSSL's own provider and performs; the wrapper is an
 * EVP_PKEY of our key management that holds a reference to `struct key` and shows the public
 * half only. A third party's key (engine NULL) stays as its ENGINE or provider made it: it is
 * used as it is, and pauses the job by itself or not at all.
 * Immutable once made, so every thread may read it.
 */
#ifndef ENGINE_SHIM_KEY_H
#define ENGINE_SHIM_KEY_H

#include "common.h"
#include "ossl_types.h"

struct batch_key;
struct engine;

struct key {
    atomic_uint refs;
    struct engine *engine;   /* a reference; NULL: a third party's key */
    EVP_PKEY *inner;         /* a reference */
    struct batch_key *batch; /* owned; NULL: OpenSSL performs it alone */
    OSSL_PARAM *public_half; /* owned; what the wrapper exports; NULL: a third party's key */
    char type[24];           /* OpenSSL's name: "RSA", "EC", "ED25519" ... */
    int bits, size;
    bool has_id;
    unsigned char id[20]; /* subject key identifier: RFC 5280, 4.2.1.2, method 1 */
};

/* Any thread. */
struct key *key_ref(struct key *k);
void key_unref(struct key *k);
size_t key_output_size(const struct key *k);

/* Takes over the caller's reference to `inner`, also on failure. */
shim_status key_new(struct engine *e, EVP_PKEY *inner, struct key **out) MUST_CHECK;
/* A third party's key. Takes over the caller's reference, also on failure. */
shim_status key_adopt(EVP_PKEY *pkey, struct key **out) MUST_CHECK;
/* Reads a key that stays with OpenSSL; the caller owns *out. */
shim_status key_read_plain(const void *bytes, size_t length, const void *password, size_t password_length,
                           EVP_PKEY **out) MUST_CHECK;
/* A new reference to the EVP_PKEY that is given to others: the wrapper, or the third party's own key; the caller owns it. NULL: the reason is on OpenSSL's queue. */
EVP_PKEY *key_wrap(struct key *k) MUST_CHECK;
bool key_is_wrapped(const EVP_PKEY *pkey);

#endif
