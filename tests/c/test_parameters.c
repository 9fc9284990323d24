/* test_parameters.c: what callers of OpenSSL may set, in every form, and garbage. Invariant: nothing reads past its end. */
#include <string.h>

#include "ossl.h"
#include "parameters.h"
#include "unit.h"

static const OSSL_PARAM end = {NULL, 0, NULL, 0, 0};

static int read_one(struct op_parameters *p, const char *key, unsigned type, const void *data, size_t size) {
    /* On the heap and exactly as long as it says: the sanitizer sees one byte too many. */
    void *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    if (size > 0) memcpy(copy, data, size);
    OSSL_PARAM in[2] = {{key, type, copy, size, 0}, end};
    int read = parameters_read(p, in);
    free(copy);
    return read;
}

static void test_forms_of_padding_and_salt(void) {
    struct op_parameters p = {0};
    int seven = 7;
    int64_t six = 6;
    CHECK(read_one(&p, "pad-mode", OSSL_PARAM_UTF8_STRING, "pss", 3) && p.padding == RSA_PKCS1_PSS_PADDING);
    CHECK(read_one(&p, "pad-mode", OSSL_PARAM_UTF8_STRING, "pkcs1", 5) && p.padding == RSA_PKCS1_PADDING);
    CHECK(read_one(&p, "pad-mode", OSSL_PARAM_INTEGER, &seven, sizeof seven) && p.padding == 7);
    CHECK(read_one(&p, "pad-mode", OSSL_PARAM_INTEGER, &six, sizeof six) && p.padding == 6);
    CHECK(read_one(&p, "saltlen", OSSL_PARAM_UTF8_STRING, "digest", 6) && p.salt_length == RSA_PSS_SALTLEN_DIGEST);
    CHECK(read_one(&p, "saltlen", OSSL_PARAM_UTF8_STRING, "max", 3) && p.salt_length == RSA_PSS_SALTLEN_MAX);
    CHECK(read_one(&p, "saltlen", OSSL_PARAM_UTF8_STRING, "32", 2) && p.salt_length == 32);
    CHECK(read_one(&p, "digest", OSSL_PARAM_UTF8_STRING, "SHA256", 6) && strcmp(p.digest, "SHA256") == 0);
    CHECK(read_one(&p, "nobody-knows", OSSL_PARAM_OCTET_STRING, "x", 1));
}

static void test_nonsense_is_refused(void) {
    struct op_parameters p = {0};
    unsigned version = 0x12345;
    char longest[64];
    memset(longest, 'x', sizeof longest);
    CHECK(!read_one(&p, "pad-mode", OSSL_PARAM_UTF8_STRING, "oaep?", 5));
    CHECK(!read_one(&p, "saltlen", OSSL_PARAM_UTF8_STRING, "-5", 2));
    CHECK(!read_one(&p, "saltlen", OSSL_PARAM_UTF8_STRING, "", 0));
    CHECK(!read_one(&p, "saltlen", OSSL_PARAM_INTEGER, longest, 3));
    CHECK(!read_one(&p, "digest", OSSL_PARAM_UTF8_STRING, longest, sizeof longest));
    CHECK(!read_one(&p, "digest", OSSL_PARAM_INTEGER, longest, 4));
    CHECK(!read_one(&p, "tls-client-version", OSSL_PARAM_UNSIGNED_INTEGER, &version, sizeof version));
}

static void test_what_is_written_can_be_read(void) {
    struct op_parameters p = {.padding = 6, .salt_length = -1, .mgf1_digest = "SHA384", .digest = ""}, q = {0};
    OSSL_PARAM out[PARAMETERS_MOST];
    parameters_for_signing(&p, out);
    CHECK(parameters_read(&q, out) && memcmp(&p, &q, sizeof p) == 0);
    p = (struct op_parameters){.padding = 7, .tls_client_version = 0x303, .tls_negotiated_version = 0x303};
    parameters_for_decryption(&p, out);
    q = (struct op_parameters){0};
    CHECK(parameters_read(&q, out) && memcmp(&p, &q, sizeof p) == 0);
}

static void test_random_bytes(void) {
    static const char *const keys[] = {"pad-mode", "saltlen", "digest", "mgf1-digest", "tls-client-version"};
    unsigned char bytes[40];
    srand(1);
    for (int i = 0; i < 20000; i++) {
        struct op_parameters p = {0};
        for (size_t j = 0; j < sizeof bytes; j++) bytes[j] = (unsigned char)rand();
        read_one(&p, keys[i % 5], (unsigned)rand() % 8, bytes, (size_t)rand() % sizeof bytes);
    }
}

int main(void) {
    test_forms_of_padding_and_salt();
    test_nonsense_is_refused();
    test_what_is_written_can_be_read();
    test_random_bytes();
    puts("test_parameters: ok");
    return 0;
}
