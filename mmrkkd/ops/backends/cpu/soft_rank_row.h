/* One row's soft ranks for one floating point type, REAL, whose bits fit
 * KEY. docs/en/algebra.md has the mathematics; in short, with z = s v / eps
 * sorted from the largest to the smallest and w_p = n - p, p = 0 ... n - 1:
 *
 *   rank_p = (z_p - mean of z over p's block) + mean of w over p's block,
 *
 * the blocks being those of the non-increasing sequence nearest to z - w. The
 * derivative subtracts the mean over the block and multiplies by s / eps.
 * z and w are kept apart because z may be so large that z - w is z.
 */

typedef KEY NAMED(keys) __attribute__((vector_size(VECTOR_BYTES)));
typedef PLACE NAMED(places) __attribute__((vector_size(VECTOR_BYTES)));

typedef struct {
  KEY key;
  uint32_t index;
} NAMED(item);

typedef struct {
  const REAL *input;  /* rows x classes: values, or the gradient of ranks */
  REAL *output;       /* rows x classes: ranks, or the gradient of values */
  int32_t *order;     /* rows x classes: class at each place of the sort */
  int32_t *block;     /* rows x classes: first place of each place's block */
  int64_t classes;
  double scale;       /* s / eps */
} NAMED(ranking);

/* Sorts by key, least significant byte first; equal keys keep their order.
 * Returns whichever of the two arrays holds the result. */
static NAMED(item) *NAMED(radix_sort)(NAMED(item) *items, NAMED(item) *spare,
                                      int64_t count) {
  uint32_t counts[sizeof(KEY)][256];
  memset(counts, 0, sizeof counts);
  for (int64_t i = 0; i < count; ++i)
    for (unsigned byte = 0; byte < sizeof(KEY); ++byte)
      ++counts[byte][items[i].key >> (8 * byte) & 255];
  for (unsigned byte = 0; byte < sizeof(KEY); ++byte) {
    uint32_t *places = counts[byte];
    /* Nothing to do where all keys share this byte. */
    if (places[items[0].key >> (8 * byte) & 255] == (uint32_t)count) continue;
    uint32_t sum = 0;
    for (int digit = 0; digit < 256; ++digit) {
      uint32_t these = places[digit];
      places[digit] = sum;
      sum += these;
    }
    for (int64_t i = 0; i < count; ++i)
      spare[places[items[i].key >> (8 * byte) & 255]++] = items[i];
    NAMED(item) *swap = items;
    items = spare;
    spare = swap;
  }
  return items;
}

/* The same by counting, for each key, the keys that come before it: n^2
 * comparisons, a vector of them at a time, are less work than the radix
 * sort's tables while n is small. `keys` is padded to whole vectors with
 * keys that come before none. */
static void NAMED(counting_sort)(const KEY *keys, int64_t count,
                                 int32_t *order) {
  const int lanes = VECTOR_BYTES / sizeof(KEY);
  NAMED(places) lane, places;
  NAMED(keys) these;
  for (int l = 0; l < lanes; ++l) lane[l] = l;
  for (int64_t block = 0; block < count; block += lanes) {
    int64_t j = 0, end = block + lanes < count ? block + lanes : count;
    __builtin_memcpy(&these, keys + block, sizeof these);
    places = (NAMED(places)){0};
    /* Minus a comparison adds 1 where it holds. Of equal keys the one with
     * the smaller index comes first. */
    for (; j < block; ++j) places -= keys[j] <= these;
    for (; j < end; ++j)
      places -= (keys[j] < these) |
                ((keys[j] == these) & (lane > (PLACE)(j - block)));
    for (; j < count; ++j) places -= keys[j] < these;
    for (int64_t i = block; i < end; ++i) order[places[i - block]] = i;
  }
}

/* An unsigned number that grows as `descending * value` falls. */
static inline KEY NAMED(sort_key)(REAL value, int descending) {
  KEY bits, sign = (KEY)1 << (8 * sizeof(KEY) - 1);
  value += 0; /* -0 and 0 are equal */
  memcpy(&bits, &value, sizeof bits);
  KEY ascending = bits & sign ? ~bits : bits | sign;
  return descending ? ~ascending : ascending;
}

/* Writes the class at each place, the smallest value first, or the largest.
 * Returns whether a value is not finite. */
static int NAMED(sort)(const REAL *values, int64_t n, int descending,
                       NAMED(item) *items, int32_t *order) {
  REAL poison = 0;
  for (int64_t i = 0; i < n; ++i) poison += values[i] - values[i];
  if (n <= FEW_CLASSES) {
    const int lanes = VECTOR_BYTES / sizeof(KEY);
    int64_t padded = (n + lanes - 1) / lanes * lanes;
    KEY *keys = (KEY *)items;
    for (int64_t i = 0; i < n; ++i)
      keys[i] = NAMED(sort_key)(values[i], descending);
    for (int64_t i = n; i < padded; ++i) keys[i] = ~(KEY)0;
    NAMED(counting_sort)(keys, n, order);
  } else {
    for (int64_t i = 0; i < n; ++i) {
      items[i].key = NAMED(sort_key)(values[i], descending);
      items[i].index = i;
    }
    NAMED(item) *sorted = NAMED(radix_sort)(items, items + n, n);
    for (int64_t p = 0; p < n; ++p) order[p] = sorted[p].index;
  }
  return poison != 0;
}

