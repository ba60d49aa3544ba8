/*
 * attack_accept.c - attacks on a daemon that listens, by a dialer that holds the key, and by one
 * that does not.
 *
 * Every attack ends with the same question: is the victim well, and does it stand where good
 * batches alone have brought it (attack.h, victim_is_well())?
 */
#include "attack.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/bytes.h"

#define SILENT_CONNECTIONS 100
#define QUICK_CONNECTIONS  1000

static struct forge forge;

/* ---- batches that are wrong in one thing ---- */

#define MUTATION(name, when)                                  \
    static void name##_now(struct forge *f);                  \
    static void name(struct forge *f, enum forge_stage stage) \
    {                                                         \
        if (stage == (when))                                  \
            name##_now(f);                                    \
    }                                                         \
    static void name##_now(struct forge *f)

MUTATION(original_too_small, FORGE_HEADER)
{
    f->header.original_bytes -= 8;
}
MUTATION(original_too_large, FORGE_HEADER)
{
    f->header.original_bytes += 8;
}
MUTATION(original_4gib, FORGE_HEADER)
{
    f->header.original_bytes = UINT32_MAX;
}
MUTATION(original_zero, FORGE_HEADER)
{
    f->header.original_bytes = 0;
}
MUTATION(stored_lies, FORGE_HEADER)
{
    f->header.stored_bytes--;
}
MUTATION(codec_unknown, FORGE_HEADER)
{
    f->header.codec = 9;
}
MUTATION(codec_other, FORGE_HEADER)
{
    f->header.codec = CFSR_CODEC_ZSTD;
}
MUTATION(lsn_gap, FORGE_HEADER)
{
    f->header.lsn_from += 64, f->header.lsn_to += 64;
}
MUTATION(lsn_huge, FORGE_HEADER)
{
    f->header.lsn_from = UINT64_MAX - 64, f->header.lsn_to = UINT64_MAX;
}
MUTATION(lsn_to_huge, FORGE_HEADER)
{
    f->header.lsn_to = UINT64_MAX;
}
MUTATION(lsn_to_beyond, FORGE_HEADER)
{
    f->header.lsn_to += 8;
}
MUTATION(lsn_reversed, FORGE_HEADER)
{
    f->header.lsn_to = f->header.lsn_from;
}
MUTATION(lsn_overlap, FORGE_HEADER)
{
    f->header.lsn_from -= 8;
}
MUTATION(lane_of_others, FORGE_HEADER)
{
    f->header.lane = 63;
}
MUTATION(lane_other, FORGE_HEADER)
{
    f->header.lane ^= 1;
}
MUTATION(lane_maximal, FORGE_HEADER)
{
    f->header.lane = UINT16_MAX;
}
MUTATION(count_lies, FORGE_HEADER)
{
    f->header.entry_count++;
}
MUTATION(count_zero, FORGE_HEADER)
{
    f->header.entry_count = 0;
}
MUTATION(site_other, FORGE_HEADER)
{
    f->header.site_id = 77;
}
MUTATION(journal_other, FORGE_HEADER)
{
    f->header.journal.bytes[3] ^= 1;
}
MUTATION(flags_forwarded, FORGE_HEADER)
{
    f->header.flags = CFSR_BATCH_FORWARDED;
}
MUTATION(flags_unknown, FORGE_HEADER)
{
    f->header.flags = 0x8000;
}
MUTATION(epoch_other, FORGE_HEADER)
{
    f->header.epoch = 9;
}
MUTATION(holes_without, FORGE_FRAME)
{
    cfsr_store_le16(f->frame + CFSR_LINK_HEADER_BYTES + 80, 1);
    cfsr_store_le16(f->frame + CFSR_LINK_HEADER_BYTES + 82, CFSR_BATCH_HOLE_BYTES);
}
MUTATION(key_unknown, FORGE_PREFIX)
{
    f->sign_id = 4711;
}
MUTATION(body_swapped, FORGE_PREFIX)
{
    f->frame[CFSR_LINK_HEADER_BYTES + CFSR_BATCH_PREFIX_BYTES + 60] ^= 1;
}
MUTATION(magic_wrong, FORGE_PREFIX)
{
    f->frame[CFSR_LINK_HEADER_BYTES] ^= 1;
}
MUTATION(tag_wrong, FORGE_FRAME)
{
    f->frame[CFSR_LINK_HEADER_BYTES + CFSR_BATCH_TAG_OFFSET] ^= 1;
}
MUTATION(link_tag_wrong, FORGE_FRAME)
{
    f->frame[CFSR_LINK_SIGNED_BYTES] ^= 1;
}
MUTATION(length_oversized, FORGE_FRAME)
{
    cfsr_store_le32(f->frame + 8, 64u << 20);
}
MUTATION(length_short, FORGE_FRAME)
{
    cfsr_store_le32(f->frame + 8, CFSR_BATCH_PREFIX_BYTES - 1);
}
MUTATION(type_ack, FORGE_FRAME)
{
    f->frame[5] = CFSR_FRAME_ACK;
}
MUTATION(type_reserved, FORGE_FRAME)
{
    f->frame[5] = CFSR_FRAME_SNAPSHOT;
}
MUTATION(version_other, FORGE_FRAME)
{
    f->frame[4] = 2;
}

