/* Soft ranks: a radix sort, pool-adjacent-violators, and the exact VJP. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "rows.h"
#include "vectors.h"

#ifndef JOIN
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#endif
#undef NAMED
#define NAMED(name) JOIN(name, REAL)
#undef REAL

/* Up to here counting was the faster sort: n = 100 took 0.6 us against 0.85,
 * n = 200 1.9 against 1.3. */
#define FEW_CLASSES 128

#define REAL float
#define KEY uint32_t
#define PLACE int32_t
#include "soft_rank_row.h"
#undef REAL
#undef KEY
#undef PLACE

#define REAL double
#define KEY uint64_t
#define PLACE int64_t
#include "soft_rank_row.h"
