/*
 * job.c: one private-key operation outside TLS, as an ASYNC_JOB (ASYNC_start_job(3)).
 *
 * What runs on the job's stack is key_sign() or key_decrypt(), C from end to end; Python starts and
 * resumes it, and reads the result when it has ended. The wait context is Python's and is busy until then.
 *
 * A job is ended in one way only: it is resumed until it returns. Cancelling makes an op of the shim's
 * engines fail at once; a third party's job ends when its engine says so (SHIM_ERR_BUSY: not yet).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "key.h"
#include "ossl.h"
#include "runner.h"
#include "wait_context.h"

/* The thread that made it only, but for job_free(). */
struct job {
    struct wait_context *context; /* a reference: nobody frees it under the job */
    struct runner runner;
    bool blocked, finished;

    struct key *key; /* a reference */
    int kind, padding, salt_length, tls_version;
    char digest[32];
    uint8_t *input; /* owned; wiped */
    size_t input_length;

    uint8_t *output; /* owned; wiped */
    size_t output_room, output_length;
    int status, system_error; /* of the operation */
    char reason[256];
};

static void release(struct job *j) {
    key_unref(j->key);
    wait_free(j->context);
    wiped_free(j->input, j->input_length);
    wiped_free(j->output, j->output_room);
    free(j);
}

struct job *job_new(struct key *k, int kind, const char *digest, int padding, int salt_length, int tls_version,
                    const void *data, size_t length, struct wait_context *context, int block_pause) {
    struct job *j = calloc(1, sizeof *j);
    if (j == NULL) return NULL;
    j->key = key_ref(k);
    j->context = wait_ref(context);
    j->input = malloc(length > 0 ? length : 1);
    j->output_room = key_output_size(k);
    j->output = malloc(j->output_room);
    if (j->input == NULL || j->output == NULL) {
        j->input_length = 0;
        release(j);
        return NULL;
    }
    if (length > 0) memcpy(j->input, data, length);
    j->input_length = length;
    if (digest != NULL) strncpy(j->digest, digest, sizeof j->digest - 1);
    j->kind = kind;
    j->padding = padding;
    j->salt_length = salt_length;
    j->tls_version = tls_version;
    j->blocked = block_pause != 0;
    runner_init(&j->runner);
    j->status = SHIM_ERR_OPENSSL; /* until the operation says otherwise */
    return j;
}

static int perform(struct job *j) {
    j->output_length = j->output_room;
    if (j->kind == JOB_DECRYPT)
        return key_decrypt(j->key, j->tls_version, j->input, j->input_length, j->output, &j->output_length);
    const char *digest = j->digest[0] != '\0' ? j->digest : NULL;
    return key_sign(j->key, digest, j->padding, j->salt_length, j->input, j->input_length, j->output,
                    &j->output_length);
}

/* On the job's stack. The reason is kept here: the thread's own is the next job's, too. */
static int run(void *argument) {
    struct job *j = *(struct job **)argument;
    if (j->blocked) ossl.ASYNC_block_pause();
    j->status = perform(j);
    j->system_error = errno;
    if (j->blocked) ossl.ASYNC_unblock_pause();
    if (j->status != SHIM_OK) strncpy(j->reason, shim_last_error(), sizeof j->reason - 1);
    return 1;
}

int job_run(struct job *j) {
    shim_status refused = runner_check(&j->runner);
    if (refused != SHIM_OK) return -(int)refused;
    if (j->finished) return ASYNC_FINISH;
    bool was_paused = job_is_paused(j);
    int outcome = runner_enter(&j->runner, wait_raw(j->context), run, j);
    if (outcome == ASYNC_ERR) errors_keep(SHIM_ERR_OPENSSL);
    j->finished = outcome == ASYNC_FINISH || (was_paused && outcome != ASYNC_PAUSE);
    runner_leave(&j->runner);
    return outcome;
}

int job_is_paused(const struct job *j) {
    return runner_is_paused(&j->runner);
}

int job_is_finished(const struct job *j) {
    return j->finished;
}

int job_status(const struct job *j) {
    return j->status;
}

const char *job_reason(const struct job *j) {
    return j->reason;
}

int job_system_error(const struct job *j) {
    return j->system_error;
}

size_t job_output(const struct job *j, void *out, size_t room) {
    if (j->output_length > 0 && j->output_length <= room) memcpy(out, j->output, j->output_length);
    return j->output_length;
}

void job_cancel(struct job *j) {
    runner_cancel(&j->runner);
}

int job_close(struct job *j) {
    shim_status status = runner_close(&j->runner);
    if (status == SHIM_ERR_THREAD) return status;
    if (status == SHIM_ERR_BUSY) job_run(j);
    return job_is_paused(j) ? SHIM_ERR_BUSY : SHIM_OK;
}

void job_free(struct job *j) {
    if (j == NULL) return;
    if (job_close(j) == SHIM_OK)
        release(j);
    else
        runner_abandon(&j->runner); /* its stack still points here */
}
