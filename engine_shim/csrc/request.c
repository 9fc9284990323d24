/*
 * request.c: an op as its signer sees it, and what becomes of its answer.
 *
 * A signer is not trusted to be right: a signature is verified with the public key before the handshake gets it. That is
 * also what keeps a faulty signer's RSA-CRT result from giving its key away. A decryption cannot be verified without
 * working on the secret in variable time; a wrong one is a premaster secret that the client does not have, and the handshake
 * ends where bad padding ends (rsa_unpad.h).
 *
 * The verification is done before the op is claimed: a wrong answer may leave it open, for another signer to try.
 */
#include <string.h>

#include "engine_signer.h"
#include "errors.h"
#include "evp.h"
#include "key.h"
#include "ossl.h"
#include "rsa_unpad.h"

void request_facts(const struct op *op, struct request_facts *out) {
    *out = (struct request_facts){
        .id = op->request.id,
        .submitted_ns = op->submitted_ns,
        .deadline_ns = signer_deadline(op),
        .kind = (int)op->kind,
        .padding = op->parameters.padding,
        .salt_length = op->parameters.salt_length,
        .input_length = op->input_length,
    };
    memcpy(out->digest, op->parameters.digest, sizeof out->digest);
}

size_t request_input(const struct op *op, void *out, size_t room) {
    if (op->input_length <= room) memcpy(out, op->input, op->input_length);
    return op->input_length;
}

struct key *request_key(const struct op *op) {
    return key_ref(op->key);
}

int request_state(struct op *op) {
    struct engine *e = op->key->engine;
    pthread_mutex_lock(&e->lock);
    shim_status state = signer_state(op);
    pthread_mutex_unlock(&e->lock);
    return (int)state;
}

static bool is_right(const struct op *op, const void *answer, size_t length) {
    if (op->kind == OP_DECRYPT) return length == key_output_size(op->key);
    ossl.ERR_clear_error();
    bool right = length <= op->output_room &&
                 evp_verify(op->key->inner, &op->parameters, op->input, op->input_length, answer, length) == 1;
    ossl.ERR_clear_error();
    return right;
}

static void apply(struct op *op, const void *answer, size_t length) {
    if (op->kind == OP_DECRYPT) {
        if (!rsa_unpad_premaster(answer, length, &op->parameters, op->output))
            op_fail(op, SHIM_ERR_SYSTEM, "no random bytes are to be had");
        op->output_length = PREMASTER_SECRET;
        return;
    }
    memcpy(op->output, answer, length);
    op->output_length = length;
}

/* Under the lock, which it lets go of meanwhile: a fork waits for what OpenSSL does. */
static bool verify(struct op *op, const void *answer, size_t length) {
    engine_busy_begin(op->key->engine);
    bool right = is_right(op, answer, length);
    engine_busy_end(op->key->engine);
    return right;
}

/* Under the lock. */
static shim_status complete(struct op *op, const void *answer, size_t length, bool final) {
    shim_status state = signer_state(op);
    if (state != SHIM_OK) return state;
    bool right = verify(op, answer, length);
    if (!right) signer_count_wrong(op);
    if (!right && !final) return SHIM_ERR_WRONG;
    state = signer_claim(op);
    if (state != SHIM_OK) return state;
    if (right)
        apply(op, answer, length);
    else
        op_fail(op, SHIM_ERR_FAILED, "the signer's answer is not right for this key");
    signer_deliver(op, right ? SIGNER_COMPLETED : SIGNER_WRONG);
    return right ? SHIM_OK : SHIM_ERR_WRONG;
}

int request_complete(struct op *op, const void *answer, size_t length, int final) {
    struct engine *e = op->key->engine;
    pthread_mutex_lock(&e->lock);
    engine_wait_for_fork(e);
    shim_status status = complete(op, answer, length, final != 0);
    pthread_mutex_unlock(&e->lock);
    return (int)status;
}

int request_fail(struct op *op, const char *reason) {
    struct engine *e = op->key->engine;
    pthread_mutex_lock(&e->lock);
    shim_status status = signer_claim(op);
    if (status == SHIM_OK) {
        op_fail(op, SHIM_ERR_FAILED, reason);
        signer_deliver(op, SIGNER_REFUSED);
    }
    pthread_mutex_unlock(&e->lock);
    return (int)status;
}

int request_perform(struct op *op, struct key *k) {
    struct engine *e = op->key->engine;
    pthread_mutex_lock(&e->lock);
    engine_wait_for_fork(e);
    shim_status status = signer_claim(op);
    if (status == SHIM_OK) {
        engine_busy_begin(e);
        op_perform_with(op, k);
        engine_busy_end(e);
        status = op->status;
        signer_deliver(op, status == SHIM_OK ? SIGNER_COMPLETED : SIGNER_REFUSED);
    }
    pthread_mutex_unlock(&e->lock);
    return (int)status;
}

void request_free(struct op *op) {
    op_unref(op);
}
