/*
 * acks.h - DATA/acks: which peers there are and what each holds durably, kept across boots.
 *
 * Two slots, written in turn, each with a generation and a checksum: a torn store leaves the one
 * before. The daemon stores the acks every now and then; the writer reads them, so that it never
 * removes what a known peer lacks while no daemon runs, and stores which peers are detached: those
 * that hold retention back no more. Each changes its own part under the file's lock. A stale file
 * is safe: acks only grow, so an old one keeps more.
 *
 * Slot (CFSR_ACKS_SLOT_BYTES each): 0 8 magic "CFSRACK1"; 8 8 generation; 16 16 journal uuid; 32 4
 * lanes; 36 4 peers n; 40 4 crc32c of the used part with this field 0; 44 4 reserved; then n × (8
 * site id, lanes × 8 acked LSN); then, optional, the detached part: 0 8 magic "CFSRDET1"; 8 8
 * generation of the slot; 16 8 bit mask of rows; 24 4 crc32c of bytes 0–23; 28 4 reserved. A
 * program that does not know it passes over it; one that finds none knows no detached peer.
 */
#ifndef CFSR_JOURNAL_ACKS_H
#define CFSR_JOURNAL_ACKS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/file.h"
#include "journal/site.h"
#include "journal/status_page.h"

#define CFSR_ACKS_SLOT_BYTES 36864

struct cfsr_acks_peer {
    uint64_t site_id;
    bool detached;                  /* holds retention back no more */
    uint64_t acked[CFSR_LANES_MAX]; /* LSN below which the peer has the lane durably */
};

struct cfsr_acks {
    uint64_t generation; /* 0: nothing stored yet */
    uint32_t peer_count;
    struct cfsr_acks_peer peers[CFSR_STATUS_PEERS_MAX];
};

/* No file: no peers. -CFSR_E_CHECKSUM if neither slot is whole, -CFSR_E_FOREIGN, -errno. */
int cfsr_acks_load(struct cfsr_fs *fs, const struct cfsr_site *site, struct cfsr_acks *acks_out);
/* Stores under the next generation (raised in acks), durably, as it is. */
int cfsr_acks_store(struct cfsr_fs *fs, const struct cfsr_site *site, struct cfsr_acks *acks);
/*
 * Stores one part of acks beside the other part as the file has it, under the file's lock; acks is
 * then what was stored. Rows only one of the two knows are kept. -CFSR_E_LOCKED: the other process
 * stores at this moment, try again later. What cannot be read is stored anew from acks.
 */
enum cfsr_acks_part {
    CFSR_ACKS_ACKED,    /* the daemon's */
    CFSR_ACKS_DETACHED, /* the writer's */
};
int cfsr_acks_store_part(struct cfsr_fs *fs, const struct cfsr_site *site, struct cfsr_acks *acks,
                         enum cfsr_acks_part part);
/* The peer's row, added with all lanes 0 if new; NULL when CFSR_STATUS_PEERS_MAX are known. */
struct cfsr_acks_peer *cfsr_acks_peer(struct cfsr_acks *acks, uint64_t site_id);
/*
 * Lowest acked LSN of a lane over all known peers: what the status page says of a peer in this boot
 * counts, else the file's. CFSR_LSN_UNKNOWN if no peer is known. acks may be NULL.
 */
uint64_t cfsr_acks_lowest(const struct cfsr_acks *acks, const struct cfsr_status_page *page,
                          uint32_t lane);
/*
 * Highest LSN below which some peer has, by the file, a lane durably; 0: none is known. It was
 * committed here before it was sent: what is damaged below it is no torn tail, and can be had from
 * that peer. A file that says nothing certain (-CFSR_E_CHECKSUM, -CFSR_E_FOREIGN) knows none.
 */
int cfsr_acks_highest(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                      uint64_t *lsn_out);
/* One peer's acked LSN of a lane, by the same rule as cfsr_acks_lowest(). */
uint64_t cfsr_acks_of(const struct cfsr_acks *acks, const struct cfsr_status_page *page,
                      uint64_t site_id, uint32_t lane);

#endif
