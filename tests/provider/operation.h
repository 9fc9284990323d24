/* operation.h: one operation of the provider, which pauses as its script says. */
#ifndef SCRIPTED_OPERATION_H
#define SCRIPTED_OPERATION_H

#include "scripted.h"

/*
 * On a job's stack, or outside any job, where nothing is waited for: the next operation of this kind begins, pauses and
 * ends. 1: go on and do it; 0: it has failed, and OpenSSL's queue says so. No lock is held while it is paused.
 */
int operation_run(enum scripted_kind kind);

#endif
