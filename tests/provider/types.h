/*
 * types.h: what the scripted provider needs of OpenSSL's headers beyond the shim's own ossl_types.h, under OpenSSL's
 * names. tests/test_provider_headers.py compares every line with the real headers.
 */
#ifndef SCRIPTED_TYPES_H
#define SCRIPTED_TYPES_H

#include "ossl_types.h"

typedef struct evp_cipher_st EVP_CIPHER;
typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;

typedef struct ossl_item_st {
    unsigned int id;
    void *ptr;
} OSSL_ITEM;

typedef int OSSL_PASSPHRASE_CALLBACK(char *pass, size_t pass_size, size_t *pass_len, const OSSL_PARAM params[],
                                     void *arg);

/* async.h */
#define ASYNC_STATUS_OK 2

/* core_dispatch.h */
#define OSSL_FUNC_CORE_GET_PARAMS 2
#define OSSL_FUNC_CORE_NEW_ERROR 5
#define OSSL_FUNC_CORE_VSET_ERROR 7
#define OSSL_FUNC_PROVIDER_GET_REASON_STRINGS 1029

#define OSSL_OP_CIPHER 2
#define OSSL_OP_STORE 22

#define OSSL_FUNC_KEYMGMT_LOAD 8

#define OSSL_FUNC_SIGNATURE_GET_CTX_PARAMS 18
#define OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS 19

#define OSSL_FUNC_CIPHER_NEWCTX 1
#define OSSL_FUNC_CIPHER_ENCRYPT_INIT 2
#define OSSL_FUNC_CIPHER_DECRYPT_INIT 3
#define OSSL_FUNC_CIPHER_UPDATE 4
#define OSSL_FUNC_CIPHER_FINAL 5
#define OSSL_FUNC_CIPHER_CIPHER 6
#define OSSL_FUNC_CIPHER_FREECTX 7
#define OSSL_FUNC_CIPHER_DUPCTX 8
#define OSSL_FUNC_CIPHER_GET_PARAMS 9
#define OSSL_FUNC_CIPHER_GET_CTX_PARAMS 10
#define OSSL_FUNC_CIPHER_SET_CTX_PARAMS 11
#define OSSL_FUNC_CIPHER_GETTABLE_PARAMS 12
#define OSSL_FUNC_CIPHER_GETTABLE_CTX_PARAMS 13
#define OSSL_FUNC_CIPHER_SETTABLE_CTX_PARAMS 14

#define OSSL_FUNC_STORE_OPEN 1
#define OSSL_FUNC_STORE_SETTABLE_CTX_PARAMS 3
#define OSSL_FUNC_STORE_SET_CTX_PARAMS 4
#define OSSL_FUNC_STORE_LOAD 5
#define OSSL_FUNC_STORE_EOF 6
#define OSSL_FUNC_STORE_CLOSE 7

/* core_object.h, core_names.h */
#define OSSL_OBJECT_PKEY 2
#define OSSL_OBJECT_PARAM_TYPE "type"
#define OSSL_OBJECT_PARAM_DATA_TYPE "data-type"
#define OSSL_OBJECT_PARAM_REFERENCE "reference"
#define OSSL_PROV_PARAM_CORE_PROV_NAME "provider-name"
#define OSSL_PKEY_PARAM_RSA_D "d"
#define OSSL_PKEY_PARAM_PRIV_KEY "priv"

#endif
