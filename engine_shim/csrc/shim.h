/*
 * shim.h: everything that Python can call. It is the cdef as it stands:
 * plain declarations, no preprocessor beyond what the build script strips.
 *
 * Every pointer is opaque to Python. "Takes" means that ownership moves into
 * the call; "borrows" means that it stays with the caller; functions named
 * *_new give the caller one reference, *_free gives one back.
 */

/* What a call of the shim came to. Whatever failed left nothing of its own behind. */
enum shim_status {
    SHIM_OK = 0,
    SHIM_ERR_MEMORY,    /* malloc or mmap failed */
    SHIM_ERR_SYSTEM,    /* a system call failed: errno says which way */
    SHIM_ERR_OPENSSL,   /* OpenSSL refused: shim_last_error() says why */
    SHIM_ERR_CLOSED,    /* the engine is closed */
    SHIM_ERR_NO_JOB,    /* no job to pause, and the engine cannot block */
    SHIM_ERR_CANCELLED, /* the connection was cancelled */
    SHIM_ERR_FAILED,    /* the engine performed the op and it failed */
    SHIM_ERR_PASSWORD,  /* the key is encrypted and the password is missing or wrong */
    SHIM_ERR_KEY,       /* no private key could be read */
    SHIM_ERR_KEY_TYPE,  /* a kind of key that cannot be wrapped */
    SHIM_ERR_BUSY,      /* a job is paused: only the same call may follow */
    SHIM_ERR_THREAD,    /* not the thread that started the job */
    SHIM_ERR_FORKED,    /* made before a fork, used in the child */
    SHIM_ERR_RANGE,     /* an index or a length is out of range */
    SHIM_ERR_EXPIRED,   /* nobody has answered in time */
    SHIM_ERR_LATE,      /* an answer that nobody waits for any more */
    SHIM_ERR_DOUBLE,    /* an answer to what was answered before */
    SHIM_ERR_WRONG      /* an answer that is not right for the key */
};

/* ossl.c: the table of OpenSSL's functions, bound by name. */
size_t ossl_count(void);
const char *ossl_name(size_t index);
int ossl_is_required(size_t index);
void *ossl_address(size_t index);
void ossl_bind(size_t index, void *address);

/* attach.c: what is done once, when the table is bound and proved. */
enum attach_stacks {
    STACKS_REFUSED = -1, /* OpenSSL has already made a job: its own stacks stay */
    STACKS_PLAIN = 0,    /* OpenSSL before 3.2: 32 KiB from malloc, no guard page */
    STACKS_GUARDED = 1   /* mapped, with a guard page below */
};
unsigned long attach_version_number(void);
const char *attach_version_text(void);
long attach_context_timeout(void *ssl_ctx); /* read back through the table: the linkage's proof */
int attach_fips_only(void);                 /* 1: the default property query is fips=yes */
int attach_stacks(void);                    /* enum attach_stacks */
int attach_provider(void);                  /* enum shim_status; idempotent */
int attach_selftest(void);                  /* enum shim_status: one job pauses and resumes */
const char *shim_last_error(void);          /* this thread's, until its next failing call */

/* dlfcn.h, for the shared linkage. */
void *dlopen(const char *file, int mode);
void *dlsym(void *handle, const char *name);

/* Counters since the start of the process. */
struct shim_counters {
    uint64_t jobs_started;
    uint64_t jobs_finished;
    uint64_t jobs_abandoned; /* left behind by a fork, or by a garbage collector on another thread */
    uint64_t pauses;
    uint64_t wait_fds_open; /* eventfds of the shim, pooled ones too */
    uint64_t ops_alive;
    uint64_t keys_alive;
    uint64_t engines_alive;
    uint64_t stacks_alive; /* guarded stacks mapped, pooled jobs' too */
    uint64_t x25519_made;  /* key pairs of kx_store.c: computed */
    uint64_t x25519_used;  /* given to key exchanges */
    uint64_t x25519_ahead; /* in the store now */
    /* Lines of key_log.c: written, and not. */
    uint64_t key_log_lines;
    uint64_t key_log_failures;
};
void shim_counters(struct shim_counters *out);

