#include "stacks.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common.h"

/*
 * Twice what OpenSSL gives itself: post-quantum signatures and generous frames of other providers
 * need more than 32 KiB, and only the pages that are touched cost memory. The guard is as large as
 * the largest page size in use (arm64 has kernels of 64 KiB).
 */
enum { STACK_SIZE = 64 * 1024, GUARD_SIZE = 64 * 1024 };

/*
 * OpenSSL's own stacks lie on the heap and nobody tells where. But one is 32 KiB long, and OpenSSL takes less than 1 KB
 * of it before it calls us: so what is 28 KiB below our first frame is the stack's for certain. Behind the last frame
 * come those of ASYNC_pause_job(3), some hundred bytes.
 */
enum { OPENSSL_STACK_SIZE = 32 * 1024, ABOVE_FIRST = 4 * 1024, BELOW_LAST = 1024 };

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

/* All stacks of a process are of one kind: OpenSSL lets nobody change that after the first. */
static size_t stack_size(void) {
    return atomic_load(&counters.stacks_alive) > 0 ? STACK_SIZE : OPENSSL_STACK_SIZE;
}

void stacks_give_back(const char *first, const char *last) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t low = (uintptr_t)first - stack_size() + ABOVE_FIRST + page - 1;
    uintptr_t high = (uintptr_t)last - BELOW_LAST;
    low -= low % page;
    high -= high % page;
    if (low < high) madvise((void *)low, high - low, MADV_DONTNEED);
}
