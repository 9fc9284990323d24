/*
 * ossl_types.h: the few types and constants of OpenSSL that the shim needs, under
 * OpenSSL's own names. The extension is built without OpenSSL's headers; a test
 * compares every line here with them (tests/test_openssl_headers.py). All of it is
 * part of OpenSSL's stable ABI since 3.0.
 */
#ifndef ENGINE_SHIM_OSSL_TYPES_H
#define ENGINE_SHIM_OSSL_TYPES_H

#include <stddef.h>
#include <stdint.h>

typedef struct async_job_st ASYNC_JOB;
typedef struct async_wait_ctx_st ASYNC_WAIT_CTX;
typedef struct bio_method_st BIO_METHOD;
typedef struct bio_st BIO;
typedef struct engine_st ENGINE;
typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;
typedef struct evp_cipher_st EVP_CIPHER;
typedef struct evp_mac_ctx_st EVP_MAC_CTX;
typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct evp_md_st EVP_MD;
typedef struct evp_pkey_ctx_st EVP_PKEY_CTX;
typedef struct evp_pkey_st EVP_PKEY;
typedef struct ossl_init_settings_st OPENSSL_INIT_SETTINGS;
typedef struct ossl_core_handle_st OSSL_CORE_HANDLE;
typedef struct ossl_lib_ctx_st OSSL_LIB_CTX;
typedef struct ossl_provider_st OSSL_PROVIDER;
typedef struct ossl_store_ctx_st OSSL_STORE_CTX;
typedef struct ossl_store_info_st OSSL_STORE_INFO;
typedef struct ssl_cipher_st SSL_CIPHER;
typedef struct ssl_ctx_st SSL_CTX;
typedef struct ssl_method_st SSL_METHOD;
typedef struct ssl_session_st SSL_SESSION;
typedef struct ssl_st SSL;
typedef struct ui_method_st UI_METHOD;
typedef struct x509_st X509;
typedef struct x509_store_ctx_st X509_STORE_CTX;
typedef struct crypto_ex_data_st CRYPTO_EX_DATA;
typedef struct X509_crl_st X509_CRL;
typedef struct x509_store_st X509_STORE;
typedef struct X509_VERIFY_PARAM_st X509_VERIFY_PARAM;
typedef struct stack_st OPENSSL_STACK;
typedef struct asn1_string_st ASN1_TIME;
typedef struct ssl_session_st SSL_SESSION;
typedef struct stack_st OPENSSL_STACK;
struct stack_st_X509;
struct stack_st_SSL_CIPHER;

typedef struct ossl_dispatch_st {
    int function_id;
    void (*function)(void);
} OSSL_DISPATCH;

typedef struct ossl_algorithm_st {
    const char *algorithm_names;
    const char *property_definition;
    const OSSL_DISPATCH *implementation;
    const char *algorithm_description;
} OSSL_ALGORITHM;

typedef struct ossl_param_st {
    const char *key;
    unsigned int data_type;
    void *data;
    size_t data_size;
    size_t return_size;
} OSSL_PARAM;

typedef struct ERR_string_data_st {
    unsigned long error;
    const char *string;
} ERR_STRING_DATA;

typedef int OSSL_CALLBACK(const OSSL_PARAM params[], void *arg);
typedef int OSSL_provider_init_fn(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out,
                                  void **provctx);
typedef int pem_password_cb(char *buf, int size, int rwflag, void *userdata);
typedef OSSL_STORE_INFO *(*OSSL_STORE_post_process_info_fn)(OSSL_STORE_INFO *, void *);
typedef int (*ASYNC_callback_fn)(void *arg);
typedef void *(*ASYNC_stack_alloc_fn)(size_t *num);
typedef void (*ASYNC_stack_free_fn)(void *addr);
typedef int (*SSL_CTX_alpn_select_cb_func)(SSL *ssl, const unsigned char **out, unsigned char *outlen,
                                           const unsigned char *in, unsigned int inlen, void *arg);

/* key_log.c */
typedef void (*SSL_CTX_keylog_cb_func)(const SSL *ssl, const char *line);
typedef int (*SSL_verify_cb)(int preverify_ok, X509_STORE_CTX *x509_ctx);
typedef int SSL_TICKET_STATUS;
typedef int SSL_TICKET_RETURN;
typedef int (*SSL_CTX_generate_session_ticket_fn)(SSL *s, void *arg);
typedef SSL_TICKET_RETURN (*SSL_CTX_decrypt_session_ticket_fn)(SSL *s, SSL_SESSION *ss, const unsigned char *keyname,
                                                               size_t keyname_length, SSL_TICKET_STATUS status,
                                                               void *arg);
