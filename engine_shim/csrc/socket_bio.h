/* socket_bio.h: OpenSSL's way to a socket, with fewer system calls. The connection's thread only. */
#ifndef ENGINE_SHIM_SOCKET_BIO_H
#define ENGINE_SHIM_SOCKET_BIO_H

#include "common.h"
#include "ossl_types.h"

struct socket_bio;

enum { SOCKET_BIO_RECORDS = 4 }; /* of data, which go with one send(2) */

/* For both directions of the SSL, which owns it from then on; borrows fd. NULL: no memory. */
struct socket_bio *socket_bio_attach(SSL *ssl, int fd) MUST_CHECK;

/* Around each step. What is written between them is collected; in the end what is unsent is kept. A job resumes. */
void socket_bio_begin(struct socket_bio *s, bool resumes);
/* False: there is no memory for it, and every later call fails. */
bool socket_bio_end(struct socket_bio *s) MUST_CHECK;
/* Whether the step, or what it resumes, has written anything. */
bool socket_bio_added(const struct socket_bio *s);
/* Sends what is there, that of earlier steps first. 0: all is sent. Else errno: EAGAIN if the socket is full. */
int socket_bio_flush(struct socket_bio *s) MUST_CHECK;
/* Whether all is taken that had come when recv(2) was last asked; then the next read asks it again. */
bool socket_bio_is_drained(struct socket_bio *s);
/* From now on a short read is not taken for the last: for loops that tell of an error only once. */
void socket_bio_look_twice(struct socket_bio *s);
/* What is unsent is of no use any more. */
void socket_bio_drop(struct socket_bio *s);
/* The same, and the stream has a hole: every later write fails with this errno. */
void socket_bio_fail(struct socket_bio *s, int error);

#endif
