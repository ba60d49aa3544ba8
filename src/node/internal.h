/*
 * internal.h - the parts of a node core, private to src/node. All state belongs to the core's
 * thread.
 *
 * journal → stream (source.c) → batch slot (encode.c) → link (outgoing.c) → transport
 * transport → conn (incoming.c) → inbox lane (store.c) → ack
 */
#ifndef CFSR_NODE_INTERNAL_H
#define CFSR_NODE_INTERNAL_H

#include "base/list.h"
#include "inbox/inbox.h"
#include "journal/segment.h"
#include "node/limits.h"
#include "node/node.h"
#include "pipeline/batch.h"
#include "repl/scrub.h"

struct node_stream;
struct node_link;
struct node_conn;

/* ---- journal reading (source.c) ---- */

enum node_buffer_state {
    NODE_BUFFER_EMPTY,
    NODE_BUFFER_READING,
    NODE_BUFFER_READY
};

/* One read of the journal; bytes [begin, end) of base are records from lsn on. */
struct node_buffer {
    struct cfsr_file_op op;
    struct node_stream *stream;
    uint8_t *base;
    uint16_t buffer_index;
    enum node_buffer_state state;
    bool in_flight; /* the backend has the op; a dropped read stays so until it completes */
    uint32_t begin, end;
    uint64_t lsn;  /* of base[begin] */
    uint32_t skip; /* READING: bytes before begin that only the alignment asked for */
};

/* Opening a segment is a job: cores do not call open(2). */
struct node_open_job {
    struct cfsr_node_job job;
    struct cfsr_node_core *core;
    struct node_stream *stream;
    uint64_t segment_lsn;
    uint32_t lane;
    int result;
    struct cfsr_file *file;
    struct cfsr_file *stale; /* to be closed by the job */
    unsigned generation;
};

/* A position in a lane's journal, read ahead of its consumer. Streams are re-aimed, never made. */
struct node_stream {
    struct cfsr_node_core *core;
    uint32_t lane;
    bool assigned;
    unsigned generation; /* of the assignment: late completions of an earlier one are dropped */
    uint64_t lsn;        /* next byte the consumer wants = cur's first */
    uint64_t read_lsn;   /* next byte to read from disk */
    struct node_buffer *cur, *next;
    struct node_buffer buffer[2];
    struct cfsr_file *file; /* of the segment of read_lsn when file_lsn says so */
    uint64_t file_lsn;
    struct node_open_job open;
    uint32_t need_bytes; /* a record larger than what was read: read at least this much */
    bool retried;     /* bytes at lsn failed their CRC once and are read again from a fresh open */
    int error;        /* sticky until re-aimed */
    uint64_t used_at; /* turn of the last use */
};

/* ---- encoded batches (encode.c) ---- */

struct node_batch {
    bool ready;
    uint32_t refs; /* frames handed to a transport */
    uint32_t lane;
    uint64_t used_at;
    uint8_t *body;
    uint16_t buffer_index;
    struct cfsr_batch_header header; /* tag and key id unset */
};

/* ---- outgoing (outgoing.c) ---- */

struct node_frame {
    bool busy;
    struct node_batch *batch; /* NULL: the body was sealed … */
    uint8_t *sealed;          /* … to this seal slot; NULL: it goes out as it is */
    uint32_t frame_bytes;
    uint8_t head[CFSR_LINK_HEADER_BYTES + CFSR_BATCH_PREFIX_BYTES];
};

struct node_control {
    uint8_t *slot[CFSR_NODE_CONTROL_SLOTS];
    uint32_t busy; /* bit a slot */
};

struct node_ack_mark {
    uint32_t lane;
    uint64_t lsn_to;
    uint64_t sent_ns;
};

struct node_stamp_job {
    struct cfsr_node_job job;
    struct node_link *link;
    uint32_t lane;
    uint64_t attempt; /* of the link's connection */
    uint64_t committed_lsn;
    struct cfsr_record_stamp wanted, found;
    uint64_t found_end_lsn;
    int result;
};

