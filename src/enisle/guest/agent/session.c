/* Sessions: the workload's main process, execs, and calls (which are processes of the agent's own program).
 *
 * Output is read only as far as the host has granted credit, so a slow host stops the writer, not the agent; input is
 * kept up to a window that the host knows. Everything is non-blocking. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"

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
    bool terminal, started, failed, exited, closed_told, exit_told, input_ended, main,
        gone;
    int status;
    struct stream streams[STREAMS];
    struct session *next_gone;
    uint32_t credit, input_used, input_done, input_due;
    uint8_t input[INPUT_WINDOW];
};

static struct session *sessions[MAX_SESSIONS], *gone;

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

static void adopt(struct session *session, const struct spawned *made)
{
    session->pid = made->pid;
    for (int s = IN; s <= ERR; s++)
        session->streams[s].fd = made->ours[s];
    session->streams[REPORT].fd = made->report;
}

static void launch(struct session *session, const struct process *process)
{
    struct spawned made = spawn_process(process);
    if (made.pid < 0) {
        refuse(session->channel, errno, "start a process");
        forget(session);
        return;
    }
    adopt(session, &made);
    session->terminal = process->terminal;
    session->main = process->main;
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
    if (!session) {
        refuse(channel, EAGAIN, "too many sessions");
        return;
    }
    struct spawned made = spawn_call(call, r);
    if (made.pid < 0) {
        refuse(channel, errno, "start a process");
        forget(session);
        return;
    }
    adopt(session, &made);
    session->started = true;
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

void session_signal(uint16_t channel, int number, bool all)
{
    struct session *session = find(channel);
    if (all)
        workload_signal(number);
    else if (session && session->pid > 1 && !session->exited)
        kill(session->pid, number);
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

void session_reaped(pid_t pid, int status)
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        workload_check_oom();
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
