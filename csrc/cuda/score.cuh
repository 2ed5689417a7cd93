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
// folded vectors, 4 C bytes an element for s32 and 8 C for the pinned products. Tensor cores: 2 * 2 n D 16
// flops (two terms). float64 operations: 5 n D, one for q, two each for two products, which are not fused.
// For n = 1,000,000, D = 2048, C = 14, float16: 4.1 GB of DRAM, 13 GB of L2, 0.13 Tflop, 10 G float64.
#pragma once

#include "score_products.cuh"

namespace proto_engine {

constexpr int kSharedBytes = 163 * 1024;  // what a block may have at compute capability 8.0

struct ScoreParams {
  const void* rows;  // [n, dim], as stored
  int64_t n, stride, dim;
  bool aligned;           // rows can be copied 16 bytes at a time
  const void* folded;     // [terms, padded classes, padded] for s32: 16-bit terms or float32
  const double* exact;    // [C, padded]
  int64_t padded;         // padded_dim(dim)
  int64_t num_classes;    // C
  double reach;           // score_reach
  int64_t* label;         // [n]; null for sigma
  double *best, *second;  // [n]
  float* sigma;           // [n, C]; null for the best two
};

template <class T, bool kTensor, int kClasses>
struct ScoreTypes {
  using Products = TensorProducts<T, kClasses>;
};
template <class T, int kClasses>
struct ScoreTypes<T, false, kClasses> {
  using Products = PlainProducts<T, kClasses>;
};

template <class T, bool kTensor, int kClasses>
struct ScoreShared {
  using Products = typename ScoreTypes<T, kTensor, kClasses>::Products;
  using Element = typename Products::Element;
  static constexpr int kColumns = SliceOf<T>::kColumns;
  static constexpr bool kStaged = kClasses <= 16;  // float64 vectors come through the ring as well
  static constexpr int kFoldedRows = Products::kTerms * kClasses;
  static constexpr int kExactPitch = kColumns + 8;  // two vectors side by side are in different banks
  static constexpr int kFoldedBytes = kFoldedRows * kColumns * sizeof(Element);
  static constexpr int kExactBytes = kStaged ? kClasses * kExactPitch * 8 : 0;

  struct Stage {
    alignas(128) T rows[kScoreRows * kColumns];
    alignas(128) unsigned char vectors[kFoldedBytes > kExactBytes ? kFoldedBytes : kExactBytes];
  };
  struct Lists {
    float sums[Products::kSplits * kScoreRows * Products::kPitch];
    int32_t kept_class[kScoreRows * kClasses];  // candidates of each row, in any order
    float kept_value[kScoreRows * kClasses];
  };
  static constexpr int kStages = 4 * sizeof(Stage) + sizeof(Lists) <= kSharedBytes ? 4 : 3;

  Stage stages[kStages];
  Lists lists;
};

// The best two of pinned scores that come in any order; the lower class between equal ones.
struct BestTwo {
  int64_t label;
  double best, second;

  __device__ void clear() {
    label = -1;
    best = second = -INFINITY;
  }
  __device__ void add(int64_t c, double value) {
    if (label < 0 || value > best || (value == best && c < label)) {
      second = best;
      best = value;
      label = c;
    } else if (value > second) {
      second = value;
    }
  }
};

__device__ inline double fold_lanes(double sum) {
  for (int step = kLanes / 2; step >= 1; step /= 2) sum = __dadd_rn(sum, __shfl_xor_sync(kWholeWarp, sum, step));
  return sum;
}

// A row and a float64 vector straight from memory; every thread of the warp calls it.
template <class T>
__device__ inline double pinned_product(const T* row, const double* vector, int64_t dim, bool active) {
  double sum = 0.0;
  if (active)
    for (int64_t k = threadIdx.x % kLanes; k < dim; k += kLanes)
      sum = __dadd_rn(sum, __dmul_rn(to_double(row[k]), vector[k]));
  return fold_lanes(sum);
}

__device__ inline bool has_direction(double q) { return q > 0.0 && q < INFINITY; }

// One row's side of the work: eight neighboring threads, which know the same but for `lane`.
template <class T, bool kTensor, int kClasses>
struct ScoreRow {
  using Shared = ScoreShared<T, kTensor, kClasses>;
  using Products = typename Shared::Products;
  static constexpr int kEach = kClasses / kLanes;  // classes of a group that this thread looks at

  const T* data;
  int64_t i;
  int32_t local, lane;
  bool there;
  bool certain;        // s32 can be relied on
  int32_t kept, next;  // candidates, and the first that has not been looked at
  float first, runner_up;
  double reach;
  int64_t c1, c2;  // the candidates of the second pass; c2 = -1: there is but one
  double q, dot1, dot2;

