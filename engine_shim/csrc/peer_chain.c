#include "peer_chain.h"

#include <stdbool.h>

#include "ossl.h"

enum { LENGTH_BYTES = 4 };

/* What it would be without room is known before it is written. */
static size_t write_one(const X509 *certificate, unsigned char *out, size_t room) {
    int length = ossl.i2d_X509(certificate, NULL);
    if (length <= 0) return 0;
    size_t whole = LENGTH_BYTES + (size_t)length;
    if (whole > room) return whole;
    for (int at = 0; at < LENGTH_BYTES; at++) out[at] = (unsigned char)((unsigned)length >> (24 - 8 * at));
    unsigned char *der = out + LENGTH_BYTES;
    ossl.i2d_X509(certificate, &der);
    return whole;
}

/* Beyond the room it only counts. */
static size_t add(const X509 *certificate, unsigned char *out, size_t room, size_t length) {
    bool fits = length < room;
    return length + write_one(certificate, fits ? out + length : NULL, fits ? room - length : 0);
}

size_t peer_chain_write(const struct stack_st_X509 *chain, const X509 *leaf, unsigned char *out, size_t room) {
    const OPENSSL_STACK *stack = (const OPENSSL_STACK *)chain;
    int count = chain == NULL ? 0 : ossl.OPENSSL_sk_num(stack);
    size_t length = 0;
    for (int at = 0; at < count; at++) length = add(ossl.OPENSSL_sk_value(stack, at), out, room, length);
    return count == 0 && leaf != NULL ? add(leaf, out, room, 0) : length;
}
