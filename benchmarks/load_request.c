/* The requests: bodies, their framing for ICAP and clamd, and sending them. */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static uint64_t random_next(uint64_t *state) { /* splitmix64 */
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void *grown(void *old, size_t size) {
    void *found = realloc(old, size);
    if (!found)
        die("memory");
    return found;
}

static void add(struct shape *shape, const void *data, size_t size, size_t nonce) {
    if (!size)
        return;
    if (shape->count % 64 == 0)
        shape->pieces = grown(shape->pieces, (shape->count + 64) * sizeof *shape->pieces);
    shape->pieces[shape->count++] = (struct piece){data, size, nonce};
    shape->size += size;
}

static void add_text(struct shape *shape, const char *text, size_t size) {
    add(shape, memcpy(grown(NULL, size + 1), text, size), size, 0);
}

/* Bytes from..to of the body, cut where nonces begin and end. */
static void add_body(struct shape *shape, size_t from, size_t to) {
    for (size_t i = 0; i < option.nonce_count && from < to; i++) {
        size_t begin = option.nonces[i], end = begin + NONCE;
        if (end <= from || begin >= to)
            continue;
        if (begin > from) {
            add(shape, shape->body + from, begin - from, 0);
            from = begin;
        }
        size_t stop = end < to ? end : to;
        add(shape, NULL, stop - from, from - begin);
        from = stop;
    }
    add(shape, shape->body + from, to - from, 0);
}

static unsigned char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    unsigned char *data = NULL;
    *size = 0;
    if (!file)
        die(path);
    for (;;) {
        data = grown(data, *size + 65536);
        size_t got = fread(data + *size, 1, 65536, file);
        if (!got)
            break;
        *size += got;
    }
    if (ferror(file))
        die(path);
    fclose(file);
    return data;
}

static void make_body(struct shape *shape, const char *file, const char *marker) {
    if (file) {
        shape->body = read_file(file, &shape->body_size);
    } else {
        uint64_t state = option.seed;
        shape->body_size = option.size;
        shape->body = grown(NULL, option.size + 8);
        for (size_t i = 0; i < option.size; i += 8) {
            uint64_t word = random_next(&state);
            memcpy(shape->body + i, &word, 8);
        }
    }
    if (marker)
        memcpy(shape->body + shape->body_size - strlen(marker), marker, strlen(marker));
    for (size_t i = 0; i < option.nonce_count; i++)
        if (option.nonces[i] + NONCE > shape->body_size || (i && option.nonces[i] < option.nonces[i - 1] + NONCE)) {
            fprintf(stderr, "--nonce: offsets must rise by %d at least and end inside the body\n", NONCE);
            exit(2);
        }
}

static void add_icap_head(struct shape *shape) {
    char http[1024], icap[4096], get[128] = "", encapsulated[128];
    if (option.mode == OPTIONS) {
        snprintf(icap, sizeof icap, "OPTIONS icap://%s:%d/%s ICAP/1.0\r\nHost: %s:%d\r\nUser-Agent: icapscan-load\r\n\r\n",
                 option.host, option.port, option.service, option.host, option.port);
        add_text(shape, icap, strlen(icap));
        return;
    }
    if (option.mode == RESPMOD) {
        snprintf(get, sizeof get, "GET http://bench.icapscan.test/file.bin HTTP/1.1\r\nHost: bench.icapscan.test\r\n\r\n");
        snprintf(http, sizeof http, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", option.type,
                 shape->body_size);
        snprintf(encapsulated, sizeof encapsulated, "req-hdr=0, res-hdr=%zu, res-body=%zu", strlen(get),
                 strlen(get) + strlen(http));
    } else { /* as g3proxy sends a mail */
        snprintf(http, sizeof http,
                 "PUT http://bench.icapscan.test/ HTTP/1.1\r\nHost: bench.icapscan.test\r\nContent-Type: %s\r\n"
                 "Content-Length: %zu\r\nX-SMTP-From: sender@bench.icapscan.test\r\n"
                 "X-SMTP-To: reader@bench.icapscan.test\r\n\r\n",
                 option.type, shape->body_size);
        snprintf(encapsulated, sizeof encapsulated, "req-hdr=0, req-body=%zu", strlen(http));
    }
    snprintf(icap, sizeof icap,
             "%s icap://%s:%d/%s ICAP/1.0\r\nHost: %s:%d\r\nUser-Agent: icapscan-load\r\n%sEncapsulated: %s\r\n\r\n%s%s",
             option.mode == RESPMOD ? "RESPMOD" : "REQMOD", option.host, option.port, option.service, option.host,
             option.port, option.allow204 ? "Allow: 204\r\n" : "", encapsulated, get, http);
    add_text(shape, icap, strlen(icap));
}

