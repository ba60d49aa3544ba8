/*
 * fuzz_peer.c - the protocol's state machines against a peer that holds the key and lies.
 *
 * Input: u8 role (bit 0: our sender meets a lying acceptor; else our receiver meets a lying
 * dialer), then events: u8 event, its arguments. Frames are sealed as the peer would; their
 * payloads are the input's.
 *
 * Properties: acked <= next <= head for every lane of a running sender, and no batch is given
 * beyond the head; acks a receiver sends never go back and never name what was not durable; every
 * frame sent opens at the other side and its payload loads; a closed machine sends nothing more; no
 * event overfills the outbox.
 */
#include "fuzz.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "repl/receiver.h"
#include "repl/sender.h"

enum {
    FRAME_BYTES = CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES,
    EVENTS_MAX = 200
};

static struct fuzz_pair pair;
static struct cfsr_outbox out;
static uint8_t frame[FRAME_BYTES];
static uint64_t now_ns;

static uint64_t durable_lsn[CFSR_LANES_MAX], told_lsn[CFSR_LANES_MAX];

static void set_up(void)
{
    static bool done;

    if (!done)
        fuzz_pair_init(&pair);
    done = true;
}

static bool is_lane(uint32_t lane)
{
    return lane < FUZZ_LANES && (FUZZ_LANE_MASK >> lane & 1) != 0;
}

/* A payload of the input in a frame that the peer's session seals. */
static void lie(struct cfsr_session *liar, struct fuzz_reader *reader,
                struct cfsr_link_header *header_out)
{
    static const uint8_t types[] = {CFSR_FRAME_ACK,   CFSR_FRAME_HEARTBEAT, CFSR_FRAME_GOODBYE,
                                    CFSR_FRAME_HELLO, CFSR_FRAME_QUERY,     CFSR_FRAME_REPLY};
    uint8_t type = types[fuzz_u8(reader) % CFSR_ARRAY_LEN(types)];
    size_t got;
    const uint8_t *bytes = fuzz_bytes(reader, fuzz_u16(reader) % 2048, &got);

    if (got > 0)
        memcpy(frame + CFSR_LINK_HEADER_BYTES, bytes, got);
    if (type == CFSR_FRAME_REPLY)
        (void)cfsr_session_seal_reply(liar, frame, (uint32_t)got);
    else
        (void)cfsr_session_seal(liar, (enum cfsr_frame_type)type, 0, frame, (uint32_t)got);
    if (cfsr_link_header_load(frame, header_out) < 0)
        header_out->type = 0;
}

/* Whoever gets what we send can read it. */
static void check_sent(struct cfsr_session *other, const struct cfsr_action *action, bool *acked)
{
    static struct cfsr_ack ack;
    static struct cfsr_heartbeat heartbeat;
    static struct cfsr_goodbye goodbye;
    static struct cfsr_query query;
    const uint8_t *payload = (const uint8_t *)action->frame + CFSR_LINK_HEADER_BYTES;
    struct cfsr_link_header header;

    FUZZ_CHECK(cfsr_link_header_load(action->frame, &header) == 0);
    FUZZ_CHECK(action->frame_bytes == CFSR_LINK_HEADER_BYTES + header.length_bytes);
    if (header.type == CFSR_FRAME_HELLO || header.type == CFSR_FRAME_HELLO_ACK)
        return;
    FUZZ_CHECK(cfsr_session_open(other, &header, action->frame) == 0);
    switch (header.type) {
    case CFSR_FRAME_ACK:
        FUZZ_CHECK(cfsr_ack_load(payload, header.length_bytes, &ack) == 0);
        for (unsigned i = 0; i < ack.count; i++) {
            uint32_t lane = ack.lane[i].lane;

            FUZZ_CHECK(is_lane(lane) && ack.lane[i].durable_lsn <= durable_lsn[lane]);
            FUZZ_CHECK(ack.lane[i].durable_lsn > told_lsn[lane]);
            told_lsn[lane] = ack.lane[i].durable_lsn;
        }
        *acked = true;
        break;
    case CFSR_FRAME_HEARTBEAT:
        FUZZ_CHECK(cfsr_heartbeat_load(payload, header.length_bytes, &heartbeat) == 0);
        break;
    case CFSR_FRAME_GOODBYE:
        FUZZ_CHECK(cfsr_goodbye_load(payload, header.length_bytes, &goodbye) == 0);
        break;
    case CFSR_FRAME_QUERY:
        FUZZ_CHECK(cfsr_query_load(payload, header.length_bytes, &query) == 0);
        break;
    default: break;
    }
}

