// The pinned sum of products on the GPU: eight neighboring threads, a lane each.
//
// Block after block of 256 columns; in a block lane l adds the products at k = l (mod 8) in ascending k, the lanes
// are folded as ((0+4)+(2+6)) + ((1+5)+(3+7)), and the sums of the blocks are added up in order. Addition
// commutes, so the butterfly below leaves that sum in every lane.
#pragma once

#include "elements.cuh"

namespace proto_engine {

constexpr int kLanes = 8, kBlockColumns = 256;

// Every thread of the warp must call this (the shuffles are the whole warp's).
__device__ inline double fold_lanes(double sum) {
  for (int step = kLanes / 2; step >= 1; step /= 2) sum = __dadd_rn(sum, __shfl_xor_sync(kWholeWarp, sum, step));
  return sum;
}

// Every thread of the warp must call this, with the same `dim`; `active` says which groups of eight have something
// to add. `add(sum, k)` gives the sum with the product at column k.
template <class Add>
__device__ inline double pinned_sum(int64_t dim, bool active, const Add& add) {
  const int lane = threadIdx.x % kLanes;
  double total = 0.0;
  for (int64_t begin = 0; begin < dim; begin += kBlockColumns) {
    const int64_t end = begin + kBlockColumns < dim ? begin + kBlockColumns : dim;
    double sum = 0.0;
    if (active) {
#pragma unroll 8  // so many elements are on their way at a time: what a few groups wait for is memory
      for (int64_t k = begin + lane; k < end; k += kLanes) sum = add(sum, k);
    }
    total = __dadd_rn(total, fold_lanes(sum));
  }
  return total;
}

template <class T>
__device__ inline double pinned_dot(const T* a, const T* b, int64_t dim, bool active) {
  return pinned_sum(dim, active, [a, b](double sum, int64_t k) { return add_product(sum, a[k], b[k]); });
}

// S of two rows from their pinned sum and their squares q.
__device__ inline double similarity_of(double dot, double q_i, double q_j) {
  return __ddiv_rn(dot, __dsqrt_rn(__dmul_rn(q_i, q_j)));
}

// float64 numbers as integers of the same order, for atomic minima and maxima.
__host__ __device__ inline uint64_t order_of_bits(uint64_t bits) {
  return bits >> 63 ? ~bits : bits | (uint64_t{1} << 63);
}
__host__ __device__ inline uint64_t bits_of_order(uint64_t order) {
  return order >> 63 ? order & ~(uint64_t{1} << 63) : ~order;
}
__device__ inline uint64_t ordered(double x) { return order_of_bits(static_cast<uint64_t>(__double_as_longlong(x))); }
__device__ inline double from_ordered(uint64_t order) {
  return __longlong_as_double(static_cast<long long>(bits_of_order(order)));
}

}  // namespace proto_engine