/* One connection to one core of one peer, or its challenger (path.c). */
struct node_link {
    struct cfsr_node_core *core;
    const struct cfsr_node_path *path; /* of the connection, or of the last one */
    bool established;                  /* the connection passed its handshake */
    int told[CFSR_PATHS];    /* why a path failed, as last logged since a connection ran */
    uint64_t refusals;       /* of the sender, when it dialled */
    struct cfsr_route route; /* of a link; its challenger has none */
    struct node_link *rival; /* a link's challenger, a challenger's link; NULL: there is none */
    bool challenger;
    bool held;              /* a challenger: connected, and says HELLO when its link is quiet … */
    uint64_t held_until_ns; /* … or gives up */
    bool emptying;          /* a link: a challenger gave up, and the next shall meet it empty */
    uint64_t emptying_since_ns;
    uint32_t peer; /* index */
    uint32_t peer_core;
    bool in_use, retiring;  /* retiring: replaced by a new lane map, gone once closed */
    uint32_t reroute_cores; /* retiring: the last link of the peer opens the new map; 0: another one
                               does, or none */
    bool stamp_overrun; /* a stamp job of an older connection still runs: this connection ends and
                           asks again */
    struct cfsr_sender sender;
    struct cfsr_sender_counters
        counted; /* what the core's counters already hold of sender.counters */
    bool up;     /* "link_up" was logged for this connection */
    struct cfsr_conn *conn;
    uint64_t attempt; /* counts connections: late answers of an older one are dropped */
    struct cfsr_mac_key *batch_key;
    uint32_t batch_key_id;
    struct node_control control;
    struct node_frame frame[CFSR_NODE_LINK_FRAMES_MAX];
    uint32_t frames_busy;
    uint64_t queued_bytes;
    uint32_t seals_held; /* seal slots of its frames */
    bool blocked;        /* transport said -EAGAIN; until on_writable */
    struct node_ack_mark mark[CFSR_NODE_ACK_MARKS];
    uint32_t mark_head, mark_count;
    struct node_stamp_job stamp[CFSR_LANES_MAX];
    uint32_t stamps_busy;
    uint64_t caught_up_ns; /* last turn in which everything was acked; 0: never yet */
};

/* ---- incoming (incoming.c) ---- */

struct node_conn {
    struct cfsr_node_core *core;
    const struct cfsr_node_path *path;
    bool in_use;
    bool evicted;     /* closed at once to make room */
    bool waiting;     /* took nothing: no room; resumed when a lane or slot moves */
    bool in_place;    /* the frame at hand goes to the disk from where it was received */
    uint64_t attempt; /* counts connections: answers to an older one are dropped */
    struct cfsr_receiver receiver;
    struct node_lender *lender; /* NULL: nothing of what was received is lent to the disk */
    struct cfsr_conn *conn;
    struct node_control control;
    /* Batch keys by key id: two, for rotation. */
    struct cfsr_mac_key *key[2];
    uint32_t key_id[2];
    int peer; /* index once proven; -1 before */
};

/* ---- received memory that the disk reads (lend.c) ---- */

/* A frame that is written from where it was received. Inbox lanes know it as slot_count + index. */
struct node_lent {
    struct node_lender *lender; /* NULL: free */
    bool written;
    uint64_t taken_bytes; /* of its span, and of what was taken between it and the next lent one */
    uint32_t next;        /* of the lender, in the order of receipt, or of the free ones */
};

/* A connection that lends, or what is left of it. */
struct node_lender {
    struct node_conn *conn; /* NULL: closed, and the memory is in the hold */
    const struct cfsr_node_path *path;
    struct cfsr_recv_hold *hold;
    uint32_t first, last; /* lent frames, oldest first */
    uint32_t unwritten;
    struct node_lender *next_free;
};

/* ---- inbox writing (store.c) ---- */

struct node_segment_job {
    struct cfsr_node_job job;
    struct cfsr_node_core *core;
    struct node_store *store;
    uint64_t sequence;
    uint64_t wall_us;          /* when it was asked for: consumers' leases expire by it */
    bool open_existing, begun; /* begun: it holds records, so it must be there */
    struct cfsr_file *retired;
    struct cfsr_file *file;
    int result;
    bool direct;
};

/* After a failed write: the lane is read back and begun anew behind what is durable. */
struct node_heal_job {
    struct cfsr_node_job job;
    struct cfsr_node_core *core;
    struct node_store *store;
    struct cfsr_file *old[CFSR_INBOX_FILES_MAX]; /* closed by the job */
    struct cfsr_file *file;                      /* of the segment to go on in */
    bool direct;
    uint64_t wall_us;
    int result;
    struct cfsr_inbox_state *fallback, *recovered;
};

struct node_store_write {
    struct cfsr_file_op op;
    struct cfsr_inbox_write write;
    struct node_store *store;
    uint64_t began_ns;
    bool busy;
};

