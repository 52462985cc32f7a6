/* Load generator for ICAP servers: RESPMOD with unique bodies over keep-alive connections, closed loop, one thread.
 *
 * Every body is the same random base with 32 bytes of its own at the start (seed of the run and a counter), so no cache of
 * the server or of clamd can help. With --marker every n-th body ends in the marker and must be blocked (200 with
 * an encapsulated 403): a server that does not scan is an error, not a record. Every answer is read to its end by
 * its Encapsulated field and its chunks (RFC 3507 4.4.1), and a body that was copied back is compared byte by byte.
 * The result is one JSON object on standard output.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NONCE 32
#define HEAD_MAX 16384
#define READ_SIZE (256 * 1024)
#define SUB_BITS 5 /* a latency bucket is 1/32 of its power of two wide: 3 % */
#define BUCKETS (64 << SUB_BITS)
#define IOV_BATCH 256

enum error_kind { E_CONNECT, E_CLOSED, E_STATUS, E_FRAMING, E_BODY, E_MISSED, E_FALSE, E_SLOW, E_KINDS };
static const char *error_names[E_KINDS] = {
    "connect", "closed", "status", "framing", "body-differs", "marker-missed", "clean-blocked", "no-answer"};

enum state { S_HEAD, S_ENCAPSULATED, S_CHUNK_LINE, S_DATA, S_DATA_END, S_TRAILER, S_DONE };

struct connection {
    int fd;
    int marked;             /* this request carries the marker */
    int sent;               /* the whole request is on its way */
    int started;            /* a byte of the answer was read */
    enum state state;
    size_t position;        /* byte of the request to send next */
    char nonce[NONCE + 1];
    char head[HEAD_MAX];    /* ICAP head, then encapsulated head */
    size_t head_size;
    size_t head_wanted;     /* length of the encapsulated head */
    int status, http_status, has_body;
    size_t chunk_left, body_seen;
    int line_size;
    char line[64];
    uint64_t begun;
};

static struct {
    const char *host, *service;
    int port, connections, allow204, copy_expected;
    size_t size, chunk;
    double seconds, warmup;
    uint64_t seed, marker_every;
    const char *marker;
    double patience;
} option = {"127.0.0.1", "echo", 1344, 16, 0, 0, 4096, 16384, 5, 1, 1, 0, NULL, 60};

static unsigned char *base;
static struct iovec *pieces, *marked_pieces; /* request as pieces; the nonce piece is patched for each connection */
static size_t piece_count, nonce_piece, request_size;
static struct sockaddr_in server;
static int epoll_fd;
static uint64_t counter, measured_from, measured_to;
static struct {
    uint64_t requests, status200, status204, marked, caught, reconnects, bytes_out, bytes_in, errors[E_KINDS];
    uint64_t latency_max, latency_sum, buckets[BUCKETS];
    char sample[512];
} total;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(2);
}

static uint64_t random_next(uint64_t *state) { /* splitmix64 */
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void count_error(struct connection *c, enum error_kind kind) {
    total.errors[kind]++;
    if (!total.sample[0])
        snprintf(total.sample, sizeof total.sample, "%s: %.200s", error_names[kind], c->head_size ? c->head : "");
}

static void count_latency(uint64_t ns) {
    uint64_t us = ns / 1000;
    unsigned bucket;
    if (us < (1u << SUB_BITS)) {
        bucket = (unsigned)us;
    } else {
        unsigned top = 63u - (unsigned)__builtin_clzll(us), shift = top - SUB_BITS;
        bucket = ((shift + 1) << SUB_BITS) + (unsigned)((us >> shift) & ((1u << SUB_BITS) - 1));
    }
    total.buckets[bucket]++;
    total.latency_sum += ns;
    if (ns > total.latency_max)
        total.latency_max = ns;
}

static double bucket_us(unsigned bucket) { /* middle of a bucket */
    if (bucket < (1u << SUB_BITS))
        return bucket + 0.5;
    unsigned shift = (bucket >> SUB_BITS) - 1;
    double low = (double)((uint64_t)((1u << SUB_BITS) + (bucket & ((1u << SUB_BITS) - 1))) << shift);
    return low + 0.5 * (double)((uint64_t)1 << shift);
}

static double percentile(double part) {
    uint64_t all = 0, seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        all += total.buckets[i];
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += total.buckets[i];
        if (all && (double)seen >= part * (double)all)
            return bucket_us(i);
    }
    return 0;
}

