// Scores of 16-bit rows on Hopper: every row is read once, and what it is multiplied with is never read again.
//
// Up to eight blocks make a cluster, and each has a part of 256 columns: of the folded vectors (D <= 2048, at most
// 16 classes), which stay in its shared memory and registers as long as it lives, and of every row that the cluster
// looks at. A part is a block of the pinned sums as well, so that parts are summed apart. The cluster takes tiles of
// 64 rows through four stations; in each round every station has another tile:
//
//   pin        tile i - 2   the pinned sums of the part for q and two classes, four threads a row; to the owner
//   products   tile i       s32 of the part with all classes, on tensor cores; each half of a part goes to the
//                           block that owns the row (a block owns 64 / parts rows of each tile)
//   finish     tile i - 3   the owner adds the parts up in order; label, best and second
//   choose     tile i - 1   the owner adds the parts up and tells all blocks which classes could be first or second
//
// while tiles i + 1 and i + 2 are on their way from memory (cp.async). What blocks tell each other is stored right
// into the other's shared memory and counted by a barrier there (st.async): no block ever waits for all of the
// cluster, and none waits for what is sent in the same round. Everything that is sent is waited for, so that no block
// leaves while another stores to its memory. Nor does anybody have to say that a buffer is free,
// because a station that writes comes after one that has waited for an answer to what was in it before:
//
//   sums[t % 2]        products of t + 2 come after pin of t, which waits for the candidates that the owner of these
//                      sums found in them
//   candidates[t % 4]  choose of t + 4 waits for the sums of t + 4, which a block sends after its finish of t
//   pinned[t % 2]      pin of t + 2 waits for the candidates of t + 2, which the owner sends after its finish of t
//
// Work of a round and block, b = 2 bytes an element. DRAM and L2: 64 * 256 b = 32 KB, nothing else. Shared memory, in
// wavefronts of 128 bytes: 256 to fill, 256 for the tensor cores, 272 + 2,176 for `pin` (8 bytes of a vector for
// 2 of a row: this is what limits it), some 300 for the sums; about 3,250. float64: 5 * 64 * 256 operations, 1,280
// cycles. At 1.75 GHz 132 multiprocessors that take 3,250 cycles for 32 KB read 2.3 TB/s.
#pragma once

#include "hopper.cuh"
#include "score_row.cuh"

namespace proto_engine {

constexpr int kPartThreads = 256;
constexpr int kMostParts = 8;  // a cluster of more blocks is not portable
constexpr int kPartClasses = 16;

__host__ __device__ inline int64_t parts_of(int64_t dim) { return ceil_div(dim, kBlockColumns); }
// Rows of a tile that a block owns; the last blocks may have fewer, or none.
__host__ __device__ inline int rows_owned(int parts) { return static_cast<int>(ceil_div(kScoreRows, parts)); }

template <class T>
struct PartShared {
  static constexpr int kTiles = 5;  // in the stations `products` to `pin`, and two on their way
  static constexpr int kPitch = kPartClasses + 4;
  static constexpr int kMostOwned = 70;  // rows owned times parts, at the most
  static constexpr int kPieces = kBlockColumns * static_cast<int>(sizeof(T)) / kPieceBytes;  // of a row

  alignas(128) T rows[kTiles][kScoreRows * kBlockColumns];
  alignas(128) double exact[kPartClasses * kBlockColumns];  // see `chunk_place`
  // What comes from the blocks of the cluster, for the rows that this one owns.
  float sums[2][2 * kMostOwned * kPitch];  // [2 parts, owned, 16 classes and the sum of squares]
  double pinned[2][kMostOwned * 3];        // [parts, owned, 3]: q and two products
  uint32_t candidates[4][kScoreRows];      // of all rows: a bit for every class
  uint64_t sums_there[2], pinned_there[2], candidates_there[4];  // barriers
};

// Where the eight values of a step of the pinned sums stand, of a class: steps 0, 1 and 2, 3 of four in the other
// half of the banks each. Odd rows are two steps late, and so never want the half that even rows want.
constexpr int kLate = 2;
__host__ __device__ constexpr int chunk_place(int step) { return (step & ~3) | (step & 1) << 1 | (step >> 1 & 1); }

// One block's share of the work on tiles of 64 rows.
template <class T>
struct Part {
  using Shared = PartShared<T>;
  static constexpr int kPitch = Shared::kPitch;
  static constexpr int kSteps = kBlockColumns / kLanes;
  static constexpr int kDeep = kBlockColumns / 2 / 16;  // products of 16 columns, of half a part

  const ScoreParams& params;
  Shared& shared;
  const int parts, part, owned;
  const int64_t first_column;
  uint32_t folded[2][2][kDeep][2];  // [term, eight classes, product]: what the tensor cores take, of half a part

