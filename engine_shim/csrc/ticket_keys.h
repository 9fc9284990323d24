/*
 * ticket_keys.h: the keys of session tickets (RFC 5077; RFC 8446, 4.6.1), shared by SSL_CTXs, loops and processes.
 *
 * Facts. Without keys of ours each SSL_CTX makes its own: a session is lost with its SSL_CTX, and no other process can
 * take it. libssl asks for a key by a callback, on the job's stack: to encrypt, or to decrypt a ticket whose first 16
 * bytes name the key.
 *
 * Decision. A ring is an immutable list of keys: the first encrypts, all decrypt, and a ticket under any but the first is
 * renewed. A change makes another ring and swaps a pointer; a callback holds a reference to the ring that it began with,
 * and whoever lets go of a ring last wipes it. One lock of the process guards the pointers of all: it is held for a few
 * instructions, never while OpenSSL is called, and free in a child of fork().
 *
 * Keys that nobody gave us come from a chain: each is a digest of a secret, which is then replaced by another digest of
 * itself. So processes that were forked after the first key have the same keys at the same time without a word between
 * them, and nobody finds an old key in a process that has dropped it. Trade-off: who reads the secret knows the keys to come.
 */
#ifndef ENGINE_SHIM_TICKET_KEYS_H
#define ENGINE_SHIM_TICKET_KEYS_H

#include "common.h"
#include "ossl_types.h"

enum { TICKET_NAME_BYTES = 16, TICKET_IV_BYTES = 16 };

/*
 * Any thread, also on a job's stack: what libssl asks for. 0: there is no such key. 1: decrypted, or to be encrypted with
 * `name` and `iv`, which were written. 2: decrypted, and to be renewed. -1: OpenSSL refused.
 */
int ticket_keys_answer(struct ticket_keys *k, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                       EVP_MAC_CTX *mac, int encrypt) MUST_CHECK;

/* fork.c calls them: the lock is free in the child. */
void ticket_keys_fork_prepare(void);
void ticket_keys_fork_done(void); /* in the parent and in the child */

#endif
