/* openssl.h: the table of OpenSSL's functions. openssl.EVP_DigestSign(...) calls the one that the test bound. */
#ifndef SCRIPTED_OPENSSL_H
#define SCRIPTED_OPENSSL_H

#include "types.h"

struct openssl_table {
#define OSSL(type, name, arguments) type(*name) arguments;
#include "openssl.def"
#undef OSSL
};

/* Written by scripted_bind() before the provider is loaded, read-only afterwards: any thread. */
extern struct openssl_table openssl;

/* 1: every function is bound. */
int openssl_is_bound(void);
/* Where the inner keys and ciphers live, with OpenSSL's own provider. Never freed: a key may
 * outlive the provider. NULL: no memory. Any thread. */
OSSL_LIB_CTX *openssl_inner(void);

#endif
