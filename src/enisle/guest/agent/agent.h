/* The guest agent: PID 1 of an Enisle VM. What goes over the wire is described in ../PROTOCOL.md. */
#ifndef ENISLE_AGENT_H
#define ENISLE_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define GENERATION 2
#define MAX_IN_BODY (4u << 20)  /* from the host: a command line and an environment must fit */
#define MAX_OUT_BODY 32760u     /* to the host: one virtio buffer of 32 KiB with its header */
#define OUTPUT_WINDOW (256u << 10)
#define INPUT_WINDOW (256u << 10)
#define MAX_SESSIONS 1024
#define MAX_SOCKETS 64u
#define HEADER_SIZE 8u

#define ROOT "/newroot" /* the workload's root, as the agent sees it */
#define DISK "/disk"    /* the writable disk: upper and work */
#define LOWER "/image"  /* the image's disk */
#define CGROUP "/cgroup"
#define FILES "/files"  /* contents of the files laid over the image's */

enum to_guest {
    MSG_SETUP = 1,
    MSG_RUN,
    MSG_CALL,
    MSG_INPUT,
    MSG_INPUT_END,
    MSG_CREDIT,
    MSG_SIGNAL,
    MSG_RESIZE,
    MSG_SHUTDOWN,
    MSG_ABORT,
    MSG_CLOCK,
    MSG_FREEZE,
    MSG_LIMIT,
};

enum to_host {
    MSG_HELLO = 64,
    MSG_READY,
    MSG_FAILED,
    MSG_STARTED,
    MSG_OUTPUT,
    MSG_CLOSED,
    MSG_EXITED,
    MSG_INPUT_CREDIT,
    MSG_OOM,
};

/* Where a start failed; the host words the message. */
enum stage {
    STAGE_NONE,
    STAGE_SETUP,
    STAGE_USER,
    STAGE_GROUP,
    STAGE_CWD,
    STAGE_EXEC,
    STAGE_LIMIT,
    STAGE_SESSION,
};

enum call {
    CALL_STATS = 1,
    CALL_TOP,
    CALL_STAT,
    CALL_GET,
    CALL_PUT,
    CALL_EXPORT,
    CALL_UPPER,
    CALL_CHANGES,
    CALL_NIC_ADD,
    CALL_NIC_REMOVE,
    CALL_ACCEPT,
    CALL_ASKED,
};

/* How a call failed; the exit code of its process, after which its error stream says more. */
enum call_result { CALL_OK, CALL_INTERNAL, CALL_NOT_FOUND, CALL_INVALID, CALL_CONFLICT, CALL_DENIED, CALL_FULL };

/* --- parse.c: reading message bodies; a read past the end sets `bad` and gives zeros --- */
struct reader {
    const uint8_t *at, *end;
    bool bad;
};
uint8_t take_u8(struct reader *r);
uint16_t take_u16(struct reader *r);
uint32_t take_u32(struct reader *r);
uint64_t take_u64(struct reader *r);
const uint8_t *take_bytes(struct reader *r, uint32_t *length);
char *take_string(struct reader *r); /* malloc'd; a NUL inside is bad */
char **take_strings(struct reader *r); /* malloc'd, ends with NULL */

struct frame {
    uint32_t length;
    uint16_t channel;
    uint8_t type, stream;
};
bool parse_header(const uint8_t raw[HEADER_SIZE], struct frame *frame); /* false: too long */

/* --- wire.c: the port to the host --- */
void wire_open(void);
int wire_fd(void);
void wire_send(uint8_t type, uint16_t channel, uint8_t stream, const void *body, uint32_t length);
bool wire_flush(void);    /* true: nothing is left to be sent */
bool wire_idle(void);
bool wire_next(struct frame *frame, const uint8_t **body); /* a whole frame that has arrived */
void wire_fill(void);
void put_u32(uint8_t *at, uint32_t value);
uint32_t get_u32(const uint8_t *at);

