/* stacks.h: stacks for OpenSSL's jobs, with a guard page: overflowing one is a fault, not corruption. */
#ifndef ENGINE_SHIM_STACKS_H
#define ENGINE_SHIM_STACKS_H

#include <stddef.h>

/* For ASYNC_set_mem_functions(3). `*size` is what OpenSSL asks for, and what it gets. Any thread. */
void *stacks_allocate(size_t *size);
void stacks_free(void *stack);

/*
 * The kernel takes back the pages below a frame of a job's stack that nobody runs on now; they come back as zeros when
 * they are touched. `first` is the job's first frame that is ours, `last` its last one of interest; the frames that
 * switch away from the stack lie below that and stay. The thread that runs the job.
 */
void stacks_give_back(const char *first, const char *last);

#endif
