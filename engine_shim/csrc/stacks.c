#include "stacks.h"

#include <sys/mman.h>
#include <unistd.h>

#include "common.h"

/*
 * Twice what OpenSSL gives itself: post-quantum signatures and generous frames of other providers
 * need more than 32 KiB, and only the pages that are touched cost memory. The guard is as large as
 * the largest page size in use (arm64 has kernels of 64 KiB).
 */
enum { STACK_SIZE = 64 * 1024, GUARD_SIZE = 64 * 1024 };

void *stacks_allocate(size_t *size) {
    char *mapped = mmap(NULL, GUARD_SIZE + STACK_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return NULL;
    if (mprotect(mapped + GUARD_SIZE, STACK_SIZE, PROT_READ | PROT_WRITE) != 0) {
        munmap(mapped, GUARD_SIZE + STACK_SIZE);
        return NULL;
    }
    *size = STACK_SIZE;
    count_up(&counters.stacks_alive);
    return mapped + GUARD_SIZE;
}

void stacks_free(void *stack) {
    if (stack == NULL) return;
    munmap((char *)stack - GUARD_SIZE, GUARD_SIZE + STACK_SIZE);
    count_down(&counters.stacks_alive);
}
