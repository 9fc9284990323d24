/*
 * test_batch.c [COUNT [BITS]]: a batch computes what its ops would have been computed to one by one.
 *
 * Invariant: whatever keys, digests, paddings and messages share a batch, however many lanes are full and whichever of
 * them come out wrong, OpenSSL verifies every signature with the op's own parameters, and where a signature has one
 * value only (PKCS#1 v1.5), it is the value that OpenSSL computes. COUNT: random ops for each class; BITS: of this
 * class alone.
 */
#include "batch.h"

#include <pthread.h>
#include <string.h>

#include "batch_keys.h"
#include "digests.h"
#include "mb.h"
#include "openssl.h"
#include "ossl.h"
#include "unit.h"

enum { KEYS = 3, MESSAGE_MOST = 200, ALL = 0xff, NO_DIGEST = 4, OAEP = 4, RAW = 3, TWINS = 64 };

static struct engine *engine;
static struct key *keys[BATCH_CLASSES][KEYS]; /* the last one of RSA has the smaller prime first */
static const int bits_of[BATCH_CLASSES] = {0, 2048, 3072, 4096, 256};

/* Reproducible; one state a thread. */
static uint64_t next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t below(uint64_t *state, size_t bound) {
    return (size_t)(next(state) >> 16) % bound;
}

static const char *const names[] = {"SHA256", "SHA384", "SHA512", "SHA1", "SHA224", "sha2-256", "SHA-1", "SHA2-512"};
enum { NAMES = sizeof names / sizeof names[0] };

static struct op_parameters parameters(const char *digest, int padding, int salt_length, const char *mask) {
    struct op_parameters p = {.padding = padding, .salt_length = salt_length};
    strcpy(p.digest, digest);
    strcpy(p.mgf1_digest, mask);
    return p;
}

static struct op_parameters random_parameters(uint64_t *state, enum batch_class class) {
    static const int salts[] = {RSA_PSS_SALTLEN_DIGEST, RSA_PSS_SALTLEN_MAX, RSA_PSS_SALTLEN_AUTO, 0, 1, 20, 126};
    const char *digest = names[below(state, NAMES)], *mask = below(state, 4) == 0 ? names[below(state, NAMES)] : "";
    if (class == BATCH_P256) return parameters(digest, OP_UNSET, OP_UNSET, "");
    switch (below(state, 4)) {
    case 0:
        return parameters(digest, OP_UNSET, OP_UNSET, "");
    case 1:
        return parameters(digest, RSA_PKCS1_PADDING, OP_UNSET, "");
    case 2: /* what TLS asks for */
        return parameters(digest, RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_DIGEST, "");
    default:
        return parameters(digest, RSA_PKCS1_PSS_PADDING, salts[below(state, sizeof salts / sizeof salts[0])], mask);
    }
}

static struct op *signing(struct key *k, const struct op_parameters *p, const void *message, size_t length) {
    struct op *op = op_new(OP_SIGN, k, p, message, length);
    CHECK(op != NULL);
    return op;
}

static struct op *random_op(uint64_t *state, enum batch_class class) {
    uint8_t message[MESSAGE_MOST];
    size_t length = below(state, sizeof message + 1);
    for (size_t i = 0; i < length; i++) message[i] = (uint8_t)next(state);
    struct op_parameters p = random_parameters(state, class);
    p.prehashed = below(state, 3) == 0;
    if (p.prehashed) length = digest_named(p.digest)->size;
    struct op *op = signing(keys[class][below(state, KEYS)], &p, message, length);
    CHECK(batch_class_of(op) == class && op->share == class);
    return op;
}

static bool has_one_value(const struct op *op) {
    return strcmp(op->key->type, "RSA") == 0 && op->parameters.padding != RSA_PKCS1_PSS_PADDING;
}

static void check(const struct op *op) {
    CHECK(op->status == SHIM_OK && verifies(op));
    if (!has_one_value(op)) return;
    struct op *twin = signing(op->key, &op->parameters, op->input, op->input_length);
    op_perform(twin);
    CHECK(op->output_length == twin->output_length && memcmp(op->output, twin->output, twin->output_length) == 0);
    op_unref(twin);
}

