/*
 * provider.h: the built-in provider, in a library context of its own.
 *
 * Facts. libssl asks a key what it is ("RSA"), so our key managements must bear OpenSSL's names. OpenSSL
 * caches what it fetched by name and query, and a fetch from one provider may then answer a fetch from
 * any: in the default context a wrapped key's first signature made OpenSSL 4.0 take our key management
 * for everybody's.
 *
 * What it means. In the default context, "nothing else in the process changes" cannot be promised.
 *
 * Decision. The provider is loaded into an OSSL_LIB_CTX of its own. A wrapper carries its key management
 * with it, and OpenSSL fetches from that key management's provider, in that provider's context, whatever
 * context the handshake is in. The default context never hears of us.
 *
 * Trade-off. For each signature OpenSSL first looks at the default provider's, and is refused the key.
 */
#ifndef ENGINE_SHIM_PROVIDER_H
#define ENGINE_SHIM_PROVIDER_H

#include "common.h"
#include "ossl_types.h"

#define PROVIDER_NAME "engine_shim"
#define PROVIDER_PROPERTY "provider=engine_shim"
#define PROVIDER_OWN_NAME "ENGINE-SHIM" /* of the operations, beside OpenSSL's names: see keymgmt.c */

/* OSSL_DISPATCH holds functions of every type; OpenSSL casts them back by their number. */
#define FUNCTION(function) ((void (*)(void))(function))

extern const OSSL_DISPATCH sign_functions[];    /* sign.c */
extern const OSSL_DISPATCH decrypt_functions[]; /* decrypt.c */

/* What every provider of ours says of itself. */
const OSSL_PARAM *provider_gettable(void *provider);
int provider_answer(const char *name, OSSL_PARAM parameters[]);

/* Once, when the table is bound. */
shim_status provider_load(void) MUST_CHECK;
/* Where wrapped keys are made; after provider_load(). Lives as long as the process. */
OSSL_LIB_CTX *provider_context(void);

#endif
