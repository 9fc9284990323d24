/*
 * provider.h: the built-in provider. Its key managements bear OpenSSL's names, its operations
 * names of their own, so that nobody but the wrapper of a key can fetch them.
 */
#ifndef ENGINE_SHIM_PROVIDER_H
#define ENGINE_SHIM_PROVIDER_H

#include "common.h"
#include "ossl_types.h"

/* OpenSSL orders providers by name: this one must come after "default". */
#define PROVIDER_NAME "engine_shim"
#define PROVIDER_PROPERTY "provider=engine_shim"
#define PROVIDER_SIGNATURE "ENGINE-SHIM-SIGNATURE"
#define PROVIDER_ASYM_CIPHER "ENGINE-SHIM-ASYM-CIPHER"

/* OSSL_DISPATCH holds functions of every type; OpenSSL casts them back by their number. */
#define FUNCTION(function) ((void (*)(void))(function))

extern const OSSL_DISPATCH sign_functions[];    /* sign.c */
extern const OSSL_DISPATCH decrypt_functions[]; /* decrypt.c */

/* Once, when the table is bound. Registers and loads the provider in the default library context. */
shim_status provider_load(void) MUST_CHECK;

#endif
