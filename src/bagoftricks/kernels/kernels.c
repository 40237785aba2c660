/* Kernels for training on x86 CPUs with bf16 units: what a ResNet's step spends beside its convolutions in one or two
 * passes over memory each, and the gradients of convolutions' weights on AMX tiles.
 *
 * All images are bf16, channels last: R rows (one for each image and position) of C channels, C a multiple of 32.
 * Arithmetic is in float, sums over rows are gathered in double. Rows are split among threads in fixed parts, so that
 * the same number of threads gives the same bits.
 *
 * Built by build.py with the machine's C compiler; functional.py calls what is exported here. Every function returns 0,
 * or 1 where memory is short.
 */
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t bf16;

#define LANES 32 /* channels of one vector */
#define ROWS 8   /* rows whose sums stay in registers together */
#define LARGE (16 << 20) /* bytes of an output, above which no cache is likely to keep it until it is read */

/* Asks for the same channels of the next ROWS rows: those of one row are too few for the processor to foresee them. */
#define SOON(at) _mm_prefetch((const char *)((at) + (int64_t)ROWS * C), _MM_HINT_T0)

/* The two halves of a vector of bf16 as floats: even channels, then odd ones. Parameters are laid out so, too. */
static inline __m512 even(__m512i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); }
static inline __m512 odd(__m512i v) { return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(0xffff0000))); }

static inline __m512i zip_index(void) {
  uint16_t index[LANES];
  for (int i = 0; i < LANES / 2; i++) index[2 * i] = i, index[2 * i + 1] = LANES / 2 + i;
  return _mm512_loadu_si512(index);
}
static inline __m512i zip(__m512 evens, __m512 odds, __m512i index) { /* to bf16, to nearest, ties to even */
  return _mm512_permutexvar_epi16(index, (__m512i)_mm512_cvtne2ps_pbh(odds, evens));
}

/* What ReLU lets through of a gradient: nothing where factor x + shift, computed as in the forward pass, is not above 0. */
static inline __m512 passed(__m512 g, __m512 x, __m512 factor, __m512 shift) {
  __m512 y = _mm512_fmadd_ps(x, factor, shift);
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_GT_OQ), g);
}

static inline void put(bf16 *at, __m512i v, int past) { /* past the caches if asked, which then read nothing before */
  if (past) _mm512_stream_si512((void *)at, v);
  else _mm512_storeu_si512(at, v);
}

static int place(int c) { return (c & ~(LANES - 1)) + (c % 2) * (LANES / 2) + (c % LANES) / 2; } /* of a channel */

static void *memory(size_t bytes) { return aligned_alloc(64, (bytes + 63) & ~(size_t)63); }

static int is_large(int64_t size, const bf16 *a, const bf16 *b) { /* and both lie as streaming needs them; NULL does */
  return size * (int64_t)sizeof(bf16) > LARGE && (((uintptr_t)a | (uintptr_t)b) & 63) == 0;
}

static int64_t part(int64_t total, int thread, int threads) { return total * thread / threads; }

/* Batch-norm of a batch, the addition of a shortcut (or NULL) and ReLU (if asked for):
 * y = relu(gamma (x - mean) / sqrt(var + eps) + beta + shortcut), var over R; running_var takes the one over R - 1
 * (Ioffe and Szegedy 2015, arXiv:1502.03167). running_* may be NULL. Out: y, mean and 1 / sqrt(var + eps). */
