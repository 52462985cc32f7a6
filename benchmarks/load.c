/* Load generator for ICAP servers and for clamd itself: one thread, epoll, keep-alive connections.
 *
 * Closed loop: each connection sends its next request when its answer is complete. Open loop (--rate): requests are due at
 * even distances, wait while all connections are busy, and their latency counts from when they were due, so that a server
 * that stalls cannot hide it (coordinated omission).
 *
 * Every body is the same but for its nonces, 32 hex digits each from the seed of the run and a counter, so no memory of
 * the server or of clamd can help; --repeated takes that away. Every n-th body is marked and must be blocked (200 with an
 * encapsulated 403; FOUND): a server that does not scan is an error, not a record. Every answer is read to its end, and a
 * body that was copied back is compared byte by byte. The result is one JSON object on standard output.
 */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define READ_SIZE (256 * 1024)
#define SUB_BITS 7 /* a latency bucket is 1/128 of its power of two wide: under 1 % */
#define BUCKETS (64 << SUB_BITS)
#define SECOND 1000000000u

enum error_kind { E_CLOSED, E_STATUS, E_FRAMING, E_BODY, E_MISSED, E_FALSE, E_SLOW, E_KINDS };
static const char *error_names[E_KINDS] = {
    "closed", "status", "framing", "body-differs", "marker-missed", "clean-blocked", "no-answer"};

struct histogram {
    uint64_t count, sum, most, buckets[BUCKETS]; /* nanoseconds */
};

struct options option = {.mode = RESPMOD, .host = "127.0.0.1", .service = "echo", .type = "application/octet-stream",
                         .port = 1344, .connections = 16, .size = 4096, .chunk = 16384, .seconds = 5, .warmup = 1,
                         .seed = 1, .patience = 60};
struct shape clean_shape, marked_shape;
uint64_t bytes_out;

static struct sockaddr_in server;
static struct sockaddr_un unix_server = {.sun_family = AF_UNIX};
static int epoll_fd, timer_fd;
static struct connection *all, **idle;
static size_t idle_count;
static uint64_t counter, started_at, measured_from, measured_to, due_count;
static struct {
    uint64_t requests, status200, status204, marked, caught, refused, reconnects, bytes_in, unsent, unanswered;
    uint64_t errors[E_KINDS];
    struct histogram latency, refusal_latency;
    char sample[512];
} total;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

void die(const char *what) {
    perror(what);
    exit(2);
}

int is_clamd(void) {
    return option.mode == FILDES || option.mode == INSTREAM;
}

static void count_error(struct connection *c, enum error_kind kind) {
    total.errors[kind]++;
    if (!total.sample[0])
        snprintf(total.sample, sizeof total.sample, "%s: %.200s", error_names[kind], c->head_size ? c->head : "");
}

static void count_latency(struct histogram *histogram, uint64_t ns) {
    unsigned bucket = (unsigned)ns;
    if (ns >= 1u << SUB_BITS) {
        unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - SUB_BITS;
        bucket = ((shift + 1) << SUB_BITS) + (unsigned)((ns >> shift) & ((1u << SUB_BITS) - 1));
    }
    histogram->buckets[bucket]++;
    histogram->count++;
    histogram->sum += ns;
    if (ns > histogram->most)
        histogram->most = ns;
}

static void open_connection(struct connection *c) {
    int one = 1;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    c->lost = 0;
    c->fd = socket(is_clamd() ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0)
        die("socket");
    if (is_clamd()) {
        if (connect(c->fd, (struct sockaddr *)&unix_server, sizeof unix_server) < 0)
            die("connect");
        if (send(c->fd, "nIDSESSION\n", 11, MSG_NOSIGNAL) != 11)
            die("send");
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
    } else { /* without waiting: a full backlog must not stop the others */
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
            die("connect");
    }
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("epoll_ctl");
}

static void reopen(struct connection *c) {
    total.reconnects++;
    close(c->fd);
    open_connection(c);
}

static void rewind_request(struct connection *c) {
    c->piece = c->skip = 0;
    c->sent = 0;
    if (c->memfd >= 0)
        close(c->memfd);
    c->memfd = -1;
    expect_answer(c);
}

static void begin_request(struct connection *c, uint64_t begun) {
    uint64_t number = option.repeated ? counter % option.repeated : counter;
    counter++;
    snprintf(c->nonce, sizeof c->nonce, "%016llx%016llx", (unsigned long long)option.seed, (unsigned long long)number);
    c->marked = option.marker_every && counter % option.marker_every == 0;
    c->begun = begun;
    c->busy = 1;
    rewind_request(c);
}

/* What a connection does next: closed loop, the next request; open loop, wait for one that is due. */
static void next_request(struct connection *c) {
    if (option.rate > 0) {
        c->busy = 0;
        c->state = S_DONE;
        idle[idle_count++] = c;
    } else {
        begin_request(c, now());
    }
}