/* engine.c: where private-key operations run. */
struct engine;
struct engine_statistics {
    uint64_t submitted;
    uint64_t performed; /* to a result */
    uint64_t failed;
    uint64_t cancelled;     /* given up by the connection before the result was used */
    uint64_t queue_full;    /* ops that had to wait for room in the queue */
    uint64_t queued;        /* now: in the queue, not yet begun */
    uint64_t waiting;       /* now: for room in the queue */
    uint64_t in_flight;     /* now: begun, not yet delivered */
    uint64_t in_flight_max; /* the most ever submitted and not yet delivered */
    uint64_t batches;       /* performed in lanes */
    uint64_t batched;       /* ops in them */
    uint64_t recomputed;    /* of these, wrong, so that OpenSSL performed them */
    uint64_t turn_max_ns;   /* the longest turn on the loop's thread */
};
struct engine *engine_new_threads(unsigned threads, size_t capacity);
struct engine *engine_new_batch(unsigned threads, size_t capacity); /* no threads: by turns of the loop */
struct engine *engine_new_latency(double seconds, unsigned threads);
struct engine *engine_new_manual(void);
const char *engine_name(const struct engine *e);
int engine_can_block(const struct engine *e);
void engine_statistics(struct engine *e, struct engine_statistics *out);
int engine_close(struct engine *e, double timeout); /* 1: every worker has ended, 0: timed out */
void engine_free(struct engine *e);
int engine_close_all(double timeout); /* at exit: every engine of the process; 1: no worker is left */

/*
 * engine_batch.c, without threads: performs at most one batch, or one op alone. Returns how many are left in the queue.
 * `in_progress`: handshakes of this loop, queued or not; SIZE_MAX: unknown, so every op pauses. Patient: a batch that is
 * not full is left as well while fewer are queued than in progress.
 */
size_t batch_turn(struct engine *e, size_t in_progress, int patient);
int batch_is_usable(void); /* 1: this build and this CPU have lanes */
const char *batch_description(void);
void batch_inject_fault(unsigned lanes); /* for tests: these lanes of the next batch come out wrong */

struct batch_costs {
    uint64_t one_ns;   /* alone, by OpenSSL */
    uint64_t eight_ns; /* a batch, however many are in it */
    size_t pays_from;  /* so many ops cost less in a batch; more than 8: never */
};
/* engine_manual.c: the engine of the tests. Index 0 is the oldest op. */
size_t manual_pending(struct engine *e);
int manual_perform(struct engine *e, size_t index); /* begin and deliver */
int manual_begin(struct engine *e, size_t index);   /* perform; the result is held back */
size_t manual_begun(struct engine *e);
int manual_deliver(struct engine *e, size_t index);
int manual_fail(struct engine *e, size_t index);
int manual_wake(struct engine *e, size_t index); /* the wait fd becomes readable for nothing */

/*
 * engine_signer.c: ops for Python to answer. Any thread. `fd` is readable while something can be taken, and once the
 * engine is closed.
 */
struct op;
enum { SIGNER_TIME_BOUNDS = 18 }; /* of the histograms, in nanoseconds: signer_time_bounds() */
struct signer_times {
    /* counts[i]: times up to bound i; the last one: longer ones. */
    uint64_t queue_counts[19], run_counts[19], total_counts[19];
    uint64_t queue_ns, run_ns, total_ns; /* their sums */
    uint64_t taken, completed;
    uint64_t refused; /* the signer said that it cannot */
    uint64_t wrong;   /* answers that were not right for the key */
    uint64_t expired;
};
struct engine *engine_new_signer(size_t capacity, double seconds, int can_block);
int signer_fd(struct engine *e);
/* Waits so many seconds, less than 0: for ever. SHIM_OK, *out NULL: nothing came. The caller frees *out: request_free. */
int signer_take(struct engine *e, double seconds, struct op **out);
/* For who wants to stop what nobody waits for any more. The fd is made by the first call; -1: none is to be had. Readable
 * while taken requests have ended without their signer, and once the engine is closed. */
