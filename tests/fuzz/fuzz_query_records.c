/*
 * fuzz_query_records.c - records that came as an answer to a QUERY, from a site that may lie.
 *
 * Input: u8 switches (1 records sealed; 2 signed for us, else for the site that answered; 4 not
 * signed, but our own copy's prefix names the digest), u64 LSN asked for, u32 the range's length,
 * 192 bytes of prefix, then the records, which are put into a body of their own here.
 *
 * Properties: nothing that was signed for nobody is believed; what is believed holds the byte that
 * was asked for and lies whole within the frame; the part cut out begins and ends where it was
 * asked to.
 */
#include "fuzz.h"
#include "records.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "repl/query_records.h"

enum switches {
    SEAL = 1,
    FOR_US = 2,
    OWN_PREFIX = 4,
    UNSIGNED = 8
};
enum {
    INPUT_MAX = 16384,
    LANE = 3
};

static struct fuzz_pair pair;
static struct cfsr_mac_key *key_for[2]; /* of site 1's batches: for site 2 (us), for site 3 */
static struct cfsr_batch_codec *codec;
static uint8_t *raw;

static void set_up(void)
{
    struct cfsr_codec_config config;

    if (codec != NULL)
        return;
    fuzz_pair_init(&pair);
    for (uint64_t i = 0; i < 2; i++)
        FUZZ_CHECK(cfsr_session_batch_key(pair.keyring, 1, &pair.site[0].cluster, 1, 2 + i,
                                          &key_for[i]) == 0);
    cfsr_codec_config_default(&config);
    FUZZ_CHECK(cfsr_batch_codec_create(&config, &codec) == 0);
    raw = malloc(CFSR_BATCH_BODY_MAX_BYTES);
    FUZZ_CHECK(raw != NULL);
}

/* prefix ‖ body; the holes a prefix may name are not there and are for the check to find. */
static uint8_t *make_frame(struct fuzz_reader *reader, uint8_t switches, uint32_t *len_out)
{
    struct cfsr_batch_header header = {0};
    uint8_t prefix[CFSR_BATCH_PREFIX_BYTES] = {0}, *records, *frame;
    size_t got;
    const uint8_t *bytes = fuzz_bytes(reader, sizeof prefix, &got);
    uint32_t len_bytes = (uint32_t)reader->left;
    struct cfsr_uuid journal;

    memcpy(prefix, bytes, got);
    memcpy(journal.bytes, prefix + 24, sizeof journal.bytes);
    records = fuzz_copy(reader->at, reader->left);
    if ((switches & SEAL) != 0)
        fuzz_records_seal(records, len_bytes, true, cfsr_record_seed(&journal),
                          cfsr_load_le64(prefix + 48), pair.site[0].segment_bytes);
    frame = malloc(sizeof prefix + len_bytes);
    FUZZ_CHECK(frame != NULL);
    FUZZ_CHECK(cfsr_batch_encode(codec, records, len_bytes, frame + sizeof prefix, len_bytes,
                                 &header) == 0);
    prefix[10] = header.codec;
    cfsr_store_le32(prefix + 72, header.original_bytes);
    cfsr_store_le32(prefix + 76, header.stored_bytes);
    memcpy(prefix + 128, header.digest, sizeof header.digest);
    if ((switches & UNSIGNED) == 0)
        cfsr_batch_sign(key_for[(switches & FOR_US) != 0 ? 0 : 1], 1, prefix, NULL,
                        cfsr_load_le16(prefix + 82) == 0 ? 0 : cfsr_load_le16(prefix + 82));
    memcpy(frame, prefix, sizeof prefix);
    free(records);
    *len_out = (uint32_t)sizeof prefix + header.stored_bytes;
    return frame;
}

