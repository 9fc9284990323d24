/* parameters.h: between OpenSSL's parameter arrays and struct op_parameters. */
#ifndef ENGINE_SHIM_PARAMETERS_H
#define ENGINE_SHIM_PARAMETERS_H

#include "op.h"
#include "ossl_types.h"

enum { PARAMETERS_MOST = 6 };

/* The arrays point into `p`, which must outlive them. */
void parameters_for_signing(const struct op_parameters *p, OSSL_PARAM out[PARAMETERS_MOST]);
void parameters_for_decryption(const struct op_parameters *p, OSSL_PARAM out[PARAMETERS_MOST]);
/* What a caller of OpenSSL sets. 0: a value that makes no sense; keys that are not known are passed over. */
int parameters_read(struct op_parameters *p, const OSSL_PARAM in[]);
const OSSL_PARAM *parameters_end(void);
const OSSL_PARAM *parameters_settable(enum op_kind kind);

#endif