struct node_store {
    struct cfsr_node_core *core;
    uint32_t lane;
    struct cfsr_inbox_lane *inbox;
    struct node_segment_job segment;
    struct node_store_write write[CFSR_INBOX_WRITES_MAX];
    uint32_t writes_busy;
    bool ack_now; /* a sender has nothing more gathered */
    bool moved;   /* durable cursors moved since the acks were looked at */
    bool direct;
    uint64_t retry_ns; /* after a failed preparation (full disk) */
    int last_error;
    bool healing; /* a write failed, and the lane is not begun anew yet */
    struct node_heal_job heal;
};

struct node_inbox_slot {
    uint8_t *base;
    uint16_t buffer_index;
    uint32_t next_free;
};

/* ---- questions and answers (query.c) ---- */

/* One connection, of either kind, and which of the many that its object carries. */
struct node_channel {
    struct node_link *link;
    struct node_conn *conn;
    uint64_t attempt;
};

enum node_server_state {
    NODE_SERVER_IDLE,
    NODE_SERVER_READING, /* the job runs */
    NODE_SERVER_READY,   /* the answer waits for room in the transport */
    NODE_SERVER_SENDING, /* the transport holds it */
};

/* Answers peers' queries, one at a time. */
struct node_server {
    struct cfsr_node_job job;
    struct cfsr_node_core *core;
    enum node_server_state state;
    struct node_channel to;
    uint64_t asker;  /* site id */
    uint32_t key_id; /* of the pair with the asker */
    struct cfsr_query query;
    uint64_t committed_lsn;
    struct cfsr_reply reply;
    uint8_t *frame; /* link header, REPLY's fixed part, body: CFSR_FRAME_MAX_BYTES */
    uint8_t *raw;   /* records to encode */
    struct cfsr_batch_codec *codec;
    uint32_t next;        /* round robin */
    uint64_t deadline_ns; /* READY, SENDING: a peer that takes no answer keeps the others waiting */
    union {
        struct cfsr_window_digest own[CFSR_REPLY_WINDOWS_MAX];
        struct cfsr_inbox_window inbox[CFSR_REPLY_WINDOWS_MAX];
    } windows;
};

/* ---- checking and mending (scrub.c, scrub_job.c) ---- */

struct node_scrub {
    struct cfsr_node_core *core;
    struct cfsr_scrub machine;
    uint64_t peer_sites[CFSR_STATUS_PEERS_MAX];
    struct cfsr_scrub_counters counted; /* what the core's counters hold already */
    bool asking;                        /* a QUERY of ours awaits its answer … */
    struct node_channel asked;          /* … on this connection */
    uint64_t served_ns[CFSR_LANES_MAX]; /* when a peer's question last found damage here */

    /* The job at hand; the helper thread owns these while it runs. */
    struct cfsr_node_job job;
    struct cfsr_scrub_step step;
    uint64_t committed_lsn;
    struct cfsr_inbox_end end;
    struct cfsr_journal_check *journal_check[CFSR_SCRUB_TASKS];
    struct cfsr_inbox_check *inbox_check;
    struct cfsr_batch_codec *codec;
    uint8_t *frame; /* the answer's body */
    uint32_t frame_bytes;
    uint64_t answer_site; /* who gave it */
    uint8_t *raw;
    uint32_t window_count; /* the answer's windows */
    struct cfsr_window_digest theirs[CFSR_REPLY_WINDOWS_MAX];
    struct cfsr_window_digest ours[CFSR_REPLY_WINDOWS_MAX];
    /* Its result. */
    int result;
    bool refused;
    uint64_t bytes, floor_lsn, end_lsn, first_different_lsn;
    uint32_t compared, different;
    struct cfsr_journal_gap journal_gap;
    struct cfsr_inbox_gap inbox_gap;
    bool unnamed; /* of an inbox check that is done: the lane's cursors are to be written */
    bool put_due; /* a verified frame waits for room in the inbox */
};

/* ---- the core ---- */

struct cfsr_node_core {
    struct cfsr_node_options options;
    struct cfsr_node_env env;
    struct cfsr_session_local local;
    uint64_t lane_mask;
    uint32_t record_seed;
    uint64_t turn, now_ns, wall_us;
    bool draining;
    bool receiving_bulk; /* the last batch, at batch_ns, said that more is coming */
    uint64_t batch_ns;
    bool sending_bulk; /* the last batch sent, at sent_ns, said that more is coming */
    uint64_t sent_ns;
    bool turn_again; /* something will be possible at the next turn without any event */