MUTATION(crc_wrong, FORGE_RAW)
{
    f->raw[0] ^= 1;
}
MUTATION(record_reserved, FORGE_RAW)
{
    f->raw[46] = 1;
    cfsr_record_seal(f->raw, cfsr_record_seed(&world.site.journal), f->header.lsn_from);
}
MUTATION(record_cut, FORGE_RAW)
{
    f->raw_bytes -= 8;
}

/* Starts the batch anew, without records. */
static void empty(struct forge *f)
{
    f->raw_bytes = 0;
    f->header.lsn_to = f->header.lsn_from;
    f->header.entry_count = 0;
}

static void one_record(struct forge *f, uint8_t op, uint64_t seq, uint32_t shard,
                       const void *payload, uint32_t payload_bytes)
{
    empty(f);
    forge_record(f, op, seq, shard, payload, payload_bytes, world.site.site_id);
}

MUTATION(no_records, FORGE_RAW)
{
    f->raw_bytes = 0;
}
MUTATION(record_of_others, FORGE_RAW)
{
    empty(f);
    forge_record(f, 1, world.seq[f->header.lane], f->header.lane, "x", 1, 77);
}
MUTATION(seq_skipped, FORGE_RAW)
{
    one_record(f, 1, world.seq[f->header.lane] + 1, f->header.lane, "x", 1);
}
MUTATION(seq_zero, FORGE_RAW)
{
    one_record(f, 1, 0, f->header.lane, "x", 1);
}
MUTATION(seq_maximal, FORGE_RAW)
{
    one_record(f, 1, UINT64_MAX, f->header.lane, "x", 1);
}
MUTATION(shard_of_lane, FORGE_RAW)
{
    one_record(f, 1, 1, f->header.lane ^ 1u, "x", 1);
}
MUTATION(shard_maximal, FORGE_RAW)
{
    one_record(f, 1, 1, UINT32_MAX, "x", 1);
}
MUTATION(op_unknown, FORGE_RAW)
{
    one_record(f, 99, 0, f->header.lane, "x", 1);
}
MUTATION(mark_short, FORGE_RAW)
{
    one_record(f, CFSR_RECORD_MARK, 0, f->header.lane, NULL, 8);
}
MUTATION(mark_future, FORGE_RAW)
{
    uint8_t mark[CFSR_MARK_PAYLOAD_BYTES] = {0};
    cfsr_store_le64(mark + 8, UINT64_MAX);
    one_record(f, CFSR_RECORD_MARK, 0, f->header.lane, mark, sizeof mark);
}
MUTATION(mark_vector, FORGE_RAW)
{
    uint8_t mark[CFSR_MARK_PAYLOAD_BYTES] = {0};
    cfsr_store_le32(mark + 36, 0x10000000);
    one_record(f, CFSR_RECORD_MARK, 0, f->header.lane, mark, sizeof mark);
}
MUTATION(shards_count, FORGE_RAW)
{
    uint8_t shards[CFSR_SHARDS_PAYLOAD_FIXED] = {0};
    cfsr_store_le32(shards, f->header.lane);
    cfsr_store_le32(shards + 4, world.site.lanes);
    cfsr_store_le32(shards + 8, 0x20000000);
    one_record(f, CFSR_RECORD_SHARDS, 0, f->header.lane, shards, sizeof shards);
}
MUTATION(shards_lie, FORGE_RAW)
{
    static uint8_t shards[CFSR_SHARDS_PAYLOAD_FIXED + 8 * 65536];
    uint32_t count = world.site.shards / world.site.lanes;
    cfsr_store_le32(shards, f->header.lane);
    cfsr_store_le32(shards + 4, world.site.lanes);
    cfsr_store_le32(shards + 8, count);
    for (uint32_t i = 0; i < count; i++)
        cfsr_store_le64(shards + CFSR_SHARDS_PAYLOAD_FIXED + 8ull * i, 5000);
    one_record(f, CFSR_RECORD_SHARDS, 0, f->header.lane, shards,
               CFSR_SHARDS_PAYLOAD_FIXED + 8 * count);
}
/* Filler that ends behind or before the segment, or at 4 GiB. */
static uint32_t filler(const struct forge *f)
{
    uint64_t segment = world.site.segment_bytes;
    return (uint32_t)(segment - f->header.lsn_from % segment) - CFSR_RECORD_HEADER_BYTES;
}
MUTATION(pad_past_segment, FORGE_RAW)
{
    one_record(f, CFSR_RECORD_PAD, 0, f->header.lane, NULL, filler(f) + 8);
}
MUTATION(pad_short, FORGE_RAW)
{
    one_record(f, CFSR_RECORD_PAD, 0, f->header.lane, NULL, filler(f) - 8);
}
MUTATION(pad_4gib, FORGE_RAW)
{
    one_record(f, CFSR_RECORD_PAD, 0, f->header.lane, NULL, UINT32_MAX);
}
MUTATION(pad_then_more, FORGE_RAW)
{
    one_record(f, CFSR_RECORD_PAD, 0, f->header.lane, NULL, filler(f));
    forge_record(f, 1, world.seq[f->header.lane], f->header.lane, "x", 1, world.site.site_id);
}
/* One MiB of zeros that says it is small; and one that says what it is. */
static void zeros(struct forge *f)
{
    empty(f);
    memset(f->raw, 0, ATTACK_RAW_BYTES);
    f->raw_bytes = ATTACK_RAW_BYTES;
    f->header.lsn_to += ATTACK_RAW_BYTES;
}
static void bomb(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_RAW)
        zeros(f);
    if (stage == FORGE_HEADER)
        f->header.original_bytes = f->header.stored_bytes + 1;
}
MUTATION(bomb_at_limit, FORGE_RAW)
{
    zeros(f);
}

