// The innermost loops, compiled once per instruction set (vector_loops.cpp) and picked at run time.
// Every variant returns the same bits: additions happen in one fixed order and nothing is contracted.
#pragma once

#include <cstdint>

#include "proto_engine.h"

namespace proto_engine {

// Two largest of a row, and where a value comes within reach of the second.
struct Top2 {
  float first, second;
};

struct VectorLoops {
  const char* name;

  // Sums over k, block after block of 256, in eight strided float64 lanes, folded pairwise; `dtype` is the element
  // type of a, and of b where it is untyped. Four sums at once hide the latency of the additions.
  // out[t] = sum_k a[t][k]^2, t < 4.
  void (*square4)(DType dtype, const void* const a[4], int64_t d, double out[4]);
  // out[t] = sum_k a[t][k] * b[t][k], t < 4.
  void (*dot4)(DType dtype, const void* const a[4], const void* const b[4], int64_t d, double out[4]);
  // out[t] = sum_k a[t / 2][k] * b[t][k], t < 4: two rows, each with two vectors.
  void (*dot2x2)(DType dtype, const void* const a[2], const double* const b[4], int64_t d, double out[4]);

  // unit[k] = float32(x[k] * inverse_norm).
  void (*scale)(DType dtype, const void* x, int64_t d, double inverse_norm, float* unit);

  // One row of a tile against a bracket: column_above[c] += s[c] > hi; the positions with
  // lo <= s[c] <= hi are written to `inside`, their number to *num_inside. Returns #{c : s[c] > hi}.
  int64_t (*scan_bracket)(const float* s, int64_t n, float lo, float hi, int32_t* column_above, int32_t* inside,
                          int64_t* num_inside);

  // The two largest of n >= 1 values (second = -infinity when n = 1).
  Top2 (*top2)(const float* s, int64_t n);
};

// The best that this processor has, unless use_instruction_set() said otherwise.
const VectorLoops& vector_loops();

}  // namespace proto_engine
