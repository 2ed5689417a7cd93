// The plain tile loop: a 128 x 128 tile of X X^T in float32 multiply-adds. Any GPU, any dimension, any layout.
//
// 256 threads, 8 x 8 elements each. Slices of 16 columns of X go through shared memory, transposed so that a
// thread reads its eight rows as two float4; while one slice is multiplied, the next is on its way in
// registers. A tile of dimension D costs 2 * 128 * 128 * D flops and reads 2 * 128 * D elements.
#pragma once

#include "operand.cuh"

namespace proto_engine {

template <class T>
struct SimtLoop {
  static constexpr int kThreads = 256, kEpilogueThreads = 256;
  static constexpr int kBlocks = 2;  // a multiprocessor: one multiplies while the other waits or counts
  static constexpr int kRows = 8, kColumns = 8;
  static constexpr int kRowMask = 15, kColumnMask = 16;  // 16 threads abreast: a warp is two rows of them
  static constexpr int kSlice = 16;
  static constexpr int kHalf = kTile / 2;
  static constexpr int kPadded = kTile + 4;

  struct Shared {
    float a[kSlice][kPadded], b[kSlice][kPadded];
  };

  __device__ static int row(int thread, int r) { return r / 4 * kHalf + thread / 16 * 4 + r % 4; }
  __device__ static int column(int thread, int c) { return c / 4 * kHalf + thread % 16 * 4 + c % 4; }
  __device__ static void sync() { __syncthreads(); }

  __device__ static void product(const Operand& rows, const Operand& columns, const Tile& tile, Shared& shared,
                                 float (&s)[kRows][kColumns], int thread) {
    // Each thread brings half a row of the slice: row thread / 2, eight elements.
    const int local = thread / 2, part = thread % 2 * (kSlice / 2);
    const bool has_row = tile.i0 + local < tile.rows, has_column = tile.j0 + local < tile.columns;
    const T* a = static_cast<const T*>(rows.data) + (tile.row_base + tile.i0 + (has_row ? local : 0)) * rows.stride;
    const T* b = static_cast<const T*>(columns.data) +
                 (tile.column_base + tile.j0 + (has_column ? local : 0)) * columns.stride;
    float next_a[kSlice / 2], next_b[kSlice / 2];
    const auto fetch = [&](int32_t k0) {
#pragma unroll
      for (int e = 0; e < kSlice / 2; ++e) {
        const int32_t k = k0 + part + e;
        next_a[e] = has_row && k < rows.dim ? to_float(a[k]) : 0.0f;
        next_b[e] = has_column && k < rows.dim ? to_float(b[k]) : 0.0f;
      }
    };
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int c = 0; c < kColumns; ++c) s[r][c] = 0.0f;

    fetch(0);
    for (int32_t k0 = 0; k0 < rows.dim; k0 += kSlice) {
      __syncthreads();  // the slice before has been multiplied
#pragma unroll
      for (int e = 0; e < kSlice / 2; ++e) {
        shared.a[part + e][local] = next_a[e];
        shared.b[part + e][local] = next_b[e];
      }
      __syncthreads();
      fetch(k0 + kSlice);
#pragma unroll
      for (int k = 0; k < kSlice; ++k) {
        float x[kRows], y[kColumns];
#pragma unroll
        for (int r = 0; r < kRows; ++r) x[r] = shared.a[k][row(thread, r)];
#pragma unroll
        for (int c = 0; c < kColumns; ++c) y[c] = shared.b[k][column(thread, c)];
#pragma unroll
        for (int r = 0; r < kRows; ++r)
#pragma unroll
          for (int c = 0; c < kColumns; ++c) s[r][c] += x[r] * y[c];
      }
    }
  }
};

}  // namespace proto_engine
