/* A client that outruns every server: sends prepared requests over kept connections and times the answers.
 *
 *   load --port=P [--connections=C] [--seconds=S] [--rate=R] [--ramp=S] [--answers=N] [--leave=N]
 *        [--expect=TEXT] <requests
 *
 * Standard input holds requests, each a line with its length and its bytes; they are sent in turns. Every
 * connection sends its next one once the last is answered; with a rate, requests fall due at even intervals
 * and are timed from then, so that one which has to wait for a free connection counts its wait. With a ramp
 * connections begin one after the other, over so many seconds. After the seconds (or so many answers) no more
 * is sent, and what runs may end. An answer has to have the status 200 and the expected text in its last
 * bytes; with `leave` it is left after so many events instead. What came of it all is written as JSON; times
 * are in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)
#define GRACE (120 * SECOND) /* for what still runs at the end */
#define ROOM 65536
#define MOST_HEAD 16384
#define TAIL 4096

enum state { IDLE, HEAD, LENGTH, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER };

struct connection {
    int fd; /* -1 where it is not connected */
    enum state state;
    bool is_fresh, closes, counted; /* no answer yet; after this answer; among those that run */
    bool has_line;                  /* of an event that has not ended */
    int status;
    int64_t started, last_event;
    size_t left, line; /* bytes of the body or chunk; of the line of the stream so far */
    size_t seen; /* events of this answer */
    size_t head_length, tail_length;
    char head[MOST_HEAD + 1], tail[2 * TAIL];
};

/* Exact to a microsecond below 10 ms, then to 100 below a second, then to 10,000. */
struct times { uint64_t counts[10000 + 9900 + 12000], number; int64_t most; };

static struct { char *at; size_t length; } *requests;
static size_t request_count, next_request;
static struct connection *all;
static struct connection **idle;
static size_t idle_count, running;
static struct times latencies, first_bytes, gaps;
static uint64_t answers, failed, events, reconnects, sent, most_answers, leave;
static char failure[600];
static const char *expected;
static int poller, port;
static int64_t ends, next_due, interval;

static void fail(const char *what) { perror(what); exit(1); }

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static void count(struct times *times, int64_t nanoseconds) {
    int64_t micro = nanoseconds / 1000, place;
    if (micro < 10000) place = micro;
    else if (micro < 1000000) place = 10000 + (micro - 10000) / 100;
    else place = 19900 + (micro - 1000000) / 10000;
    times->counts[place < 31900 ? place : 31899]++;
    times->number++;
    if (micro > times->most) times->most = micro;
}

static int64_t percentile(const struct times *times, double part) {
    uint64_t wanted = (uint64_t)((double)times->number * part), seen = 0;
    for (int64_t place = 0; place < 31900; place++)
        if ((seen += times->counts[place]) > wanted) {
            if (place < 10000) return place;
            if (place < 19900) return 10000 + (place - 10000) * 100 + 50;
            return 1000000 + (place - 19900) * 10000 + 5000;
        }
    return times->most;
}

static void tell(const char *name, const struct times *times) {
    printf("\"%s\":{\"number\":%lu,\"p50\":%ld,\"p99\":%ld,\"most\":%ld},", name, (unsigned long)times->number,
           (long)percentile(times, 0.5), (long)percentile(times, 0.99), (long)times->most);
}

static void read_requests(void) {
    size_t length = 0, room = 1 << 20;
    char *all_bytes = malloc(room), *at;
    for (ssize_t more; (more = read(0, all_bytes + length, room - length - 1)) > 0;)
        if ((length += (size_t)more) == room - 1 && !(all_bytes = realloc(all_bytes, room *= 2))) fail("realloc");
    all_bytes[length] = 0;
    for (at = all_bytes; at < all_bytes + length;) {
        char *line_end;
        size_t size = strtoul(at, &line_end, 10);
        requests = realloc(requests, (request_count + 1) * sizeof *requests);
        if (!requests || !size || *line_end != '\n') fail("a request without its length");
        requests[request_count].at = line_end + 1;
        requests[request_count++].length = size;
        at = line_end + 1 + size;
    }
    if (!request_count || at != all_bytes + length) fail("requests are cut off");
}

static void dial(struct connection *one) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1;
    one->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (one->fd < 0 || connect(one->fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
    fcntl(one->fd, F_SETFL, O_NONBLOCK);
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = one};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, one->fd, &wanted)) fail("epoll_ctl");
    one->is_fresh = true;
}

static void hang_up(struct connection *one) {
    close(one->fd);
    one->fd = -1;
}

static void send_request(struct connection *one) {
    if (one->fd < 0) dial(one);
    const char *at = requests[next_request].at;
    size_t left = requests[next_request].length;
    while (left) {
        ssize_t taken = send(one->fd, at, left, MSG_NOSIGNAL);
        if (taken < 0 && errno != EAGAIN) break; /* told by the end of the connection */
        if (taken > 0) at += taken, left -= (size_t)taken;
        else poll(&(struct pollfd){.fd = one->fd, .events = POLLOUT}, 1, 1000);
    }
    one->state = HEAD;
    one->head_length = one->tail_length = one->line = one->seen = 0;
    one->last_event = 0;
    one->head[0] = 0;
    one->has_line = false;
}