static void add_piece(void *data, size_t size) {
    pieces[piece_count].iov_base = data;
    pieces[piece_count].iov_len = size;
    piece_count++;
    request_size += size;
}

/* The request once, as pieces: head, chunk line, nonce, base, chunk line, base, ... last chunk. */
static void build_request(void) {
    char http[512], icap[1024], line[32];
    const char *get = "GET http://bench.icapscan.test/file.bin HTTP/1.1\r\nHost: bench.icapscan.test\r\n\r\n";
    size_t chunks = (option.size + option.chunk - 1) / option.chunk;
    pieces = calloc(2 * chunks + 8, sizeof *pieces);
    base = malloc(option.size + 8);
    if (!pieces || !base)
        die("memory");
    uint64_t state = option.seed;
    for (size_t i = 0; i < option.size; i += 8) {
        uint64_t word = random_next(&state);
        memcpy(base + i, &word, 8);
    }
    snprintf(http, sizeof http,
             "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %zu\r\n\r\n", option.size);
    snprintf(icap, sizeof icap,
             "RESPMOD icap://%s:%d/%s ICAP/1.0\r\nHost: %s:%d\r\nUser-Agent: icapscan-load\r\n%s"
             "Encapsulated: req-hdr=0, res-hdr=%zu, res-body=%zu\r\n\r\n%s%s",
             option.host, option.port, option.service, option.host, option.port,
             option.allow204 ? "Allow: 204\r\n" : "", strlen(get), strlen(get) + strlen(http), get, http);
    add_piece(strdup(icap), strlen(icap));
    for (size_t at = 0; at < option.size;) {
        size_t size = option.size - at < option.chunk ? option.size - at : option.chunk;
        snprintf(line, sizeof line, "%s%zx\r\n", at ? "\r\n" : "", size);
        add_piece(strdup(line), strlen(line));
        if (at == 0) {
            nonce_piece = piece_count;
            add_piece(base, NONCE);
            add_piece(base + NONCE, size - NONCE);
        } else {
            add_piece(base + at, size);
        }
        at += size;
    }
    add_piece("\r\n0\r\n\r\n", 7);
    if (option.marker) { /* the same with a last piece of base that ends in the marker */
        size_t marker = strlen(option.marker), last = piece_count - 2;
        unsigned char *tail = malloc(pieces[last].iov_len);
        marked_pieces = malloc(piece_count * sizeof *pieces);
        if (!tail || !marked_pieces || pieces[last].iov_len < marker)
            die("the last chunk is too small for the marker");
        memcpy(tail, pieces[last].iov_base, pieces[last].iov_len);
        memcpy(tail + pieces[last].iov_len - marker, option.marker, marker);
        memcpy(marked_pieces, pieces, piece_count * sizeof *pieces);
        marked_pieces[last].iov_base = tail;
    }
}

static void open_connection(struct connection *c) {
    int one = 1;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0)
        die("socket");
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0)
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("epoll_ctl");
}

static void begin_request(struct connection *c) {
    counter++;
    snprintf(c->nonce, sizeof c->nonce, "%016llx%016llx", (unsigned long long)option.seed, (unsigned long long)counter);
    c->marked = option.marker && counter % option.marker_every == 0;
    c->position = c->head_size = c->body_seen = 0;
    c->sent = c->started = c->status = c->http_status = 0;
    c->state = S_HEAD;
    c->begun = now();
}