    uint64_t head_lsn[CFSR_LANES_MAX], head_entries[CFSR_LANES_MAX];
    uint64_t
        known_mask; /* lanes whose head is known in this boot; nothing is compared or sent before */

    struct cfsr_batch_codec *codec;
    uint32_t encode_class;
    uint8_t *scratch;

    struct node_stream *streams;
    uint32_t stream_count;
    struct node_batch *batches;
    uint32_t batch_count;
    uint32_t encodes_left; /* of this turn */
    uint8_t **seal_free;   /* seal slots, a stack */
    uint32_t seal_count, seal_free_count;
    uint64_t
        doubted_mask; /* lanes of which a peer found bytes wrong: checked before they are sent */

    struct node_link *links;
    uint32_t link_count;
    uint32_t next_link; /* round robin */
    uint64_t *acked; /* peers × lanes: the last a peer said, CFSR_LSN_UNKNOWN: nothing yet; a new
                        lane map's links begin with it */
    struct node_conn *conns;
    uint32_t conn_count, conns_in_use;

    struct node_store *stores[CFSR_LANES_MAX];
    struct node_inbox_slot *slots;
    uint32_t slot_count, slot_free; /* head of the free list, UINT32_MAX: empty */
    struct node_lent *lents;
    uint32_t lent_count, lent_free; /* the same */
    struct node_lender *lenders, *lender_free;
    uint32_t jobs_busy, ops_busy;
    bool room_moved; /* a slot, write or segment became free: waiting conns may go on */
    bool inbox_full; /* no segment can be had: full disk */
    uint64_t *seqs;  /* next seqs: peers × lanes × shards of a lane; 0: not known */
    uint32_t seqs_per_lane;

    bool queries_waiting; /* a connection may have a QUERY to be served */
    struct node_server server;
    struct node_scrub scrub;

    struct cfsr_node_counters counters;
    struct cfsr_node_stages stages;
    struct cfsr_outbox outbox;
};

static inline uint64_t node_clock(const struct cfsr_node_core *core)
{
    return core->env.clock_ns != NULL ? core->env.clock_ns(core->env.user) : 0;
}
static inline bool node_owns(const struct cfsr_node_core *core, uint32_t lane)
{
    return lane < core->options.site->lanes && (core->lane_mask >> lane & 1) != 0;
}
static inline void node_adopt(const struct cfsr_node_core *core, struct cfsr_file *file)
{
    if (core->env.adopt_file != NULL)
        core->env.adopt_file(core->env.user, file);
}
void node_submit_job(struct cfsr_node_core *core, struct cfsr_node_job *job);
void node_job_finished(struct cfsr_node_core *core, struct cfsr_node_job *job);

/* source.c */
int node_streams_create(struct cfsr_node_core *core);
void node_streams_destroy(struct cfsr_node_core *core);
/* The stream of (lane, lsn), aimed there now if need be; NULL: all are busy (stall). */
struct node_stream *node_stream_at(struct cfsr_node_core *core, uint32_t lane, uint64_t lsn);
/*
 * Bytes ready at the stream's position: 0 and data, or -EAGAIN (being read), or a sticky error.
 * Keeps the read-ahead going. need_bytes > 0: more than what is shown is needed.
 */
int node_stream_peek(struct node_stream *stream, uint32_t need_bytes, const uint8_t **data_out,
                     uint32_t *len_out);
void node_stream_consume(struct node_stream *stream, uint32_t data_bytes, uint64_t next_lsn);
/* The bytes at the position failed their check: read again once from a fresh open, then
 * -CFSR_E_DAMAGED or GONE. */
int node_stream_bad_bytes(struct node_stream *stream);

/* encode.c */
int node_batches_create(struct cfsr_node_core *core);
void node_batches_destroy(struct cfsr_node_core *core);
/* The encoded batch that begins at (lane, from): 0; -EAGAIN not ready (reading, no slot, budget
 * used); else a journal error. */
int node_batch_get(struct cfsr_node_core *core, uint32_t lane, uint64_t from,
                   struct node_batch **batch_out);
void node_batch_release(struct node_batch *batch);
/* A peer found bytes of these lanes wrong: forget what is encoded, check from now on. */
void node_batches_doubt(struct cfsr_node_core *core, uint64_t lane_mask);

