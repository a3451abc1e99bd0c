/* One row's standardisation for one floating point type, REAL. In double
 * throughout; with d = x - x_0, which keeps the spread of a row far from 0,
 * and c = d - mean d:
 *
 *   z = c / (std + eps),   std^2 = sum c^2 / (n - 1)
 *   d L / d x_i = [g_i - mean g
 *                  - z_i (g . z) / (n - 1) (std + eps) / std] / (std + eps)
 *
 * g the gradient at z. The matrix of the derivative is symmetric. A std of 0
 * marks a row that holds no order; its z and its derivative are 0. Where std
 * is not above a row's floor, the floor stands in its place, as a constant:
 * the term with z is missing then, and a negative sign marks it.
 */

typedef struct {
  const REAL *input; /* rows x classes: logits, or the gradient at z */
  REAL *output;      /* rows x classes: z, or the gradient at the logits */
  const REAL *z;     /* rows x classes, of the backward pass */
  REAL *deviation;   /* rows: std, 0 for no order, minus the floor */
  const REAL *floor; /* rows, or NULL for none */
  int64_t classes;
  double eps;
} NAMED(standardizing);

/* As many REALs as there are doubles in a vector. */
typedef REAL NAMED(narrow)
    __attribute__((vector_size(WIDE_LANES * sizeof(REAL))));

INLINE doubles NAMED(widen)(const REAL *from) {
  NAMED(narrow) values;
  __builtin_memcpy(&values, from, sizeof values);
  return __builtin_convertvector(values, doubles);
}

INLINE void NAMED(store)(REAL *to, doubles values) {
  NAMED(narrow) rounded = __builtin_convertvector(values, NAMED(narrow));
  __builtin_memcpy(to, &rounded, sizeof rounded);
}

/* The smallest and largest value and the mean of x - x_0. */
static double NAMED(extremes_and_mean)(const REAL *x, int64_t n, double *low,
                                       double *high) {
  doubles base = x[0] - (doubles){0}, lows = base, highs = base, sums = {0};
  int64_t i = 0;
  for (; i + WIDE_LANES <= n; i += WIDE_LANES) {
    doubles value = NAMED(widen)(x + i);
    lows = chosen(value < lows, value, lows);
    highs = chosen(value > highs, value, highs);
    sums += value - base;
  }
  double sum = 0;
  *low = *high = x[0];
  for (int lane = 0; lane < WIDE_LANES; ++lane) {
    *low = lows[lane] < *low ? lows[lane] : *low;
    *high = highs[lane] > *high ? highs[lane] : *high;
    sum += sums[lane];
  }
  for (; i < n; ++i) {
    *low = x[i] < *low ? x[i] : *low;
    *high = x[i] > *high ? x[i] : *high;
    sum += (double)x[i] - x[0];
  }
  return sum / n;
}

/* The variance, and what the mean's rounding has left of it: both of one
 * pass, which makes a second one for the mean unnecessary. */
static double NAMED(variance)(const REAL *x, int64_t n, double *mean) {
  doubles sums = {0}, squares = {0};
  double sum = 0, square = 0;
  int64_t i = 0;
  for (; i + WIDE_LANES <= n; i += WIDE_LANES) {
    doubles centered = (NAMED(widen)(x + i) - (double)x[0]) - *mean;
    sums += centered;
    squares += centered * centered;
  }
  for (int lane = 0; lane < WIDE_LANES; ++lane) {
    sum += sums[lane];
    square += squares[lane];
  }
  for (; i < n; ++i) {
    double centered = ((double)x[i] - x[0]) - *mean;
    sum += centered;
    square += centered * centered;
  }
  *mean += sum / n;
  return (square - sum * (sum / n)) / (n - 1);
}

static void NAMED(standardize_row)(const void *argument, int64_t index,
                                   char *scratch) {
  const NAMED(standardizing) *job = argument;
  int64_t n = job->classes, i = 0;
  const REAL *x = job->input + index * n;
  REAL *z = job->output + index * n;
  double low, high, mean = NAMED(extremes_and_mean)(x, n, &low, &high);
  double floor = job->floor ? job->floor[index] : 0;
  (void)scratch;
  if (!isfinite(mean)) {
    for (; i < n; ++i) z[i] = NAN;
    job->deviation[index] = NAN;
    return;
  }
  double largest = fabs(high) > fabs(low) ? fabs(high) : fabs(low);
  int flat = high - low <= 4 * EPSILON * largest;
  int floored = floor > 0;
  double variance = flat && !floored ? 0 : NAMED(variance)(x, n, &mean);
  double deviation = sqrt(variance);
  /* Rounded: as constant as it is to operations on REAL. */
  int constant = (REAL)variance == 0;
  int raised = floored && (constant || deviation <= floor);
  if (!raised && (flat || constant)) {
    for (; i < n; ++i) z[i] = 0;
    job->deviation[index] = 0;
    return;
  }
  double factor = 1 / ((raised ? floor : deviation) + job->eps);
  job->deviation[index] = raised ? -floor : deviation;
  for (; i + WIDE_LANES <= n; i += WIDE_LANES)
    NAMED(store)(z + i,
                 ((NAMED(widen)(x + i) - (double)x[0]) - mean) * factor);
  for (; i < n; ++i) z[i] = (((double)x[i] - x[0]) - mean) * factor;
}

static void NAMED(standardize_vjp_row)(const void *argument, int64_t index,
                                       char *scratch) {
  const NAMED(standardizing) *job = argument;
  int64_t n = job->classes, i = 0;
  const REAL *g = job->input + index * n, *z = job->z + index * n;
  REAL *output = job->output + index * n;
  double marked = job->deviation[index], deviation = fabs(marked);
  double sum = 0, product = 0;
  doubles sums = {0}, products = {0};
  (void)scratch;
  if (deviation == 0) {
    for (; i < n; ++i) output[i] = 0;
    return;
  }
  for (; i + WIDE_LANES <= n; i += WIDE_LANES) {
    doubles gradient = NAMED(widen)(g + i);
    sums += gradient;
    products += gradient * NAMED(widen)(z + i);
  }
  for (int lane = 0; lane < WIDE_LANES; ++lane) {
    sum += sums[lane];
    product += products[lane];
  }
  for (; i < n; ++i) {
    sum += g[i];
    product += (double)g[i] * z[i];
  }
  double factor = 1 / (deviation + job->eps), mean = sum / n;
  double slope = product / (n - 1) * ((deviation + job->eps) / deviation);
  if (marked < 0) slope = 0;
  for (i = 0; i + WIDE_LANES <= n; i += WIDE_LANES)
    NAMED(store)(output + i, (NAMED(widen)(g + i) - mean -
                              NAMED(widen)(z + i) * slope) * factor);
  for (; i < n; ++i) output[i] = (g[i] - mean - z[i] * slope) * factor;
}

int NAMED(mmrkkd_standardize)(const REAL *logits, REAL *z, REAL *deviation,
                              const REAL *floor, int64_t rows,
                              int64_t classes, double eps, int64_t threads) {
  NAMED(standardizing) job = {logits, z, NULL, deviation, floor, classes, eps};
  return for_each_row(NAMED(standardize_row), &job, rows, 64, threads);
}

int NAMED(mmrkkd_standardize_vjp)(const REAL *gradient, const REAL *z,
                                  const REAL *deviation, REAL *output,
                                  int64_t rows, int64_t classes, double eps,
                                  int64_t threads) {
  NAMED(standardizing) job = {gradient, output,  z,  (REAL *)deviation,
                              NULL,     classes, eps};
  return for_each_row(NAMED(standardize_vjp_row), &job, rows, 64, threads);
}
