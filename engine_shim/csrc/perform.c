/* perform.c: the op itself, with the inner key, through OpenSSL's own provider. Any thread. */
#include "errors.h"
#include "evp.h"
#include "key.h"
#include "ossl.h"

/*
 * Decryption is RSA_PKCS1_WITH_TLS_PADDING (decrypt.c), where OpenSSL answers bad padding with 48 random bytes, in constant
 * time (RFC 5246, 7.4.7.1), so success and failure look alike from here on; or raw (operations.c), where there is no
 * padding to look at.
 * Leaves this thread's error queue empty.
 */
void op_perform_with(struct op *op, const struct key *key) {
    ossl.ERR_clear_error();
    op->output_length = op->output_room;
    int (*perform)(EVP_PKEY *, const struct op_parameters *, const void *, size_t, void *, size_t *) =
        op->kind == OP_SIGN ? evp_sign : evp_decrypt;
    if (perform(key->inner, &op->parameters, op->input, op->input_length, op->output, &op->output_length) == 1) {
        ossl.ERR_clear_error();
        return;
    }
    char reason[sizeof op->reason] = "";
    if (!errors_take_first(reason, sizeof reason)) reason[0] = '\0';
    op_fail(op, SHIM_ERR_FAILED, reason);
}

void op_perform(struct op *op) {
    op_perform_with(op, op->key);
}
