/*
 * test_key_log.c: key logs of SSL_CTXs that come and go on several threads, with the system's OpenSSL and no handshake.
 *
 * Invariant: every line that was written is whole and there once; a file is open once for as long as anybody writes to
 * it, and closed with its last SSL_CTX, in a forked child too.
 */
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"
#include "openssl.h"
#include "ossl.h"
#include "unit.h"

enum { WRITERS = 4, CONTEXTS = 50, LINES = 20, ROOM = 64 };

static SSL_CTX *(*new_context)(const SSL_METHOD *);
static const SSL_METHOD *(*server_method)(void);
static SSL_CTX_keylog_cb_func (*callback_of)(const SSL_CTX *);
static char path[ROOM]; /* of a file in memory */

static int opened(const char *name) {
    int fd = open(name, O_WRONLY | O_APPEND | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

static SSL_CTX *context(const char *name, int *is_new) {
    SSL_CTX *made = new_context(server_method());
    CHECK(made != NULL);
    CHECK(key_log_use(made, opened(name), name, is_new) == SHIM_OK);
    return made;
}

static void write_lines(SSL_CTX *ctx, int writer, int first) {
    char line[ROOM];
    SSL *ssl = ossl.SSL_new(ctx);
    CHECK(ssl != NULL);
    for (int i = 0; i < LINES; i++) {
        snprintf(line, sizeof line, "LINE %d %d.", writer, first + i);
        callback_of(ctx)(ssl, line);
    }
    ossl.SSL_free(ssl);
}

static void *work(void *argument) {
    int writer = *(int *)argument, is_new;
    for (int i = 0; i < CONTEXTS; i++) {
        SSL_CTX *ctx = context(path, &is_new);
        write_lines(ctx, writer, i * LINES);
        ossl.SSL_CTX_free(ctx);
    }
    return NULL;
}

/* Reads the file; how often each line of each writer is there. */
static void check_lines(int writers) {
    static unsigned char seen[WRITERS + 1][CONTEXTS * LINES];
    memset(seen, 0, sizeof seen);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    char line[ROOM];
    int writer, number, count = 0;
    for (; fgets(line, sizeof line, file) != NULL; count++) {
        CHECK(sscanf(line, "LINE %d %d.", &writer, &number) == 2 && strchr(line, '.')[1] == '\n');
        CHECK(seen[writer][number]++ == 0);
    }
    CHECK(count == writers * CONTEXTS * LINES);
    fclose(file);
}

static int lowest_free(void) {
    int fd = dup(0);
    CHECK(fd >= 0);
    close(fd);
    return fd;
}

static void test_writers(void) {
    int before = lowest_free(), numbers[WRITERS];
    pthread_t threads[WRITERS];
    for (int i = 0; i < WRITERS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, work, &numbers[i]) == 0);
    }
    for (int i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
    check_lines(WRITERS);
    CHECK(lowest_free() == before);
}

static void test_one_descriptor_for_a_file(void) {
    int before = lowest_free(), first, second;
    SSL_CTX *one = context(path, &first), *other = context(path, &second);
    CHECK(first && !second);
    CHECK(lowest_free() == before + 1);
    ossl.SSL_CTX_free(one);
    CHECK(lowest_free() == before + 1);
    ossl.SSL_CTX_free(other);
    CHECK(lowest_free() == before);
    SSL_CTX *again = context(path, &first);
    CHECK(first);
    CHECK(key_log_use(again, opened(path), path, &second) == SHIM_OK); /* in the place of the one before */
    CHECK(!second);
    ossl.SSL_CTX_free(again);
    CHECK(lowest_free() == before);
}

/* While another thread opens and closes. That one may be inside OpenSSL, so the child calls nothing that takes its locks. */
static void test_forks(void) {
    int number = WRITERS, status, is_new;
    pthread_t thread;
    SSL_CTX *ready = context(path, &is_new);
    CHECK(pthread_create(&thread, NULL, work, &number) == 0);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(20);
            CHECK(key_log_use(ready, opened(path), path, &is_new) == SHIM_OK && !is_new);
            execl("/bin/true", "true", NULL); /* at an end valgrind would look for what the other thread held */
            _exit(1);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    pthread_join(thread, NULL);
    ossl.SSL_CTX_free(ready);
    check_lines(WRITERS + 1);
}

static void test_failures_are_counted(void) {
    struct shim_counters before, after;
    int is_new;
    SSL_CTX *ctx = context("/dev/full", &is_new);
    shim_counters(&before);
    write_lines(ctx, 0, 0);
    shim_counters(&after);
    CHECK(after.key_log_failures - before.key_log_failures == LINES);
    CHECK(after.key_log_lines == before.key_log_lines);
    ossl.SSL_CTX_free(ctx);
}

static void *function(const char *name) {
    return openssl_function(name);
}

int main(void) {
    int missing = openssl_bind();
    if (missing < 0) return 0; /* no OpenSSL 3 on this machine */
    CHECK(missing == 0);
    *(void **)&new_context = function("SSL_CTX_new");
    *(void **)&server_method = function("TLS_server_method");
    *(void **)&callback_of = function("SSL_CTX_get_keylog_callback");
    int fd = memfd_create("keys", MFD_CLOEXEC);
    CHECK(fd >= 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    test_writers();
    test_one_descriptor_for_a_file();
    test_forks();
    test_failures_are_counted();
    close(fd);
    return 0;
}
