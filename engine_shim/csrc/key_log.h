/* key_log.h: what a fork has to do with the files of key_log.c. */
#ifndef ENGINE_SHIM_KEY_LOG_H
#define ENGINE_SHIM_KEY_LOG_H

/* fork.c's: in this order. */
void key_log_fork_prepare(void);
void key_log_fork_parent(void);
void key_log_fork_child(void);

#endif
