/* Sessions: the workload's main process, execs, and calls (which are processes of the agent's own program).
 *
 * Output is read only as far as the host has granted credit, so a slow host stops the writer, not the agent; input is
 * kept up to a window that the host knows. Everything is non-blocking. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

enum { IN, OUT, ERR, REPORT, STREAMS };

struct session;
struct stream {
    struct session *session;
    int fd;
    uint32_t watched;
};

struct session {
    uint16_t channel;
    pid_t pid;
    bool terminal, is_call, started, failed, exited, closed_told, exit_told, input_ended, main,
        gone;
    int status;
    struct stream streams[STREAMS];
    struct session *next_gone;
    uint32_t credit, input_used, input_done, input_due;
    uint8_t input[INPUT_WINDOW];
};

pid_t main_pid;
static int main_pidfd = -1, own_pid_ns = -1, main_pid_ns = -1;
static struct session *sessions[MAX_SESSIONS], *gone;
static unsigned long oom_seen;

static struct session *find(uint16_t channel)
{
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (sessions[i] && sessions[i]->channel == channel)
            return sessions[i];
    return NULL;
}

static void tell_failure(uint16_t channel, const struct failure *failure)
{
    uint8_t body[5 + sizeof failure->detail];
    size_t length = strnlen(failure->detail, sizeof failure->detail);
    body[0] = failure->stage;
    put_u32(body + 1, (uint32_t)failure->error);
    memcpy(body + 5, failure->detail, length);
    wire_send(MSG_FAILED, channel, 0, body, (uint32_t)(5 + length));
}

static void refuse(uint16_t channel, int error, const char *why)
{
    struct failure failure = {0};
    errno = error;
    fail(&failure, STAGE_SESSION, "%s", why);
    tell_failure(channel, &failure);
}

static struct session *new_session(uint16_t channel)
{
    for (int i = 0; i < MAX_SESSIONS; i++) {
        if (sessions[i])
            continue;
        struct session *session = calloc(1, sizeof *session);
        if (!session)
            return NULL;
        session->channel = channel;
        session->credit = OUTPUT_WINDOW;
        for (int s = 0; s < STREAMS; s++)
            session->streams[s] = (struct stream){.session = session, .fd = -1};
        return sessions[i] = session;
    }
    return NULL;
}

static void watch(struct stream *stream, uint32_t events)
{
    if (stream->fd < 0 || events == stream->watched)
        return;
    struct epoll_event event = {.events = events, .data = {.ptr = stream}};
    int how = !events ? EPOLL_CTL_DEL : stream->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    epoll_ctl(loop_fd, how, stream->fd, &event);
    stream->watched = events;
}

static void close_stream(struct stream *stream)
{
    watch(stream, 0);
    if (stream->fd >= 0)
        close(stream->fd);
    stream->fd = -1;
}

static void forget(struct session *session)
{
    for (int s = 0; s < STREAMS; s++)
        close_stream(&session->streams[s]);
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (sessions[i] == session)
            sessions[i] = NULL;
    session->gone = true; /* events of this round may still point to it */
    session->next_gone = gone;
    gone = session;
}

static void tell_u32(uint8_t type, const struct session *session, uint32_t value)
{
    uint8_t body[4];
    put_u32(body, value);
    wire_send(type, session->channel, 0, body, 4);
}

/* Reads what may be sent now. */
static void want_output(struct session *session)
{
    bool open = session->started && session->credit && wire_idle();
    for (int s = OUT; s <= ERR; s++)
        watch(&session->streams[s], open ? EPOLLIN : 0);
    watch(&session->streams[IN], session->input_used > session->input_done ? EPOLLOUT : 0);
}

static bool settle(struct session *session)
{
    bool drained = session->streams[OUT].fd < 0 && session->streams[ERR].fd < 0;
    if (session->failed && session->exited) {
        forget(session);
        return true;
    }
    if (!session->started)
        return false;
    if (session->exited && !session->exit_told) {
        if (session->main) {
            wire_flush();
            close_disk();
        }
        tell_u32(MSG_EXITED, session, (uint32_t)session->status);
        session->exit_told = true;
    }
    if (drained && !session->closed_told) {
        wire_send(MSG_CLOSED, session->channel, 0, NULL, 0);
        session->closed_told = true;
    }
    if (session->exit_told && session->closed_told) {
        forget(session);
        return true;
    }
    return false;
}