struct mutation {
    const char *name;
    void (*mutate)(struct forge *f, enum forge_stage stage);
    int reason, or_reason; /* of the GOODBYE */
};
static const struct mutation mutations[] = {
    {"original size too small", original_too_small, CFSR_E_BOMB, CFSR_E_DECOMPRESS},
    {"original size too large", original_too_large, CFSR_E_DECOMPRESS, 0},
    {"original size 4 GiB", original_4gib, CFSR_E_BAD_FRAME, 0},
    {"original size zero", original_zero, CFSR_E_BAD_FRAME, 0},
    {"stored size lies", stored_lies, CFSR_E_BAD_FRAME, 0},
    {"unknown codec", codec_unknown, CFSR_E_BAD_FRAME, 0},
    {"codec of another body", codec_other, CFSR_E_DECOMPRESS, 0},
    {"decompression bomb", bomb, CFSR_E_BOMB, CFSR_E_DECOMPRESS},
    {"decompression bomb at the limit", bomb_at_limit, CFSR_E_CHECKSUM, CFSR_E_FORMAT},
    {"LSN gap", lsn_gap, CFSR_E_BAD_ORDER, 0},
    {"LSN near 2^64", lsn_huge, CFSR_E_BAD_ORDER, 0},
    {"LSN end huge", lsn_to_huge, CFSR_E_BAD_FRAME, 0},
    {"LSN end beyond the records", lsn_to_beyond, CFSR_E_BAD_FRAME, 0},
    {"LSN range reversed", lsn_reversed, CFSR_E_BAD_FRAME, 0},
    {"LSN overlap that does not fit", lsn_overlap, CFSR_E_CHECKSUM, CFSR_E_FORMAT},
    {"lane of nobody", lane_of_others, CFSR_E_BAD_FRAME, 0},
    {"lane of another record", lane_other, CFSR_E_FOREIGN, CFSR_E_CHECKSUM},
    {"lane 65535", lane_maximal, CFSR_E_BAD_FRAME, 0},
    {"entry count lies", count_lies, CFSR_E_BAD_FRAME, 0},
    {"entry count zero", count_zero, CFSR_E_BAD_FRAME, 0},
    {"batch of another site", site_other, CFSR_E_WRONG_SITE, 0},
    {"batch of another journal", journal_other, CFSR_E_JOURNAL_CHANGED, 0},
    {"flags not negotiated", flags_forwarded, CFSR_E_BAD_FRAME, 0},
    {"unknown batch flags", flags_unknown, CFSR_E_BAD_FRAME, 0},
    {"another epoch", epoch_other, CFSR_E_BAD_FRAME, 0},
    {"holes that are not there", holes_without, CFSR_E_BAD_FRAME, 0},
    {"unknown key id", key_unknown, CFSR_E_BAD_KEY, 0},
    {"body changed under the tags", body_swapped, CFSR_E_BAD_DIGEST, 0},
    {"batch magic", magic_wrong, CFSR_E_BAD_FRAME, 0},
    {"batch tag changed", tag_wrong, CFSR_E_BAD_LINK_TAG, 0},
    {"link tag changed", link_tag_wrong, CFSR_E_BAD_LINK_TAG, 0},
    {"length oversized", length_oversized, CFSR_E_TOO_LARGE, 0},
    {"length below the least", length_short, CFSR_E_BAD_FRAME, 0},
    {"type ACK", type_ack, CFSR_E_BAD_FRAME, CFSR_E_TOO_LARGE},
    {"type reserved", type_reserved, CFSR_E_BAD_FRAME, 0},
    {"another protocol version", version_other, CFSR_E_VERSION, 0},
    {"record CRC", crc_wrong, CFSR_E_CHECKSUM, 0},
    {"record reserved bits", record_reserved, CFSR_E_FORMAT, 0},
    {"record cut", record_cut, CFSR_E_BAD_FRAME, CFSR_E_FORMAT},
    {"no records", no_records, CFSR_E_BAD_FRAME, 0},
    {"record of a third site", record_of_others, CFSR_E_FOREIGN, 0},
    {"seq skipped", seq_skipped, CFSR_E_BAD_ORDER, 0},
    {"seq zero", seq_zero, CFSR_E_FORMAT, 0},
    {"seq at its maximum", seq_maximal, CFSR_E_FORMAT, 0},
    {"shard of another lane", shard_of_lane, CFSR_E_FOREIGN, 0},
    {"shard 2^32 - 1", shard_maximal, CFSR_E_FOREIGN, 0},
    {"unknown op", op_unknown, CFSR_E_FORMAT, 0},
    {"MARK too short", mark_short, CFSR_E_FORMAT, 0},
    {"MARK that commits the future", mark_future, CFSR_E_FORMAT, 0},
    {"MARK with a huge vector", mark_vector, CFSR_E_FORMAT, 0},
    {"SHARDS with a huge count", shards_count, CFSR_E_FORMAT, 0},
    {"SHARDS that lie", shards_lie, CFSR_E_BAD_ORDER, 0},
    {"PAD past the segment", pad_past_segment, CFSR_E_FORMAT, 0},
    {"PAD too short", pad_short, CFSR_E_FORMAT, 0},
    {"PAD of 4 GiB", pad_4gib, CFSR_E_FORMAT, 0},
    {"PAD and more", pad_then_more, CFSR_E_BAD_FRAME, 0},
};

