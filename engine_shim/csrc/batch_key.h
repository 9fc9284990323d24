/* batch_key.h: a key's secret numbers as words, for batch_rsa.c and batch_p256.c. */
#ifndef ENGINE_SHIM_BATCH_KEY_H
#define ENGINE_SHIM_BATCH_KEY_H

#include "batch.h"
#include "mb.h"

enum { P256_WORDS = 4 };

struct batch_key {
    enum batch_class class;
    struct mb_rsa_key rsa; /* points into words */
    uint64_t *p256;        /* the private scalar; points into words */
    size_t length;         /* of words */
    uint64_t words[];      /* wiped */
};

#endif
