/* common.h: what every source of the shim needs: the public interface, wiping, time, counters. */
#ifndef ENGINE_SHIM_COMMON_H
#define ENGINE_SHIM_COMMON_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shim.h"

typedef enum shim_status shim_status;

#define MUST_CHECK __attribute__((warn_unused_result))

/* Relaxed atomics: read for statistics only, never to decide anything. */
struct counters {
    atomic_uint_fast64_t jobs_started, jobs_finished, jobs_abandoned, pauses, wait_fds_open, ops_alive, keys_alive,
        engines_alive, stacks_alive, x25519_made, x25519_used, x25519_ahead;
    atomic_uint_fast64_t key_log_lines, key_log_failures;
};
extern struct counters counters;

static inline void count_up(atomic_uint_fast64_t *counter) {
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static inline void count_down(atomic_uint_fast64_t *counter) {
    atomic_fetch_sub_explicit(counter, 1, memory_order_relaxed);
}

/* Any thread. */
uint64_t now_ns(void);                        /* CLOCK_MONOTONIC */
uint64_t thread_cpu_ns(void);                 /* what this thread has used of a CPU */
void *wiped_free(void *bytes, size_t length); /* wipes, frees, returns NULL */

#endif
