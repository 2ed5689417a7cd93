// proto_engine: every native entry point, in one page.
//
// No Python and no torch below this line: plain pointers, 64-bit sizes, caller-owned memory.
// Letters: m rows of dimension d, C classes. S_ij is the cosine similarity of rows i and j.
//
// Two kinds of similarity appear everywhere:
//   s32  a float32 matrix product of unit rows, fast, within error_bound(d) of S_ij;
//   S    the pinned float64 value: sum of products, block after block of 256, each in eight strided lanes
//        folded pairwise, divided by sqrt(q_i * q_j), where q is the same sum of a row with itself.
// S is the definition. s32 only decides what it can decide for certain; the rest is looked up in S.
// That is why results do not depend on threads, tiles, BLAS or instruction set.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

namespace proto_engine {

enum class DType : int32_t { kFloat16 = 0, kBFloat16 = 1, kFloat32 = 2, kFloat64 = 3 };

// A row-major matrix as stored by the caller; consecutive elements in a row, `stride` elements
// from one row to the next.
struct Rows {
  const void* data;
  int64_t count;   // m
  int64_t dim;     // d
  int64_t stride;  // >= d
  DType dtype;
};

// How to run: number of worker threads, and a poll that the calling thread makes now and then
// while it waits; when it returns true the work stops at the next tile and Interrupted is thrown.
struct Execution {
  int num_threads = 1;
  std::function<bool()> poll;
};
struct Interrupted {};

// Level-3 BLAS, Fortran interface (column major): C = alpha op(A) op(B) + beta C, and one triangle of
// C = alpha op(A) op(A)^T + beta C.
using SgemmFunction = void (*)(char* transa, char* transb, int* m, int* n, int* k, float* alpha, float* a, int* lda,
                               float* b, int* ldb, float* beta, float* c, int* ldc);
using SsyrkFunction = void (*)(char* uplo, char* trans, int* n, int* k, float* alpha, float* a, int* lda, float* beta,
                               float* c, int* ldc);
void set_blas(SgemmFunction sgemm, SsyrkFunction ssyrk);

// The instruction set that the vector loops were chosen for: "avx512", "avx2" or "baseline".
const char* instruction_set();
// Restrict the choice, for tests; false when this machine does not have it.
bool use_instruction_set(const char* name);

// ---- normalize ------------------------------------------------------------------------------
// squares[i] = q_i, the pinned sum of squares of row i.                     squares: [m] float64
void squared_norms(const Rows& x, double* squares, const Execution& run);
// unit[i] = float32(x_i / sqrt(q_i)).                                       unit:    [m, d] float32
void normalize(const Rows& x, const double* squares, float* unit, const Execution& run);

// ---- similarity -----------------------------------------------------------------------------
// out[t] = S(first[t], second[t]).                                          out:     [n] float64
void pair_similarity(const Rows& x, const double* squares, const int64_t* first, const int64_t* second, int64_t n,
                     double* out, const Execution& run);
// out = s32 of all pairs, both triangles, unit diagonal.                    out:     [m, m] float32
void similarity(const float* unit, int64_t m, int64_t d, int64_t tile, float* out, const Execution& run);

// ---- cutoff and density ---------------------------------------------------------------------
// Each of these visits each unordered pair i < j once; the diagonal is the caller's (S_ii = 1).

// One pair inside a bracket.
struct PairEntry {
  int32_t row, column;
  float s32;
};

// One list a worker, in no particular order. A deque grows without moving what it holds, and gives its
// memory back from the front while it is read: a list is never in memory twice.
using PairLists = std::vector<std::deque<PairEntry>>;

// above[i] = #{j != i : s32 > hi}; every pair with lo <= s32 <= hi is appended to `inside` as long
// as there are no more than `capacity`. Returns how many there were.         above:   [m] int64
int64_t count_bracket(const float* unit, int64_t m, int64_t d, float lo, float hi, int64_t capacity, int64_t tile,
                      int64_t* above, PairLists* inside, const Execution& run);

// The same, counted by the class of j: above[i, c] = #{j != i of class c : s32 > hi}. Rows lie class after class, of
// class c offsets[c] to offsets[c + 1].                                     above:   [m, C] int32
int64_t count_bracket_by_class(const float* unit, int64_t m, int64_t d, const int64_t* offsets, int64_t num_classes,
                               float lo, float hi, int64_t capacity, int64_t tile, int32_t* above, PairLists* inside,
                               const Execution& run);

// Pairs of S in [lo, hi], counted in `bins` equal bins with the least and greatest S of each bin;
// returns the number of pairs with S < lo.            count: [bins] int64, least, most: [bins] float64
int64_t histogram(const Rows& x, const double* squares, const float* unit, double lo, double hi, double bound,
                  int64_t bins, int64_t tile, int64_t* count, double* least, double* most, const Execution& run);

// above[i] = #{j != i : S_ij > cutoff}, below[i] = #{j != i : S_ij < cutoff}.   [m] int64 each
void count_threshold(const Rows& x, const double* squares, const float* unit, double cutoff, double bound,
                     int64_t tile, int64_t* above, int64_t* below, const Execution& run);
// above[i, c] = #{j != i of class c : S_ij > cutoff}.                          above:   [m, C] int32
void count_threshold_by_class(const Rows& x, const double* squares, const float* unit, const int64_t* offsets,
                              int64_t num_classes, double cutoff, double bound, int64_t tile, int32_t* above,
                              const Execution& run);

// ---- eta ------------------------------------------------------------------------------------
// For the n rows listed: eta[t] = max of S(rows[t], order[k]) over k < limit[t], or, where
// smallest[t] != 0, the min over the same range. order: [m], each row once; limit[t] <= m.
//                                                                             eta:     [n] float64
void extreme_similarity(const Rows& x, const double* squares, const float* unit, const int64_t* order,
                        const int64_t* rows, const int64_t* limit, const uint8_t* smallest, int64_t n, double bound,
                        double* eta, const Execution& run);

// ---- score ----------------------------------------------------------------------------------
// folded: [C, d] float64, the mean of the unit prototypes of each class; sigma_c(x) = x_hat . folded_c.
// Rows whose q is zero or not finite get label -1 and NaN scores.

// sigma[i, c] as s32.                                                         sigma:   [m, C] float32
void score(const Rows& x, const double* folded, int64_t num_classes, float* sigma, const Execution& run);
// The best class (ties to the lower index), its score, and the best score among the others
// (-infinity when C = 1), in the pinned float64 arithmetic.  label [m] int64, best, second [m] float64
void score_top2(const Rows& x, const double* folded, int64_t num_classes, double bound, int64_t* label, double* best,
                double* second, const Execution& run);

}  // namespace proto_engine
