// The team of a block that makes the pinned sums of its part of the columns.
#pragma once

#include "score_part.cuh"

namespace proto_engine {

// Where the eight values of a step of the pinned sums stand, of a class: steps 0, 1 and 2, 3 of four in the other
// half of the banks each. Odd rows are two steps late, and so never want the half that even rows want.
constexpr int kLate = 2;
__host__ __device__ constexpr int chunk_place(int step) { return (step & ~3) | (step & 1) << 1 | (step >> 1 & 1); }

// Four threads a row, two lanes of the pinned sums each.
template <class T>
struct PinTeam : Part<T> {
  using Part<T>::shared;
  using Shared = PartShared<T>;
  static constexpr int kSteps = kBlockColumns / kLanes;

  const int row, pair, late;
  const int owner, place_there;  // the block that owns the row, and where its sums are there
  int32_t place[8];  // where the elements of the first eight rounds are in a tile; of the next ones a box on

  __device__ PinTeam(const ScoreParams& params, Shared& memory)
      : Part<T>(params, memory),
        row(this->thread / 4),
        pair(this->thread % 4),
        late(row % 2 * kLate),
        owner(row / this->owned),
        place_there((this->part * this->owned + row % this->owned) * 3 + pair) {
#pragma unroll
    for (int round = 0; round < 8; ++round) {
      const int step = round - late;  // below 0, which is never read, a box back
      place[round] = Shared::place(row, step & 7) + 2 * pair - (step < 0 ? Shared::kBox : 0);
    }
    keep_vectors();
  }

  __device__ void keep_vectors() {
    const ScoreParams& params = this->params;
    for (int at = this->thread; at < kPartClasses * kBlockColumns; at += kTeamThreads) {
      const int c = at / kBlockColumns, k = at % kBlockColumns;
      const int64_t column = this->first_column + k;
      shared.exact[c * kBlockColumns + chunk_place(k / kLanes) * kLanes + k % kLanes] =
          c < params.num_classes && column < params.padded ? params.exact[c * params.padded + column] : 0.0;
    }
  }

  // q and the products with the first two candidates of tile t, to the owners of the rows.
  __device__ void pin(int t) const {
    this->await(&shared.candidates_there[t % 4], t / 4, kScoreRows * 4);
    const uint32_t mask = shared.candidates[t % 4][row], rest = mask & (mask - 1);
    const int c1 = mask ? __ffs(mask) - 1 : 0, c2 = rest ? __ffs(rest) - 1 : c1;
    const T* x = shared.rows[t % Shared::kTiles];
    const double *f1[2], *f2[2];  // two steps back where late: a chunk or three, by which two of four steps it is
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int back = late ? (j == 0 ? 3 : 1) * kLanes : 0;
      f1[j] = shared.exact + c1 * kBlockColumns + 2 * pair - back;
      f2[j] = shared.exact + c2 * kBlockColumns + 2 * pair - back;
    }
    double q[2] = {}, dot1[2] = {}, dot2[2] = {};
#pragma unroll
    for (int round = 0; round < kSteps + kLate; ++round) {
      if (round < kLate ? late != 0 : round >= kSteps && late == 0) continue;
      const int at = chunk_place(round) * kLanes;
      const uint32_t both = *reinterpret_cast<const uint32_t*>(x + place[round % 8] + round / 8 * Shared::kBox);
      const Doubles2 v1 = *reinterpret_cast<const Doubles2*>(f1[round / 2 % 2] + at);
      const Doubles2 v2 = *reinterpret_cast<const Doubles2*>(f2[round / 2 % 2] + at);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const double value = to_double(T{static_cast<uint16_t>(e == 0 ? both & 0xffffu : both >> 16)});
        q[e] = __fma_rn(value, value, q[e]);  // the square of 16 bits is exact: fused or not, the same
        dot1[e] = __dadd_rn(dot1[e], __dmul_rn(value, v1.v[e]));
        dot2[e] = __dadd_rn(dot2[e], __dmul_rn(value, v2.v[e]));
      }
    }
    const double sums[3] = {fold_pairs(q), fold_pairs(dot1), fold_pairs(dot2)};
    if (pair < 3)
      store_async(&shared.pinned[t % 2][place_there], &shared.pinned_there[t % 2], owner,
                  pair == 0   ? sums[0]
                  : pair == 1 ? sums[1]
                              : sums[2]);
  }

 private:
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

}  // namespace proto_engine