  __device__ void begin(const ScoreParams& params, int64_t tile, int thread) {
    local = thread / kLanes;
    lane = thread % kLanes;
    i = tile * kScoreRows + local;
    there = i < params.n;
    data = static_cast<const T*>(params.rows) + (there ? i : 0) * params.stride;
    certain = true;
    kept = next = 0;
    first = runner_up = -INFINITY;
    q = dot1 = dot2 = 0.0;
  }

  __device__ float value(const float* sums, int column) const {
    float sum = 0.0f;
#pragma unroll
    for (int split = 0; split < Products::kSplits; ++split)
      sum += sums[(split * kScoreRows + local) * Products::kPitch + column];
    return sum;
  }

  // The sum of squares in float32. Beyond these limits products may have over- or underflowed.
  __device__ float rough_square(const float* sums) {
    const float square = value(sums, kClasses);
    certain = certain && square > 0x1p-60f && square < 0x1p+60f;
    return square;
  }

  // Keeps the classes of a group that could still be first or second.
  __device__ void select(const ScoreParams& params, Shared& shared, int64_t first_class) {
    float s[kEach], a = first, b = runner_up;
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const int column = lane + e * kLanes;
      s[e] = first_class + column < params.num_classes ? value(shared.lists.sums, column) : -INFINITY;
    }
    if (lane != 0) a = b = -INFINITY;  // what is known already counts once
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      b = fmaxf(b, fminf(a, s[e]));
      a = fmaxf(a, s[e]);
    }
#pragma unroll
    for (int step = 1; step < kLanes; step *= 2) {
      const float c = __shfl_xor_sync(kWholeWarp, a, step), d = __shfl_xor_sync(kWholeWarp, b, step);
      b = fmaxf(fminf(a, c), fmaxf(b, d));
      a = fmaxf(a, c);
    }
    first = a;
    runner_up = b;
    const float square = rough_square(shared.lists.sums);
    reach = static_cast<double>(runner_up) - params.reach * __dsqrt_rn(static_cast<double>(square));