enum { SIGNER_ENDED_MOST = 256 };
int signer_ended_fd(struct engine *e);
/* Their numbers; ids has room for SIGNER_ENDED_MOST. More in *count: the others' are lost, look at each request. */
int signer_take_ended(struct engine *e, uint64_t *ids, size_t *count);
struct op *signer_find(struct engine *e, uint64_t id, uint64_t *last); /* a reference; NULL: nobody waits for it */
void signer_times(struct engine *e, struct signer_times *out);
const uint64_t *signer_time_bounds(void);

/* request.c: an op as its signer sees it. Any thread. */
enum request_kind { REQUEST_SIGN = 0, REQUEST_DECRYPT }; /* enum op_kind's */
struct request_facts {
    uint64_t id, submitted_ns, deadline_ns; /* CLOCK_MONOTONIC */
    int kind, padding, salt_length;
    size_t input_length;
    char digest[32];
};
void request_facts(const struct op *op, struct request_facts *out);
size_t request_input(const struct op *op, void *out, size_t room); /* returns its length */
struct key *request_key(const struct op *op);                      /* a reference */
int request_state(struct op *op);                                  /* SHIM_OK: somebody waits for an answer */
/* Verified first. SHIM_ERR_WRONG: it is not right; `final`: then the op has failed, else it stays open. */
int request_complete(struct op *op, const void *answer, size_t length, int final);
int request_fail(struct op *op, const char *reason);
int request_perform(struct op *op, struct key *k); /* here and now, with a key that has the same public half */
void request_free(struct op *op);

/* key.c: private keys, wrapped. */
struct key;
int key_load(struct engine *e, const void *bytes, size_t length, const void *password, size_t password_length,
             struct key **out);
/* The public half alone, out of a certificate or a public key, PEM or DER: its engine has no private one. */
int key_load_public(struct engine *e, const void *bytes, size_t length, struct key **out);
const char *key_type(const struct key *k);
int key_bits(const struct key *k);
int key_max_size(const struct key *k);
/* The subject key identifier, once somebody has set it; that is done before the key is shared. NULL: nobody has. */
const unsigned char *key_id(const struct key *k);
void key_set_id(struct key *k, const unsigned char id[20]);
size_t key_public_der(const struct key *k, unsigned char *out,
                      size_t room); /* SubjectPublicKeyInfo; returns its length */
int key_matches_certificate(const struct key *k, void *x509);
void *context_certificate(void *ssl_ctx);  /* X509 of the current slot, borrowed; NULL: none */
int key_use(struct key *k, void *ssl_ctx); /* the certificate must be there already */
int key_sign(struct key *k, const char *digest, int padding, int salt_length, const void *data, size_t length,
             void *out, size_t *out_length);
int key_decrypt(struct key *k, int tls_version, const void *data, size_t length, void *out, size_t *out_length);
int key_wrap_context(struct engine *e, void *ssl_ctx, size_t *wrapped); /* every certificate slot of an SSL_CTX */
int key_batch_costs(const struct key *k, struct batch_costs *out);      /* 0: OpenSSL performs this key alone */
uint64_t key_signature_ns(struct key *k); /* measured now, on this thread: what OpenSSL takes; 0: it fails */
void key_free(struct key *k);
/* The same reading for an SSL_CTX whose key stays with OpenSSL: no engine, no wrapper. */
int key_use_plain(void *ssl_ctx, const void *bytes, size_t length, const void *password, size_t password_length,
                  int *matches);