/* --- starting ------------------------------------------------------------------------------------------------- */

static bool open_pipes(struct session *session, int child[3], bool has_stdin)
{
    int pair[2];
    for (int s = IN; s <= ERR; s++) {
        if (s == IN && !has_stdin) {
            child[IN] = open("/dev/null", O_RDONLY | O_CLOEXEC);
            continue;
        }
        if (pipe2(pair, O_CLOEXEC))
            return false;
        session->streams[s].fd = s == IN ? pair[1] : pair[0];
        child[s] = s == IN ? pair[0] : pair[1];
        fcntl(session->streams[s].fd, F_SETFL, O_NONBLOCK);
    }
    return true;
}

static bool open_terminal(struct session *session, int child[3], const struct process *process)
{
    struct winsize size = {.ws_row = process->rows, .ws_col = process->columns};
    int unlock = 0, master = open(ROOT "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock))
        return false;
    int peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (peer < 0)
        return false;
    if (size.ws_row || size.ws_col)
        ioctl(master, TIOCSWINSZ, &size);
    session->streams[OUT].fd = master;
    session->streams[IN].fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
    for (int s = IN; s <= ERR; s++)
        child[s] = fcntl(peer, F_DUPFD_CLOEXEC, 3);
    close(peer);
    return true;
}

static void take_stdio(const int child[3], bool terminal)
{
    setsid();
    for (int s = 0; s < 3; s++)
        dup2(child[s], s);
    if (terminal)
        ioctl(0, TIOCSCTTY, 0);
}

static void join_cgroup(void)
{
    int fd = open(CGROUP "/workload/cgroup.procs", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "0", 1) != 1)
        errno = 0; /* a kernel without cgroup v2: no figures, nothing else is lost */
    close(fd);
}

bool session_enter(bool processes)
{
    if (main_pidfd < 0)
        return !chroot(ROOT) && !chdir("/");
    int kinds = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | (processes ? CLONE_NEWCGROUP : 0);
    return !setns(main_pidfd, kinds) && !chdir("/");
}

/* A process that does not exec must not keep others' pipes open; it keeps the way into the workload's namespaces. */
void close_inherited(void)
{
    unsigned kept = main_pidfd < 0 ? ~0u : (unsigned)main_pidfd;
    if (kept > 3)
        syscall(SYS_close_range, 3u, kept == ~0u ? kept : kept - 1, 0);
    if (kept != ~0u)
        syscall(SYS_close_range, kept + 1, ~0u, 0);
}

/* The terminal is looked up by its number: the descriptor belongs to the agent's mount namespace, out of which nothing
 * can be bound. */
static void show_console(void)
{
    struct stat status;
    char source[64], name[64];
    int target = make_target("/dev/console", false);
    if (target < 0)
        return;
    if (!fstat(0, &status)) {
        snprintf(source, sizeof source, ROOT "/dev/pts/%u", minor(status.st_rdev));
        snprintf(name, sizeof name, "/proc/self/fd/%d", target);
        mount(source, name, NULL, MS_BIND, NULL);
    }
    close(target);
}

static void become_main(const struct process *process, int report)
{
    join_cgroup();
    unshare(CLONE_NEWCGROUP);
    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    if (process->terminal)
        show_console();
    boot_enter_root();
    run_process(process, report);
}

static void become_exec(const struct process *process, int report)
{
    struct failure failure = {0};
    join_cgroup();
    if (!session_enter(true)) {
        fail(&failure, STAGE_SESSION, "enter the workload's namespaces");
        if (write(report, &failure, sizeof failure) < 0)
            _exit(125);
        _exit(126);
    }
    run_process(process, report);
}

static pid_t fork_into(const struct process *process)
{
    if (process->main)
        return (pid_t)syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | SIGCHLD, 0, 0, 0, 0);
    if (setns(main_pid_ns, CLONE_NEWPID))
        return -1;
    pid_t pid = fork();
    int error = errno;
    if (pid != 0)
        setns(own_pid_ns, CLONE_NEWPID);
    errno = error;
    return pid;
}