    int32_t count = 0;
#pragma unroll
    for (int e = 0; e < kEach; ++e)
      count += first_class + lane + e * kLanes < params.num_classes && static_cast<double>(s[e]) >= reach;
    int32_t before = count;
#pragma unroll
    for (int step = 1; step < kLanes; step *= 2) {
      const int32_t other = __shfl_up_sync(kWholeWarp, before, step);
      if (lane >= step) before += other;
    }
    const int32_t total = __shfl_sync(kWholeWarp, before, threadIdx.x % 32 / kLanes * kLanes + kLanes - 1);
    if (kept + total > kClasses) certain = false;  // more than there is room for
    if (!certain) return;
    int32_t at = local * kClasses + kept + before - count;
#pragma unroll
    for (int e = 0; e < kEach; ++e)
      if (first_class + lane + e * kLanes < params.num_classes && static_cast<double>(s[e]) >= reach) {
        shared.lists.kept_class[at] = static_cast<int32_t>(first_class) + lane + e * kLanes;
        shared.lists.kept_value[at] = s[e];
        ++at;
      }
    kept += total;
  }

  // The next candidate, or -1. Every class is one where s32 says nothing.
  __device__ int64_t candidate(const ScoreParams& params, const Shared& shared) {
    if (!certain) return next < params.num_classes ? next++ : -1;
    while (next < kept) {
      const int at = local * kClasses + next++;
      if (static_cast<double>(shared.lists.kept_value[at]) >= reach) return shared.lists.kept_class[at];
    }
    return -1;
  }

  __device__ void begin_exact(const ScoreParams& params, const Shared& shared) {
    c1 = candidate(params, shared);
    c2 = candidate(params, shared);
  }

  // A slice of the pinned sums. Past the end of the rows everything is zero, which changes no sum.
  __device__ void add_exact(const ScoreParams& params, const typename Shared::Stage& stage, int64_t column) {
    const int64_t of1 = c1 < 0 ? 0 : c1, of2 = c2 < 0 ? of1 : c2;
    const double *f1, *f2;
    if (Shared::kStaged) {
      const double* vectors = reinterpret_cast<const double*>(stage.vectors);
      f1 = vectors + of1 * Shared::kExactPitch + lane;
      f2 = vectors + of2 * Shared::kExactPitch + lane;
    } else {
      f1 = params.exact + of1 * params.padded + column + lane;
      f2 = params.exact + of2 * params.padded + column + lane;
    }
#pragma unroll 8
    for (int k = 0; k < Shared::kColumns; k += kLanes) {
      const T x = stage.rows[SliceOf<T>::place(local, k + lane)];
      q = add_product(q, x, x);
      dot1 = __dadd_rn(dot1, __dmul_rn(to_double(x), f1[k]));
      dot2 = __dadd_rn(dot2, __dmul_rn(to_double(x), f2[k]));
    }
  }

  __device__ void finish(const ScoreParams& params, const Shared& shared) {
    q = fold_lanes(q);
    dot1 = fold_lanes(dot1);
    dot2 = fold_lanes(dot2);
    const double norm = __dsqrt_rn(q);
    const bool usable = there && has_direction(q);
    BestTwo result;
    result.clear();
    if (usable) {
      result.add(c1, __ddiv_rn(dot1, norm));
      if (c2 >= 0) result.add(c2, __ddiv_rn(dot2, norm));
    }
    while (true) {
      const int64_t c = usable && c2 >= 0 ? candidate(params, shared) : -1;
      if (!__any_sync(kWholeWarp, c >= 0)) break;
      const double dot = pinned_product(data, params.exact + (c < 0 ? 0 : c) * params.padded, params.dim, c >= 0);
      if (c >= 0) result.add(c, __ddiv_rn(dot, norm));
    }
    if (!there || lane != 0) return;
    const double nan = not_a_number();
    params.label[i] = usable ? result.label : -1;
    params.best[i] = usable ? result.best : nan;
    params.second[i] = usable ? result.second : nan;
  }

  // sigma of a group of classes; in float64 where float32 does not reach.
  __device__ void store_sigma(const ScoreParams& params, const Shared& shared, int64_t first_class) {
    const float square = rough_square(shared.lists.sums);
    const float inverse = 1.0f / (Products::kScale * sqrtf(square));
    if (there && certain)
#pragma unroll
      for (int e = 0; e < kEach; ++e) {
        const int64_t c = first_class + lane + e * kLanes;
        if (c < params.num_classes)
          params.sigma[i * params.num_classes + c] = value(shared.lists.sums, lane + e * kLanes) * inverse;
      }
    const bool slow = there && !certain;
    if (!__any_sync(kWholeWarp, slow)) return;
    const double square64 = pinned_dot(data, data, params.dim, slow), norm = __dsqrt_rn(square64);
    for (int64_t c = first_class; c < first_class + kClasses && c < params.num_classes; ++c) {
      const double dot = pinned_product(data, params.exact + c * params.padded, params.dim, slow);
      if (slow && lane == 0)
        params.sigma[i * params.num_classes + c] =
            has_direction(square64) ? static_cast<float>(__ddiv_rn(dot, norm)) : not_a_number();
    }
  }
};

// What is done with a slice, in which order: all groups of classes for s32, then the pinned products.
struct ScoreSteps {
  int64_t tile;
  int32_t step;

  __device__ void advance(int32_t steps) {
    if (++step == steps) {
      step = 0;
      tile += gridDim.x;
    }
  }
};

template <class T, bool kTensor, int kClasses, bool kSigma>
struct ScoreBlock {
  using Shared = ScoreShared<T, kTensor, kClasses>;
  using Stage = typename Shared::Stage;
  using Element = typename Shared::Element;
  static constexpr int kColumns = Shared::kColumns;

  const ScoreParams& params;
  int32_t slices, groups, steps;
  int64_t tiles;

  __device__ explicit ScoreBlock(const ScoreParams& given) : params(given) {
    slices = static_cast<int32_t>(ceil_div(params.dim, kColumns));
    groups = static_cast<int32_t>(ceil_div(params.num_classes, kClasses));
    steps = slices * (groups + (kSigma ? 0 : 1));
    tiles = ceil_div(params.n, kScoreRows);
  }

  __device__ bool is_exact(int32_t step) const { return step >= slices * groups; }

  // Turning round after every pass, so that what came last is asked for again first; the pinned sums go up.
  __device__ int64_t column(int32_t step) const {
    const int32_t pass = step / slices, slice = step % slices;
    return static_cast<int64_t>((groups - pass) % 2 == 0 ? slice : slices - 1 - slice) * kColumns;
  }

  __device__ void fetch(const ScoreSteps& at, Stage& stage, int thread) const {
    if (at.tile < tiles) {
      const int64_t k0 = column(at.step);
      bring_rows(at.tile * kScoreRows, k0, stage.rows, thread);
      if (!is_exact(at.step))
        bring_folded(static_cast<int64_t>(at.step / slices) * kClasses, k0, stage, thread);
      else if (Shared::kStaged)
        bring_exact(k0, stage, thread);
    }
    cp_async_commit();  // an empty group at the end, so that the count of groups stays right
  }

