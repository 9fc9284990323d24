/*
 * lanes.c: what the lanes cost, and whether their time depends on secrets. No engine, no TLS.
 *
 *   lanes cost              microseconds of CPU for each op: alone through OpenSSL, and in batches of 1, 3 and 8
 *   lanes timing SECONDS    Welch's t of fixed against random secrets (Reparaz, Balasch, Verbauwhede: "dude, is my code
 *                           constant time?", 2017): |t| below 4.5 says that no difference was found
 */
#include <math.h>
#include <string.h>
#include <time.h>

#include "batch.h"
#include "batch_keys.h"
#include "mb.h"
#include "openssl.h"
#include "ossl.h"
#include "unit.h"

static uint64_t random_state = 0x2545f4914f6cdd1d;

static uint64_t next(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Costs */

enum { ROUNDS = 40 };

static double cpu_microseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count) {
    qsort(values, count, sizeof *values, by_value);
    return values[count / 2];
}

/* One op alone for `count` 0. */
static double measure_once(struct op *ops[BATCH_MOST], size_t count) {
    double begun = cpu_microseconds();
    if (count == 0)
        op_perform(ops[0]);
    else
        CHECK(batch_perform(ops, count) == 0);
    return (cpu_microseconds() - begun) / (count > 0 ? (double)count : 1);
}

static void print_costs(const char *name, EVP_PKEY *pkey, struct engine *e, const struct op_parameters *p) {
    static const size_t sizes[] = {0, 1, 3, 8};
    double taken[4][ROUNDS];
    struct op *ops[BATCH_MOST];
    struct key *k = key_in(e, pkey);
    for (size_t i = 0; i < BATCH_MOST; i++) ops[i] = op_new(OP_SIGN, k, p, "what a handshake signs", 22);
    for (size_t round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < 4; i++) taken[i][round] = measure_once(ops, sizes[i]);
    printf("%-16s", name);
    for (size_t i = 0; i < 4; i++) printf(" %9.1f", median(taken[i], ROUNDS));
    printf("\n");
    for (size_t i = 0; i < BATCH_MOST; i++) op_unref(ops[i]);
    key_unref(k);
}

static void costs(void) {
    const struct op_parameters pss = {
        .digest = "SHA256", .padding = RSA_PKCS1_PSS_PADDING, .salt_length = RSA_PSS_SALTLEN_DIGEST};
    const struct op_parameters plain = {.digest = "SHA256", .padding = OP_UNSET, .salt_length = OP_UNSET};
    struct engine *e = engine_new_batch(0, 0);
    printf("%s, %s\n%-16s %9s %9s %9s %9s\n", ossl.OpenSSL_version(OPENSSL_VERSION), mb_description(),
           "us of CPU an op", "OpenSSL", "batch 1", "batch 3", "batch 8");
    print_costs("RSA-2048 PSS", generate_rsa(2048, 65537, 2), e, &pss);
    print_costs("RSA-2048 PKCS#1", generate_rsa(2048, 65537, 2), e, &plain);
    print_costs("RSA-3072 PSS", generate_rsa(3072, 65537, 2), e, &pss);
    print_costs("RSA-4096 PSS", generate_rsa(4096, 65537, 2), e, &pss);
    print_costs("P-256", generate_ec("prime256v1"), e, &plain);
    engine_free(e);
}

/* Timing */

enum { WORDS = 64, BYTES = WORDS * 8, LEAST = 500, MOST = 2000000 };

/* What one measurement runs on. It is copied here from `fixed` or from fresh random bytes: the same memory either way. */
struct secrets {
    uint64_t p[WORDS], q[WORDS], dp[WORDS], dq[WORDS], iq[WORDS], n[WORDS], input[WORDS], nonce[WORDS], key[WORDS];
};
static struct secrets now, fixed, fresh;
static uint8_t out[MB_LANES][2][BYTES];
static uint8_t *scratch;

