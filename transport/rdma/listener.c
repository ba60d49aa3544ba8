/*
 * rdma/listener.c - the control thread's side: takes connection requests and hands them over.
 *
 * Thread:     the control thread; a request then travels to its core as a struct cfsr_incoming.
 * Invariants: the preamble and the geometry come inside the request, so nothing waits here: a
 *             request is handed over or refused at once, and there is no deadline to keep. The
 *             queue pair is made by the core, after it took the connection over. Until then a
 *             request is of the listener's channel, so that outlives the listener while requests
 *             are on their way.
 */
#include "transport/rdma/rdma.h"

#include "base/bytes.h"
#include "base/fail.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define BACKLOG       256
#define EVENTS_A_CALL 64

struct cfsr_listener {
    struct rdma_event_channel *manager;
    struct rdma_cm_id *id;
    atomic_uint shares; /* the listener's own and one for every request on its way */
    uint64_t dropped;
    char endpoint[CFSR_ENDPOINT_MAX];
};

static int listen_failed(const char *endpoint, int error)
{
    if (error == EADDRINUSE)
        return cfsr_fail(-error,
                         "cannot listen on %s: the port is in use; stop the process that holds it "
                         "(rdma resource show cm_id) or choose another port",
                         endpoint);
    if (error == EADDRNOTAVAIL || error == ENODEV)
        return cfsr_fail(-error,
                         "cannot listen on %s: no RDMA device has that address; `rdma link` shows "
                         "which interface has one",
                         endpoint);
    return cfsr_fail(-error, "cannot listen on %s: %s", endpoint, cfsr_strerror(-error));
}

static int begin(struct cfsr_listener *listener, const char *endpoint)
{
    struct sockaddr_storage address;
    int flags;
    int rc = cfsr_rdma_resolve(endpoint, true, &address);

    if (rc < 0)
        return rc;
    listener->manager = rdma_create_event_channel();
    if (listener->manager == NULL)
        return cfsr_fail(-errno, "no RDMA connection manager: %s; is rdma_ucm loaded?",
                         cfsr_strerror(-errno));
    flags = fcntl(listener->manager->fd, F_GETFL);
    (void)fcntl(listener->manager->fd, F_SETFL, flags | O_NONBLOCK);
    if (rdma_create_id(listener->manager, &listener->id, listener, RDMA_PS_TCP) != 0) {
        listener->id = NULL;
        return listen_failed(endpoint, errno);
    }
    if (rdma_bind_addr(listener->id, (struct sockaddr *)&address) != 0 ||
        rdma_listen(listener->id, BACKLOG) != 0)
        return listen_failed(endpoint, errno);
    cfsr_rdma_name(rdma_get_local_addr(listener->id), listener->endpoint,
                   sizeof listener->endpoint);
    return 0;
}

int cfsr_rdma_listen(const char *endpoint, void *sim, struct cfsr_listener **listener_out)
{
    struct cfsr_listener *listener;
    char device[64];
    int rc;

    (void)sim;
    rc = cfsr_rdma_probe(NULL, device, sizeof device);
    if (rc < 0)
        return cfsr_fail_context(rc, "cannot listen on %s", endpoint);
    listener = calloc(1, sizeof *listener);
    if (listener == NULL)
        return cfsr_fail(-ENOMEM, "cannot listen on %s: out of memory", endpoint);
    listener->shares = 1;
    rc = begin(listener, endpoint);
    if (rc < 0) {
        cfsr_rdma_listener_close(listener);
        return rc;
    }
    *listener_out = listener;
    return 0;
}

int cfsr_rdma_listener_fd(struct cfsr_listener *listener)
{
    return listener->manager->fd;
}

const char *cfsr_rdma_listener_endpoint(struct cfsr_listener *listener)
{
    return listener->endpoint;
}

uint64_t cfsr_rdma_listener_dropped(const struct cfsr_listener *listener)
{
    return listener->dropped;
}

uint64_t cfsr_rdma_listener_deadline(struct cfsr_listener *listener)
{
    (void)listener;
    return UINT64_MAX;
}

static int read_request(const uint8_t *bytes, size_t len, struct cfsr_preamble *preamble_out,
                        struct cfsr_rdma_geometry *geometry_out)
{
    int rc;

    if (len < CFSR_RDMA_REQUEST_BYTES)
        return -CFSR_E_FORMAT;
    rc = cfsr_preamble_load(bytes, preamble_out);
    if (rc < 0)
        return rc;
    return cfsr_rdma_geometry_load(bytes + CFSR_PREAMBLE_BYTES, geometry_out);
}

static void drop(struct cfsr_listener *listener, struct rdma_cm_id *id, int error)
{
    char remote[CFSR_ENDPOINT_MAX];

    cfsr_rdma_name(rdma_get_peer_addr(id), remote, sizeof remote);
    cfsr_log(CFSR_LOG_DEBUG, "connection_dropped", CFSR_S("remote", remote),
             CFSR_S("why", cfsr_strerror(error)));
    cfsr_rdma_refuse(id, error);
    (void)rdma_destroy_id(id);
    listener->dropped++;
}

int cfsr_rdma_listener_accept(struct cfsr_listener *listener, uint64_t now_ns,
                              struct cfsr_incoming **incoming_out,
                              struct cfsr_preamble *preamble_out)
{
    struct rdma_cm_event *event;

    (void)now_ns;
    for (unsigned i = 0; i < EVENTS_A_CALL; i++) {
        struct cfsr_incoming *incoming;
        struct cfsr_rdma_geometry geometry;
        struct cfsr_preamble preamble;
        struct rdma_cm_id *id;
        bool request;
        int rc;
        if (rdma_get_cm_event(listener->manager, &event) != 0)
            return -EAGAIN;
        id = event->id;
        request = event->event == RDMA_CM_EVENT_CONNECT_REQUEST;
        rc = request ? read_request(event->param.conn.private_data,
                                    event->param.conn.private_data_len, &preamble, &geometry)
                     : 0;
        if (event->event == RDMA_CM_EVENT_DEVICE_REMOVAL)
            cfsr_rdma_device_removed(id->verbs);
        (void)rdma_ack_cm_event(event);
        if (!request)
            continue; /* of a request on its way to a core, which finds out by itself */
        incoming = rc == 0 ? malloc(sizeof *incoming) : NULL;
        if (incoming == NULL) {
            drop(listener, id, rc < 0 ? rc : -ENOMEM);
            continue;
        }
        *incoming = (struct cfsr_incoming){.id = id, .listener = listener, .geometry = geometry};
        atomic_fetch_add(&listener->shares, 1);
        *incoming_out = incoming;
        *preamble_out = preamble;
        return 0;
    }
    return -EAGAIN;
}

void cfsr_rdma_listener_close(struct cfsr_listener *listener)
{
    if (listener->id != NULL)
        (void)rdma_destroy_id(listener->id);
    cfsr_rdma_listener_put(listener);
}

void cfsr_rdma_listener_put(struct cfsr_listener *listener)
{
    if (atomic_fetch_sub(&listener->shares, 1) > 1)
        return;
    if (listener->manager != NULL)
        rdma_destroy_event_channel(listener->manager);
    free(listener);
}

void cfsr_rdma_incoming_discard(struct cfsr_incoming *incoming)
{
    cfsr_rdma_refuse(incoming->id, -CFSR_E_SHUTDOWN);
    (void)rdma_destroy_id(incoming->id);
    cfsr_rdma_listener_put(incoming->listener);
    free(incoming);
}
