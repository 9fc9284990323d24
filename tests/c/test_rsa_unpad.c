/* test_rsa_unpad.c: the secret comes out of right padding, random bytes out of any other, and nothing else differs. */
#include "rsa_unpad.h"

#include <string.h>

#include "unit.h"

enum { SIZE = 256, SEPARATOR_AT = SIZE - PREMASTER_SECRET - 1 };

static const struct op_parameters offered = {.tls_client_version = 0x0303};

/* 00 02, not 0 ..., 00, 03 03, the rest of the secret. */
static void pad(uint8_t raw[SIZE]) {
    memset(raw, 0xa5, SIZE);
    raw[0] = 0;
    raw[1] = 2;
    raw[SEPARATOR_AT] = 0;
    raw[SEPARATOR_AT + 1] = raw[SEPARATOR_AT + 2] = 3;
}

static bool gives_the_secret(const uint8_t raw[SIZE], const struct op_parameters *p) {
    uint8_t out[PREMASTER_SECRET], again[PREMASTER_SECRET];
    CHECK(rsa_unpad_premaster(raw, SIZE, p, out) && rsa_unpad_premaster(raw, SIZE, p, again));
    bool is_secret = memcmp(out, raw + SIZE - PREMASTER_SECRET, PREMASTER_SECRET) == 0;
    CHECK(is_secret == (memcmp(out, again, PREMASTER_SECRET) == 0)); /* what is random is so each time */
    return is_secret;
}

static void test_right_padding(void) {
    uint8_t raw[SIZE];
    pad(raw);
    CHECK(gives_the_secret(raw, &offered));
}

/* Each byte in front of the secret, and its version: any other value is wrong where only one is right, 0 elsewhere. */
static void test_every_wrong_byte(void) {
    for (size_t at = 0; at < SEPARATOR_AT + 3; at++) {
        uint8_t raw[SIZE];
        bool has_one_value = at < 2 || at >= SEPARATOR_AT;
        for (unsigned value = 0; value < 256; value++) {
            pad(raw);
            bool right = has_one_value ? raw[at] == value : value != 0;
            raw[at] = (uint8_t)value;
            CHECK(gives_the_secret(raw, &offered) == right);
        }
    }
}

static void test_versions(void) {
    uint8_t raw[SIZE];
    const struct op_parameters tolerant = {.tls_client_version = 0x0304, .tls_negotiated_version = 0x0303};
    const struct op_parameters strict = {.tls_client_version = 0x0304};
    pad(raw);
    CHECK(gives_the_secret(raw, &tolerant));
    CHECK(!gives_the_secret(raw, &strict));
}

static void test_lengths(void) {
    enum { LEAST = 2 + 8 + 1 + PREMASTER_SECRET };
    uint8_t raw[SIZE], out[PREMASTER_SECRET];
    pad(raw);
    CHECK(!rsa_unpad_premaster(raw + SIZE - LEAST + 1, LEAST - 1, &offered, out));
    raw[SIZE - LEAST] = 0;
    raw[SIZE - LEAST + 1] = 2;
    CHECK(rsa_unpad_premaster(raw + SIZE - LEAST, LEAST, &offered, out));
    CHECK(memcmp(out, raw + SIZE - PREMASTER_SECRET, PREMASTER_SECRET) == 0);
}

int main(void) {
    test_right_padding();
    test_every_wrong_byte();
    test_versions();
    test_lengths();
    puts("test_rsa_unpad: ok");
    return 0;
}
