/* Rows shared out to threads.
 *
 * By PyTorch's own OpenMP team where there is one: its threads spin for some
 * milliseconds after each operation, and others would have to share the
 * cores with them. The entry point is handed in, since a second OpenMP
 * runtime, linked here, would have a team of its own.
 *
 * Otherwise, and in a forked child, by threads that live for one call: an
 * OpenMP team does not survive fork(), and using it there hangs. The caller
 * then works too, and waits only for rows that another thread has taken, not
 * for the threads: on a busy machine one may not get to run before all rows
 * are done. It finds nothing to do, and the last to leave frees what they
 * share.
 */
#ifndef MMRKKD_ROWS_H
#define MMRKKD_ROWS_H

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#define MAX_THREADS 256

/* GOMP_parallel: runs a function in every thread of a team, and waits. */
typedef void (*openmp_entry)(void (*function)(void *), void *argument,
                             unsigned threads, unsigned flags);

static openmp_entry openmp_parallel = NULL;

/* NULL stops its use. */
void mmrkkd_use_openmp(openmp_entry entry) { openmp_parallel = entry; }

/* Works on one row; scratch belongs to the thread. */
typedef void (*row_function)(const void *job, int64_t row, char *scratch);

typedef struct {
  row_function work;
  const void *job; /* the caller's: not to be touched once no row is left */
  int64_t rows;
  int64_t rows_at_once;
  size_t scratch_bytes;
  int64_t next_row;  /* atomic */
  int64_t rows_done; /* atomic */
  int64_t holders;   /* atomic: threads that may still look at this */
  pthread_mutex_t lock;
  pthread_cond_t done;
} shared_rows;

static void leave_rows(shared_rows *shared) {
  if (__atomic_sub_fetch(&shared->holders, 1, __ATOMIC_ACQ_REL)) return;
  pthread_cond_destroy(&shared->done);
  pthread_mutex_destroy(&shared->lock);
  free(shared);
}

static void work_on_rows(shared_rows *shared, char *scratch) {
  for (;;) {
    int64_t first = __atomic_fetch_add(&shared->next_row, shared->rows_at_once,
                                       __ATOMIC_RELAXED);
    if (first >= shared->rows) return;
    int64_t last = first + shared->rows_at_once;
    if (last > shared->rows) last = shared->rows;
    for (int64_t row = first; row < last; ++row)
      shared->work(shared->job, row, scratch);
    if (__atomic_add_fetch(&shared->rows_done, last - first,
                           __ATOMIC_ACQ_REL) == shared->rows) {
      pthread_mutex_lock(&shared->lock);
      pthread_cond_signal(&shared->done);
      pthread_mutex_unlock(&shared->lock);
    }
  }
}

/* 64: the alignment that the widest vectors need. */
static char *new_scratch(size_t bytes) {
  void *scratch = NULL;
  return posix_memalign(&scratch, 64, bytes + 64) ? NULL : scratch;
}

static void *helping_thread(void *argument) {
  shared_rows *shared = argument;
  /* Without memory it leaves all rows to the others. */
  char *scratch = new_scratch(shared->scratch_bytes);
  if (scratch) work_on_rows(shared, scratch);
  free(scratch);
  leave_rows(shared);
  return NULL;
}

static void openmp_thread(void *argument) {
  shared_rows *shared = argument;
  char *scratch = new_scratch(shared->scratch_bytes);
  if (scratch) work_on_rows(shared, scratch);
  free(scratch);
}

static void start_helpers(shared_rows *shared, int64_t count) {
  pthread_attr_t attributes;
  pthread_t thread;
  if (count < 1 || pthread_attr_init(&attributes)) return;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  for (; count > 0; --count) {
    __atomic_add_fetch(&shared->holders, 1, __ATOMIC_ACQ_REL);
    if (pthread_create(&thread, &attributes, helping_thread, shared)) {
      __atomic_sub_fetch(&shared->holders, 1, __ATOMIC_ACQ_REL);
      break;
    }
  }
  pthread_attr_destroy(&attributes);
}

/* Returns 0, or 1 if the rows could not be done for want of memory. */
static int for_each_row(row_function work, const void *job, int64_t rows,
                        size_t scratch_bytes, int64_t threads) {
  if (threads > rows) threads = rows;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  if (threads < 1) threads = 1;
  char *scratch = new_scratch(scratch_bytes);
  shared_rows *shared = calloc(1, sizeof *shared);
  if (!scratch || !shared) {
    free(scratch);
    free(shared);
    return 1;
  }
  shared->work = work;
  shared->job = job;
  shared->rows = rows;
  shared->rows_at_once = rows / (8 * threads) + 1;
  shared->scratch_bytes = scratch_bytes;
  shared->holders = 1;
  pthread_mutex_init(&shared->lock, NULL);
  pthread_cond_init(&shared->done, NULL);
  openmp_entry openmp = openmp_parallel;
  if (threads > 1 && openmp)
    openmp(openmp_thread, shared, threads, 0);
  else
    start_helpers(shared, threads - 1);
  /* All of them, or what a team without memory has left. */
  work_on_rows(shared, scratch);
  free(scratch);
  pthread_mutex_lock(&shared->lock);
  while (__atomic_load_n(&shared->rows_done, __ATOMIC_ACQUIRE) < rows)
    pthread_cond_wait(&shared->done, &shared->lock);
  pthread_mutex_unlock(&shared->lock);
  leave_rows(shared);
  return 0;
}

#endif