/* A batch whose sequence the victim knows, so that skips show; then the wrong one. */
static bool mutation_is_refused(const struct mutation *mutation)
{
    struct peer peer;
    bool passes = true;

    if (peer_open(&peer) < 0)
        return peer_close(&peer), attack_fails("the connection of the attack is refused");
    forge_begin(&forge, 0, 600);
    forge_finish(&forge, &peer, mutation->mutate);
    peer_send(&peer, forge.frame, forge.frame_bytes);
    int reason = peer_ending(&peer, ATTACK_WAIT_MS);
    if (reason != mutation->reason && (reason != mutation->or_reason || reason == 0))
        passes = attack_fails("ended with %s, wanted %s",
                              reason < 0 ? "nothing" : cfsr_error_name(-reason),
                              cfsr_error_name(-mutation->reason));
    peer_close(&peer);
    return passes;
}

/* ---- other attacks on the wire ---- */

static bool ends_with(struct peer *peer, int wanted)
{
    int reason = peer_ending(peer, ATTACK_WAIT_MS);
    peer_close(peer);
    if (reason == wanted)
        return true;
    return attack_fails("ended with %s, wanted %s",
                        reason < 0 ? "nothing" : cfsr_error_name(-reason),
                        cfsr_error_name(-wanted));
}