/* async_ssl.c: one SSL, driven asynchronously. One thread: the one that made it. */
struct async_ssl;
enum async_flags { ASYNC_OFF = 0, ASYNC_HANDSHAKE = 1, ASYNC_IO = 2 };
enum async_call { CALL_NONE = 0, CALL_HANDSHAKE, CALL_READ, CALL_WRITE, CALL_SHUTDOWN };
struct async_error {
    unsigned long code; /* OpenSSL's packed code */
    int ours;           /* enum shim_status when the shim raised it, else 0 */
    char text[156];
};
struct async_step {
    int status; /* SSL_get_error's, or -enum shim_status when the call was refused */
    int count;  /* bytes read or written */
    int system_error;
    int fd_count;    /* wait fds, all of them */
    int fds[4];      /* the first four; async_ssl_fds() has the rest */
    int added_count; /* those that are new since the last resume */
    int added[4];    /* the first four; async_ssl_added() has the rest */
    uint64_t serial; /* of the only wait fd, if it is ours: no other descriptor ever has it; else 0 */
    int error_count; /* entries that async_ssl_errors() holds */
    int asks;        /* 1: the paused call asks what async_ssl_question() gives */
    int drained;     /* 1: nothing is left behind what was read, so the next read waits for the socket */
};
struct async_ssl *async_ssl_new(void *ssl, int flags);
struct async_ssl *async_ssl_accept(void *ssl_ctx, int fd, int flags);  /* borrows fd until it is closed */
struct async_ssl *async_ssl_connect(void *ssl_ctx, int fd, int flags); /* the client's end, as above */
const struct async_step *async_ssl_step(struct async_ssl *a);
int async_ssl_call(struct async_ssl *a, int call, void *buffer, size_t length); /* fills the step, returns its status */
void async_ssl_look_twice(struct async_ssl *a); /* before a read is `drained`: the loop tells of an error only once */
const struct async_error *async_ssl_errors(struct async_ssl *a);
int async_ssl_fds(struct async_ssl *a, int *out, size_t room); /* returns how many there are */
int async_ssl_is_paused(const struct async_ssl *a);
void *async_ssl_raw(const struct async_ssl *a); /* the SSL, borrowed; NULL: closed */
void async_ssl_cancel(struct async_ssl *a);     /* now and for good */
int async_ssl_close(struct async_ssl *a);       /* SHIM_OK: drained, SSL given back; SHIM_ERR_BUSY: not yet */
void async_ssl_free(struct async_ssl *a);
int async_ssl_reused(struct async_ssl *a);
const char *async_ssl_group(struct async_ssl *a); /* NULL: none, or unknown to this OpenSSL */
/* What the handshake settled: six texts, each with its NUL; returns their length, 0 if there is no room for them. */
size_t async_ssl_settled(struct async_ssl *a, char *out, size_t room);
/* The open question of the paused call, once; the caller frees it. NULL: there is none, or it was given already. */
struct question *async_ssl_question(struct async_ssl *a);
const char *async_ssl_verify_error(struct async_ssl *a); /* why the peer's certificate was refused; NULL: it was not */
/* Certificates of the peer, the verified chain or, after a resumption, its own alone; peer_chain.h says in what form. */
size_t async_ssl_peer_chain(struct async_ssl *a, unsigned char *out, size_t room); /* returns its length */
int async_job_is_current(void);                                                    /* 1: on a job's stack */

/* The connection's wait context, borrowed. NULL: its calls do not run in jobs, or it is closed. */
void *async_ssl_wait_context(const struct async_ssl *a);
int async_ssl_added(struct async_ssl *a, int *out, size_t room); /* wait fds that are new since the last resume */

