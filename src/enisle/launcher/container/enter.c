// A further process of a container (docker exec): enters it and becomes the program that was asked for. The first one,
// which is inside already, begins here with its identity.
//
// The keeper starts this from a sealed copy in memory, without a fork of its own memory: sharing that with a child and
// touching it again on both sides costs more than all that is done here. What is to be done comes as one packet on
// descriptor 3, complete and literal (enter.py); whatever fails is told there as a stage and an errno, which the keeper
// puts into words. Descriptor 4 is the container's first process. join.py and execute.py do the same, in that order,
// where this cannot be: each step here has its reason there.

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <grp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { CHANNEL = 3, FIRST_PROCESS = 4 };
enum { TERMINAL = 1, NO_NEW_PRIVS = 2, NUMERIC_USER = 4, NUMERIC_GROUP = 8, HAS_GROUP = 16, WANTS_HOME = 32, IS_INSIDE = 64 };
enum { MAX_PACKET = 64 << 10, MAX_FILE = 4 << 20, MAX_GROUPS = 65536, MAX_ID = 0x7fffffff };

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
};

static void tell(const char *text)
{
    if (send(CHANNEL, text, strlen(text), MSG_NOSIGNAL) < 0)
        _exit(1); // nobody is there to hear it
}

static void fail_with(enum stage stage, int error, unsigned which)
{
    char text[100];
    snprintf(text, sizeof text, "{\"stage\": %d, \"errno\": %d, \"which\": %u}", stage, error, which);
    tell(text);
    _exit(1);
}

static void fail(enum stage stage)
{
    fail_with(stage, errno, 0);
}

// --- the request ----------------------------------------------------------------------------------------------------

static uint8_t packet[MAX_PACKET + 1];
static const uint8_t *at, *end;

static const void *take(size_t length)
{
    if ((size_t)(end - at) < length)
        fail_with(STAGE_REQUEST, EPROTO, 0);
    const void *found = at;
    at += length;
    return found;
}

static uint32_t take_u32(void)
{
    uint32_t value;
    memcpy(&value, take(sizeof value), sizeof value);
    return value;
}

static uint64_t take_u64(void)
{
    uint64_t value;
    memcpy(&value, take(sizeof value), sizeof value);
    return value;
}

// With a NUL behind it.
static const char *take_text(void)
{
    uint32_t length = take_u32();
    const char *text = take((size_t)length + 1);
    if (text[length] || strlen(text) != length)
        fail_with(STAGE_REQUEST, EPROTO, 0);
    return text;
}

static void *array(size_t count, size_t size)
{
    void *made = calloc(count, size);
    if (!made)
        fail_with(STAGE_REQUEST, ENOMEM, 0);
    return made;
}

// Ends with NULL; there is room for one more.
static const char **take_texts(uint32_t *count)
{
    *count = take_u32();
    if (*count > MAX_PACKET)
        fail_with(STAGE_REQUEST, EPROTO, 0);
    const char **texts = array(*count + 2, sizeof *texts);
    for (uint32_t i = 0; i < *count; i++)
        texts[i] = take_text();
    return texts;
}

struct limit {
    uint32_t resource;
    uint64_t soft, hard;
};

static struct {
    uint32_t flags, namespaces, umask, rows, columns, uid, gid, limit_count, env_count, arg_count, extra_count, last_capability;
    int32_t oom_score;
    uint64_t bounding, kept, filtering; // capabilities: of the program; while its filter is put in
    struct limit *limits;
    const struct sock_filter *filter;
    uint32_t filter_bytes;
    const char *user, *group, *directory, *path, **tasks, **extra_groups, **args, **env;
} request;