/* seal.c */
uint32_t node_seal_slots(const struct cfsr_node_options *options);
int node_seals_create(struct cfsr_node_core *core);
void node_seals_destroy(struct cfsr_node_core *core);
/* False: the session seals bodies, and the link can have no slot now. */
bool node_seal_has_room(const struct node_link *link);
/* Seals the frame's batch, whose prefix is signed and stored in its head: the body to a slot, which
 * out then sends in its place; the batch is released. */
void node_seal_frame(struct node_link *link, uint16_t flags, struct node_frame *frame,
                     struct cfsr_frame *out);
void node_seal_release(struct node_link *link, struct node_frame *frame);

/* outgoing.c */
int node_links_create(struct cfsr_node_core *core, uint64_t now_ns);
void node_links_destroy(struct cfsr_node_core *core);
unsigned node_links_turn(struct cfsr_node_core *core);
uint64_t node_links_deadline(const struct cfsr_node_core *core);
void node_links_drain(struct cfsr_node_core *core);
bool node_links_idle(const struct cfsr_node_core *core);
int node_control_create(struct cfsr_node_core *core, struct node_control *control);
/* Copies a sealed frame into a free control slot and hands it to the transport. */
void node_control_send(const struct cfsr_node_path *path, struct node_control *control,
                       struct cfsr_conn *conn, const void *frame, uint32_t frame_bytes);
uint32_t node_control_free(const struct node_control *control);
/* A place for a link; NULL: none is free. */
struct node_link *node_link_free(struct cfsr_node_core *core);
void node_link_open(struct node_link *link, uint32_t peer, uint32_t peer_core, uint64_t lane_mask);
/* Its lanes begin with where the peer stands, as far as it ever said. */
void node_link_take_acked(struct node_link *link);
#define NODE_COOKIE_CONTROL 0x8000000000000000ull
#define NODE_COOKIE_REPLY   0x4000000000000000ull
void node_control_sent(struct node_control *control, uint64_t cookie);
/* Runs what the last event of the link's sender asked for. */
void node_link_execute(struct node_link *link);
/* Seals and sends a REPLY; 0, -EAGAIN (no room now), -ENOTCONN. The bytes stay untouched until
 * node_server_sent(). */
int node_link_reply(struct node_link *link, void *bytes, uint32_t payload_bytes);
/* Our journal's lane was mended, or cannot be at lsn. */
void node_links_mended(struct cfsr_node_core *core, uint32_t lane, bool mended, uint64_t lsn);

/* path.c */
unsigned node_paths_poll(struct cfsr_node_core *core, unsigned budget);
void node_paths_flush(struct cfsr_node_core *core);
/* True if every transport will wake the core when there is something for it. */
bool node_paths_arm(struct cfsr_node_core *core);
/* Places for links, challengers included, of a core that owns so many lanes. */
uint32_t node_links_max(const struct cfsr_node_options *options, uint32_t owned);
/*
 * The link header at the span's beginning: 0; -EAGAIN until more of it has come; -CFSR_E_BAD_FRAME
 * and others if it is none, also if a transport of messages shows anything but one whole frame.
 */
int node_path_frame(const struct cfsr_node_path *path, const uint8_t *span, size_t len_bytes,
                    struct cfsr_link_header *header_out);
/* A fresh link's route. */
void node_route_init(struct node_link *link);
/* The link dials: aims it at its path. 0 and the endpoint, or why that path cannot be used. */
int node_path_dial(struct node_link *link, const char **endpoint_out);
/* The link's connection, or its attempt, ended (the sender knows why): it may take the other path
 * next, then at once. True if the end is no news for operators: it was said, or nothing stands. */
bool node_path_ended(struct node_link *link);
/* The link's sender passed its handshake. A challenger becomes the link here. */
void node_path_established(struct node_link *link);
/* A challenger is connected: true, and its HELLO waits for node_path_release(). */
bool node_path_hold(struct node_link *link);
/* Says HELLO if the link it challenges has nothing in flight. */
void node_path_release(struct node_link *link);
/* A challenger is at the handshake: nothing is sent meanwhile. */
bool node_path_is_quiet(const struct node_link *link);
/* Challenges the link when it is time. */
void node_path_turn(struct node_link *link);
uint64_t node_path_deadline(const struct node_link *link);
/* A link without its challenger, or that without its link. */
void node_rivals_part(struct node_link *link);

/* stamp.c */
void node_stamp_check(struct node_link *link, const struct cfsr_action *action);

