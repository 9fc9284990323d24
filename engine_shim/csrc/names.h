/*
 * names.h: which identity a server name stands for. Immutable once made: any thread may look up.
 *
 * Names are those of RFC 6066 as RFC 9525 compares them: ASCII, letters in either case, one dot at the end ignored;
 * "*." stands for exactly one whole label, the left-most, and an exact name goes before it. IP addresses are no names.
 */
#ifndef ENGINE_SHIM_NAMES_H
#define ENGINE_SHIM_NAMES_H

#include "common.h"

enum { NAME_LONGEST = 253 }; /* RFC 1035, in text without the last dot */
#define NAMES_NONE UINT32_MAX

struct names;

/*
 * `text` holds `count` names with a line feed after each; the caller keeps it. A name that is given twice has the number
 * that it was given first. SHIM_ERR_RANGE: *bad is the index of a name that is none.
 */
shim_status names_new(const char *text, size_t length, const uint32_t *numbers, size_t count, size_t *bad,
                      struct names **out) MUST_CHECK;
void names_free(struct names *n);
size_t names_bytes(const struct names *n);

/* Whether it may stand in a table. */
bool names_is_pattern(const char *name, size_t length);
/* Writes the one form of a name into `out`, NAME_LONGEST bytes; returns its length, 0: it is no name. */
size_t names_normalize(const char *in, size_t length, char *out);
/* The number of a name in that form; NAMES_NONE: there is none. */
uint32_t names_find(const struct names *n, const char *name, size_t length);

#endif
