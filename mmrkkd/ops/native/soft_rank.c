/* Soft ranks: a radix sort, pool-adjacent-violators, and the exact VJP. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "rows.h"

#ifndef JOIN
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#endif
#undef NAMED
#define NAMED(name) JOIN(name, REAL)
#undef REAL

#define REAL float
#define KEY uint32_t
#include "soft_rank_row.h"
#undef REAL
#undef KEY

#define REAL double
#define KEY uint64_t
#include "soft_rank_row.h"