static void check_cut(const struct cfsr_records_check *check, uint64_t from, uint64_t to)
{
    const uint8_t *records;
    uint32_t len_bytes;

    FUZZ_CHECK(check->header.lsn_from <= check->lsn && check->lsn < check->header.lsn_to);
    FUZZ_CHECK(check->scan.raw_bytes == check->header.original_bytes &&
               check->scan.next_lsn == check->header.lsn_to);
    FUZZ_CHECK(check->header.site_id == check->origin && check->header.lane == check->lane &&
               cfsr_uuid_equal(&check->header.journal, &check->journal));
    if (cfsr_records_cut(check, from, to, &records, &len_bytes) < 0)
        return;
    FUZZ_CHECK(records >= check->raw &&
               records + len_bytes <= check->raw + check->header.original_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    static const uint64_t destinations[] = {2, 3, 9};
    struct fuzz_reader reader = {data, len_bytes};
    uint8_t switches = fuzz_u8(&reader), own[CFSR_BATCH_PREFIX_BYTES];
    uint64_t lsn = fuzz_u64(&reader), length = fuzz_u32(&reader);
    struct cfsr_records_check check = {.site = &pair.site[1],
                                       .keyring = pair.keyring,
                                       .origin = 1,
                                       .lane = LANE,
                                       .lsn = lsn,
                                       .destinations = destinations,
                                       .destination_count = CFSR_ARRAY_LEN(destinations),
                                       .raw = raw};
    int rc;

    set_up();
    if (reader.left > INPUT_MAX || reader.left < CFSR_BATCH_PREFIX_BYTES ||
        cfsr_load_le16(reader.at + 82) != 0)
        return 0;
    check.raw = raw;
    check.codec = codec;
    check.keyring = pair.keyring;
    check.journal = pair.site[0].journal;
    check.frame = make_frame(&reader, switches, &check.frame_bytes);
    if ((switches & OWN_PREFIX) != 0) {
        memcpy(own, check.frame, sizeof own);
        cfsr_batch_sign(key_for[0], 1, own, NULL, 0);
        check.own_prefix = own;
        check.own_prefix_bytes = sizeof own;
    }
    rc = cfsr_records_check(&check);
    FUZZ_CHECK(rc == 0 || rc <= -4000);
    if (rc == 0) {
        FUZZ_CHECK((switches & UNSIGNED) == 0 || (switches & OWN_PREFIX) != 0);
        check_cut(&check, lsn, lsn + length);
    }
    free(check.frame);
    return 0;
}

static void add(struct fuzz_corpus *corpus, const char *name, uint8_t switches, uint64_t lsn)
{
    struct cfsr_batch_header header = {
        .lane = LANE, .site_id = 1, .journal = pair.site[0].journal, .lsn_from = 0};
    struct fuzz_seed seed = {0}, body = {0};
    struct fuzz_records records;
    uint8_t prefix[CFSR_BATCH_PREFIX_BYTES];

    fuzz_records_init(&records, &pair.site[0], 1, &header.journal, LANE);
    fuzz_records_shards(&records, &body);
    fuzz_records_mark(&records, &body, 0);
    for (unsigned i = 0; i < 5; i++)
        fuzz_records_entry(&records, &body, i * 30);
    header.lsn_to = records.lsn;
    header.entry_count = records.entries;
    header.original_bytes = header.stored_bytes = 1;
    cfsr_batch_header_store(&header, prefix);
    fuzz_seed_u8(&seed, switches);
    fuzz_seed_u64(&seed, lsn);
    fuzz_seed_u32(&seed, (uint32_t)(records.lsn - lsn));
    fuzz_seed_bytes(&seed, prefix, sizeof prefix);
    fuzz_seed_bytes(&seed, body.data, body.len_bytes);
    free(body.data);
    fuzz_seed_end(&seed, corpus, name);
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    set_up();
    add(corpus, "for-us", SEAL | FOR_US, 0);
    add(corpus, "for-another", SEAL, 0);
    add(corpus, "own-prefix", SEAL | UNSIGNED | OWN_PREFIX, 0);
    add(corpus, "unsigned", SEAL | UNSIGNED, 0);
    add(corpus, "middle", SEAL | FOR_US, 320);
}
