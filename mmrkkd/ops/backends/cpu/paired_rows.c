/* A number of two rows, and its derivative by the first of them: in double,
 * from float to float.
 *
 * Kullback-Leibler divergence, with u = z / T minus its largest, e = exp u and
 * S = sum e, t the teacher and s the student:
 *
 *   KL = sum e_t (u_t - u_s) / S_t - log S_t + log S_s
 *   d KL / d z_s = (e_s / S_s - e_t / S_t) / T
 *
 * Pearson's correlation, with c = x - mean x and w = |c_s| |c_t| + eps:
 *
 *   r = c_s . c_t / w
 *   d r / d s = (c_t - c_s r |c_t| / |c_s|) / w
 *
 * Cross entropy of probabilities q = sigmoid(s) and p = sigmoid(t) of each
 * entry, weighted by their distance d = q - p:
 *
 *   E = (1 - p) s + max(-s, 0) + log(1 + exp -|s|)
 *   sum |d| E,   d / d s = |d| d + sign(d) q (1 - q) E
 *
 * in which an s below the least logit is taken for it, and has no slope.
 */
#include <math.h>
#include <stdint.h>

#include "rows.h"
#include "vectors.h"

typedef struct {
  const float *student, *teacher; /* rows x length */
  float *value;                   /* rows */
  float *slopes;                  /* rows x length */
  int64_t length;
  double number; /* the temperature; eps; the least logit */
} pairing;

static int64_t vectors_of(int64_t length) {
  return (length + WIDE_LANES - 1) / WIDE_LANES;
}

/* A row minus two numbers, and what fills its last vector. */
static void widened(const float *x, int64_t n, double first, double second,
                    double fill, doubles *to) {
  double *values = (double *)to;
  int64_t i = 0, end = vectors_of(n) * WIDE_LANES;
  for (; i < n; ++i) values[i] = ((double)x[i] - first) - second;
  for (; i < end; ++i) values[i] = fill;
}

static double total(doubles values) {
  double sum = 0;
  for (int lane = 0; lane < WIDE_LANES; ++lane) sum += values[lane];
  return sum;
}

static double largest(const doubles *x, int64_t count) {
  doubles most = x[0];
  for (int64_t i = 1; i < count; ++i) most = chosen(x[i] > most, x[i], most);
  double result = most[0];
  for (int lane = 1; lane < WIDE_LANES; ++lane)
    result = most[lane] > result ? most[lane] : result;
  return result;
}

/* 0 below what a double holds, and for -inf. */
INLINE doubles exp_or_0(doubles y) {
  return chosen(y < -700.0, (doubles){0}, exp_double(y));
}

static void kl_row(const void *argument, int64_t index, char *scratch) {
  const pairing *job = argument;
  int64_t n = job->length, count = vectors_of(n);
  doubles *s = (doubles *)scratch, *t = s + count;
  doubles s_sums = {0}, t_sums = {0}, terms = {0};
  float *slopes = job->slopes + index * n;
  widened(job->student + index * n, n, 0, 0, -INFINITY, s);
  widened(job->teacher + index * n, n, 0, 0, -INFINITY, t);
  double s_most = largest(s, count), t_most = largest(t, count);
  double scale = 1 / job->number;
  for (int64_t i = 0; i < count; ++i) {
    doubles u_s = (s[i] - s_most) * scale, u_t = (t[i] - t_most) * scale;
    s[i] = exp_or_0(u_s);
    t[i] = exp_or_0(u_t);
    s_sums += s[i];
    t_sums += t[i];
    /* A class that the teacher rules out adds 0, and not 0 times -inf. */
    terms += chosen(t[i] == 0.0, (doubles){0}, t[i] * (u_t - u_s));
  }
  double s_sum = total(s_sums), t_sum = total(t_sums);
  job->value[index] = total(terms) / t_sum - log(t_sum) + log(s_sum);
  double s_factor = scale / s_sum, t_factor = scale / t_sum;
  const double *e_s = (const double *)s, *e_t = (const double *)t;
  for (int64_t i = 0; i < n; ++i)
    slopes[i] = e_s[i] * s_factor - e_t[i] * t_factor;
}

/* Whether a row differs by rounding only. */
static int is_flat(double low, double high) {
  double magnitude = fabs(high) > fabs(low) ? fabs(high) : fabs(low);
  return high - low <= 4 * 0x1p-23 * magnitude;
}