typedef int (*SSL_client_hello_cb_fn)(SSL *s, int *al, void *arg);

typedef void CRYPTO_EX_new(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp);
typedef int CRYPTO_EX_dup(CRYPTO_EX_DATA *to, const CRYPTO_EX_DATA *from, void **from_d, int idx, long argl,
                          void *argp);
typedef void CRYPTO_EX_free(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp);

/* core.h */
#define OSSL_PARAM_INTEGER 1
#define OSSL_PARAM_UNSIGNED_INTEGER 2
#define OSSL_PARAM_UTF8_STRING 4
#define OSSL_PARAM_OCTET_STRING 5
#define OSSL_PARAM_UTF8_PTR 6

/* core_dispatch.h */
#define OSSL_OP_KEYMGMT 10
#define OSSL_OP_SIGNATURE 12
#define OSSL_OP_ASYM_CIPHER 13

#define OSSL_KEYMGMT_SELECT_PRIVATE_KEY 0x01

#define OSSL_FUNC_PROVIDER_GETTABLE_PARAMS 1025
#define OSSL_FUNC_PROVIDER_GET_PARAMS 1026
#define OSSL_FUNC_PROVIDER_QUERY_OPERATION 1027

#define OSSL_FUNC_KEYMGMT_NEW 1
#define OSSL_FUNC_KEYMGMT_FREE 10
#define OSSL_FUNC_KEYMGMT_GET_PARAMS 11
#define OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS 12
#define OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME 20
#define OSSL_FUNC_KEYMGMT_HAS 21
#define OSSL_FUNC_KEYMGMT_MATCH 23
#define OSSL_FUNC_KEYMGMT_IMPORT 40
#define OSSL_FUNC_KEYMGMT_IMPORT_TYPES 41
#define OSSL_FUNC_KEYMGMT_EXPORT 42
#define OSSL_FUNC_KEYMGMT_EXPORT_TYPES 43
#define OSSL_FUNC_KEYMGMT_DUP 44

#define OSSL_FUNC_SIGNATURE_NEWCTX 1
#define OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT 8
#define OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE 9
#define OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL 10
#define OSSL_FUNC_SIGNATURE_DIGEST_SIGN 11
#define OSSL_FUNC_SIGNATURE_FREECTX 16
#define OSSL_FUNC_SIGNATURE_DUPCTX 17
#define OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS 20
#define OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS 21

#define OSSL_FUNC_ASYM_CIPHER_NEWCTX 1
#define OSSL_FUNC_ASYM_CIPHER_DECRYPT_INIT 4
#define OSSL_FUNC_ASYM_CIPHER_DECRYPT 5
#define OSSL_FUNC_ASYM_CIPHER_FREECTX 6
#define OSSL_FUNC_ASYM_CIPHER_DUPCTX 7
#define OSSL_FUNC_ASYM_CIPHER_SET_CTX_PARAMS 10
#define OSSL_FUNC_ASYM_CIPHER_SETTABLE_CTX_PARAMS 11

/* core_names.h */
#define OSSL_PKEY_PARAM_BITS "bits"
#define OSSL_PKEY_PARAM_SECURITY_BITS "security-bits"
#define OSSL_PKEY_PARAM_MAX_SIZE "max-size"
#define OSSL_PKEY_PARAM_DEFAULT_DIGEST "default-digest"
#define OSSL_PKEY_PARAM_MANDATORY_DIGEST "mandatory-digest"
#define OSSL_PKEY_PARAM_GROUP_NAME "group"
#define OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT "point-format"
#define OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS "decoded-from-explicit"
#define OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY "encoded-pub-key"
#define OSSL_PKEY_PARAM_PUB_KEY "pub"
#define OSSL_PKEY_PARAM_RSA_N "n"
#define OSSL_PKEY_PARAM_RSA_E "e"
#define OSSL_SIGNATURE_PARAM_DIGEST "digest"
#define OSSL_SIGNATURE_PARAM_PAD_MODE "pad-mode"
#define OSSL_SIGNATURE_PARAM_PSS_SALTLEN "saltlen"
#define OSSL_SIGNATURE_PARAM_MGF1_DIGEST "mgf1-digest"
#define OSSL_ASYM_CIPHER_PARAM_PAD_MODE "pad-mode"
#define OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION "tls-client-version"
#define OSSL_ASYM_CIPHER_PARAM_TLS_NEGOTIATED_VERSION "tls-negotiated-version"
#define OSSL_PKEY_RSA_PAD_MODE_PKCSV15 "pkcs1"
#define OSSL_PKEY_RSA_PAD_MODE_PSS "pss"
#define OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST "digest"
#define OSSL_PKEY_RSA_PSS_SALT_LEN_MAX "max"
#define OSSL_PKEY_RSA_PSS_SALT_LEN_AUTO "auto"
#define OSSL_PROV_PARAM_NAME "name"
#define OSSL_PROV_PARAM_STATUS "status"

