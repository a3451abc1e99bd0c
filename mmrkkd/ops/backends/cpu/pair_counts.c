/* How many pairs of a row agree, and how many are untied on each side. */
#include <stdint.h>

#include "rows.h"
#include "vectors.h"

typedef struct {
  const float *student, *teacher; /* rows x classes */
  int64_t *counts;                /* rows x 3 */
  int64_t classes;
} count_job;

/* -1, 0 or 1 in each lane. A comparison, not a difference: two close numbers
 * may differ by less than the smallest float. With NaN it is 0. */
INLINE ints signs(float i, floats j) { return (i < j) - (i > j); }

static void count_row(const void *argument, int64_t index, char *scratch) {
  const count_job *job = argument;
  const int lanes = VECTOR_BYTES / sizeof(float);
  const float *student = job->student + index * job->classes;
  const float *teacher = job->teacher + index * job->classes;
  int64_t agreement = 0, student_untied = 0, teacher_untied = 0;
  (void)scratch;
  for (int64_t i = 0; i < job->classes; ++i) {
    ints agree = {0}, student_differs = {0}, teacher_differs = {0};
    int64_t j = i + 1;
    for (; j + lanes <= job->classes; j += lanes) {
      floats student_j, teacher_j;
      __builtin_memcpy(&student_j, student + j, sizeof student_j);
      __builtin_memcpy(&teacher_j, teacher + j, sizeof teacher_j);
      ints s = signs(student[i], student_j), t = signs(teacher[i], teacher_j);
      agree += s * t;
      student_differs += s * s;
      teacher_differs += t * t;
    }
    for (int lane = 0; lane < lanes; ++lane) {
      agreement += agree[lane];
      student_untied += student_differs[lane];
      teacher_untied += teacher_differs[lane];
    }
    for (; j < job->classes; ++j) {
      int s = (student[i] > student[j]) - (student[i] < student[j]);
      int t = (teacher[i] > teacher[j]) - (teacher[i] < teacher[j]);
      agreement += s * t;
      student_untied += s * s;
      teacher_untied += t * t;
    }
  }
  job->counts[3 * index] = agreement;
  job->counts[3 * index + 1] = student_untied;
  job->counts[3 * index + 2] = teacher_untied;
}

/* Concordant minus discordant pairs, pairs untied in the student, and pairs
 * untied in the teacher, of each row. */
int mmrkkd_pair_counts(const float *student, const float *teacher,
                       int64_t *counts, int64_t rows, int64_t classes,
                       int64_t threads) {
  count_job job = {student, teacher, counts, classes};
  return for_each_row(count_row, &job, rows, 64, threads);
}