static int send_more(struct connection *c) { /* 0 = go on, -1 = connection lost */
    struct iovec *from = c->marked ? marked_pieces : pieces, batch[IOV_BATCH];
    while (!c->sent) {
        size_t skip = c->position, index = 0, count = 0;
        while (skip >= from[index].iov_len) {
            skip -= from[index].iov_len;
            index++;
        }
        for (; index < piece_count && count < IOV_BATCH; index++, count++) {
            batch[count] = from[index];
            if (index == nonce_piece)
                batch[count].iov_base = c->nonce;
            batch[count].iov_base = (char *)batch[count].iov_base + skip;
            batch[count].iov_len -= skip;
            skip = 0;
        }
        struct msghdr message = {.msg_iov = batch, .msg_iovlen = count};
        ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        total.bytes_out += (uint64_t)sent;
        c->position += (size_t)sent;
        c->sent = c->position == request_size;
    }
    return 0;
}

static long offset_of(const char *head, const char *name) { /* of one Encapsulated entry, or -1 */
    const char *field = strcasestr(head, "\r\nEncapsulated:");
    if (!field)
        return -1;
    const char *end = strstr(field + 2, "\r\n"), *found = strcasestr(field, name);
    return found && found < end ? strtol(found + strlen(name), NULL, 10) : -1;
}

/* Take the ICAP head or the encapsulated head out of data. Returns bytes used, or -1 for broken framing. */
static ssize_t take_head(struct connection *c, const char *data, size_t size) {
    if (c->state == S_HEAD) {
        size_t before = c->head_size, room = HEAD_MAX - 1 - before, copy = size < room ? size : room;
        memcpy(c->head + before, data, copy);
        c->head[before + copy] = 0;
        char *end = memmem(c->head, before + copy, "\r\n\r\n", 4);
        if (!end) {
            c->head_size += copy;
            return copy ? (ssize_t)copy : -1;
        }
        c->head_size = (size_t)(end - c->head) + 4;
        c->head[c->head_size] = 0;
        if (strncmp(c->head, "ICAP/1.0 ", 9))
            return -1;
        c->status = atoi(c->head + 9);
        long body = offset_of(c->head, "res-body="), none = offset_of(c->head, "null-body=");
        c->has_body = body >= 0;
        c->head_wanted = body > 0 ? (size_t)body : none > 0 ? (size_t)none : 0;
        ssize_t used = (ssize_t)(c->head_size - before);
        c->state = c->head_wanted ? S_ENCAPSULATED : c->has_body ? S_CHUNK_LINE : S_DONE;
        c->line_size = 0;
        c->http_status = c->head_wanted ? -1 : 0;
        return c->head_wanted + 1 < HEAD_MAX ? used : -1;
    }
    if (c->http_status == -1) { /* first byte of the encapsulated head: its place is the head buffer, from the start */
        c->http_status = 0;
        c->head_size = 0;
    }
    size_t left = c->head_wanted - c->head_size, copy = size < left ? size : left;
    memcpy(c->head + c->head_size, data, copy);
    c->head_size += copy;
    if (c->head_size == c->head_wanted) {
        c->head[c->head_size] = 0;
        c->http_status = strncmp(c->head, "HTTP/1.", 7) ? 0 : atoi(c->head + 9);
        c->state = c->has_body ? S_CHUNK_LINE : S_DONE;
    }
    return (ssize_t)copy;
}

static int same_body(struct connection *c, const char *data, size_t size) { /* against what was sent */
    size_t at = c->body_seen;
    if (at + size > option.size)
        return 0;
    if (at < NONCE) {
        size_t part = size < NONCE - at ? size : NONCE - at;
        if (memcmp(data, c->nonce + at, part))
            return 0;
        data += part, at += part, size -= part;
    }
    return !memcmp(data, base + at, size);
}

