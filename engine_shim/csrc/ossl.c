#include "ossl.h"

#include <string.h>

#include "common.h"

struct ossl_table ossl;

struct row {
    const char *name;
    size_t offset;
    int required;
};

static const struct row rows[] = {
#define OSSL(type, name, arguments) {#name, offsetof(struct ossl_table, name), 1},
#define OSSL_MAYBE(type, name, arguments) {#name, offsetof(struct ossl_table, name), 0},
#include "ossl.def"
#undef OSSL_MAYBE
#undef OSSL
};

size_t ossl_count(void) {
    return sizeof rows / sizeof rows[0];
}

const char *ossl_name(size_t index) {
    return index < ossl_count() ? rows[index].name : NULL;
}

int ossl_is_required(size_t index) {
    return index < ossl_count() ? rows[index].required : 0;
}

/* Copies between a function pointer's bytes and void *, which POSIX makes the same size. */
void *ossl_address(size_t index) {
    void *address = NULL;
    if (index < ossl_count()) memcpy(&address, (char *)&ossl + rows[index].offset, sizeof address);
    return address;
}

void ossl_bind(size_t index, void *address) {
    if (index < ossl_count()) memcpy((char *)&ossl + rows[index].offset, &address, sizeof address);
}