int bot_norm_forward(const bf16 *x, const bf16 *shortcut, const float *gamma, const float *beta, float *running_mean,
                     float *running_var, float momentum, float eps, int relu, bf16 *y, float *mean, float *inverse,
                     int64_t R, int C, int threads) {
  double *sums = memory((size_t)threads * 2 * C * sizeof(double));
  float *scratch = memory((size_t)(3 + 2 * threads) * C * sizeof(float));
  if (!sums || !scratch) { free(sums); free(scratch); return 1; }
  float *pivot = scratch, *factor = scratch + C, *shift = scratch + 2 * C;
  for (int c = 0; c < C; c += LANES) { /* the first row: sums of differences from it lose no digits */
    __m512i v = _mm512_loadu_si512(x + c);
    _mm512_storeu_ps(pivot + c, even(v));
    _mm512_storeu_ps(pivot + c + 16, odd(v));
  }
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    double *sum = sums + (size_t)t * 2 * C;
    float *one = scratch + (size_t)(3 + 2 * t) * C, *two = one + C;
    memset(sum, 0, 2 * C * sizeof(double));
    int64_t r = part(R, t, threads), end = part(R, t + 1, threads);
    while (r < end) { /* a stretch of rows in float, then into the doubles */
      int64_t stop = r + 256 < end ? r + 256 : end;
      memset(one, 0, 2 * C * sizeof(float));
      for (; r < stop; r += ROWS) {
        int rows = stop - r < ROWS ? (int)(stop - r) : ROWS;
        for (int c = 0; c < C; c += LANES) {
          __m512 p0 = _mm512_loadu_ps(pivot + c), p1 = _mm512_loadu_ps(pivot + c + 16);
          __m512 a0 = _mm512_loadu_ps(one + c), a1 = _mm512_loadu_ps(one + c + 16);
          __m512 b0 = _mm512_loadu_ps(two + c), b1 = _mm512_loadu_ps(two + c + 16);
          for (int i = 0; i < rows; i++) {
            __m512i v = _mm512_loadu_si512(x + (r + i) * C + c);
            SOON(x + (r + i) * C + c);
            __m512 v0 = _mm512_sub_ps(even(v), p0), v1 = _mm512_sub_ps(odd(v), p1);
            a0 = _mm512_add_ps(a0, v0), a1 = _mm512_add_ps(a1, v1);
            b0 = _mm512_fmadd_ps(v0, v0, b0), b1 = _mm512_fmadd_ps(v1, v1, b1);
          }
          _mm512_storeu_ps(one + c, a0), _mm512_storeu_ps(one + c + 16, a1);
          _mm512_storeu_ps(two + c, b0), _mm512_storeu_ps(two + c + 16, b1);
        }
      }
      r = stop;
      for (int c = 0; c < 2 * C; c++) sum[c] += one[c];
    }
  }
  for (int c = 0; c < C; c++) {
    int i = place(c);
    double total = 0, square = 0;
    for (int t = 0; t < threads; t++) total += sums[(size_t)t * 2 * C + i], square += sums[(size_t)t * 2 * C + C + i];
    double away = total / R, var = square / R - away * away;
    if (var < 0) var = 0; /* by rounding; NaN stays */
    double middle = pivot[i] + away, by = 1 / sqrt(var + eps);
    mean[c] = (float)middle, inverse[c] = (float)by;
    if (running_mean) {
      running_mean[c] = (float)((1 - momentum) * running_mean[c] + momentum * middle);
      running_var[c] = (float)((1 - momentum) * running_var[c] + momentum * var * ((double)R / (R > 1 ? R - 1 : 1)));
    }
    factor[i] = gamma[c] * inverse[c];
    shift[i] = beta[c] - mean[c] * factor[i];
  }
  __m512i index = zip_index();
  int past = is_large(R * C, y, y);
  __m512 floor = _mm512_set1_ps(relu ? 0.0f : -INFINITY);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    int64_t at = part(R, t, threads) * C, end = part(R, t + 1, threads) * C;
    while (at < end) {
      for (int c = 0; c < C; c += LANES, at += LANES) {
        __m512 f0 = _mm512_loadu_ps(factor + c), f1 = _mm512_loadu_ps(factor + c + 16);
        __m512 s0 = _mm512_loadu_ps(shift + c), s1 = _mm512_loadu_ps(shift + c + 16);
        __m512i v = _mm512_loadu_si512(x + at);
        __m512 v0 = _mm512_fmadd_ps(even(v), f0, s0), v1 = _mm512_fmadd_ps(odd(v), f1, s1);
        if (shortcut) {
          __m512i w = _mm512_loadu_si512(shortcut + at);
          v0 = _mm512_add_ps(v0, even(w)), v1 = _mm512_add_ps(v1, odd(w));
        }
        v0 = _mm512_max_ps(floor, v0), v1 = _mm512_max_ps(floor, v1); /* the second operand where it is NaN */
        put(y + at, zip(v0, v1, index), past);
      }
    }
    _mm_sfence();
  }
  free(sums);
  free(scratch);
  return 0;
}

