/* batch_keys.h: keys that test_batch.c signs with, usual and odd ones, and OpenSSL's word on a signature. */
#ifndef TESTS_BATCH_KEYS_H
#define TESTS_BATCH_KEYS_H

#include "engine.h"
#include "key.h"
#include "op.h"

/* Beyond the types that the shim signs with: made by OpenSSL at random. The caller owns one reference. */
EVP_PKEY *generate_rsa(unsigned bits, unsigned exponent, size_t primes);
EVP_PKEY *generate_rsa_pss(unsigned bits);
EVP_PKEY *generate_ec(const char *curve);
/* The same key with its primes in the other order, and with a coefficient that does not fit. Both borrow `from`. */
EVP_PKEY *with_swapped_primes(EVP_PKEY *from, int bits);
EVP_PKEY *with_wrong_coefficient(EVP_PKEY *from, int bits);

/* Takes over `pkey`. */
struct key *key_in(struct engine *e, EVP_PKEY *pkey);
/* OpenSSL verifies the op's output with the op's own parameters. */
bool verifies(const struct op *op);

#endif
