// The program that becomes a container's processes, between the keeper and the image's own program: what its parts share.
//
// The keeper starts it from a sealed copy in memory, without a fork of its own memory: sharing that with a child and
// touching it again on both sides costs more than all that is done here. What is to be done comes in packets on descriptor
// 3, complete and literal; whatever fails is told there as a stage and an errno, which the keeper puts into words.
//
// As "enisle-enter" it is a further process (docker exec): it enters the container (enter.c, told by enter.py). As
// "enisle-first" it is the first one: it is born into new namespaces (birth.c, told by reserve.py) and makes the root
// (steps.c, told by setup.py). Both end the same way (identity.c, become.c).
// All of it is compiled as one unit, so no two parts may use a name twice.
// child.py, join.py and execute.py do the same where this cannot be; each step here has its reason there.

#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <linux/filter.h>

enum { CHANNEL = 3, FIRST_PROCESS = 4 };
enum { TERMINAL = 1, NO_NEW_PRIVS = 2, NUMERIC_USER = 4, NUMERIC_GROUP = 8, HAS_GROUP = 16, WANTS_HOME = 32, INIT = 64 };
enum { MAX_PACKET = 64 << 10, MAX_FDS = 16 };

// As in enter.py.
enum stage {
    STAGE_REQUEST = 1,
    STAGE_KEYRING,
    STAGE_CGROUP,
    STAGE_NAMESPACES,
    STAGE_TERMINAL,
    STAGE_PTMX,
    STAGE_USER,
    STAGE_GROUP,
    STAGE_ROOT,
    STAGE_DIRECTORY,
    STAGE_LIMIT,
    STAGE_STDIO,
    STAGE_IDENTITY,
    STAGE_ENTER_DIRECTORY,
    STAGE_OUTSIDE,
    STAGE_CAPABILITIES,
    STAGE_FILTER,
    STAGE_NOT_ON_PATH,
    STAGE_DENIED,
    STAGE_STATUS,
    STAGE_IS_DIRECTORY,
    STAGE_EXEC,
    STAGE_BIRTH,
    STAGE_JOIN,
    STAGE_STEP,
    STAGE_INIT,
};

// --- packet.c -------------------------------------------------------------------------------------------------------

void tell(const char *text);
void tell_with(const char *text, int fd);
_Noreturn void fail_with(enum stage stage, int error, unsigned which);
_Noreturn void fail(enum stage stage);

struct cursor {
    const uint8_t *at, *end;
};
extern struct cursor cursor; // in the packet that is being read; what was taken from it stays

// The next packet and the descriptors that came with it, close-on-exec. Ends this process when the keeper is gone.
void receive(int fds[MAX_FDS], unsigned *count);
uint32_t take_u32(void);
uint64_t take_u64(void);
const char *take_text(void);              // with a NUL behind it
const char **take_texts(uint32_t *count); // ends with NULL; there is room for one more
const void *take(size_t length);
void *array(size_t count, size_t size); // zeroed, never given back: this process is short

struct limit {
    uint32_t resource;
    uint64_t soft, hard;
};

// What the program is to be.
extern struct request {
    uint32_t flags, namespaces, umask, rows, columns, uid, gid, limit_count, env_count, arg_count, extra_count, last_capability;
    int32_t oom_score;
    uint64_t bounding, kept, filtering; // capabilities: of the program; while its filter is put in
    struct limit *limits;
    const struct sock_filter *filter;
    uint32_t filter_bytes;
    const char *user, *group, *directory, *path, **tasks, **extra_groups, **args, **env;
} request;

void take_request(void);

// --- enter.c --------------------------------------------------------------------------------------------------------

void be_nobodys(void);           // signals and session
void leave_for_container(void);  // OOM score, keys and cgroup, as the request has them
void take_terminal(int slave);
int open_slave(int master);      // its other end, unlocked; -1 with errno
void enter(void);

// --- birth.c, steps.c -----------------------------------------------------------------------------------------------

struct filesystem {
    const char *kind, **options; // "key" or "key=value"
    int context;                 // created and not mounted yet; -1
};
extern struct filesystem *usual; // made ahead of need
extern uint32_t usual_count;

int create_filesystem(const struct filesystem *wanted, unsigned *option_number); // -1 with errno, and which, from 1 on
void be_born(void);
void carry_out_steps(void);

// --- root.c: the root file system as a descriptor; everything in it is found without ever leaving it ------------------

extern int root_fd;

int open_in(int root, const char *path, uint64_t flags, bool links); // -1 with errno, like the next
int target(const char *path, bool directory, bool links);

// --- identity.c, init.c, become.c -----------------------------------------------------------------------------------

extern unsigned *groups;
extern size_t group_count;
extern const char *home;

void resolve_identity(int root);
void be_init(char *name); // returns in the child that becomes the program
void become_program(char *name); // of this one, as it was called
