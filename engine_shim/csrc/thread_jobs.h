/* thread_jobs.h: this thread's pool of jobs. */
#ifndef ENGINE_SHIM_THREAD_JOBS_H
#define ENGINE_SHIM_THREAD_JOBS_H

#include "common.h"

/* A job of this thread has paused; one that was paused runs again. Called by whoever starts and resumes jobs. */
void thread_jobs_paused(void);
void thread_jobs_resumed(void);
/* How many are paused now. */
unsigned thread_jobs_count(void);

#endif