/* wait_context.c: ASYNC_WAIT_CTX; `context` is OpenSSL's. */
struct wait_signal;
typedef void (*wait_cleanup_fn)(uintptr_t id, int fd);
void wait_on_cleanup(wait_cleanup_fn run); /* when a context is freed, for each fd that is set then; NULL: nothing */
struct wait_context;                       /* one of Python's own; a job that uses it holds a reference as well */
struct wait_context *wait_new(void);
void wait_free(struct wait_context *c);
void *wait_raw(const struct wait_context *c); /* OpenSSL's, borrowed */
int wait_set_fd(void *context, const void *key, int fd, uintptr_t id);
int wait_get_fd(void *context, const void *key, int *fd, uintptr_t *custom); /* SHIM_ERR_RANGE: no such key */
int wait_clear_fd(void *context, const void *key);                           /* SHIM_ERR_RANGE: no such key */
size_t wait_all_fds(void *context, int *out, size_t room);                   /* returns how many there are */
void wait_changed_fds(void *context, int *added, size_t *added_count, int *deleted, size_t *deleted_count);
int wait_set_status(void *context, int status);
int wait_get_status(void *context);
int wait_set_callback(void *context, struct wait_signal *s); /* NULL: none */
int wait_has_callback(void *context);
struct wait_signal *wait_signal_new(void);
void wait_signal_free(struct wait_signal *s);     /* its callbacks have to be unset before */
int wait_signal_fd(const struct wait_signal *s);  /* readable when an engine has called back */
uint64_t wait_signal_take(struct wait_signal *s); /* how often; no longer readable */

/* job.c: a private-key operation outside TLS as a job. One thread: the one that made it. */
struct job;
enum job_kind { JOB_SIGN = 1, JOB_DECRYPT };
struct job *job_new(struct key *k, int kind, const char *digest, int padding, int salt_length, int tls_version,
                    const void *data, size_t length, struct wait_context *context, int block_pause);
int job_run(struct job *j); /* ASYNC_start_job's result, or -enum shim_status when it was refused */
int job_is_paused(const struct job *j);
int job_is_finished(const struct job *j);
int job_status(const struct job *j); /* enum shim_status of the operation, once it has ended */
const char *job_reason(const struct job *j);
int job_system_error(const struct job *j);                      /* errno, where the status is SHIM_ERR_SYSTEM */
size_t job_output(const struct job *j, void *out, size_t room); /* returns its length */
void job_cancel(struct job *j);
int job_close(struct job *j); /* SHIM_OK: it has ended; SHIM_ERR_BUSY: not yet */
void job_free(struct job *j);

/*
 * operations.c: ops outside TLS, many at once, without jobs. One thread: the one that made them; the *_free functions
 * any thread.
 */
struct operations;
struct op;
enum operation_kind { OPERATION_SIGN_MESSAGE = 1, OPERATION_SIGN_DIGEST, OPERATION_DECRYPT_RAW };
struct operation {
    int kind;           /* enum operation_kind */
    const char *digest; /* borrowed; NULL: none */
    int padding, salt_length;
    uint64_t number; /* what the caller calls it */
    const void *input;
    size_t length;
};
struct operations *operations_new(void);          /* NULL: no memory, or no fd (errno) */
int operations_check(const struct operations *o); /* enum shim_status: this thread's, and not a parent's */
int operations_fd(const struct operations *o);    /* readable while something is to be taken; perhaps for nothing */
int operations_submit(struct operations *o, struct key *k, const struct operation *asked, struct op **out);
size_t operations_take(struct operations *o, uint64_t *out, size_t room); /* numbers; in the order of their finishing */
void operations_close(struct operations *o);                              /* nothing more is submitted or taken */
void operations_free(struct operations *o);                               /* closes it */
int operation_status(const struct op *op);                                /* SHIM_ERR_BUSY: it has not finished */
const char *operation_reason(const struct op *op);
size_t operation_output(const struct op *op, void *out, size_t room); /* its length; 0: there is none */
void operation_free(struct op *op);                                   /* cancels it, if it has not finished */

/* thread_jobs.c: this thread's pool of jobs. SHIM_ERR_BUSY: one of them is paused. */
int thread_jobs_init(size_t most, size_t initial);
int thread_jobs_cleanup(void);
int thread_jobs_capable(void);
uint64_t thread_jobs_self(void); /* this thread's number, which no other ever has: a pthread_t is used again */

