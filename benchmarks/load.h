/* What the files of the load generator share. See load.c for what it does. */
#ifndef LOAD_H
#define LOAD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define NONCE 32        /* hex digits that make a body unlike any other */
#define HEAD_MAX 16384
#define IOV_BATCH 256
#define NONCES_MAX 512

enum mode { RESPMOD, REQMOD, OPTIONS, FILDES, INSTREAM };

enum state { S_HEAD, S_ENCAPSULATED, S_CHUNK_LINE, S_DATA, S_DATA_END, S_TRAILER, S_REPLY_LINE, S_DONE };

struct piece {
    const void *data;       /* NULL: part of the nonce of the connection, from nonce on */
    size_t size, nonce;
};

/* A request as pieces. Bodies of one shape differ in their nonces only. */
struct shape {
    unsigned char *body;
    size_t body_size, count, size;
    struct piece *pieces;
};

struct connection {
    int fd;
    int busy;               /* it has a request */
    int marked;             /* this request has to be blocked */
    int sent;               /* the whole request is on its way */
    int lost;               /* nothing more can be sent */
    int started;            /* a byte of the answer was read */
    int closing;            /* the answer says that the server closes */
    size_t piece, skip;     /* what to send next */
    int memfd;              /* FILDES: the body, or -1 */
    char nonce[NONCE + 1];
    enum state state;
    char head[HEAD_MAX];    /* ICAP head, then encapsulated head; or clamd's line */
    size_t head_size;
    size_t head_wanted;     /* length of the encapsulated head */
    int status, http_status, has_body;
    size_t chunk_left, body_seen;
    size_t line_size;
    char line[64];
    uint64_t begun;         /* when it was to start */
};

struct options {
    enum mode mode;
    const char *host, *service, *unix_path, *marker, *body_file, *marked_file, *type;
    int port, connections, allow204, refusals;
    size_t size, chunk, nonces[NONCES_MAX], nonce_count;
    double seconds, warmup, patience, rate;
    uint64_t seed, marker_every, repeated;
};

extern struct options option;
extern struct shape clean_shape, marked_shape;
extern uint64_t bytes_out;

void die(const char *what);
int is_clamd(void);

/* load_request.c */
void build_shapes(void);
int send_more(struct connection *c); /* 0 = go on, -1 = nothing more can be sent */

/* load_answer.c */
#define BROKEN (-1)
#define CHANGED (-2)
void expect_answer(struct connection *c);
ssize_t take_answer(struct connection *c, const char *data, size_t size); /* bytes used, BROKEN or CHANGED */

#endif
