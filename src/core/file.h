/*
 * file.h - the file seam: every byte the journal, the inbox and recovery read or write goes
 * through one of these tables.
 *
 * Three backends: ring (the daemon's cores: io_uring), blocking (the library, the tools, helper
 * threads) and simulated (tests and the simulator: in memory, seeded faults, crash with loss of
 * unsynced data). The code above cannot tell.
 *
 * Two ways to move data:
 * - asynchronous: cfsr_fs_submit() an op; its done() is called later, from cfsr_fs_poll() (ring:
 *   from the core's dispatch) and never from submit. The op and its buffer belong to the backend
 *   until then.
 * - synchronous: cfsr_file_pread/pwrite/sync, for start-up, recovery, tools and helper threads;
 *   never on a core's tick. Name operations (open, rename, …) are synchronous; cores get files
 *   opened by a helper.
 *
 * A file whose sync or durable write failed is marked failed: every later write and sync returns
 * -CFSR_E_FAILED (the kernel reports a lost page once; see PostgreSQL's fsync history). Reopen and
 * re-verify.
 */
#ifndef CFSR_CORE_FILE_H
#define CFSR_CORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cfsr_fs;   /* a backend instance; one thread's (blocking: stateless, any threads) */
struct cfsr_file; /* an open file of one backend instance */

enum cfsr_open_flag {
    CFSR_OPEN_READ = 1u << 0,
    CFSR_OPEN_WRITE = 1u << 1,
    CFSR_OPEN_CREATE = 1u << 2,
    CFSR_OPEN_EXCLUSIVE = 1u << 3,
    /*
     * O_DIRECT: offsets, lengths and buffers aligned to cfsr_file_alignment(). A file system that
     * has no direct I/O gives a buffered file instead, whose alignment is 1.
     */
    CFSR_OPEN_DIRECT = 1u << 4,
};

enum cfsr_file_op_type {
    CFSR_FILE_READ,
    CFSR_FILE_WRITE,
    CFSR_FILE_WRITE_DURABLE,
    CFSR_FILE_SYNC
};

#define CFSR_BUFFER_UNREGISTERED UINT16_MAX

struct cfsr_file_op {
    enum cfsr_file_op_type type;
    uint16_t buffer_index; /* registered buffer that contains buf, or CFSR_BUFFER_UNREGISTERED */
    struct cfsr_file *file;
    void *buf;
    uint32_t len_bytes;
    uint64_t offset_bytes;
    /*
     * Set before done(): bytes moved or -errno. READ: short only at the end of the file. WRITE*:
     * all bytes or an error (backends finish short writes themselves). WRITE_DURABLE: the bytes are
     * durable (RWF_DSYNC); on buffered files too.
     */
    int32_t result;
    void (*done)(struct cfsr_file_op *op);
    void *user;
    uint64_t backend[8]; /* private to the backend while in flight */
};

struct cfsr_dir_entry {
    const char *name; /* valid during the callback */
    bool is_directory;
    uint64_t size_bytes;
};

struct cfsr_fs_ops {
    const char *name; /* "ring", "blocking", "simulated" */
    int (*open)(struct cfsr_fs *fs, const char *path, unsigned flags, struct cfsr_file **file_out);
    void (*close)(struct cfsr_fs *fs, struct cfsr_file *file);
    int (*size)(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t *bytes_out);
    uint32_t (*alignment)(struct cfsr_fs *fs, struct cfsr_file *file); /* 1 when not direct */
    int (*pread)(struct cfsr_fs *fs, struct cfsr_file *file, void *buf, uint32_t len,
                 uint64_t offset);
    int (*pwrite)(struct cfsr_fs *fs, struct cfsr_file *file, const void *buf, uint32_t len,
                  uint64_t offset, bool durable);
    int (*sync)(struct cfsr_fs *fs, struct cfsr_file *file); /* fdatasync */
    int (*allocate)(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t offset, uint64_t len);
    int (*truncate)(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t len);
    int (*lock)(struct cfsr_fs *fs,
                struct cfsr_file *file); /* exclusive, -CFSR_E_LOCKED if held elsewhere */
    int (*rename)(struct cfsr_fs *fs, const char *from, const char *to);
    int (*unlink)(struct cfsr_fs *fs, const char *path);
    int (*mkdir)(struct cfsr_fs *fs, const char *path); /* 0 also if it exists as a directory */
    int (*sync_dir)(struct cfsr_fs *fs, const char *path);
    /* Calls visit for each entry but "." and "..", in no order; a non-zero return stops and is
     * returned. */
    int (*list)(struct cfsr_fs *fs, const char *path,
                int (*visit)(void *user, const struct cfsr_dir_entry *entry), void *user);
    int (*space)(struct cfsr_fs *fs, const char *path, uint64_t *free_out, uint64_t *total_out);
    int (*submit)(struct cfsr_fs *fs,
                  struct cfsr_file_op *op); /* 0, or -EAGAIN when the ring is full */
    unsigned (*poll)(struct cfsr_fs *fs);   /* dispatches completions; count */
};

