/*
 * floor.c - one run of the straight-line program.
 *
 * A: pread 256 KiB of records → LZ4 → HMAC-SHA256 → header and body in one sendmsg. B: recv into
 * one buffer as much as there is → HMAC → decompress (the check of what is stored) → pwrite the
 * compressed bytes → fdatasync every 4 MiB of raw → the durable position back. With crc, both sides
 * also check CRC and order of every record, and blocks end at record boundaries, as the daemon's
 * batches do.
 *
 * It is meant to be hard to beat: one thread a side, no state machine, no position per shard, no
 * admission, nothing shared, memory touched before the clock starts, an output file that was
 * written before. The first quarter second is not counted. Rejected: header and body by two
 * receives (a quarter more processor time at B), a file that grows (the sync then also writes
 * metadata).
 */
#include "bench/floor.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <lz4.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "bench/pair.h"

#define TAG_BYTES       32
#define SYNC_RAW_BYTES  (4u << 20)
#define OUTPUT_BYTES    (256u << 20)
#define BLOCK_MAX_BYTES (1u << 20)
/* LZ4_COMPRESSBOUND and some. */
#define BODY_MAX_BYTES (BLOCK_MAX_BYTES + (BLOCK_MAX_BYTES >> 7) + 64)
#define RECV_BYTES     (2u * (BODY_MAX_BYTES + 4096))
#define WARM_UP_NS     250000000ull

enum block_kind {
    BLOCK_DATA,
    BLOCK_START /* the clock starts */,
    BLOCK_END
};

/* Same machine, same program: host byte order will do. */
struct floor_header {
    uint8_t tag[TAG_BYTES]; /* over the rest and the body */
    uint32_t kind;
    uint32_t raw_bytes, stored_bytes;
    uint32_t lane;
    uint64_t lsn;
    uint64_t position; /* raw bytes before this block */
};

struct floor_run {
    const struct bench_settings *settings;
    const struct bench_corpus *corpus;
    bool crc;
    char output[CFSR_PATH_MAX + 32];
};

struct floor_shared {
    double elapsed_s, cpu_a_s, cpu_b_s, busy_s;
    uint64_t raw_bytes, wire_bytes;
};

struct floor_mac {
    EVP_MAC *mac;
    EVP_MAC_CTX *context;
};

static int mac_open(struct floor_mac *mac)
{
    static const char key[] = "this key of the floor is no secret";
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){"SHA256"}, 0),
        OSSL_PARAM_construct_end()};

    mac->mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    mac->context = EVP_MAC_CTX_new(mac->mac);
    if (mac->context == NULL ||
        EVP_MAC_init(mac->context, (const uint8_t *)key, sizeof key - 1, parameters) != 1)
        return cfsr_fail(-ENOTSUP, "OpenSSL has no HMAC-SHA256");
    return 0;
}

/* The key's state is kept: init without key only rewinds. */
static void mac_block(struct floor_mac *mac, const struct floor_header *header, const void *body,
                      uint8_t tag_out[TAG_BYTES])
{
    size_t len;

    EVP_MAC_init(mac->context, NULL, 0, NULL);
    EVP_MAC_update(mac->context, (const uint8_t *)header + TAG_BYTES, sizeof *header - TAG_BYTES);
    EVP_MAC_update(mac->context, body, header->stored_bytes);
    EVP_MAC_final(mac->context, tag_out, &len, TAG_BYTES);
}

/* ---- A ---- */

struct floor_a {
    const struct floor_run *run;
    struct floor_shared *shared;
    struct floor_mac mac;
    struct bench_corpus_cursor cursor;
    int socket;
    uint8_t *raw, *body;
    void *lz4;
    uint64_t position, acked, wire_bytes;
};

