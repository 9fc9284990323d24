/*
 * question.h: what a handshake asks of Python about a client's certificate. The handshake's job is paused until it is
 * answered; Python answers from the loop or any other thread, as late as it likes.
 *
 * Owns copies, so an answer that comes after the connection has gone touches nothing but the question. Reference
 * counted: the job's side (client_hook.c) holds one, Python holds one from the moment it takes the question.
 */
#ifndef ENGINE_SHIM_QUESTION_H
#define ENGINE_SHIM_QUESTION_H

#include "common.h"
#include "ossl_types.h"

struct wake;

enum { QUESTION_OPEN = -1 };

struct question {
    atomic_uint refs;
    atomic_int verdict; /* QUESTION_OPEN, X509_V_OK, or the X509_V_ERR_* that it is refused with */
    /* Written by the job before it pauses, read by anybody after that; references, echo may be NULL. */
    struct wake *wake, *echo;
    bool told;       /* Python has taken it; the loop's thread only */
    bool resumption; /* immutable, like the rest */
    size_t length;
    unsigned char chain[]; /* peer_chain.h */
};

/* On the job's stack. Copies the certificates. NULL: no memory. */
struct question *question_new(const struct stack_st_X509 *chain, const X509 *leaf, bool resumption) MUST_CHECK;
struct question *question_ref(struct question *q);

#endif
