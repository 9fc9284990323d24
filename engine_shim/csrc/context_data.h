/*
 * context_data.h: what C decides for the handshakes of one SSL_CTX, part by part. An SSL_CTX owns its parts.
 */
#ifndef ENGINE_SHIM_CONTEXT_DATA_H
#define ENGINE_SHIM_CONTEXT_DATA_H

#include "common.h"
#include "ossl_types.h"

/* One a source; to add one, add a line. */
enum context_part {
    CONTEXT_ALPN,        /* callbacks.c */
    CONTEXT_SESSION_ID,  /* session_id.c */
    CONTEXT_TICKET_KEYS, /* ticket_keys.c */
    CONTEXT_KEY_LOG,     /* key_log.c */
    CONTEXT_TICKETS,     /* peer.c */
    CONTEXT_STAPLE,      /* staple.c */
    CONTEXT_HELLO,       /* hello.c */
    CONTEXT_PARTS
};

/*
 * Before the SSL_CTX has its first SSL. Takes the part, and frees the one before with the function that came with it;
 * that may happen on any thread, with the SSL_CTX. On failure the part stays the caller's.
 */
shim_status context_data_set(SSL_CTX *ctx, enum context_part which, void *part, void (*free_part)(void *)) MUST_CHECK;
/* Any thread. Borrowed from the SSL_CTX; NULL: it has none. */
void *context_data_get(const SSL_CTX *ctx, enum context_part which);

#endif
