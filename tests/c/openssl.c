#include "openssl.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

#include "shim.h"
#include "unit.h"

static void *libssl;

/* A unit is no extension of Python: there is no pyOpenSSL whose OpenSSL it would have to share. */
int openssl_bind(void) {
    libssl = dlopen("libssl.so.3", RTLD_NOW);
    int missing = 0;
    if (libssl == NULL) return -1;
    for (size_t i = 0; i < ossl_count(); i++) {
        ossl_bind(i, dlsym(libssl, ossl_name(i)));
        if (ossl_address(i) == NULL) missing += ossl_is_required(i);
    }
    return missing;
}

void *openssl_function(const char *name) {
    void *found = dlsym(libssl, name);
    CHECK(found != NULL);
    return found;
}
