/*
 * serve_options.c - every tunable of the daemon, said once.
 *
 * Thread: the main thread, before anything is started; pure but for the configuration file. A new
 * tunable is one row here and one field in serve_config.h: flag, key, help, limits and
 * --print-config follow. Defaults with a measured reason say it in docs/performance.md.
 */
#include "control/serve_options.h"

#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "control/serve_values.h"

static const char *const ack_names[] = {"durable", "written", NULL};
static const char *const io_names[] = {"buffered", "direct", NULL};
static const char *const seal_names[] = {"off", "require", NULL};
static const char *const rdma_names[] = {"auto", "require", "off", NULL};
static const char *const level_names[] = {"debug", "info", "warn", "error", NULL};
static const char *const format_names[] = {"logfmt", "json", NULL};
_Static_assert(CFSR_ACK_DURABLE == 0 && CFSR_ACK_WRITTEN == 1, "ack_names follows the enum");
_Static_assert(CFSR_IO_BUFFERED == 0 && CFSR_IO_DIRECT == 1, "io_names follows the enum");
_Static_assert(CFSR_SEAL_OFF == 0 && CFSR_SEAL_REQUIRE == 1, "seal_names follows the enum");
_Static_assert(CFSR_RDMA_AUTO == 0 && CFSR_RDMA_REQUIRE == 1 && CFSR_RDMA_OFF == 2,
               "rdma_names follows the enum");
_Static_assert(CFSR_LOG_DEBUG == 0 && CFSR_LOG_ERROR == 3, "level_names follows the enum");
_Static_assert(CFSR_LOG_LOGFMT == 0 && CFSR_LOG_JSON == 1, "format_names follows the enum");

#define FIELD(member) CFSR_OPTION_FIELD(struct cfsr_serve_command, member)
#define MINUTE_MS     (60ull * 1000)

