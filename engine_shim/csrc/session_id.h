/* session_id.h: the session-id context (SSL_CTX_set_session_id_context(3)): a session resumes only where it is equal. */
#ifndef ENGINE_SHIM_SESSION_ID_H
#define ENGINE_SHIM_SESSION_ID_H

#include "common.h"
#include "ossl_types.h"

enum { SESSION_ID_BYTES = 32 }; /* SSL_MAX_SID_CTX_LENGTH */

/* On the job's stack, before OpenSSL looks for a session: this connection's virtual host is part of it from now on. */
shim_status session_id_use(SSL *ssl, const char *host, size_t length) MUST_CHECK;
/* On the job's stack: whether a session was made under the policy, and for the virtual host, of this connection. */
bool session_id_fits(const SSL *ssl, const SSL_SESSION *session);

#endif
