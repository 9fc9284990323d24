#include "rsa_unpad.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

/* RFC 8017, 7.2.2: 00 02, at least eight bytes that are not 0, 00, the message. */
enum { HEAD = 2, BLOCK_TYPE = 2, SEPARATOR = 1, PADDING_LEAST = 8 };

/* 0xff where they are equal, else 0. A compiler that saw through it could put a branch there. */
static uint8_t equal(uint8_t one, uint8_t other) {
    volatile uint32_t difference = (uint32_t)(one ^ other);
    return (uint8_t)((difference - 1) >> 8);
}

static bool random_bytes(uint8_t *out, size_t length) {
    ssize_t got;
    do got = getrandom(out, length, 0);
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)length;
}

/* 0xff: everything in front of the secret is as it has to be. */
static uint8_t padding_is_right(const uint8_t *raw, size_t length) {
    size_t separator = length - PREMASTER_SECRET - SEPARATOR;
    uint8_t good = equal(raw[0], 0) & equal(raw[1], BLOCK_TYPE) & equal(raw[separator], 0);
    for (size_t i = HEAD; i < separator; i++) good &= (uint8_t)~equal(raw[i], 0);
    return good;
}

static uint8_t version_is(const uint8_t *secret, unsigned version) {
    return equal(secret[0], (uint8_t)(version >> 8)) & equal(secret[1], (uint8_t)version);
}

/* The version that the client offered; or the negotiated one, where libssl says that it tolerates clients that err. */
static uint8_t version_is_right(const uint8_t *secret, const struct op_parameters *p) {
    uint8_t good = version_is(secret, p->tls_client_version);
    if (p->tls_negotiated_version != 0) good |= version_is(secret, p->tls_negotiated_version);
    return good;
}

bool rsa_unpad_premaster(const uint8_t *raw, size_t length, const struct op_parameters *p, uint8_t *out) {
    uint8_t instead[PREMASTER_SECRET];
    if (length < HEAD + PADDING_LEAST + SEPARATOR + PREMASTER_SECRET) return false;
    if (!random_bytes(instead, sizeof instead)) return false;
    const uint8_t *secret = raw + length - PREMASTER_SECRET;
    uint8_t good = padding_is_right(raw, length) & version_is_right(secret, p);
    for (size_t i = 0; i < PREMASTER_SECRET; i++)
        out[i] = (uint8_t)((secret[i] & good) | (instead[i] & (uint8_t)~good));
    explicit_bzero(instead, sizeof instead);
    return true;
}