static const struct cfsr_option options[] = {
    {.name = "data-dir",
     .value_name = "DIR",
     .group = "Site",
     .kind = CFSR_OPTION_TEXT,
     .required = true,
     .help = "Data directory of this site, made by 'cfs-repl init'.",
     .environment = "CFSR_DATA_DIR",
     FIELD(config.data_dir)},
    {.name = "site-id",
     .value_name = "N",
     .group = "Site",
     .kind = CFSR_OPTION_COUNT,
     .max = UINT64_MAX - 1,
     .help = "Refuse to start unless the data directory belongs to this site.",
     .default_text = "0",
     .zero_means = "not checked",
     FIELD(config.site_id)},
    {.name = "key-file",
     .value_name = "FILE",
     .group = "Site",
     .kind = CFSR_OPTION_TEXT,
     .required = true,
     .help = "Keyring shared by the sites, mode 0600, made by 'cfs-repl keygen'.",
     FIELD(config.key_file)},
    {.name = "config",
     .value_name = "FILE",
     .group = "Site",
     .kind = CFSR_OPTION_TEXT,
     .flag_only = true,
     .help = "INI file with 'key = value' lines, keys named as these flags, in a [serve] section "
             "or in none; "
             "'peer' and 'listen' may repeat. Flags override the file.",
     FIELD(config.config_file)},
    {.name = "print-config",
     .group = "Site",
     .kind = CFSR_OPTION_BOOL,
     .flag_only = true,
     .help =
         "Print every effective value and where it came from, as a configuration file, and exit.",
     FIELD(print_config)},

    {.name = "listen",
     .value_name = "ENDPOINT",
     .group = "Network",
     .kind = CFSR_OPTION_CUSTOM,
     .repeatable = true,
     .set = cfsr_serve_set_listen,
     .reset = cfsr_serve_reset_listen,
     .show = cfsr_serve_show_listen,
     .help = "Accept peers at tcp://HOST:PORT, or at rdma://HOST:PORT, where RDMA and, unless "
             "--rdma require, TCP are accepted; at most 4. Without it this site only dials.",
     .offset = 0},
    {.name = "peer",
     .value_name = "ID:NAME:ENDPOINT",
     .group = "Network",
     .kind = CFSR_OPTION_CUSTOM,
     .repeatable = true,
     .set = cfsr_serve_set_peer,
     .reset = cfsr_serve_reset_peers,
     .show = cfsr_serve_show_peer,
     .help = "A site to replicate to and to accept from, e.g. 2:site-b:tcp://10.0.0.2:7400; at "
             "most 64. rdma://HOST:PORT means RDMA there and TCP at the same address where RDMA "
             "does not work; rdma://HOST:PORT,tcp://HOST:PORT gives TCP another address.",
     .offset = 0},
    {.name = "window-bytes",
     .value_name = "SIZE",
     .group = "Network",
     .kind = CFSR_OPTION_SIZE,
     .min = 64u << 10,
     .max = 1u << 30,
     .default_text = "16MiB",
     .help = "Unacknowledged bytes in flight on a connection.",
     FIELD(config.window_bytes)},
    {.name = "heartbeat-interval",
     .value_name = "TIME",
     .group = "Network",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1000,
     .min = 10,
     .max = MINUTE_MS,
     .default_text = "1s",
     .help = "Time between heartbeats to a peer.",
     FIELD(config.heartbeat_interval_ms)},
    {.name = "peer-timeout",
     .value_name = "TIME",
     .group = "Network",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1000,
     .min = 100,
     .max = 60 * MINUTE_MS,
     .default_text = "10s",
     .help = "A connection without progress for this long is closed and made again; longer than "
             "two heartbeats.",
     FIELD(config.peer_timeout_ms)},
    {.name = "dial-timeout",
     .value_name = "TIME",
     .group = "Network",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1000,
     .min = 10,
     .max = 10 * MINUTE_MS,
     .default_text = "5s",
     .help = "Limit for connecting and the handshake together.",
     FIELD(config.dial_timeout_ms)},
    {.name = "reconnect-min",
     .value_name = "TIME",
     .group = "Network",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1000,
     .min = 1,
     .max = 10 * MINUTE_MS,
     .default_text = "100ms",
     .help = "First pause before dialling again; it doubles, with jitter.",
     FIELD(config.reconnect_min_ms)},
    {.name = "reconnect-max",
     .value_name = "TIME",
     .group = "Network",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1000,
     .min = 1,
     .max = 60 * MINUTE_MS,
     .default_text = "10s",
     .help = "Longest pause between dials.",
     FIELD(config.reconnect_max_ms)},
    {.name = "ack",
     .value_name = "MODE",
     .group = "Network",
     .kind = CFSR_OPTION_ENUM,
     .choices = ack_names,
     .default_text = "durable",
     .help = "When a batch is acknowledged: once it is synced here, or once it is written. "
             "'written' can lose "
             "acknowledged batches in a power cut of this site; they are then sent again.",
     FIELD(config.ack)},
    {.name = "seal",
     .value_name = "MODE",
     .group = "Network",
     .kind = CFSR_OPTION_ENUM,
     .choices = seal_names,
     .default_text = "off",
     .help = "'require' encrypts what batches hold on every link, whatever the transport, and "
             "refuses a peer that does not. Give all sites the same.",
     FIELD(config.seal)},

    {.name = "rdma",
     .value_name = "MODE",
     .group = "RDMA",
     .kind = CFSR_OPTION_ENUM,
     .choices = rdma_names,
     .default_text = "auto",
     .help = "For endpoints with rdma://. 'auto': RDMA where it works, else TCP, and back by "
             "itself. 'require': never TCP; without a device this site does not start. 'off': TCP "
             "only.",
     FIELD(config.rdma)},
    {.name = "rdma-device",
     .value_name = "NAME",
     .group = "RDMA",
     .kind = CFSR_OPTION_TEXT,
     .help = "Device to use, as 'ibv_devices' lists it. Default: the first with an active port.",
     FIELD(config.rdma_device)},
    {.name = "rdma-gid",
     .value_name = "N",
     .group = "RDMA",
     .kind = CFSR_OPTION_CUSTOM,
     .set = cfsr_serve_set_rdma_gid,
     .show = cfsr_serve_show_rdma_gid,
     .default_text = "-1",
     .help = "Dial from the address at this place of the device's GID table ('ibv_devinfo -v'); "
             "-1: the system chooses.",
     .offset = 0},
    {.name = "rdma-depth",
     .value_name = "N",
     .group = "RDMA",
     .kind = CFSR_OPTION_COUNT,
     .min = CFSR_RDMA_DEPTH_MIN,
     .max = CFSR_RDMA_DEPTH_MAX,
     .default_text = "64",
     .help = "Slots a connection's receive memory is cut into; a power of two. More are smaller "
             "and for more messages on their way.",
     FIELD(config.rdma_depth)},
    {.name = "rdma-poll-us",
     .value_name = "N",
     .group = "RDMA",
     .kind = CFSR_OPTION_COUNT,
     .max = 1000000,
     .default_text = "0",
     .zero_means = "sleep at once",
     .help = "Microseconds a core looks at the completion queue at most before it sleeps; adapts "
             "below that. Lower latency for cpu time.",
     FIELD(config.rdma_poll_us)},

    {.name = "cores",
     .value_name = "LIST",
     .group = "Cores",
     .kind = CFSR_OPTION_CUSTOM,
     .offset = 0,
     .set = cfsr_serve_set_cores,
     .show = cfsr_serve_show_cores,
     .help = "One core thread for each cpu of the list, bound to it, e.g. 0,2-3. Lanes are dealt "
             "to cores. Without it: "
             "--core-count threads, not bound."},
    {.name = "core-count",
     .value_name = "N",
     .group = "Cores",
     .kind = CFSR_OPTION_COUNT,
     .min = 1,
     .max = CFSR_CORES_MAX,
     .default_text = "1",
     .help = "Core threads when --cores is not given.",
     FIELD(config.core_count)},
    {.name = "idle-spin",
     .value_name = "TIME",
     .group = "Cores",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1,
     .max = 1000000,
     .default_text = "0s",
     .zero_means = "sleep at once",
     .help = "A core polls this long without work before it sleeps: lower latency for cpu time.",
     FIELD(config.idle_spin_us)},

    {.name = "batch-size",
     .value_name = "N",
     .group = "Batches",
     .kind = CFSR_OPTION_COUNT,
     .default_text = "0",
     .zero_means = "unlimited, --batch-bytes decides",
     .help = "Entries of a batch at most.",
     FIELD(config.batch_size)},
    {.name = "batch-bytes",
     .value_name = "SIZE",
     .group = "Batches",
     .kind = CFSR_OPTION_SIZE,
     .min = 4096,
     .max = CFSR_CODEC_INPUT_MAX_BYTES,
     .default_text = "256KiB",
     .help = "Record bytes of a batch before compression; a larger record is a batch of its own.",
     FIELD(config.batch_bytes)},
    {.name = "batch-timeout-ms",
     .value_name = "N",
     .group = "Batches",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1000,
     .bare_unit = true,
     .max = MINUTE_MS,
     .default_text = "20ms",
     .zero_means = "send at once",
     .help = "Longest time a batch gathers while the pipe is busy; milliseconds, or with a unit.",
     FIELD(config.batch_timeout_ms)},
    {.name = "compress",
     .value_name = "CODEC",
     .group = "Batches",
     .kind = CFSR_OPTION_CUSTOM,
     .set = cfsr_serve_set_compress,
     .show = cfsr_serve_show_compress,
     .default_text = "lz4",
     .offset = 0,
     .help = "lz4, lz4:ACCELERATION, zstd, zstd:LEVEL (1 to 22) or none."},
    {.name = "min-compress-bytes",
     .value_name = "SIZE",
     .group = "Batches",
     .kind = CFSR_OPTION_SIZE,
     .max = CFSR_CODEC_INPUT_MAX_BYTES,
     .default_text = "256",
     .help = "Smaller batches are sent as they are.",
     FIELD(config.codec.min_compress_bytes)},

    {.name = "journal-io",
     .value_name = "MODE",
     .group = "Files",
     .kind = CFSR_OPTION_ENUM,
     .choices = io_names,
     .default_text = "buffered",
     .help = "How the journal is read. Its tail is read back at once: the page cache helps.",
     FIELD(config.journal_io)},
    {.name = "inbox-io",
     .value_name = "MODE",
     .group = "Files",
     .kind = CFSR_OPTION_ENUM,
     .choices = io_names,
     .default_text = "direct",
     .help = "How the inbox is written. File systems without O_DIRECT fall back to buffered writes "
             "and syncs.",
     FIELD(config.inbox_io)},
    {.name = "inbox-cap",
     .value_name = "SIZE",
     .group = "Files",
     .kind = CFSR_OPTION_SIZE,
     .max = UINT64_MAX,
     .default_text = "0",
     .zero_means = "half of the file system, 256GiB at most",
     .help = "Inbox: disk it may take. What every consumer has seen goes first; at the cap the "
             "senders wait.",
     FIELD(config.inbox_cap_bytes)},
    {.name = "sync-bytes",
     .value_name = "SIZE",
     .group = "Files",
     .kind = CFSR_OPTION_SIZE,
     .min = 4096,
     .max = 1u << 20,
     .default_text = "1MiB",
     .help = "Inbox: write and sync when this much has gathered.",
     FIELD(config.sync_bytes)},
    {.name = "sync-delay",
     .value_name = "TIME",
     .group = "Files",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1,
     .max = 1000000,
     .default_text = "1ms",
     .zero_means = "at once",
     .help = "Inbox: or when the oldest batch has waited this long.",
     FIELD(config.sync_delay_us)},

    {.name = "read-buffers",
     .value_name = "N",
     .group = "Memory (each core)",
     .kind = CFSR_OPTION_COUNT,
     .min = 2,
     .max = 256,
     .default_text = "8",
     .help = "Journal reads in flight or in work.",
     FIELD(config.read_buffers)},
    {.name = "batch-slots",
     .value_name = "N",
     .group = "Memory (each core)",
     .kind = CFSR_OPTION_COUNT,
     .min = 4,
     .max = 1024,
     .default_text = "32",
     .help = "Encoded batches on their way out.",
     FIELD(config.batch_slots)},
    {.name = "inbox-slots",
     .value_name = "N",
     .group = "Memory (each core)",
     .kind = CFSR_OPTION_COUNT,
     .min = 2,
     .max = 512,
     .default_text = "16",
     .help = "Inbox write blocks of about 1.1 MiB, filling or being written.",
     FIELD(config.inbox_slots)},

    {.name = "scrub-interval-s",
     .value_name = "N",
     .group = "Scrub",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1000000,
     .bare_unit = true,
     .max = 10ull * 365 * 86400,
     .default_text = "604800s",
     .zero_means = "only when asked for",
     .help = "Seconds between checks of the whole journal and inbox against damage, also against "
             "the peers' copies; the first one after an eighth of it. A number, or with a unit.",
     FIELD(config.scrub_interval_s)},
    {.name = "scrub-rate",
     .value_name = "SIZE",
     .group = "Scrub",
     .kind = CFSR_OPTION_SIZE,
     .max = UINT64_MAX,
     .default_text = "64MiB",
     .zero_means = "unlimited",
     .help = "Bytes a second that a core's scrub reads at most. Repairing what a link waits for is "
             "not held back.",
     FIELD(config.scrub_rate_bytes_per_s)},

    {.name = "admin-socket",
     .value_name = "PATH",
     .group = "Observing",
     .kind = CFSR_OPTION_TEXT,
     .help = "Unix socket for 'cfs admin'. Default: DIR/run/admin.sock.",
     FIELD(config.admin_socket)},
    {.name = "status-interval-s",
     .value_name = "N",
     .group = "Observing",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1000000,
     .bare_unit = true,
     .max = 86400,
     .default_text = "30s",
     .zero_means = "none",
     .help = "Seconds between status lines in the log; a number, or with a unit.",
     FIELD(config.status_interval_s)},
    {.name = "log-level",
     .value_name = "LEVEL",
     .group = "Observing",
     .kind = CFSR_OPTION_ENUM,
     .choices = level_names,
     .default_text = "info",
     .help = "Least important events that are logged.",
     FIELD(config.log_level)},
    {.name = "log-format",
     .value_name = "FORMAT",
     .group = "Observing",
     .kind = CFSR_OPTION_ENUM,
     .choices = format_names,
     .default_text = "logfmt",
     .help = "Form of a log line on standard error.",
     FIELD(config.log_format)},
};

