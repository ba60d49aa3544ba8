/*
 * rdma/absent.c - what a build without rdma-core says about RDMA. Any thread.
 */
#include "transport/transport.h"

#include "base/fail.h"

#include <errno.h>

int cfsr_rdma_probe(const char *device, char *text_out, size_t len_bytes)
{
    (void)device;
    (void)text_out;
    (void)len_bytes;
    return cfsr_fail(-ENOTSUP, "this program was built without RDMA: install libibverbs-dev and "
                               "librdmacm-dev and build again");
}
