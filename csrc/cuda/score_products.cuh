// The s32 of 64 rows with a group of classes, a slice of 256 bytes of each row at a time.
//
// Two ways, behind one interface: tensor cores for rows of 16 bits, whose sums are worth it from a few
// hundred elements on; float32 multiply-adds for everything else. Both leave their sums in registers,
// spread over `kSplits` parts of the slice, and put them into shared memory at the end of the rows.
#pragma once

#include "instructions.cuh"
#include "pinned.cuh"

namespace proto_engine {

constexpr int kScoreRows = 64;            // rows a block works on at a time
constexpr int kScoreThreads = 512;        // eight a row: the lanes of the pinned sums
constexpr int kSliceBytes = 256;          // of a row
constexpr int kPieceBytes = 16;           // what cp.async copies
constexpr int kPadding = 128;             // folded vectors are padded with zeros to a multiple of the longest slice
constexpr float kFoldedScale = 16384.0f;  // keeps the low terms of float16 out of the denormal numbers

// Classes that are multiplied together; more of them means that the rows are fetched less often.
__host__ __device__ inline int class_group(int64_t num_classes) { return num_classes <= 16 ? 16 : 32; }
__host__ __device__ inline int64_t padded_dim(int64_t dim) { return ceil_div(dim, kPadding) * kPadding; }
__host__ __device__ inline int64_t padded_classes(int64_t num_classes) {
  return ceil_div(num_classes, class_group(num_classes)) * class_group(num_classes);
}

// How far a product of the tensor loop can be from x . f, in units of u |x| |f|, u = 2^-24:
//   4 or 64  f = high + low: each term rounds what is left by 2^-11 (float16) or 2^-9 (bfloat16); and 2 for
//            low terms of float16 that are denormal: 2^-25 an element, over the scale 2^14, sqrt(D) times;
//   98       sums of 32 elements on tensor cores, which may truncate: 3 u an element of the sum of absolute
//            products, and the same of the low terms before them, 2^-8 as large at the most;
//   D / 128  one float32 addition a slice, and 5 for the four parts and the first slice;
//   8        what is left over for the norm and the rounding of the pinned sums (less than u / 2^20 each).
__host__ __device__ inline double tensor_roundings(bool bfloat16, int64_t dim) {
  return (bfloat16 ? 64.0 : 6.0) + 98.0 + static_cast<double>(padded_dim(dim) / kPadding) + 5.0 + 8.0;
}

// sigma is to be within D + 8 roundings, its norm (chains of D / 16 squares, then six additions, halved by
// the root) and two multiplications included: short rows are multiplied by float32 multiply-adds.
__host__ __device__ inline bool use_tensor_cores(bool half, bool bfloat16, int64_t dim) {
  return half && tensor_roundings(bfloat16, dim) + dim / 32.0 + 8.0 <= dim + 8.0;
}

// |s32 / |x| - sigma| is never more. Otherwise D + 8 roundings: D for a sum in any order, one each for the
// element and the vector, the rest as above. Infinite where nothing is certain: every class is a candidate then.
__host__ __device__ inline double score_bound(bool half, bool bfloat16, int64_t dim) {
  const bool tensor = use_tensor_cores(half, bfloat16, dim);
  const double n = (tensor ? tensor_roundings(bfloat16, dim) : dim + 8.0) * 0x1p-24;
  return n < 0.5 ? n / (1.0 - n) : INFINITY;
}

// What a class must reach on top of its row's second best s32 of raw products, times the float32 norm: two
// bounds, more by what that norm can be too small.
__host__ __device__ inline double score_reach(bool half, bool bfloat16, int64_t dim) {
  const double scale = use_tensor_cores(half, bfloat16, dim) ? kFoldedScale : 1.0, n = (dim + 16.0) * 0x1p-24;
  return n < 0.5 ? 2.0 * score_bound(half, bfloat16, dim) * scale / (1.0 - n) : INFINITY;
}

// Index of a piece of a row in a slice of rows of kPieces pieces. Eight rows that follow each other have
// the same piece in eight different groups of banks. (Unsigned: divisions are shifts then.)
template <int kPieces>
__device__ inline uint32_t piece_at(uint32_t row, uint32_t piece) {
  return row * kPieces + (piece ^ (row % 8));
}

template <class T>
struct SliceOf {
  static constexpr int kColumns = kSliceBytes / sizeof(T);
  static constexpr int kPiece = kPieceBytes / sizeof(T);  // elements
  static constexpr int kPieces = kColumns / kPiece;

  __device__ static uint32_t place(uint32_t row, uint32_t column) {
    return piece_at<kPieces>(row, column / kPiece) * kPiece + column % kPiece;
  }
};

// 16 warps: four times 16 rows, and four quarters of the slice, two mma.m16n8k16 deep each. The folded
// vectors come as two terms of the rows' own type, first all the high ones, then the low ones.
template <class T, int kClasses>
struct TensorProducts {
  using Element = T;
  static constexpr int kTerms = 2, kSplits = 4, kPitch = kClasses + 4;
  static constexpr int kFoldedPieces = kSliceBytes / kPieceBytes;
  static constexpr int kTiles = kClasses / 8;
  static constexpr float kScale = kFoldedScale;

  float s[kTiles][4];
  float norm[2];  // sums of squares, roughly: rows lane / 4 and lane / 4 + 8

