// Rows made ready: their squares and inverse norms, unit rows, split rows.
//
// All of it is memory bound: each element is read once and written at most once.
#pragma once

#include "operand.cuh"
#include "pinned.cuh"

namespace proto_engine {

constexpr int kRowThreads = 256;
constexpr int kRowGroups = kRowThreads / kLanes;  // rows that a block works on at a time

// Rows as stored, for the float64 look-ups. squares: [M], the pinned sum of squares q of each row.
template <class T>
struct StoredRows {
  using Element = T;
  const T* data;
  int64_t stride;
  int64_t dim;
  const double* squares;
};

template <class T>
__device__ inline double pair_similarity(const StoredRows<T>& x, int64_t i, int64_t j, bool active) {
  const double dot =
      pinned_dot(x.data + (active ? i : 0) * x.stride, x.data + (active ? j : 0) * x.stride, x.dim, active);
  return active ? similarity_of(dot, x.squares[i], x.squares[j]) : 0.0;
}

// squares[i] = q_i.   x [n, dim]
template <class T>
__global__ void squares_kernel(const T* x, int64_t stride, int64_t dim, int64_t n, double* squares) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRowGroups;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRowGroups; first < n; first += step) {
    const int64_t i = first + threadIdx.x / kLanes;
    const bool active = i < n;
    const T* row = x + (active ? i : 0) * stride;
    const double q = pinned_dot(row, row, dim, active);
    if (active && threadIdx.x % kLanes == 0) squares[i] = q;
  }
}

// unit[i, k] = float32(x[i, k] / sqrt(q_i)): the bits of the CPU's unit rows.   unit [n, dim]
template <class T>
__global__ void unit_kernel(const T* x, int64_t stride, int64_t dim, int64_t n, const double* squares, float* unit) {
  for (int64_t i = blockIdx.x; i < n; i += gridDim.x) {
    const double inverse = __ddiv_rn(1.0, __dsqrt_rn(squares[i]));
    for (int64_t k = threadIdx.x; k < dim; k += blockDim.x)
      unit[i * dim + k] = __double2float_rn(__dmul_rn(to_double(x[i * stride + k]), inverse));
  }
}

// Split unit rows, see Operand: split[i] = [high (padded) | low (padded)]; zeros beyond dim.
template <class T>
__global__ void split_kernel(const T* x, int64_t stride, int64_t dim, int64_t n, const double* squares,
                             Float16* split, int64_t padded) {
  for (int64_t i = blockIdx.x; i < n; i += gridDim.x) {
    const double inverse = __ddiv_rn(1.0, __dsqrt_rn(squares[i]));
    Float16* row = split + i * 2 * padded;
    for (int64_t k = threadIdx.x; k < padded; k += blockDim.x) {
      const double unit = k < dim ? __dmul_rn(to_double(x[i * stride + k]), inverse) : 0.0;
      const float value = __double2float_rn(unit) * kSplitScale;  // a power of two: exact
      const Float16 high = to_float16(value);
      row[k] = high;
      row[padded + k] = to_float16(value - to_float(high));
    }
  }
}

// out[t] = S(first[t], second[t]).   [n] float64
template <class T>
__global__ void pairs_kernel(StoredRows<T> x, const int64_t* first, const int64_t* second, int64_t n, double* out) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRowGroups;
  for (int64_t start = static_cast<int64_t>(blockIdx.x) * kRowGroups; start < n; start += step) {
    const int64_t t = start + threadIdx.x / kLanes;
    const bool active = t < n;
    const double s = pair_similarity(x, active ? first[t] : 0, active ? second[t] : 0, active);
    if (active && threadIdx.x % kLanes == 0) out[t] = s;
  }
}

}  // namespace proto_engine