/* Take one step of the chunked body. Returns bytes used, or -1 for broken framing, -2 for a changed body. */
static ssize_t take_body(struct connection *c, const char *data, size_t size) {
    if (c->state == S_DATA) {
        size_t take = size < c->chunk_left ? size : c->chunk_left;
        if (c->http_status == 200 && !same_body(c, data, take))
            return -2;
        c->body_seen += take;
        c->chunk_left -= take;
        if (!c->chunk_left)
            c->state = S_DATA_END;
        return (ssize_t)take;
    }
    const char *end = memchr(data, '\n', size);
    size_t part = end ? (size_t)(end - data) + 1 : size;
    if (c->line_size + part >= sizeof c->line)
        return -1;
    memcpy(c->line + c->line_size, data, part);
    c->line_size += (int)part;
    if (!end)
        return (ssize_t)part;
    c->line[c->line_size] = 0;
    int blank = c->line_size == 2 && c->line[0] == '\r';
    c->line_size = 0;
    if (c->state == S_DATA_END) {
        c->state = S_CHUNK_LINE;
        return blank ? (ssize_t)part : -1;
    }
    if (c->state == S_TRAILER) {
        if (blank)
            c->state = S_DONE;
        return (ssize_t)part;
    }
    char *rest;
    c->chunk_left = strtoul(c->line, &rest, 16);
    if (rest == c->line)
        return -1;
    c->state = c->chunk_left ? S_DATA : S_TRAILER;
    return (ssize_t)part;
}

static void judge(struct connection *c) { /* a whole answer is here */
    uint64_t end = now();
    int blocked = c->status == 200 && c->http_status == 403;
    int clean = c->status == 204 || (c->status == 200 && c->http_status == 200);
    if (end < measured_from || end > measured_to)
        return;
    if (!blocked && !clean)
        count_error(c, E_STATUS);
    else if (c->marked && !blocked)
        count_error(c, E_MISSED);
    else if (!c->marked && blocked)
        count_error(c, E_FALSE);
    else if (c->status == 204 && !option.allow204)
        count_error(c, E_STATUS);
    else if (clean && c->status == 200 && c->body_seen != option.size)
        count_error(c, E_BODY);
    total.requests++;
    total.status200 += c->status == 200;
    total.status204 += c->status == 204;
    total.marked += (uint64_t)c->marked;
    total.caught += (uint64_t)(c->marked && blocked);
    count_latency(end - c->begun);
}

static void reconnect(struct connection *c) {
    close(c->fd);
    open_connection(c);
    begin_request(c);
}

/* Read what is there; begins the next request when an answer is complete. */
static void serve(struct connection *c, char *buffer) {
    for (;;) {
        if (send_more(c) < 0 && !c->started) {
            total.reconnects++; /* closed between two requests: the server may do that (RFC 3507 4.1) */
            reconnect(c);
            continue;
        }
        ssize_t got = recv(c->fd, buffer, READ_SIZE, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            if (c->started || c->position > 0)
                count_error(c, E_CLOSED);
            total.reconnects++;
            reconnect(c);
            continue;
        }
        total.bytes_in += (uint64_t)got;
        c->started = 1;
        for (ssize_t at = 0; at < got && c->state != S_DONE;) {
            ssize_t used = c->state <= S_ENCAPSULATED ? take_head(c, buffer + at, (size_t)(got - at))
                                                      : take_body(c, buffer + at, (size_t)(got - at));
            if (used < 0) {
                count_error(c, used == -2 ? E_BODY : E_FRAMING);
                reconnect(c);
                break;
            }
            at += used;
            if (c->state == S_DONE && at < got) { /* bytes behind the answer belong to nothing */
                count_error(c, E_FRAMING);
                reconnect(c);
                break;
            }
        }
        if (c->state != S_DONE)
            continue;
        judge(c);
        if (c->sent && c->status < 400) {
            begin_request(c);
        } else { /* an early or an error answer: the server closes, and so do we */
            reconnect(c);
        }
    }
}