  __device__ Part(const ScoreParams& given, Shared& memory)
      : params(given),
        shared(memory),
        parts(static_cast<int>(parts_of(given.dim))),
        part(static_cast<int>(cluster_rank())),
        owned(rows_owned(parts)),
        first_column(static_cast<int64_t>(part) * kBlockColumns) {
    if (threadIdx.x == 0) {
      for (uint64_t& barrier : shared.sums_there) mbarrier_init(&barrier, 1);
      for (uint64_t& barrier : shared.pinned_there) mbarrier_init(&barrier, 1);
      for (uint64_t& barrier : shared.candidates_there) mbarrier_init(&barrier, 1);
      fence_mbarrier_init();
    }
    keep_vectors();
  }

  // Rows of the tile that this block owns.
  __device__ int owned_here() const {
    const int left = kScoreRows - part * owned;
    return left < 0 ? 0 : left < owned ? left : owned;
  }

  __device__ void keep_vectors() {
    for (int at = threadIdx.x; at < kPartClasses * kBlockColumns; at += kPartThreads) {
      const int c = at / kBlockColumns, k = at % kBlockColumns;
      const int64_t column = first_column + k;
      shared.exact[c * kBlockColumns + chunk_place(k / kLanes) * kLanes + k % kLanes] =
          c < params.num_classes && column < params.padded ? params.exact[c * params.padded + column] : 0.0;
    }
    const int lane = threadIdx.x % 32, half = threadIdx.x / 128;
#pragma unroll
    for (int term = 0; term < 2; ++term)
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int deep = 0; deep < kDeep; ++deep)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int64_t line = term * kPartClasses + j * 8 + lane / 4;
            const int64_t column = first_column + half * (kBlockColumns / 2) + deep * 16 + e * 8 + lane % 4 * 2;
            const T* from = static_cast<const T*>(params.folded) + line * params.padded + column;
            folded[term][j][deep][e] = column < params.padded ? *reinterpret_cast<const uint32_t*>(from) : 0u;
          }
  }

  // This part of the rows of a tile into the ring, as this block's tile t; zeros where there are no rows or columns.
  __device__ void fetch(int64_t t, int64_t tile) const {
    constexpr int kRowStep = kPartThreads / Shared::kPieces, kPiece = SliceOf<T>::kPiece;
    const int local = threadIdx.x / Shared::kPieces, piece = threadIdx.x % Shared::kPieces;
    const int64_t column = first_column + piece * kPiece, left = params.dim - column;
    const int bytes = (left >= kPiece ? kPiece : left > 0 ? static_cast<int>(left) : 0) * static_cast<int>(sizeof(T));
    T* to = shared.rows[t % Shared::kTiles] + piece_at<Shared::kPieces>(local, piece) * kPiece;
#pragma unroll
    for (int r = 0; r < kScoreRows / kRowStep; ++r) {
      const int64_t i = tile * kScoreRows + local + r * kRowStep;
      const bool there = i < params.n && bytes > 0;
      const T* from = static_cast<const T*>(params.rows) + (there ? i * params.stride + column : 0);
      cp_async_16(to + r * kRowStep * kBlockColumns, from, there ? bytes : 0);
    }
  }

  // s32 of 16 rows and half a part, by a warp, to the owners of the rows.
  __device__ void products(int64_t t) const {
    const T* rows = shared.rows[t % Shared::kTiles];
    const int lane = threadIdx.x % 32, first_row = threadIdx.x / 32 % 4 * 16, half = threadIdx.x / 128;
    float s[2][4] = {}, norm[2] = {};
#pragma unroll
    for (int deep = 0; deep < kDeep; deep += 2) {
      uint32_t x[2][4];
      float partial[2][4] = {};
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        const int piece = half * (Shared::kPieces / 2) + (deep + step) * 2 + lane / 16;
        ldmatrix_x4(x[step], rows + piece_at<Shared::kPieces>(first_row + lane % 16, piece) * SliceOf<T>::kPiece);
        add_squares<T>(x[step], norm);
      }
#pragma unroll
      for (int term = 1; term >= 0; --term)  // the low ones first: they lose nothing beside their like
#pragma unroll
        for (int step = 0; step < 2; ++step)
#pragma unroll
          for (int j = 0; j < 2; ++j)
            mma_16x8x16(T{}, partial[j], x[step], folded[term][j][deep + step][0], folded[term][j][deep + step][1]);
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) s[j][e] += partial[j][e];
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      norm[r] += __shfl_xor_sync(kWholeWarp, norm[r], 1);
      norm[r] += __shfl_xor_sync(kWholeWarp, norm[r], 2);
      const int row = first_row + lane / 4 + 8 * r, owner = row / owned, local = row % owned;
      float* to = shared.sums[t % 2] + ((part * 2 + half) * owned + local) * kPitch;
      uint64_t* barrier = &shared.sums_there[t % 2];
