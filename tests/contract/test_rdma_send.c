/*
 * test_rdma_send.c - the bounce buffers of the RDMA transport's send side, without a device: its
 * connections post to a queue pair that only counts, and completions come when the test says so.
 */
#include "transport/rdma/rdma.h"

#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#define SLOTS      256u
#define SEND_DEPTH 128u
#define HOLDERS    (CFSR_RDMA_BOUNCES / CFSR_RDMA_DATA_MAX)

_Static_assert(CFSR_RDMA_BOUNCES % CFSR_RDMA_DATA_MAX == 0, "full connections take them all");
_Static_assert(SEND_DEPTH > CFSR_RDMA_DATA_MAX + CFSR_RDMA_SEND_RESERVED, "one takes its share");

struct sender {
    struct cfsr_conn conn;
    struct rdma_cm_id id;
    struct ibv_qp queue_pair;
    struct cfsr_rdma_sent queue[SEND_DEPTH];
    unsigned posted;
};

static struct ibv_context context;
static struct ibv_mr bounce_mr = {.lkey = 7};
static struct cfsr_group *group;
static struct sender *holder[HOLDERS];
static struct sender *waiter, *idle;
static uint8_t header[64]; /* in memory that nobody registered */

static int count_posted(struct ibv_qp *queue_pair, struct ibv_send_wr *request,
                        struct ibv_send_wr **bad_out)
{
    struct sender *sender = queue_pair->qp_context;

    (void)bad_out;
    for (; request != NULL; request = request->next) {
        if (request->num_sge == 0)
            continue; /* the end */
        cr_assert_eq(request->num_sge, 1);
        cr_assert_eq(request->sg_list[0].lkey, bounce_mr.lkey, "not from a bounce buffer");
        sender->posted++;
    }
    return 0;
}

static struct sender *sender_create(void)
{
    struct sender *sender = calloc(1, sizeof *sender);
    struct cfsr_conn *conn;

    cr_assert_not_null(sender);
    sender->queue_pair = (struct ibv_qp){.context = &context, .qp_context = sender};
    sender->id.qp = &sender->queue_pair;
    conn = &sender->conn;
    conn->group = group;
    conn->state = CFSR_RDMA_OPEN;
    conn->id = &sender->id;
    conn->queue = sender->queue;
    conn->peer = group->geometry;
    cfsr_list_init(&conn->ready);
    cfsr_list_init(&conn->dirty);
    cfsr_list_push_back(&group->open, &conn->open);
    cfsr_rdma_credits_init(&conn->credits, SLOTS);
    cfsr_rdma_credits_post(&conn->credits, SLOTS, 0);
    cfsr_rdma_credits_start(&conn->credits, SLOTS);
    cfsr_rdma_send_init(conn);
    return sender;
}

static void send_headers(struct sender *sender, unsigned count)
{
    struct cfsr_frame frame = {.count = 1,
                               .pieces[0] = {.iov_base = header, .iov_len = sizeof header}};

    for (unsigned i = 0; i < count; i++)
        cr_assert_eq(cfsr_rdma_send(&sender->conn, CFSR_STREAM_DATA, &frame, 1), 1);
    cfsr_transport_rdma.flush(group);
}

/* Every buffer is with a message under way, and a connection without one wants to send. */
static void init(void)
{
    context.ops.post_send = count_posted;
    group = calloc(1, sizeof *group);
    cr_assert_not_null(group);
    cfsr_list_init(&group->open);
    cfsr_list_init(&group->ready);
    cfsr_list_init(&group->dirty);
    group->send_depth = SEND_DEPTH;
    group->geometry = (struct cfsr_rdma_geometry){.slot_bytes = 4096, .slots = SLOTS};
    group->bounce = calloc(CFSR_RDMA_BOUNCES, CFSR_RDMA_BOUNCE_BYTES);
    cr_assert_not_null(group->bounce);
    group->bounce_mr = &bounce_mr;
    for (uint16_t i = 0; i < CFSR_RDMA_BOUNCES; i++)
        group->bounce_free[group->bounce_free_count++] = i;
    for (unsigned i = 0; i < HOLDERS; i++) {
        holder[i] = sender_create();
        send_headers(holder[i], CFSR_RDMA_DATA_MAX);
        cr_assert_eq(holder[i]->posted, CFSR_RDMA_DATA_MAX);
    }
    idle = sender_create();
    waiter = sender_create();
    send_headers(waiter, 2);
    cr_assert_eq(group->bounce_free_count, 0);
    cr_assert_eq(waiter->posted, 0);
}

static void fini(void)
{
    for (unsigned i = 0; i < HOLDERS; i++)
        free(holder[i]);
    free(idle);
    free(waiter);
    free(group->bounce);
    free(group);
}

TestSuite(rdma_send, .init = init, .fini = fini);

Test(rdma_send, a_connection_that_waits_for_a_bounce_buffer_gets_the_first_that_comes_back)
{
    cfsr_transport_rdma.flush(group);
    cr_assert_eq(waiter->posted, 0, "nothing came back yet");

    cfsr_rdma_send_done(&holder[0]->conn, 0);
    cr_assert(cfsr_list_is_empty(&idle->conn.dirty), "it has nothing to send");
    cfsr_transport_rdma.flush(group);
    cr_assert_eq(waiter->posted, 1);
    cr_assert_eq(group->bounce_free_count, 0);

    cfsr_rdma_send_done(&holder[1]->conn, 0);
    cfsr_transport_rdma.flush(group);
    cr_assert_eq(waiter->posted, 2, "all were taken again: it is woken again");
}

/* One that is closing needs no completion that succeeds. */
Test(rdma_send, buffers_of_a_connection_that_broke_wake_too)
{
    cfsr_rdma_send_flushed(&holder[0]->conn, CFSR_RDMA_DATA_MAX - 1);
    cfsr_transport_rdma.flush(group);
    cr_assert_eq(waiter->posted, 2);
    cr_assert_eq(group->bounce_free_count, CFSR_RDMA_DATA_MAX - 2);

    /* Given back once, though asked to twice. */
    cfsr_rdma_send_forget(&holder[0]->conn);
    cr_assert_eq(group->bounce_free_count, CFSR_RDMA_DATA_MAX - 2);
}

Test(rdma_send, a_lingering_connection_is_woken_as_well)
{
    waiter->conn.state = CFSR_RDMA_LINGER;
    cfsr_rdma_send_forget(&holder[0]->conn);
    cfsr_transport_rdma.flush(group);
    cr_assert_eq(waiter->conn.lanes[CFSR_STREAM_DATA].posted, 2);
}
