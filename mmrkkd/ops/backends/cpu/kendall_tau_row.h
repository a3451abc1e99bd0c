/* Whole rows of soft Kendall's tau for one type; see kendall_tau_pairs.h. */

typedef struct {
  const REAL *student, *teacher; /* rows x classes */
  const uint8_t *mask;           /* rows x classes, or NULL for all */
  REAL *tau;                     /* rows */
  REAL *gradient;                /* rows x classes */
  int64_t classes;
  double steepness;
  int form;
} NAMED(job);

/* Packs the classes that count; returns how many, or -1 for a row with a
 * value that is not finite. */
static int64_t NAMED(gather)(const NAMED(job) *job, int64_t row,
                             REAL *student, REAL *teacher) {
  const REAL *s = job->student + row * job->classes;
  const REAL *t = job->teacher + row * job->classes;
  const uint8_t *mask = job->mask ? job->mask + row * job->classes : NULL;
  int64_t count = 0;
  REAL poison = 0;
  for (int64_t i = 0; i < job->classes; ++i) {
    if (mask && !mask[i]) continue;
    student[count] = s[i];
    teacher[count] = t[i];
    poison += (s[i] - s[i]) + (t[i] - t[i]);
    ++count;
  }
  return poison == 0 ? count : -1;
}

static void NAMED(visit_pairs)(NAMED(row) *row, int student, int teacher) {
  switch (student * 4 + teacher) {
    case NEAR * 4 + NEAR: NAMED(all_pairs)(row, NEAR, NEAR); break;
    case NEAR * 4 + FAR: NAMED(all_pairs)(row, NEAR, FAR); break;
    case NEAR * 4 + SIGN: NAMED(all_pairs)(row, NEAR, SIGN); break;
    case FAR * 4 + NEAR: NAMED(all_pairs)(row, FAR, NEAR); break;
    case FAR * 4 + FAR: NAMED(all_pairs)(row, FAR, FAR); break;
    case FAR * 4 + SIGN: NAMED(all_pairs)(row, FAR, SIGN); break;
    default: NAMED(all_pairs)(row, FAR, PRODUCT);
  }
}

static void NAMED(scatter)(const NAMED(job) *job, int64_t row,
                           const double *total, double factor, REAL empty) {
  REAL *gradient = job->gradient + row * job->classes;
  const uint8_t *mask = job->mask ? job->mask + row * job->classes : NULL;
  int64_t count = 0;
  for (int64_t i = 0; i < job->classes; ++i) {
    if (mask && !mask[i])
      gradient[i] = 0;
    else
      gradient[i] = total ? total[count++] * factor : empty;
  }
}

static void NAMED(work)(const void *argument, int64_t index, char *scratch) {
  const NAMED(job) *job = argument;
  int64_t padded = (job->classes + 63) / 64 * 64;
  double *total = (double *)scratch, *wide = total + padded;
  REAL *student = (REAL *)(wide + padded), *teacher = student + padded;
  REAL *gradient = teacher + padded, *packed = gradient + padded;
  int64_t count = NAMED(gather)(job, index, packed, gradient);
  if (count < 2) {
    REAL value = count < 0 ? NAN : 0;
    job->tau[index] = value;
    NAMED(scatter)(job, index, NULL, 0, value);
    return;
  }
  int student_kind = FAR, teacher_kind = job->form == 2 ? PRODUCT : SIGN;
  double twice_k = 2 * job->steepness;
  /* Form 2 and the signs need the values themselves. */
  if (job->form == 2)
    NAMED(prepare)(packed, count, INFINITY, wide, student);
  else if (NAMED(prepare)(packed, count, twice_k, wide, student))
    student_kind = NEAR;
  if (job->form != 1)
    NAMED(prepare)(gradient, count, INFINITY, wide, teacher);
  else
    teacher_kind =
        NAMED(prepare)(gradient, count, twice_k, wide, teacher) ? NEAR : FAR;
  NAMED(row) row = {.student = student, .teacher = teacher,
                    .gradient = gradient, .total = total, .classes = count,
                    .twice_k = twice_k < SMALLEST  ? SMALLEST
                               : twice_k < LARGEST ? twice_k
                                                   : LARGEST,
                    .saturation = NEAR_BOUND};
  for (int lane = 0; lane < LANES; ++lane)
    row.tail[lane] = count / LANES * LANES + lane < count;
  memset(total, 0, padded * sizeof(double));
  NAMED(visit_pairs)(&row, student_kind, teacher_kind);
  double ordered_pairs = (double)count * (count - 1);
  job->tau[index] = 2 * row.tau / ordered_pairs;
  NAMED(scatter)(job, index, total,
                 (job->form == 2 ? 1 : twice_k) / ordered_pairs, 0);
}

/* tau and d tau / d student of `rows` rows; returns 0, or 1 for want of
 * memory. All arrays are contiguous. */
int NAMED(mmrkkd_kendall_tau)(const REAL *student, const REAL *teacher,
                              const uint8_t *mask, REAL *tau, REAL *gradient,
                              int64_t rows, int64_t classes, double steepness,
                              int form, int64_t threads) {
  NAMED(job) job = {student, teacher,  mask,      tau,
                    gradient, classes, steepness, form};
  size_t padded = (classes + 63) / 64 * 64;
  return for_each_row(NAMED(work), &job, rows,
                      padded * (2 * sizeof(double) + 4 * sizeof(REAL)),
                      threads);
}
