/*
 * kx_context.c: an SSL_CTX in the library context of kx_provider.c, made like one of pyOpenSSL's.
 *
 * Nothing but that SSL_CTX is in that library context. It does not see what the process has put into the default one, so
 * there is none where that would make a difference.
 */
#include <string.h>

#include "errors.h"
#include "kx.h"
#include "ossl.h"

/* OpenSSL's own providers: what they have for TLS, the default provider has. */
static bool is_ordinary(const char *provider) {
    static const char *const ordinary[] = {"default", "base", "legacy", "null"};
    for (size_t i = 0; i < sizeof ordinary / sizeof ordinary[0]; i++)
        if (strcmp(ordinary[i], provider) == 0) return true;
    return false;
}

static int note_provider(OSSL_PROVIDER *provider, void *argument) {
    bool *has_default = argument;
    const char *name = ossl.OSSL_PROVIDER_get0_name(provider);
    if (strcmp(name, "default") == 0) *has_default = true;
    return is_ordinary(name);
}

/* Before OpenSSL 3.5 a query is seen only where it asks for FIPS; any other one is for a provider that is seen. */
static bool has_default_query(void) {
    return openssl_provider_get_query(NULL, 0) != 0 || ossl.EVP_default_properties_is_fips_enabled(NULL) == 1;
}

static bool has_functions(void) {
    return ossl.OSSL_PROVIDER_query_operation != NULL && ossl.OSSL_PROVIDER_get0_provider_ctx != NULL &&
           ossl.OSSL_PROVIDER_get_capabilities != NULL && ossl.OSSL_PROVIDER_do_all != NULL &&
           ossl.SSL_CTX_new_ex != NULL && ossl.SSL_CTX_get_ssl_method != NULL;
}

const char *kx_unavailable(void) {
    bool has_default = false;
    if (!mb_is_usable()) return mb_description();
    if (!has_functions()) return "this OpenSSL lacks a function that it takes";
    if (ossl.OSSL_PROVIDER_do_all(NULL, note_provider, &has_default) != 1)
        return "a provider beside OpenSSL's own is loaded, and would not be asked";
    if (!has_default) return "OpenSSL's default provider is not loaded";
    if (has_default_query()) return "a default property query is set, and would not be heeded";
    return kx_provider_context() != NULL ? NULL : "OpenSSL did not take the provider";
}

/* The number of a control that reads, for one that writes: what pyOpenSSL, or openssl.cnf, has set. */
static bool copy_control(SSL_CTX *from, SSL_CTX *to, int get, int set) {
    return ossl.SSL_CTX_ctrl(to, set, ossl.SSL_CTX_ctrl(from, get, 0, NULL), NULL) != 0;
}

static bool copy_settings(SSL_CTX *from, SSL_CTX *to) {
    ossl.SSL_CTX_ctrl(to, SSL_CTRL_MODE, ossl.SSL_CTX_ctrl(from, SSL_CTRL_MODE, 0, NULL), NULL);
    return copy_control(from, to, SSL_CTRL_GET_MIN_PROTO_VERSION, SSL_CTRL_SET_MIN_PROTO_VERSION) &&
           copy_control(from, to, SSL_CTRL_GET_MAX_PROTO_VERSION, SSL_CTRL_SET_MAX_PROTO_VERSION);
}

int kx_context_new(void *like, void **out) {
    ossl.ERR_clear_error();
    const char *why_not = kx_unavailable();
    if (why_not != NULL) return (int)errors_say(SHIM_ERR_OPENSSL, why_not);
    SSL_CTX *made = ossl.SSL_CTX_new_ex(kx_provider_context(), NULL, ossl.SSL_CTX_get_ssl_method(like));
    if (made == NULL) return (int)errors_keep(SHIM_ERR_OPENSSL);
    if (!copy_settings(like, made)) {
        ossl.SSL_CTX_free(made);
        return (int)errors_keep(SHIM_ERR_OPENSSL);
    }
    ossl.ERR_clear_error();
    *out = made;
    return SHIM_OK;
}
