// The tile loop on tensor cores of any kind since Ampere: float16 or bfloat16 rows, float32 sums.
//
// 256 threads: 2 x 4 warps of 64 x 32 elements, four by four mma.m16n8k16 each. Slices of 32 columns of X are
// copied into shared memory in the background (cp.async), three ahead of the one being multiplied: 16 KB a
// slice, 64 KB in all. A row of a slice is four pieces of 16 bytes; piece q of row r is kept at place
// q ^ (r / 2 % 4), so that the eight rows of an ldmatrix lie in eight different banks.
//
// The tensor cores round down when they add. Sums are therefore taken out of them every kChunk elements and
// added in float32 proper, which keeps the error a small multiple of kChunk roundings instead of D of them.
#pragma once

#include "instructions.cuh"
#include "operand.cuh"

namespace proto_engine {

constexpr int kChunk = 128;  // elements summed by tensor cores before float32 takes over

template <class T>
struct MmaLoop {
  static constexpr int kThreads = 256, kEpilogueThreads = 256;
  static constexpr int kBlocks = 1;  // a multiprocessor: its sums alone are half of the registers
  static constexpr int kRows = 8, kColumns = 8;
  static constexpr int kRowMask = 3, kColumnMask = 28;
  static constexpr int kSlice = 32, kStages = 4;
  static constexpr int kPiece = 8;  // elements in 16 bytes
  static constexpr int kPieces = kSlice / kPiece;

  struct Shared {
    T a[kStages][kTile * kSlice], b[kStages][kTile * kSlice];
  };

  // Row warp / 4 and column warp % 4 of the 2 x 4 warps.
  __device__ static int row(int thread, int r) {
    return thread / 128 * 64 + r / 2 * 16 + r % 2 * 8 + thread % 32 / 4;
  }
  __device__ static int column(int thread, int c) {
    return thread / 32 % 4 * 32 + c / 2 * 8 + thread % 4 * 2 + c % 2;
  }
  __device__ static void sync() { __syncthreads(); }

  // Element index of a piece of a row within a slice.
  __device__ static int place(int row, int piece) { return (row * kPieces + (piece ^ (row / 2 % 4))) * kPiece; }

  __device__ static void product(const Operand& rows, const Operand& columns, const Tile& tile, Shared& shared,
                                 float (&s)[kRows][kColumns], int thread) {
    const int32_t slices = static_cast<int32_t>(ceil_div(rows.dim, kSlice)), total = slices * rows.segments;
    const auto fetch = [&](int32_t t) {
      if (t < total) {
        const int segment = t / slices;
        const int32_t k0 = t % slices * kSlice;
        bring(rows, tile.row_base, tile.i0, tile.rows, k0, row_offset(rows, segment), shared.a[t % kStages], thread);
        bring(columns, tile.column_base, tile.j0, tile.columns, k0, column_offset(columns, segment),
              shared.b[t % kStages], thread);
      }
      cp_async_commit();  // an empty group at the end, so that the count of groups stays right
    };
    float partial[kRows][kColumns];
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int c = 0; c < kColumns; ++c) s[r][c] = partial[r][c] = 0.0f;

    __syncthreads();  // the slices of the tile before have been multiplied
    for (int32_t t = 0; t < kStages - 1; ++t) fetch(t);
    for (int32_t t = 0; t < total; ++t) {
      cp_async_wait<kStages - 2>();  // slice t is there, for this thread
      __syncthreads();               // for all of them; and slice t - 1 has been multiplied
      fetch(t + kStages - 1);
      multiply(shared.a[t % kStages], shared.b[t % kStages], partial, thread);
      if ((t + 1) % (kChunk / kSlice) == 0) take_over(s, partial);
    }
    take_over(s, partial);
  }

 private:
  __device__ static void bring(const Operand& x, int64_t base, int32_t first, int32_t count, int32_t k0,
                               int32_t offset, T* slice, int thread) {
    const T* data = static_cast<const T*>(x.data);
#pragma unroll
    for (int q = thread; q < kTile * kPieces; q += kThreads) {
      const int local = q / kPieces, piece = q % kPieces;
      const int32_t k = k0 + piece * kPiece;
      const bool there = first + local < count && k < x.dim;
      const T* from = there ? data + (base + first + local) * x.stride + offset + k : data;
      cp_async_16(slice + place(local, piece), from, there ? 16 : 0);
    }
  }

  __device__ static void multiply(const T* a, const T* b, float (&partial)[kRows][kColumns], int thread) {
    const int lane = thread % 32, warp_row = thread / 128 * 64, warp_column = thread / 32 % 4 * 32;
#pragma unroll
    for (int k = 0; k < kSlice / 16; ++k) {
      uint32_t x[4][4], y[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i)  // rows 0-7 and 8-15 at the first 8 columns, then at the next 8
        ldmatrix_x4(x[i], a + place(warp_row + i * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
      for (int j = 0; j < 2; ++j)  // the first 8 rows of B at both 8 columns, then the next 8 rows
        ldmatrix_x4(y[j], b + place(warp_column + j * 16 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float c[4] = {partial[2 * i][2 * j], partial[2 * i][2 * j + 1], partial[2 * i + 1][2 * j],
                        partial[2 * i + 1][2 * j + 1]};
          mma_16x8x16(T{}, c, x[i], y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]);
          partial[2 * i][2 * j] = c[0];
          partial[2 * i][2 * j + 1] = c[1];
          partial[2 * i + 1][2 * j] = c[2];
          partial[2 * i + 1][2 * j + 1] = c[3];
        }
    }
  }

  __device__ static void take_over(float (&s)[kRows][kColumns], float (&partial)[kRows][kColumns]) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        s[r][c] += partial[r][c];
        partial[r][c] = 0.0f;
      }
  }
};

}  // namespace proto_engine
