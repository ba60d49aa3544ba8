/*
 * libfuzzer.c - what a target needs beside libFuzzer: fuzz_seeds() is in the same file as the
 * target, and here nobody calls it.
 */
#include "fuzz.h"

void fuzz_corpus_add(struct fuzz_corpus *corpus, const char *name, const void *data,
                     size_t len_bytes)
{
    (void)corpus;
    (void)name;
    (void)data;
    (void)len_bytes;
}
