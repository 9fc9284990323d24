#include "common.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct counters counters;

void shim_counters(struct shim_counters *out) {
    *out = (struct shim_counters){
        .jobs_started = atomic_load(&counters.jobs_started),
        .jobs_finished = atomic_load(&counters.jobs_finished),
        .jobs_abandoned = atomic_load(&counters.jobs_abandoned),
        .pauses = atomic_load(&counters.pauses),
        .wait_fds_open = atomic_load(&counters.wait_fds_open),
        .ops_alive = atomic_load(&counters.ops_alive),
        .keys_alive = atomic_load(&counters.keys_alive),
        .engines_alive = atomic_load(&counters.engines_alive),
        .stacks_alive = atomic_load(&counters.stacks_alive),
        .x25519_made = atomic_load(&counters.x25519_made),
        .x25519_used = atomic_load(&counters.x25519_used),
        .x25519_ahead = atomic_load(&counters.x25519_ahead),
        .key_log_lines = atomic_load(&counters.key_log_lines),
        .key_log_failures = atomic_load(&counters.key_log_failures),
    };
}

static uint64_t read_clock(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t now_ns(void) {
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t thread_cpu_ns(void) {
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

void *wiped_free(void *bytes, size_t length) {
    if (bytes != NULL) explicit_bzero(bytes, length);
    free(bytes);
    return NULL;
}