static void judge(struct connection *c) { /* a whole answer is here */
    uint64_t end = now();
    int blocked = c->status == 200 && c->http_status == 403;
    int clean = c->status == 204 || (c->status == 200 && (c->http_status == 200 || option.mode == OPTIONS));
    int refused = option.refusals && c->status == 503;
    int in_time = end >= measured_from && end <= measured_to;
    if (option.rate > 0 ? c->begun >= measured_from && c->begun < measured_to : in_time)
        count_latency(refused ? &total.refusal_latency : &total.latency, end - c->begun);
    if (!in_time)
        return;
    total.refused += (uint64_t)refused;
    if (refused)
        return;
    if (!blocked && !clean)
        count_error(c, E_STATUS);
    else if (c->marked && !blocked)
        count_error(c, E_MISSED);
    else if (!c->marked && blocked)
        count_error(c, E_FALSE);
    else if (c->status == 204 && !option.allow204 && !is_clamd())
        count_error(c, E_STATUS);
    else if (clean && c->status == 200 && option.mode != OPTIONS && c->body_seen != clean_shape.body_size)
        count_error(c, E_BODY);
    else
        total.requests++;
    total.status200 += c->status == 200;
    total.status204 += c->status == 204;
    total.marked += (uint64_t)c->marked;
    total.caught += (uint64_t)(c->marked && blocked);
}

static void give_up(struct connection *c, enum error_kind kind) {
    if (now() >= measured_from)
        count_error(c, kind);
    reopen(c);
    if (c->busy)
        next_request(c);
}

/* The peer has closed. Before anything was sent it may do that (RFC 3507 4.1), and the request goes over a new connection. */
static void closed(struct connection *c) {
    if (c->busy && (c->started || c->piece || c->skip || c->sent)) {
        give_up(c, E_CLOSED);
        return;
    }
    reopen(c);
    if (c->busy)
        rewind_request(c);
}

/* Feed the parser; 0 = go on reading, -1 = the connection was replaced. */
static int take(struct connection *c, const char *buffer, size_t size) {
    for (size_t at = 0; at < size;) {
        if (c->state == S_DONE) { /* bytes that belong to nothing */
            give_up(c, E_FRAMING);
            return -1;
        }
        ssize_t used = take_answer(c, buffer + at, size - at);
        if (used < 0) {
            give_up(c, used == CHANGED ? E_BODY : E_FRAMING);
            return -1;
        }
        at += (size_t)used;
    }
    return 0;
}

/* Send what can be sent and read what is there; begins the next request when an answer is complete. */
static void serve(struct connection *c, char *buffer) {
    for (;;) {
        if (c->busy && !c->lost && send_more(c) < 0)
            c->lost = 1; /* its answer may be here all the same */
        ssize_t got = recv(c->fd, buffer, READ_SIZE, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            closed(c);
            continue;
        }
        total.bytes_in += (uint64_t)got;
        c->started = c->busy;
        if (take(c, buffer, (size_t)got) < 0 || c->state != S_DONE || !c->busy)
            continue;
        judge(c);
        if (!c->sent || c->lost || c->closing || (c->status >= 400 && c->status != 503))
            reopen(c); /* an early answer, or one after which the server closes */
        next_request(c);
    }
}

static uint64_t due(uint64_t number) {
    return started_at + (uint64_t)((double)number * 1e9 / option.rate);
}

/* Open loop: start what is due, and set the timer for the next one. */
static void start_due(char *buffer) {
    uint64_t t;
    while (idle_count && due(due_count) <= (t = now()) && t < measured_to) {
        struct connection *c = idle[--idle_count];
        begin_request(c, due(due_count++));
        serve(c, buffer);
    }
    if (idle_count) {
        uint64_t next = due(due_count);
        struct itimerspec when = {.it_value = {(time_t)(next / SECOND), (long)(next % SECOND)}};
        timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
    }
}

static void end_slow(uint64_t t) {
    for (int i = 0; i < option.connections; i++)
        if (all[i].busy && t > all[i].begun && t - all[i].begun > (uint64_t)(option.patience * 1e9))
            give_up(&all[i], E_SLOW);
}

static void turn(char *buffer) { /* at most 20 ms of waiting */
    static uint64_t last_check;
    struct epoll_event events[256];
    int count = epoll_wait(epoll_fd, events, 256, 20);
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr)
            serve(events[i].data.ptr, buffer);
    uint64_t t = now();
    if (t - last_check > SECOND) {
        last_check = t;
        end_slow(t);
    }
    if (option.rate > 0)
        start_due(buffer);
}

static int any_busy(void) {
    for (int i = 0; i < option.connections; i++)
        if (all[i].busy)
            return 1;
    return 0;
}