/* The gradients of the above, from that of y (dy): dz is the gradient before ReLU,
 * dx = gamma inverse (dz - mean(dz) - xhat mean(dz xhat)), dgamma = sum(dz xhat), dbeta = sum(dz).
 * Where y is given ReLU passes what is positive in it, and dz is written (it is the shortcut's gradient); otherwise
 * it is told from x again, and dz may be NULL. */
int bot_norm_backward(const bf16 *dy, const bf16 *x, const bf16 *y, const float *gamma,
                      const float *beta, const float *mean, const float *inverse, int relu, bf16 *dz, bf16 *dx,
                      float *dgamma, float *dbeta, int64_t R, int C, int threads) {
  double *sums = memory((size_t)threads * 2 * C * sizeof(double));
  float *scratch = memory((size_t)(5 + 2 * threads) * C * sizeof(float));
  if (!sums || !scratch) { free(sums); free(scratch); return 1; }
  float *middle = scratch, *factor = scratch + C, *shift = scratch + 2 * C;
  float *by_x = scratch + 3 * C, *rest = scratch + 4 * C;
  for (int c = 0; c < C; c++) {
    int i = place(c);
    middle[i] = mean[c], factor[i] = gamma[c] * inverse[c], shift[i] = beta[c] - mean[c] * factor[i];
  }
  __m512i index = zip_index(), nothing = _mm512_setzero_si512();
  int from_x = relu && !y, past = is_large(R * C, dx, dz);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    double *sum = sums + (size_t)t * 2 * C;
    float *one = scratch + (size_t)(5 + 2 * t) * C, *two = one + C;
    memset(sum, 0, 2 * C * sizeof(double));
    int64_t r = part(R, t, threads), end = part(R, t + 1, threads);
    while (r < end) {
      int64_t stop = r + 256 < end ? r + 256 : end;
      memset(one, 0, 2 * C * sizeof(float));
      for (; r < stop; r += ROWS) {
        int rows = stop - r < ROWS ? (int)(stop - r) : ROWS;
        for (int c = 0; c < C; c += LANES) {
          __m512 m0 = _mm512_loadu_ps(middle + c), m1 = _mm512_loadu_ps(middle + c + 16);
          __m512 f0 = _mm512_loadu_ps(factor + c), f1 = _mm512_loadu_ps(factor + c + 16);
          __m512 s0 = _mm512_loadu_ps(shift + c), s1 = _mm512_loadu_ps(shift + c + 16);
          __m512 a0 = _mm512_loadu_ps(one + c), a1 = _mm512_loadu_ps(one + c + 16);
          __m512 b0 = _mm512_loadu_ps(two + c), b1 = _mm512_loadu_ps(two + c + 16);
          for (int i = 0; i < rows; i++) {
            int64_t at = (r + i) * C + c;
            __m512i v = _mm512_loadu_si512(x + at), g = _mm512_loadu_si512(dy + at);
            SOON(x + at), SOON(dy + at);
            __m512 x0 = even(v), x1 = odd(v), g0 = even(g), g1 = odd(g);
            if (from_x) g0 = passed(g0, x0, f0, s0), g1 = passed(g1, x1, f1, s1);
            if (y) {
              SOON(y + at);
              __mmask32 on = _mm512_cmpgt_epi16_mask(_mm512_loadu_si512(y + at), nothing); /* signs are bf16's own */
              __m512i z = _mm512_maskz_mov_epi16(on, g);
              put(dz + at, z, past);
              g0 = even(z), g1 = odd(z);
            }
            a0 = _mm512_add_ps(a0, g0), a1 = _mm512_add_ps(a1, g1);
            b0 = _mm512_fmadd_ps(g0, _mm512_sub_ps(x0, m0), b0), b1 = _mm512_fmadd_ps(g1, _mm512_sub_ps(x1, m1), b1);
          }
          _mm512_storeu_ps(one + c, a0), _mm512_storeu_ps(one + c + 16, a1);
          _mm512_storeu_ps(two + c, b0), _mm512_storeu_ps(two + c + 16, b1);
        }
      }
      r = stop;
      for (int c = 0; c < 2 * C; c++) sum[c] += one[c];
    }
    _mm_sfence();
  }
  for (int c = 0; c < C; c++) {
    int i = place(c);
    double total = 0, product = 0;
    for (int t = 0; t < threads; t++) total += sums[(size_t)t * 2 * C + i], product += sums[(size_t)t * 2 * C + C + i];
    dbeta[c] = (float)total;
    dgamma[c] = (float)(product * inverse[c]);
    by_x[i] = (float)(-factor[i] * inverse[c] * inverse[c] * product / R);
    rest[i] = (float)(-factor[i] * total / R);
  }
  const bf16 *given = y ? dz : dy;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    int64_t at = part(R, t, threads) * C, end = part(R, t + 1, threads) * C;
    while (at < end) {
      for (int c = 0; c < C; c += LANES, at += LANES) {
        __m512 m0 = _mm512_loadu_ps(middle + c), m1 = _mm512_loadu_ps(middle + c + 16);
        __m512 f0 = _mm512_loadu_ps(factor + c), f1 = _mm512_loadu_ps(factor + c + 16);
        __m512 s0 = _mm512_loadu_ps(shift + c), s1 = _mm512_loadu_ps(shift + c + 16);
        __m512 d0 = _mm512_loadu_ps(by_x + c), d1 = _mm512_loadu_ps(by_x + c + 16);
        __m512 e0 = _mm512_loadu_ps(rest + c), e1 = _mm512_loadu_ps(rest + c + 16);
        __m512i v = _mm512_loadu_si512(x + at), g = _mm512_loadu_si512(given + at);
        __m512 x0 = even(v), x1 = odd(v), g0 = even(g), g1 = odd(g);
        if (from_x) g0 = passed(g0, x0, f0, s0), g1 = passed(g1, x1, f1, s1);
        g0 = _mm512_fmadd_ps(g0, f0, _mm512_fmadd_ps(_mm512_sub_ps(x0, m0), d0, e0));
        g1 = _mm512_fmadd_ps(g1, f1, _mm512_fmadd_ps(_mm512_sub_ps(x1, m1), d1, e1));
        put(dx + at, zip(g0, g1, index), past);
      }
    }
    _mm_sfence();
  }
  free(sums);
  free(scratch);
  return 0;
}