/*
 * openssl_engine.c: an ENGINE of OpenSSL's (engine(3)), on a shared OpenSSL 3. One struct is one user of the ENGINE.
 * Only where openssl_engine_exists().
 */
struct openssl_engine;
int openssl_engine_exists(void);         /* 1: this OpenSSL has ENGINEs */
const char *openssl_engine_folder(void); /* where one is looked for by id, without OPENSSL_ENGINES; NULL: unknown */
int openssl_engine_is_listed(const char *id);                                              /* 1: it is loaded already */
int openssl_engine_find(const char *id, const char *path, struct openssl_engine **out);    /* path NULL: by id */
int openssl_engine_control(struct openssl_engine *e, const char *name, const char *value); /* value NULL: none */
int openssl_engine_start(struct openssl_engine *e);                                        /* ENGINE_init */
int openssl_engine_set_default(struct openssl_engine *e, const char *algorithms);
void openssl_engine_unregister(struct openssl_engine *e); /* it is the default for nothing any more */
/* The key keeps the ENGINE alive. */
int openssl_engine_load_key(struct openssl_engine *e, const char *id, const void *password, size_t password_length,
                            struct key **out);
void openssl_engine_free(struct openssl_engine *e);

/* callbacks.c: what pyOpenSSL would do in Python, on the job's stack. */
int callbacks_set_alpn(void *ssl_ctx, const void *protocols, size_t length); /* wire form, server's order */

/* session_id.c: sessions resume only where these 32 bytes are equal, and the virtual host. */
int session_id_set(void *ssl_ctx, const void *bytes);

/* handshake_policy.c: what a server's SSL_CTX negotiates, before its first SSL. SHIM_ERR_OPENSSL: OpenSSL refuses it. */
int policy_ciphers(void *ssl_ctx, const char *list);      /* TLS 1.2; what it does not know it leaves out */
int policy_ciphersuites(void *ssl_ctx, const char *list); /* TLS 1.3; the same */
int policy_signature_algorithms(void *ssl_ctx, const char *list);
int policy_num_tickets(void *ssl_ctx, size_t count);
void policy_session_cache(void *ssl_ctx, long most); /* sessions that are kept in memory; 0: none */

/*
 * key_log.c: secrets of the handshakes of an SSL_CTX, appended to a file. Takes fd, opened with O_APPEND; `is_new`:
 * the process had not opened that file yet.
 */
int key_log_use(void *ssl_ctx, int fd, const char *path, int *is_new);

/*
 * ticket_keys.c: the keys of session tickets, which any number of SSL_CTXs share. Any thread.
 * Each is 80 or 48 bytes, as nginx has them: name, HMAC, AES-256; or name, AES-128, HMAC. The first encrypts, all decrypt.
 */
struct ticket_keys;
enum ticket_keys_bounds { TICKET_KEYS_MOST = 64 };
int ticket_keys_new(struct ticket_keys **out); /* with one random key */
int ticket_keys_set(struct ticket_keys *k, const void *bytes, const size_t *lengths, size_t count); /* copies */
int ticket_keys_rotate(struct ticket_keys *k, size_t keep); /* a random first one, and so many of those before */
int ticket_keys_use(struct ticket_keys *k, void *ssl_ctx);  /* before its first SSL; it takes a reference */
size_t ticket_keys_names(struct ticket_keys *k, void *out, size_t room); /* 16 bytes each; returns how many keys */
void ticket_keys_free(struct ticket_keys *k);
/* clients.c: certificates of clients, before the SSL_CTX's first SSL. */
void clients_ask(void *ssl_ctx, int required, int depth, int partial);       /* partial: chains may end below a root */
int clients_trust(void *ssl_ctx, const void *der, size_t length, int named); /* named: to the client as well */
int clients_revoke(void *ssl_ctx, const void *der, size_t length, unsigned long flags); /* a CRL; and see below */
int clients_flags(void *ssl_ctx, unsigned long flags); /* of the verification, beside the others */

