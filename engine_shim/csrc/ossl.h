/* ossl.h: the table of OpenSSL's functions. ossl.SSL_read(...) calls the one that pyOpenSSL uses. */
#ifndef ENGINE_SHIM_OSSL_H
#define ENGINE_SHIM_OSSL_H

#include "ossl_types.h"

struct ossl_table {
#define OSSL(type, name, arguments) type(*name) arguments;
#define OSSL_MAYBE OSSL
#include "ossl.def"
#undef OSSL_MAYBE
#undef OSSL
};

/* Written by ossl_bind() before the first call of OpenSSL, read-only afterwards: any thread. */
extern struct ossl_table ossl;

#endif
