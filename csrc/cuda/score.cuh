// Scores of rows for folded class vectors, and the best two classes, reading every row once from memory.
//
// A block takes 64 rows at a time and goes over them twice, a slice of 256 bytes a row after the other:
//   1. s32 of all classes (score_products.cuh), from the last slice to the first: which classes could be
//      first or second? Nearly always two.
//   2. from the first slice to the last: the pinned q and the pinned products with those two, eight threads
//      a row. What was fetched last is fetched first, and 64 rows on every multiprocessor are 35 MB at
//      D = 2048: the second time the row comes out of the L2 cache. Other candidates follow one by one.
// All slices, of both passes and of the next 64 rows, go through one ring in shared memory, filled in the
// background (cp.async), so that memory has work at all times.
//
// Work of n rows, C <= 16 classes, b bytes an element. DRAM: n D b bytes. L2: twice that, and for 64 rows the
// folded vectors, 4 * 16 bytes an element for s32 and 8 C for the pinned products. Tensor cores: 2 * 2 n D 16
// flops (two terms). float64 operations: 5 n D, one for q, two each for two products, which are not fused.
// For n = 1,000,000, D = 2048, C = 14, float16 that is 4.1 GB of DRAM, 14 GB of L2, 0.13 Tflop, 10 G float64.
// What should limit it is neither, but shared memory: a pinned product takes 8 bytes of a vector for 2 of a row.
// Two products of 64 rows with 128 elements are 1,024 wavefronts of 128 bytes out of about 2,100 in all, so
// 33,000 cycles for 64 rows at D = 2048 where the memory would allow 20,000 (3 TB/s, 132 multiprocessors at
// 1.75 GHz). By this count, not by a measurement, the kernel reaches 60 % of the memory's rate.
#pragma once

#include "score_row.cuh"

namespace proto_engine {

// Where a block is: a slice of a pass over its 64 rows. One pass a group of classes for s32, then the pinned sums.
struct ScoreSteps {
  int64_t tile;
  int32_t pass, slice;

  __device__ void advance(int32_t passes, int32_t slices) {
    if (++slice < slices) return;
    slice = 0;
    if (++pass < passes) return;
    pass = 0;
    tile += gridDim.x;
  }
};

// One thread's share of the copies into the ring. What is the same for all slices is worked out once, and the
// addresses of the rows once for 64 of them.
template <class T, bool kTensor, int kClasses>
struct ScoreFetch {
  using Shared = ScoreShared<T, kTensor, kClasses>;
  using Slice = SliceOf<T>;
  using Element = typename Shared::Element;
  static constexpr int kRowStep = kScoreThreads / Slice::kPieces;  // a multiple of 8: the same place in each row
  static constexpr int kRows = kScoreRows / kRowStep;              // of this thread
  static constexpr int kFoldedPieces = Shared::Products::kFoldedPieces, kFoldedPiece = kPieceBytes / sizeof(Element);
  static constexpr int kExactPieces = Shared::kColumns / 2, kExactStep = kScoreThreads / kExactPieces;
  static_assert(kRowStep % 8 == 0 && kRows * kRowStep == kScoreRows, "every piece has its thread");

  const ScoreParams& params;
  int64_t tile;  // the one that `from` is of
  const T* from[kRows];
  bool there[kRows];
  int32_t local, part;  // of the first row, and the column within a slice

  __device__ ScoreFetch(const ScoreParams& given, int thread)
      : params(given), tile(-1), local(thread / Slice::kPieces), part(thread % Slice::kPieces * Slice::kPiece) {}

  __device__ void look_at(int64_t next) {
    tile = next;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int64_t i = next * kScoreRows + local + r * kRowStep;
      there[r] = i < params.n;
      from[r] = static_cast<const T*>(params.rows) + (there[r] ? i * params.stride + part : 0);
    }
  }

  __device__ void rows(int64_t column, T* slice) const {
    const int64_t left = params.dim - column - part;
    const int count = left >= Slice::kPiece ? Slice::kPiece : left > 0 ? static_cast<int>(left) : 0;
    T* to = slice + Slice::place(local, part);
    if (!params.aligned) return one_by_one(column, count, to);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int bytes = there[r] ? count * static_cast<int>(sizeof(T)) : 0;
      cp_async_16(to + r * kRowStep * Slice::kColumns, bytes ? from[r] + column : params.rows, bytes);
    }
  }

  __device__ void one_by_one(int64_t column, int count, T* to) const {
    for (int r = 0; r < kRows; ++r)
      for (int k = 0; k < Slice::kPiece; ++k)
        to[r * kRowStep * Slice::kColumns + k] = there[r] && k < count ? from[r][column + k] : T{};
  }

  __device__ void folded(int64_t first_class, int64_t classes, int64_t column, unsigned char* vectors) const {
    constexpr int kCount = Shared::kFoldedRows * kFoldedPieces;
    Element* slice = reinterpret_cast<Element*>(vectors);
    const Element* first = static_cast<const Element*>(params.folded) + first_class * params.padded + column;
#pragma unroll
    for (int begin = 0; begin < kCount; begin += kScoreThreads) {
      const uint32_t piece = begin + threadIdx.x;
      if (kCount % kScoreThreads != 0 && piece >= kCount) return;
      const uint32_t row = piece / kFoldedPieces, at = piece % kFoldedPieces;
      const int64_t line = row / kClasses * classes + row % kClasses;  // all classes of a term, then the next term
      cp_async_16(slice + piece_at<kFoldedPieces>(row, at) * kFoldedPiece,
                  first + line * params.padded + at * kFoldedPiece, 16);
    }
  }

  __device__ void exact(int64_t column, unsigned char* vectors) const {
    const uint32_t at = threadIdx.x % kExactPieces * 2;
    double* to = reinterpret_cast<double*>(vectors) + at;
    const double* first = params.exact + column + at;
#pragma unroll
    for (int begin = 0; begin < kClasses; begin += kExactStep) {
      const int c = begin + threadIdx.x / kExactPieces;
      if (c < params.num_classes) cp_async_16(to + c * Shared::kColumns, first + c * params.padded, 16);
    }
  }
};