static void remember_main(pid_t pid)
{
    char path[64];
    main_pid = pid;
    main_pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    fcntl(main_pidfd, F_SETFD, FD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/%d/ns/pid", pid);
    main_pid_ns = open(path, O_RDONLY | O_CLOEXEC);
    own_pid_ns = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
}

static void launch(struct session *session, const struct process *process)
{
    int child[3] = {-1, -1, -1}, report[2] = {-1, -1};
    bool good = process->terminal ? open_terminal(session, child, process)
                                  : open_pipes(session, child, process->has_stdin);
    good = good && !pipe2(report, O_CLOEXEC);
    pid_t pid = good ? fork_into(process) : -1;
    if (pid == 0) {
        take_stdio(child, process->terminal);
        if (process->main)
            become_main(process, report[1]);
        become_exec(process, report[1]);
    }
    int error = errno;
    for (int s = 0; s < 3; s++)
        if (child[s] >= 0)
            close(child[s]);
    if (report[1] >= 0)
        close(report[1]);
    session->streams[REPORT].fd = report[0];
    if (pid < 0) {
        refuse(session->channel, error, "start a process");
        forget(session);
        return;
    }
    session->pid = pid;
    session->terminal = process->terminal;
    session->main = process->main;
    if (process->main)
        remember_main(pid);
    watch(&session->streams[REPORT], EPOLLIN);
}

void session_run(uint16_t channel, struct reader *r)
{
    struct process *process = take_process(r);
    if (!process)
        refuse(channel, EPROTO, "read the request");
    else if (find(channel) || (process->main ? main_pid != 0 : main_pid == 0))
        refuse(channel, EBUSY, process->main ? "the workload runs already" : "the workload does not run");
    else {
        struct session *session = new_session(channel);
        if (session)
            launch(session, process);
        else
            refuse(channel, EAGAIN, "too many sessions");
    }
    free_process(process);
}

void session_call(uint16_t channel, struct reader *r)
{
    uint8_t call = take_u8(r);
    struct session *session = find(channel) ? NULL : new_session(channel);
    int child[3] = {-1, -1, -1};
    if (!session) {
        refuse(channel, EAGAIN, "too many sessions");
        return;
    }
    session->is_call = session->started = true;
    pid_t pid = open_pipes(session, child, true) ? fork() : -1;
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        take_stdio(child, false);
        close_inherited();
        exit(call_main(call, r));
    }
    for (int s = 0; s < 3; s++)
        if (child[s] >= 0)
            close(child[s]);
    session->pid = pid;
    if (pid < 0) {
        refuse(channel, errno, "start a process");
        forget(session);
        return;
    }
    want_output(session);
}

/* --- running -------------------------------------------------------------------------------------------------- */

static void on_report(struct session *session)
{
    struct failure failure;
    ssize_t n = read(session->streams[REPORT].fd, &failure, sizeof failure);
    close_stream(&session->streams[REPORT]);
    if (n == (ssize_t)sizeof failure) {
        session->failed = true;
        if (session->main)
            close_disk();
        tell_failure(session->channel, &failure);
        for (int s = IN; s <= ERR; s++)
            close_stream(&session->streams[s]);
    } else {
        session->started = true;
        tell_u32(MSG_STARTED, session, (uint32_t)session->pid);
        if (session->main)
            boot_late();
        want_output(session);
    }
    settle(session);
}

static void on_output(struct session *session, struct stream *stream)
{
    static uint8_t buffer[MAX_OUT_BODY];
    if (!wire_idle() || !session->credit) {
        want_output(session);
        return;
    }
    size_t room = session->credit < sizeof buffer ? session->credit : sizeof buffer;
    ssize_t n = read(stream->fd, buffer, room);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) { /* end of a pipe; EIO: nobody has the terminal open any more */
        if (session->terminal)
            close_stream(&session->streams[IN]);
        close_stream(stream);
        settle(session);
        return;
    }
    session->credit -= (uint32_t)n;
    wire_send(MSG_OUTPUT, session->channel, stream == &session->streams[ERR] ? 2 : 1, buffer, (uint32_t)n);
    wire_flush();
    want_output(session);
}

static void grant_input(struct session *session, bool now)
{
    if (session->input_due && (now || session->input_due >= INPUT_WINDOW / 4)) {
        tell_u32(MSG_INPUT_CREDIT, session, session->input_due);
        session->input_due = 0;
    }
}