static struct cfsr_query question(struct fuzz_reader *reader)
{
    struct cfsr_query query = {.kind = (uint16_t)(1 + (fuzz_u8(reader) & 1)),
                               .lane = fuzz_u8(reader) % FUZZ_LANES,
                               .origin = 1,
                               .journal = pair.site[0].journal,
                               .lsn_from = 8ull * fuzz_u8(reader)};

    query.lsn_to = query.lsn_from + 8 + 8ull * fuzz_u8(reader);
    return query;
}

/* ---- our receiver, a lying dialer ---- */

static int no_cursor(void *user, uint64_t site_id, const struct cfsr_uuid *journal, uint32_t lane,
                     struct cfsr_hello_lane *lane_out)
{
    (void)user;
    (void)site_id;
    (void)journal;
    (void)lane;
    *lane_out = (struct cfsr_hello_lane){.last = {.lsn = UINT64_MAX}};
    return 0;
}

static uint64_t no_journal(void *user, uint64_t site_id, struct cfsr_uuid *journal_out)
{
    (void)user;
    (void)site_id;
    (void)journal_out;
    return 0;
}

static uint64_t staged_lsn(void *user, uint64_t site_id, uint32_t lane)
{
    (void)user;
    FUZZ_CHECK(site_id == 1 && is_lane(lane));
    return durable_lsn[lane];
}

static void lie_batch(struct cfsr_receiver *receiver, struct cfsr_session *liar,
                      struct fuzz_reader *reader)
{
    struct cfsr_batch_header batch = {.site_id = 1, .journal = pair.site[0].journal, .epoch = 1};
    struct cfsr_link_header header;
    enum cfsr_admission admission;
    uint8_t bytes[CFSR_LINK_HEADER_BYTES + CFSR_BATCH_PREFIX_BYTES];
    uint8_t twist = fuzz_u8(reader);

    batch.lane = fuzz_u8(reader);
    batch.lsn_from = fuzz_u16(reader);
    batch.lsn_to = fuzz_u16(reader);
    batch.stored_bytes = batch.original_bytes = fuzz_u16(reader);
    cfsr_batch_header_store(&batch, bytes + CFSR_LINK_HEADER_BYTES);
    if (twist != 0)
        bytes[CFSR_LINK_HEADER_BYTES + twist % CFSR_BATCH_PREFIX_BYTES] ^= fuzz_u8(reader);
    cfsr_session_seal_batch(liar, 0, bytes + CFSR_LINK_HEADER_BYTES + CFSR_BATCH_TAG_OFFSET,
                            CFSR_BATCH_PREFIX_BYTES + batch.stored_bytes, bytes);
    FUZZ_CHECK(cfsr_link_header_load(bytes, &header) == 0);
    admission = cfsr_receiver_admit(receiver, now_ns, &header, bytes, staged_lsn, &batch, &out);
    if (admission == CFSR_ADMIT_REFUSE)
        return;
    FUZZ_CHECK(batch.site_id == 1 && is_lane(batch.lane) && batch.lsn_from < batch.lsn_to);
    FUZZ_CHECK(batch.lsn_from <= durable_lsn[batch.lane]);
    FUZZ_CHECK((batch.lsn_to <= durable_lsn[batch.lane]) == (admission == CFSR_ADMIT_DUPLICATE));
    durable_lsn[batch.lane] = cfsr_max_u64(durable_lsn[batch.lane], batch.lsn_to);
}

static void receiver_event(struct cfsr_receiver *receiver, struct cfsr_session *liar,
                           struct fuzz_reader *reader)
{
    struct cfsr_link_header header;

