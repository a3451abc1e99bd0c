/* All of mmrkkd's C code, as one unit to compile. */
#include "kendall_tau.c"
#include "pair_counts.c"
#include "soft_rank.c"
#include "standardize.c"
/* After standardize.c, whose first pass over a row it shares. */
#include "paired_rows.c"
/* After paired_rows.c, for its helpers. */
#include "surprise.c"