static void free_all(struct op *ops[], size_t count) {
    for (size_t i = 0; i < count; i++) op_unref(ops[i]);
}

/* One batch; `faults` are injected into it. Returns how many ops it had. */
static size_t run_batch(uint64_t *state, enum batch_class class, size_t count, unsigned faults) {
    struct op *ops[BATCH_MOST];
    unsigned used = (1u << count) - 1;
    for (size_t i = 0; i < count; i++) ops[i] = random_op(state, class);
    batch_inject_fault(faults);
    unsigned expected = class == BATCH_P256 ? 0 : (unsigned)__builtin_popcount(faults & used);
    CHECK(batch_perform(ops, count) == expected);
    CHECK(ossl.ERR_peek_error() == 0);
    for (size_t i = 0; i < count; i++) check(ops[i]);
    free_all(ops, count);
    return count;
}

static void test_random(enum batch_class class, size_t wanted) {
    uint64_t state = 0x9e3779b97f4a7c15u + class;
    for (size_t done = 0; done < wanted;) done += run_batch(&state, class, 1 + below(&state, BATCH_MOST), 0);
}

static void test_every_size(enum batch_class class) {
    uint64_t state = 42;
    for (size_t count = 1; count <= BATCH_MOST; count++) run_batch(&state, class, count, 0);
}

static void test_faults_do_not_leave(enum batch_class class) {
    uint64_t state = 7;
    for (unsigned lane = 0; lane < BATCH_MOST; lane++) run_batch(&state, class, BATCH_MOST, 1u << lane);
    run_batch(&state, class, BATCH_MOST, ALL);
    run_batch(&state, class, 3, 0x5a); /* also in lanes that are not used */
    run_batch(&state, class, BATCH_MOST, 0);
}

/* The generators of OpenSSL fail or repeat themselves. */
static int no_random(unsigned char *out, int length) {
    (void)out, (void)length;
    return 0;
}

static int same_random(unsigned char *out, int length) {
    memset(out, 0x11, (size_t)length);
    return 1;
}

static void test_no_random_bytes(void) {
    int (*public_bytes)(unsigned char *, int) = ossl.RAND_bytes, (*private_bytes)(unsigned char *, int);
    private_bytes = ossl.RAND_priv_bytes;
    ossl.RAND_bytes = ossl.RAND_priv_bytes = no_random;
    uint64_t state = 3;
    run_batch(&state, BATCH_RSA_2048, BATCH_MOST, 0); /* OpenSSL performs what needs a salt; it has its own way to it */
    run_batch(&state, BATCH_P256, BATCH_MOST, 0);
    ossl.RAND_bytes = public_bytes;
    ossl.RAND_priv_bytes = private_bytes;
}

/* Where r stands in the signature: after SEQUENCE, its length, and INTEGER. */
static bool same_nonce(const struct op *a, const struct op *b) {
    return a->output[3] == b->output[3] && memcmp(a->output + 4, b->output + 4, a->output[3]) == 0;
}

static void test_nonces_differ(void) {
    const struct op_parameters p = parameters("SHA256", OP_UNSET, OP_UNSET, "");
    struct op *ops[TWINS];
    for (size_t i = 0; i < TWINS; i++) ops[i] = signing(keys[BATCH_P256][0], &p, "the same", 8);
    for (size_t i = 0; i < TWINS; i += BATCH_MOST) CHECK(batch_perform(ops + i, BATCH_MOST) == 0);
    for (size_t i = 0; i < TWINS; i++)
        for (size_t j = 0; j < i; j++) CHECK(!same_nonce(ops[i], ops[j]));
    free_all(ops, TWINS);
}