static void fill(uint64_t *words) {
    for (int i = 0; i < WORDS; i++) words[i] = next();
}

static void refresh(void) {
    fill(fresh.p), fill(fresh.q), fill(fresh.dp), fill(fresh.dq), fill(fresh.iq), fill(fresh.input);
    fill(fresh.nonce), fill(fresh.key);
}

/* Any odd number of full length is a modulus to the lanes. Numbers are cut to what an operation takes. */
static void shape(struct secrets *s, int bits) {
    int half = bits / 128;
    s->p[0] |= 1, s->q[0] |= 1;
    s->p[half - 1] |= 1ull << 63, s->q[half - 1] |= 1ull << 63;
    s->dp[half - 1] &= ~0ull >> 1, s->dq[half - 1] &= ~0ull >> 1, s->iq[half - 1] &= ~0ull >> 1;
    ((uint8_t *)s->input)[0] &= 0x3f;
    s->nonce[3] &= 0x7fffffff00000000, s->key[3] &= 0x7fffffff00000000;
}

static void run_rsa(int bits) {
    const struct mb_rsa_key key = {bits, now.p, now.q, now.dp, now.dq, now.iq, now.n};
    const struct mb_rsa_key *keys[MB_LANES];
    const uint8_t *in[MB_LANES];
    uint8_t *to[MB_LANES];
    for (int i = 0; i < MB_LANES; i++) {
        keys[i] = &key;
        in[i] = (const uint8_t *)now.input;
        to[i] = out[i][0];
    }
    CHECK(mb_rsa_private(bits, keys, in, to, scratch) == 0xff);
}

static void run_p256(int bits) {
    const uint64_t *nonces[MB_LANES], *keys[MB_LANES];
    const uint8_t *digests[MB_LANES];
    uint8_t *r[MB_LANES], *s[MB_LANES];
    (void)bits;
    for (int i = 0; i < MB_LANES; i++) {
        nonces[i] = now.nonce;
        keys[i] = now.key;
        digests[i] = (const uint8_t *)now.input;
        r[i] = out[i][0];
        s[i] = out[i][1];
    }
    CHECK(mb_p256_sign(r, s, digests, nonces, keys) == 0xff);
}

/* What is fixed in one of the two populations; the rest is the same for both. */
static void take_all(bool random) {
    now = random ? fresh : fixed;
}

static void take_input(bool random) {
    now = fixed;
    memcpy(now.input, random ? fresh.input : fixed.input, sizeof now.input);
}

static void take_exponents(bool random) {
    now = fixed;
    memcpy(now.dp, random ? fresh.dp : fixed.dp, sizeof now.dp);
    memcpy(now.dq, random ? fresh.dq : fixed.dq, sizeof now.dq);
}

static void take_nonce(bool random) {
    now = fixed;
    memcpy(now.nonce, random ? fresh.nonce : fixed.nonce, sizeof now.nonce);
}

static double wall_nanoseconds(void) {
    return (double)now_ns();
}

struct population {
    double *times;
    size_t count;
};

static double welch(const struct population *a, const struct population *b, double limit) {
    double mean[2] = {0}, square[2] = {0}, n[2] = {0};
    for (int side = 0; side < 2; side++) {
        const struct population *p = side == 0 ? a : b;
        for (size_t i = 0; i < p->count; i++) {
            if (p->times[i] > limit) continue;
            n[side]++;
            double delta = p->times[i] - mean[side];
            mean[side] += delta / n[side];
            square[side] += delta * (p->times[i] - mean[side]);
        }
    }
    double a_error = square[0] / (n[0] - 1) / n[0], b_error = square[1] / (n[1] - 1) / n[1];
    return (mean[0] - mean[1]) / sqrt(a_error + b_error);
}

