/*
 * context_data.c: one ex_data index for all parts, so that they die with their SSL_CTX, whoever frees it and when.
 */
#include "context_data.h"

#include <pthread.h>
#include <stdlib.h>

#include "errors.h"
#include "ossl.h"

/* Owned by the SSL_CTX (its ex_data). Written before its first SSL is made, read by any thread after. */
struct context_data {
    struct {
        void *part;
        void (*free_part)(void *);
    } slots[CONTEXT_PARTS];
};

static int ex_index = -1;

static void empty(struct context_data *d, int which) {
    if (d->slots[which].part != NULL) d->slots[which].free_part(d->slots[which].part);
}

static void free_data(void *parent, void *p, CRYPTO_EX_DATA *data, int index, long number, void *pointer) {
    (void)parent;
    (void)data;
    (void)index;
    (void)number;
    (void)pointer;
    struct context_data *d = p;
    if (d == NULL) return;
    for (int which = 0; which < CONTEXT_PARTS; which++) empty(d, which);
    free(d);
}

static void make_index(void) {
    ex_index = ossl.CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, NULL, NULL, free_data);
}

static shim_status data_of(SSL_CTX *ctx, struct context_data **out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_index);
    if (ex_index < 0) return errors_keep(SHIM_ERR_OPENSSL);
    *out = ossl.SSL_CTX_get_ex_data(ctx, ex_index);
    if (*out != NULL) return SHIM_OK;
    struct context_data *made = calloc(1, sizeof *made);
    if (made == NULL) return SHIM_ERR_MEMORY;
    if (ossl.SSL_CTX_set_ex_data(ctx, ex_index, made) != 1) {
        free(made);
        return errors_keep(SHIM_ERR_OPENSSL);
    }
    *out = made;
    return SHIM_OK;
}

shim_status context_data_set(SSL_CTX *ctx, enum context_part which, void *part, void (*free_part)(void *)) {
    struct context_data *d;
    shim_status status = data_of(ctx, &d);
    if (status != SHIM_OK) return status;
    empty(d, which);
    d->slots[which].part = part;
    d->slots[which].free_part = free_part;
    return SHIM_OK;
}

void *context_data_get(const SSL_CTX *ctx, enum context_part which) {
    const struct context_data *d = ex_index < 0 ? NULL : ossl.SSL_CTX_get_ex_data(ctx, ex_index);
    return d == NULL ? NULL : d->slots[which].part;
}