/* query.c */
int node_server_create(struct cfsr_node_core *core);
void node_server_destroy(struct cfsr_node_core *core);
unsigned node_server_turn(struct cfsr_node_core *core);
uint64_t node_server_deadline(const struct cfsr_node_core *core);
void node_server_sent(struct cfsr_node_core *core);
/* A connection ended: what was asked or served on it is over. */
void node_queries_closed(struct cfsr_node_core *core, struct node_channel channel);
/* Sends a QUERY to the peer (an index); false: it cannot be asked now. */
bool node_ask(struct cfsr_node_core *core, uint32_t peer, const struct cfsr_query *query,
              struct node_channel *channel_out);
bool node_can_ask(const struct cfsr_node_core *core, uint32_t peer, uint32_t lane);
/* The channel's port, NULL if that connection is gone. */
struct cfsr_query_port *node_channel_port(const struct node_channel *channel);

/* scrub.c */
int node_scrub_create(struct cfsr_node_core *core, uint64_t now_ns);
void node_scrub_destroy(struct cfsr_node_core *core);
unsigned node_scrub_turn(struct cfsr_node_core *core);
uint64_t node_scrub_deadline(const struct cfsr_node_core *core);
/* A link met damage in our own journal. */
void node_scrub_damaged(struct cfsr_node_core *core, uint32_t lane, uint64_t lsn);
/* Serving a peer met damage: of our own journal at lsn, or of the inbox. */
void node_scrub_served_damage(struct cfsr_node_core *core, uint32_t lane, bool inbox, uint64_t lsn);
/* The lane's inbox is known to be damaged. */
void node_scrub_inbox(struct cfsr_node_core *core, uint32_t lane);
void node_scrub_on_peer(struct cfsr_node_core *core);
/* rc 0 and the answer to what was asked, or why there is none. */
void node_scrub_answered(struct cfsr_node_core *core, int rc, const struct cfsr_reply *reply);
/* scrub_job.c */
void node_scrub_run_job(struct cfsr_node_job *job);

/* incoming.c */
int node_conns_create(struct cfsr_node_core *core);
void node_conns_destroy(struct cfsr_node_core *core);
unsigned node_conns_turn(struct cfsr_node_core *core);
uint64_t node_conns_deadline(const struct cfsr_node_core *core);
void node_conns_drain(struct cfsr_node_core *core);
/* Ends the connections that carry the lane: their peers resume from the durable cursors. */
void node_conns_drop_lane(struct cfsr_node_core *core, uint32_t lane, int reason);
/* Silent strangers must not keep the peers out: one of the path (NULL: of any) goes. */
void node_conns_evict(struct cfsr_node_core *core, const struct cfsr_node_path *path);
void node_conn_execute(struct node_conn *conn);
/* As node_link_reply(). */
int node_conn_reply(struct node_conn *conn, void *bytes, uint32_t payload_bytes);

/* lend.c */
int node_lends_create(struct cfsr_node_core *core);
void node_lends_destroy(struct cfsr_node_core *core);
/* True if frames of this connection can be written from where they are, and one more now. */
bool node_can_lend(const struct node_conn *conn);
/* Lends the frame at hand, about to be taken; returns its name for the inbox lane. */
uint32_t node_lend(struct node_conn *conn);
/* The lane is done with it: its memory goes back when all before it has. */
void node_lent_back(struct cfsr_node_core *core, uint32_t name);
/* The connection took so many bytes: released as soon as what is lent before them is written. */
void node_conn_took(struct node_conn *conn, uint64_t len_bytes);
/* From on_closed: what is lent is kept until it is written. */
void node_lender_closed(struct node_conn *conn);

/* store.c */
int node_stores_create(struct cfsr_node_core *core);
void node_stores_destroy(struct cfsr_node_core *core);
int node_store_add(struct cfsr_node_core *core, uint32_t lane,
                   const struct cfsr_inbox_state *state);
/* Room for a frame of this many bytes; takes a slot if needed. False: stalled, counted. */
bool node_store_room(struct node_store *store, uint32_t frame_bytes);
/* Room to write a frame from where it is. False: ask for the other. */
bool node_store_room_in_place(struct node_store *store, uint32_t frame_bytes);
/* Why a peer is not let in while a failed lane is begun anew; a typed error with its message. */
int node_store_refusal(const struct node_store *store);
unsigned node_stores_turn(struct cfsr_node_core *core);
uint64_t node_stores_deadline(const struct cfsr_node_core *core);
bool node_stores_idle(const struct cfsr_node_core *core);

#endif