static int send_block(struct floor_a *a, struct floor_header *header)
{
    struct iovec pieces[2] = {{.iov_base = header, .iov_len = sizeof *header},
                              {.iov_base = a->body, .iov_len = header->stored_bytes}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
    size_t left = sizeof *header + header->stored_bytes;
    ssize_t sent;

    mac_block(&a->mac, header, a->body, header->tag);
    sent = sendmsg(a->socket, &message, MSG_NOSIGNAL);
    if (sent < 0)
        return -errno;
    a->wire_bytes += left;
    left -= (size_t)sent;
    if (left > header->stored_bytes)
        return -EIO; /* a blocking send takes more than a header */
    return bench_send_all(a->socket, a->body + header->stored_bytes - left, left);
}

static int send_mark(struct floor_a *a, enum block_kind kind)
{
    struct floor_header header = {.kind = kind, .position = a->position};

    return send_block(a, &header);
}

static int send_records(struct floor_a *a)
{
    struct floor_header header = {.kind = BLOCK_DATA, .position = a->position};
    struct bench_block block;
    int stored, rc = bench_corpus_read(&a->cursor, a->raw, a->run->settings->block_bytes, &block);

    if (rc < 0)
        return rc;
    if (a->run->crc) {
        struct cfsr_scan scan;

        bench_corpus_scan_init(a->run->corpus, &block, a->raw, &scan);
        rc = cfsr_record_scan(&scan);
        if (rc < 0 || scan.raw_bytes == 0)
            return cfsr_fail(rc < 0 ? rc : -EIO, "the corpus does not check at lane %u, LSN %llu",
                             block.lane, (unsigned long long)scan.next_lsn);
        bench_corpus_unread(&a->cursor, &block, block.len_bytes - scan.raw_bytes);
        block.len_bytes = scan.raw_bytes;
    }
    stored = LZ4_compress_fast_extState(a->lz4, (const char *)a->raw, (char *)a->body,
                                        (int)block.len_bytes, BODY_MAX_BYTES, 1);
    if (stored <= 0)
        return cfsr_fail(-EIO, "LZ4 failed");
    header.raw_bytes = block.len_bytes;
    header.stored_bytes = (uint32_t)stored;
    header.lane = block.lane;
    header.lsn = block.lsn;
    a->position += block.len_bytes;
    return send_block(a, &header);
}

static int take_acks(struct floor_a *a, bool wait)
{
    for (;;) {
        uint64_t acked;
        ssize_t got = recv(a->socket, &acked, sizeof acked, wait ? MSG_WAITALL : MSG_DONTWAIT);

        if (got < 0 && errno == EAGAIN)
            return 0;
        if (got != (ssize_t)sizeof acked)
            return got < 0 ? -errno : -EPIPE;
        a->acked = acked;
        if (wait && acked == a->position)
            return 0;
    }
}

static int ship(struct floor_a *a, uint64_t duration_ns)
{
    uint64_t until_ns = cfsr_clock_monotonic_ns() + duration_ns;
    int rc;

    do {
        rc = send_records(a);
        if (rc >= 0)
            rc = take_acks(a, false);
    } while (rc >= 0 && cfsr_clock_monotonic_ns() < until_ns);
    return rc;
}

static int run_a(int socket, void *argument, void *shared)
{
    struct floor_a a = {.run = argument, .shared = shared, .socket = socket};
    uint64_t began_ns, skipped;
    double cpu_s, busy_s;
    int rc = mac_open(&a.mac);

    a.cursor.corpus = a.run->corpus;
    a.raw = bench_map(BLOCK_MAX_BYTES, false);
    a.body = bench_map(BODY_MAX_BYTES, false);
    a.lz4 = calloc(1, (size_t)LZ4_sizeofState());
    if (rc < 0 || a.raw == NULL || a.body == NULL || a.lz4 == NULL)
        return rc < 0 ? rc : -ENOMEM;
    rc = ship(&a, WARM_UP_NS);
    if (rc >= 0)
        rc = send_mark(&a, BLOCK_START);
    if (rc < 0)
        return rc;
    skipped = a.position;
    a.wire_bytes = 0;
    busy_s = bench_cpu_busy_s();
    cpu_s = bench_cpu_self_s();
    began_ns = cfsr_clock_monotonic_ns();
    rc = ship(&a, a.run->settings->run_us * 1000);
    if (rc >= 0)
        rc = send_mark(&a, BLOCK_END);
    if (rc >= 0)
        rc = take_acks(&a, true);
    a.shared->elapsed_s = (double)(cfsr_clock_monotonic_ns() - began_ns) / 1e9;
    a.shared->cpu_a_s = bench_cpu_self_s() - cpu_s;
    a.shared->busy_s = bench_cpu_busy_s() - busy_s;
    a.shared->raw_bytes = a.position - skipped;
    a.shared->wire_bytes = a.wire_bytes;
    return rc;
}

/* ---- B ---- */

struct floor_b {
    const struct floor_run *run;
    struct floor_shared *shared;
    struct floor_mac mac;
    int socket, output;
    uint8_t *in, *raw;
    size_t begin, end; /* of the bytes not looked at yet */
    uint64_t output_at, unsynced_raw, position;
    double cpu_s;
};

static int sync_and_ack(struct floor_b *b)
{
    if (fdatasync(b->output) != 0)
        return cfsr_fail(-errno, "fdatasync failed");
    b->unsynced_raw = 0;
    return bench_send_all(b->socket, &b->position, sizeof b->position);
}

/* What arrived is what was sent: the bytes that are stored decompress, and with crc, their records
 * are sound. */
static int check_records(struct floor_b *b, const struct floor_header *header, const uint8_t *body)
{
    int raw_bytes = LZ4_decompress_safe((const char *)body, (char *)b->raw,
                                        (int)header->stored_bytes, BLOCK_MAX_BYTES);

    if (raw_bytes != (int)header->raw_bytes)
        return cfsr_fail(-CFSR_E_DECOMPRESS, "a block does not decompress");
    if (b->run->crc) {
        struct bench_block block = {
            .lsn = header->lsn, .lane = header->lane, .len_bytes = header->raw_bytes};
        struct cfsr_scan scan;
        int rc;

        bench_corpus_scan_init(b->run->corpus, &block, b->raw, &scan);
        scan.wire_form = true;
        rc = cfsr_record_scan(&scan);
        if (rc < 0 || scan.raw_bytes != block.len_bytes)
            return cfsr_fail(-CFSR_E_CHECKSUM, "a block's records do not check");
    }
    return 0;
}

/* bytes: the header as it came, and the body. */
static int store_block(struct floor_b *b, const struct floor_header *header, const uint8_t *bytes)
{
    size_t len = sizeof *header + header->stored_bytes;
    int rc = check_records(b, header, bytes + sizeof *header);

    if (rc < 0)
        return rc;
    if (b->output_at + len > OUTPUT_BYTES)
        b->output_at = 0;
    if (pwrite(b->output, bytes, len, (off_t)b->output_at) != (ssize_t)len)
        return cfsr_fail(-EIO, "cannot write the floor's output");
    b->output_at += len;
    b->position = header->position + header->raw_bytes;
    b->unsynced_raw += header->raw_bytes;
    return b->unsynced_raw >= SYNC_RAW_BYTES ? sync_and_ack(b) : 0;
}

/* 1: the end. */
static int take_block(struct floor_b *b, const struct floor_header *header, const uint8_t *bytes)
{
    uint8_t tag[TAG_BYTES];

    mac_block(&b->mac, header, bytes + sizeof *header, tag);
    if (CRYPTO_memcmp(tag, header->tag, TAG_BYTES) != 0)
        return cfsr_fail(-CFSR_E_BAD_TAG, "a block's tag is wrong");
    switch (header->kind) {
    case BLOCK_START: b->cpu_s = bench_cpu_self_s(); return 0;
    case BLOCK_END: b->position = header->position; return 1;
    default: return store_block(b, header, bytes);
    }
}

/* Takes the whole blocks that are there. 1: the end. */
static int take_blocks(struct floor_b *b)
{
    while (b->end - b->begin >= sizeof(struct floor_header)) {
        struct floor_header header;
        int rc;

        memcpy(&header, b->in + b->begin, sizeof header);
        if (header.stored_bytes > BODY_MAX_BYTES)
            return cfsr_fail(-CFSR_E_BAD_FRAME, "a block is too long");
        if (b->end - b->begin < sizeof header + header.stored_bytes)
            return 0;
        rc = take_block(b, &header, b->in + b->begin);
        if (rc != 0)
            return rc;
        b->begin += sizeof header + header.stored_bytes;
    }
    return 0;
}

static int receive(struct floor_b *b)
{
    ssize_t got;

    /* What is left of a block moves to the front only when the next one might not fit behind it. */
    if (RECV_BYTES - b->begin < BODY_MAX_BYTES + sizeof(struct floor_header) ||
        b->begin == b->end) {
        memmove(b->in, b->in + b->begin, b->end - b->begin);
        b->end -= b->begin;
        b->begin = 0;
    }
    got = recv(b->socket, b->in + b->end, RECV_BYTES - b->end, 0);
    if (got <= 0)
        return got < 0 ? -errno : -EPIPE;
    b->end += (size_t)got;
    return take_blocks(b);
}

static int run_b(int socket, void *argument, void *shared)
{
    struct floor_b b = {.run = argument, .shared = shared, .socket = socket};
    int rc = mac_open(&b.mac);

    b.in = bench_map(RECV_BYTES, false);
    b.raw = bench_map(BLOCK_MAX_BYTES, false);
    if (rc < 0 || b.in == NULL || b.raw == NULL)
        return rc < 0 ? rc : -ENOMEM;
    b.output = bench_open_recycled(b.run->output, OUTPUT_BYTES, 0);
    if (b.output < 0)
        return b.output;
    do
        rc = receive(&b);
    while (rc == 0);
    if (rc > 0)
        rc = sync_and_ack(&b);
    b.shared->cpu_b_s = bench_cpu_self_s() - b.cpu_s;
    close(b.output);
    return rc;
}

/* ---- the run ---- */

int bench_floor_run(const struct bench_settings *settings, const struct bench_corpus *corpus,
                    bool crc, struct bench_floor_result *result_out)
{
    struct floor_run run = {.settings = settings, .corpus = corpus, .crc = crc};
    struct floor_shared *shared;
    int rc = bench_work_path(settings, "floor-output", run.output, sizeof run.output);

    if (rc < 0)
        return rc;
    shared = bench_map(sizeof *shared, true);
    if (shared == NULL)
        return -ENOMEM;
    rc = bench_pair_run(settings, run_a, run_b, &run, shared);
    if (rc >= 0) {
        double gigabytes = (double)shared->raw_bytes / 1e9;
        double entry_bytes = (double)corpus->raw_bytes / (double)corpus->entries;

        *result_out = (struct bench_floor_result){
            .raw_mb_per_s = (double)shared->raw_bytes / 1e6 / shared->elapsed_s,
            .cpu_a_s_per_gb = shared->cpu_a_s / gigabytes,
            .cpu_b_s_per_gb = shared->cpu_b_s / gigabytes,
            .busy_s_per_gb = shared->busy_s / gigabytes,
            .wire_ratio = (double)shared->wire_bytes / (double)shared->raw_bytes,
            .entries_per_s = (double)shared->raw_bytes / entry_bytes / shared->elapsed_s,
        };
    }
    bench_unmap(shared, sizeof *shared);
    return rc;
}

void bench_floor_series_add(struct bench_floor_series *series,
                            const struct bench_floor_result *result)
{
    bench_series_add(&series->throughput, result->raw_mb_per_s);
    bench_series_add(&series->cpu_a, result->cpu_a_s_per_gb);
    bench_series_add(&series->cpu_b, result->cpu_b_s_per_gb);
    bench_series_add(&series->cpu, result->cpu_a_s_per_gb + result->cpu_b_s_per_gb);
    bench_series_add(&series->busy, result->busy_s_per_gb);
    bench_series_add(&series->wire, result->wire_ratio);
}

void bench_floor_series_report(struct bench_report *report, const struct bench_floor_series *series)
{
    bench_report_series(report, "throughput, raw", "MB/s", &series->throughput);
    bench_report_series(report, "processor time, A", "s/GB", &series->cpu_a);
    bench_report_series(report, "processor time, B", "s/GB", &series->cpu_b);
    bench_report_series(report, "processor time, both processes", "s/GB", &series->cpu);
    bench_report_series(report, "processor time, whole machine", "s/GB", &series->busy);
    bench_report_series(report, "wire by raw bytes", "", &series->wire);
}