const struct cfsr_option_set cfsr_serve_option_set = {
    .program = "cfs-repl",
    .command = "serve",
    .synopsis =
        "--data-dir DIR --key-file FILE [--listen ENDPOINT] [--peer ID:NAME:ENDPOINT]... [options]",
    .summary = "Runs the replication daemon of one site: sends its journal to every peer and keeps "
               "what peers "
               "send in the inbox, until SIGTERM or SIGINT. Logs go to standard error.",
    .epilogue = "Units: sizes 4096, 256KiB, 16MiB, 1GiB; times 250us, 20ms, 1s, 5m, 1h.\n"
                "Exit codes: 0 ok, 1 failed, 2 usage, 74 input/output, 75 try again (in use),\n"
                "77 permission, 78 configuration or io_uring not available.",
    .options = options,
    .count = sizeof options / sizeof options[0],
};
_Static_assert(sizeof options / sizeof options[0] <= CFSR_OPTIONS_MAX, "raise CFSR_OPTIONS_MAX");

static int fill_admin_socket(struct cfsr_serve_config *config)
{
    int len;

    if (config->admin_socket[0] != '\0')
        return 0;
    len = snprintf(config->admin_socket, sizeof config->admin_socket, "%s/run/admin.sock",
                   config->data_dir);
    if (len < (int)sizeof config->admin_socket)
        return 0;
    return cfsr_fail(-CFSR_E_CONFIG,
                     "the path of the admin socket is too long: %s/run/admin.sock: give a shorter "
                     "--admin-socket",
                     config->data_dir);
}

