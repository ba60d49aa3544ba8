/*
 * run.c - a fuzz target without the fuzzer: the seeds and given files, once each.
 *
 *     run_fuzz_NAME [--seeds] [--mutations N] [--last FILE] [FILE|DIRECTORY]...
 *                                                   runs them; --seeds: the target's own seeds
 * first, each followed by N variants of it run_fuzz_NAME --make-corpus DIRECTORY         writes the
 * seeds as files
 *
 * The path of the file being run is on standard error before it is run, so that a crash names it.
 * Variants are the same in every run: a seed's name and a number name one. They keep the targets'
 * properties under a little pressure in every build and with every compiler; finding new inputs is
 * libFuzzer's work.
 */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Only a custom mutator would call it; a target that has one links here as well. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t len_bytes, size_t max_bytes);
size_t LLVMFuzzerMutate(uint8_t *data, size_t len_bytes, size_t max_bytes)
{
    (void)data;
    (void)max_bytes;
    return len_bytes;
}

struct fuzz_corpus {
    const char *directory; /* NULL: run them */
    unsigned mutations;
    unsigned count;
    int failed;
};

enum {
    VARIANT_GROWTH_BYTES = 64
};

static const char *last_path;

static void keep(const void *data, size_t len_bytes)
{
    FILE *file = last_path != NULL ? fopen(last_path, "wb") : NULL;

    if (file == NULL)
        return;
    (void)!fwrite(data, 1, len_bytes, file);
    (void)fclose(file);
}

static void run_one(const char *name, const void *data, size_t len_bytes)
{
    void *copy = fuzz_copy(data, len_bytes);

    fprintf(stderr, "run %s (%zu bytes)\n", name, len_bytes);
    keep(data, len_bytes);
    FUZZ_CHECK(LLVMFuzzerTestOneInput(copy, len_bytes) == 0);
    free(copy);
}

static void change(uint8_t *data, size_t *len_bytes, uint64_t *random)
{
    static const uint8_t odd[] = {0, 1, 2, 7, 8, 0x7f, 0x80, 0xff};
    uint64_t draw = fuzz_random(random);
    size_t at = *len_bytes > 0 ? (size_t)(fuzz_random(random) % *len_bytes) : 0;
    size_t run = 1 + (size_t)(draw >> 32) % 8;

    if (*len_bytes == 0)
        return;
    switch (draw % 6) {
    case 0: data[at] ^= (uint8_t)(1u << (draw >> 8) % 8); break;
    case 1: data[at] = odd[(draw >> 8) % sizeof odd]; break;
    case 2: data[at] = (uint8_t)(draw >> 8); break;
    case 3: /* a run of another place */
        if (at + run <= *len_bytes && *len_bytes > run)
            memmove(data + at, data + (draw >> 8) % (*len_bytes - run), run);
        break;
    case 4: /* shorter */
        if (*len_bytes > run && at + run <= *len_bytes) {
            memmove(data + at, data + at + run, *len_bytes - at - run);
            *len_bytes -= run;
        }
        break;
    default: /* longer */
        memmove(data + at + run, data + at, *len_bytes - at);
        *len_bytes += run;
        break;
    }
}

static void run_variants(const char *name, const void *data, size_t len_bytes, unsigned count)
{
    enum {
        CHANGES_MAX = VARIANT_GROWTH_BYTES / 8
    };
    uint8_t *variant = malloc(len_bytes + VARIANT_GROWTH_BYTES);
    uint64_t random = len_bytes;
    char label[256];

    FUZZ_CHECK(variant != NULL);
    for (unsigned i = 0; i < count; i++) {
        unsigned changes = 1 + (unsigned)(fuzz_random(&random) % CHANGES_MAX);
        size_t len = len_bytes;

        if (len_bytes > 0)
            memcpy(variant, data, len_bytes);
        for (unsigned k = 0; k < changes; k++)
            change(variant, &len, &random);
        (void)snprintf(label, sizeof label, "%s, variant %u", name, i);
        run_one(label, variant, len);
    }
    free(variant);
}

void fuzz_corpus_add(struct fuzz_corpus *corpus, const char *name, const void *data,
                     size_t len_bytes)
{
    char path[4096];
    FILE *file;

    corpus->count++;
    if (corpus->directory == NULL) {
        run_one(name, data, len_bytes);
        run_variants(name, data, len_bytes, corpus->mutations);
        return;
    }
    (void)snprintf(path, sizeof path, "%s/seed-%s", corpus->directory, name);
    file = fopen(path, "wb");
    if (file == NULL || (len_bytes > 0 && fwrite(data, len_bytes, 1, file) != 1)) {
        fprintf(stderr, "cannot write %s: %s\n", path, cfsr_strerror(-errno));
        corpus->failed = 1;
    }
    if (file != NULL && fclose(file) != 0)
        corpus->failed = 1;
}

static int run_file(const char *path, unsigned *count)
{
    FILE *file = fopen(path, "rb");
    long size = -1;
    uint8_t *data = NULL;
    int rc = 1;

    if (file != NULL && fseek(file, 0, SEEK_END) == 0)
        size = ftell(file);
    if (size >= 0)
        data = malloc((size_t)size + 1);
    if (data != NULL && fseek(file, 0, SEEK_SET) == 0 &&
        fread(data, 1, (size_t)size, file) == (size_t)size) {
        run_one(path, data, (size_t)size);
        (*count)++;
        rc = 0;
    }
    if (rc != 0)
        fprintf(stderr, "cannot read %s: %s\n", path, cfsr_strerror(-errno));
    free(data);
    if (file != NULL)
        (void)fclose(file);
    return rc;
}

static int run_path(const char *path, unsigned *count)
{
    struct dirent **names = NULL;
    struct stat status;
    int rc = 0;

    if (stat(path, &status) < 0) {
        fprintf(stderr, "cannot read %s: %s\n", path, cfsr_strerror(-errno));
        return 1;
    }
    if (!S_ISDIR(status.st_mode))
        return run_file(path, count);
    int found = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < found; i++) {
        char child[4096];

        (void)snprintf(child, sizeof child, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.' && run_file(child, count) != 0)
            rc = 1;
        free(names[i]);
    }
    free(names);
    return found < 0 ? 1 : rc;
}

int main(int argc, char **argv)
{
    struct fuzz_corpus corpus = {0};
    unsigned files = 0;
    int rc = 0;

    if (argc == 3 && strcmp(argv[1], "--make-corpus") == 0) {
        corpus.directory = argv[2];
        fuzz_seeds(&corpus);
        printf("%u seeds in %s\n", corpus.count, argv[2]);
        return corpus.failed;
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--mutations") == 0 && i + 1 < argc)
            corpus.mutations = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--last") == 0 && i + 1 < argc)
            last_path = argv[++i];
        else if (strcmp(argv[i], "--seeds") == 0)
            fuzz_seeds(&corpus);
        else if (run_path(argv[i], &files) != 0)
            rc = 1;
    }
    printf("%u seeds, %u files\n", corpus.count, files);
    return corpus.count + files == 0 ? 1 : rc;
}