    switch (fuzz_u8(reader) % 8) {
    case 7: {
        struct cfsr_query query = question(reader);

        if (cfsr_receiver_can_ask(receiver, query.lane))
            cfsr_receiver_ask(receiver, &query, now_ns + 1000000000, &out);
        break;
    }
    case 0:
    case 1:
        lie(liar, reader, &header);
        if (header.type != 0 && cfsr_receiver_expects(receiver, header.type, header.length_bytes))
            cfsr_receiver_on_frame(receiver, now_ns, now_ns / 1000, &header, frame, &out);
        break;
    case 2: lie_batch(receiver, liar, reader); break;
    case 3:
        now_ns += 1000000ull * fuzz_u16(reader);
        cfsr_receiver_tick(receiver, now_ns, now_ns / 1000, &out);
        break;
    case 4: {
        uint32_t lane = fuzz_u8(reader) % FUZZ_LANES;

        cfsr_receiver_on_durable(receiver, lane, durable_lsn[lane], 1);
        break;
    }
    case 5: cfsr_receiver_flush_acks(receiver, now_ns, fuzz_u8(reader) % 101, &out); break;
    default: cfsr_receiver_on_stalled(receiver, now_ns); break;
    }
}

static void run_receiver(struct fuzz_reader *reader)
{
    static const uint64_t ends[CFSR_LANES_MAX];
    static const uint8_t nonce[32] = {1}, other_nonce[32] = {2};
    const struct cfsr_receiver_options options = {
        .local = &pair.local[1],
        .env = {.is_known_site = fuzz_knows_1_and_2, .cursor = no_cursor, .journal_of = no_journal},
        .owned_mask = UINT64_MAX,
        .hello_timeout_ns = 1000000000,
        .idle_timeout_ns = 5000000000,
        .heartbeat_ns = 1000000000};
    static struct cfsr_receiver receiver;
    static struct cfsr_hello_ack answer;
    struct cfsr_session liar;
    struct cfsr_link_header header;
    int len;

    FUZZ_CHECK(cfsr_receiver_init(&receiver, &options, nonce, now_ns) == 0);
    FUZZ_CHECK(cfsr_session_init(&liar, &pair.local[0], true, 2, other_nonce) == 0);
    len = cfsr_session_hello(&liar, FUZZ_LANE_MASK, ends, 1, frame);
    FUZZ_CHECK(len > 0 && cfsr_link_header_load(frame, &header) == 0);
    out.count = 0;
    cfsr_receiver_on_frame(&receiver, now_ns, 1, &header, frame, &out);
    FUZZ_CHECK(out.count == 1 && out.item[0].type == CFSR_ACTION_SEND_FRAME);
    FUZZ_CHECK(
        cfsr_session_on_hello_ack(&liar, out.item[0].frame, out.item[0].frame_bytes, &answer) == 0);
    for (unsigned i = 0; i < EVENTS_MAX && reader->left > 0; i++) {
        bool was_closing = receiver.state == CFSR_RECEIVER_CLOSING, acked = false;

        out.count = 0;
        receiver_event(&receiver, &liar, reader);
        FUZZ_CHECK(!was_closing || out.count == 0);
        for (unsigned k = 0; k < out.count; k++)
            if (out.item[k].type == CFSR_ACTION_SEND_FRAME)
                check_sent(&liar, &out.item[k], &acked);
        FUZZ_CHECK(!acked || receiver.state != CFSR_RECEIVER_ANSWERED);
        FUZZ_CHECK(cfsr_receiver_next_deadline(&receiver) > 0);
    }
    cfsr_receiver_fini(&receiver);
    cfsr_session_fini(&liar);
}

/* ---- our sender, a lying acceptor ---- */

static void check_sender(const struct cfsr_sender *sender)
{
    const char *reason = NULL;
    uint64_t in_flight = 0;

    (void)cfsr_sender_link_state(sender, &reason);
    FUZZ_CHECK(reason != NULL);
    if (sender->state != CFSR_SENDER_RUNNING)
        return;
    for (uint32_t lane = 0; lane < FUZZ_LANES; lane++) {
        const struct cfsr_sender_lane *l = &sender->lane[lane];

        if (!is_lane(lane))
            continue;
        FUZZ_CHECK(l->acked_lsn <= l->next_lsn && l->next_lsn <= l->head_lsn);
        in_flight += l->next_lsn - l->acked_lsn;
        if (cfsr_sender_is_caught_up(sender))
            FUZZ_CHECK(l->acked_lsn == l->head_lsn);
    }
    FUZZ_CHECK(in_flight == sender->in_flight_bytes);
}

