/*
 * file_posix.c - the synchronous half of the real file backends: plain system calls.
 *
 * Thread:     any; no state beside the file descriptor.
 * Invariants: reads and writes are continued until complete, the end of the file or an error; a
 *             durable write is on disk when it returns; every new name stays volatile until
 *             cfsr_posix_sync_dir() of its directory.
 * Locks:      flock(2), which belongs to the open file description: two opens conflict inside one
 *             process too, which record locks of fcntl(F_SETLK) would not do, and closing another
 *             descriptor of the file keeps the lock.
 * Rejected:   O_DSYNC on open (one file then has one durability for all writes).
 */
#include "core/file_backend.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fail.h"

#define FILE_MODE         0640
#define DIRECTORY_MODE    0750
#define ALIGNMENT_UNKNOWN 4096u /* when the kernel does not tell: right for every disk in use */

static struct cfsr_posix_file *posix_file(struct cfsr_file *file)
{
    return (struct cfsr_posix_file *)file;
}

static int fail_path(const char *action, const char *path)
{
    int rc = -errno;

    return cfsr_fail(rc, "cannot %s %s: %s", action, path, cfsr_strerror(rc));
}

/* The larger of the memory and the offset alignment, so that one number serves both (kernel 6.1,
 * statx(2)). */
static uint32_t direct_alignment(int fd)
{
    struct statx info;
    uint32_t align;

    memset(&info, 0, sizeof info);
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) != 0 ||
        (info.stx_mask & STATX_DIOALIGN) == 0)
        return ALIGNMENT_UNKNOWN;
    align = info.stx_dio_offset_align > info.stx_dio_mem_align ? info.stx_dio_offset_align
                                                               : info.stx_dio_mem_align;
    return align == 0 ? ALIGNMENT_UNKNOWN : align;
}

/*
 * Direct I/O from now on, if it works: the alignment; else 1, and the file stays buffered. The flag
 * can be set where reads and writes are refused afterwards (overlayfs over a tmpfs before Linux
 * 6.6), so one is tried.
 */
static uint32_t go_direct(int fd)
{
    uint32_t alignment;
    void *block;
    bool refused;

    if (fcntl(fd, F_SETFL, O_DIRECT) != 0)
        return 1;
    alignment = direct_alignment(fd);
    if (posix_memalign(&block, alignment, alignment) != 0)
        return alignment;
    refused = pread(fd, block, alignment, 0) < 0 && errno == EINVAL;
    free(block);
    if (refused && fcntl(fd, F_SETFL, 0) == 0)
        return 1;
    return alignment;
}

static int open_flags(unsigned flags)
{
    int result = O_CLOEXEC;

    if ((flags & CFSR_OPEN_READ) != 0 && (flags & CFSR_OPEN_WRITE) != 0)
        result |= O_RDWR;
    else
        result |= (flags & CFSR_OPEN_WRITE) != 0 ? O_WRONLY : O_RDONLY;
    if ((flags & CFSR_OPEN_CREATE) != 0)
        result |= O_CREAT;
    if ((flags & CFSR_OPEN_EXCLUSIVE) != 0)
        result |= O_EXCL;
    return result;
}

int cfsr_posix_open(struct cfsr_fs *fs, const char *path, unsigned flags,
                    struct cfsr_file **file_out)
{
    struct cfsr_posix_file *file;
    int fd;

    fd = open(path, open_flags(flags), FILE_MODE);
    if (fd < 0)
        return fail_path("open", path);
    file = calloc(1, sizeof *file);
    if (file == NULL) {
        close(fd);
        return -ENOMEM;
    }
    file->file.fs = fs;
    file->fd = fd;
    file->alignment = 1;
    /* Set after the open, so that a file system without direct I/O leaves no half-made file behind.
     */
    if ((flags & CFSR_OPEN_DIRECT) != 0)
        file->alignment = go_direct(fd);
    *file_out = &file->file;
    return 0;
}

void cfsr_posix_close(struct cfsr_fs *fs, struct cfsr_file *file)
{
    struct cfsr_posix_file *posix = posix_file(file);

    (void)fs;
    CFSR_ASSERT(atomic_load_explicit(&posix->in_flight, memory_order_relaxed) == 0);
    close(posix->fd);
    free(posix);
}

int cfsr_posix_size(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t *bytes_out)
{
    struct stat info;

    (void)fs;
    if (fstat(posix_file(file)->fd, &info) != 0)
        return -errno;
    *bytes_out = (uint64_t)info.st_size;
    return 0;
}

uint32_t cfsr_posix_alignment(struct cfsr_fs *fs, struct cfsr_file *file)
{
    (void)fs;
    return posix_file(file)->alignment;
}

int cfsr_posix_pread(struct cfsr_fs *fs, struct cfsr_file *file, void *buf, uint32_t len_bytes,
                     uint64_t offset_bytes)
{
    uint32_t moved = 0;

    (void)fs;
    while (moved < len_bytes) {
        ssize_t n = pread(posix_file(file)->fd, (char *)buf + moved, len_bytes - moved,
                          (off_t)(offset_bytes + moved));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        moved += (uint32_t)n;
        /* A direct read that ends off the grid met the end of the file; going on would be -EINVAL.
         */
        if (moved % posix_file(file)->alignment != 0)
            break;
    }
    return (int)moved;
}

