// normalize on the GPU: the pinned sum of squares of each row, and float32 unit rows.
//
// Shapes: x [m, d] float32, squares [m] float64, unit [m, d] float32. Memory bound: 8 bytes an element.
// One group of eight threads a row: thread l adds the elements k = l (mod 8), exactly the eight lanes
// of the CPU's sum, and the lanes are folded in the same order, so both give the same bits.
#include "proto_engine_cuda.h"

namespace proto_engine {
namespace {

constexpr int kLanes = 8;
constexpr int kThreads = 256;

__global__ void normalize_kernel(const float* __restrict__ x, int64_t m, int64_t d, double* __restrict__ squares,
                                 float* __restrict__ unit) {
  const int lane = threadIdx.x % kLanes;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * (kThreads / kLanes) + threadIdx.x / kLanes;
  const bool active = i < m;
  const float* row = x + (active ? i : 0) * d;
  double sum = 0.0;
  if (active)
    for (int64_t k = lane; k < d; k += kLanes)
      sum = __dadd_rn(sum, __dmul_rn(static_cast<double>(row[k]), static_cast<double>(row[k])));
  // ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)): addition commutes, so every lane ends with the same sum.
  for (int step = 4; step >= 1; step /= 2) sum = __dadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, step, kLanes));
  if (!active) return;
  if (lane == 0) squares[i] = sum;
  const double inverse_norm = 1.0 / sqrt(sum);
  for (int64_t k = lane; k < d; k += kLanes)
    unit[i * d + k] = __double2float_rn(__dmul_rn(static_cast<double>(row[k]), inverse_norm));
}

}  // namespace

cudaError_t launch_normalize(const float* x, int64_t m, int64_t d, double* squares, float* unit,
                             cudaStream_t stream) {
  if (m == 0) return cudaSuccess;
  const int64_t rows_per_block = kThreads / kLanes;
  const unsigned blocks = static_cast<unsigned>((m + rows_per_block - 1) / rows_per_block);
  normalize_kernel<<<blocks, kThreads, 0, stream>>>(x, m, d, squares, unit);
  return cudaGetLastError();
}

}  // namespace proto_engine
