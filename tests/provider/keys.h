/* keys.h: what the provider is made of: private keys, each an inner key of OpenSSL's own provider, and algorithms. */
#ifndef SCRIPTED_KEYS_H
#define SCRIPTED_KEYS_H

#include <stdbool.h>

#include "types.h"

#define PROPERTY "provider=scripted"
/* OSSL_DISPATCH holds functions of every type; OpenSSL casts them back by their number. */
#define FUNCTION(function) ((void (*)(void))(function))

/* Owned by one EVP_PKEY, or by the store until it is handed over. */
struct key {
    const char *type; /* "RSA" or "EC"; static */
    EVP_PKEY *inner;  /* a reference; NULL until imported */
    bool is_private;
};

extern const OSSL_ALGORITHM key_algorithms[];
extern const OSSL_ALGORITHM sign_algorithms[];   /* sign.c */
extern const OSSL_ALGORITHM store_algorithms[];  /* store.c */
extern const OSSL_ALGORITHM cipher_algorithms[]; /* cipher.c */

/* provider.c: puts "the script says so" on OpenSSL's queue, as an error of this provider's. */
void provider_raise_scripted(void);

/* Takes over the reference to `inner`. NULL: no memory, or a kind of key that the provider has not. */
struct key *key_of(EVP_PKEY *inner);
void key_free(void *key);
/* Once, before cipher_algorithms are used. 0: OpenSSL has not all of them. */
int cipher_prepare(void);

#endif
