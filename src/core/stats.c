/*
 * stats.c - names of the per-core counters and stages, from the lists in stats.h.
 *
 * Thread:     any; constants only.
 */
#include "core/stats.h"

#include "base/assert.h"

const char *cfsr_core_counter_name(enum cfsr_core_counter counter)
{
    static const char *const names[] = {
#define X(field, help) #field,
        CFSR_CORE_COUNTER_LIST(X)
#undef X
    };
    CFSR_ASSERT(counter < CFSR_CORE_COUNTERS);
    return names[counter];
}

const char *cfsr_core_counter_help(enum cfsr_core_counter counter)
{
    static const char *const texts[] = {
#define X(field, help) help,
        CFSR_CORE_COUNTER_LIST(X)
#undef X
    };
    CFSR_ASSERT(counter < CFSR_CORE_COUNTERS);
    return texts[counter];
}

const char *cfsr_core_stage_name(enum cfsr_core_stage stage)
{
    static const char *const names[] = {
#define X(field) #field,
        CFSR_CORE_STAGE_LIST(X)
#undef X
    };
    CFSR_ASSERT(stage < CFSR_CORE_STAGES);
    return names[stage];
}
