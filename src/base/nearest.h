/* nearest.h - the name a user probably meant (Damerau–Levenshtein distance), for "did you mean". */
#ifndef CFSR_BASE_NEAREST_H
#define CFSR_BASE_NEAREST_H

#include <stddef.h>

/* The candidate nearest to word, or NULL if none is near (distance above a third of the longer
 * word, at least 2). */
const char *cfsr_nearest(const char *word, const char *const *candidates, size_t count);

#endif