 private:
  __device__ void bring_rows(int64_t first, int64_t k0, T* slice, int thread) const {
    using Slice = SliceOf<T>;
    const T* data = static_cast<const T*>(params.rows);
#pragma unroll
    for (int piece = thread; piece < kScoreRows * Slice::kPieces; piece += kScoreThreads) {
      const int local = piece / Slice::kPieces, part = piece % Slice::kPieces * Slice::kPiece;
      const int64_t left = params.dim - (k0 + part);
      const int there = first + local >= params.n || left <= 0 ? 0
                        : left < Slice::kPiece                 ? static_cast<int>(left)
                                                               : Slice::kPiece;
      const T* from = there ? data + (first + local) * params.stride + k0 + part : data;
      T* to = slice + Slice::place(local, part);
      if (params.aligned) {
        cp_async_16(to, from, there * static_cast<int>(sizeof(T)));
      } else {
        for (int k = 0; k < Slice::kPiece; ++k) to[k] = k < there ? from[k] : T{};
      }
    }
  }

  __device__ void bring_folded(int64_t first_class, int64_t k0, Stage& stage, int thread) const {
    constexpr int kPieces = Shared::Products::kFoldedPieces, kPiece = kPieceBytes / sizeof(Element);
    const int64_t classes = groups * static_cast<int64_t>(kClasses);
    const Element* folded = static_cast<const Element*>(params.folded) + k0;
    Element* slice = reinterpret_cast<Element*>(stage.vectors);
    for (int piece = thread; piece < Shared::kFoldedRows * kPieces; piece += kScoreThreads) {
      const int row = piece / kPieces, part = piece % kPieces;
      const int64_t from = row / kClasses * classes + first_class + row % kClasses;  // term, then class
      cp_async_16(slice + piece_at<kPieces>(row, part) * kPiece, folded + from * params.padded + part * kPiece, 16);
    }
  }

  __device__ void bring_exact(int64_t k0, Stage& stage, int thread) const {
    constexpr int kPieces = kColumns / 2;
    double* slice = reinterpret_cast<double*>(stage.vectors);
    for (int piece = thread; piece < params.num_classes * kPieces; piece += kScoreThreads) {
      const int c = piece / kPieces, part = piece % kPieces * 2;
      cp_async_16(slice + c * Shared::kExactPitch + part, params.exact + c * params.padded + k0 + part, 16);
    }
  }
};

template <class T, bool kTensor, int kClasses, bool kSigma>
__global__ void __launch_bounds__(kScoreThreads) score_kernel(ScoreParams params) {
  using Block = ScoreBlock<T, kTensor, kClasses, kSigma>;
  using Shared = typename Block::Shared;
  using Element = typename Block::Element;
  PROTO_ENGINE_DYNAMIC_SHARED(memory);
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int thread = threadIdx.x;
  const Block block(params);
  typename Shared::Products products;
  ScoreRow<T, kTensor, kClasses> row;
  ScoreSteps now = {static_cast<int64_t>(blockIdx.x), 0}, ahead = now;
  int slot = 0, free_slot = 0;
  const auto fetch = [&] {
    block.fetch(ahead, shared.stages[free_slot], thread);
    ahead.advance(block.steps);
    free_slot = free_slot + 1 == Shared::kStages ? 0 : free_slot + 1;
  };

  products.clear();
  for (int s = 0; s < Shared::kStages - 1; ++s) fetch();
  while (now.tile < block.tiles) {
    cp_async_wait<Shared::kStages - 2>();  // the slice is there, for this thread
    __syncthreads();                       // for all of them; and the one before it has been used
    fetch();
    const typename Shared::Stage& stage = shared.stages[slot];
    if (now.step == 0) row.begin(params, now.tile, thread);
    if (!block.is_exact(now.step)) {
      products.add(stage.rows, reinterpret_cast<const Element*>(stage.vectors), thread);
      if ((now.step + 1) % block.slices == 0) {
        products.store(shared.lists.sums, thread);
        products.clear();
        __syncthreads();
        const int64_t first_class = static_cast<int64_t>(now.step / block.slices) * kClasses;
        if (kSigma)
          row.store_sigma(params, shared, first_class);
        else
          row.select(params, shared, first_class);
      }
    } else {
      if (now.step == block.slices * block.groups) row.begin_exact(params, shared);
      row.add_exact(params, stage, block.column(now.step));
      if (now.step == block.steps - 1) row.finish(params, shared);
    }
    now.advance(block.steps);
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
