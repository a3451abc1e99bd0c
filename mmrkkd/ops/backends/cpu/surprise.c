/* How unlikely a student finds a ranking, and its derivative: with s the
 * scores in the ranking's order, L_k = sum_{j >= k} exp s_j, and weights w
 *
 *   sum_k w_k (log L_k - s_k)
 *   d / d s_j = exp(s_j) sum_{k <= j} w_k / L_k - w_j
 *
 * In double, for rows whose scores differ by less than 600.
 */
#include <stdint.h>

#include "rows.h"
#include "vectors.h"

typedef struct {
  const float *scores;   /* rows x length, in the order of the classes */
  const int64_t *order;  /* rows x length: which class stands where */
  const float *weight;   /* rows x length, in the ranking's order; or NULL */
  float *value, *slopes; /* rows; rows x length, as the scores */
  int64_t length;
  double lowest; /* what scores below it are taken for: no slope */
} surprising;

static void surprise_row(const void *argument, int64_t index, char *scratch) {
  const surprising *job = argument;
  int64_t n = job->length, count = vectors_of(n), i;
  const float *scores = job->scores + index * n;
  const int64_t *order = job->order + index * n;
  const float *weight = job->weight ? job->weight + index * n : NULL;
  float *slopes = job->slopes + index * n;
  doubles *s = (doubles *)scratch, *power = s + count, *left = power + count;
  double *s_at = (double *)s, *power_at = (double *)power;
  double *left_at = (double *)left, sum = 0, value = 0;
  for (i = 0; i < n; ++i) {
    double score = scores[order[i]];
    s_at[i] = score < job->lowest ? job->lowest : score;
  }
  for (; i < count * WIDE_LANES; ++i) s_at[i] = job->lowest;
  double most = largest(s, count);
  for (i = 0; i < count; ++i) power[i] = exp_or_0(s[i] - most);
  for (i = count * WIDE_LANES - 1; i >= n; --i) left_at[i] = 1;
  for (; i >= 0; --i) left_at[i] = sum += power_at[i];
  /* power: exp(s_j); left: 1 / L_k; s: log L_k - s_k. */
  for (i = 0; i < count; ++i) {
    s[i] = log_double(left[i]) - (s[i] - most);
    left[i] = 1.0 / left[i];
  }
  sum = 0;
  for (i = 0; i < n; ++i) {
    double w = weight ? weight[i] : 1;
    value += w * s_at[i];
    sum += w * left_at[i];
    slopes[order[i]] =
        scores[order[i]] <= job->lowest ? 0 : power_at[i] * sum - w;
  }
  job->value[index] = value;
}

int mmrkkd_surprise(const float *scores, const int64_t *order,
                    const float *weight, float *value, float *slopes,
                    int64_t rows, int64_t length, double lowest,
                    int64_t threads) {
  surprising job = {scores, order, weight, value, slopes, length, lowest};
  size_t bytes = 3 * vectors_of(length) * sizeof(doubles);
  return for_each_row(surprise_row, &job, rows, bytes, threads);
}
