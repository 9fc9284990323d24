#include "errors.h"

#include <stdio.h>

#include "ossl.h"

/* Reasons below 100 are OpenSSL's own, whatever the library. */
enum { FIRST_REASON = 100 };
/* OpenSSL 3.0 and later pack a code as library << 23 | reason (err.h, ERR_PACK). */
enum { LIBRARY_SHIFT = 23, LIBRARY_MASK = 0xff, REASON_MASK = 0x7fffff };

#define ROW(status, text) {FIRST_REASON + (status), (text)}

/* OpenSSL writes the library's number into these and keeps them; a row of 0 ends them. */
static ERR_STRING_DATA strings[] = {
    ROW(SHIM_ERR_MEMORY, "out of memory"),
    ROW(SHIM_ERR_SYSTEM, "system call failed"),
    ROW(SHIM_ERR_CLOSED, "the engine is closed"),
    ROW(SHIM_ERR_NO_JOB, "no job to pause and the engine cannot block"),
    ROW(SHIM_ERR_CANCELLED, "the operation was cancelled"),
    ROW(SHIM_ERR_FAILED, "the operation failed in its engine"),
    ROW(SHIM_ERR_FORKED, "made before a fork"),
    ROW(SHIM_ERR_EXPIRED, "the signer has not answered in time"),
    {0, NULL},
};

static int library;
static _Thread_local char last[256];

void errors_register(void) {
    static ERR_STRING_DATA name[] = {{0, "engine_shim"}, {0, NULL}};
    if (library != 0) return;
    library = ossl.ERR_get_next_error_library();
    name[0].error = (unsigned long)library << LIBRARY_SHIFT;
    ossl.ERR_load_strings(library, name);
    ossl.ERR_load_strings(library, strings);
}

void errors_raise(shim_status status, const char *detail) {
    ossl.ERR_new();
    ossl.ERR_set_debug("engine_shim", 0, "engine_shim");
    ossl.ERR_set_error(library, FIRST_REASON + (int)status, "%s", detail);
}

int errors_ours(unsigned long code) {
    int reason = (int)(code & REASON_MASK);
    bool ours = library != 0 && (int)(code >> LIBRARY_SHIFT & LIBRARY_MASK) == library && reason > FIRST_REASON;
    return ours ? reason - FIRST_REASON : 0;
}

void errors_describe(unsigned long code, const char *data, char *text, size_t room) {
    const char *reason = ossl.ERR_reason_error_string(code);
    bool detailed = data != NULL && data[0] != '\0';
    snprintf(text, room, "%s%s%s", reason != NULL ? reason : "unknown reason", detailed ? ": " : "",
             detailed ? data : "");
}

bool errors_take_first(char *text, size_t room) {
    const char *data = NULL;
    unsigned long code = ossl.ERR_get_error_all(NULL, NULL, NULL, &data, NULL);
    if (code == 0) return false;
    errors_describe(code, data, text, room);
    ossl.ERR_clear_error();
    return true;
}

shim_status errors_keep(shim_status status) {
    if (!errors_take_first(last, sizeof last)) last[0] = '\0';
    return status;
}

shim_status errors_say(shim_status status, const char *text) {
    snprintf(last, sizeof last, "%s", text);
    return status;
}

const char *shim_last_error(void) {
    return last;
}