/* Every byte of the frame; a length that grew only leaves a frame that never ends. */
static bool every_byte_flipped(void)
{
    for (uint32_t at = 0;; at++) {
        struct peer peer;
        if (peer_open(&peer) < 0)
            return peer_close(&peer), attack_fails("refused at byte %u", at);
        forge_begin(&forge, 0, 24);
        forge_finish(&forge, &peer, NULL);
        if (at == forge.frame_bytes)
            return peer_close(&peer), true;
        forge.frame[at] ^= (uint8_t)(1u << at % 8);
        peer_send(&peer, forge.frame, forge.frame_bytes);
        bool grew = at >= 8 && at < 12;
        int reason = peer_ending(&peer, grew ? 50 : ATTACK_WAIT_MS);
        peer_close(&peer);
        if (!grew && reason <= 0)
            return attack_fails("byte %u flipped: %s", at,
                                reason == 0 ? "no reason named" : "not dropped");
    }
}

static bool truncated_and_closed(void)
{
    for (uint32_t cut = 1; cut < 400; cut += 37) {
        struct peer peer;
        if (peer_open(&peer) < 0)
            return peer_close(&peer), attack_fails("refused");
        forge_begin(&forge, 0, 200);
        forge_finish(&forge, &peer, NULL);
        peer_send(&peer, forge.frame, cut);
        peer_close(&peer);
    }
    return true;
}

static bool truncated_and_stalled(void)
{
    struct peer peer;

    if (peer_open(&peer) < 0)
        return peer_close(&peer), attack_fails("refused");
    forge_begin(&forge, 0, 200);
    forge_finish(&forge, &peer, NULL);
    peer_send(&peer, forge.frame, 300);
    return ends_with(&peer, CFSR_E_TIMEOUT);
}

