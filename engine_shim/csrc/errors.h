/*
 * errors.h: the shim's errors on OpenSSL's queue (library "engine_shim"), and this thread's
 * last error as text for Python.
 */
#ifndef ENGINE_SHIM_ERRORS_H
#define ENGINE_SHIM_ERRORS_H

#include "common.h"

/* Once, when attached. */
void errors_register(void);
/* On the job's stack or anywhere else: puts an entry on OpenSSL's queue. */
void errors_raise(shim_status status, const char *detail);
/* Which enum shim_status the queue's `code` stands for; 0: somebody else's error. */
int errors_ours(unsigned long code);
/* Empties OpenSSL's queue: the first entry becomes `text`. False: the queue was empty. */
bool errors_take_first(char *text, size_t room);
/* The same into shim_last_error(), for a call of Python's that failed; returns `status`. */
shim_status errors_keep(shim_status status);
shim_status errors_say(shim_status status, const char *text);
/* One entry of the queue as text; `data` as from ERR_get_error_all. */
void errors_describe(unsigned long code, const char *data, char *text, size_t room);

#endif