/* Even with a generator that repeats itself: nobody gets two equations with one nonce. */
static void test_nonces_of_different_messages_differ(void) {
    int (*private_bytes)(unsigned char *, int) = ossl.RAND_priv_bytes;
    const struct op_parameters p = parameters("SHA256", OP_UNSET, OP_UNSET, "");
    struct op *ops[] = {signing(keys[BATCH_P256][0], &p, "one", 3), signing(keys[BATCH_P256][0], &p, "two", 3),
                        signing(keys[BATCH_P256][1], &p, "one", 3), signing(keys[BATCH_P256][0], &p, "one", 3)};
    ossl.RAND_priv_bytes = same_random;
    CHECK(batch_perform(ops, 4) == 0);
    ossl.RAND_priv_bytes = private_bytes;
    CHECK(!same_nonce(ops[0], ops[1]) && !same_nonce(ops[0], ops[2]) && !same_nonce(ops[1], ops[2]));
    CHECK(same_nonce(ops[0], ops[3])); /* the generator did repeat itself */
    free_all(ops, 4);
}

static void check_class(struct key *k, enum op_kind kind, struct op_parameters p, enum batch_class expected) {
    struct op *op = op_new(kind, k, &p, "message", 7);
    CHECK(op != NULL && batch_class_of(op) == expected);
    op_unref(op);
}

static void test_what_openssl_performs(void) {
    struct key *rsa = keys[BATCH_RSA_2048][0], *ec = keys[BATCH_P256][0];
    const int pss = RSA_PKCS1_PSS_PADDING, pkcs1 = RSA_PKCS1_PADDING, by_digest = RSA_PSS_SALTLEN_DIGEST;
    check_class(rsa, OP_SIGN, parameters("SHA256", pss, 222, ""), BATCH_RSA_2048);
    const struct op_parameters others[] = {
        parameters("", pkcs1, OP_UNSET, ""),
        parameters("MD5-SHA1", pkcs1, OP_UNSET, ""),
        parameters("SHA3-256", pss, by_digest, ""),
        parameters("SHA256", pss, 223, ""), /* one more than there is room for */
        parameters("SHA256", pss, NO_DIGEST - 8, ""),
        parameters("SHA256", pss, OP_UNSET, ""),
        parameters("SHA256", pss, by_digest, "MD5"),
        parameters("SHA256", pkcs1, by_digest, ""),
        parameters("SHA256", OP_UNSET, OP_UNSET, "SHA256"),
        parameters("SHA256", OAEP, OP_UNSET, ""),
        parameters("SHA256", RAW, OP_UNSET, ""),
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) check_class(rsa, OP_SIGN, others[i], BATCH_NONE);
    check_class(rsa, OP_DECRYPT, parameters("SHA256", pkcs1, OP_UNSET, ""), BATCH_NONE);
    check_class(ec, OP_SIGN, parameters("SHA256", OP_UNSET, OP_UNSET, ""), BATCH_P256);
    check_class(ec, OP_SIGN, parameters("", OP_UNSET, OP_UNSET, ""), BATCH_NONE);
    check_class(ec, OP_SIGN, parameters("SHA256", pkcs1, OP_UNSET, ""), BATCH_NONE);
}

/* What is no digest of that name is left to OpenSSL, which refuses it. */
static void test_digests_of_another_size(struct key *k) {
    struct op_parameters p = parameters("SHA256", OP_UNSET, OP_UNSET, "");
    struct op *ops[BATCH_MOST];
    p.prehashed = true;
    for (size_t i = 0; i < BATCH_MOST; i++) ops[i] = signing(k, &p, "01234567890123456789012345678901", 32 - i % 2);
    CHECK(batch_perform(ops, BATCH_MOST) == 0);
    for (size_t i = 0; i < BATCH_MOST; i++)
        CHECK(i % 2 == 0 ? verifies(ops[i]) : ops[i]->status == SHIM_ERR_FAILED && ops[i]->output_length == 0);
    free_all(ops, BATCH_MOST);
}

/* Takes over the key. */
static void check_refused(EVP_PKEY *pkey) {
    struct key *k = key_in(engine, pkey);
    CHECK(k->batch == NULL && batch_key_class(k->batch) == BATCH_NONE);
    check_class(k, OP_SIGN, parameters("SHA256", OP_UNSET, OP_UNSET, ""), BATCH_NONE);
    key_unref(k);
}

