/*
 * test_ticket_keys.c: the ring of ticket keys, with a cipher and a MAC that only note what they are given.
 *
 * Invariant: whoever asks gets one whole key of a ring that was whole: the name, the cipher key and the MAC key belong
 * together, whatever is changed meanwhile; and what nobody holds any more is nowhere in memory.
 */
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "openssl.h"
#include "ossl.h"
#include "ticket_keys.h"
#include "unit.h"

enum { LONG = 80, SHORT = 48, READERS = 4, ROUNDS = 10000 };

/* What a handshake's cipher and MAC were told. */
struct evp_cipher_ctx_st {
    unsigned char key;
    int encrypt;
};
struct evp_mac_ctx_st {
    unsigned char key;
    size_t length;
};

static atomic_bool no_random, no_cipher;
static struct ticket_keys *in_hand;

static int init_cipher(EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, const unsigned char *key,
                       const unsigned char *iv, int encrypt, const OSSL_PARAM parameters[]) {
    (void)iv, (void)parameters;
    CHECK(cipher != NULL);
    context->key = key[0];
    context->encrypt = encrypt;
    return !atomic_load(&no_cipher);
}

static int set_mac(EVP_MAC_CTX *context, const OSSL_PARAM parameters[]) {
    CHECK(strcmp(parameters[0].key, "digest") == 0 && strcmp(parameters[1].key, "key") == 0);
    CHECK(parameters[2].key == NULL);
    context->key = ((const unsigned char *)parameters[1].data)[0];
    context->length = parameters[1].data_size;
    return 1;
}

static int draw(unsigned char *out, int length) {
    memset(out, 0x5a, (size_t)length);
    return !atomic_load(&no_random);
}

struct asked {
    int answer;
    unsigned char name[TICKET_NAME_BYTES];
    struct evp_cipher_ctx_st cipher;
    struct evp_mac_ctx_st mac;
};

static struct asked ask(struct ticket_keys *k, const unsigned char *name) {
    struct asked a = {0};
    unsigned char iv[TICKET_IV_BYTES] = {0};
    if (name != NULL) memcpy(a.name, name, sizeof a.name);
    a.answer = ticket_keys_answer(k, a.name, iv, &a.cipher, &a.mac, name == NULL);
    return a;
}

/* All of its bytes are the number: which half is which does not matter here, the tests with nginx see to that. */
static void fill(unsigned char *key, unsigned char number, size_t length) {
    memset(key, number, length);
}

static void set(struct ticket_keys *k, unsigned char first, unsigned char second) {
    unsigned char bytes[2 * LONG];
    const size_t lengths[] = {LONG, LONG};
    fill(bytes, first, LONG);
    fill(bytes + LONG, second, LONG);
    CHECK(ticket_keys_set(k, bytes, lengths, 2) == SHIM_OK);
}

static struct ticket_keys *made(void) {
    struct ticket_keys *k = NULL;
    CHECK(ticket_keys_new(&k) == SHIM_OK);
    return k;
}

static void test_answers(void) {
    struct ticket_keys *k = made();
    unsigned char name[TICKET_NAME_BYTES];
    set(k, 1, 2);
    struct asked a = ask(k, NULL);
    CHECK(a.answer == 1 && a.name[0] == 1 && a.cipher.key == 1 && a.cipher.encrypt && a.mac.key == 1);
    for (unsigned char number = 1; number <= 3; number++) {
        memset(name, number, sizeof name);
        a = ask(k, name);
        CHECK(a.answer == (number == 3 ? 0 : number));
        CHECK(number == 3 || (a.cipher.key == number && a.mac.key == number && !a.cipher.encrypt));
    }
    atomic_store(&no_random, true);
    CHECK(ask(k, NULL).answer == -1);
    atomic_store(&no_random, false);
    atomic_store(&no_cipher, true);
    CHECK(ask(k, NULL).answer == -1);
    memset(name, 2, sizeof name);
    CHECK(ask(k, name).answer == -1);
    atomic_store(&no_cipher, false);
    ticket_keys_free(k);
}

static void test_forms(void) {
    struct ticket_keys *k = made();
    unsigned char bytes[SHORT + LONG];
    const size_t lengths[] = {SHORT, LONG};
    fill(bytes, 1, 16);
    fill(bytes + 16, 2, 16);
    fill(bytes + 32, 3, 16);
    fill(bytes + SHORT, 4, 16);
    fill(bytes + SHORT + 16, 5, 32);
    fill(bytes + SHORT + 48, 6, 32);
    CHECK(ticket_keys_set(k, bytes, lengths, 2) == SHIM_OK);
    struct asked a = ask(k, NULL);
    CHECK(a.cipher.key == 2 && a.mac.key == 3 && a.mac.length == 16);
    a = ask(k, bytes + SHORT);
    CHECK(a.answer == 2 && a.cipher.key == 6 && a.mac.key == 5 && a.mac.length == 32);
    const size_t wrong[] = {SHORT, LONG - 1};
    CHECK(ticket_keys_set(k, bytes, wrong, 2) == SHIM_ERR_RANGE);
    CHECK(ticket_keys_set(k, bytes, lengths, 0) == SHIM_ERR_RANGE);
    CHECK(ticket_keys_set(k, bytes, lengths, TICKET_KEYS_MOST + 1) == SHIM_ERR_RANGE);
    CHECK(ask(k, NULL).cipher.key == 2);
    ticket_keys_free(k);
}