static void read_request(void)
{
    ssize_t n = recv(CHANNEL, packet, sizeof packet, 0);
    if (n <= 0 || n > MAX_PACKET)
        _exit(1);
    at = packet;
    end = packet + n;
    uint32_t count;
    request.flags = take_u32();
    request.namespaces = take_u32();
    request.oom_score = (int32_t)take_u32();
    request.umask = take_u32();
    request.rows = take_u32();
    request.columns = take_u32();
    request.uid = take_u32();
    request.gid = take_u32();
    request.last_capability = take_u32();
    request.bounding = take_u64();
    request.kept = take_u64();
    request.filtering = take_u64();
    request.limit_count = take_u32();
    if (request.limit_count > RLIM_NLIMITS)
        fail_with(STAGE_REQUEST, EPROTO, 0);
    request.limits = array(request.limit_count + 1, sizeof *request.limits);
    for (uint32_t i = 0; i < request.limit_count; i++) {
        request.limits[i].resource = take_u32();
        request.limits[i].soft = take_u64();
        request.limits[i].hard = take_u64();
    }
    request.user = take_text();
    request.group = take_text();
    request.directory = take_text();
    request.path = take_text();
    request.tasks = take_texts(&count);
    request.extra_groups = take_texts(&request.extra_count);
    request.args = take_texts(&request.arg_count);
    request.env = take_texts(&request.env_count);
    request.filter_bytes = take_u32();
    struct sock_filter *filter = array(1, request.filter_bytes + 1); // aligned
    memcpy(filter, take(request.filter_bytes), request.filter_bytes);
    request.filter = filter;
}

// --- on the host ----------------------------------------------------------------------------------------------------

// Past the C library, which has signals of its own that posix_spawn leaves ignored.
static void be_nobodys(void)
{
    static const uint64_t usual[4], none; // struct sigaction of the kernel: all 0 is SIG_DFL
    for (int number = 1; number <= 64; number++)
        syscall(SYS_rt_sigaction, number, usual, NULL, sizeof none);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
    setsid();
}

static void set_oom_score(void)
{
    char text[80];
    int length = snprintf(text, sizeof text, "%d", request.oom_score);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, text, (size_t)length) == length) {
        close(fd);
        return;
    }
    snprintf(text, sizeof text, "{\"oom_score\": %d}", errno);
    if (fd >= 0)
        close(fd);
    tell(text);
}

static void join_groups(void)
{
    for (unsigned i = 0; request.tasks[i]; i++) {
        int fd = open(request.tasks[i], O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) != 1)
            fail_with(STAGE_CGROUP, errno, i);
        close(fd);
    }
}

// --- inside ---------------------------------------------------------------------------------------------------------