static void answer_hello(struct cfsr_sender *sender, struct cfsr_session *liar,
                         struct fuzz_reader *reader)
{
    static struct cfsr_hello_ack ack;
    static const uint8_t nonce[32] = {4};
    struct cfsr_link_header header;
    uint8_t kind = fuzz_u8(reader);

    cfsr_session_fini(liar);
    FUZZ_CHECK(cfsr_session_init(liar, &pair.local[1], false, 0, nonce) == 0);
    if (cfsr_session_on_hello(liar, sender->frame,
                              CFSR_LINK_HEADER_BYTES + cfsr_load_le32(sender->frame + 8),
                              fuzz_knows_1_and_2, NULL) < 0)
        return;
    ack = (struct cfsr_hello_ack){.lane_mask = FUZZ_LANE_MASK, .wall_us = fuzz_u8(reader)};
    if (kind % 4 == 1)
        ack.status = 4001 + fuzz_u8(reader);
    if (kind % 4 == 2)
        ack.lane_mask &= fuzz_u8(reader);
    for (uint32_t lane = 0; lane < FUZZ_LANES; lane++) {
        ack.lane[lane].last.lsn = UINT64_MAX;
        if (kind < 128)
            continue;
        ack.lane[lane].cursor = fuzz_u16(reader);
        ack.lane[lane].last.lsn = ack.lane[lane].cursor == 0 ? UINT64_MAX : fuzz_u16(reader);
    }
    FUZZ_CHECK(cfsr_session_hello_ack(liar, &ack, frame) > 0);
    FUZZ_CHECK(cfsr_link_header_load(frame, &header) == 0);
    cfsr_sender_on_frame(sender, now_ns, now_ns / 1000, &header, frame, &out);
}

static void sender_batch(struct cfsr_sender *sender, struct fuzz_reader *reader)
{
    uint64_t from, to;
    uint32_t lane;

    if (!cfsr_sender_next(sender, now_ns, fuzz_u8(reader) & 1, fuzz_u8(reader), &lane, &from))
        return;
    FUZZ_CHECK(is_lane(lane) && from == sender->lane[lane].next_lsn &&
               from < sender->lane[lane].head_lsn);
    to = from + 8 * (1ull + fuzz_u8(reader));
    (void)cfsr_sender_sent(sender, now_ns, lane, cfsr_min_u64(to, sender->lane[lane].head_lsn));
}

static void sender_event(struct cfsr_sender *sender, struct cfsr_session *liar,
                         struct fuzz_reader *reader)
{
    static const uint8_t nonce[32] = {3}, lanes[] = {0, 1, 3, 7};
    struct cfsr_record_stamp stamp = {0};
    struct cfsr_link_header header;
    uint32_t lane;

    switch (fuzz_u8(reader) % 12) {
    case 10: {
        struct cfsr_query query = question(reader);

        if (cfsr_sender_can_ask(sender, query.lane))
            cfsr_sender_ask(sender, &query, now_ns + 1000000000, &out);
        break;
    }
    case 0:
    case 1:
        if (liar->send_key == NULL)
            break;
        lie(liar, reader, &header);
        if (header.type != 0 && sender->session_live && cfsr_sender_expects(sender, header.type))
            cfsr_sender_on_frame(sender, now_ns, now_ns / 1000, &header, frame, &out);
        break;
    case 2:
        now_ns += 1000000ull * fuzz_u16(reader);
        cfsr_sender_tick(sender, now_ns, now_ns / 1000, &out);
        break;
    case 3: cfsr_sender_on_connected(sender, now_ns, now_ns / 1000, nonce, &out); break;
    case 4:
        if (sender->state == CFSR_SENDER_HELLO)
            answer_hello(sender, liar, reader);
        break;
    case 5:
        lane = lanes[fuzz_u8(reader) % CFSR_ARRAY_LEN(lanes)];
        cfsr_sender_on_head(sender, now_ns, lane,
                            sender->lane[lane].head_lsn + 8ull * fuzz_u8(reader),
                            sender->lane[lane].head_entries + 1);
        break;
    case 6: sender_batch(sender, reader); break;
    case 7:
        lane = fuzz_u8(reader) % FUZZ_LANES;
        stamp = sender->peer.lane[lane].last;
        stamp.crc ^= fuzz_u8(reader);
        if (sender->lane[lane].checking && sender->state == CFSR_SENDER_CHECKING)
            cfsr_sender_on_stamp(sender, now_ns, 1, lane, -(int)(fuzz_u8(reader) % 3), &stamp,
                                 sender->peer.lane[lane].cursor + fuzz_u8(reader), &out);
        break;
    case 8:
        if (sender->state != CFSR_SENDER_BACKOFF && sender->state != CFSR_SENDER_STOPPED)
            cfsr_sender_on_closed(sender, now_ns, -104, fuzz_u16(reader));
        break;
    default: cfsr_sender_tick_blocked(sender, now_ns, &out); break;
    }
}