int cfsr_posix_pwrite(struct cfsr_fs *fs, struct cfsr_file *file, const void *buf,
                      uint32_t len_bytes, uint64_t offset_bytes, bool durable)
{
    int flags = durable ? RWF_DSYNC : 0;
    uint32_t moved = 0;

    while (moved < len_bytes) {
        struct iovec part = {.iov_base = (char *)(uintptr_t)buf + moved,
                             .iov_len = len_bytes - moved};
        ssize_t n = pwritev2(posix_file(file)->fd, &part, 1, (off_t)(offset_bytes + moved), flags);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EOPNOTSUPP && flags != 0) {
            flags = 0; /* a file system without the flag: sync once after the last part */
            continue;
        }
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO;
        moved += (uint32_t)n;
    }
    if (durable && flags == 0) {
        int rc = cfsr_posix_sync(fs, file);
        if (rc < 0)
            return rc;
    }
    return (int)moved;
}

int cfsr_posix_sync(struct cfsr_fs *fs, struct cfsr_file *file)
{
    (void)fs;
    while (fdatasync(posix_file(file)->fd) != 0) {
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int cfsr_posix_allocate(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t offset_bytes,
                        uint64_t len_bytes)
{
    int fd = posix_file(file)->fd;
    int error;

    (void)fs;
    do {
        error = fallocate(fd, 0, (off_t)offset_bytes, (off_t)len_bytes) == 0 ? 0 : errno;
    } while (error == EINTR);
    if (error == EOPNOTSUPP) /* the C library then touches every block */
        error = posix_fallocate(fd, (off_t)offset_bytes, (off_t)len_bytes);
    return -error;
}

int cfsr_posix_truncate(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t len_bytes)
{
    (void)fs;
    while (ftruncate(posix_file(file)->fd, (off_t)len_bytes) != 0) {
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int cfsr_posix_lock(struct cfsr_fs *fs, struct cfsr_file *file)
{
    (void)fs;
    while (flock(posix_file(file)->fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return -CFSR_E_LOCKED; /* the caller knows which object this is and who may hold it */
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int cfsr_posix_rename(struct cfsr_fs *fs, const char *from, const char *to)
{
    int rc;

    (void)fs;
    if (rename(from, to) == 0)
        return 0;
    rc = -errno;
    return cfsr_fail(rc, "cannot rename %s to %s: %s", from, to, cfsr_strerror(rc));
}

int cfsr_posix_unlink(struct cfsr_fs *fs, const char *path)
{
    (void)fs;
    return unlink(path) == 0 ? 0 : fail_path("remove", path);
}

int cfsr_posix_mkdir(struct cfsr_fs *fs, const char *path)
{
    struct stat info;

    (void)fs;
    if (mkdir(path, DIRECTORY_MODE) == 0)
        return 0;
    if (errno != EEXIST)
        return fail_path("make directory", path);
    if (stat(path, &info) != 0)
        return fail_path("look at", path);
    if (!S_ISDIR(info.st_mode))
        return cfsr_fail(-ENOTDIR, "%s exists and is not a directory: move it away", path);
    return 0;
}

int cfsr_posix_sync_dir(struct cfsr_fs *fs, const char *path)
{
    int fd, rc = 0;

    (void)fs;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_path("open directory", path);
    if (fsync(fd) != 0)
        rc = fail_path("sync directory", path);
    close(fd);
    return rc;
}

static int visit_entry(int directory_fd, const struct dirent *item,
                       int (*visit)(void *user, const struct cfsr_dir_entry *entry), void *user)
{
    struct cfsr_dir_entry entry = {.name = item->d_name};
    struct stat info;

    if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
        return 0;
    if (fstatat(directory_fd, item->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0 : -errno; /* removed since readdir: not an entry any more */
    entry.is_directory = S_ISDIR(info.st_mode);
    entry.size_bytes = S_ISREG(info.st_mode) ? (uint64_t)info.st_size : 0;
    return visit(user, &entry);
}

int cfsr_posix_list(struct cfsr_fs *fs, const char *path,
                    int (*visit)(void *user, const struct cfsr_dir_entry *entry), void *user)
{
    struct dirent *item;
    DIR *directory;
    int rc = 0;

    (void)fs;
    directory = opendir(path);
    if (directory == NULL)
        return fail_path("list", path);
    while (rc == 0) {
        errno = 0;
        item = readdir(directory);
        if (item == NULL) {
            rc = errno == 0 ? 0 : fail_path("list", path);
            break;
        }
        rc = visit_entry(dirfd(directory), item, visit, user);
    }
    closedir(directory);
    return rc;
}

int cfsr_posix_space(struct cfsr_fs *fs, const char *path, uint64_t *free_out, uint64_t *total_out)
{
    struct statvfs info;

    (void)fs;
    if (statvfs(path, &info) != 0)
        return fail_path("read the free space of", path);
    *free_out = (uint64_t)info.f_bavail *
                info.f_frsize; /* what an unprivileged writer may still use */
    *total_out = (uint64_t)info.f_blocks * info.f_frsize;
    return 0;
}
