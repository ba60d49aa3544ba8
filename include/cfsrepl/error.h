/*
 * error.h - error numbers and messages of cfs-repl.
 *
 * Functions return 0 or a count on success, -errno for errors of the system, and -CFSR_E_* for
 * errors of cfs-repl itself. The numbers are pinned: they appear on the wire (refusals, goodbyes),
 * in logs and in
 * `--json` output, and are never reused. They start above every errno so that the two never
 * collide.
 */
#ifndef CFSREPL_ERROR_H
#define CFSREPL_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, number, text): the one list from which enum, names and texts are made. */
#define CFSR_ERROR_LIST(X)                                                          \
    X(FORMAT, 4001, "not in the expected format")                                   \
    X(VERSION, 4002, "format or protocol version is not supported")                 \
    X(CHECKSUM, 4003, "checksum does not match")                                    \
    X(DAMAGED, 4004, "damaged below the commit point")                              \
    X(GONE, 4005, "position is below the retained range")                           \
    X(NOT_WRITABLE, 4006, "the local site does not accept writes")                  \
    X(TOO_LARGE, 4007, "larger than the limit")                                     \
    X(SEQ_WRAP, 4008, "sequence number would wrap")                                 \
    X(LOCKED, 4009, "in use by another process")                                    \
    X(FOREIGN, 4010, "belongs to another cluster, site or journal")                 \
    X(MISSING_SEGMENT, 4011, "a segment is missing")                                \
    X(FAILED, 4012, "failed earlier; the object must be reopened")                  \
    X(CODEC, 4013, "unknown or wrong compression algorithm")                        \
    X(DECOMPRESS, 4014, "compressed data is damaged")                               \
    X(BOMB, 4015, "decompressed data exceeds the declared size")                    \
    X(BAD_DIGEST, 4016, "body digest does not match")                               \
    X(BAD_TAG, 4017, "batch tag does not match")                                    \
    X(BAD_LINK_TAG, 4018, "link tag does not match")                                \
    X(BAD_FRAME, 4019, "malformed frame")                                           \
    X(BAD_ORDER, 4020, "records or frames out of order")                            \
    X(BAD_KEY, 4021, "the site-pair key is unknown or differs")                     \
    X(WRONG_CLUSTER, 4022, "the peer belongs to another cluster")                   \
    X(UNKNOWN_SITE, 4023, "the peer's site id is not configured here")              \
    X(DUPLICATE_SITE, 4024, "the peer uses this site's own id")                     \
    X(WRONG_SITE, 4025, "the peer is not the site it claims or was dialled as")     \
    X(LANES_DIFFER, 4026, "the peer has another lane or shard count")               \
    X(WRONG_CORE, 4027, "the lanes belong to other cores of the peer")              \
    X(JOURNAL_FORKED, 4028, "the journals have diverged")                           \
    X(JOURNAL_CHANGED, 4029, "the peer's journal identity changed")                 \
    X(NEEDS_BOOTSTRAP, 4030, "the needed range was removed; a bootstrap is needed") \
    X(REPLAYED, 4031, "frame sequence repeats or skips")                            \
    X(TIMEOUT, 4032, "no progress within the limit")                                \
    X(POOL_EMPTY, 4033, "a fixed pool is exhausted")                                \
    X(SHUTDOWN, 4034, "shutting down")                                              \
    X(CONFIG, 4035, "configuration is not valid")                                   \
    X(UNSAFE_PATH, 4036, "path would leave the target directory")                   \
    X(SUPERSEDED, 4037, "a newer connection took over")                             \
    X(NOT_CONFIGURED, 4038, "not configured")                                       \
    X(UNREACHABLE, 4039, "the daemon cannot be reached")                            \
    X(USAGE, 4040, "wrong usage")                                                   \
    X(NO_IO_URING, 4041, "io_uring is not available")                               \
    X(BACKPRESSURE, 4042, "receiver is not accepting data")                         \
    X(MOVED, 4043, "a position moved during the handshake; dial again")             \
    X(SEAL_REQUIRED, 4044, "one of the two sites requires sealed bodies, the other does not")

enum cfsr_error {
#define X(name, number, text) CFSR_E_##name = number,
    CFSR_ERROR_LIST(X)
#undef X
};

/* Text of a negative return value: of CFSR_E_* or of errno. Never NULL; static or thread-local
 * storage. */
const char *cfsr_strerror(int rc);

/* Short stable name of a negative return value ("journal_forked", "enospc"); for logs, JSON and
 * wire reasons. */
const char *cfsr_error_name(int rc);

/*
 * Message of the last failed call on this thread: what happened, to which object, what to do.
 * Set by cold paths beside their return value; "" if none was set since cfsr_error_clear().
 */
const char *cfsr_error_message(void);
void cfsr_error_clear(void);

#ifdef __cplusplus
}
#endif
#endif