/* core_dispatch.h and core_names.h, for kx_*.c */
#define OSSL_OP_KEYEXCH 11
#define OSSL_FUNC_PROVIDER_GET_CAPABILITIES 1030
#define OSSL_KEYMGMT_SELECT_KEYPAIR 0x03
#define OSSL_FUNC_KEYMGMT_GEN_INIT 2
#define OSSL_FUNC_KEYMGMT_GEN_SET_TEMPLATE 3
#define OSSL_FUNC_KEYMGMT_GEN_SET_PARAMS 4
#define OSSL_FUNC_KEYMGMT_GEN_SETTABLE_PARAMS 5
#define OSSL_FUNC_KEYMGMT_GEN 6
#define OSSL_FUNC_KEYMGMT_GEN_CLEANUP 7
#define OSSL_FUNC_KEYMGMT_SET_PARAMS 13
#define OSSL_FUNC_KEYMGMT_SETTABLE_PARAMS 14
#define OSSL_FUNC_KEYMGMT_VALIDATE 22
#define OSSL_PKEY_PARAM_PRIV_KEY "priv"
#define OSSL_CAPABILITY_TLS_GROUP_ALG "tls-group-alg"

/* core_names.h, for ticket_keys.c */
#define OSSL_MAC_PARAM_DIGEST "digest"
#define OSSL_MAC_PARAM_KEY "key"

/* ssl.h, for kx_*.c */
#define SSL_CTRL_SET_MIN_PROTO_VERSION 123
#define SSL_CTRL_SET_MAX_PROTO_VERSION 124
#define SSL_CTRL_GET_MIN_PROTO_VERSION 130
#define SSL_CTRL_GET_MAX_PROTO_VERSION 131

/* evp.h, rsa.h */
#define EVP_PKEY_PUBLIC_KEY 0x86
#define EVP_PKEY_KEYPAIR 0x87
#define RSA_PKCS1_PADDING 1
#define RSA_NO_PADDING 3
#define RSA_PKCS1_PSS_PADDING 6
#define RSA_PKCS1_WITH_TLS_PADDING 7
#define RSA_PSS_SALTLEN_DIGEST -1
#define RSA_PSS_SALTLEN_AUTO -2
#define RSA_PSS_SALTLEN_MAX -3

/* ssl.h */
#define SSL_ERROR_NONE 0
#define SSL_ERROR_SSL 1
#define SSL_ERROR_WANT_READ 2
#define SSL_ERROR_WANT_WRITE 3
#define SSL_ERROR_SYSCALL 5
#define SSL_ERROR_WANT_ASYNC 9
#define SSL_ERROR_WANT_ASYNC_JOB 10
#define SSL_CTRL_MODE 33
#define SSL_CTRL_SET_READ_AHEAD 41
#define SSL_CTRL_CLEAR_MODE 78
#define SSL_CTRL_SET_GROUPS_LIST 92
#define SSL_CTRL_SELECT_CURRENT_CERT 116
#define SSL_CTRL_SET_CURRENT_CERT 117
#define SSL_CTRL_GET_NEGOTIATED_GROUP 134
#define SSL_CERT_SET_FIRST 1
#define SSL_CERT_SET_NEXT 2
#define SSL_RECEIVED_SHUTDOWN 2
#define SSL_MODE_ENABLE_PARTIAL_WRITE 0x00000001U
#define SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER 0x00000002U
#define SSL_MODE_RELEASE_BUFFERS 0x00000010U
#define SSL_MODE_ASYNC 0x00000100U
#define SSL_TLSEXT_ERR_OK 0
#define SSL_TLSEXT_ERR_ALERT_FATAL 2
#define TLSEXT_NAMETYPE_host_name 0
#define TLSEXT_nid_unknown 0x1000000

/* ssl.h, for handshake_policy.c */
#define SSL_CTRL_SET_SESS_CACHE_SIZE 42
#define SSL_CTRL_SET_SESS_CACHE_MODE 44
#define SSL_CTRL_SET_SIGALGS_LIST 98
#define SSL_SESS_CACHE_OFF 0x0000
#define SSL_SESS_CACHE_SERVER 0x0002

