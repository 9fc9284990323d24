/* unit.h: what the C units share: a check that aborts, and a table of OpenSSL functions that need no OpenSSL. */
#ifndef TESTS_UNIT_H
#define TESTS_UNIT_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                                    \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

struct engine;
struct key;
struct op;

/* Binds the fakes: signing turns each byte of the message around; a message that begins with '!' fails. */
void fake_openssl(void);
/* A key in that engine. */
struct key *fake_key(struct engine *e);
struct op *fake_op(struct key *k, const char *message);
/* The op's output is its message, turned around. */
int fake_is_right(const struct op *op);

#endif
