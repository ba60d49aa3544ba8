/*
 * serve_config.h - everything the daemon is told: one plain struct, filled from flags and the INI
 * file (control/serve_options.h).
 *
 * Every field has a flag and a configuration key of the same name with '-' for '_' and without the
 * unit suffix where the value carries its unit; names, limits, defaults and help stand once, in the
 * table of serve_options.c. Values are checked when they are set: a daemon that gets this struct
 * need not check ranges again. Owned by the caller of cfsr_daemon_run() for the daemon's life.
 */
#ifndef CFSR_CONTROL_SERVE_CONFIG_H
#define CFSR_CONTROL_SERVE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "journal/site.h"
#include "pipeline/codec.h"
#include "repl/route.h"
#include "repl/session.h"

#define CFSR_LISTENS_MAX 4
#define CFSR_PEERS_MAX   64
#define CFSR_CORES_MAX   64
/* "rdma://", a host name of 253 characters, ':', a port, NUL */
#define CFSR_ENDPOINT_TEXT_MAX 272
#define CFSR_SOCKET_PATH_MAX   108 /* sun_path */
#define CFSR_RDMA_DEVICE_MAX   64  /* IBV_SYSFS_NAME_MAX */
#define CFSR_RDMA_DEPTH_MIN    8
#define CFSR_RDMA_DEPTH_MAX    1024 /* slots of 4 KiB in a receive ring of 4 MiB */
#define CFSR_RDMA_GID_MAX      255

struct cfsr_peer_config {
    uint64_t site_id; /* 1 … 2^64-2, each once */
    char name[CFSR_SITE_NAME_MAX + 1];
    /*
     * By enum cfsr_path: "tcp://HOST:PORT" and "rdma://HOST:PORT", checked. TCP is always there:
     * where the peer was given as rdma:// alone, at the same address. RDMA is "" if not given.
     */
    char endpoint[CFSR_PATHS][CFSR_ENDPOINT_TEXT_MAX];
};

enum cfsr_ack_mode {
    CFSR_ACK_DURABLE, /* acked means synced at the receiver */
    CFSR_ACK_WRITTEN, /* acked means handed to the receiver's kernel; named in every ack and in
                         status */
};
enum cfsr_io_mode {
    CFSR_IO_BUFFERED,
    CFSR_IO_DIRECT,
};

struct cfsr_serve_config {
    /* site */
    char data_dir[CFSR_PATH_MAX];
    uint64_t site_id;                /* must equal the data directory's; 0: not checked */
    char key_file[CFSR_PATH_MAX];    /* the keyring */
    char config_file[CFSR_PATH_MAX]; /* the INI file that was read; "" if none */

    /* network */
    /* "tcp://HOST:PORT": TCP only. "rdma://HOST:PORT": RDMA and, unless rdma is CFSR_RDMA_REQUIRE,
     * TCP too. No address is given twice. */
    char listen[CFSR_LISTENS_MAX][CFSR_ENDPOINT_TEXT_MAX];
    uint32_t listen_count;
    struct cfsr_peer_config peer[CFSR_PEERS_MAX];
    uint32_t peer_count;
    uint64_t window_bytes; /* unacknowledged bytes in flight, per connection */
    uint64_t heartbeat_interval_ms;
    uint64_t peer_timeout_ms;  /* without progress: close and reconnect */
    uint64_t dial_timeout_ms;  /* connect and handshake together */
    uint64_t reconnect_min_ms; /* first back-off; doubled with jitter up to … */
    uint64_t reconnect_max_ms;
    enum cfsr_ack_mode ack;
    enum cfsr_seal seal; /* bodies sealed per link: off, or nothing else */

    /* RDMA */
    enum cfsr_rdma_mode rdma; /* CFSR_RDMA_REQUIRE: every peer has an RDMA endpoint, every listen is
                                 one */
    char rdma_device[CFSR_RDMA_DEVICE_MAX]; /* "": the first with an active port */
    int32_t rdma_gid;                       /* 0 … 255; -1: the system chooses */
    uint32_t rdma_depth;                    /* slots of a receive ring: a power of two */
    uint32_t rdma_poll_us; /* longest look at the completion queue before a core sleeps; 0: none */

    /* cores */
    uint32_t core_cpu[CFSR_CORES_MAX]; /* cpu ids of --cores, in the order given; each thread is
                                          bound to its cpu */
    uint32_t core_cpu_count;           /* 0: core_count threads, not bound */
    uint32_t core_count;   /* threads: core_cpu_count when that is not 0, else --core-count */
    uint64_t idle_spin_us; /* polling without work before a core sleeps; 0: sleep at once */

    /* pipeline */
    uint32_t batch_size;            /* entries; 0: unlimited, batch_bytes decides */
    uint32_t batch_bytes;           /* raw record bytes */
    uint64_t batch_timeout_ms;      /* ceiling of gathering; 0: send what is there */
    struct cfsr_codec_config codec; /* --compress and --min-compress-bytes */

    /* files */
    enum cfsr_io_mode journal_io;
    enum cfsr_io_mode inbox_io;
    uint64_t inbox_cap_bytes; /* 0: min(50 % of the file system, 256 GiB) */
    uint64_t sync_bytes;      /* inbox: write out when this much is gathered */
    uint64_t sync_delay_us;   /* inbox: or when the oldest record has waited this long */

    /* memory, per core */
    uint32_t read_buffers; /* journal reads in flight or being walked */
    uint32_t batch_slots;  /* encoded batches on their way out */
    uint32_t inbox_slots;  /* CFSR_INBOX_SLOT_BYTES each */

    /* checking what rests */
    uint64_t scrub_interval_s;       /* between scrubs by itself; 0: none */
    uint64_t scrub_rate_bytes_per_s; /* of one core's scrub; 0: unlimited */

    /* seeing inside */
    char admin_socket[CFSR_SOCKET_PATH_MAX]; /* default DATA/run/admin.sock, filled in */
    uint64_t status_interval_s;              /* seconds between status lines in the log; 0: none */
    enum cfsr_log_level log_level;
    enum cfsr_log_format log_format;
};

#endif