#pragma unroll
      for (int j = 0; j < 2; ++j)
        store_async(to + j * 8 + lane % 4 * 2, barrier, owner, s[j][2 * r], s[j][2 * r + 1]);
      if (lane % 4 == 0) store_async(to + kPartClasses, barrier, owner, norm[r]);
    }
  }

  // Which classes could be first or second in the rows that this block owns, to all blocks; 16 threads a row.
  __device__ void choose(int64_t t) const {
    await(&shared.sums_there[t % 2], 2 * parts * owned_here() * (kPartClasses + 1) * 4, t / 2);
    const int c = threadIdx.x % kPartClasses;
    for (int begin = 0; begin < owned; begin += kPartThreads / kPartClasses) {
      const int local = begin + threadIdx.x / kPartClasses;
      const bool mine = local < owned_here();
      const float* from = shared.sums[t % 2] + (mine ? local : 0) * kPitch;
      float sum = 0.0f, square = 0.0f;
      for (int source = 0; source < 2 * parts; ++source) {
        sum += from[source * owned * kPitch + c];
        square += from[source * owned * kPitch + kPartClasses];
      }
      const float s = c < params.num_classes ? sum : -INFINITY;
      float first = s, runner_up = -INFINITY;
#pragma unroll
      for (int step = 1; step < kPartClasses; step *= 2) {
        const float other = __shfl_xor_sync(kWholeWarp, first, step);
        const float behind = __shfl_xor_sync(kWholeWarp, runner_up, step);
        runner_up = fmaxf(fminf(first, other), fmaxf(runner_up, behind));
        first = fmaxf(first, other);
      }
      const double reach = least_candidate(params, runner_up, square);
      const bool candidate = c < params.num_classes && (!is_certain(square) || static_cast<double>(s) >= reach);
      const uint32_t votes = __ballot_sync(kWholeWarp, candidate);
      const uint32_t mask = votes >> (threadIdx.x % 32 / kPartClasses * kPartClasses) & 0xffffu;
      if (mine && c < parts)
        store_async(&shared.candidates[t % 4][part * owned + local], &shared.candidates_there[t % 4], c, mask);
    }
  }

  // The pinned sums of this part with the first two candidates, to the owners of the rows. Four threads a row, two
  // lanes each.
  __device__ void pin(int64_t t) const {
    await(&shared.candidates_there[t % 4], kScoreRows * 4, t / 4);
    const int row = threadIdx.x / 4, pair = threadIdx.x % 4;
    const bool late = row % 2 != 0;
    const uint32_t mask = shared.candidates[t % 4][row], rest = mask & (mask - 1);
    const int c1 = mask ? __ffs(mask) - 1 : 0, c2 = rest ? __ffs(rest) - 1 : c1;
    const T* x = shared.rows[t % Shared::kTiles] + row * kBlockColumns + 2 * pair;
    const double *f1 = shared.exact + c1 * kBlockColumns + 2 * pair,
                 *f2 = shared.exact + c2 * kBlockColumns + 2 * pair;
    double q[2] = {}, dot1[2] = {}, dot2[2] = {};
#pragma unroll
    for (int round = 0; round < kSteps + kLate; ++round) {
      if (round < kLate ? late : round >= kSteps && !late) continue;
      const int step = late ? round - kLate : round;
      const int at = (late ? chunk_place(round - kLate) : chunk_place(round)) * kLanes;
      const uint32_t both = *reinterpret_cast<const uint32_t*>(x + (step ^ row % 8) * kLanes);
      const Doubles2 v1 = *reinterpret_cast<const Doubles2*>(f1 + at),
                     v2 = *reinterpret_cast<const Doubles2*>(f2 + at);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const T value = {static_cast<uint16_t>(e == 0 ? both & 0xffffu : both >> 16)};
        q[e] = add_product(q[e], value, value);
        dot1[e] = __dadd_rn(dot1[e], __dmul_rn(to_double(value), v1.v[e]));
        dot2[e] = __dadd_rn(dot2[e], __dmul_rn(to_double(value), v2.v[e]));
      }
    }
    const double sums[3] = {fold_pairs(q), fold_pairs(dot1), fold_pairs(dot2)};
    const int owner = row / owned, local = row % owned;
    if (pair < 3)
      store_async(&shared.pinned[t % 2][(part * owned + local) * 3 + pair], &shared.pinned_there[t % 2], owner,
                  pair == 0   ? sums[0]
                  : pair == 1 ? sums[1]
                              : sums[2]);
  }

  // The best two classes of the rows that this block owns; eight threads a row.
  __device__ void finish(int64_t t, int64_t tile) const {
    await(&shared.pinned_there[t % 2], parts * owned_here() * 3 * 8, t / 2);
    for (int begin = 0; begin < owned; begin += kPartThreads / kLanes) {
      const int local = begin + threadIdx.x / kLanes;
      const int64_t i = tile * kScoreRows + part * owned + local;
      const bool mine = local < owned_here() && i < params.n;
      const double* from = shared.pinned[t % 2] + (mine ? local : 0) * 3;
      double sums[3] = {};
      for (int source = 0; source < parts; ++source)
#pragma unroll
        for (int e = 0; e < 3; ++e) sums[e] = __dadd_rn(sums[e], from[source * owned * 3 + e]);
      const bool usable = mine && has_direction(sums[0]);
      const double norm = __dsqrt_rn(sums[0]);
      uint32_t mask = usable ? shared.candidates[t % 4][part * owned + local] : 0;
      const auto next = [&mask] {
        const int c = __ffs(mask) - 1;  // -1: there are no more
        mask &= mask - 1;
        return c;
      };
      BestTwo result;
      result.clear();
#pragma unroll
      for (int e = 1; e < 3; ++e)
        if (const int c = next(); c >= 0) result.add(c, __ddiv_rn(sums[e], norm));
      const T* data = static_cast<const T*>(params.rows) + (mine ? i : 0) * params.stride;
      while (__any_sync(kWholeWarp, mask != 0)) {
        const int c = next();
        const double dot = pinned_product(data, params.exact + (c < 0 ? 0 : c) * params.padded, params.dim, c >= 0);
        if (c >= 0) result.add(c, __ddiv_rn(dot, norm));
      }
      if (mine && threadIdx.x % kLanes == 0) result.store(params, i, usable);
    }
  }

 private:
  // Until the blocks have sent what belongs to the `use`-th filling of a buffer. By all threads.
  __device__ static void await(uint64_t* barrier, int bytes, int64_t use) {
    if (threadIdx.x == 0) mbarrier_arrive_expect_tx(barrier, static_cast<uint32_t>(bytes));
    while (!mbarrier_try_wait(barrier, use % 2)) {
    }
  }

  struct alignas(16) Doubles2 {
    double v[2];
  };

  // `fold_lanes` of lanes 2 pair and the next: 0+4, 1+5, 2+6, 3+7, then the even and the odd, then both.
  __device__ static double fold_pairs(double (&sum)[2]) {
#pragma unroll
    for (int step = 2; step >= 1; --step)
#pragma unroll
      for (int e = 0; e < 2; ++e) sum[e] = __dadd_rn(sum[e], __shfl_xor_sync(kWholeWarp, sum[e], step));
    return __dadd_rn(sum[0], sum[1]);
  }
};