/* client_hook.c: handshakes that ask about a client's certificate, before the SSL_CTX's first SSL. */
void client_hook_set(void *ssl_ctx); /* they have to run in jobs */
void client_hook_sessions(
    void *ssl_ctx); /* nobody is asked: sessions of certificates that have expired do not resume */

/* question.c: what is asked. Any thread. */
struct question;
size_t question_chain(const struct question *q, unsigned char *out, size_t room); /* peer_chain.h; its length */
int question_is_resumption(const struct question *q);
int question_verdict(const struct question *q);       /* the answer; -1: none yet */
int question_answer(struct question *q, int verdict); /* X509_V_OK or an X509_V_ERR_*; 0: it was answered before */
void question_free(struct question *q);
/* identity.c: one or several certificates (PEM: the leaf, then its chain), each with its key. Shared when complete. */
struct identity;
struct identity *identity_new(void);
int identity_add(struct identity *i, const void *pem, size_t length, struct key *k); /* SHIM_ERR_KEY_TYPE: no match */
int identity_add_plain(struct identity *i, const void *pem, size_t length, const void *bytes, size_t bytes_length,
                       const void *password, size_t password_length);
int identity_take(struct identity *i,
                  const struct identity *other);                   /* all of it, but for kinds of keys that are there */
int identity_use_context(const struct identity *i, void *ssl_ctx); /* before its first SSL */
int identity_check(const struct identity *i, void *ssl_ctx);       /* would connections of the SSL_CTX take it? */
void identity_free(struct identity *i);

/*
 * hello.c: server names, before a session is looked up. `text`: names with a line feed after each; `numbers`: which
 * identity each stands for. SHIM_ERR_RANGE: the name at *bad is none.
 */
enum hello_flags { HELLO_STRICT = 1, HELLO_ASKS = 2 }; /* unknown names are refused; Python is asked first */
enum { HELLO_MAIN = 0 };                               /* the identity of the SSL_CTX itself */
struct hello_limits {
    size_t identities; /* numbers are below */
    size_t loaded_most;
};
int hello_set(void *ssl_ctx, const char *text, size_t length, const uint32_t *numbers, size_t count,
              const struct hello_limits *limits, int flags, size_t *bad);
void hello_put(void *ssl_ctx, uint32_t number, struct identity *i);       /* loaded; it may give way to others later */
int hello_is_name(const char *name, size_t length);                       /* 1: of a table; "*." may be in front */
uint32_t hello_number_of(void *ssl_ctx, const char *name, size_t length); /* UINT32_MAX: nobody's */
size_t hello_table_bytes(void *ssl_ctx);
size_t hello_loaded(void *ssl_ctx); /* identities, now */
/* After SSL_ERROR_WANT_CLIENT_HELLO_CB: what it is that Python has to say. */
enum hello_question { HELLO_NOTHING = 0, HELLO_DECISION, HELLO_IDENTITY };
enum hello_field {
    HELLO_NAME = 0,
    HELLO_LEGACY_VERSION,
    HELLO_VERSIONS,
    HELLO_CIPHERS,
    HELLO_ALPN,
    HELLO_GROUPS,
    HELLO_SIGNATURE_ALGORITHMS,
    HELLO_FIELDS
};
int hello_wants(void *ssl, uint32_t *number);
size_t hello_copy(void *ssl, int field, void *out, size_t room); /* as on the wire, without its length in front */
int hello_give(void *ssl, struct identity *i); /* NULL: as without a question; SHIM_ERR_CLOSED: there is none */
int hello_refuse(void *ssl, int alert);
int hello_refused(void *ssl, int *unknown); /* the alert; -1: it was not; unknown: there is no such name */