/* Where z spans no more than n / 2 all places are one block, and nothing need
 * be sorted: the order within a block counts for nothing, so the classes stay
 * as they are. NaN and infinity span no number. Returns whether it is so. */
static int NAMED(one_block)(const REAL *values, int64_t n, double scale,
                            REAL *ranks, int32_t *order, int32_t *block) {
  REAL low = values[0], high = values[0], poison = 0;
  for (int64_t i = 0; i < n; ++i) {
    poison += values[i] - values[i];
    low = values[i] < low ? values[i] : low;
    high = values[i] > high ? values[i] : high;
  }
  double base = values[0], sum = 0;
  if (poison != 0 || !(((double)high - low) * fabs(scale) <= 0.5 * n))
    return 0;
  for (int64_t i = 0; i < n; ++i) sum += values[i] - base;
  double mean = sum / n, weight = 0.5 * (double)(n + 1);
  for (int64_t i = 0; i < n; ++i) {
    ranks[i] = ((values[i] - base) - mean) * scale + weight;
    order[i] = i;
    block[i] = 0;
  }
  return 1;
}

static void NAMED(rank_row)(const void *argument, int64_t index,
                            char *scratch) {
  const NAMED(ranking) *job = argument;
  int64_t n = job->classes;
  const REAL *values = job->input + index * n;
  REAL *ranks = job->output + index * n;
  int32_t *order = job->order + index * n, *block = job->block + index * n;
  if (NAMED(one_block)(values, n, job->scale, ranks, order, block)) return;
  double *mean = (double *)scratch, *z = mean + n;
  NAMED(item) *items = (NAMED(item) *)(z + n);
  int32_t *start = (int32_t *)(items + 2 * n);
  int poison = NAMED(sort)(values, n, job->scale > 0, items, order);
  int64_t top = -1;
  for (int64_t p = 0; p < n; ++p) {
    z[p] = (double)values[order[p]] * job->scale;
    double pooled = z[p];
    int64_t first = p;
    /* The mean of w falls by half the places of the two blocks. */
    while (top >= 0 &&
           mean[top] - pooled <= 0.5 * (double)(p + 1 - start[top])) {
      double share = (double)(first - start[top]) / (p + 1 - start[top]);
      pooled += (mean[top] - pooled) * share;
      first = start[top--];
    }
    mean[++top] = pooled;
    start[top] = first;
  }
  for (int64_t b = 0; b <= top; ++b) {
    int64_t end = b < top ? start[b + 1] : n;
    double weight = n - 0.5 * (double)(start[b] + end - 1);
    for (int64_t p = start[b]; p < end; ++p) {
      block[p] = start[b];
      ranks[order[p]] = poison ? NAN : (z[p] - mean[b]) + weight;
    }
  }
}

static void NAMED(rank_vjp_row)(const void *argument, int64_t index,
                                char *scratch) {
  const NAMED(ranking) *job = argument;
  int64_t n = job->classes;
  const REAL *gradient = job->input + index * n;
  REAL *output = job->output + index * n;
  const int32_t *order = job->order + index * n;
  const int32_t *block = job->block + index * n;
  (void)scratch;
  for (int64_t first = 0, end; first < n; first = end) {
    double sum = 0;
    for (end = first; end < n && block[end] == first; ++end)
      sum += gradient[order[end]];
    double mean = sum / (end - first);
    for (int64_t p = first; p < end; ++p)
      output[order[p]] = (gradient[order[p]] - mean) * job->scale;
  }
}

int NAMED(mmrkkd_soft_rank)(const REAL *values, REAL *ranks, int32_t *order,
                            int32_t *block, int64_t rows, int64_t classes,
                            double scale, int64_t threads) {
  NAMED(ranking) job = {values, ranks, order, block, classes, scale};
  size_t bytes = 2 * sizeof(double) + 2 * sizeof(NAMED(item)) +
                 sizeof(int32_t);
  return for_each_row(NAMED(rank_row), &job, rows,
                      classes * bytes + VECTOR_BYTES, threads);
}

int NAMED(mmrkkd_soft_rank_vjp)(const REAL *gradient, REAL *output,
                                const int32_t *order, const int32_t *block,
                                int64_t rows, int64_t classes, double scale,
                                int64_t threads) {
  NAMED(ranking) job = {gradient, output, (int32_t *)order, (int32_t *)block,
                        classes, scale};
  return for_each_row(NAMED(rank_vjp_row), &job, rows, 64, threads);
}
