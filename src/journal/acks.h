/*
 * acks.h - DATA/acks: which peers there are and what each holds durably, kept across boots.
 *
 * Two slots, written in turn, each with a generation and a checksum: a torn store leaves the one
 * before. The daemon stores it every now and then; the writer reads it, so that it never removes
 * what a known peer lacks while no daemon runs. A stale file is safe: acks only grow, so an old one
 * keeps more.
 *
 * Slot (CFSR_ACKS_SLOT_BYTES each): 0 8 magic "CFSRACK1"; 8 8 generation; 16 16 journal uuid; 32 4
 * lanes; 36 4 peers n; 40 4 crc32c of the used part with this field 0; 44 4 reserved; then n × (8
 * site id, lanes × 8 acked LSN).
 */
#ifndef CFSR_JOURNAL_ACKS_H
#define CFSR_JOURNAL_ACKS_H

#include <stdint.h>

#include "core/file.h"
#include "journal/site.h"
#include "journal/status_page.h"

#define CFSR_ACKS_SLOT_BYTES 36864

struct cfsr_acks_peer {
    uint64_t site_id;
    uint64_t acked[CFSR_LANES_MAX]; /* LSN below which the peer has the lane durably */
};

struct cfsr_acks {
    uint64_t generation; /* 0: nothing stored yet */
    uint32_t peer_count;
    struct cfsr_acks_peer peers[CFSR_STATUS_PEERS_MAX];
};

/* No file: no peers. -CFSR_E_CHECKSUM if neither slot is whole, -CFSR_E_FOREIGN, -errno. */
int cfsr_acks_load(struct cfsr_fs *fs, const struct cfsr_site *site, struct cfsr_acks *acks_out);
/* Stores under the next generation (raised in acks), durably. */
int cfsr_acks_store(struct cfsr_fs *fs, const struct cfsr_site *site, struct cfsr_acks *acks);
/* The peer's row, added with all lanes 0 if new; NULL when CFSR_STATUS_PEERS_MAX are known. */
struct cfsr_acks_peer *cfsr_acks_peer(struct cfsr_acks *acks, uint64_t site_id);
/*
 * Lowest acked LSN of a lane over all known peers: what the status page says of a peer in this boot
 * counts, else the file's. CFSR_LSN_UNKNOWN if no peer is known. acks may be NULL.
 */
uint64_t cfsr_acks_lowest(const struct cfsr_acks *acks, const struct cfsr_status_page *page,
                          uint32_t lane);

#endif