/* The gradient of a convolution's weights on AMX tiles: dw[oc][tap][ic] = sum over positions p of
 * dy[p][oc] x[where tap falls at p][ic], in float.
 *
 * Positions are taken in blocks of KB. dy's block is laid out once as left tiles (16 output channels x 32 positions,
 * transposed); for each tap and 32 input channels x's is laid out as right tiles (16 pairs of positions x 16 channels),
 * and all output channels are gone through while it lies in the nearest cache. */
#if defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

typedef struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } tiles_t;

int bot_tiles_allowed(void) { /* the kernel must be asked once in a process: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

static void left_tile(const bf16 *dy, int64_t C, int64_t valid, bf16 *out) { /* 32 positions x 16 channels, transposed */
  static const bf16 none[LANES] = {0};
  __m512i a[16], b[16];
  for (int j = 0; j < 16; j++) { /* dwords: two positions of a channel */
    __m256i lo = _mm256_loadu_si256((const void *)(2 * j < valid ? dy + 2 * j * C : none));
    __m256i hi = _mm256_loadu_si256((const void *)(2 * j + 1 < valid ? dy + (2 * j + 1) * C : none));
    a[j] = _mm512_or_si512(_mm512_cvtepu16_epi32(lo), _mm512_slli_epi32(_mm512_cvtepu16_epi32(hi), 16));
  }
  for (int j = 0; j < 16; j += 2) b[j] = _mm512_unpacklo_epi32(a[j], a[j + 1]), b[j + 1] = _mm512_unpackhi_epi32(a[j], a[j + 1]);
  for (int j = 0; j < 16; j += 4) {
    a[j] = _mm512_unpacklo_epi64(b[j], b[j + 2]), a[j + 1] = _mm512_unpackhi_epi64(b[j], b[j + 2]);
    a[j + 2] = _mm512_unpacklo_epi64(b[j + 1], b[j + 3]), a[j + 3] = _mm512_unpackhi_epi64(b[j + 1], b[j + 3]);
  }
  for (int j = 0; j < 4; j++) {
    b[j] = _mm512_shuffle_i32x4(a[j], a[j + 4], 0x88), b[j + 4] = _mm512_shuffle_i32x4(a[j], a[j + 4], 0xdd);
    b[j + 8] = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0x88), b[j + 12] = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0xdd);
  }
  for (int j = 0; j < 8; j++) {
    /* b[j] holds rows of lanes 0, 2 (j < 4) or 1, 3 of the first eight pairs, b[j + 8] of the others */
    a[j] = _mm512_shuffle_i32x4(b[j], b[j + 8], 0x88), a[j + 8] = _mm512_shuffle_i32x4(b[j], b[j + 8], 0xdd);
  }
  for (int j = 0; j < 16; j++) _mm512_storeu_si512(out + j * 32, a[j]);
}