static bool replayed_session(void)
{
    struct peer first, second;
    uint8_t hello[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES], nonce[32] = {7};
    struct cfsr_session session;

    /* What an ear on the line has: a HELLO and a batch that were good once. */
    CFSR_ASSERT(cfsr_session_init(&session, &world.local, true, world.victim_id, nonce) == 0);
    int len = cfsr_session_hello(&session, 1, world.cursor, 1, hello);
    cfsr_session_fini(&session);
    if (peer_open(&first) < 0)
        return peer_close(&first), attack_fails("refused");
    uint64_t link_seq = first.session.next_send_seq, batch_seq = first.session.next_send_batch;
    forge_begin(&forge, 0, 200);
    forge_finish(&forge, &first, lsn_gap);  /* not to be stored in the first place */
    first.session.next_send_seq = link_seq; /* and not sent in its own session */
    first.session.next_send_data = first.session.next_send_batch = batch_seq;
    peer_dial(&second);
    peer_send(&second, hello, (size_t)len);
    peer_send(&second, forge.frame, forge.frame_bytes);
    int reason = peer_ending(&second, ATTACK_WAIT_MS);
    peer_close(&second);
    if (reason != 0)
        return peer_close(&first), attack_fails("the replay is talked to");
    /* The living connection was not unseated: it still answers heartbeats. */
    struct cfsr_link_header header;
    for (int i = 0; i < 3; i++) {
        peer_heartbeat(&first);
        int rc = frame_read(&first, &header, ATTACK_WAIT_MS);
        if (rc != 1 || header.type == CFSR_FRAME_GOODBYE)
            return peer_close(&first),
                   attack_fails("a replayed HELLO unseats a living connection (%d)", rc);
        frame_drop(&first, &header);
    }
    peer_close(&first);
    return true;
}

static bool replayed_in_session(void)
{
    struct peer peer;

    if (peer_open(&peer) < 0)
        return peer_close(&peer), attack_fails("refused");
    uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
    struct cfsr_heartbeat heartbeat = {.wall_us = 5};
    uint32_t len = cfsr_heartbeat_store(&heartbeat, frame + CFSR_LINK_HEADER_BYTES);
    len = cfsr_session_seal(&peer.session, CFSR_FRAME_HEARTBEAT, 0, frame, len);
    peer_send(&peer, frame, len);
    peer_send(&peer, frame, len);
    return ends_with(&peer, CFSR_E_REPLAYED);
}

static bool reflected(void)
{
    struct cfsr_link_header header;
    struct peer peer;

    if (peer_open(&peer) < 0 || frame_read(&peer, &header, ATTACK_WAIT_MS) != 1)
        return peer_close(&peer), attack_fails("refused");
    cfsr_store_le64(peer.in + 16, peer.session.next_send_seq); /* as near as one can get */
    peer_send(&peer, peer.in, CFSR_LINK_HEADER_BYTES + header.length_bytes);
    return ends_with(&peer, CFSR_E_BAD_LINK_TAG);
}

static bool acks_from_a_dialer(void)
{
    uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
    struct cfsr_ack ack = {.count = 1, .lane = {{.durable_lsn = 1 << 30}}};
    struct peer peer;

    if (peer_open(&peer) < 0)
        return peer_close(&peer), attack_fails("refused");
    uint32_t len = cfsr_ack_store(&ack, frame + CFSR_LINK_HEADER_BYTES);
    len = cfsr_session_seal(&peer.session, CFSR_FRAME_ACK, 0, frame, len);
    peer_send(&peer, frame, len);
    return ends_with(&peer, CFSR_E_BAD_FRAME);
}

static bool hello_twice(void)
{
    uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES], nonce[32] = {9};
    struct cfsr_session session;
    struct peer peer;

    if (peer_open(&peer) < 0)
        return peer_close(&peer), attack_fails("refused");
    CFSR_ASSERT(cfsr_session_init(&session, &world.local, true, world.victim_id, nonce) == 0);
    int len = cfsr_session_hello(&session, 1, world.cursor, 1, frame);
    cfsr_session_fini(&session);
    peer_send(&peer, frame, (size_t)len);
    return ends_with(&peer, CFSR_E_BAD_FRAME);
}

static bool batch_before_hello(void)
{
    struct peer stranger, peer;

    if (peer_open(&peer) < 0)
        return peer_close(&peer), attack_fails("refused");
    forge_begin(&forge, 0, 200);
    forge_finish(&forge, &peer, lsn_gap);
    peer_close(&peer);
    peer_dial(&stranger);
    peer_send(&stranger, forge.frame, forge.frame_bytes);
    return ends_with(&stranger, 0);
}

/* HELLOs that prove the key and name nonsense. */
static bool hello_names(uint64_t mask, uint32_t lanes, const char *what)
{
    struct cfsr_site honest = world.site;
    struct peer peer;

    world.site.lanes = lanes;
    peer_dial(&peer);
    int rc = peer_hello(&peer, mask);
    world.site = honest;
    peer_close(&peer);
    return rc == -CFSR_E_BAD_FRAME || rc == -CFSR_E_LANES_DIFFER ||
           attack_fails("%s: %s", what, cfsr_error_name(rc));
}

