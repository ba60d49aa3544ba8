/* test_batch_header.c - the 192 bytes: places, limits, refusals. */
#include <cfsrepl/error.h>

#include "fixture.h"

static uint8_t prefix[CFSR_BATCH_PREFIX_BYTES];

static int load_changed(void (*change)(struct cfsr_batch_header *))
{
    struct cfsr_batch_header header = make_header();
    struct cfsr_batch_header out;

    change(&header);
    cfsr_batch_header_store(&header, prefix);
    return cfsr_batch_header_load(prefix, &out);
}

Test(batch_header, store_and_load_keep_every_field)
{
    struct cfsr_batch_header header = make_header();
    struct cfsr_batch_header loaded;
    uint8_t again[CFSR_BATCH_PREFIX_BYTES];

    memset(prefix, 0xff, sizeof prefix);
    cfsr_batch_header_store(&header, prefix);
    cr_assert_eq(cfsr_batch_header_load(prefix, &loaded), 0);
    cfsr_batch_header_store(&loaded, again);
    cr_assert_arr_eq(again, prefix, sizeof prefix);
    cr_assert_eq(loaded.incarnation, header.incarnation);
    cr_assert_eq(loaded.key_id, header.key_id);
}

Test(batch_header, fields_are_where_the_table_says)
{
    struct cfsr_batch_header header = make_header();

    cfsr_batch_header_store(&header, prefix);
    cr_assert_arr_eq(prefix, "CFB1", 4);
    cr_assert_eq(cfsr_load_le16(prefix + 4), 1);
    cr_assert_eq(cfsr_load_le16(prefix + 6), header.flags);
    cr_assert_eq(cfsr_load_le16(prefix + 8), header.lane);
    cr_assert_eq(prefix[10], header.codec);
    cr_assert_eq(prefix[11], header.level);
    cr_assert_eq(cfsr_load_le32(prefix + 12), header.encode_class);
    cr_assert_eq(cfsr_load_le64(prefix + 16), header.site_id);
    cr_assert_arr_eq(prefix + 24, header.journal.bytes, 16);
    cr_assert_eq(cfsr_load_le64(prefix + 40), header.epoch);
    cr_assert_eq(cfsr_load_le64(prefix + 48), header.lsn_from);
    cr_assert_eq(cfsr_load_le64(prefix + 56), header.lsn_to);
    cr_assert_eq(cfsr_load_le32(prefix + 64), header.entry_count);
    cr_assert_eq(cfsr_load_le32(prefix + 68), header.key_id);
    cr_assert_eq(cfsr_load_le32(prefix + 72), header.original_bytes);
    cr_assert_eq(cfsr_load_le32(prefix + 76), header.stored_bytes);
    cr_assert_eq(cfsr_load_le16(prefix + 80), header.hole_count);
    cr_assert_eq(cfsr_load_le16(prefix + 82), header.extension_bytes);
    cr_assert_eq(cfsr_load_le32(prefix + 84), 0);
    cr_assert_eq(cfsr_load_le64(prefix + 88), header.prepared_at_us);
    cr_assert_arr_eq(prefix + 96, header.trace_id, 16);
    cr_assert_eq(cfsr_load_le64(prefix + 112), header.span_id);
    cr_assert_eq(cfsr_load_le64(prefix + 120), header.incarnation);
    cr_assert_arr_eq(prefix + 128, header.digest, 32);
    cr_assert_arr_eq(prefix + 160, header.tag, 32);
}

Test(batch_header, magic_version_and_reserved_are_checked)
{
    struct cfsr_batch_header header = make_header();
    struct cfsr_batch_header out = {.lane = 77};

    cfsr_batch_header_store(&header, prefix);
    prefix[0] ^= 1;
    cr_assert_eq(cfsr_batch_header_load(prefix, &out), -CFSR_E_BAD_FRAME);
    prefix[0] ^= 1;
    prefix[4] = 2;
    cr_assert_eq(cfsr_batch_header_load(prefix, &out), -CFSR_E_VERSION);
    prefix[4] = 1;
    for (unsigned at = 84; at < 88; at++) {
        prefix[at] = 1;
        cr_assert_eq(cfsr_batch_header_load(prefix, &out), -CFSR_E_BAD_FRAME);
        prefix[at] = 0;
    }
    cr_assert_eq(out.lane, 77, "output only on success");
    cr_assert_eq(cfsr_batch_header_load(prefix, &out), 0);
}

