/* One row's pairs, i < j, for one floating point type.
 *
 * Included once for float and once for double, with REAL, VECTOR, MASK,
 * RECIPROCAL, EXPM1, LARGEST and NAMED defined. docs/en/algebra.md derives
 * what follows; in short, with x = k (s_i - s_j):
 *
 *   near:   tanh x = (E_i - E_j) / (E_i + E_j + 2),
 *           E_i = expm1(2 k (s_i - min s)) >= 0
 *           C exponentials instead of one a pair, where 2 k (max s - min s)
 *           is small enough for E and the reciprocal of a sum to be normal
 *           numbers.
 *   far:    tanh x = e / (e + 2), e = expm1(2 x), 2 x clamped to where
 *           tanh is 1 to the last bit
 *   sign:   form 3's teacher
 *
 * A block is a vector's worth of classes. The pairs within a block are
 * visited in both orders and weighted by half; for the others, i runs over
 * GROUP classes at a time, so that one load and one store of j's gradient
 * serve GROUP pairs.
 */

#define LANES ((int)(VECTOR_BYTES / sizeof(REAL)))
#define GROUP (LANES < 4 ? LANES : 4)
/* Sums of pairs are kept in REAL only within a panel of I_PANEL x J_PANEL
 * classes, and in double beyond, so that rounding does not grow with C. */
#define I_PANEL 128
#define J_PANEL 1024

typedef struct {
  const REAL *student; /* E or s, padded to whole blocks */
  const REAL *teacher; /* E or t */
  REAL *gradient;      /* of this panel of i */
  double *total;       /* gradient of the row, without its factor */
  double tau;          /* sum over i < j */
  int64_t classes;
  REAL twice_k;
  REAL saturation;     /* 2 x from which tanh is 1 and its slope 0 */
  VECTOR tail;         /* 1 in the lanes of the last block that are classes */
} NAMED(row);

INLINE VECTOR NAMED(load)(const REAL *from) { return *(const VECTOR *)from; }

INLINE VECTOR NAMED(choose)(MASK condition, VECTOR yes, VECTOR no) {
  return (VECTOR)((condition & (MASK)yes) | (~condition & (MASK)no));
}

INLINE VECTOR NAMED(clamp)(VECTOR x, REAL bound) {
  VECTOR high = bound - (VECTOR){0}, low = -bound - (VECTOR){0};
  x = NAMED(choose)(x > high, high, x);
  return NAMED(choose)(x < low, low, x);
}

INLINE double NAMED(sum)(VECTOR x) {
  /* Halves onto halves: the compiler makes vector additions of it. */
  REAL part[LANES];
  memcpy(part, &x, sizeof x);
  for (int half = LANES / 2; half; half /= 2)
    for (int lane = 0; lane < half; ++lane) part[lane] += part[lane + half];
  return part[0];
}

INLINE VECTOR NAMED(tanh_near)(REAL i, VECTOR j) {
  return (i - j) * RECIPROCAL((i + 2) + j);
}

INLINE VECTOR NAMED(tanh_far)(VECTOR twice_x, REAL saturation) {
  VECTOR e = EXPM1(NAMED(clamp)(twice_x, saturation));
  return e * RECIPROCAL(e + 2);
}

/* The agreement of class i with a block of classes j, and the slope
 * d agreement / d s_i, over k but for form 2, where it is over 1 / 2.
 * `student` and `teacher` are constants. */
INLINE VECTOR NAMED(pair)(const NAMED(row) *row, int student, int teacher,
                          REAL student_i, REAL teacher_i, VECTOR student_j,
                          VECTOR teacher_j, VECTOR *slope) {
  if (teacher == PRODUCT) {
    /* The clamps: infinity times a tie would be NaN. */
    VECTOR ds = NAMED(clamp)(student_i - student_j, LARGEST);
    VECTOR dt = NAMED(clamp)(teacher_i - teacher_j, LARGEST);
    VECTOR twice_x = ds * dt * row->twice_k;
    VECTOR e = EXPM1(NAMED(clamp)(twice_x, row->saturation));
    VECTOR r = RECIPROCAL(e + 2);
    /* 1 - p^2 as 4 e^(2 x) / (e^(2 x) + 1)^2: dt may be huge, and the
     * rounding of a p near 1 must not be multiplied by it. With k now, not
     * after the sum: a sum of huge dt would overflow. */
    VECTOR flat = (VECTOR){0};
    VECTOR steep = ((e + 1) * r) * (4 * r) * (dt * row->twice_k);
    steep = NAMED(choose)(twice_x >= row->saturation, flat, steep);
    *slope = NAMED(choose)(twice_x <= -row->saturation, flat, steep);
    return e * r;
  }
  VECTOR p, q;
  if (student == NEAR)
    p = NAMED(tanh_near)(student_i, student_j);
  else
    p = NAMED(tanh_far)((student_i - student_j) * row->twice_k,
                        row->saturation);
  if (teacher == NEAR)
    q = NAMED(tanh_near)(teacher_i, teacher_j);
  else if (teacher == FAR)
    q = NAMED(tanh_far)((teacher_i - teacher_j) * row->twice_k,
                        row->saturation);
  else {
    VECTOR one = 1 - (VECTOR){0};
    q = (VECTOR)((teacher_i > teacher_j) & (MASK)one) -
        (VECTOR)((teacher_i < teacher_j) & (MASK)one);
  }
  *slope = (1 - p * p) * q;
  return p * q;
}

/* Pairs of GROUP classes from `i` with the classes [first, last), whole
 * blocks, all j > i. */