static void test_rotation(void) {
    struct ticket_keys *k = made();
    unsigned char names[3 * TICKET_NAME_BYTES], before[TICKET_NAME_BYTES];
    CHECK(ticket_keys_names(k, before, sizeof before) == 1);
    CHECK(ticket_keys_rotate(k, TICKET_KEYS_MOST) == SHIM_ERR_RANGE);
    for (int i = 1; i < 6; i++) {
        CHECK(ticket_keys_rotate(k, 2) == SHIM_OK);
        CHECK(ticket_keys_names(k, names, sizeof names) == (i == 1 ? 2 : 3));
        CHECK(memcmp(names + TICKET_NAME_BYTES, before, sizeof before) == 0);
        CHECK(memcmp(names, before, sizeof before) != 0);
        CHECK(ask(k, before).answer == 2);
        memcpy(before, names, sizeof before);
        CHECK(ask(k, before).answer == 1);
    }
    ticket_keys_free(k);
}

/* Children have the chain: they come to the same keys, and their lock is free. */
static void test_fork(void) {
    struct ticket_keys *k = made();
    unsigned char ours[TICKET_NAME_BYTES], theirs[TICKET_NAME_BYTES];
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(ticket_keys_rotate(k, 2) == SHIM_OK);
        ticket_keys_names(k, theirs, sizeof theirs);
        _exit(write(ends[1], theirs, sizeof theirs) != sizeof theirs);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(ticket_keys_rotate(k, 2) == SHIM_OK);
    ticket_keys_names(k, ours, sizeof ours);
    CHECK(read(ends[0], theirs, sizeof theirs) == sizeof theirs && memcmp(ours, theirs, sizeof ours) == 0);
    close(ends[0]);
    close(ends[1]);
    ticket_keys_free(k);
}

static atomic_bool over;

static void *read_many(void *argument) {
    struct ticket_keys *k = argument;
    unsigned char name[TICKET_NAME_BYTES];
    for (unsigned char number = 1; !atomic_load(&over); number = (unsigned char)(number % 200 + 1)) {
        struct asked a = ask(k, NULL);
        CHECK(a.answer == 1 && a.cipher.key == a.name[0] && a.mac.key == a.name[0] && a.mac.length == 32);
        memset(name, number, sizeof name);
        a = ask(k, name);
        CHECK(a.answer == 0 || (a.cipher.key == number && a.mac.key == number));
    }
    return NULL;
}

static void *rotate_many(void *argument) {
    struct ticket_keys *k = argument;
    while (!atomic_load(&over)) CHECK(ticket_keys_rotate(k, 3) == SHIM_OK);
    return NULL;
}

static void run(void *(*work)(void *), struct ticket_keys *k) {
    pthread_t threads[READERS];
    atomic_store(&over, false);
    for (int i = 0; i < READERS; i++) CHECK(pthread_create(&threads[i], NULL, work, k) == 0);
    for (int i = 0; i < ROUNDS; i++) set(k, (unsigned char)(i % 200 + 1), (unsigned char)((i + 7) % 200 + 1));
    atomic_store(&over, true);
    for (int i = 0; i < READERS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

/* Handshakes go on while the keys are replaced as a whole; and rotations, while others rotate and replace. */
static void test_threads(void) {
    struct ticket_keys *k = made();
    set(k, 1, 2);
    run(read_many, k);
    run(rotate_many, k);
    ticket_keys_free(k);
}

/* In the place of the C library's: notes when the secret goes. */
static const char secret[] = "a key that is to be wiped, 31 b";
static atomic_uint wiped;

void explicit_bzero(void *bytes, size_t length) {
    void *volatile before = bytes; /* the compiler thinks that this function only writes */
    if (memmem(before, length, secret, sizeof secret) != NULL) atomic_fetch_add(&wiped, 1);
    for (volatile unsigned char *at = bytes; length > 0; length--) *at++ = 0;
}

/* In the middle of a callback, when no lock may be held: the ring that it began with is there to its end. */
static int replace_meanwhile(EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, const unsigned char *key,
                             const unsigned char *iv, int encrypt, const OSSL_PARAM parameters[]) {
    set(in_hand, 1, 2);
    CHECK(atomic_load(&wiped) == 0 && memcmp(key, secret, sizeof secret) == 0);
    return init_cipher(context, cipher, key, iv, encrypt, parameters);
}

static void test_wiped(void) {
    struct ticket_keys *k = in_hand = made();
    unsigned char bytes[LONG] = {9};
    const size_t lengths[] = {LONG};
    memcpy(bytes + 48, secret, sizeof secret);
    CHECK(ticket_keys_set(k, bytes, lengths, 1) == SHIM_OK);
    ossl.EVP_CipherInit_ex2 = replace_meanwhile;
    CHECK(ask(k, NULL).name[0] == 9);
    ossl.EVP_CipherInit_ex2 = init_cipher;
    CHECK(atomic_load(&wiped) == 1 && ask(k, NULL).name[0] == 1);
    CHECK(ticket_keys_set(k, bytes, lengths, 1) == SHIM_OK);
    ticket_keys_free(k);
    CHECK(atomic_load(&wiped) == 2);
}

int main(void) {
    CHECK(openssl_bind() == 0);
    ossl.EVP_CipherInit_ex2 = init_cipher;
    ossl.EVP_MAC_CTX_set_params = set_mac;
    ossl.RAND_bytes = draw;
    test_answers();
    test_forms();
    test_rotation();
    test_fork();
    test_threads();
    test_wiped();
    return 0;
}
