// Rows gathered into consecutive memory whatever their elements, and their inverse norms.   Memory bound.
#pragma once

#include "platform.cuh"

namespace proto_engine {

// to[r] = from[index[r]], rows of `bytes` bytes; the rest of a row of `to` is left alone.
// Pieces are of `piece` bytes: 16 where everything is aligned to that, else 2.
__global__ void gather_kernel(const uint8_t* from, int64_t from_stride, const int64_t* index, int64_t n,
                              int64_t bytes, uint8_t* to, int64_t to_stride, int32_t piece) {
  const int64_t pieces = bytes / piece, total = n * pieces;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t q = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; q < total; q += step) {
    const int64_t r = q / pieces, at = q % pieces * piece;
    const uint8_t* source = from + index[r] * from_stride + at;
    uint8_t* target = to + r * to_stride + at;
    if (piece == 16)
      *reinterpret_cast<uint4*>(target) = *reinterpret_cast<const uint4*>(source);
    else
      *reinterpret_cast<uint16_t*>(target) = *reinterpret_cast<const uint16_t*>(source);
  }
}

// inverse[i] = float32(1 / sqrt(squares[i])).   [n]
__global__ void inverse_kernel(const double* squares, int64_t n, float* inverse) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step)
    inverse[i] = __double2float_rn(__ddiv_rn(1.0, __dsqrt_rn(squares[i])));
}

}  // namespace proto_engine