/* An address that would be listened at twice, or on a path that --rdma excludes. */
static int check_listens(const struct cfsr_serve_config *config)
{
    for (uint32_t i = 0; i < config->listen_count; i++) {
        const char *text = config->listen[i];
        char tcp[CFSR_ENDPOINT_TEXT_MAX], rdma[CFSR_ENDPOINT_TEXT_MAX];

        cfsr_endpoint_on_path(text, CFSR_PATH_RDMA, rdma);
        if (config->rdma == CFSR_RDMA_REQUIRE && strcmp(text, rdma) != 0)
            return cfsr_fail(-CFSR_E_CONFIG,
                             "--listen %s accepts TCP, which --rdma require forbids: write %s, or "
                             "give --rdma auto",
                             text, rdma);
        cfsr_endpoint_on_path(text, CFSR_PATH_TCP, tcp);
        for (uint32_t k = 0; k < i; k++) {
            char other[CFSR_ENDPOINT_TEXT_MAX];

            cfsr_endpoint_on_path(config->listen[k], CFSR_PATH_TCP, other);
            if (strcmp(tcp, other) == 0)
                return cfsr_fail(-CFSR_E_CONFIG,
                                 "--listen %s and --listen %s are one address: rdma:// accepts TCP "
                                 "there too, so give it once",
                                 config->listen[k], text);
        }
    }
    return 0;
}