static void run_sender(struct fuzz_reader *reader)
{
    const struct cfsr_sender_options options = {.local = &pair.local[0],
                                                .peer_site_id = 2,
                                                .lane_mask = FUZZ_LANE_MASK,
                                                .window_bytes = 4096,
                                                .batch_bytes = 512,
                                                .batch_timeout_ns = 1000000,
                                                .heartbeat_ns = 1000000000,
                                                .hello_timeout_ns = 2000000000,
                                                .progress_timeout_ns = 5000000000,
                                                .backoff_min_ns = 1000000,
                                                .backoff_max_ns = 1000000000,
                                                .fault_retry_ns = 2000000000};
    static struct cfsr_sender sender;
    struct cfsr_session liar = {0};

    cfsr_sender_init(&sender, &options, now_ns);
    for (unsigned i = 0; i < EVENTS_MAX && reader->left > 0; i++) {
        bool acked = false;

        out.count = 0;
        sender_event(&sender, &liar, reader);
        for (unsigned k = 0; k < out.count; k++)
            if (out.item[k].type == CFSR_ACTION_SEND_FRAME && liar.recv_key != NULL)
                check_sent(&liar, &out.item[k], &acked);
        check_sender(&sender);
        FUZZ_CHECK(cfsr_sender_next_deadline(&sender) > 0);
    }
    cfsr_sender_fini(&sender);
    cfsr_session_fini(&liar);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct fuzz_reader reader = {data, len_bytes};

    set_up();
    now_ns = 1000000000;
    memset(durable_lsn, 0, sizeof durable_lsn);
    memset(told_lsn, 0, sizeof told_lsn);
    if ((fuzz_u8(&reader) & 1) != 0)
        run_sender(&reader);
    else
        run_receiver(&reader);
    return 0;
}

/* ---- seeds ---- */

static void add_lie(struct fuzz_seed *seed, uint8_t type, const void *payload, uint32_t len_bytes)
{
    fuzz_seed_u8(seed, 0);
    fuzz_seed_u8(seed, type);
    fuzz_seed_u16(seed, (uint16_t)len_bytes);
    fuzz_seed_bytes(seed, payload, len_bytes);
}

static void seed_receiver(struct fuzz_corpus *corpus)
{
    static const uint8_t batch[] = {2, 0,   3, 0,   0, 100, 0, 8, 0, 4, 3,  5, 10,   2, 0,
                                    3, 100, 0, 200, 0, 8,   0, 4, 3, 5, 20, 3, 0xe8, 3, 6};
    static uint8_t payload[CFSR_CONTROL_MAX_BYTES];
    struct cfsr_heartbeat heartbeat = {.wall_us = 5, .count = 1, .lane[0] = {3, 100, 1}};
    struct cfsr_goodbye goodbye = {.reason = CFSR_E_SHUTDOWN, .detail = "bye"};
    struct fuzz_seed seed = {0};

    fuzz_seed_u8(&seed, 0);
    add_lie(&seed, 1, payload, cfsr_heartbeat_store(&heartbeat, payload));
    fuzz_seed_bytes(&seed, batch, sizeof batch);
    add_lie(&seed, 2, payload, cfsr_goodbye_store(&goodbye, payload));
    fuzz_seed_end(&seed, corpus, "receiver");
}