static bool may_send(int64_t time) { return time < ends && (!most_answers || sent < most_answers); }

static void begin(struct connection *one, int64_t due) {
    one->started = due;
    next_request = sent++ % request_count;
    if (!one->counted) running++;
    one->counted = true;
    send_request(one);
}

/* Go on with a connection that is free: at once, or with the next request that falls due. */
static void go_on(struct connection *one) {
    int64_t time = now();
    if (!interval && may_send(time)) begin(one, time);
    else if (interval && next_due <= time && may_send(next_due)) {
        begin(one, next_due);
        next_due += interval;
    } else {
        if (one->counted) running--;
        one->counted = false;
        one->state = IDLE;
        idle[idle_count++] = one;
    }
}

static void end_answer(struct connection *one, const char *problem) {
    if (!problem && one->status != 200) problem = "the status is not 200";
    if (!problem && !memmem(one->tail, one->tail_length, expected, strlen(expected)))
        problem = "the answer lacks what is expected";
    if (problem) {
        if (!failed++) {
            int shown = one->tail_length > 300 ? 300 : (int)one->tail_length;
            snprintf(failure, sizeof failure, "%s: %.*s %.*s", problem, one->state == HEAD ? 100 : 12,
                     one->head, shown, one->tail + one->tail_length - shown);
        }
    } else {
        answers++;
        count(&latencies, now() - one->started);
    }
    one->is_fresh = false;
    if (one->closes) hang_up(one);
    go_on(one);
}

/* Hang up in the middle of a stream, as a client does that has seen enough. */
static void depart(struct connection *one) {
    answers++;
    count(&latencies, now() - one->started);
    hang_up(one);
    go_on(one);
}

static void take_event(struct connection *one, int64_t time) {
    events++;
    one->seen++;
    if (one->last_event) count(&gaps, time - one->last_event);
    one->last_event = time;
}

static void take_body(struct connection *one, const char *at, size_t length, int64_t time) {
    if (!one->tail_length && length) count(&first_bytes, time - one->started);
    size_t kept = length > TAIL ? TAIL : length;
    if (one->tail_length + kept > sizeof one->tail) {
        memmove(one->tail, one->tail + one->tail_length - TAIL, TAIL);
        one->tail_length = TAIL;
    }
    memcpy(one->tail + one->tail_length, at + length - kept, kept);
    one->tail_length += kept;
    for (const char *end = at + length, *found; at < end; at = found + 1) { /* an empty line ends an event */
        if (!(found = memchr(at, '\n', (size_t)(end - at)))) {
            one->line += (size_t)(end - at) - (end[-1] == '\r');
            return;
        }
        one->line += (size_t)(found - at) - (found > at && found[-1] == '\r');
        if (!one->line && one->has_line) take_event(one, time);
        one->has_line = one->line;
        one->line = 0;
    }
}

static const char *header(const char *head, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, name, length)) {
            for (line += 2 + length; *line == ' ';) line++;
            return line;
        }
    return NULL;
}

static void take_head(struct connection *one) {
    const char *value;
    one->status = strlen(one->head) > 12 ? atoi(one->head + 9) : 0;
    one->closes = (value = header(one->head, "connection:")) && !strncasecmp(value, "close", 5);
    if ((value = header(one->head, "transfer-encoding:")) && !strncasecmp(value, "chunked", 7)) {
        one->state = CHUNK_SIZE;
        one->left = one->head_length = 0;
    } else if ((value = header(one->head, "content-length:"))) {
        one->state = LENGTH;
        one->left = strtoul(value, NULL, 10);
    } else { /* until the connection ends */
        one->state = LENGTH;
        one->left = SIZE_MAX;
    }
}

/* Take what has arrived, and go on once the answer is whole. */
static void take(struct connection *one, const char *at, size_t length, int64_t time) {
    const char *end = at + length;
    while (at < end || (one->state == LENGTH && !one->left)) {
        switch (one->state) {
        case IDLE:
            return; /* nothing was asked */
        case HEAD:
            one->head[one->head_length++] = *at++;
            one->head[one->head_length] = 0;
            if (one->head_length == MOST_HEAD) return end_answer(one, "its head is too long");
            if (one->head_length > 3 && !memcmp(one->head + one->head_length - 4, "\r\n\r\n", 4)) take_head(one);
            break;
        case LENGTH:
        case CHUNK: {
            size_t part = one->left < (size_t)(end - at) ? one->left : (size_t)(end - at);
            take_body(one, at, part, time);
            if (leave && one->seen >= leave) return depart(one);
            at += part;
            if (one->left != SIZE_MAX) one->left -= part;
            if (!one->left && one->state == LENGTH) return end_answer(one, NULL);
            if (!one->left) one->state = CHUNK_END;
            break;
        }
        case CHUNK_SIZE:
            if (!isxdigit((unsigned char)*at)) one->head_length = 1; /* what follows the size means nothing here */
            else if (!one->head_length)
                one->left = one->left * 16 + (size_t)(*at <= '9' ? *at - '0' : (*at | 32) - 'a' + 10);
            if (*at++ == '\n') {
                one->state = one->left ? CHUNK : TRAILER;
                one->head_length = 0;
            }
            break;
        case CHUNK_END:
            if (*at++ == '\n') {
                one->state = CHUNK_SIZE;
                one->head_length = 0;
            }
            break;
        case TRAILER: /* an empty line ends it */
            if (*at == '\n' && !one->head_length) return end_answer(one, NULL);
            one->head_length = *at == '\n' ? 0 : one->head_length + (*at != '\r');
            at++;
            break;
        }
    }
}