static int check_rdma(const struct cfsr_serve_config *config)
{
    uint32_t below = CFSR_RDMA_DEPTH_MIN;

    while (below * 2 <= config->rdma_depth)
        below *= 2;
    if (below != config->rdma_depth)
        return cfsr_fail(-CFSR_E_CONFIG, "--rdma-depth %u is not a power of two: give %u or %u",
                         config->rdma_depth, below, below * 2);
    for (uint32_t i = 0; config->rdma == CFSR_RDMA_REQUIRE && i < config->peer_count; i++) {
        const struct cfsr_peer_config *peer = &config->peer[i];

        if (peer->endpoint[CFSR_PATH_RDMA][0] == '\0')
            return cfsr_fail(-CFSR_E_CONFIG,
                             "--rdma require, but peer %llu:%s has only %s: give it an endpoint "
                             "rdma://HOST:PORT, or --rdma auto",
                             (unsigned long long)peer->site_id, peer->name,
                             peer->endpoint[CFSR_PATH_TCP]);
    }
    return check_listens(config);
}

/* What no single value can show. */
static int check_together(struct cfsr_serve_config *config)
{
    int rc;

    if (config->core_cpu_count > 0)
        config->core_count = config->core_cpu_count;
    if (config->reconnect_min_ms > config->reconnect_max_ms)
        return cfsr_fail(
            -CFSR_E_CONFIG,
            "--reconnect-min is above --reconnect-max: %llums above %llums: raise the maximum",
            (unsigned long long)config->reconnect_min_ms,
            (unsigned long long)config->reconnect_max_ms);
    if (config->peer_timeout_ms < 2 * config->heartbeat_interval_ms)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "--peer-timeout is below two heartbeats: %llums with --heartbeat-interval "
                         "%llums: raise it",
                         (unsigned long long)config->peer_timeout_ms,
                         (unsigned long long)config->heartbeat_interval_ms);
    if (config->window_bytes < config->batch_bytes)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "--window-bytes is below --batch-bytes: %llu below %u: raise the window",
                         (unsigned long long)config->window_bytes, config->batch_bytes);
    if (config->listen_count == 0 && config->peer_count == 0)
        return cfsr_fail(-CFSR_E_CONFIG, "nothing to do: give --listen, --peer or both");
    rc = check_rdma(config);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < config->peer_count; i++)
        if (config->site_id != 0 && config->peer[i].site_id == config->site_id)
            return cfsr_fail(-CFSR_E_CONFIG, "--peer %llu: is this site itself (--site-id)",
                             (unsigned long long)config->site_id);
    return fill_admin_socket(config);
}