/*
 * openssl_provider.c: loadable providers of others, each in a library context of its own, which lives as long as the
 * process. `init` is the module's OSSL_provider_init; NULL: OpenSSL finds and loads the module itself.
 */
struct openssl_provider;
int openssl_provider_open(const char *name, void *init, const char *config, struct openssl_provider **out);
int openssl_provider_load_key(struct openssl_provider *p, const char *uri, const char *properties, const void *password,
                              size_t password_length, struct key **out);
const char *openssl_provider_of(const struct key *k);      /* the name of the key's provider; NULL: none */
int openssl_provider_share(const char *name, void *init);  /* into the process's default context, for good */
int openssl_provider_set_query(const char *properties);    /* of the default context; "": none */
size_t openssl_provider_get_query(char *out, size_t room); /* its length; 0: none, or OpenSSL before 3.5 */
int dlclose(void *handle);
char *dlerror(void);

/* client_context.c: settings of a client's SSL_CTX, before its first SSL. */
int client_context_groups(void *ssl_ctx, const char *groups); /* in OpenSSL's form; SHIM_ERR_OPENSSL: it knows none */
void client_context_read_ahead(void *ssl_ctx);
void client_context_believe(void *ssl_ctx); /* certificates are not verified, only the signature made with their key */

/* peer.c: what a client learns of its server. One thread: the client's. */
int peer_ask_name(void *ssl, const char *name); /* before the handshake: the server name (RFC 6066, 3) */
/* Before the handshake: whom the certificate must be for; common_name: which counts where it has no DNS name. */
int peer_expect_name(void *ssl, const char *name, int common_name);
int peer_expect_ip(void *ssl, const void *ip, size_t length);
int peer_ask_staple(void *ssl);                         /* before the handshake: for an OCSP response (RFC 6066 8) */
long peer_staple(void *ssl, const unsigned char **out); /* its length, 0: none came; borrowed from the SSL */
const char *peer_verify_reason(void *ssl, int *number); /* X509_V_ERR_..., and its words */
int peer_renegotiates_securely(void *ssl);              /* RFC 5746; 1: the server said so */
int peer_has_ticket(void *ssl);                         /* 1: the session has come as a ticket (RFC 5077) */
int peer_count_sessions(void *ssl_ctx);                 /* before its first SSL */
unsigned peer_sessions(void *ssl_ctx);                  /* how many have come since, over all connections */

/* facts.c: what a handshake has come to, beside async_ssl_settled(). The connection's thread, after its handshake. */
size_t facts_finished(void *ssl, int peers, unsigned char *out, size_t room); /* the Finished message; its length */
enum { FACTS_CIPHER_IN_USE = 0, FACTS_CIPHERS_OWN = 1, FACTS_CIPHERS_PEERS = 2 };
int facts_cipher(void *ssl, int list, int at, const char **name, const char **version, int *bits); /* 0: no such one */
size_t facts_sent_chain(void *ssl, unsigned char *out,
                        size_t room); /* as sent, not verified; peer_chain.h; its length */
size_t facts_own_certificate(void *ssl, unsigned char *out, size_t room); /* what the peer was shown; the same form */
int facts_pending(void *ssl);                                             /* decrypted bytes that wait to be read */
int facts_security_level(void *ssl_ctx);
long facts_session_count(void *ssl_ctx, int number); /* number: ssl.h's SSL_CTRL_SESS_NUMBER and those behind it */

/*
 * staple.c: an OCSP response, DER, to send with the current certificate of an SSL_CTX, which must be there already, until
 * that time (seconds since 1970). Copied.
 */
int staple_set(void *ssl_ctx, const void *response, size_t length, int64_t until);

/* kx_context.c: SSL_CTXs whose handshakes take X25519 key pairs that were made ahead of need, eight at a time. */
const char *kx_unavailable(void);           /* NULL: they can be made; else why not, for people */
int kx_context_new(void *like, void **out); /* of the same method and settings; the caller frees it: SSL_CTX_free */