struct cfsr_fs {
    const struct cfsr_fs_ops *ops;
};

struct cfsr_file {
    struct cfsr_fs *fs;
    bool failed; /* a sync or durable write failed */
};

/* Wrappers: check the failed flag, then call the table. Reads return bytes read (short only at end
 * of file). */
int cfsr_file_open(struct cfsr_fs *fs, const char *path, unsigned flags,
                   struct cfsr_file **file_out);
void cfsr_file_close(struct cfsr_file *file);
int cfsr_file_size(struct cfsr_file *file, uint64_t *bytes_out);
uint32_t cfsr_file_alignment(struct cfsr_file *file);
int cfsr_file_pread(struct cfsr_file *file, void *buf, uint32_t len_bytes, uint64_t offset_bytes);
/* All of it or an error; durable: on disk when it returns. */
int cfsr_file_pwrite(struct cfsr_file *file, const void *buf, uint32_t len_bytes,
                     uint64_t offset_bytes, bool durable);
int cfsr_file_sync(struct cfsr_file *file);
int cfsr_file_allocate(struct cfsr_file *file, uint64_t offset_bytes, uint64_t len_bytes);
int cfsr_file_truncate(struct cfsr_file *file, uint64_t len_bytes);
int cfsr_file_lock(struct cfsr_file *file);
/*
 * 0: done() will be called. -CFSR_E_FAILED for a write or sync of a file that has failed, -EAGAIN
 * if the backend has no room now: done() is not called.
 */
int cfsr_fs_submit(struct cfsr_fs *fs, struct cfsr_file_op *op);
unsigned cfsr_fs_poll(struct cfsr_fs *fs);

/* The blocking backend: one shared, stateless instance; submitted ops complete at the next poll of
 * that thread. */
struct cfsr_fs *cfsr_fs_blocking(void);

/* The simulated backend (src/core/file_sim.c). Single thread. */
struct cfsr_fs_sim_options {
    uint64_t seed;
    uint64_t capacity_bytes;        /* -ENOSPC beyond it */
    uint64_t write_latency_us;      /* virtual time of one async op, see cfsr_fs_sim_advance() */
    uint32_t fail_sync_per_million; /* probability of -EIO on a sync or durable write */
};
enum cfsr_persistence {
    CFSR_PERSIST_NOTHING,
    CFSR_PERSIST_EVERYTHING,
    CFSR_PERSIST_RANDOM,
    CFSR_PERSIST_PREFIX
};
int cfsr_fs_sim_create(const struct cfsr_fs_sim_options *options, struct cfsr_fs **fs_out);
void cfsr_fs_sim_destroy(struct cfsr_fs *fs);
/* Virtual time: completions due by now_us are delivered by the next poll. */
void cfsr_fs_sim_advance(struct cfsr_fs *fs, uint64_t now_us);
uint64_t cfsr_fs_sim_next_due_us(const struct cfsr_fs *fs); /* UINT64_MAX if nothing is pending */
/*
 * Power cut: open files and locks vanish, unsynced data survives as the model says (RANDOM and
 * PREFIX tear at 512-byte sectors), pending ops never complete. Names: created and renamed entries
 * not covered by sync_dir may vanish too.
 */
void cfsr_fs_sim_crash(struct cfsr_fs *fs, enum cfsr_persistence model);
/* Damage for tests: flips one bit of a file's durable and visible bytes. */
int cfsr_fs_sim_flip_bit(struct cfsr_fs *fs, const char *path, uint64_t bit);
/* Fails the op number n from now (every write, sync, rename, allocate, unlink counts); 0 turns it
 * off. */
void cfsr_fs_sim_fail_nth(struct cfsr_fs *fs, uint64_t n, int rc);
uint64_t cfsr_fs_sim_op_count(const struct cfsr_fs *fs);

#endif