int cfsr_serve_options_parse(int argc, char *const *argv, struct cfsr_serve_command *command_out,
                             struct cfsr_option_origins *origins_out)
{
    char path[CFSR_PATH_MAX];
    int rc;

    rc = cfsr_options_defaults(&cfsr_serve_option_set, command_out, sizeof *command_out,
                               origins_out);
    if (rc == 0)
        rc = cfsr_options_flags(&cfsr_serve_option_set, command_out, origins_out, argc, argv);
    if (rc != 0)
        return rc;
    if (command_out->config.config_file[0] != '\0') {
        /* Flags are stronger than the file, so the file comes first and the flags once more. */
        memcpy(path, command_out->config.config_file, sizeof path);
        rc = cfsr_options_defaults(&cfsr_serve_option_set, command_out, sizeof *command_out,
                                   origins_out);
        CFSR_ASSERT(rc == 0);
        rc = cfsr_options_file(&cfsr_serve_option_set, command_out, origins_out, path);
        if (rc == 0)
            rc = cfsr_options_flags(&cfsr_serve_option_set, command_out, origins_out, argc, argv);
        if (rc < 0)
            return rc;
        origins_out->path = command_out->config.config_file;
    }
    rc = cfsr_options_check_required(&cfsr_serve_option_set, command_out);
    if (rc < 0)
        return rc;
    return check_together(&command_out->config);
}
