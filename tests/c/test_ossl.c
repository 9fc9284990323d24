/* The table: every name once, bound one by one, and nothing beyond its ends. */
#include <string.h>

#include "openssl.h"
#include "ossl.h"
#include "shim.h"
#include "unit.h"

static void names_differ(void) {
    for (size_t i = 0; i < ossl_count(); i++)
        for (size_t j = 0; j < i; j++) CHECK(strcmp(ossl_name(i), ossl_name(j)) != 0);
}

static void binding_reaches_one_function_only(void) {
    char places[1];
    for (size_t i = 0; i < ossl_count(); i++) {
        ossl_bind(i, places);
        for (size_t j = 0; j < ossl_count(); j++) CHECK(ossl_address(j) == (i == j ? (void *)places : NULL));
        ossl_bind(i, NULL);
    }
}

static void outside_is_nothing(void) {
    size_t end = ossl_count();
    ossl_bind(end, &end);
    CHECK(ossl_address(end) == NULL);
    CHECK(ossl_name(end) == NULL);
    CHECK(ossl_is_required(end) == 0);
}

static void libssl_has_what_is_required(void) {
    CHECK(openssl_bind() == 0);
    CHECK(ossl.OpenSSL_version_num() >= 0x30000000UL);
}

int main(void) {
    names_differ();
    binding_reaches_one_function_only();
    outside_is_nothing();
    libssl_has_what_is_required();
    puts("test_ossl: ok");
    return 0;
}
