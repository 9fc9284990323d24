/*
 * kx.h: X25519 key pairs made ahead of need, and the SSL_CTXs whose handshakes use them.
 *
 * Facts. A server's share of a key exchange begins with a fresh key pair. OpenSSL computes one in 22 to 28 us; the lanes
 * of mb.h compute eight in 23. libssl asks whatever provider it prefers for the group, and takes what it is given.
 *
 * Decision. A library context of our own holds OpenSSL's `default` provider and one of ours, which it prefers and which
 * has X25519 alone. All of its functions are the default provider's, but for the one that generates: that one takes a
 * pair from the store (kx_store.c) and imports both of its halves. An SSL_CTX made in that context does the rest.
 *
 * Trade-off. What the process has set up in the default library context (providers, a default property query) does
 * not count in ours: where there is any such thing, there are no such SSL_CTXs (kx_unavailable).
 */
#ifndef ENGINE_SHIM_KX_H
#define ENGINE_SHIM_KX_H

#include "common.h"
#include "mb.h"
#include "ossl_types.h"

#define KX_PROVIDER_NAME "engine_shim_x25519"
#define KX_GROUP "X25519"

struct kx_pair {
    uint8_t private_key[MB_X25519_BYTES], public_key[MB_X25519_BYTES];
};

/* Any thread, also on a job's stack; takes some 4 KiB of it. The caller owns the pair, which nobody else will ever
 * have, and wipes it. False: none could be made. */
bool kx_store_take(struct kx_pair *out) MUST_CHECK;
/* fork.c calls them: the child's store is empty, and its lock free. */
void kx_store_fork_prepare(void);
void kx_store_fork_parent(void);
void kx_store_fork_child(void);

/* Any thread; idempotent. A library context that lives as long as the process; NULL: OpenSSL's queue may say why. */
OSSL_LIB_CTX *kx_provider_context(void) MUST_CHECK;

#endif
