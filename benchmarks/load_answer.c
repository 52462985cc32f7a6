/* The answers: ICAP (RFC 3507 4.4.1: heads by the Encapsulated field, bodies in chunks) and clamd's lines (clamd(8)). */
#define _GNU_SOURCE
#include "load.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void expect_answer(struct connection *c) {
    c->head_size = c->body_seen = c->line_size = 0;
    c->started = c->status = c->http_status = c->closing = 0;
    c->state = is_clamd() ? S_REPLY_LINE : S_HEAD;
}

static long offset_of(const char *head, const char *name) { /* of one Encapsulated entry, or -1 */
    const char *field = strcasestr(head, "\r\nEncapsulated:");
    if (!field)
        return -1;
    const char *end = strstr(field + 2, "\r\n"), *found = strcasestr(field, name);
    return found && found < end ? strtol(found + strlen(name), NULL, 10) : -1;
}

static ssize_t take_icap_head(struct connection *c, const char *data, size_t size) {
    size_t before = c->head_size, room = HEAD_MAX - 1 - before, copy = size < room ? size : room;
    memcpy(c->head + before, data, copy);
    c->head[before + copy] = 0;
    char *end = memmem(c->head, before + copy, "\r\n\r\n", 4);
    if (!end) {
        c->head_size += copy;
        return copy ? (ssize_t)copy : BROKEN;
    }
    c->head_size = (size_t)(end - c->head) + 4;
    c->head[c->head_size] = 0;
    if (strncmp(c->head, "ICAP/1.0 ", 9))
        return BROKEN;
    c->status = atoi(c->head + 9);
    c->closing = strcasestr(c->head, "\r\nConnection: close") != NULL;
    long body = offset_of(c->head, "res-body="), none = offset_of(c->head, "null-body=");
    if (body < 0)
        body = offset_of(c->head, "req-body=");
    c->has_body = body >= 0;
    c->head_wanted = body > 0 ? (size_t)body : none > 0 ? (size_t)none : 0;
    c->state = c->head_wanted ? S_ENCAPSULATED : c->has_body ? S_CHUNK_LINE : S_DONE;
    c->http_status = c->head_wanted ? -1 : 0;
    return c->head_wanted + 1 < HEAD_MAX ? (ssize_t)(c->head_size - before) : BROKEN;
}

static ssize_t take_encapsulated(struct connection *c, const char *data, size_t size) {
    if (c->http_status == -1) { /* its first byte: its place is the head buffer, from the start */
        c->http_status = 0;
        c->head_size = 0;
    }
    size_t left = c->head_wanted - c->head_size, copy = size < left ? size : left;
    memcpy(c->head + c->head_size, data, copy);
    c->head_size += copy;
    if (c->head_size == c->head_wanted) {
        c->head[c->head_size] = 0;
        if (!strncmp(c->head, "HTTP/1.", 7))
            c->http_status = atoi(c->head + 9);
        else if (option.mode == REQMOD) /* the request came back: what a 200 is in RESPMOD */
            c->http_status = 200;
        c->state = c->has_body ? S_CHUNK_LINE : S_DONE;
    }
    return (ssize_t)copy;
}

static int same_body(const struct connection *c, const char *data, size_t size) { /* against what was sent */
    const struct shape *shape = c->marked ? &marked_shape : &clean_shape;
    size_t at = c->body_seen, end = at + size;
    if (end > shape->body_size)
        return 0;
    for (size_t i = 0; i < option.nonce_count && at < end; i++) {
        size_t begin = option.nonces[i], stop = begin + NONCE < end ? begin + NONCE : end;
        if (begin + NONCE <= at || begin >= end)
            continue;
        if (begin > at) {
            if (memcmp(data, shape->body + at, begin - at))
                return 0;
            data += begin - at;
            at = begin;
        }
        if (memcmp(data, c->nonce + (at - begin), stop - at))
            return 0;
        data += stop - at;
        at = stop;
    }
    return !memcmp(data, shape->body + at, end - at);
}

static ssize_t take_data(struct connection *c, const char *data, size_t size) {
    size_t take = size < c->chunk_left ? size : c->chunk_left;
    if (c->http_status == 200 && !same_body(c, data, take))
        return CHANGED;
    c->body_seen += take;
    c->chunk_left -= take;
    if (!c->chunk_left)
        c->state = S_DATA_END;
    return (ssize_t)take;
}

/* A chunk's size, the line end behind its data, or a trailer line. */
static ssize_t take_line(struct connection *c, const char *data, size_t size) {
    const char *end = memchr(data, '\n', size);
    size_t part = end ? (size_t)(end - data) + 1 : size;
    if (c->line_size + part >= sizeof c->line)
        return BROKEN;
    memcpy(c->line + c->line_size, data, part);
    c->line_size += part;
    if (!end)
        return (ssize_t)part;
    c->line[c->line_size] = 0;
    int blank = c->line_size == 2 && c->line[0] == '\r';
    c->line_size = 0;
    if (c->state == S_DATA_END) {
        c->state = S_CHUNK_LINE;
        return blank ? (ssize_t)part : BROKEN;
    }
    if (c->state == S_TRAILER) {
        if (blank)
            c->state = S_DONE;
        return (ssize_t)part;
    }
    char *rest;
    c->chunk_left = strtoul(c->line, &rest, 16);
    if (rest == c->line)
        return BROKEN;
    c->state = c->chunk_left ? S_DATA : S_TRAILER;
    return (ssize_t)part;
}

/* "1: fd[10]: OK": the status becomes 204 for OK, 200 with 403 for FOUND, as ICAP would say it, else 500. */
static ssize_t take_reply_line(struct connection *c, const char *data, size_t size) {
    const char *end = memchr(data, '\n', size);
    size_t part = end ? (size_t)(end - data) + 1 : size;
    if (c->head_size + part >= HEAD_MAX)
        return BROKEN;
    memcpy(c->head + c->head_size, data, part);
    c->head_size += part;
    c->head[c->head_size] = 0;
    if (end) {
        int found = strstr(c->head, " FOUND\n") != NULL, ok = strstr(c->head, ": OK\n") != NULL;
        c->status = found ? 200 : ok ? 204 : 500;
        c->http_status = found ? 403 : 0;
        c->state = S_DONE;
    }
    return (ssize_t)part;
}

ssize_t take_answer(struct connection *c, const char *data, size_t size) {
    switch (c->state) {
    case S_HEAD: return take_icap_head(c, data, size);
    case S_ENCAPSULATED: return take_encapsulated(c, data, size);
    case S_DATA: return take_data(c, data, size);
    case S_REPLY_LINE: return take_reply_line(c, data, size);
    default: return take_line(c, data, size);
    }
}
