#include "key.h"

#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "costs.h"
#include "engine.h"
#include "errors.h"
#include "keymgmt.h"
#include "ossl.h"
#include "provider.h"

struct key *key_ref(struct key *k) {
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    return k;
}

void key_unref(struct key *k) {
    if (k == NULL || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1) return;
    batch_key_free(k->batch);
    ossl.EVP_PKEY_free(k->inner);
    ossl.OSSL_PARAM_free(k->public_half);
    engine_free(k->engine);
    free(k);
    count_down(&counters.keys_alive);
}

void key_free(struct key *k) {
    key_unref(k);
}

size_t key_output_size(const struct key *k) {
    return (size_t)k->size;
}

const char *key_type(const struct key *k) {
    return k->type;
}

int key_bits(const struct key *k) {
    return k->bits;
}

int key_max_size(const struct key *k) {
    return k->size;
}

const unsigned char *key_id(const struct key *k) {
    return k->has_id ? k->id : NULL;
}

void key_set_id(struct key *k, const unsigned char id[20]) {
    memcpy(k->id, id, sizeof k->id);
    k->has_id = true;
}

static shim_status describe(struct key *k) {
    const char *type = ossl.EVP_PKEY_get0_type_name(k->inner);
    if (type == NULL || (k->engine != NULL && !keymgmt_knows(type))) return SHIM_ERR_KEY_TYPE;
    strncpy(k->type, type, sizeof k->type - 1);
    k->bits = ossl.EVP_PKEY_get_bits(k->inner);
    k->size = ossl.EVP_PKEY_get_size(k->inner);
    if (k->size <= 0) return SHIM_ERR_KEY_TYPE;
    if (k->engine == NULL) return SHIM_OK;
    if (ossl.EVP_PKEY_todata(k->inner, EVP_PKEY_PUBLIC_KEY, &k->public_half) != 1) return SHIM_ERR_OPENSSL;
    if (k->engine->kind->batches) k->batch = batch_key_new(k->inner, k->type, k->bits);
    return SHIM_OK;
}

static shim_status make(struct engine *e, EVP_PKEY *inner, struct key **out) {
    struct key *k = calloc(1, sizeof *k);
    if (k == NULL) {
        ossl.EVP_PKEY_free(inner);
        return SHIM_ERR_MEMORY;
    }
    atomic_init(&k->refs, 1);
    k->engine = e != NULL ? engine_ref(e) : NULL;
    k->inner = inner;
    count_up(&counters.keys_alive);
    shim_status status = describe(k);
    if (status != SHIM_OK) {
        key_unref(k);
        return status;
    }
    costs_measure(k);
    *out = k;
    return SHIM_OK;
}

shim_status key_new(struct engine *e, EVP_PKEY *inner, struct key **out) {
    return make(e, inner, out);
}

shim_status key_adopt(EVP_PKEY *pkey, struct key **out) {
    return make(NULL, pkey, out);
}

bool key_is_wrapped(const EVP_PKEY *pkey) {
    const OSSL_PROVIDER *provider = ossl.EVP_PKEY_get0_provider(pkey);
    return provider != NULL && strcmp(ossl.OSSL_PROVIDER_get0_name(provider), PROVIDER_NAME) == 0;
}

EVP_PKEY *key_wrap(struct key *k) {
    if (k->engine == NULL) return ossl.EVP_PKEY_up_ref(k->inner) == 1 ? k->inner : NULL;
    EVP_PKEY *wrapped = NULL;
    EVP_PKEY_CTX *context = ossl.EVP_PKEY_CTX_new_from_name(provider_context(), k->type, NULL);
    if (context == NULL) return NULL;
    if (ossl.EVP_PKEY_fromdata_init(context) == 1) {
        OSSL_PARAM parameters[2];
        keymgmt_offer(k, parameters);
        ossl.EVP_PKEY_fromdata(context, &wrapped, EVP_PKEY_KEYPAIR, parameters);
        keymgmt_offer(NULL, parameters);
    }
    ossl.EVP_PKEY_CTX_free(context);
    return wrapped;
}

size_t key_public_der(const struct key *k, unsigned char *out, size_t room) {
    int length = ossl.i2d_PUBKEY(k->inner, NULL);
    if (length > 0 && (size_t)length <= room) ossl.i2d_PUBKEY(k->inner, &out);
    ossl.ERR_clear_error();
    return length > 0 ? (size_t)length : 0;
}

int key_matches_certificate(const struct key *k, void *x509) {
    EVP_PKEY *certified = ossl.X509_get0_pubkey(x509);
    int equal = certified != NULL && ossl.EVP_PKEY_eq(certified, k->inner) == 1;
    ossl.ERR_clear_error();
    return equal;
}

int key_use(struct key *k, void *ssl_ctx) {
    ossl.ERR_clear_error();
    EVP_PKEY *wrapped = key_wrap(k);
    bool used = wrapped != NULL && ossl.SSL_CTX_use_PrivateKey(ssl_ctx, wrapped) == 1;
    ossl.EVP_PKEY_free(wrapped); /* the SSL_CTX has its own reference */
    return used ? SHIM_OK : (int)errors_keep(SHIM_ERR_OPENSSL);
}