static void pearson_row(const void *argument, int64_t index, char *scratch) {
  const pairing *job = argument;
  int64_t n = job->length, count = vectors_of(n);
  const float *student = job->student + index * n;
  const float *teacher = job->teacher + index * n;
  float *slopes = job->slopes + index * n;
  doubles *s = (doubles *)scratch, *t = s + count;
  doubles s_squares = {0}, t_squares = {0}, products = {0};
  double s_low, s_high, t_low, t_high;
  double s_mean = extremes_and_mean_float(student, n, &s_low, &s_high);
  double t_mean = extremes_and_mean_float(teacher, n, &t_low, &t_high);
  widened(student, n, student[0], s_mean, 0, s);
  widened(teacher, n, teacher[0], t_mean, 0, t);
  for (int64_t i = 0; i < count; ++i) {
    s_squares += s[i] * s[i];
    t_squares += t[i] * t[i];
    products += s[i] * t[i];
  }
  int unknown = !isfinite(s_mean) || !isfinite(t_mean);
  /* Squares rounded: as flat as it is to operations on floats. */
  int flat = is_flat(s_low, s_high) || is_flat(t_low, t_high) ||
             (float)total(s_squares) == 0 || (float)total(t_squares) == 0;
  if (unknown || flat) {
    job->value[index] = unknown ? NAN : 0;
    for (int64_t i = 0; i < n; ++i) slopes[i] = unknown ? NAN : 0;
    return;
  }
  double s_norm = sqrt(total(s_squares)), t_norm = sqrt(total(t_squares));
  double width = s_norm * t_norm + job->number;
  double value = total(products) / width;
  double share = value * t_norm / s_norm / width, scale = 1 / width;
  const double *c_s = (const double *)s, *c_t = (const double *)t;
  job->value[index] = value;
  for (int64_t i = 0; i < n; ++i) slopes[i] = c_t[i] * scale - c_s[i] * share;
}

/* log(1 + e) for e in [0, 1]: 2 atanh(z) with z = e / (2 + e) <= 1 / 3, of
 * which the first term left out is z^23 / 23 < 5e-13.
 */
INLINE doubles log1p_of_unit(doubles e) {
  doubles z = e / (2.0 + e), w = z * z;
  doubles s = 1.0 / 21.0 + 0.0 * e;
  for (int k = 19; k > 0; k -= 2) s = s * w + 1.0 / k;
  return 2.0 * z * s;
}

INLINE doubles magnitude(doubles x) { return chosen(x < 0.0, -x, x); }

/* exp -|x| is given. */
INLINE doubles sigmoid_by(doubles x, doubles e) {
  return chosen(x < 0.0, e, e * 0.0 + 1.0) / (1.0 + e);
}

static void binary_kd_row(const void *argument, int64_t index, char *scratch) {
  const pairing *job = argument;
  int64_t n = job->length, count = vectors_of(n);
  doubles *s = (doubles *)scratch, *t = s + count, sums = {0};
  float *slopes = job->slopes + index * n;
  /* Equal entries, which fill up, add 0. */
  widened(job->student + index * n, n, 0, 0, 0, s);
  widened(job->teacher + index * n, n, 0, 0, 0, t);
  for (int64_t i = 0; i < count; ++i) {
    doubles x = chosen(s[i] < job->number, (doubles){0} + job->number, s[i]);
    doubles e = exp_or_0(-magnitude(x));
    doubles q = sigmoid_by(x, e);
    doubles p = sigmoid_by(t[i], exp_or_0(-magnitude(t[i])));
    doubles d = q - p, distance = magnitude(d);
    doubles entropy = (1.0 - p) * x + chosen(x < 0.0, -x, (doubles){0}) +
                      log1p_of_unit(e);
    doubles pull = q * (1.0 - q) * entropy;
    sums += distance * entropy;
    doubles slope =
        distance * d + chosen(d < 0.0, -pull, chosen(d == 0.0, d, pull));
    s[i] = chosen(s[i] < job->number, (doubles){0}, slope);
  }
  const double *result = (const double *)s;
  job->value[index] = total(sums);
  for (int64_t i = 0; i < n; ++i) slopes[i] = result[i];
}

static int paired(row_function work, const float *student,
                  const float *teacher, float *value, float *slopes,
                  int64_t rows, int64_t length, double number,
                  int64_t threads) {
  pairing job = {student, teacher, value, slopes, length, number};
  size_t bytes = 2 * vectors_of(length) * sizeof(doubles);
  return for_each_row(work, &job, rows, bytes, threads);
}

int mmrkkd_kl_divergence(const float *student, const float *teacher,
                         float *value, float *slopes, int64_t rows,
                         int64_t length, double temperature,
                         int64_t threads) {
  return paired(kl_row, student, teacher, value, slopes, rows, length,
                temperature, threads);
}

int mmrkkd_pearson(const float *student, const float *teacher, float *value,
                   float *slopes, int64_t rows, int64_t length, double eps,
                   int64_t threads) {
  return paired(pearson_row, student, teacher, value, slopes, rows, length,
                eps, threads);
}

int mmrkkd_binary_kd(const float *student, const float *teacher, float *value,
                     float *slopes, int64_t rows, int64_t length,
                     double lowest, int64_t threads) {
  return paired(binary_kd_row, student, teacher, value, slopes, rows, length,
                lowest, threads);
}
