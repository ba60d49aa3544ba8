/*
 * drop_roce.c - XDP program for the guests: what arrives for RoCE v2 (UDP port 4791) is lost, all
 * else passes. RDMA dies silently, as on a bad path, while TCP on the same interface goes on.
 * Compiled with -target bpf by the test that loads it.
 */
#include <stdint.h>

#define XDP_DROP 1
#define XDP_PASS 2
#define IPV4     0x0800
#define UDP      17
#define ROCE     4791

/* struct xdp_md's beginning: addresses of the packet's first byte and of the one behind its last.
 */
struct packet {
    uint32_t data, data_end;
};

static int word(const uint8_t *at)
{
    return at[0] << 8 | at[1];
}

int drop_roce(struct packet *packet);

__attribute__((section("xdp"), used)) int drop_roce(struct packet *packet)
{
    const uint8_t *frame = (const uint8_t *)(long)packet->data;

    if (frame + 38 > (const uint8_t *)(long)packet->data_end)
        return XDP_PASS;
    /* Ethernet header of 14 bytes, IPv4 header of 20, the port 2 bytes into UDP's. */
    if (word(frame + 12) == IPV4 && frame[14] == 0x45 && frame[23] == UDP &&
        word(frame + 36) == ROCE)
        return XDP_DROP;
    return XDP_PASS;
}