static void push_input(struct session *session)
{
    struct stream *in = &session->streams[IN];
    while (session->input_done < session->input_used) {
        uint32_t left = session->input_used - session->input_done;
        ssize_t n = in->fd < 0 ? (ssize_t)left : write(in->fd, session->input + session->input_done, left);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            close_stream(in); /* nobody reads: what comes is swallowed */
            continue;
        }
        session->input_done += (uint32_t)n;
        session->input_due += (uint32_t)n;
    }
    bool empty = session->input_done == session->input_used;
    if (empty)
        session->input_done = session->input_used = 0;
    grant_input(session, empty);
    if (empty && session->input_ended && !session->terminal)
        close_stream(in);
    want_output(session);
}

void session_input(uint16_t channel, const uint8_t *data, uint32_t length)
{
    struct session *session = find(channel);
    if (!session || session->input_ended)
        return;
    if (session->input_done) {
        memmove(session->input, session->input + session->input_done, session->input_used - session->input_done);
        session->input_used -= session->input_done;
        session->input_done = 0;
    }
    if (length > INPUT_WINDOW - session->input_used)
        return; /* the host sent more than it was granted */
    memcpy(session->input + session->input_used, data, length);
    session->input_used += length;
    push_input(session);
}

void session_input_end(uint16_t channel)
{
    struct session *session = find(channel);
    if (session) {
        session->input_ended = true;
        push_input(session);
    }
}

void session_credit(uint16_t channel, uint32_t bytes)
{
    struct session *session = find(channel);
    if (!session || bytes > OUTPUT_WINDOW - session->credit)
        return;
    session->credit += bytes;
    want_output(session);
}

void session_event(void *source, uint32_t events)
{
    struct stream *stream = source;
    struct session *session = stream->session;
    (void)events;
    if (session->gone || stream->fd < 0)
        return;
    if (stream == &session->streams[REPORT])
        on_report(session);
    else if (stream == &session->streams[IN])
        push_input(session);
    else
        on_output(session, stream);
}

void session_sweep(void)
{
    while (gone) {
        struct session *next = gone->next_gone;
        free(gone);
        gone = next;
    }
}

void session_resume(void)
{
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (sessions[i])
            want_output(sessions[i]);
}

static void signal_all(int number)
{
    FILE *list = fopen(CGROUP "/workload/cgroup.procs", "re");
    int pid;
    while (list && fscanf(list, "%d", &pid) == 1)
        if (pid > 1)
            kill(pid, number);
    if (list)
        fclose(list);
}

void session_signal(uint16_t channel, int number, bool all)
{
    struct session *session = find(channel);
    if (all)
        signal_all(number);
    else if (session && session->pid > 1 && !session->exited)
        kill(session->pid, number);
}

/* Stops or continues all of the workload, for as long as the host wants to look at it at rest. */
void session_freeze(bool frozen)
{
    int fd = open(CGROUP "/workload/cgroup.freeze", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, frozen ? "1" : "0", 1) != 1)
        errno = 0; /* a kernel without cgroup v2: the host stops the CPUs anyway */
    close(fd);
}

void session_resize(uint16_t channel, uint16_t rows, uint16_t columns)
{
    struct session *session = find(channel);
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    if (session && session->terminal && session->streams[OUT].fd >= 0)
        ioctl(session->streams[OUT].fd, TIOCSWINSZ, &size);
}

void session_abort(uint16_t channel)
{
    struct session *session = find(channel);
    if (!session)
        return;
    if (session->pid > 1 && !session->exited)
        kill(session->pid, SIGKILL);
    for (int s = IN; s <= ERR; s++)
        close_stream(&session->streams[s]);
    settle(session);
}

static void check_oom(void)
{
    FILE *file = fopen(CGROUP "/workload/memory.events", "re");
    char name[32];
    unsigned long value;
    while (file && fscanf(file, "%31s %lu", name, &value) == 2)
        if (!strcmp(name, "oom_kill") && value > oom_seen) {
            oom_seen = value;
            wire_send(MSG_OOM, 0, 0, NULL, 0);
        }
    if (file)
        fclose(file);
}

void session_reaped(pid_t pid, int status)
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        check_oom();
    for (int i = 0; i < MAX_SESSIONS; i++) {
        struct session *session = sessions[i];
        if (!session || session->pid != pid || session->exited)
            continue;
        session->exited = true;
        session->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (session->streams[REPORT].fd >= 0)
            on_report(session); /* it ended before we heard that it began */
        else
            settle(session);
        return;
    }
}
