/* An inference server that costs next to nothing: it answers chat completions from prepared bytes.
 *
 *   upstream PORT
 *
 * POST /v1/chat/completions   plain, or streamed: a chunk and a write for each of 34 events. With a model
 *                             named `...-slow-M` a token comes every M milliseconds, 100 of them unless it
 *                             is `...-slow-M-TOKENS`. The chunk with the usage comes where it is asked for.
 * GET /v1/models, /health     as vLLM has them
 * GET /stats                  {"requests", "streams", "aborted", "connections"}
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define FAST_TOKENS 30
#define SLOW_TOKENS 100
#define MOST_PACES 16
#define FIRST_ROOM 16384
#define MOST_ROOM (64 << 20)

struct bytes { char *at; size_t length; };

struct connection {
    int fd;
    struct bytes in, out; /* received and not yet served; not yet taken by the kernel */
    size_t room, out_room;
    bool with_usage;
    struct pace *pace; /* of a slow stream that runs */
    int64_t due;
    int tokens;
    struct connection *before, *after; /* in the queue of its pace */
};

/* Slow streams of one pace, the next to be served first: all wait equally long, so they queue up. */
struct pace { int64_t nanoseconds; struct connection *first, *last; };

static struct bytes plain, models, healthy, missing, needs_length, stream_head;
static struct bytes role, token, finish, usage, done;
static struct pace paces[MOST_PACES];
static long requests, streams, aborted, connections;
static int poller, timer;

static void fail(const char *what) { perror(what); exit(1); }

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static struct bytes text(const char *format, const char *one) {
    struct bytes made;
    int length = asprintf(&made.at, format, one);
    if (length < 0) fail("asprintf");
    made.length = (size_t)length;
    return made;
}

static struct bytes answer(const char *status, const char *body) {
    char format[256];
    snprintf(format, sizeof format,
             "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%%s",
             status, strlen(body));
    return text(format, body);
}

static struct bytes event(const char *choices, const char *rest) {
    struct bytes body = text("data: {\"id\":\"chatcmpl-3f2b8c0a9d4e\",\"object\":\"chat.completion.chunk\","
                             "\"created\":1760000000,\"model\":\"mock\",\"choices\":%s", choices);
    char format[160];
    snprintf(format, sizeof format, "%zx\r\n%%s%s\n\n\r\n", body.length + strlen(rest) + 2, rest);
    return text(format, body.at);
}