template <class T, bool kTensor, int kClasses, bool kSigma>
__global__ void __launch_bounds__(kScoreThreads) score_kernel(ScoreParams params) {
  using Shared = ScoreShared<T, kTensor, kClasses>;
  using Element = typename Shared::Element;
  PROTO_ENGINE_DYNAMIC_SHARED(memory);
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int thread = threadIdx.x;
  const int32_t slices = static_cast<int32_t>(ceil_div(params.dim, Shared::kColumns));
  const int32_t groups = static_cast<int32_t>(ceil_div(params.num_classes, kClasses));
  const int32_t passes = groups + (kSigma ? 0 : 1);
  const int64_t tiles = ceil_div(params.n, kScoreRows);
  // Turning round after every pass, so that what came last is asked for again first; the pinned sums go up.
  const auto column = [&](const ScoreSteps& at) {
    return static_cast<int64_t>((groups - at.pass) % 2 == 0 ? at.slice : slices - 1 - at.slice) * Shared::kColumns;
  };

  ScoreFetch<T, kTensor, kClasses> bring(params, thread);
  ScoreSteps now = {static_cast<int64_t>(blockIdx.x), 0, 0}, ahead = now;
  int slot = 0, free_slot = 0;
  const auto fetch = [&] {
    if (ahead.tile < tiles) {
      typename Shared::Stage& stage = shared.stages[free_slot];
      if (bring.tile != ahead.tile) bring.look_at(ahead.tile);
      const int64_t k0 = column(ahead);
      bring.rows(k0, stage.rows);
      if (ahead.pass < groups)
        bring.folded(static_cast<int64_t>(ahead.pass) * kClasses, static_cast<int64_t>(groups) * kClasses, k0,
                     stage.vectors);
      else if (Shared::kStaged)
        bring.exact(k0, stage.vectors);
    }
    cp_async_commit();  // an empty group at the end, so that the count of groups stays right
    ahead.advance(passes, slices);
    free_slot = free_slot + 1 == Shared::kStages ? 0 : free_slot + 1;
  };

  typename Shared::Products products;
  ScoreRow<T, kTensor, kClasses> row(thread);
  products.clear();
  for (int s = 0; s < Shared::kStages - 1; ++s) fetch();
  while (now.tile < tiles) {
    cp_async_wait<Shared::kStages - 2>();  // the slice is there, for this thread
    __syncthreads();                       // for all of them; and the one before it has been used
    fetch();
    const typename Shared::Stage& stage = shared.stages[slot];
    const bool first = now.slice == 0, last = now.slice == slices - 1;
    if (now.pass == 0 && first) row.begin(params, now.tile);
    if (now.pass < groups) {
      products.add(stage.rows, reinterpret_cast<const Element*>(stage.vectors), thread);
      if (last) {
        products.store(shared.lists.sums, thread);
        products.clear();
        __syncthreads();
        if (kSigma)
          row.store_sigma(params, shared, static_cast<int64_t>(now.pass) * kClasses);
        else
          row.select(params, shared, static_cast<int64_t>(now.pass) * kClasses);
      }
    } else {
      if (first) row.begin_exact(params, shared);
      row.add_exact(params, stage, column(now));
      if (last) row.finish(params, shared);
    }
    now.advance(passes, slices);
    slot = slot + 1 == Shared::kStages ? 0 : slot + 1;
  }
}

// ---- the folded vectors, made ready ------------------------------------------------------------------------

__device__ inline void nearest(float x, Float16& out) { out = to_float16(x); }
__device__ inline void nearest(float x, BFloat16& out) {  // finite x; ties to even
  const uint32_t bits = __float_as_uint(x);
  out = {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
__device__ inline void store_terms(double x, float* out, int64_t) { *out = static_cast<float>(x); }
template <class T>
__device__ inline void store_terms(double x, T* high, int64_t to_low) {
  const double scaled = x * static_cast<double>(kFoldedScale);
  nearest(static_cast<float>(scaled), *high);
  nearest(static_cast<float>(scaled - to_double(*high)), high[to_low]);
}

// exact [C, padded] float64 and terms [1 or 2, padded classes, padded], with zeros around.   folded: [C, dim]
template <class Element>
__global__ void fold_kernel(const double* folded, int64_t num_classes, int64_t dim, double* exact, Element* terms) {
  const int64_t padded = padded_dim(dim), count = padded_classes(num_classes) * padded;
  for (int64_t t = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; t < count;
       t += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int64_t c = t / padded, k = t % padded;
    const double value = c < num_classes && k < dim ? folded[c * dim + k] : 0.0;
    if (c < num_classes) exact[t] = value;
    store_terms(value, terms + t, count);
  }
}

}  // namespace proto_engine