static void unknown_flag(struct cfsr_batch_header *header)
{
    header->flags = 1u << 3;
}
static void unknown_codec(struct cfsr_batch_header *header)
{
    header->codec = 3;
}
static void empty_range(struct cfsr_batch_header *header)
{
    header->lsn_to = header->lsn_from;
}
static void reversed_range(struct cfsr_batch_header *header)
{
    header->lsn_to = header->lsn_from - 1;
}
static void huge_original(struct cfsr_batch_header *header)
{
    header->original_bytes = CFSR_BATCH_BODY_MAX_BYTES + 1;
}
static void huge_stored(struct cfsr_batch_header *header)
{
    header->stored_bytes = UINT32_MAX;
    header->original_bytes = UINT32_MAX;
    header->codec = CFSR_CODEC_NONE;
}
static void raw_of_two_sizes(struct cfsr_batch_header *header)
{
    header->codec = CFSR_CODEC_NONE;
}
static void compressed_and_not_smaller(struct cfsr_batch_header *header)
{
    header->stored_bytes = header->original_bytes;
}
static void too_many_holes(struct cfsr_batch_header *header)
{
    header->hole_count = CFSR_BATCH_HOLES_MAX + 1;
    header->extension_bytes = (CFSR_BATCH_HOLES_MAX + 1) * CFSR_BATCH_HOLE_BYTES;
}
static void wrong_extension(struct cfsr_batch_header *header)
{
    header->extension_bytes = 33;
}
static void largest(struct cfsr_batch_header *header)
{
    header->codec = CFSR_CODEC_NONE;
    header->original_bytes = CFSR_BATCH_BODY_MAX_BYTES;
    header->stored_bytes = CFSR_BATCH_BODY_MAX_BYTES;
    header->hole_count = CFSR_BATCH_HOLES_MAX;
    header->extension_bytes = CFSR_BATCH_EXTENSION_MAX;
    header->flags = CFSR_BATCH_FLAGS_KNOWN;
}

Test(batch_header, bad_fields_are_refused)
{
    static void (*const changes[])(struct cfsr_batch_header *) = {
        unknown_flag,   unknown_codec,   empty_range,      reversed_range,
        huge_original,  huge_stored,     raw_of_two_sizes, compressed_and_not_smaller,
        too_many_holes, wrong_extension,
    };

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(changes); i++)
        cr_assert_eq(load_changed(changes[i]), -CFSR_E_BAD_FRAME, "change %u", i);
    cr_assert_eq(load_changed(largest), 0);
}

Test(batch_header, random_bytes_never_pass_as_something_else)
{
    struct cfsr_batch_header out;

    for (unsigned i = 0; i < 20000; i++) {
        uint8_t again[CFSR_BATCH_PREFIX_BYTES];

        cfsr_random_bytes(prefix, sizeof prefix);
        memcpy(prefix, "CFB1\1", 6);
        if (cfsr_batch_header_load(prefix, &out) < 0)
            continue;
        cfsr_batch_header_store(&out, again);
        cr_assert_arr_eq(again, prefix, sizeof prefix);
    }
}

Test(batch_header, encode_refuses_what_is_too_large)
{
    static uint8_t large[CFSR_CODEC_INPUT_MAX_BYTES + 1];
    static uint8_t out[CFSR_CODEC_INPUT_MAX_BYTES + 1];
    struct cfsr_batch_codec *codec = make_codec("lz4");
    struct cfsr_batch_header header = make_header();

    cr_assert_eq(cfsr_batch_encode(codec, large, sizeof large, out, sizeof out, &header),
                 -CFSR_E_TOO_LARGE);
    cr_assert_eq(cfsr_batch_encode(codec, large, 1000, out, 999, &header), -CFSR_E_TOO_LARGE);
    cr_assert_eq(header.stored_bytes, make_header().stored_bytes, "output only on success");
    cr_assert_eq(cfsr_batch_encode(codec, large, sizeof large - 1, out, sizeof out, &header), 0);
    cr_assert_eq(cfsr_batch_decode(codec, &header, out, large, sizeof large - 2),
                 -CFSR_E_TOO_LARGE);
    cfsr_batch_codec_destroy(codec);
}

Test(batch_header, level_is_cut_to_its_byte)
{
    static uint8_t zeros[4096];
    static uint8_t out[4096];
    struct cfsr_batch_codec *codec = make_codec("lz4:1000");
    struct cfsr_batch_header header = make_header();

    cr_assert_eq(cfsr_batch_encode(codec, zeros, sizeof zeros, out, sizeof out, &header), 0);
    cr_assert_eq(header.level, 255);
    cfsr_batch_codec_destroy(codec);
}