  __device__ void clear() {
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) s[j][e] = 0.0f;
    norm[0] = norm[1] = 0.0f;
  }

  __device__ void add(const T* rows, const T* folded, int thread) {
    using Slice = SliceOf<T>;
    const int lane = thread % 32, first_row = thread / 32 % 4 * 16, split = thread / 128;
    float partial[kTiles][4];
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) partial[j][e] = 0.0f;
    uint32_t x[2][4], y[4];
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      ldmatrix_x4(x[step], rows + Slice::place(first_row + lane % 16, (2 * split + step) * 16 + lane / 16 * 8));
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const float low = to_float(T{static_cast<uint16_t>(x[step][q] & 0xffffu)});
        const float high = to_float(T{static_cast<uint16_t>(x[step][q] >> 16)});
        norm[q % 2] += low * low;
        norm[q % 2] += high * high;
      }
    }
#pragma unroll
    for (int term = kTerms - 1; term >= 0; --term)  // the low ones first: they lose nothing beside their like
#pragma unroll
      for (int step = 0; step < 2; ++step)
#pragma unroll
        for (int j = 0; j < kTiles; j += 2) {
          ldmatrix_x4(y, folded + Slice::place(term * kClasses + j * 8 + lane / 16 * 8 + lane % 8,
                                               (2 * split + step) * 16 + lane / 8 % 2 * 8));
          mma_16x8x16(T{}, partial[j], x[step], y[0], y[1]);
          mma_16x8x16(T{}, partial[j + 1], x[step], y[2], y[3]);
        }
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) s[j][e] += partial[j][e];
  }

  // sums: [kSplits, kScoreRows, kPitch]; the sum of squares stands behind the classes.
  __device__ void store(float* sums, int thread) {
    const int lane = thread % 32, split = thread / 128;
    float* own = sums + (split * kScoreRows + thread / 32 % 4 * 16 + lane / 4) * kPitch;
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) own[e / 2 * 8 * kPitch + j * 8 + lane % 4 * 2 + e % 2] = s[j][e];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      norm[half] += __shfl_xor_sync(kWholeWarp, norm[half], 1);
      norm[half] += __shfl_xor_sync(kWholeWarp, norm[half], 2);
      if (lane % 4 == 0) own[half * 8 * kPitch + kClasses] = norm[half];
    }
  }
};

// Threads of 4 x 4 products, rows and classes alike a step apart, so that neighbors read neighboring banks;
// each of the kSplits parts takes every kSplits-th group of four columns.
template <class T, int kClasses>
struct PlainProducts {
  using Element = float;
  static constexpr int kTerms = 1, kPitch = kClasses + 4;
  static constexpr int kThreads = kScoreRows / 4 * kClasses / 4;  // of a part
  static constexpr int kSplits = kScoreThreads / kThreads;
  static constexpr int kFoldedPieces = SliceOf<T>::kColumns * 4 / kPieceBytes;
  static constexpr int kRowStep = kScoreRows / 4, kClassStep = kClasses / 4;
  static constexpr float kScale = 1.0f;

  float s[4][4];
  float norm[4];

  __device__ void clear() {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      norm[r] = 0.0f;
#pragma unroll
      for (int c = 0; c < 4; ++c) s[r][c] = 0.0f;
    }
  }

  __device__ void add(const T* rows, const float* folded, int thread) {
    const int row = thread % kThreads / kClassStep, c0 = thread % kClassStep;
    for (int column = thread / kThreads * 4; column < SliceOf<T>::kColumns; column += 4 * kSplits) {
      float x[4][4], f[4][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        four(rows, SliceOf<T>::kPieces, row + i * kRowStep, column, x[i]);
        four(folded, kFoldedPieces, c0 + i * kClassStep, column, f[i]);
      }
#pragma unroll
      for (int k = 0; k < 4; ++k)
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          norm[r] += x[r][k] * x[r][k];
#pragma unroll
          for (int c = 0; c < 4; ++c) s[r][c] += x[r][k] * f[c][k];
        }
    }
  }

  __device__ void store(float* sums, int thread) {
    const int row = thread % kThreads / kClassStep, c0 = thread % kClassStep;
    float* own = sums + thread / kThreads * kScoreRows * kPitch;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
      for (int c = 0; c < 4; ++c) own[(row + r * kRowStep) * kPitch + c0 + c * kClassStep] = s[r][c];
      if (c0 == 0) own[(row + r * kRowStep) * kPitch + kClasses] = norm[r];
    }
  }

 private:
  template <class U, int kCount>
  struct alignas(sizeof(U) * kCount) Together {
    U v[kCount];
  };

  // Four elements of a row, read as few wide ones.
  template <class U>
  __device__ static void four(const U* slice, int pieces, int row, int column, float (&out)[4]) {
    constexpr int kPiece = kPieceBytes / sizeof(U), kCount = kPiece < 4 ? kPiece : 4;
#pragma unroll
    for (int e = 0; e < 4; e += kCount) {
      const int k = column + e, at = (row * pieces + (k / kPiece ^ (row % 8))) * kPiece + k % kPiece;
      const auto values = *reinterpret_cast<const Together<U, kCount>*>(slice + at);
#pragma unroll
      for (int i = 0; i < kCount; ++i) out[e + i] = to_float(values.v[i]);
    }
  }
};

}  // namespace proto_engine
