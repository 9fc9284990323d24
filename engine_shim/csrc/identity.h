/*
 * identity.h: who a server is: one or several certificates, each with its chain and its key.
 *
 * Made by one thread, immutable once shared; any thread may use it and give it back.
 */
#ifndef ENGINE_SHIM_IDENTITY_H
#define ENGINE_SHIM_IDENTITY_H

#include "common.h"
#include "ossl_types.h"

/* Any thread. */
struct identity *identity_ref(struct identity *i);
/*
 * On the job's stack, in the ClientHello callback: this connection has these certificates and no others. Failed: the
 * reason is on OpenSSL's queue, and the connection has none of its own any more.
 */
bool identity_use(const struct identity *i, SSL *ssl) MUST_CHECK;

#endif