static void run(struct connection *all) {
    struct epoll_event events[256];
    char *buffer = malloc(READ_SIZE);
    struct rusage before = {0}, after;
    int measuring = 0;
    if (!buffer)
        die("memory");
    uint64_t start = now(), last_check = start;
    measured_from = start + (uint64_t)(option.warmup * 1e9);
    measured_to = measured_from + (uint64_t)(option.seconds * 1e9);
    for (int i = 0; i < option.connections; i++) {
        open_connection(&all[i]);
        begin_request(&all[i]);
        serve(&all[i], buffer);
    }
    for (uint64_t t = now(); t < measured_to; t = now()) {
        if (!measuring && t >= measured_from) {
            measuring = 1;
            getrusage(RUSAGE_SELF, &before);
            total.bytes_in = total.bytes_out = 0;
            measured_from = t;
            measured_to = t + (uint64_t)(option.seconds * 1e9);
        }
        int count = epoll_wait(epoll_fd, events, 256, 20);
        for (int i = 0; i < count; i++)
            serve(events[i].data.ptr, buffer);
        if (t - last_check > 1000000000u) {
            last_check = t;
            for (int i = 0; i < option.connections; i++)
                if (t > all[i].begun && t - all[i].begun > (uint64_t)(option.patience * 1e9)) {
                    count_error(&all[i], E_SLOW);
                    reconnect(&all[i]);
                }
        }
    }
    getrusage(RUSAGE_SELF, &after);
    double seconds = (double)(now() - measured_from) / 1e9;
    double user = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec) +
                  (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec) / 1e6;
    double kernel = (double)(after.ru_stime.tv_sec - before.ru_stime.tv_sec) +
                    (double)(after.ru_stime.tv_usec - before.ru_stime.tv_usec) / 1e6;
    uint64_t errors = 0;
    printf("{\"requests\": %llu, \"seconds\": %.4f, \"per_second\": %.2f, \"status_200\": %llu, \"status_204\": %llu, ",
           (unsigned long long)total.requests, seconds, (double)total.requests / seconds,
           (unsigned long long)total.status200, (unsigned long long)total.status204);
    printf("\"marked\": %llu, \"caught\": %llu, \"reconnects\": %llu, \"bytes_out\": %llu, \"bytes_in\": %llu, ",
           (unsigned long long)total.marked, (unsigned long long)total.caught, (unsigned long long)total.reconnects,
           (unsigned long long)total.bytes_out, (unsigned long long)total.bytes_in);
    printf("\"latency_us\": {\"mean\": %.1f, \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f}, ",
           total.requests ? (double)total.latency_sum / 1e3 / (double)total.requests : 0.0, percentile(0.5),
           percentile(0.9), percentile(0.99), percentile(0.999), (double)total.latency_max / 1e3);
    printf("\"cpu_seconds\": %.4f, \"cpu_user\": %.4f, \"cpu_system\": %.4f, \"error_kinds\": {", user + kernel, user,
           kernel);
    for (int i = 0; i < E_KINDS; i++) {
        errors += total.errors[i];
        printf("%s\"%s\": %llu", i ? ", " : "", error_names[i], (unsigned long long)total.errors[i]);
    }
    for (char *p = total.sample; *p; p++) /* one line of harmless characters for JSON */
        if ((unsigned char)*p < 32 || (unsigned char)*p > 126 || *p == '"' || *p == '\\')
            *p = *p == '"' ? '\'' : ' ';
    printf("}, \"errors\": %llu, \"first_error\": \"%s\"}\n", (unsigned long long)errors, total.sample);
}

int main(int argc, char **argv) {
    static const struct option names[] = {
        {"port", 1, 0, 'p'},    {"service", 1, 0, 's'}, {"size", 1, 0, 'b'},   {"connections", 1, 0, 'c'},
        {"seconds", 1, 0, 't'}, {"warmup", 1, 0, 'w'},  {"seed", 1, 0, 'r'},   {"allow204", 0, 0, 'a'},
        {"chunk", 1, 0, 'k'},   {"marker", 1, 0, 'm'},  {"every", 1, 0, 'e'},  {"patience", 1, 0, 'x'},
        {"host", 1, 0, 'h'},    {0, 0, 0, 0}};
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
        default: return 2;
        }
    }
    if (option.size < 2 * NONCE || option.chunk < 2 * NONCE || (option.marker && !option.marker_every)) {
        fprintf(stderr, "--size and --chunk need at least %d bytes, --marker needs --every\n", 2 * NONCE);
        return 2;
    }
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)option.port);
    if (inet_pton(AF_INET, option.host, &server.sin_addr) != 1)
        die("host");
    build_request();
    epoll_fd = epoll_create1(0);
    struct connection *all = calloc((size_t)option.connections, sizeof *all);
    if (!all || epoll_fd < 0)
        die("start");
    run(all);
    return 0;
}
