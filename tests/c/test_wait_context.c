/*
 * test_wait_context.c: wait contexts of a real OpenSSL. Invariants: a cleanup runs once, and only for what is
 * set when the context is freed; a callback that comes late signals something that still exists.
 */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "openssl.h"
#include "ossl.h"
#include "pause.h"
#include "unit.h"
#include "wait_context.h"

enum { MOST = 8 };

static struct {
    uintptr_t id;
    int fd;
} cleaned[MOST];
static size_t cleaned_count;

static void note_cleanup(uintptr_t id, int fd) {
    CHECK(cleaned_count < MOST);
    cleaned[cleaned_count].id = id;
    cleaned[cleaned_count++].fd = fd;
}

static struct wait_context *owner;

static void *new_context(void) {
    owner = wait_new();
    CHECK(owner != NULL);
    return wait_raw(owner);
}

static void test_fds_by_key(void) {
    static const char first, second;
    void *context = new_context();
    int fd = -1, all[MOST];
    uintptr_t custom = 0;
    CHECK(wait_all_fds(context, NULL, 0) == 0);
    CHECK(wait_set_fd(context, &first, 7, 70) == SHIM_OK && wait_set_fd(context, &second, 8, 80) == SHIM_OK);
    CHECK(wait_get_fd(context, &first, &fd, &custom) == SHIM_OK && fd == 7 && custom == 70);
    CHECK(wait_all_fds(context, all, 1) == 2); /* no room: nothing is written */
    CHECK(wait_all_fds(context, all, MOST) == 2 && all[0] == 8 && all[1] == 7);
    CHECK(wait_clear_fd(context, &first) == SHIM_OK && wait_clear_fd(context, &first) == SHIM_ERR_RANGE);
    CHECK(wait_get_fd(context, &first, &fd, &custom) == SHIM_ERR_RANGE);
    wait_free(owner);
    CHECK(cleaned_count == 1 && cleaned[0].id == 80 && cleaned[0].fd == 8);
}

static void test_a_job_keeps_its_context(void) {
    static const char key;
    void *context = new_context();
    cleaned_count = 0;
    CHECK(wait_set_fd(context, &key, 5, 50) == SHIM_OK);
    CHECK(wait_ref(owner) == owner);
    wait_free(owner); /* Python's reference goes first */
    CHECK(cleaned_count == 0 && wait_all_fds(context, NULL, 0) == 1);
    wait_free(owner);
    CHECK(cleaned_count == 1 && cleaned[0].id == 50);
}

static void test_changes(void) {
    static const char key;
    void *context = new_context();
    size_t added = 9, deleted = 9;
    int fds[MOST];
    wait_changed_fds(context, NULL, &added, NULL, &deleted);
    CHECK(added == 0 && deleted == 0);
    CHECK(wait_set_fd(context, &key, 5, 1) == SHIM_OK);
    wait_changed_fds(context, fds, &added, fds + 1, &deleted);
    CHECK(added == 1 && deleted == 0 && fds[0] == 5);
    wait_free(owner);
}

static void test_status(void) {
    void *context = new_context();
    CHECK(wait_get_status(context) == 0);
    CHECK(wait_set_status(context, 2) == SHIM_OK && wait_get_status(context) == 2);
    wait_free(owner);
}

static void *call_back(void *wake) {
    for (int i = 0; i < 1000; i++) pause_call_back(wake);
    return NULL;
}

static void test_callback_from_another_thread(void) {
    void *context = new_context();
    struct wait_signal *signal = wait_signal_new();
    pthread_t thread;
    CHECK(signal != NULL && wait_signal_take(signal) == 0);
    CHECK(!wait_has_callback(context));
    CHECK(wait_set_callback(context, signal) == SHIM_OK && wait_has_callback(context));
    CHECK(pthread_create(&thread, NULL, call_back, wait_signal_wake(signal)) == 0);
    uint64_t calls = 0;
    while (calls < 1000) calls += wait_signal_take(signal);
    CHECK(pthread_join(thread, NULL) == 0 && calls == 1000);
    CHECK(wait_set_callback(context, NULL) == SHIM_OK && !wait_has_callback(context));
    wait_free(owner);
    wait_signal_free(signal);
}

static void test_late_callback_finds_its_signal(void) {
    struct wait_signal *signal = wait_signal_new();
    CHECK(signal != NULL);
    struct wake *wake = wait_signal_wake(signal);
    int fd = wait_signal_fd(signal);
    wait_signal_free(signal);
    pause_call_back(wake); /* an engine that was slow */
    struct wait_signal *again = wait_signal_new();
    CHECK(again == signal && wait_signal_fd(again) == fd && wait_signal_take(again) == 0);
    wait_signal_free(again);
}

int main(void) {
    int missing = openssl_bind();
    if (missing < 0) return 0; /* no libssl on this machine */
    CHECK(missing == 0);
    wait_on_cleanup(note_cleanup);
    test_fds_by_key();
    test_a_job_keeps_its_context();
    test_changes();
    test_status();
    test_callback_from_another_thread();
    test_late_callback_finds_its_signal();
    puts("test_wait_context: ok");
    return 0;
}
