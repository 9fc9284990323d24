/* peer_chain.h: the certificates of a peer as bytes: for each its length in four bytes, big-endian, and its DER. */
#ifndef ENGINE_SHIM_PEER_CHAIN_H
#define ENGINE_SHIM_PEER_CHAIN_H

#include <stddef.h>

#include "ossl_types.h"

/*
 * Any thread that has hold of both. The leaf first; without a chain the leaf alone, without a leaf nothing. Returns the
 * length; writes nothing where there is no room for it.
 */
size_t peer_chain_write(const struct stack_st_X509 *chain, const X509 *leaf, unsigned char *out, size_t room);

#endif