static void lose(struct connection *one) {
    bool was_idle = one->state == IDLE, is_whole = one->state == LENGTH && one->left == SIZE_MAX;
    bool nothing_came = one->state == HEAD && !one->head_length && !one->is_fresh;
    hang_up(one);
    if (was_idle) return;
    if (nothing_came) { /* the server had closed a connection that was kept */
        reconnects++;
        send_request(one);
    } else end_answer(one, is_whole ? NULL : "the connection was cut");
}

static const char *option(int number, char **arguments, const char *name, const char *otherwise) {
    size_t length = strlen(name);
    for (int each = 1; each < number; each++)
        if (!strncmp(arguments[each], "--", 2) && !strncmp(arguments[each] + 2, name, length) &&
            arguments[each][2 + length] == '=')
            return arguments[each] + 3 + length;
    return otherwise;
}

int main(int number, char **arguments) {
    static char received[ROOM];
    port = atoi(option(number, arguments, "port", "0"));
    size_t connections = strtoul(option(number, arguments, "connections", "1"), NULL, 10), begun = 0;
    double seconds = atof(option(number, arguments, "seconds", "3"));
    double rate = atof(option(number, arguments, "rate", "0")), ramp = atof(option(number, arguments, "ramp", "0"));
    most_answers = strtoull(option(number, arguments, "answers", "0"), NULL, 10);
    leave = strtoull(option(number, arguments, "leave", "0"), NULL, 10);
    expected = option(number, arguments, "expect", "");
    read_requests();
    all = calloc(connections, sizeof *all);
    idle = calloc(connections, sizeof *idle);
    if (!all || !idle) fail("calloc");
    poller = epoll_create1(0);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = NULL}, ready[512];
    if (epoll_ctl(poller, EPOLL_CTL_ADD, timer, &wanted)) fail("epoll_ctl");
    int64_t began = now(), step = (int64_t)(ramp * 1e9 / (double)connections), time = began;
    ends = began + (int64_t)(seconds * 1e9);
    interval = rate > 0 ? (int64_t)(1e9 / rate) : 0;
    next_due = began;
    for (;;) {
        time = now();
        for (; begun < connections && began + (int64_t)begun * step <= time; begun++) {
            dial(&all[begun]);
            go_on(&all[begun]);
        }
        while (interval && idle_count && next_due <= time && may_send(next_due)) {
            begin(idle[--idle_count], next_due);
            next_due += interval;
        }
        bool is_over = !may_send(interval && next_due > time ? next_due : time);
        if ((is_over && !running) || time > ends + GRACE) break;
        int64_t next = ends + GRACE;
        if (!is_over && begun < connections) next = began + (int64_t)begun * step;
        if (!is_over && interval && idle_count && next_due < next) next = next_due;
        if (!is_over && !running && ends < next) next = ends;
        struct itimerspec at = {.it_value = {next / SECOND, next % SECOND}};
        if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL)) fail("timerfd_settime");
        int found = epoll_wait(poller, ready, 512, -1);
        for (int each = 0; each < found; each++) {
            struct connection *one = ready[each].data.ptr;
            if (!one || one->fd < 0) continue;
            ssize_t length = recv(one->fd, received, sizeof received, 0);
            if (length > 0) take(one, received, (size_t)length, now());
            else if (!length || errno != EAGAIN) lose(one);
        }
    }
    if (running) {
        if (!failed) snprintf(failure, sizeof failure, "%zu requests were never answered", running);
        failed += running;
    }
    for (char *at = failure; *at; at++) if (*at == '"' || *at == '\\' || *at < ' ') *at = *at == '"' ? '\'' : ' ';
    printf("{\"answers\":%lu,\"failed\":%lu,\"events\":%lu,\"reconnects\":%lu,\"seconds\":%.6f,",
           (unsigned long)answers, (unsigned long)failed, (unsigned long)events, (unsigned long)reconnects,
           (double)(time - began) / 1e9);
    tell("latency", &latencies);
    tell("first_byte", &first_bytes);
    tell("gap", &gaps);
    printf("\"failure\":\"%s\"}\n", failure);
    return 0;
}
