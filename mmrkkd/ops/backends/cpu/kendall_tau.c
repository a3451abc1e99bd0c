/* Soft Kendall's tau and its gradient, and the exact tau's pair counts. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "rows.h"
#include "vectors.h"

enum { NEAR, FAR, SIGN, PRODUCT };

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAMED(name) JOIN(name, REAL)

#define REAL float
#define VECTOR floats
#define MASK ints
#define RECIPROCAL reciprocal_float
#define EXPM1 expm1_float
#define LARGEST 0x1.fffffep127f
#define SMALLEST 0x1p-126f
/* exp(80) is 5.5e34, and the reciprocal of a sum of two 9e-36: both normal. */
#define NEAR_BOUND 80.0
#include "kendall_tau_pairs.h"
#include "kendall_tau_row.h"
#undef REAL
#undef VECTOR
#undef MASK
#undef RECIPROCAL
#undef EXPM1
#undef LARGEST
#undef SMALLEST
#undef NEAR_BOUND

#define REAL double
#define VECTOR doubles
#define MASK longs
#define RECIPROCAL reciprocal_double
#define EXPM1 expm1_double
#define LARGEST 0x1.fffffffffffffp1023
#define SMALLEST 0x1p-1022
#define NEAR_BOUND 600.0
#include "kendall_tau_pairs.h"
#include "kendall_tau_row.h"