// Grid: clusters of parts_of(dim) blocks; cluster b takes tiles b, b + clusters, ...
template <class T>
__global__ void __launch_bounds__(kPartThreads, 1) score_cluster_kernel(ScoreParams params) {
#if PROTO_ENGINE_HOPPER
  using Shared = PartShared<T>;
  PROTO_ENGINE_DYNAMIC_SHARED(memory);
  Part<T> part(params, *reinterpret_cast<Shared*>(memory));
  const int64_t tiles = ceil_div(params.n, kScoreRows), clusters = gridDim.x / part.parts;
  const int64_t cluster = blockIdx.x / part.parts, count = ceil_div(tiles - cluster, clusters);
  const auto tile = [=](int64_t i) { return cluster + i * clusters; };
  const auto is_there = [=](int64_t i) { return i >= 0 && i < count; };
  const auto fetch = [&](int64_t t) {
    if (is_there(t)) part.fetch(t, tile(t));
    cp_async_commit();  // an empty group at the end, so that the count of groups stays right
  };

  fetch(0);
  fetch(1);
  cp_async_wait<1>();
  cluster_sync();  // all blocks have begun, and the first tile is there for all threads
  for (int64_t i = 0; i < count + 3; ++i) {
    fetch(i + 2);
    if (is_there(i - 2)) part.pin(i - 2);
    if (is_there(i)) part.products(i);
    if (is_there(i - 3)) part.finish(i - 3, tile(i - 3));
    if (is_there(i - 1)) part.choose(i - 1);
    cp_async_wait<1>();
    __syncthreads();  // tile i + 1 is there for all threads, and tile i - 2 has been used
  }
#else
  asm volatile("trap;");  // compiled for a GPU without these instructions; never launched there
#endif
}

}  // namespace proto_engine