static void seed_sender(struct fuzz_corpus *corpus)
{
    /* head of lane 3; dial, connect, answer "nothing yet", two batches. */
    static const uint8_t before[] = {5, 3, 100, 2, 10, 0, 3, 4, 0, 7, 6, 1, 0, 20, 6, 1, 0, 20};
    /* The same with cursors: lane 0, 1, 2, 3 as below, checks answered. */
    static const uint8_t cursors[] = {5, 3,  100, 5, 0, 100, 2, 10, 0, 3,    4, 128,  7, 80,
                                      0, 40, 0,   0, 0, 0,   0, 0,  0, 0x20, 3, 0x18, 3, 0,
                                      0, 0,  0,   0, 0, 0,   0, 7,  0, 0,    0, 0,    7, 3,
                                      0, 0,  0,   6, 1, 0,   9, 8,  1, 1,    2, 255,  1};
    static uint8_t payload[CFSR_CONTROL_MAX_BYTES];
    struct cfsr_ack ack = {.count = 1, .lane[0] = {3, 168, UINT64_MAX, 1}};
    struct cfsr_heartbeat heartbeat = {.wall_us = 5, .echo_wall_us = 1000};
    struct fuzz_seed seed = {0};

    fuzz_seed_u8(&seed, 1);
    fuzz_seed_bytes(&seed, before, sizeof before);
    add_lie(&seed, 0, payload, cfsr_ack_store(&ack, payload));
    add_lie(&seed, 1, payload, cfsr_heartbeat_store(&heartbeat, payload));
    fuzz_seed_end(&seed, corpus, "sender");
    fuzz_seed_u8(&seed, 1);
    fuzz_seed_bytes(&seed, cursors, sizeof cursors);
    fuzz_seed_end(&seed, corpus, "sender-cursors");
}

/* Long walks nobody thought of: events with their arguments at random. */
static void seed_walks(struct fuzz_corpus *corpus)
{
    enum {
        WALKS = 64,
        WALK_BYTES = 700
    };

    for (unsigned walk = 0; walk < WALKS; walk++) {
        struct fuzz_seed seed = {0};
        uint64_t random = walk;
        char name[32];

        fuzz_seed_u8(&seed, (uint8_t)walk);
        if ((walk & 1) != 0) { /* a running sender: head, dial, connect, answer */
            static const uint8_t begin[] = {5, 2, 100, 5, 0, 100, 2, 10, 0, 3, 4, 0, 7};

            fuzz_seed_bytes(&seed, begin, sizeof begin);
        }
        for (unsigned i = 0; i < WALK_BYTES; i++)
            fuzz_seed_u8(&seed, (uint8_t)(fuzz_random(&random) % (walk % 4 == 0 ? 251u : 13u)));
        (void)snprintf(name, sizeof name, "walk-%02u", walk);
        fuzz_seed_end(&seed, corpus, name);
    }
}

static void seed_queries(struct fuzz_corpus *corpus)
{
    static uint8_t payload[CFSR_CONTROL_MAX_BYTES];
    struct cfsr_heartbeat heartbeat = {.wall_us = 5};
    struct cfsr_query query = {.id = 1,
                               .kind = CFSR_QUERY_RECORDS,
                               .lane = 3,
                               .origin = 1,
                               .journal = pair.site[0].journal,
                               .lsn_to = 64};
    struct cfsr_reply reply = {.id = 1,
                               .kind = CFSR_QUERY_DIGESTS,
                               .lane = 3,
                               .status = CFSR_E_GONE,
                               .lsn_from = 16,
                               .lsn_to = 32};
    struct fuzz_seed seed = {0};
    static const uint8_t ask[] = {7, 1, 3, 2, 1};

    fuzz_seed_u8(&seed, 0);
    add_lie(&seed, 1, payload, cfsr_heartbeat_store(&heartbeat, payload));
    add_lie(&seed, 4, payload, cfsr_query_store(&query, payload));
    fuzz_seed_bytes(&seed, ask, sizeof ask);
    add_lie(&seed, 5, payload, cfsr_reply_store(&reply, payload));
    fuzz_seed_end(&seed, corpus, "queries");
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    set_up();
    seed_receiver(corpus);
    seed_sender(corpus);
    seed_queries(corpus);
    seed_walks(corpus);
}