static bool hello_lanes(void)
{
    return hello_names(1ull << 63, 64, "lane 63") && hello_names(UINT64_MAX, 64, "all lanes") &&
           hello_names(1, 1, "one lane");
}

/* A heartbeat at the ends of time, where the offset of clocks does not fit. */
static bool heartbeat_of_another_age(void)
{
    static const uint64_t ages[] = {0, 1ull << 63, INT64_MAX, UINT64_MAX};

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(ages); i++) {
        uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
        struct cfsr_heartbeat heartbeat = {.wall_us = ages[i], .echo_wall_us = ages[i], .count = 1};
        struct cfsr_link_header header;
        struct peer peer;
        if (peer_open(&peer) < 0)
            return peer_close(&peer), attack_fails("refused");
        heartbeat.lane[0] = (struct cfsr_heartbeat_lane){.committed_lsn = ages[i],
                                                         .entries = ages[i]};
        uint32_t len = cfsr_heartbeat_store(&heartbeat, frame + CFSR_LINK_HEADER_BYTES);
        len = cfsr_session_seal(&peer.session, CFSR_FRAME_HEARTBEAT, 0, frame, len);
        peer_send(&peer, frame, len);
        for (int answers = 0; answers < 2; answers++) {
            if (frame_read(&peer, &header, ATTACK_WAIT_MS) != 1)
                return peer_close(&peer),
                       attack_fails("no answer to %llx", (unsigned long long)ages[i]);
            frame_drop(&peer, &header);
        }
        peer_close(&peer);
    }
    return true;
}

/* Asks for answers and reads none of them: it must be given up, not waited for. */
static bool heartbeats_unread(void)
{
    int small = 4096;
    struct peer peer;
    int64_t until = clock_ms() + 2 * ATTACK_WAIT_MS;

    peer_dial(&peer);
    setsockopt(peer.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    if (peer_hello(&peer, 1) < 0)
        return peer_close(&peer), attack_fails("refused");
    struct pollfd wait = {.fd = peer.fd, .events = POLLOUT};
    while (clock_ms() < until) {
        int rc = poll(&wait, 1, 100);
        if (rc > 0 && (wait.revents & (POLLERR | POLLHUP)) != 0)
            return peer_close(&peer), true;
        if (rc > 0)
            peer_heartbeat(&peer);
        else if (victim_counter("connections_in") == 0)
            return peer_close(&peer), true;
    }
    peer_close(&peer);
    return attack_fails("a peer that never reads keeps its connection for ever");
}

/* ---- strangers ---- */

static bool garbage(void)
{
    static uint8_t noise[100000];

    for (int i = 0; i < 40; i++) {
        struct peer peer;
        cfsr_random_bytes(noise, sizeof noise);
        peer_dial(&peer);
        if (i % 2 == 0) { /* with a preamble first */
            peer_send(&peer, noise, sizeof noise);
        } else {
            peer_close(&peer);
            peer_dial_plain(&peer);
            peer_send(&peer, noise, sizeof noise);
        }
        peer_close(&peer);
    }
    return true;
}

static bool connections_in_a_row(void)
{
    for (int i = 0; i < QUICK_CONNECTIONS; i++) {
        struct peer peer;
        peer_dial(&peer);
        peer_close(&peer);
    }
    return true;
}

/* Connections that say `bytes` of their beginning and then nothing, while a good one comes. */
static bool silent(size_t preamble_bytes, size_t hello_bytes)
{
    static uint8_t hello[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
    static struct peer peers[SILENT_CONNECTIONS];
    struct cfsr_link_header header = {.version = 1,
                                      .type = CFSR_FRAME_HELLO,
                                      .length_bytes = CFSR_CONTROL_MAX_BYTES,
                                      .link_seq = 1};

    cfsr_link_header_store(&header, hello);
    for (unsigned i = 0; i < SILENT_CONNECTIONS; i++) {
        if (preamble_bytes == CFSR_PREAMBLE_BYTES) {
            peer_dial(&peers[i]);
            peer_send(&peers[i], hello, hello_bytes);
            continue;
        }
        peer_dial_plain(&peers[i]);
        peer_send(&peers[i], "CFSRPRE1..", preamble_bytes);
    }
    bool well = victim_is_well(10);
    for (unsigned i = 0; i < SILENT_CONNECTIONS; i++)
        peer_close(&peers[i]);
    return well;
}

static bool silent_preambles(void)
{
    return silent(5, 0);
}
static bool silent_before_hello(void)
{
    return silent(CFSR_PREAMBLE_BYTES, 0);
}
static bool silent_within_hello(void)
{
    return silent(CFSR_PREAMBLE_BYTES, 6000);
}

/* A recorded batch header of a whole MiB, and nothing after it: must not hold what good peers need.
 */
static bool silent_within_batch(void)
{
    static struct peer peers[8];
    uint8_t header[CFSR_LINK_HEADER_BYTES + 5000] = {0};
    struct cfsr_link_header link = {.version = 1,
                                    .type = CFSR_FRAME_BATCH,
                                    .length_bytes = 1u << 20,
                                    .link_seq = 2,
                                    .batch_seq = 1};

    cfsr_link_header_store(&link, header);
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(peers); i++) {
        peer_dial(&peers[i]);
        if (peer_hello(&peers[i], 1) == 0)
            peer_send(&peers[i], header, sizeof header);
    }
    bool well = victim_is_well(10);
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(peers); i++)
        peer_close(&peers[i]);
    return well;
}