static int open_inside(int root, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

static int open_terminal(void)
{
    struct open_how how = {.flags = O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS};
    int master = (int)syscall(SYS_openat2, AT_FDCWD, "/dev/pts/ptmx", &how, sizeof how), unlocked = 0;
    struct stat status;
    if (master < 0 || fstat(master, &status))
        fail(STAGE_TERMINAL);
    if (!S_ISCHR(status.st_mode) || status.st_rdev != makedev(5, 2))
        fail_with(STAGE_PTMX, 0, 0);
    int slave = ioctl(master, TIOCSPTLCK, &unlocked) ? -1 : ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        fail(STAGE_TERMINAL);
    char text[] = "{\"terminal\": true}", control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {text, sizeof text - 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &master, sizeof master);
    if (sendmsg(CHANNEL, &message, MSG_NOSIGNAL) < 0)
        _exit(1);
    close(master);
    return slave;
}

static void take_terminal(void)
{
    int slave = open_terminal();
    struct winsize size = {.ws_row = (unsigned short)request.rows, .ws_col = (unsigned short)request.columns};
    if (((size.ws_row || size.ws_col) && ioctl(slave, TIOCSWINSZ, &size)) || ioctl(slave, TIOCSCTTY, 0))
        fail(STAGE_TERMINAL);
    for (int fd = 0; fd < 3; fd++)
        dup2(slave, fd);
    close(slave);
}

// --- who it runs as: the image's own files, which may be anything (identity.py) ------------------------------------

static char *read_file(int root, const char *path)
{
    int fd = open_inside(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    struct stat status;
    size_t room = 4096, length = 0;
    char *text = array(1, room + 1);
    if (fd < 0 || fstat(fd, &status) || !S_ISREG(status.st_mode))
        room = 0; // as one that is empty
    while (room) {
        ssize_t n = read(fd, text + length, room - length);
        if (n <= 0)
            break;
        length += (size_t)n;
        if (length == MAX_FILE)
            break;
        if (length == room) {
            room = room * 8 < MAX_FILE ? room * 8 : MAX_FILE;
            text = realloc(text, room + 1);
            if (!text)
                fail_with(STAGE_USER, ENOMEM, 0);
        }
    }
    if (fd >= 0)
        close(fd);
    for (size_t i = 0; i < length; i++)
        if (!text[i])
            text[i] = 1; // no name has that, nor a NUL
    text[length] = 0;
    return text;
}

// "0" or digits that do not begin with 0, up to the highest id.
static bool parse_id(const char *text, uint32_t *id)
{
    size_t length = strspn(text, "0123456789");
    if (!length || text[length] || length > 10 || (*text == '0' && length > 1))
        return false;
    unsigned long long value = strtoull(text, NULL, 10);
    *id = (uint32_t)value;
    return value <= MAX_ID;
}

// The next line of so many fields at least, cut at its colons; NULL at the end. Fields that it has not are "".
static char **next_entry(char **rest, int least)
{
    static char *fields[6];
    while (*rest) {
        char *field = *rest, *line_end = strchr(field, '\n');
        *rest = line_end ? line_end + 1 : NULL;
        if (line_end)
            *line_end = 0;
        int count = 0;
        for (int i = 0; i < 6; i++)
            fields[i] = "";
        while (field) {
            char *colon = strchr(field, ':');
            if (colon)
                *colon = 0;
            if (count < 6)
                fields[count] = field;
            count++;
            field = colon ? colon + 1 : NULL;
        }
        if (count >= least && *fields[0] && *fields[0] != '#')
            return fields;
    }
    return NULL;
}

static gid_t *groups;
static size_t group_count;
static const char *home = "";

static void add_group(uint32_t gid)
{
    for (size_t i = 0; i < group_count; i++)
        if (groups[i] == gid)
            return;
    if (group_count == MAX_GROUPS)
        fail_with(STAGE_IDENTITY, EINVAL, 0); // as setgroups would
    groups[group_count++] = gid;
}

static bool is_member(const char *name, char *members)
{
    size_t length = strlen(name);
    members += strspn(members, " \t\r\f\v\034\035\036\037");
    size_t whole = strlen(members);
    while (whole && strchr(" \t\r\f\v\034\035\036\037", members[whole - 1]))
        members[--whole] = 0;
    for (char *member = members;; member++) {
        char *comma = strchr(member, ',');
        if ((comma ? (size_t)(comma - member) : strlen(member)) == length && !memcmp(member, name, length))
            return true;
        if (!comma)
            return false;
        member = comma;
    }
}

// By name; of an account's groups, those that list it are added.
static bool find_group(int root, const char *name, uint32_t *gid, const char *member)
{
    char *rest = read_file(root, "/etc/group"), **fields;
    uint32_t id;
    while ((fields = next_entry(&rest, 3))) {
        if (!parse_id(fields[2], &id))
            continue;
        if (member && is_member(member, fields[3]))
            add_group(id);
        if (name && !strcmp(fields[0], name)) {
            *gid = id;
            return true;
        }
    }
    return false;
}

static const char *find_account(int root)
{
    char *rest = read_file(root, "/etc/passwd"), **fields;
    bool numeric = request.flags & NUMERIC_USER;
    uint32_t uid, gid;
    while ((fields = next_entry(&rest, 4))) {
        if (!parse_id(fields[2], &uid) || !parse_id(fields[3], &gid))
            continue;
        if (numeric ? uid != request.uid : strcmp(fields[0], request.user) != 0)
            continue;
        request.uid = uid;
        if (!(request.flags & NUMERIC_GROUP))
            request.gid = gid;
        home = fields[5];
        return fields[0];
    }
    if (!numeric)
        fail_with(STAGE_USER, 0, 0);
    if (!(request.flags & NUMERIC_GROUP))
        request.gid = 0;
    return NULL;
}

static void resolve_identity(int root)
{
    groups = array(MAX_GROUPS, sizeof *groups);
    const char *name = find_account(root);
    uint32_t gid = request.gid;
    if (request.flags & HAS_GROUP && !(request.flags & NUMERIC_GROUP) && !find_group(root, request.group, &gid, NULL))
        fail_with(STAGE_GROUP, 0, 0);
    request.gid = gid;
    add_group(gid);
    if (!(request.flags & HAS_GROUP) && name)
        find_group(root, NULL, &gid, name);
    for (uint32_t i = 0; i < request.extra_count; i++) {
        const char *word = request.extra_groups[i]; // what begins with a digit is a number, already checked
        if (!parse_id(word, &gid) && !find_group(root, word, &gid, NULL))
            fail_with(STAGE_GROUP, 0, i + 1);
        add_group(gid);
    }
}

// --- what it may do -------------------------------------------------------------------------------------------------

static rlim_t lower(rlim_t left, rlim_t right)
{
    return left == RLIM_INFINITY ? right : right == RLIM_INFINITY || left < right ? left : right;
}

static void set_limits(void)
{
    for (uint32_t i = 0; i < request.limit_count; i++) {
        struct limit *wanted = &request.limits[i];
        struct rlimit limit = {(rlim_t)wanted->soft, (rlim_t)wanted->hard}, now;
        if (!setrlimit((int)wanted->resource, &limit))
            continue;
        if (getrlimit((int)wanted->resource, &now))
            fail_with(STAGE_LIMIT, errno, i);
        limit.rlim_max = lower(limit.rlim_max, now.rlim_max);
        limit.rlim_cur = lower(limit.rlim_cur, limit.rlim_max);
        char text[100];
        snprintf(text, sizeof text, "{\"clamped\": %u, \"to\": %lld}", i, (long long)limit.rlim_max);
        tell(text);
        if (setrlimit((int)wanted->resource, &limit))
            fail_with(STAGE_LIMIT, errno, i);
    }
}

static void own_stdio(void)
{
    for (int fd = 0; fd < 3 && request.uid; fd++) {
        struct stat status;
        if (fstat(fd, &status))
            fail(STAGE_STDIO);
        unsigned kind = major(status.st_rdev);
        if (S_ISFIFO(status.st_mode) || (S_ISCHR(status.st_mode) && kind >= 136 && kind < 144))
            if (fchown(fd, request.uid, (gid_t)-1))
                fail(STAGE_STDIO);
    }
}

static void set_capabilities(uint64_t wanted)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)wanted, (uint32_t)wanted, 0},
        {(uint32_t)(wanted >> 32), (uint32_t)(wanted >> 32), 0},
    };
    if (syscall(SYS_capset, &header, data))
        fail(STAGE_CAPABILITIES);
}