static void prepare(void) {
    plain = answer("200 OK",
        "{\"id\":\"chatcmpl-3f2b8c0a9d4e\",\"object\":\"chat.completion\",\"created\":1760000000,"
        "\"model\":\"mock\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
        "\"Paris is the capital of France. It lies on the Seine, has about two million people, and "
        "has been the seat of most French governments since the Middle Ages.\",\"refusal\":null,"
        "\"tool_calls\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":40,"
        "\"completion_tokens\":32,\"total_tokens\":72,\"prompt_tokens_details\":{\"cached_tokens\":0}}}");
    models = answer("200 OK", "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\","
                              "\"created\":1760000000,\"owned_by\":\"dozen\"}]}");
    healthy = answer("200 OK", "{\"status\":\"ok\"}");
    missing = answer("404 Not Found", "{\"error\":{\"message\":\"no such path\",\"code\":404}}");
    needs_length = answer("411 Length Required", "{\"error\":{\"message\":\"a length is needed\",\"code\":411}}");
    stream_head = text("%s", "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                             "transfer-encoding: chunked\r\n\r\n");
    role = event("[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]", "}");
    token = event("[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}]", "}");
    finish = event("[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]", "}");
    usage = event("[]", ",\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":32,\"total_tokens\":72}}");
    done = text("%s", "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
}

static void watch(struct connection *one, uint32_t events, int operation) {
    struct epoll_event wanted = {.events = events, .data.ptr = one};
    if (epoll_ctl(poller, operation, one->fd, &wanted)) fail("epoll_ctl");
}

static void put(struct connection *to, struct bytes what) {
    size_t sent = 0;
    if (!to->out.length) {
        ssize_t taken = send(to->fd, what.at, what.length, MSG_NOSIGNAL);
        if (taken == (ssize_t)what.length) return;
        if (taken < 0 && errno != EAGAIN) return; /* the poller tells of its end */
        if (taken > 0) sent = (size_t)taken;
        watch(to, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
    size_t more = what.length - sent;
    if (to->out.length + more > to->out_room) {
        to->out_room = 2 * (to->out.length + more);
        if (!(to->out.at = realloc(to->out.at, to->out_room))) fail("realloc");
    }
    memcpy(to->out.at + to->out.length, what.at + sent, more);
    to->out.length += more;
}

static void put_rest(struct connection *to) {
    ssize_t taken = send(to->fd, to->out.at, to->out.length, MSG_NOSIGNAL);
    if (taken <= 0) return;
    to->out.length -= (size_t)taken;
    memmove(to->out.at, to->out.at + taken, to->out.length);
    if (!to->out.length) watch(to, EPOLLIN, EPOLL_CTL_MOD);
}

static void end_stream(struct connection *to) {
    put(to, finish);
    if (to->with_usage) put(to, usage);
    put(to, done);
}

static void enqueue(struct connection *one) {
    struct pace *pace = one->pace;
    one->before = pace->last;
    while (one->before && one->before->due > one->due) one->before = one->before->before; /* it is late */
    one->after = one->before ? one->before->after : pace->first;
    if (one->before) one->before->after = one; else pace->first = one;
    if (one->after) one->after->before = one; else pace->last = one;
}

static void dequeue(struct connection *one) {
    if (one->before) one->before->after = one->after; else one->pace->first = one->after;
    if (one->after) one->after->before = one->before; else one->pace->last = one->before;
}

static struct pace *pace_of(int64_t nanoseconds) {
    for (struct pace *pace = paces; pace < paces + MOST_PACES; pace++) {
        if (!pace->nanoseconds) pace->nanoseconds = nanoseconds;
        if (pace->nanoseconds == nanoseconds) return pace;
    }
    fprintf(stderr, "more than %d paces\n", MOST_PACES);
    exit(1);
}

static void set_timer(void) {
    int64_t next = 0;
    for (struct pace *pace = paces; pace < paces + MOST_PACES && pace->nanoseconds; pace++)
        if (pace->first && (!next || pace->first->due < next)) next = pace->first->due;
    struct itimerspec at = {.it_value = {next / 1000000000, next % 1000000000}};
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL)) fail("timerfd_settime");
}

static void serve(struct connection *from);

static void serve_slow_streams(void) {
    int64_t time = now();
    for (struct pace *pace = paces; pace < paces + MOST_PACES && pace->nanoseconds; pace++)
        for (struct connection *one; (one = pace->first) && one->due <= time;) {
            dequeue(one);
            if (one->tokens-- > 0) {
                put(one, token);
                one->due += pace->nanoseconds;
                enqueue(one);
            } else {
                one->pace = NULL;
                end_stream(one);
                serve(one);
            }
        }
    set_timer();
}

static void complete(struct connection *from, const char *body, size_t length) {
    const char *stream = memmem(body, length, "\"stream\"", 8), *end = body + length;
    if (stream) for (stream += 8; stream < end && strchr(" :\t", *stream);) stream++;
    if (!stream || stream >= end || *stream != 't') {
        put(from, plain);
        return;
    }
    streams++;
    from->with_usage = memmem(body, length, "\"include_usage\"", 15);
    put(from, stream_head);
    put(from, role);
    const char *slow = memmem(body, length, "-slow-", 6);
    char *rest;
    long milliseconds = slow ? strtol(slow + 6, &rest, 10) : 0; /* a quote ends it */
    if (milliseconds > 0) {
        from->tokens = *rest == '-' ? (int)strtol(rest + 1, NULL, 10) : SLOW_TOKENS;
        from->pace = pace_of(milliseconds * 1000000);
        from->due = now() + from->pace->nanoseconds;
        enqueue(from);
        set_timer();
        return;
    }
    for (int number = 0; number < FAST_TOKENS; number++) put(from, token);
    end_stream(from);
}

static size_t header_number(const char *head, const char *end, const char *name, size_t otherwise) {
    size_t length = strlen(name);
    for (const char *line = head; line && line + length < end; line = memchr(line, '\n', (size_t)(end - line))) {
        if (*line == '\n') line++;
        if (!strncasecmp(line, name, length)) return strtoul(line + length, NULL, 10);
    }
    return otherwise;
}

/* Answer what has been received whole, one request after the other. */
static void serve(struct connection *from) {
    size_t served = 0;
    while (!from->pace && served < from->in.length) {
        char *head = from->in.at + served, *end;
        size_t left = from->in.length - served;
        if (!(end = memmem(head, left, "\r\n\r\n", 4))) break;
        bool is_post = !strncmp(head, "POST ", 5);
        size_t length = header_number(head, end, "content-length:", is_post ? SIZE_MAX : 0);
        size_t head_length = (size_t)(end - head) + 4;
        if (length == SIZE_MAX) {
            put(from, needs_length);
            shutdown(from->fd, SHUT_RDWR);
            break;
        }
        if (left < head_length + length) break;
        requests++;
        if (!strncmp(head, "POST /v1/chat/completions", 25)) complete(from, head + head_length, length);
        else if (!strncmp(head, "GET /health", 11)) put(from, healthy);
        else if (!strncmp(head, "GET /v1/models", 14)) put(from, models);
        else if (!strncmp(head, "GET /stats", 10)) {
            char body[160];
            snprintf(body, sizeof body, "{\"requests\":%ld,\"streams\":%ld,\"aborted\":%ld,\"connections\":%ld}",
                     requests, streams, aborted, connections);
            struct bytes told = answer("200 OK", body);
            put(from, told);
            free(told.at);
        } else put(from, missing);
        served += head_length + length;
    }
    from->in.length -= served;
    if (served && from->in.length) memmove(from->in.at, from->in.at + served, from->in.length);
}

static void hang_up(struct connection *one) {
    if (one->pace) {
        aborted++;
        dequeue(one);
    }
    connections--;
    close(one->fd);
    free(one->in.at);
    free(one->out.at);
    free(one);
}

static void take(struct connection *from) {
    if (from->in.length + 1 == from->room) { /* one byte stays free, for a zero at the end */
        from->room *= 2;
        if (from->room > MOST_ROOM || !(from->in.at = realloc(from->in.at, from->room))) fail("realloc");
    }
    ssize_t length = recv(from->fd, from->in.at + from->in.length, from->room - from->in.length - 1, 0);
    if (length <= 0) {
        if (!length || errno != EAGAIN) hang_up(from);
        return;
    }
    from->in.length += (size_t)length;
    from->in.at[from->in.length] = 0;
    serve(from);
}

static void meet(int listener) {
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        struct connection *one = calloc(1, sizeof *one);
        if (!one || !(one->in.at = malloc(FIRST_ROOM))) fail("malloc");
        one->fd = fd;
        one->room = FIRST_ROOM;
        connections++;
        watch(one, EPOLLIN, EPOLL_CTL_ADD);
    }
}

int main(int count, char **arguments) {
    if (count != 2) return fprintf(stderr, "usage: upstream PORT\n"), 2;
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* whoever started it is killed: so is this */
    prepare();
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) fail("listen");
    poller = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = &listener}, ready[512];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &wanted);
    wanted.data.ptr = &timer;
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &wanted);
    for (;;) {
        int number = epoll_wait(poller, ready, 512, -1);
        bool is_due = false;
        for (int each = 0; each < number; each++) {
            struct connection *one = ready[each].data.ptr;
            if (ready[each].data.ptr == &listener) meet(listener);
            else if (ready[each].data.ptr == &timer) is_due = true;
            else {
                if (ready[each].events & EPOLLOUT) put_rest(one);
                if (ready[each].events & ~(uint32_t)EPOLLOUT) take(one);
            }
        }
        if (is_due) serve_slow_streams(); /* last, for it closes nothing that an event above may mean */
    }
}