static bool second_connection(void)
{
    struct peer first;

    if (peer_open(&first) < 0 || !victim_is_well(1))
        return peer_close(&first), attack_fails("refused");
    return ends_with(&first, CFSR_E_SUPERSEDED);
}

struct attack {
    const char *name;
    bool (*run)(void);
    bool counted; /* refused_in or bad_frames must move */
};
static const struct attack attacks[] = {
    {"every byte of a batch flipped", every_byte_flipped, true},
    {"truncated frame, then closed", truncated_and_closed, false},
    {"truncated frame, then silence", truncated_and_stalled, false},
    {"replayed session", replayed_session, true},
    {"replayed frame", replayed_in_session, true},
    {"reflected frame", reflected, true},
    {"ACK from a dialer", acks_from_a_dialer, true},
    {"HELLO twice", hello_twice, true},
    {"BATCH before HELLO", batch_before_hello, true},
    {"HELLO with lanes beyond", hello_lanes, true},
    {"heartbeats of another age", heartbeat_of_another_age, false},
    {"heartbeats asked for and never read", heartbeats_unread, false},
    {"second connection for the lanes", second_connection, false},
    {"garbage", garbage, true},
    {"1,000 connections in a row", connections_in_a_row, false},
    {"100 silent preambles", silent_preambles, false},
    {"100 connections silent before HELLO", silent_before_hello, false},
    {"100 connections silent within HELLO", silent_within_hello, false},
    {"unproven connections silent within a batch", silent_within_batch, false},
};

static bool report(const char *name, bool passes)
{
    printf("%s %s%s%s\n", passes ? "PASS" : "FAIL", name, passes ? "" : ": ",
           passes ? "" : world.why);
    fflush(stdout);
    return passes;
}

int attack_acceptor(void)
{
    int failures = !report("a good connection", victim_is_well(1));

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(mutations); i++) {
        uint64_t before = victim_counter("bad_frames") + victim_counter("refused_in");
        failures += !report(mutations[i].name, mutation_is_refused(&mutations[i]) &&
                                                   is_counted(before) && victim_is_well(3));
    }
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(attacks); i++) {
        uint64_t before = victim_counter("bad_frames") + victim_counter("refused_in");
        failures += !report(attacks[i].name, attacks[i].run() &&
                                                 (!attacks[i].counted || is_counted(before)) &&
                                                 victim_is_well(3));
    }
    return failures;
}
