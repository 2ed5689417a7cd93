// One row while it is scored, its candidates and its best two; and what a block has in shared memory.
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
  static constexpr int kFoldedBytes = kFoldedRows * kColumns * sizeof(Element);
  static constexpr int kExactBytes = kStaged ? kClasses * kColumns * 8 : 0;

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
  // As row i's; -1 and NaN where it is not usable.
  __device__ void store(const ScoreParams& params, int64_t i, bool usable) const {
    const double nan = not_a_number();
    params.label[i] = usable ? label : -1;
    params.best[i] = usable ? best : nan;
    params.second[i] = usable ? second : nan;
  }
};

// Whether s32 can be relied on, from the sum of squares in float32: beyond these limits products may have over- or
// underflowed.
__device__ inline bool is_certain(float square) { return square > 0x1p-60f && square < 0x1p+60f; }

// What the s32 of a class must reach, so that it could be first or second.
__device__ inline double least_candidate(const ScoreParams& params, float runner_up, float square) {
  return static_cast<double>(runner_up) - params.reach * __dsqrt_rn(static_cast<double>(square));
}

// A row and a float64 vector straight from memory; every thread of the warp calls it.
template <class T>
__device__ inline double pinned_product(const T* row, const double* vector, int64_t dim, bool active) {
  return pinned_sum(dim, active, [row, vector](double sum, int64_t k) {
    return __dadd_rn(sum, __dmul_rn(to_double(row[k]), vector[k]));
  });
}

__device__ inline bool has_direction(double q) { return q > 0.0 && q < INFINITY; }

// One row's side of the work: eight neighboring threads, which know the same but for `lane`.
template <class T, bool kTensor, int kClasses>
struct ScoreRow {
  using Shared = ScoreShared<T, kTensor, kClasses>;
  using Products = typename Shared::Products;
  static constexpr int kEach = kClasses / kLanes;  // classes of a group that this thread looks at

  static constexpr int kSteps = Shared::kColumns / kLanes;  // of the pinned sums, in a slice
  static constexpr int kPeriod = SliceOf<T>::kPiece;        // so many steps are eight pieces of a row
  static_assert(kBlockColumns % Shared::kColumns == 0, "a block of the pinned sums is whole slices");

  int32_t local, lane;
  int32_t late;            // 1: a step behind the neighbors, so that they read other banks of the float64 vectors
  int32_t place[kPeriod];  // where the elements of the first steps are in a slice; eight pieces on, those of the next
  const T* data;
  int64_t i;
  bool there;
  bool certain;        // s32 can be relied on
  int32_t kept, next;  // candidates, and the first that has not been looked at
  float first, runner_up;
  double reach;
  int64_t c1, c2;                       // the candidates of the second pass; c2 = -1: there is but one
  double q, dot1, dot2;                 // of all blocks of columns before this one
  double lane_q, lane_dot1, lane_dot2;  // of this lane, in this block

  __device__ explicit ScoreRow(int thread) : local(thread / kLanes), lane(thread % kLanes), late(local % 2) {
#pragma unroll
    for (int t = 0; t < kPeriod; ++t) {
      const bool before = t < late;  // the step before the slice: never read, but those eight pieces on are
      const int step = before ? kPeriod - 1 : t - late;
      place[t] = static_cast<int32_t>(SliceOf<T>::place(local, step * kLanes + lane)) - before * kPeriod * kLanes;
    }
  }

  __device__ void begin(const ScoreParams& params, int64_t tile) {
    i = tile * kScoreRows + local;
    there = i < params.n;
    data = static_cast<const T*>(params.rows) + (there ? i : 0) * params.stride;
    certain = true;
    kept = next = 0;
    first = runner_up = -INFINITY;
    q = dot1 = dot2 = lane_q = lane_dot1 = lane_dot2 = 0.0;
  }

  __device__ float value(const float* sums, int column) const {
    float sum = 0.0f;
#pragma unroll
    for (int split = 0; split < Products::kSplits; ++split)
      sum += sums[(split * kScoreRows + local) * Products::kPitch + column];
    return sum;
  }

  // The sum of squares in float32.
  __device__ float rough_square(const float* sums) {
    const float square = value(sums, kClasses);
    certain = certain && is_certain(square);
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
    reach = least_candidate(params, runner_up, square);

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
    const double* vectors = Shared::kStaged ? reinterpret_cast<const double*>(stage.vectors) : params.exact + column;
    const int64_t pitch = Shared::kStaged ? Shared::kColumns : params.padded;
    const double *f1 = vectors + of1 * pitch + lane, *f2 = vectors + of2 * pitch + lane;
#pragma unroll
    for (int t = 0; t <= kSteps; ++t) {
      if (t == 0 ? late : t == kSteps && !late) continue;
      const T x = stage.rows[place[t % kPeriod] + t / kPeriod * kPeriod * kLanes];
      const int k = (t - late) * kLanes;
      lane_q = add_product(lane_q, x, x);
      lane_dot1 = __dadd_rn(lane_dot1, __dmul_rn(to_double(x), f1[k]));
      lane_dot2 = __dadd_rn(lane_dot2, __dmul_rn(to_double(x), f2[k]));
    }
    const int64_t next_column = column + Shared::kColumns;
    if (next_column % kBlockColumns != 0 && next_column < params.dim) return;
    q = __dadd_rn(q, fold_lanes(lane_q));
    dot1 = __dadd_rn(dot1, fold_lanes(lane_dot1));
    dot2 = __dadd_rn(dot2, fold_lanes(lane_dot2));
    lane_q = lane_dot1 = lane_dot2 = 0.0;
  }

  __device__ void finish(const ScoreParams& params, const Shared& shared) {
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
    if (there && lane == 0) result.store(params, i, usable);
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

}  // namespace proto_engine