/* --- boot.c --- */
struct failure {
    uint8_t stage;
    int error;
    char detail[200];
};
void boot_early(void);
bool boot_setup(struct reader *r, struct failure *failure);
void boot_late(void);
void boot_enter_root(void); /* in the workload's first process: make ROOT the root, mount proc */
void power_off(void) __attribute__((noreturn));
void close_disk(void);
void set_clock(uint64_t ns);
void write_file(const char *path, const char *text); /* best effort */
bool fail(struct failure *failure, uint8_t stage, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* --- modules.c --- */
void load_modules(const char *set);
bool offer_modules(void);
void load_from_disk(const char *const *modules); /* with what they need; best effort */
int answer_modprobe(int count, char **words);

/* --- mounts.c --- */
bool mount_at(const char *source, const char *target, const char *type, unsigned long flags, const char *data);
bool setup_mount(struct reader *r, struct failure *failure);
bool setup_file(struct reader *r, unsigned number, struct failure *failure);
int make_target(const char *path, bool directory); /* below ROOT; an O_PATH descriptor, or -1 */
bool make_dev(bool privileged);

/* --- sockets.c --- */
bool mount_socket(const char *target, const char *attributes); /* "uid=,gid=,mode=" */
int call_accept(struct reader *r);
int carry_connection(int fd, char said); /* in a call's process, which has no other descriptors above 4 */

/* --- dns.c --- */
bool setup_names(struct reader *r, struct failure *failure);
int call_asked(void);

/* --- names.c --- */
char **names_in(int dirfd); /* sorted, malloc'd, ends with NULL; NULL: errno */

/* --- copy.c --- */
bool copy_tree(int from, int to);
bool is_empty(int dirfd);

/* --- net.c --- */
struct nic;
struct nic *take_nic(struct reader *r);
bool nic_up(struct nic *nic, int timeout_ms); /* false: errno */
bool nic_down(const char *name);
bool loopback_up(void);

/* --- user.c --- */
struct identity {
    uid_t uid;
    gid_t gid;
    gid_t groups[256];
    int group_count;
    char home[4096];
};
bool resolve_user(const char *user, char **extra, struct identity *identity, struct failure *failure);

/* --- process.c --- */
struct process {
    bool terminal, has_stdin, no_new_privs, privileged, init, main;
    uint32_t umask;
    int oom_score_adj;
    uint16_t rows, columns;
    char *user, *cwd, **args, **env, **groups;
    uint64_t capabilities;
    uint32_t limit_count;
    struct {
        uint32_t resource;
        uint64_t soft, hard;
    } limits[16];
};
struct process *take_process(struct reader *r);
void free_process(struct process *process);
void free_strings(char **strings);
void run_process(const struct process *process, int report) __attribute__((noreturn));
int run_init(pid_t child);

/* --- spawn.c --- */
struct spawned {
    pid_t pid;
    int ours[3], report; /* our ends of stdio; where a failure to start is told */
};
struct spawned spawn_process(const struct process *process);
struct spawned spawn_call(uint8_t call, struct reader *r);
bool session_enter(bool processes); /* in a child: go where the workload is; errno when it cannot */
void close_inherited(void);
extern pid_t main_pid; /* 0: none runs */

/* --- workload.c --- */
void workload_open(uint32_t pids); /* pids: how many processes there may be; 0: no limit */
void workload_join(void);          /* in a child */
void workload_limit(uint64_t taken, uint32_t pids);
void workload_check_oom(void);
void workload_freeze(bool frozen);
void workload_signal(int number);
extern char workload_tag; /* of its event in the loop: workload_check_oom is due */

/* --- session.c --- */
void session_run(uint16_t channel, struct reader *r);
void session_call(uint16_t channel, struct reader *r);
void session_input(uint16_t channel, const uint8_t *data, uint32_t length);
void session_input_end(uint16_t channel);
void session_credit(uint16_t channel, uint32_t bytes);
void session_signal(uint16_t channel, int number, bool all);
void session_resize(uint16_t channel, uint16_t rows, uint16_t columns);
void session_abort(uint16_t channel);
void session_event(void *source, uint32_t events);
void session_sweep(void);  /* after each round of events */
void session_resume(void); /* the wire has room again */
void session_reaped(pid_t pid, int status);
extern int loop_fd;

/* --- calls.c, files: run in a process of their own; data to stdout, messages to stderr --- */
int call_main(uint8_t call, struct reader *r);
int call_failed(int result, const char *format, ...) __attribute__((format(printf, 2, 3)));
int call_errno(const char *what);
bool read_input(void *data, size_t length); /* all of it; false: it ended before */
bool write_output(int fd, const void *data, size_t length);
int layer_walk(bool as_layer);

/* --- tar_write.c, tar_read.c --- */
int tar_end(void);
int tar_extract(int dirfd, uint32_t flags);
#define PUT_NO_OVERWRITE_DIR 1u
#define PUT_COPY_OWNER 2u

#endif