/* Open loop: wait for what was sent; what never was counts with the time that it had waited already. */
static void finish_open(char *buffer) {
    uint64_t until = measured_to + (uint64_t)(option.patience * 1e9), t;
    while ((t = now()) < until && any_busy())
        turn(buffer);
    for (int i = 0; i < option.connections; i++)
        total.unanswered += (uint64_t)all[i].busy;
    for (; due(due_count) < measured_to; due_count++)
        if (due(due_count) >= measured_from) {
            total.unsent++;
            count_latency(&total.latency, measured_to - due(due_count));
        }
}

static void print_histogram(const char *name, const struct histogram *histogram) {
    printf("\"%s\": {\"count\": %llu, \"sum_ns\": %llu, \"max_ns\": %llu, \"buckets\": [", name,
           (unsigned long long)histogram->count, (unsigned long long)histogram->sum, (unsigned long long)histogram->most);
    const char *comma = "";
    for (unsigned i = 0; i < BUCKETS; i++)
        if (histogram->buckets[i]) {
            printf("%s[%u, %llu]", comma, i, (unsigned long long)histogram->buckets[i]);
            comma = ", ";
        }
    printf("]}, ");
}

static double seconds_of(struct timeval after, struct timeval before) {
    return (double)(after.tv_sec - before.tv_sec) + (double)(after.tv_usec - before.tv_usec) / 1e6;
}

static void print_result(double seconds, const struct rusage *before, const struct rusage *after, uint64_t sent) {
    double user = seconds_of(after->ru_utime, before->ru_utime), kernel = seconds_of(after->ru_stime, before->ru_stime);
    uint64_t errors = 0;
    printf("{\"requests\": %llu, \"seconds\": %.4f, \"ended_ns\": %llu, \"per_second\": %.2f, \"status_200\": %llu, \"status_204\": %llu, ",
           (unsigned long long)total.requests, seconds, (unsigned long long)measured_to, (double)total.requests / seconds,
           (unsigned long long)total.status200, (unsigned long long)total.status204);
    printf("\"marked\": %llu, \"caught\": %llu, \"refused\": %llu, \"unsent\": %llu, \"unanswered\": %llu, ",
           (unsigned long long)total.marked, (unsigned long long)total.caught, (unsigned long long)total.refused,
           (unsigned long long)total.unsent, (unsigned long long)total.unanswered);
    printf("\"reconnects\": %llu, \"bytes_out\": %llu, \"bytes_in\": %llu, ", (unsigned long long)total.reconnects,
           (unsigned long long)sent, (unsigned long long)total.bytes_in);
    print_histogram("latency", &total.latency);
    print_histogram("refusal_latency", &total.refusal_latency);
    printf("\"cpu_user\": %.4f, \"cpu_system\": %.4f, \"error_kinds\": {", user, kernel);
    for (int i = 0; i < E_KINDS; i++) {
        errors += total.errors[i];
        printf("%s\"%s\": %llu", i ? ", " : "", error_names[i], (unsigned long long)total.errors[i]);
    }
    for (char *p = total.sample; *p; p++) /* one line of harmless characters for JSON */
        if ((unsigned char)*p < 32 || (unsigned char)*p > 126 || *p == '"' || *p == '\\')
            *p = *p == '"' ? '\'' : ' ';
    printf("}, \"errors\": %llu, \"first_error\": \"%s\"}\n", (unsigned long long)errors, total.sample);
}

static void run(void) {
    char *buffer = malloc(READ_SIZE);
    struct rusage before = {0}, after;
    int measuring = 0;
    if (!buffer)
        die("memory");
    for (int i = 0; i < option.connections; i++) {
        all[i].memfd = -1;
        open_connection(&all[i]);
    }
    started_at = now();
    measured_from = started_at + (uint64_t)(option.warmup * 1e9);
    measured_to = measured_from + (uint64_t)(option.seconds * 1e9);
    for (int i = 0; i < option.connections; i++) {
        next_request(&all[i]);
        serve(&all[i], buffer);
    }
    for (uint64_t t = now(); t < measured_to; t = now()) {
        if (!measuring && t >= measured_from) {
            measuring = 1;
            getrusage(RUSAGE_SELF, &before);
            total.bytes_in = bytes_out = 0;
            measured_from = t;
            measured_to = t + (uint64_t)(option.seconds * 1e9);
        }
        turn(buffer);
    }
    getrusage(RUSAGE_SELF, &after);
    double seconds = (double)(measured_to - measured_from) / 1e9;
    uint64_t sent = bytes_out;
    if (option.rate > 0)
        finish_open(buffer);
    print_result(seconds, &before, &after, sent);
}

