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
#include "fork.h"
#include "key.h"
#include "ossl.h"
#include "pause.h"
#include "thread_jobs.h"
#include "wait_context.h"

/* The thread that made it only, but for job_free(). */
struct job {
    ASYNC_JOB *job;               /* OpenSSL's; NULL: not paused */
    struct wait_context *context; /* a reference: nobody frees it under the job */
    struct pauser pauser;
    uint64_t thread; /* thread_jobs_self() */
    unsigned generation;
    bool blocked, finished;
    atomic_bool running; /* in job_run(): what other threads see, who should not be here */

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
    j->thread = thread_jobs_self();
    j->generation = fork_generation();
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

static shim_status check_owner(const struct job *j) {
    if (j->generation != fork_generation()) return SHIM_ERR_FORKED;
    return j->thread == thread_jobs_self() ? SHIM_OK : SHIM_ERR_THREAD;
}

/* jobs_started and jobs_finished are equal whenever no job is paused. */
static void follow(struct job *j, bool was_paused, int result) {
    bool is_paused = result == ASYNC_PAUSE;
    bool ran = was_paused || is_paused || result == ASYNC_FINISH;
    if (ran && !was_paused) count_up(&counters.jobs_started);
    if (ran && !is_paused) count_up(&counters.jobs_finished);
    if (is_paused && !was_paused) thread_jobs_paused();
    if (was_paused && !is_paused) thread_jobs_resumed();
    j->finished = ran && !is_paused;
    if (!is_paused) j->job = NULL;
}

int job_run(struct job *j) {
    shim_status refused = check_owner(j);
    if (refused != SHIM_OK) return -(int)refused;
    if (j->finished) return ASYNC_FINISH;
    bool was_paused = j->job != NULL;
    int returned = 0;
    atomic_store(&j->running, true);
    struct pauser *before = pause_enter(&j->pauser);
    ossl.ERR_clear_error();
    int result = ossl.ASYNC_start_job(&j->job, wait_raw(j->context), &returned, run, &j, sizeof(struct job *));
    pause_leave(before);
    if (result == ASYNC_ERR) errors_keep(SHIM_ERR_OPENSSL);
    follow(j, was_paused, result);
    atomic_store(&j->running, false);
    return result;
}

int job_is_paused(const struct job *j) {
    return j->job != NULL;
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
    if (check_owner(j) == SHIM_OK) pause_cancel(&j->pauser);
}

/* After a fork a job that is paused, or that another thread ran, is the parent's: it is left as it is. */
int job_close(struct job *j) {
    bool running = atomic_load(&j->running);
    if (!running && !job_is_paused(j)) return SHIM_OK;
    shim_status status = check_owner(j);
    if (status == SHIM_ERR_FORKED) {
        count_up(&counters.jobs_abandoned);
        j->job = NULL;
        return SHIM_OK;
    }
    if (running || status != SHIM_OK) return SHIM_ERR_THREAD;
    job_cancel(j);
    job_run(j);
    return job_is_paused(j) ? SHIM_ERR_BUSY : SHIM_OK;
}

void job_free(struct job *j) {
    if (j == NULL) return;
    if (job_close(j) == SHIM_OK)
        release(j);
    else
        count_up(&counters.jobs_abandoned); /* its stack still points here */
}