static void set_filter(void)
{
    struct sock_fprog program = {(unsigned short)(request.filter_bytes / sizeof *request.filter), (void *)request.filter};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        fail(STAGE_FILTER);
}

static void enter_directory(int fd)
{
    static char path[MAX_PACKET];
    if (fchdir(fd) || syscall(SYS_getcwd, path, sizeof path) < 0)
        fail(STAGE_ENTER_DIRECTORY);
    if (*path != '/')
        fail_with(STAGE_OUTSIDE, 0, 0);
    close(fd);
}

static void become(int directory)
{
    for (uint32_t number = 0; number <= request.last_capability; number++)
        if (!(request.bounding >> number & 1) && prctl(PR_CAPBSET_DROP, number, 0, 0, 0))
            fail(STAGE_CAPABILITIES);
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        fail(STAGE_CAPABILITIES);
    if (request.uid && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
        fail(STAGE_IDENTITY);
    if (setgroups(group_count, groups) || setresgid(request.gid, request.gid, request.gid) ||
        setresuid(request.uid, request.uid, request.uid) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        fail(STAGE_IDENTITY);
    enter_directory(directory);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)) // after the change of identity, which clears it
        fail(STAGE_IDENTITY);
    umask((mode_t)request.umask);
    bool privileged = request.flags & NO_NEW_PRIVS;
    if (privileged && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail(STAGE_IDENTITY);
    uint64_t kept = request.uid ? 0 : request.kept;
    if (request.filter_bytes && !privileged) { // without no_new_privs a filter needs CAP_SYS_ADMIN
        set_capabilities(kept | request.filtering);
        set_filter();
        set_capabilities(kept);
        return;
    }
    set_capabilities(kept);
    if (request.filter_bytes)
        set_filter();
}

// --- the program ----------------------------------------------------------------------------------------------------

static void replace(const char *path)
{
    struct stat status;
    if (stat(path, &status))
        fail(STAGE_STATUS);
    if (S_ISDIR(status.st_mode))
        fail_with(STAGE_IS_DIRECTORY, 0, 0);
    if (!(status.st_mode & 0111))
        fail_with(STAGE_DENIED, 0, 0);
    execve(path, (char **)request.args, (char **)request.env);
    fail(STAGE_EXEC);
}

static void run(void)
{
    const char *command = request.args[0];
    bool denied = false;
    tell("{\"exec\": true}");
    if (strchr(command, '/'))
        replace(command);
    for (const char *part = request.path;;) {
        const char *colon = strchr(part, ':');
        int length = colon ? (int)(colon - part) : (int)strlen(part);
        char *candidate = array(1, (size_t)length + strlen(command) + 3);
        sprintf(candidate, "%.*s/%s", length ? length : 1, length ? part : ".", command);
        struct stat status;
        if (stat(candidate, &status))
            denied = denied || errno == EACCES;
        else if (!S_ISDIR(status.st_mode)) {
            if (status.st_mode & 0111)
                replace(candidate);
            denied = true;
        }
        if (!colon)
            break;
        part = colon + 1;
    }
    fail_with(denied ? STAGE_DENIED : STAGE_NOT_ON_PATH, 0, 0);
}

static void enter(void)
{
    be_nobodys();
    set_oom_score();
    if (syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL) < 0 && errno != ENOSYS && errno != EPERM)
        fail(STAGE_KEYRING);
    join_groups();
    if (setns(FIRST_PROCESS, (int)request.namespaces))
        fail(STAGE_NAMESPACES);
    close(FIRST_PROCESS);
    if (request.flags & TERMINAL)
        take_terminal();
}

int main(void)
{
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); // before anybody inside can see us (CVE-2016-9962)
    syscall(SYS_close_range, FIRST_PROCESS + 1u, ~0u, 0);
    fcntl(CHANNEL, F_SETFD, FD_CLOEXEC);
    read_request();
    if (!(request.flags & IS_INSIDE))
        enter();
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        fail(STAGE_ROOT);
    resolve_identity(root);
    if (request.flags & WANTS_HOME) {
        char *entry = array(1, strlen(home) + 8);
        sprintf(entry, "HOME=%s", *home ? home : "/");
        request.env[request.env_count] = entry;
    }
    int directory = open_inside(root, request.directory, O_PATH | O_DIRECTORY);
    if (directory < 0)
        fail(STAGE_DIRECTORY);
    set_limits();
    own_stdio();
    close(root);
    become(directory);
    run();
    return 1;
}
