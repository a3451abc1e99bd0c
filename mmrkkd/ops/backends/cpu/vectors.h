/* Vectors of the widest kind that the machine has, and expm1 on them.
 *
 * The vector extensions of GCC and Clang compile on every processor. Only
 * the reciprocal is written for one: AVX-512 has an estimate good to 2^-14,
 * which one Newton step takes to 2^-28, several times faster than dividing.
 * Never compile this with -ffast-math: the rounding trick below needs the
 * additions done as they are written.
 */
#ifndef MMRKKD_VECTORS_H
#define MMRKKD_VECTORS_H

#include <stdint.h>
#ifdef __AVX512F__
#include <immintrin.h>
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t ints __attribute__((vector_size(VECTOR_BYTES)));
typedef double doubles __attribute__((vector_size(VECTOR_BYTES)));
typedef int64_t longs __attribute__((vector_size(VECTOR_BYTES)));

INLINE floats reciprocal_float(floats x) {
#ifdef __AVX512F__
  floats r = (floats)_mm512_rcp14_ps((__m512)x);
  return r + r * (1.0f - x * r);
#else
  return 1.0f / x;
#endif
}

INLINE doubles reciprocal_double(doubles x) { return 1.0 / x; }

/* expm1(y) for |y| <= 87, to about one unit in the last place of
 * max(1, exp(y)), and relative to itself near 0.
 *
 * y = n ln 2 + f with |f| <= ln(2) / 2, and
 * expm1(y) = 2^n expm1(f) + (2^n - 1). Adding 1.5 * 2^23 rounds to an integer
 * and leaves n in the lowest bits. Taylor's series of expm1(f) / f: the first
 * term left out is f^7 / 8! < 1.5e-8.
 */
INLINE floats expm1_float(floats y) {
  const float magic = 0x1.8p23f;
  floats shifted = y * 0x1.715476p0f + magic;
  floats n = shifted - magic;
  floats f = y - n * 0x1.63p-1f;
  f = f - n * -0x1.bd0106p-13f;
  floats s = 1.0f / 5040.0f + 0.0f * f;
  s = s * f + 1.0f / 720.0f;
  s = s * f + 1.0f / 120.0f;
  s = s * f + 1.0f / 24.0f;
  s = s * f + 1.0f / 6.0f;
  s = s * f + 0.5f;
  s = s * f + 1.0f;
  floats power = (floats)(((ints)shifted << 23) + 0x3f800000);
  return power * (f * s) + (power - 1.0f);
}

/* The same in double, |y| <= 700; the term left out is f^13 / 14! < 2e-17.
 * 2^n and expm1(f).
 */
INLINE doubles reduced_double(doubles y, doubles *power) {
  const double magic = 0x1.8p52;
  doubles shifted = y * 0x1.71547652b82fep0 + magic;
  doubles n = shifted - magic;
  doubles f = y - n * 0x1.62e42feep-1;
  f = f - n * 0x1.a39ef35793c76p-33;
  doubles s = 1.0 / 6227020800.0 + 0.0 * f;
  s = s * f + 1.0 / 479001600.0;
  s = s * f + 1.0 / 39916800.0;
  s = s * f + 1.0 / 3628800.0;
  s = s * f + 1.0 / 362880.0;
  s = s * f + 1.0 / 40320.0;
  s = s * f + 1.0 / 5040.0;
  s = s * f + 1.0 / 720.0;
  s = s * f + 1.0 / 120.0;
  s = s * f + 1.0 / 24.0;
  s = s * f + 1.0 / 6.0;
  s = s * f + 0.5;
  s = s * f + 1.0;
  *power = (doubles)(((longs)shifted << 52) + 0x3ff0000000000000);
  return f * s;
}

INLINE doubles expm1_double(doubles y) {
  doubles power, part = reduced_double(y, &power);
  return power * part + (power - 1.0);
}

INLINE doubles exp_double(doubles y) {
  doubles power, part = reduced_double(y, &power);
  return power * part + power;
}

/* log(x) of normal x > 0, to 1e-13 of max(1, |log x|).
 *
 * x = 2^n m with m within a root of 2 of 1, and log m = 2 atanh(z) with
 * z = (m - 1) / (m + 1), |z| < 0.172; the first term left out is
 * z^17 / 17 < 4e-14 z.
 */
INLINE doubles log_double(doubles x) {
  longs bits = (longs)x, n = (bits >> 52) - 1023;
  doubles m = (doubles)((bits & 0xfffffffffffff) | 0x3ff0000000000000);
  longs above = m > 0x1.6a09e667f3bcdp0;
  m = (doubles)((above & (longs)(0.5 * m)) | (~above & (longs)m));
  doubles z = (m - 1.0) / (m + 1.0), w = z * z, s = 1.0 / 15.0 + 0.0 * z;
  for (int k = 13; k > 0; k -= 2) s = s * w + 1.0 / k;
  /* above is -1 where it holds. */
  return __builtin_convertvector(n - above, doubles) * 0x1.62e42fefa39efp-1 +
         2.0 * z * s;
}

#endif
