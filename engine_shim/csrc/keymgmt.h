/* keymgmt.h: the provider's key management: one for every kind of key, a row in a table each. */
#ifndef ENGINE_SHIM_KEYMGMT_H
#define ENGINE_SHIM_KEYMGMT_H

#include "key.h"

/* What OpenSSL hands around as provider key data. Owned by one EVP_PKEY. */
struct keymgmt_data {
    struct key *key; /* a reference; NULL until imported */
};

/* This thread's next EVP_PKEY_fromdata() imports `k`; `out` is the marker to import. NULL takes the offer back. */
void keymgmt_offer(struct key *k, OSSL_PARAM out[2]);
bool keymgmt_knows(const char *type);
/* A row for each kind of key, ending with an empty one. Kinds that this OpenSSL lacks are rows that no key ever asks for. */
const OSSL_ALGORITHM *keymgmt_algorithms(void);

#endif
