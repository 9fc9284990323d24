/*
 * mb_ifma.c: the lanes through crypto_mb (x86-64, AVX-512 with IFMA).
 *
 * The library holds every function twice, k1_* for AVX-512 and l9_* for AVX with IFMA, and a third time as a dispatcher
 * under the name in its headers. We bind the headers' names to k1_*: half the code, no dispatcher that writes to globals
 * at its first call, and no variant that we cannot test.
 */
#define BN_OPENSSL_DISABLE 1
#define MBXAPI(type, name, arguments) type name arguments __asm__("k1_" #name);
#include <crypto_mb/ec_nistp256.h>
#include <crypto_mb/rsa.h>
#include <crypto_mb/version.h>
#include <crypto_mb/x25519.h>
#undef MBXAPI
#define MBXAPI(type, name, arguments) type name arguments;
#include <crypto_mb/cpu_features.h>
#include <stdlib.h>

#include "mb.h"

/*
 * MBX_AVX512_GENERAL_ISA is what the library itself asks for. The rest is what its compiler has used beyond that (found
 * in its disassembly): every CPU with the former has it, but a hypervisor may hide some.
 */
static const int64u needed = MBX_AVX512_GENERAL_ISA | mbcpCPUID_BMI1 | mbcpCPUID_MOVBE | mbcpCPUID_AVX512CD |
                             mbcpCPUID_AVX512VL | mbcpCPUID_AVX512VBMI | mbcpCPUID_AVX512GFNI;

/* Asked once: CPUID leaves a virtual machine, which costs more than an ECDSA signature. */
bool mb_is_usable(void) {
    enum { NOT_ASKED, NO, YES };
    static atomic_int answer = NOT_ASKED;
    int known = atomic_load_explicit(&answer, memory_order_relaxed);
    if (known == NOT_ASKED) {
        known = (mbx_get_cpu_features() & needed) == needed ? YES : NO;
        atomic_store_explicit(&answer, known, memory_order_relaxed);
    }
    return known == YES;
}

#define TEXT_OF(number) #number
#define VERSION(major, minor, patch) "crypto_mb " TEXT_OF(major) "." TEXT_OF(minor) "." TEXT_OF(patch)

const char *mb_description(void) {
    return mb_is_usable() ? VERSION(MBX_VER_MAJOR, MBX_VER_MINOR, MBX_VER_PATCH)
                          : VERSION(MBX_VER_MAJOR, MBX_VER_MINOR, MBX_VER_PATCH) ", not on this CPU (no AVX-512 IFMA)";
}

/* Four bits a lane become one. A lane that was NULL reports a missing parameter. */
static unsigned computed(mbx_status status) {
    unsigned lanes = 0;
    for (int i = 0; i < MB_LANES; i++)
        if (MBX_GET_STS(status, i) == MBX_STATUS_OK) lanes |= 1u << i;
    return lanes;
}

size_t mb_rsa_scratch(int bits) {
    int private_part = mbx_RSA_Method_BufSize(mbx_RSA_private_crt_Method(bits));
    int public_part = mbx_RSA_Method_BufSize(mbx_RSA_pub65537_Method(bits));
    return (size_t)(private_part > public_part ? private_part : public_part);
}

/* The library's words are `unsigned long long`, ours `unsigned long`: the same 64 bits. */
#define WORDS(pointer) ((const int64u *)(const void *)(pointer))

unsigned mb_rsa_private(int bits, const struct mb_rsa_key *const keys[MB_LANES], const uint8_t *const in[MB_LANES],
                        uint8_t *const out[MB_LANES], uint8_t *scratch) {
    const int64u *p[MB_LANES] = {0}, *q[MB_LANES] = {0}, *dp[MB_LANES] = {0}, *dq[MB_LANES] = {0}, *iq[MB_LANES] = {0};
    for (int i = 0; i < MB_LANES; i++) {
        if (keys[i] == NULL) continue;
        p[i] = WORDS(keys[i]->p);
        q[i] = WORDS(keys[i]->q);
        dp[i] = WORDS(keys[i]->dp);
        dq[i] = WORDS(keys[i]->dq);
        iq[i] = WORDS(keys[i]->iq);
    }
    return computed(
        mbx_rsa_private_crt_mb8(in, out, p, q, dp, dq, iq, bits, mbx_RSA_private_crt_Method(bits), scratch));
}

unsigned mb_rsa_public(int bits, const struct mb_rsa_key *const keys[MB_LANES], const uint8_t *const in[MB_LANES],
                       uint8_t *const out[MB_LANES], uint8_t *scratch) {
    const int64u *n[MB_LANES] = {0};
    for (int i = 0; i < MB_LANES; i++)
        if (keys[i] != NULL) n[i] = WORDS(keys[i]->n);
    return computed(mbx_rsa_public_mb8(in, out, n, bits, mbx_RSA_pub65537_Method(bits), scratch));
}

/* The library's prototype has the outputs without const; it writes through them only. */
unsigned mb_p256_sign(uint8_t *const r[MB_LANES], uint8_t *const s[MB_LANES], const uint8_t *const digest[MB_LANES],
                      const uint64_t *const nonce[MB_LANES], const uint64_t *const key[MB_LANES]) {
    int8u *r_out[MB_LANES], *s_out[MB_LANES];
    const int64u *nonces[MB_LANES], *secrets[MB_LANES];
    for (int i = 0; i < MB_LANES; i++) {
        r_out[i] = r[i];
        s_out[i] = s[i];
        nonces[i] = WORDS(nonce[i]);
        secrets[i] = WORDS(key[i]);
    }
    return computed(mbx_nistp256_ecdsa_sign_mb8(r_out, s_out, digest, nonces, secrets, NULL));
}

unsigned mb_x25519_public(uint8_t *const public_key[MB_LANES], const uint8_t *const private_key[MB_LANES]) {
    return computed(mbx_x25519_public_key_mb8(public_key, private_key));
}

unsigned mb_x25519(uint8_t *const shared[MB_LANES], const uint8_t *const private_key[MB_LANES],
                   const uint8_t *const public_key[MB_LANES]) {
    return computed(mbx_x25519_mb8(shared, private_key, public_key));
}

/*
 * The library's entry points for OpenSSL's BIGNUMs share objects with those that we call, so the linker wants the
 * functions behind them. Nothing reaches these: they are called for arguments that are BIGNUMs, and we have none. They
 * are hidden, so OpenSSL's own are neither used nor replaced.
 */
#define NEVER_CALLED(name)                                                                                             \
    _Noreturn void name(void);                                                                                         \
    _Noreturn void name(void) {                                                                                        \
        abort();                                                                                                       \
    }
NEVER_CALLED(BN_num_bits)
NEVER_CALLED(BN_bn2lebinpad)
NEVER_CALLED(BN_bin2bn)
NEVER_CALLED(ECDSA_SIG_get0)
