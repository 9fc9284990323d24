/* attach.c: what is done once, between binding the table and the first connection. The importing thread. */
#include "errors.h"
#include "fork.h"
#include "ossl.h"
#include "provider.h"
#include "stacks.h"

unsigned long attach_version_number(void) {
    return ossl.OpenSSL_version_num();
}

const char *attach_version_text(void) {
    return ossl.OpenSSL_version(OPENSSL_VERSION);
}

long attach_context_timeout(void *ssl_ctx) {
    return ossl.SSL_CTX_get_timeout(ssl_ctx);
}

int attach_fips_only(void) {
    return ossl.EVP_default_properties_is_fips_enabled(NULL);
}

static bool stacks_are_ours(void) {
    ASYNC_stack_alloc_fn allocate = NULL;
    ASYNC_stack_free_fn release = NULL;
    ossl.ASYNC_get_mem_functions(&allocate, &release);
    return allocate == stacks_allocate && release == stacks_free;
}

/* A second call finds its own stacks in place: OpenSSL refuses to change them once there is a job. */
int attach_stacks(void) {
    if (ossl.ASYNC_set_mem_functions == NULL || ossl.ASYNC_get_mem_functions == NULL) return STACKS_PLAIN;
    if (!stacks_are_ours()) ossl.ASYNC_set_mem_functions(stacks_allocate, stacks_free);
    ossl.ERR_clear_error();
    return stacks_are_ours() ? STACKS_GUARDED : STACKS_REFUSED;
}

int attach_provider(void) {
    fork_install();
    errors_register();
    return provider_load();
}

static int pause_in_job(void *argument) {
    (void)argument;
    ossl.ASYNC_pause_job();
    return 42;
}

/* Starts, pauses and resumes. */
static bool job_runs(ASYNC_WAIT_CTX *context) {
    ASYNC_JOB *job = NULL;
    int result = 0;
    if (ossl.ASYNC_start_job(&job, context, &result, pause_in_job, NULL, 0) != ASYNC_PAUSE) return false;
    return ossl.ASYNC_start_job(&job, context, &result, pause_in_job, NULL, 0) == ASYNC_FINISH && result == 42;
}

int attach_selftest(void) {
    ossl.ERR_clear_error();
    if (ossl.ASYNC_is_capable() != 1) return errors_say(SHIM_ERR_OPENSSL, "this OpenSSL is built without ASYNC_JOB");
    ASYNC_WAIT_CTX *context = ossl.ASYNC_WAIT_CTX_new();
    if (context == NULL) return errors_keep(SHIM_ERR_OPENSSL);
    bool runs = job_runs(context);
    ossl.ASYNC_WAIT_CTX_free(context);
    return runs ? SHIM_OK : (int)errors_say(SHIM_ERR_OPENSSL, "a job did not pause and resume");
}