static void build(struct shape *shape) {
    char line[32];
    if (option.mode == FILDES) {
        add_body(shape, 0, shape->body_size);
        return;
    }
    if (option.mode == INSTREAM)
        add_text(shape, "nINSTREAM\n", 10);
    else
        add_icap_head(shape);
    if (option.mode == OPTIONS)
        return;
    for (size_t at = 0; at < shape->body_size;) {
        size_t size = shape->body_size - at < option.chunk ? shape->body_size - at : option.chunk;
        if (option.mode == INSTREAM) {
            uint32_t length = htonl((uint32_t)size);
            add_text(shape, (const char *)&length, 4);
        } else {
            int length = snprintf(line, sizeof line, "%s%zx\r\n", at ? "\r\n" : "", size);
            add_text(shape, line, (size_t)length);
        }
        add_body(shape, at, at + size);
        at += size;
    }
    if (option.mode == INSTREAM)
        add_text(shape, "\0\0\0\0", 4);
    else
        add_text(shape, "\r\n0\r\n\r\n", 7);
}

void build_shapes(void) {
    make_body(&clean_shape, option.body_file, NULL);
    build(&clean_shape);
    if (option.marker_every) {
        make_body(&marked_shape, option.marked_file, option.marker);
        build(&marked_shape);
    }
}

static size_t fill(const struct connection *c, const struct shape *shape, struct iovec *batch) {
    size_t count = 0, skip = c->skip;
    for (size_t i = c->piece; i < shape->count && count < IOV_BATCH; i++, skip = 0) {
        const struct piece *piece = &shape->pieces[i];
        const char *data = piece->data ? piece->data : c->nonce + piece->nonce;
        batch[count++] = (struct iovec){(void *)(data + skip), piece->size - skip};
    }
    return count;
}

static void advance(struct connection *c, const struct shape *shape, size_t done) {
    bytes_out += done;
    c->skip += done;
    while (c->piece < shape->count && c->skip >= shape->pieces[c->piece].size)
        c->skip -= shape->pieces[c->piece++].size;
}

static int send_descriptor(struct connection *c) {
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec text = {"nFILDES\n", 9}; /* and a zero, which carries the descriptor */
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &c->memfd, sizeof(int));
    if (sendmsg(c->fd, &message, MSG_NOSIGNAL) < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    close(c->memfd);
    c->memfd = -1;
    c->sent = 1;
    return 0;
}

/* Each body is a new file, as it is for whoever has just received it. */
static void write_memfd(struct connection *c, const struct shape *shape) {
    struct iovec batch[IOV_BATCH];
    c->memfd = memfd_create("load", MFD_CLOEXEC);
    if (c->memfd < 0)
        die("memfd_create");
    while (c->piece < shape->count) {
        ssize_t done = writev(c->memfd, batch, (int)fill(c, shape, batch));
        if (done < 0)
            die("writev");
        advance(c, shape, (size_t)done);
    }
}

int send_more(struct connection *c) {
    const struct shape *shape = c->marked ? &marked_shape : &clean_shape;
    struct iovec batch[IOV_BATCH];
    while (!c->sent) {
        if (option.mode == FILDES) {
            if (c->memfd < 0)
                write_memfd(c, shape);
            if (send_descriptor(c) < 0)
                return -1;
            if (!c->sent)
                return 0;
            continue;
        }
        struct msghdr message = {.msg_iov = batch, .msg_iovlen = fill(c, shape, batch)};
        ssize_t done = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (done < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        advance(c, shape, (size_t)done);
        c->sent = c->piece == shape->count;
    }
    return 0;
}
