/* password.h: the password of a private key, for whatever asks for one. */
#ifndef ENGINE_SHIM_PASSWORD_H
#define ENGINE_SHIM_PASSWORD_H

#include "common.h"

/* On the stack of the call that reads the key; one thread. */
struct password {
    const char *bytes; /* borrowed; NULL: none was given */
    size_t length;
    bool asked; /* the key is encrypted */
};

/* pem_password_cb(3), with a struct password: the password's length, or -1, so that nobody is asked on a terminal. */
int password_give(char *buffer, int size, int writing, void *password);

#endif
