/* stacks.h: stacks for OpenSSL's jobs, with a guard page: overflowing one is a fault, not corruption. */
#ifndef ENGINE_SHIM_STACKS_H
#define ENGINE_SHIM_STACKS_H

#include <stddef.h>

/* For ASYNC_set_mem_functions(3). `*size` is what OpenSSL asks for, and what it gets. Any thread. */
void *stacks_allocate(size_t *size);
void stacks_free(void *stack);

#endif
