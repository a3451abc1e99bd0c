/* Rows minus their mean over their deviation, and the derivative. */
#include <math.h>
#include <stdint.h>

#include "rows.h"
#include "vectors.h"

#ifndef JOIN
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#endif
#undef NAMED
#define NAMED(name) JOIN(name, REAL)
#undef REAL

#define WIDE_LANES ((int)(VECTOR_BYTES / sizeof(double)))

INLINE doubles chosen(longs condition, doubles yes, doubles no) {
  return (doubles)((condition & (longs)yes) | (~condition & (longs)no));
}

#define REAL float
#define EPSILON 0x1p-23
#include "standardize_row.h"
#undef REAL
#undef EPSILON

#define REAL double
#define EPSILON 0x1p-52
#include "standardize_row.h"
#undef REAL
#undef EPSILON