static enum mode mode_of(const char *name) {
    static const char *names[] = {"respmod", "reqmod", "options", "fildes", "instream"};
    for (int i = RESPMOD; i <= INSTREAM; i++)
        if (!strcmp(name, names[i]))
            return (enum mode)i;
    fprintf(stderr, "--mode %s: one of respmod, reqmod, options, fildes, instream\n", name);
    exit(2);
}

static void read_nonces(const char *text) {
    option.nonce_count = 0;
    for (char *end; *text; text = *end ? end + 1 : end) {
        if (option.nonce_count == NONCES_MAX) {
            fprintf(stderr, "--nonce: at most %d offsets\n", NONCES_MAX);
            exit(2);
        }
        option.nonces[option.nonce_count++] = strtoull(text, &end, 10);
    }
}

static void read_options(int argc, char **argv) {
    static const struct option names[] = {
        {"port", 1, 0, 'p'},     {"service", 1, 0, 's'}, {"size", 1, 0, 'b'},     {"connections", 1, 0, 'c'},
        {"seconds", 1, 0, 't'},  {"warmup", 1, 0, 'w'},  {"seed", 1, 0, 'r'},     {"allow204", 0, 0, 'a'},
        {"chunk", 1, 0, 'k'},    {"marker", 1, 0, 'm'},  {"every", 1, 0, 'e'},    {"patience", 1, 0, 'x'},
        {"host", 1, 0, 'h'},     {"mode", 1, 0, 'o'},    {"unix", 1, 0, 'u'},     {"body", 1, 0, 'B'},
        {"marked", 1, 0, 'M'},   {"nonce", 1, 0, 'n'},   {"type", 1, 0, 'T'},     {"repeated", 2, 0, 'R'},
        {"rate", 1, 0, 'q'},     {"refusals", 0, 0, 'f'}, {0, 0, 0, 0}};
    const char *nonces = NULL;
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (o) {
        case 'p': option.port = atoi(optarg); break;
        case 's': option.service = optarg; break;
        case 'b': option.size = strtoull(optarg, NULL, 10); break;
        case 'c': option.connections = atoi(optarg); break;
        case 't': option.seconds = atof(optarg); break;
        case 'w': option.warmup = atof(optarg); break;
        case 'r': option.seed = strtoull(optarg, NULL, 10); break;
        case 'a': option.allow204 = 1; break;
        case 'k': option.chunk = strtoull(optarg, NULL, 10); break;
        case 'm': option.marker = optarg; break;
        case 'e': option.marker_every = strtoull(optarg, NULL, 10); break;
        case 'x': option.patience = atof(optarg); break;
        case 'h': option.host = optarg; break;
        case 'o': option.mode = mode_of(optarg); break;
        case 'u': option.unix_path = optarg; break;
        case 'B': option.body_file = optarg; break;
        case 'M': option.marked_file = optarg; break;
        case 'n': nonces = optarg; break;
        case 'T': option.type = optarg; break;
        case 'R': option.repeated = optarg ? strtoull(optarg, NULL, 10) : 1; break;
        case 'q': option.rate = atof(optarg); break;
        case 'f': option.refusals = 1; break;
        default: exit(2);
        }
    }
    if (option.mode != OPTIONS)
        read_nonces(nonces ? nonces : option.body_file ? "" : "0");
}

static void check_options(void) {
    const char *wrong = NULL;
    if (option.connections < 1 || !option.chunk)
        wrong = "--connections and --chunk: at least 1";
    else if (!option.body_file && option.size < 2 * NONCE && option.mode != OPTIONS)
        wrong = "--size: too small";
    else if (option.marker_every && (option.body_file ? !option.marked_file : !option.marker))
        wrong = "--every needs --marker, and with --body --marked";
    else if (!option.marker_every && (option.marker || option.marked_file))
        wrong = "--marker and --marked need --every";
    else if (option.marker && (option.body_file || strlen(option.marker) + NONCE > option.size))
        wrong = "--marker: for a generated body that has room for it";
    else if (option.body_file && !option.nonce_count && !option.repeated)
        wrong = "--body needs --nonce or --repeated";
    else if (is_clamd() && (!option.unix_path || strlen(option.unix_path) >= sizeof unix_server.sun_path))
        wrong = "clamd's modes need --unix and a short path";
    if (wrong) {
        fprintf(stderr, "%s\n", wrong);
        exit(2);
    }
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    check_options();
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)option.port);
    if (inet_pton(AF_INET, option.host, &server.sin_addr) != 1)
        die("host");
    if (option.unix_path)
        strcpy(unix_server.sun_path, option.unix_path);
    build_shapes();
    epoll_fd = epoll_create1(0);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    all = calloc((size_t)option.connections, sizeof *all);
    idle = calloc((size_t)option.connections, sizeof *idle);
    struct epoll_event timer = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    if (!all || !idle || epoll_fd < 0 || timer_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &timer) < 0)
        die("start");
    run();
    return 0;
}
