// The team of a block that multiplies its part of the columns on tensor cores, and decides about the rows that the
// block owns: which classes could be first or second, and in the end which are.
#pragma once

#include "score_part.cuh"

namespace proto_engine {

template <class T>
struct SumsTeam : Part<T> {
  using Part<T>::params;
  using Part<T>::shared;
  using Part<T>::thread;
  using Part<T>::parts;
  using Part<T>::part;
  using Part<T>::owned;
  using Part<T>::owned_here;
  using Shared = PartShared<T>;
  static constexpr int kDeep = kBlockColumns / 2 / 16;  // products of 16 columns, of half a part
  static constexpr int kWarpRows = 16;                  // of a warp: four times 16 rows, and two halves of the part

  const int lane, half, first_row;
  int owner[2], line_there[2];  // of rows lane / 4 and the eighth from there: the block that owns it, its line there
  uint32_t folded[2][2][kDeep][2];  // [term, eight classes, product]: what the tensor cores take, of half a part

  __device__ SumsTeam(const ScoreParams& given, Shared& memory)
      : Part<T>(given, memory),
        lane(this->thread % 32),
        half(this->thread / 128),
        first_row(this->thread / 32 % 4 * kWarpRows) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first_row + lane / 4 + 8 * r;
      owner[r] = row / owned;
      line_there[r] = (part * 2 + half) * owned + row % owned;
    }
    keep_vectors();
  }

  __device__ void keep_vectors() {
#pragma unroll
    for (int term = 0; term < 2; ++term)
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int deep = 0; deep < kDeep; ++deep)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int64_t line = term * kPartClasses + j * 8 + lane / 4;
            const int64_t column = this->first_column + half * (kBlockColumns / 2) + deep * 16 + e * 8 + lane % 4 * 2;
            const T* from = static_cast<const T*>(params.folded) + line * params.padded + column;
            folded[term][j][deep][e] = column < params.padded ? *reinterpret_cast<const uint32_t*>(from) : 0u;
          }
  }

  // s32 of 16 rows and half a part, by a warp, to the owners of the rows. What the tensor cores take of rows is what
  // they take of columns, so that the rows' squares are on the diagonals of two more products. Their sum over half a
  // part may be 3 * 128 roundings off, and the norm half of that: less than the D + 16 of score_reach, as D > 256.
  __device__ void products(int t) const {
    this->await(&shared.rows_there[t % Shared::kTiles], t / Shared::kTiles);
    const T* rows = shared.rows[t % Shared::kTiles];
    float s[2][4] = {}, square[2][4] = {};
#pragma unroll
    for (int deep = 0; deep < kDeep; deep += 2) {
      uint32_t x[2][4];
      float partial[2][4] = {};
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        const int piece = half * (kBlockColumns / 16) + (deep + step) * 2 + lane / 16;
        ldmatrix_x4(x[step], rows + Shared::place(first_row + lane % 16, piece));
        mma_16x8x16(T{}, square[0], x[step], x[step][0], x[step][2]);
        mma_16x8x16(T{}, square[1], x[step], x[step][1], x[step][3]);
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
    uint64_t* barrier = &shared.sums_there[t % 2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float* to = shared.sums[t % 2] + line_there[r] * kPartClasses + lane % 4 * 2;
#pragma unroll
      for (int j = 0; j < 2; ++j) store_async(to + j * 8, barrier, owner[r], s[j][2 * r], s[j][2 * r + 1]);
      const int row = lane / 4;  // its column in this product is row, and is in the hands of thread row / 2 of four
      if (lane % 4 == row / 2)
        store_async(&shared.squares[t % 2][line_there[r]], barrier, owner[r],
                    row % 2 == 0 ? square[r][2 * r] : square[r][2 * r + 1]);
    }
  }

  // Which classes could be first or second in the rows that this block owns, to all blocks; 16 threads a row.
  __device__ void choose(int t) const {
    this->await(&shared.sums_there[t % 2], t / 2, 2 * parts * owned_here * (kPartClasses + 1) * 4);
    const int c = thread % kPartClasses;
    for (int begin = thread / 32 * 2; begin < owned_here; begin += kTeamThreads / kPartClasses) {  // by whole warps
      const int local = begin + thread % 32 / kPartClasses;
      const bool mine = local < owned_here;
      const int line = mine ? local : 0;
      float sum = 0.0f, square = 0.0f;
      for (int source = 0; source < 2 * parts; ++source) {
        sum += shared.sums[t % 2][(source * owned + line) * kPartClasses + c];
        square += shared.squares[t % 2][source * owned + line];
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
      const uint32_t mask = votes >> (lane / kPartClasses * kPartClasses) & 0xffffu;
      if (mine && c < parts)
        store_async(&shared.candidates[t % 4][part * owned + local], &shared.candidates_there[t % 4], c, mask);
    }
  }

  // The best two classes of the rows that this block owns; eight threads a row.
  __device__ void finish(int t, int64_t tile) const {
    this->await(&shared.pinned_there[t % 2], t / 2, parts * owned_here * 3 * 8);
    for (int begin = thread / 32 * 4; begin < owned_here; begin += kTeamThreads / kLanes) {  // by whole warps
      const int local = begin + lane / kLanes;
      const int64_t i = tile * kScoreRows + part * owned + local;
      const bool mine = local < owned_here && i < params.n;
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
      if (mine && lane % kLanes == 0) result.store(params, i, usable);
    }
  }
};

}  // namespace proto_engine