/* bio.h, ssl.h, for socket_bio.c */
#define TLS1_3_VERSION 0x0304
#define BIO_TYPE_DESCRIPTOR 0x0100
#define BIO_TYPE_SOURCE_SINK 0x0400
#define BIO_FLAGS_READ 0x01
#define BIO_FLAGS_WRITE 0x02
#define BIO_FLAGS_RWS 0x07
#define BIO_FLAGS_SHOULD_RETRY 0x08
#define BIO_CTRL_EOF 2
#define BIO_CTRL_PENDING 10
#define BIO_CTRL_FLUSH 11
#define BIO_CTRL_DUP 12
#define BIO_CTRL_WPENDING 13
#define BIO_C_GET_FD 105

/* ssl.h and tls1.h, for peer.c */
#define SSL_CTRL_SET_SESS_CACHE_MODE 44
#define SSL_CTRL_SET_TLSEXT_STATUS_REQ_TYPE 65
#define SSL_CTRL_GET_TLSEXT_STATUS_REQ_OCSP_RESP 70
#define SSL_CTRL_GET_RI_SUPPORT 76
#define SSL_SESS_CACHE_CLIENT 0x0001
#define SSL_SESS_CACHE_NO_INTERNAL 0x0300
#define TLSEXT_STATUSTYPE_ocsp 1
#define SSL_CTRL_SET_TLSEXT_HOSTNAME 55
#define X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS 0x4
#define X509_CHECK_FLAG_NEVER_CHECK_SUBJECT 0x20

/* ssl.h and tls1.h, for staple.c */
#define SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB 63
#define SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB_ARG 64
#define SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP 71
#define SSL_TLSEXT_ERR_NOACK 3

/* async.h */
#define ASYNC_ERR 0
#define ASYNC_NO_JOBS 1
#define ASYNC_PAUSE 2
#define ASYNC_FINISH 3

/* store.h */
#define OSSL_STORE_INFO_PKEY 4

/* crypto.h */
#define OPENSSL_INIT_ENGINE_DYNAMIC 0x00000400L
#define OPENSSL_VERSION 0
#define CRYPTO_EX_INDEX_SSL_CTX 1

/* core_names.h, for batch_key.c */
#define OSSL_PKEY_PARAM_RSA_FACTOR1 "rsa-factor1"
#define OSSL_PKEY_PARAM_RSA_FACTOR2 "rsa-factor2"
#define OSSL_PKEY_PARAM_RSA_EXPONENT1 "rsa-exponent1"
#define OSSL_PKEY_PARAM_RSA_EXPONENT2 "rsa-exponent2"
#define OSSL_PKEY_PARAM_RSA_COEFFICIENT1 "rsa-coefficient1"
#define OSSL_PKEY_PARAM_PRIV_KEY "priv"

/* ssl.h, x509_vfy.h, for clients.c */
#define SSL_VERIFY_PEER 0x01
#define SSL_VERIFY_FAIL_IF_NO_PEER_CERT 0x02
#define X509_V_FLAG_CRL_CHECK 0x4
#define X509_V_FLAG_CRL_CHECK_ALL 0x8
#define X509_V_FLAG_PARTIAL_CHAIN 0x80000

/* ssl.h, x509_vfy.h, crypto.h, for client_hook.c and session_id.c */
#define SSL_TICKET_SUCCESS 5
#define SSL_TICKET_SUCCESS_RENEW 6
#define SSL_TICKET_RETURN_ABORT 0
#define SSL_TICKET_RETURN_IGNORE_RENEW 2
#define SSL_TICKET_RETURN_USE 3
#define SSL_TICKET_RETURN_USE_RENEW 4
#define X509_V_OK 0
#define X509_V_ERR_UNSPECIFIED 1
#define X509_V_ERR_CERT_HAS_EXPIRED 10
#define X509_V_ERR_CERT_REJECTED 28
#define CRYPTO_EX_INDEX_SSL 0

/* crypto.h, for openssl_engine.c */
#define CRYPTO_EX_INDEX_EVP_PKEY 17
#define OPENSSL_INFO_ENGINES_DIR 1002

/* ssl.h, tls1.h, crypto.h, pem.h and err.h, for identity.c and hello.c */
#define SSL_CLIENT_HELLO_SUCCESS 1
#define SSL_CLIENT_HELLO_ERROR 0
#define SSL_CLIENT_HELLO_RETRY (-1)
#define TLSEXT_TYPE_server_name 0
#define TLSEXT_TYPE_supported_groups 10
#define TLSEXT_TYPE_signature_algorithms 13
#define TLSEXT_TYPE_application_layer_protocol_negotiation 16
#define TLSEXT_TYPE_supported_versions 43
#define CRYPTO_EX_INDEX_SSL 0
#define ERR_LIB_PEM 9
#define ERR_LIB_OFFSET 23L
#define ERR_LIB_MASK 0xFF
#define ERR_REASON_MASK 0X7FFFFF
#define PEM_R_NO_START_LINE 108

#endif
