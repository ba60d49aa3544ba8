/*
 * scrub_json.c - scrubs as JSON (scrub_json.h). Control thread; pure but for malloc.
 */
#include "control/scrub_json.h"

#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "base/fail.h"
#include "base/units.h"

static const struct {
    const char *name;
    unsigned parts;
} part_names[] = {
    {"all", CFSR_SCRUB_ALL},
    {"journal", CFSR_SCRUB_JOURNAL},
    {"inbox", CFSR_SCRUB_INBOX},
    {"peers", CFSR_SCRUB_PEERS},
};

static int parse_parts(const json_t *value, unsigned *parts_out)
{
    const char *name = json_string_value(value);

    for (unsigned i = 0; name != NULL && i < CFSR_ARRAY_LEN(part_names); i++) {
        if (strcmp(part_names[i].name, name) == 0) {
            *parts_out = part_names[i].parts;
            return 0;
        }
    }
    return cfsr_fail(-CFSR_E_USAGE, "scrub: parts is one of all, journal, inbox, peers");
}

int cfsr_scrub_request_parse(const json_t *request, uint32_t lanes, uint64_t default_rate,
                             struct cfsr_scrub_request *request_out)
{
    const json_t *lane = json_object_get(request, "lane"), *rate = json_object_get(request, "rate");
    const json_t *parts = json_object_get(request, "parts");
    struct cfsr_scrub_request parsed = {
        .lane_mask = lanes == CFSR_LANES_MAX ? UINT64_MAX : (1ull << lanes) - 1,
        .parts = CFSR_SCRUB_ALL,
        .rate_bytes_per_s = default_rate,
    };
    int rc = parts != NULL ? parse_parts(parts, &parsed.parts) : 0;

    if (rc < 0)
        return rc;
    if (lane != NULL) {
        json_int_t n = json_integer_value(lane);
        if (!json_is_integer(lane) || n < 0 || n >= (json_int_t)lanes)
            return cfsr_fail(-CFSR_E_USAGE, "scrub: this site has the lanes 0 to %u", lanes - 1);
        parsed.lane_mask = 1ull << n;
    }
    if (rate != NULL) {
        if (!json_is_integer(rate) || json_integer_value(rate) < 0)
            return cfsr_fail(-CFSR_E_USAGE,
                             "scrub: rate is a number of bytes a second, 0 unlimited");
        parsed.rate_bytes_per_s = (uint64_t)json_integer_value(rate);
    }
    *request_out = parsed;
    return 0;
}

static json_t *time_or_null(uint64_t time_us)
{
    char text[40];

    if (time_us == 0)
        return json_null();
    cfsr_format_time_us(time_us, text, sizeof text);
    return json_string(text);
}

static json_t *lane_json(uint32_t lane, const struct cfsr_scrub_lane *l)
{
    return json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:o,s:o}", "lane", (json_int_t)lane, "bytes",
        (json_int_t)l->bytes, "windows_compared", (json_int_t)l->windows_compared,
        "windows_different", (json_int_t)l->windows_different, "found", (json_int_t)l->found,
        "repaired", (json_int_t)l->repaired, "unrepairable", (json_int_t)l->unrepairable, "waiting",
        (json_int_t)l->waiting, "error", l->error < 0 ? cfsr_error_name(l->error) : "", "started",
        time_or_null(l->started_us), "finished", time_or_null(l->finished_us));
}

static json_t *finding_json(const struct cfsr_scrub_finding *f)
{
    return json_pack(
        "{s:o,s:s,s:s,s:I,s:I,s:I,s:I,s:s}", "time", time_or_null(f->at_us), "what",
        cfsr_scrub_finding_name(f->kind), "outcome", cfsr_scrub_outcome_name(f->outcome), "lane",
        (json_int_t)f->lane, "site", (json_int_t)f->site_id, "lsn_from", (json_int_t)f->lsn_from,
        "lsn_to", (json_int_t)f->lsn_to, "reason", f->reason < 0 ? cfsr_error_name(f->reason) : "");
}

json_t *cfsr_scrub_json(const struct cfsr_status_input *input)
{
    json_t *lanes = json_array(), *findings = json_array();
    uint64_t finished = UINT64_MAX;
    bool running = false;

    for (uint32_t lane = 0; lane < input->site->lanes; lane++)
        for (uint32_t r = 0; r < input->report_count; r++)
            if (input->reports[r].node.scrub.lane_mask >> lane & 1)
                json_array_append_new(lanes,
                                      lane_json(lane, &input->reports[r].node.scrub.lane[lane]));
    for (uint32_t r = 0; r < input->report_count; r++) {
        const struct cfsr_node_scrub_status *scrub = &input->reports[r].node.scrub;
        running = running || scrub->running;
        finished = cfsr_min_u64(finished, scrub->run_finished);
        for (uint32_t i = 0; i < scrub->finding_count; i++)
            json_array_append_new(findings, finding_json(&scrub->finding[i]));
    }
    return json_pack("{s:b,s:I,s:I,s:I,s:o,s:o}", "running", running ? 1 : 0, "run_finished",
                     (json_int_t)(finished != UINT64_MAX ? finished : 0), "interval_s",
                     (json_int_t)input->config->scrub_interval_s, "rate",
                     (json_int_t)input->config->scrub_rate_bytes_per_s, "lanes", lanes, "findings",
                     findings);
}
