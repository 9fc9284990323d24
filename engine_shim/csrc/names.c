/*
 * names.c: a hash table with open addressing, at most half full. A lookup takes two probes of it, exact and wildcard,
 * whatever the number of names. Names come from the configuration, so nobody else chooses who collides.
 */
#include "names.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS_LEAST = 8, LABEL_LONGEST = 63 };

/* Empty: the number is NAMES_NONE. */
struct slot {
    uint32_t number;
    uint32_t offset; /* of the name in `text`: a byte of length, then as many of the name */
};

struct names {
    size_t mask; /* slots - 1; their number is a power of two */
    struct slot *slots;
    char *text;
    size_t length;
};

static bool is_letter_or_digit(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* The underscore is no letter of host names, but certificates and clients use it. */
static bool is_label(const char *label, size_t length) {
    if (length == 0 || length > LABEL_LONGEST || label[0] == '-' || label[length - 1] == '-') return false;
    for (size_t at = 0; at < length; at++)
        if (!is_letter_or_digit(label[at]) && label[at] != '-' && label[at] != '_') return false;
    return true;
}

/* An IPv4 address, in whatever form: no top-level domain is a number. */
static bool is_number(const char *label, size_t length) {
    for (size_t at = 0; at < length; at++)
        if (label[at] < '0' || label[at] > '9') return false;
    return true;
}

static bool is_host(const char *name, size_t length) {
    const char *end = name + length;
    for (;;) {
        const char *dot = memchr(name, '.', (size_t)(end - name));
        size_t label = (size_t)((dot != NULL ? dot : end) - name);
        if (!is_label(name, label)) return false;
        if (dot == NULL) return !is_number(name, label);
        name = dot + 1;
    }
}

static size_t lower(const char *in, size_t length, char *out) {
    if (length > 0 && in[length - 1] == '.') length--;
    if (length == 0 || length > NAME_LONGEST) return 0;
    for (size_t at = 0; at < length; at++)
        out[at] = (char)(in[at] >= 'A' && in[at] <= 'Z' ? in[at] + ('a' - 'A') : in[at]);
    return length;
}

size_t names_normalize(const char *in, size_t length, char *out) {
    length = lower(in, length, out);
    return length > 0 && is_host(out, length) ? length : 0;
}

/* The same for a name of the configuration, which may begin with "*.". */
static size_t normalize_pattern(const char *in, size_t length, char *out) {
    length = lower(in, length, out);
    size_t skip = length > 2 && out[0] == '*' && out[1] == '.' ? 2 : 0;
    return length > 0 && is_host(out + skip, length - skip) ? length : 0;
}

bool names_is_pattern(const char *name, size_t length) {
    char normal[NAME_LONGEST];
    return normalize_pattern(name, length, normal) > 0;
}

/* FNV-1a, of the pieces one after the other. */
static uint64_t hash_more(uint64_t hash, const char *bytes, size_t length) {
    for (size_t at = 0; at < length; at++) hash = (hash ^ (unsigned char)bytes[at]) * 0x100000001b3u;
    return hash;
}

/* The name is `head`, then `tail`. Returns its slot, or the empty one where it would be. */
static struct slot *find(const struct names *n, const char *head, size_t head_length, const char *tail,
                         size_t tail_length) {
    uint64_t hash = hash_more(hash_more(0xcbf29ce484222325u, head, head_length), tail, tail_length);
    for (size_t at = (size_t)(hash ^ hash >> 32) & n->mask;; at = (at + 1) & n->mask) {
        struct slot *s = &n->slots[at];
        if (s->number == NAMES_NONE) return s;
        const char *name = n->text + s->offset;
        bool same = (unsigned char)name[0] == head_length + tail_length && memcmp(name + 1, head, head_length) == 0 &&
                    memcmp(name + 1 + head_length, tail, tail_length) == 0;
        if (same) return s;
    }
}

uint32_t names_find(const struct names *n, const char *name, size_t length) {
    uint32_t number = find(n, name, length, "", 0)->number;
    const char *dot = number == NAMES_NONE ? memchr(name, '.', length) : NULL;
    return dot == NULL ? number : find(n, "*", 1, dot, length - (size_t)(dot - name))->number;
}

static bool add(struct names *n, const char *name, size_t length, uint32_t number) {
    char *at = n->text + n->length;
    size_t normal = normalize_pattern(name, length, at + 1);
    if (normal == 0) return false;
    struct slot *s = find(n, at + 1, normal, "", 0);
    if (s->number != NAMES_NONE) return true;
    *at = (char)normal;
    *s = (struct slot){.number = number, .offset = (uint32_t)n->length};
    n->length += normal + 1;
    return true;
}

/* Returns how many are good from the beginning on. */
static size_t add_all(struct names *n, const char *text, const char *end, const uint32_t *numbers, size_t count) {
    for (size_t index = 0; index < count; index++) {
        const char *line = memchr(text, '\n', (size_t)(end - text));
        if (line == NULL || !add(n, text, (size_t)(line - text), numbers[index])) return index;
        text = line + 1;
    }
    return count;
}

static struct names *allocate(size_t length, size_t count) {
    size_t slots = SLOTS_LEAST;
    while (slots < 2 * count) slots *= 2;
    struct names *n = calloc(1, sizeof *n);
    if (n == NULL) return NULL;
    n->mask = slots - 1;
    n->slots = malloc(slots * sizeof n->slots[0]);
    n->text = malloc(length + NAME_LONGEST + 1); /* the line feed's byte becomes that of the length */
    if (n->slots != NULL && n->text != NULL) {
        memset(n->slots, 0xff, slots * sizeof n->slots[0]);
        return n;
    }
    names_free(n);
    return NULL;
}

shim_status names_new(const char *text, size_t length, const uint32_t *numbers, size_t count, size_t *bad,
                      struct names **out) {
    if (length >= UINT32_MAX) return SHIM_ERR_RANGE;
    struct names *n = allocate(length, count);
    if (n == NULL) return SHIM_ERR_MEMORY;
    *bad = add_all(n, text, text + length, numbers, count);
    if (*bad < count) {
        names_free(n);
        return SHIM_ERR_RANGE;
    }
    *out = n;
    return SHIM_OK;
}

void names_free(struct names *n) {
    if (n == NULL) return;
    free(n->slots);
    free(n->text);
    free(n);
}

size_t names_bytes(const struct names *n) {
    return sizeof *n + (n->mask + 1) * sizeof n->slots[0] + n->length;
}
