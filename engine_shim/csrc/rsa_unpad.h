/*
 * rsa_unpad.h: the premaster secret of TLS 1.2 out of what RSA decrypts, without telling whether the padding was right.
 *
 * RFC 5246, 7.4.7.1: a bad padding or version must look like a good one, or the server becomes an oracle that decrypts
 * for others (Bleichenbacher 1998; "Marvin" 2023). So there is no branch, no index and no length that depends on the bytes: the
 * secret and 48 random bytes are both there, and a mask chooses.
 */
#ifndef ENGINE_SHIM_RSA_UNPAD_H
#define ENGINE_SHIM_RSA_UNPAD_H

#include "op.h"

enum { PREMASTER_SECRET = 48 }; /* SSL_MAX_MASTER_KEY_LENGTH in libssl */

/* `raw`: as long as the modulus. Writes 48 bytes. False: it is too short, or the system has no random bytes. */
bool rsa_unpad_premaster(const uint8_t *raw, size_t length, const struct op_parameters *p, uint8_t *out) MUST_CHECK;

#endif