/* The time below which so much of all measurements lies: above it the machine, not the code, is measured. */
static double quantile(const struct population *a, const struct population *b, double part) {
    size_t count = a->count + b->count;
    double *all = malloc(count * sizeof *all);
    CHECK(all != NULL);
    memcpy(all, a->times, a->count * sizeof *all);
    memcpy(all + a->count, b->times, b->count * sizeof *all);
    qsort(all, count, sizeof *all, by_value);
    double limit = all[(size_t)(part * (double)(count - 1))];
    free(all);
    return limit;
}

static void collect(struct population side[2], void (*run)(int), int bits, void (*take)(bool), double seconds) {
    double until = wall_nanoseconds() + seconds * 1e9;
    while (side[0].count < MOST && side[1].count < MOST && (wall_nanoseconds() < until || side[0].count < LEAST)) {
        bool random = next() >> 40 & 1;
        refresh();
        shape(&fresh, bits);
        take(random);
        double begun = wall_nanoseconds();
        run(bits);
        side[random].times[side[random].count++] = wall_nanoseconds() - begun;
    }
}

static void print_t(const char *name, void (*run)(int), int bits, void (*take)(bool), double seconds) {
    struct population side[2] = {{calloc(MOST, sizeof(double)), 0}, {calloc(MOST, sizeof(double)), 0}};
    CHECK(side[0].times != NULL && side[1].times != NULL);
    collect(side, run, bits, take, seconds);
    printf("%-40s %8zu", name, side[0].count + side[1].count);
    static const double parts[] = {0.5, 0.9, 0.99, 1};
    for (size_t i = 0; i < 4; i++) printf(" %7.2f", welch(&side[0], &side[1], quantile(&side[0], &side[1], parts[i])));
    printf("\n");
    free(side[0].times);
    free(side[1].times);
}

/* The control: the same measurement of an exponentiation whose time depends on the exponent has to show it. */
static void run_leaky(int bits) {
    volatile uint64_t product = 3;
    for (int i = 0; i < bits; i++) {
        for (int j = 0; j < 4; j++) product = product * product + 1;
        if (now.dp[i / 64] >> (i % 64) & 1) product = product * 5 + 1;
    }
}

/* Few bits are set in what is fixed: whatever is skipped for zeros shows. */
static void make_fixed(int bits) {
    refresh();
    fixed = fresh;
    memset(fixed.dp, 0, sizeof fixed.dp), memset(fixed.dq, 0, sizeof fixed.dq);
    memset(fixed.nonce, 0, sizeof fixed.nonce), memset(fixed.input, 0, sizeof fixed.input);
    fixed.dp[0] = fixed.dq[0] = fixed.nonce[0] = 1;
    ((uint8_t *)fixed.input)[31] = 1;
    shape(&fixed, bits);
}

static void timing(double seconds) {
    scratch = aligned_alloc(64, (mb_rsa_scratch(4096) + 63) / 64 * 64);
    CHECK(scratch != NULL);
    printf("%-40s %8s  t of the fastest 50 %%, 90 %%, 99 %%, all\n", "fixed against random", "batches");
    make_fixed(2048);
    print_t("RSA-2048: input 1", run_rsa, 2048, take_input, seconds);
    print_t("RSA-2048: exponents 1", run_rsa, 2048, take_exponents, seconds);
    print_t("RSA-2048: primes, exponents, all", run_rsa, 2048, take_all, seconds);
    make_fixed(4096);
    print_t("RSA-4096: exponents 1", run_rsa, 4096, take_exponents, seconds);
    make_fixed(256);
    print_t("P-256: nonce 1", run_p256, 256, take_nonce, seconds);
    print_t("P-256: key, nonce, digest", run_p256, 256, take_all, seconds);
    make_fixed(2048);
    print_t("(control: code that leaks its exponent)", run_leaky, 2048, take_exponents, seconds / 10);
    free(scratch);
}

int main(int argc, char **argv) {
    CHECK(openssl_bind() == 0);
    if (!mb_is_usable()) {
        printf("no lanes: %s\n", mb_description());
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "timing") == 0)
        timing(strtod(argv[2], NULL));
    else
        costs();
    return 0;
}