int bot_weight_gradient(const bf16 *x, const bf16 *dy, float *dw, int64_t N, int H, int W, int IC, int OH, int OW,
                        int OC, int KH, int KW, int stride, int pad, int KB, int threads) {
  int64_t P = N * OH * OW, blocks = (P + KB - 1) / KB;
  int taps = KH * KW, columns = taps * IC, units = taps * (IC / 32);
  int depth = threads < 4 ? threads : 4; /* groups that share out the positions; in a group, taps and channels */
  if (depth > blocks) depth = (int)blocks;
  while (threads % depth) depth--;
  int wide = threads / depth;
  float *sums = memory((size_t)depth * OC * columns * sizeof(float));
  size_t each = (size_t)OC * KB + (size_t)32 * KB + 4 * (size_t)KB * sizeof(int32_t) + 2 * KB * sizeof(void *);
  char *work = memory(threads * ((each * 2 + 4095) & ~(size_t)4095));
  if (!sums || !work) { free(sums); free(work); return 1; }
  static const bf16 none[4096] = {0};
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    int group = t / wide, member = t % wide;
    char *own = work + t * ((each * 2 + 4095) & ~(size_t)4095);
    bf16 *left = (bf16 *)own, *right = left + (size_t)OC * KB;
    const bf16 **source = (const bf16 **)(right + (size_t)32 * KB);
    int32_t *rows = (int32_t *)(source + KB), *cols = rows + KB;
    int64_t *image = (int64_t *)(cols + KB);
    float *sum = sums + (size_t)group * OC * columns;
    tiles_t before, ours = {.palette = 1};
    for (int i = 0; i < 8; i++) ours.bytes[i] = 64, ours.rows[i] = 16;
    __asm__ volatile("" ::: "memory"); /* the intrinsics do not tell the compiler what they read */
    _tile_storeconfig(&before);
    _tile_loadconfig(&ours);
    int64_t first = part(blocks, group, depth), last = part(blocks, group + 1, depth);
    for (int64_t block = first; block < last; block++) {
      int64_t p0 = block * KB, count = P - p0 < KB ? P - p0 : KB;
      int chunks = (int)((count + 31) / 32);
      for (int chunk = 0; chunk < chunks; chunk++)
        for (int oc = 0; oc < OC; oc += 16)
          left_tile(dy + (p0 + chunk * 32) * OC + oc, OC, count - chunk * 32, left + ((size_t)(oc / 16) * chunks + chunk) * 512);
      for (int64_t k = 0; k < count; k++) {
        int64_t p = p0 + k;
        image[k] = p / (OH * OW) * H * W;
        rows[k] = (int32_t)(p / OW % OH) * stride - pad;
        cols[k] = (int32_t)(p % OW) * stride - pad;
      }
      int tap_before = -1;
      for (int unit = (int)part(units, member, wide); unit < part(units, member + 1, wide); unit++) {
        int tap = unit / (IC / 32), ic = unit % (IC / 32) * 32;
        if (tap != tap_before) {
          int kh = tap / KW, kw = tap % KW;
          for (int k = 0; k < chunks * 32; k++) {
            source[k] = none;
            if (k >= count) continue;
            int ih = rows[k] + kh, iw = cols[k] + kw;
            if (ih >= 0 && ih < H && iw >= 0 && iw < W) source[k] = x + (image[k] + (int64_t)ih * W + iw) * IC;
          }
          tap_before = tap;
        }
        for (int chunk = 0; chunk < chunks; chunk++) { /* channels in the order that unpacking gives: mended at the end */
          bf16 *to = right + (size_t)chunk * 1024;
          for (int j = 0; j < 16; j++) {
            __m512i a = _mm512_loadu_si512(source[chunk * 32 + 2 * j] + ic), b = _mm512_loadu_si512(source[chunk * 32 + 2 * j + 1] + ic);
            _mm512_store_si512(to + j * 32, _mm512_unpacklo_epi16(a, b));
            _mm512_store_si512(to + 512 + j * 32, _mm512_unpackhi_epi16(a, b));
          }
        }
        __asm__ volatile("" ::: "memory");
        for (int oc = 0; oc < OC; oc += 32) {
          float *c = sum + (size_t)oc * columns + tap * IC + ic;
          size_t line = (size_t)columns * sizeof(float);
          if (block == first) {
            _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
          } else {
            _tile_loadd(0, c, line); _tile_loadd(1, c + 16, line);
            _tile_loadd(2, c + (size_t)16 * columns, line); _tile_loadd(3, c + (size_t)16 * columns + 16, line);
          }
          const bf16 *l0 = left + (size_t)(oc / 16) * chunks * 512, *l1 = l0 + (size_t)chunks * 512, *r = right;
          for (int chunk = 0; chunk < chunks; chunk++, l0 += 512, l1 += 512, r += 1024) {
            _tile_loadd(4, l0, 64); _tile_loadd(6, r, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, r + 512, 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, l1, 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
          }
          _tile_stored(0, c, line); _tile_stored(1, c + 16, line);
          _tile_stored(2, c + (size_t)16 * columns, line); _tile_stored(3, c + (size_t)16 * columns + 16, line);
        }
      }
    }
    if (before.palette) _tile_loadconfig(&before); else _tile_release();
  }
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    int64_t end = part((int64_t)OC * columns / 32, t + 1, threads);
    __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    for (int64_t i = part((int64_t)OC * columns / 32, t, threads); i < end; i++) {
      __m512 lo = _mm512_setzero_ps(), hi = _mm512_setzero_ps();
      for (int group = 0; group < depth; group++) {
        const float *from = sums + (size_t)group * OC * columns + i * 32;
        lo = _mm512_add_ps(lo, _mm512_loadu_ps(from)), hi = _mm512_add_ps(hi, _mm512_loadu_ps(from + 16));
      }
      _mm512_storeu_pd(dw + i * 32, _mm512_permutex2var_pd(_mm512_castps_pd(lo), first, _mm512_castps_pd(hi)));
      _mm512_storeu_pd(dw + i * 32 + 16, _mm512_permutex2var_pd(_mm512_castps_pd(lo), second, _mm512_castps_pd(hi)));
    }
  }
  free(sums);
  free(work);
  return 0;
}
#else
int bot_tiles_allowed(void) { return 0; }
#endif
