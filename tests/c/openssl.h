/* openssl.h: for the units that need a real OpenSSL. */
#ifndef TESTS_OPENSSL_H
#define TESTS_OPENSSL_H

/* Binds the table to the system's libssl; returns how many required functions are missing, or -1 without a libssl. */
int openssl_bind(void);
/* What a unit calls beyond the table, by name; aborts where there is none. */
void *openssl_function(const char *name);

#endif
