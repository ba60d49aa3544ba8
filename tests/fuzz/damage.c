/* damage.c - see damage.h. */
#include "damage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

void fuzz_files_add(struct fuzz_files *files, const char *path, const void *data, size_t len_bytes)
{
    struct fuzz_file *file = &files->file[files->count++];

    FUZZ_CHECK(files->count <= FUZZ_FILES_MAX);
    (void)snprintf(file->path, sizeof file->path, "%s", path);
    file->data = fuzz_copy(data, len_bytes);
    file->len_bytes = len_bytes;
}

void fuzz_files_copy(struct fuzz_files *copy_out, const struct fuzz_files *files)
{
    copy_out->count = 0;
    for (unsigned i = 0; i < files->count; i++)
        fuzz_files_add(copy_out, files->file[i].path, files->file[i].data,
                       files->file[i].len_bytes);
}

void fuzz_files_free(struct fuzz_files *files)
{
    for (unsigned i = 0; i < files->count; i++)
        free(files->file[i].data);
    files->count = 0;
}

void fuzz_files_write(const struct fuzz_files *files, struct cfsr_fs *fs)
{
    for (unsigned i = 0; i < files->count; i++)
        if (files->file[i].data != NULL)
            fuzz_file_write(fs, files->file[i].path, files->file[i].data, files->file[i].len_bytes);
}

static void copy_sector(struct fuzz_file *to, size_t at, const struct fuzz_file *from, size_t other)
{
    uint8_t sector[FUZZ_SECTOR_BYTES];

    at *= FUZZ_SECTOR_BYTES;
    other *= FUZZ_SECTOR_BYTES;
    if (at + sizeof sector > to->len_bytes || from->data == NULL ||
        other + sizeof sector > from->len_bytes)
        return;
    memcpy(sector, from->data + other, sizeof sector);
    memcpy(to->data + at, sector, sizeof sector);
}

static void replace(struct fuzz_file *to, const struct fuzz_file *from)
{
    uint8_t *copy;

    if (from->data == NULL || from == to)
        return;
    copy = fuzz_copy(from->data, from->len_bytes);
    free(to->data);
    to->data = copy;
    to->len_bytes = from->len_bytes;
}

static void overwrite(struct fuzz_file *file, size_t at, const uint8_t *bytes, size_t len_bytes)
{
    if (at < file->len_bytes && len_bytes > 0)
        memcpy(file->data + at, bytes, cfsr_min_u64(len_bytes, file->len_bytes - at));
}

static void damage_one(struct fuzz_files *files, struct fuzz_reader *reader)
{
    unsigned kind = fuzz_u8(reader) % 7;
    struct fuzz_file *file = &files->file[fuzz_u8(reader) % files->count];
    static const uint8_t zeros[FUZZ_SECTOR_BYTES];
    const uint8_t *bytes;
    size_t at, got;

    if (file->data == NULL)
        return;
    switch (kind) {
    case 0:
        at = fuzz_u16(reader);
        if (at < file->len_bytes)
            file->data[at] ^= fuzz_u8(reader);
        break;
    case 1:
        at = fuzz_u16(reader);
        bytes = fuzz_bytes(reader, fuzz_u8(reader), &got);
        overwrite(file, at, bytes, got);
        break;
    case 2:
        overwrite(file, (size_t)FUZZ_SECTOR_BYTES * fuzz_u8(reader), zeros, sizeof zeros);
        break;
    case 3: {
        size_t sector = fuzz_u8(reader);
        const struct fuzz_file *from = &files->file[fuzz_u8(reader) % files->count];

        copy_sector(file, sector, from, fuzz_u8(reader));
        break;
    }
    case 4: file->len_bytes = cfsr_min_u64(file->len_bytes, fuzz_u16(reader)); break;
    case 5:
        free(file->data);
        file->data = NULL;
        break;
    default: replace(file, &files->file[fuzz_u8(reader) % files->count]); break;
    }
}

void fuzz_files_damage(struct fuzz_files *files, struct fuzz_reader *reader)
{
    for (unsigned i = 0; i < FUZZ_DAMAGES_MAX && reader->left > 0 && files->count > 0; i++)
        damage_one(files, reader);
}

void fuzz_damage_flip(struct fuzz_seed *seed, uint8_t file, uint16_t offset, uint8_t mask)
{
    fuzz_seed_u8(seed, 0);
    fuzz_seed_u8(seed, file);
    fuzz_seed_u16(seed, offset);
    fuzz_seed_u8(seed, mask);
}
