#include "costs.h"

#include <string.h>

#include "key.h"
#include "ossl_types.h"

/* The least of a few rounds is what an op costs when nothing disturbs it; 15 ms bound the slow keys. */
enum { ROUNDS_FEWEST = 3, ROUNDS_MOST = 32, ROUNDS_NS = 15000000 };

/* 0: not measured. No lock, which a fork could leave locked: two threads that measure at once both measure well. */
static struct cost {
    atomic_uint_fast64_t one_ns, eight_ns;
} costs[BATCH_CLASSES];

/* Time in which others had the CPU is no cost of the op's. */
static void least(uint64_t *of, uint64_t begun) {
    uint64_t took = thread_cpu_ns() - begun;
    if (took < *of) *of = took;
}

/* Another round is worth its time; the first one began at `begun`. */
static bool goes_on(int rounds, uint64_t begun) {
    return rounds < ROUNDS_FEWEST || (rounds < ROUNDS_MOST && thread_cpu_ns() - begun < ROUNDS_NS);
}

/* The ops are the caller's. */
static void run_rounds(struct op *const ops[BATCH_MOST], uint64_t *one, uint64_t *eight) {
    uint64_t first = thread_cpu_ns();
    *one = *eight = UINT64_MAX;
    for (int i = 0; goes_on(i, first); i++) {
        uint64_t begun = thread_cpu_ns();
        op_perform(ops[0]);
        least(one, begun);
        begun = thread_cpu_ns();
        batch_perform(ops, BATCH_MOST);
        least(eight, begun);
    }
}

static bool succeeded(struct op *const ops[BATCH_MOST]) {
    for (size_t i = 0; i < BATCH_MOST; i++)
        if (ops[i]->status != SHIM_OK) return false;
    return true;
}

/* Whether the key's signatures take a digest: Edwards curves and ML-DSA sign the message itself. */
static bool has_digest(const struct key *k) {
    return strncmp(k->type, "ED", 2) != 0 && strncmp(k->type, "ML-DSA", 6) != 0;
}

/* What TLS 1.3 signs with this key is so long (RFC 8446, 4.4.3: 64 spaces, a context string, a hash). NULL: no memory. */
static struct op *make_op(struct key *k, const char *digest) {
    static const uint8_t message[130] = {0x20};
    struct op_parameters p = {.padding = OP_UNSET, .salt_length = OP_UNSET};
    if (has_digest(k)) strcpy(p.digest, digest);
    if (strncmp(k->type, "RSA", 3) == 0) {
        p.padding = RSA_PKCS1_PSS_PADDING;
        p.salt_length = RSA_PSS_SALTLEN_DIGEST;
    }
    return op_new(OP_SIGN, k, &p, message, sizeof message);
}

static size_t make_ops(struct key *k, struct op *ops[BATCH_MOST]) {
    size_t made = 0;
    while (made < BATCH_MOST && (ops[made] = make_op(k, "SHA256")) != NULL) made++;
    return made;
}

static void measure(struct key *k, struct cost *c) {
    struct op *ops[BATCH_MOST];
    size_t made = make_ops(k, ops);
    uint64_t one, eight;
    if (made == BATCH_MOST) {
        run_rounds(ops, &one, &eight);
        if (succeeded(ops)) {
            atomic_store(&c->one_ns, one);
            atomic_store(&c->eight_ns, eight);
        }
    }
    while (made > 0) op_unref(ops[--made]);
}

void costs_measure(struct key *k) {
    enum batch_class class = batch_key_class(k->batch);
    if (class != BATCH_NONE && atomic_load(&costs[class].eight_ns) == 0) measure(k, &costs[class]);
}

/* n ops alone cost n * one; in a batch they cost eight, however few they are. */
size_t costs_pays_from(enum batch_class class) {
    uint64_t one = atomic_load(&costs[class].one_ns), eight = atomic_load(&costs[class].eight_ns);
    return eight == 0 || one == 0 ? BATCH_MOST + 1 : (size_t)(eight / one) + 1;
}

int key_batch_costs(const struct key *k, struct batch_costs *out) {
    enum batch_class class = batch_key_class(k->batch);
    if (class == BATCH_NONE || atomic_load(&costs[class].eight_ns) == 0) return 0;
    out->one_ns = atomic_load(&costs[class].one_ns);
    out->eight_ns = atomic_load(&costs[class].eight_ns);
    out->pays_from = costs_pays_from(class);
    return 1;
}

static uint64_t signature_ns(struct key *k, const char *digest) {
    struct op *op = make_op(k, digest);
    uint64_t one = UINT64_MAX, first = thread_cpu_ns();
    if (op == NULL) return 0;
    for (int i = 0; op->status == SHIM_OK && goes_on(i, first); i++) {
        uint64_t begun = thread_cpu_ns();
        op_perform(op);
        least(&one, begun);
    }
    bool done = op->status == SHIM_OK;
    op_unref(op);
    return done ? one : 0;
}

/* A key of type RSA-PSS may be for one digest only. */
uint64_t key_signature_ns(struct key *k) {
    static const char *const digests[] = {"SHA256", "SHA384", "SHA512"};
    uint64_t one = 0;
    for (size_t i = 0; one == 0 && i < sizeof digests / sizeof digests[0]; i++) one = signature_ns(k, digests[i]);
    return one;
}
