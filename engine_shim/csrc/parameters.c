#include "parameters.h"

#include <stdlib.h>
#include <string.h>

#define INTEGER(name) {(name), OSSL_PARAM_INTEGER, NULL, sizeof(int), 0}
#define UNSIGNED(name) {(name), OSSL_PARAM_UNSIGNED_INTEGER, NULL, sizeof(unsigned), 0}
#define TEXT(name) {(name), OSSL_PARAM_UTF8_STRING, NULL, 0, 0}
#define END {NULL, 0, NULL, 0, 0}

static const OSSL_PARAM end = END;

static const OSSL_PARAM for_signing[] = {
    TEXT(OSSL_SIGNATURE_PARAM_DIGEST),
    TEXT(OSSL_SIGNATURE_PARAM_PAD_MODE),
    TEXT(OSSL_SIGNATURE_PARAM_PSS_SALTLEN),
    TEXT(OSSL_SIGNATURE_PARAM_MGF1_DIGEST),
    END,
};

static const OSSL_PARAM for_decryption[] = {
    INTEGER(OSSL_ASYM_CIPHER_PARAM_PAD_MODE),
    UNSIGNED(OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION),
    UNSIGNED(OSSL_ASYM_CIPHER_PARAM_TLS_NEGOTIATED_VERSION),
    END,
};

const OSSL_PARAM *parameters_end(void) {
    return &end;
}

const OSSL_PARAM *parameters_settable(enum op_kind kind) {
    return kind == OP_SIGN ? for_signing : for_decryption;
}

static OSSL_PARAM integer(const char *name, const int *value) {
    return (OSSL_PARAM){name, OSSL_PARAM_INTEGER, (void *)(uintptr_t)value, sizeof *value, 0};
}

static OSSL_PARAM text(const char *name, const char *value) {
    return (OSSL_PARAM){name, OSSL_PARAM_UTF8_STRING, (void *)(uintptr_t)value, strlen(value), 0};
}

static OSSL_PARAM number(const char *name, const unsigned *value) {
    return (OSSL_PARAM){name, OSSL_PARAM_UNSIGNED_INTEGER, (void *)(uintptr_t)value, sizeof *value, 0};
}

/* The padding goes before the salt, whose length is checked against it. Of a message's digest OpenSSL is told elsewhere. */
void parameters_for_signing(const struct op_parameters *p, OSSL_PARAM out[PARAMETERS_MOST]) {
    size_t n = 0;
    if (p->prehashed && p->digest[0] != '\0') out[n++] = text(OSSL_SIGNATURE_PARAM_DIGEST, p->digest);
    if (p->padding != OP_UNSET) out[n++] = integer(OSSL_SIGNATURE_PARAM_PAD_MODE, &p->padding);
    if (p->salt_length != OP_UNSET) out[n++] = integer(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, &p->salt_length);
    if (p->mgf1_digest[0] != '\0') out[n++] = text(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, p->mgf1_digest);
    out[n] = end;
}

void parameters_for_decryption(const struct op_parameters *p, OSSL_PARAM out[PARAMETERS_MOST]) {
    size_t n = 0;
    out[n++] = integer(OSSL_ASYM_CIPHER_PARAM_PAD_MODE, &p->padding);
    if (p->tls_client_version != 0)
        out[n++] = number(OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION, &p->tls_client_version);
    if (p->tls_negotiated_version != 0)
        out[n++] = number(OSSL_ASYM_CIPHER_PARAM_TLS_NEGOTIATED_VERSION, &p->tls_negotiated_version);
    out[n] = end;
}

struct name {
    const char *text;
    int value;
};

static const struct name paddings[] = {
    {OSSL_PKEY_RSA_PAD_MODE_PKCSV15, RSA_PKCS1_PADDING},
    {OSSL_PKEY_RSA_PAD_MODE_PSS, RSA_PKCS1_PSS_PADDING},
    {NULL, 0},
};

static const struct name salts[] = {
    {OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST, RSA_PSS_SALTLEN_DIGEST},
    {OSSL_PKEY_RSA_PSS_SALT_LEN_MAX, RSA_PSS_SALTLEN_MAX},
    {OSSL_PKEY_RSA_PSS_SALT_LEN_AUTO, RSA_PSS_SALTLEN_AUTO},
    {NULL, 0},
};

static int read_text(const OSSL_PARAM *in, char *out, size_t room) {
    if (in->data_type != OSSL_PARAM_UTF8_STRING || in->data == NULL || in->data_size >= room) return 0;
    memcpy(out, in->data, in->data_size);
    out[in->data_size] = '\0';
    return 1;
}

/* OpenSSL lets numbers be int, unsigned or 64 bits wide. */
static int read_number(const OSSL_PARAM *in, int64_t *out) {
    bool is_signed = in->data_type == OSSL_PARAM_INTEGER;
    if ((!is_signed && in->data_type != OSSL_PARAM_UNSIGNED_INTEGER) || in->data == NULL) return 0;
    if (in->data_size == sizeof(int32_t)) {
        *out = is_signed ? *(const int32_t *)in->data : (int64_t)*(const uint32_t *)in->data;
        return 1;
    }
    if (in->data_size != sizeof(int64_t)) return 0;
    *out = *(const int64_t *)in->data;
    return 1;
}

static int read_named(const OSSL_PARAM *in, const struct name *names, int *out) {
    char given[32];
    int64_t value;
    if (read_number(in, &value)) {
        *out = (int)value;
        return value >= INT32_MIN && value <= INT32_MAX;
    }
    if (!read_text(in, given, sizeof given)) return 0;
    for (; names->text != NULL; names++)
        if (strcmp(given, names->text) == 0) {
            *out = names->value;
            return 1;
        }
    char *rest;
    long parsed = strtol(given, &rest, 10);
    *out = (int)parsed;
    return rest != given && *rest == '\0' && parsed >= 0 && parsed <= INT32_MAX;
}

static int read_version(const OSSL_PARAM *in, unsigned *out) {
    int64_t value;
    if (!read_number(in, &value) || value < 0 || value > UINT16_MAX) return 0;
    *out = (unsigned)value;
    return 1;
}

static int read_one(struct op_parameters *p, const OSSL_PARAM *in) {
    if (strcmp(in->key, OSSL_SIGNATURE_PARAM_DIGEST) == 0) return read_text(in, p->digest, sizeof p->digest);
    if (strcmp(in->key, OSSL_SIGNATURE_PARAM_MGF1_DIGEST) == 0)
        return read_text(in, p->mgf1_digest, sizeof p->mgf1_digest);
    if (strcmp(in->key, OSSL_SIGNATURE_PARAM_PAD_MODE) == 0) return read_named(in, paddings, &p->padding);
    if (strcmp(in->key, OSSL_SIGNATURE_PARAM_PSS_SALTLEN) == 0) return read_named(in, salts, &p->salt_length);
    if (strcmp(in->key, OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION) == 0)
        return read_version(in, &p->tls_client_version);
    if (strcmp(in->key, OSSL_ASYM_CIPHER_PARAM_TLS_NEGOTIATED_VERSION) == 0)
        return read_version(in, &p->tls_negotiated_version);
    return 1;
}

int parameters_read(struct op_parameters *p, const OSSL_PARAM in[]) {
    for (; in != NULL && in->key != NULL; in++)
        if (!read_one(p, in)) return 0;
    return 1;
}
