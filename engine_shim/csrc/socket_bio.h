/* socket_bio.h: OpenSSL's way to a socket, with fewer system calls. The connection's thread only. */
#ifndef ENGINE_SHIM_SOCKET_BIO_H
#define ENGINE_SHIM_SOCKET_BIO_H

#include "common.h"
#include "ossl_types.h"

struct socket_bio;

enum { SOCKET_BIO_RECORDS = 4 }; /* of data at most, which one step collects */

/* For both directions of the SSL, which owns it from then on; borrows fd. NULL: no memory. */
struct socket_bio *socket_bio_attach(SSL *ssl, int fd) MUST_CHECK;

/* Around each step. What is written between them goes out at its end, if it is to be collected, and else at once. */
void socket_bio_begin(struct socket_bio *s, bool collects);
/* 0: all that is collected is sent, or the step was none that collects. Else errno: EAGAIN if the socket is full. What is
 * unsent is kept, goes before all that is written after it, and is tried again at the end of each step that collects. */
int socket_bio_end(struct socket_bio *s) MUST_CHECK;
/* Whether all is taken that had come when recv(2) was last asked; then the next read asks it again. */
bool socket_bio_is_drained(struct socket_bio *s);
/* From now on a short read is not taken for the last: for loops that tell of an error only once. */
void socket_bio_look_twice(struct socket_bio *s);
/* What is unsent is of no use any more. */
void socket_bio_drop(struct socket_bio *s);

#endif
