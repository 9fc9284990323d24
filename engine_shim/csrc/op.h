/*
 * op.h: one private-key operation that a handshake asks for.
 *
 * Owns copies of its input and output, so whoever finishes late writes into the op and
 * never into a dead fibre. Reference-counted: the job's side (pause.c) holds one, the
 * engine holds one from the moment it queues the op until it has finished it. The last
 * reference wipes and frees.
 *
 *   job's side:  op_new -> engine_submit -> (paused) -> op_is_done -> output -> op_unref
 *   engine:      op_perform -> op_finish -> op_unref, on any thread; touches the op only
 */
#ifndef ENGINE_SHIM_OP_H
#define ENGINE_SHIM_OP_H

#include "common.h"

struct key;
struct operations;
struct wake;

enum op_kind { OP_SIGN, OP_DECRYPT };

/* Where the op stands in its engine; under the engine's lock. */
enum op_place { OP_NOWHERE, OP_WAITING, OP_QUEUED, OP_TAKEN, OP_HELD };

enum { OP_UNSET = -1000 };

/* As OpenSSL's parameters have it; OP_UNSET or "" where the caller said nothing. */
struct op_parameters {
    char digest[32];
    char mgf1_digest[32];
    int padding;
    int salt_length;
    unsigned tls_client_version;
    unsigned tls_negotiated_version;
    bool prehashed; /* a signature: the input is the digest (of that name, or of any where there is none) */
};

struct op {
    atomic_uint refs;
    enum op_kind kind;
    unsigned char share; /* enum batch_class: which ops may share a batch with it */
    struct key *key;     /* a reference */
    struct wake *wake;   /* a reference; the wait fd */
    struct wake *echo;   /* a reference, or NULL: signalled as well, where the wait context has a callback of ours */
    struct op_parameters parameters;
    uint8_t *input; /* owned */
    size_t input_length;

    /* Written by the thread that performs, before op_finish(); read after op_is_done(). */
    uint8_t *output; /* owned; wiped */
    size_t output_room, output_length;
    shim_status status;
    char reason[128];
    atomic_bool done;

    /* Under the engine's lock. */
    struct op *next, *previous;
    enum op_place place;
    bool cancelled;
    uint64_t submitted_ns;

    /* Where it goes when it is finished, or NULL: it is a job's. A reference; immutable once submitted. */
    struct operations *operations;
    uint64_t number;          /* what operations.c calls it */
    struct op *next_finished; /* of the same; under no lock: operations.c */
    struct {
        uint64_t id; /* 0: no signer has taken it */
        uint64_t taken_ns;
        unsigned generation; /* fork_generation() then */
        bool expired;
    } request; /* engine_signer.c's */
};

/* The job's side. Copies the input; takes a reference to the key. NULL: no memory. */
struct op *op_new(enum op_kind kind, struct key *key, const struct op_parameters *parameters, const void *input,
                  size_t length) MUST_CHECK;
struct op *op_ref(struct op *op);
void op_unref(struct op *op);
bool op_is_done(const struct op *op);
const char *op_reason(const struct op *op); /* "" while it is not done, or for NULL */

/* The engine's side: op_perform() computes, op_finish() publishes and signals. */
void op_perform(struct op *op);
void op_perform_with(struct op *op, const struct key *key); /* another one with the same public half */
void op_fail(struct op *op, shim_status status, const char *reason);
void op_finish(struct op *op);

/* op_list: a first-in-first-out list of ops; all under the engine's lock. */
struct op_list {
    struct op *first, *last;
    size_t length;
};
void op_list_push(struct op_list *list, struct op *op, enum op_place place);
void op_list_insert_after(struct op_list *list, struct op *before, struct op *op, enum op_place place);
void op_list_remove(struct op_list *list, struct op *op);
struct op *op_list_pop(struct op_list *list);
struct op *op_list_at(const struct op_list *list, size_t index);

#endif