static void test_odd_keys(void) {
    check_refused(generate_rsa(2048, 3, 2));
    check_refused(generate_rsa(2048, 65537, 3));
    check_refused(generate_rsa(1024, 65537, 2));
    check_refused(generate_rsa(2056, 65537, 2));
    check_refused(generate_rsa_pss(2048));
    check_refused(generate_ec("secp384r1"));
    check_refused(generate_ec("secp256k1"));
    check_refused(with_wrong_coefficient(keys[BATCH_RSA_2048][0]->inner, 2048));
}

/* Threads share keys, and the digests that are fetched once. */
static void *run_thread(void *seed) {
    uint64_t state = *(const uint64_t *)seed;
    for (int i = 0; i < 6; i++) {
        run_batch(&state, BATCH_RSA_2048, 1 + below(&state, BATCH_MOST), 0);
        run_batch(&state, BATCH_P256, 1 + below(&state, BATCH_MOST), 0);
    }
    ossl.OPENSSL_thread_stop();
    return NULL;
}

static void test_threads(void) {
    static const uint64_t seeds[2] = {11, 12};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, run_thread, (void *)(uintptr_t)&seeds[i]) == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void make_keys(void) {
    engine = engine_new_batch(0, 0);
    CHECK(engine != NULL);
    for (size_t i = 0; i < KEYS; i++) keys[BATCH_P256][i] = key_in(engine, generate_ec("prime256v1"));
    for (enum batch_class c = BATCH_RSA_2048; c <= BATCH_RSA_4096; c++) {
        keys[c][0] = key_in(engine, generate_rsa((unsigned)bits_of[c], 65537, 2));
        keys[c][1] = c == BATCH_RSA_2048 ? key_in(engine, generate_rsa(2048, 65537, 2)) : key_ref(keys[c][0]);
        keys[c][2] = key_in(engine, with_swapped_primes(keys[c][0]->inner, bits_of[c]));
    }
}

static void free_keys(void) {
    for (size_t c = 1; c < BATCH_CLASSES; c++)
        for (size_t i = 0; i < KEYS; i++) key_unref(keys[c][i]);
    engine_free(engine);
}

/* In a build or on a CPU without lanes no key has a class. */
static void test_without_lanes(void) {
    check_refused(generate_ec("prime256v1"));
    check_refused(generate_rsa(2048, 65537, 2));
}

static void test_class(enum batch_class class, size_t wanted) {
    CHECK(keys[class][0]->batch != NULL && batch_key_class(keys[class][0]->batch) == class);
    uint64_t begun = now_ns();
    test_every_size(class);
    test_faults_do_not_leave(class);
    test_random(class, wanted);
    double seconds = (double)(now_ns() - begun) / 1e9;
    printf("%s %d: %zu random ops agree with OpenSSL, %.1f s\n", keys[class][0]->type, bits_of[class], wanted, seconds);
}

int main(int argc, char **argv) {
    size_t wanted = argc > 1 ? strtoul(argv[1], NULL, 10) : 24;
    int bits = argc > 2 ? atoi(argv[2]) : 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    CHECK(openssl_bind() == 0);
    printf("%s\n", mb_description());
    if (mb_is_usable()) {
        make_keys();
        for (enum batch_class c = BATCH_RSA_2048; c < BATCH_CLASSES; c++)
            if (bits == 0 || bits == bits_of[c]) test_class(c, wanted);
        test_no_random_bytes();
        test_nonces_differ();
        test_nonces_of_different_messages_differ();
        test_what_openssl_performs();
        test_odd_keys();
        test_digests_of_another_size(keys[BATCH_RSA_2048][0]);
        test_digests_of_another_size(keys[BATCH_P256][0]);
        test_threads();
        free_keys();
    } else {
        engine = engine_new_batch(0, 0);
        test_without_lanes();
        engine_free(engine);
    }
    ossl.OPENSSL_thread_stop();
    printf("test_batch: ok\n");
    return 0;
}