INLINE void NAMED(group)(NAMED(row) *row, int student, int teacher, int64_t i,
                         int64_t first, int64_t last) {
  VECTOR agreements = {0}, slopes[GROUP] = {{0}};
  /* Copies, which the store to the gradient cannot change: they stay in
   * registers. */
  REAL student_i[GROUP], teacher_i[GROUP];
  for (int r = 0; r < GROUP; ++r) {
    student_i[r] = row->student[i + r];
    teacher_i[r] = row->teacher[i + r];
  }
  int64_t whole = row->classes / LANES * LANES;
  for (int64_t j = first; j < last; j += LANES) {
    VECTOR student_j = NAMED(load)(row->student + j);
    VECTOR teacher_j = NAMED(load)(row->teacher + j);
    VECTOR gradient = NAMED(load)(row->gradient + j);
    if (__builtin_expect(j >= whole, 0)) {
      for (int r = 0; r < GROUP; ++r) {
        VECTOR slope;
        VECTOR agreement =
            NAMED(pair)(row, student, teacher, student_i[r], teacher_i[r],
                        student_j, teacher_j, &slope);
        agreements += agreement * row->tail;
        slopes[r] += slope * row->tail;
        gradient -= slope;
      }
    } else {
      for (int r = 0; r < GROUP; ++r) {
        VECTOR slope;
        agreements +=
            NAMED(pair)(row, student, teacher, student_i[r], teacher_i[r],
                        student_j, teacher_j, &slope);
        slopes[r] += slope;
        gradient -= slope;
      }
    }
    *(VECTOR *)(row->gradient + j) = gradient;
  }
  row->tau += NAMED(sum)(agreements);
  for (int r = 0; r < GROUP; ++r)
    row->total[i + r] += NAMED(sum)(slopes[r]);
}

/* The pairs within one block: both orders, so half of the agreement, and
 * only j's gradient. A class meets itself with agreement and slope 0. */
INLINE void NAMED(block)(NAMED(row) *row, int student, int teacher,
                         int64_t block) {
  VECTOR student_j = NAMED(load)(row->student + block);
  VECTOR teacher_j = NAMED(load)(row->teacher + block);
  VECTOR agreements = {0}, slopes = {0};
  int64_t last = block + LANES < row->classes ? block + LANES : row->classes;
  for (int64_t i = block; i < last; ++i) {
    VECTOR slope;
    agreements +=
        NAMED(pair)(row, student, teacher, row->student[i], row->teacher[i],
                    student_j, teacher_j, &slope);
    slopes -= slope;
  }
  if (block + LANES > row->classes) agreements *= row->tail;
  row->tau += 0.5 * NAMED(sum)(agreements);
  VECTOR gradient = NAMED(load)(row->gradient + block);
  *(VECTOR *)(row->gradient + block) = gradient + slopes;
}

INLINE void NAMED(all_pairs)(NAMED(row) *row, int student, int teacher) {
  int64_t padded = (row->classes + LANES - 1) / LANES * LANES;
  for (int64_t panel = 0; panel < padded; panel += I_PANEL) {
    int64_t end = panel + I_PANEL < padded ? panel + I_PANEL : padded;
    for (int64_t j = panel; j < padded; ++j) row->gradient[j] = 0;
    for (int64_t left = panel; left < padded; left += J_PANEL) {
      int64_t right = left + J_PANEL < padded ? left + J_PANEL : padded;
      for (int64_t block = panel; block < end; block += LANES) {
        int64_t first = block + LANES > left ? block + LANES : left;
        if (first >= right) continue;
        /* A block that is not the last one holds classes only. */
        for (int64_t i = block; i < block + LANES; i += GROUP)
          NAMED(group)(row, student, teacher, i, first, right);
      }
    }
    for (int64_t block = panel; block < end; block += LANES)
      NAMED(block)(row, student, teacher, block);
    for (int64_t j = panel; j < row->classes; ++j)
      row->total[j] += row->gradient[j];
  }
}

/* Writes E of `count` values; returns 0, having written the values
 * themselves, where they are too far apart for it. */
static int NAMED(prepare)(const REAL *values, int64_t count, double twice_k,
                          double *wide, REAL *prepared) {
  int64_t padded = (count + LANES - 1) / LANES * LANES;
  double low = values[0], high = values[0];
  for (int64_t i = 1; i < count; ++i) {
    low = values[i] < low ? values[i] : low;
    high = values[i] > high ? values[i] : high;
  }
  if (!(twice_k * (high - low) <= NEAR_BOUND)) {
    for (int64_t i = 0; i < padded; ++i)
      prepared[i] = i < count ? values[i] : 0;
    return 0;
  }
  int wide_lanes = VECTOR_BYTES / sizeof(double);
  for (int64_t i = 0; i < padded; ++i)
    wide[i] = i < count ? values[i] - low : 0;
  for (int64_t i = 0; i < padded; i += wide_lanes) {
    doubles difference = *(doubles *)(wide + i);
    doubles y = difference * twice_k;
    doubles e = expm1_double(y);
    if (sizeof(REAL) == sizeof(double)) {
      /* exp multiplies the rounding of its argument by the argument: put
       * back what the subtraction and the product have rounded off. */
      doubles lost;
      for (int lane = 0; lane < wide_lanes; ++lane) {
        double value = i + lane < count ? values[i + lane] : low;
        double low_seen = value - difference[lane];
        double error = (value - (difference[lane] + low_seen)) +
                       (low_seen - low);
        lost[lane] = __builtin_fma(difference[lane], twice_k, -y[lane]) +
                     twice_k * error;
      }
      e += (e + 1.0) * lost;
    }
    *(doubles *)(wide + i) = e;
  }
  for (int64_t i = 0; i < padded; ++i) prepared[i] = wide[i];
  return 1;
}
