#include "openssl.h"

#include <pthread.h>
#include <string.h>

#include "scripted.h"

struct openssl_table openssl;

static const struct row {
    const char *name;
    size_t offset;
} rows[] = {
#define OSSL(type, name, arguments) {#name, offsetof(struct openssl_table, name)},
#include "openssl.def"
#undef OSSL
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static OSSL_LIB_CTX *inner; /* written once, by make_inner() */

size_t scripted_function_count(void) {
    return ROWS;
}

const char *scripted_function_name(size_t index) {
    return index < ROWS ? rows[index].name : NULL;
}

/* Copies between void * and a function pointer's bytes, which POSIX makes the same size. */
void scripted_bind(size_t index, void *address) {
    if (index < ROWS) memcpy((char *)&openssl + rows[index].offset, &address, sizeof address);
}

int openssl_is_bound(void) {
    for (size_t i = 0; i < ROWS; i++) {
        void *address;
        memcpy(&address, (const char *)&openssl + rows[i].offset, sizeof address);
        if (address == NULL) return 0;
    }
    return 1;
}

static void make_inner(void) {
    inner = openssl.OSSL_LIB_CTX_new();
}

OSSL_LIB_CTX *openssl_inner(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_inner);
    return inner;
}
