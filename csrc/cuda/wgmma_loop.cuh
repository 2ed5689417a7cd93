// The tile loop for Hopper: float16 or bfloat16 rows, products by wgmma, operands by the bulk copy engine (TMA).
//
// 384 threads, three warpgroups with two roles:
//
//   producer (threads 256-383, of which one works): slice after slice of 64 columns of X, 128 rows of either
//     operand, 32 KB, into a ring of six stages. It does not stop between tiles: while the others are in an
//     epilogue it fills the ring for the next tile. It alone works out which tile that is, and leaves word
//     beside the tile's first slice.
//   two consumers (threads 0-127 and 128-255): the upper and the lower 64 rows of the tile. They share the
//     stages but never wait for each other, so that one adds up, or is in its epilogue, while the other's
//     products run. Each has an epilogue of its own: 128 threads, 64 x 128 elements, counters, a barrier.
//
// A stage goes round between two barriers: `full` ends a phase when both boxes have landed (one arrival and
// 32 KB), `empty` when all eight consumer warps have seen their products with it end. Uses of a stage are
// numbered 0, 1, 2, ...; use n waits for the phase n of `full` (parity n % 2), and may be filled after phase
// n - 1 of `empty`, whose parity is the other one, and which for n = 0 counts as ended on a fresh barrier.
//
// As in the loop for older tensor cores, sums are taken out of them every kChunk elements and added in float32
// proper: 64 registers for the sum, 64 for the chunk, which is why the producer gives its registers away.
//
// What the rows must be like (launch_wgmma checks it): 16-byte aligned, a stride of whole 16 bytes, and in
// split rows a dimension of whole slices, because a slice past the end of `high` would hold the start of `low`.
// Unsplit rows may have any dimension: the copy engine writes zeros past the end of a row, and also past the
// last row of the matrix. The rows that a class's last tile takes of the class after it are real ones; what
// comes of them is masked by scale_tile.
#pragma once

#include "hopper.cuh"
#include "mma_loop.cuh"
#include "operand.cuh"
#include "schedule.cuh"

namespace proto_engine {

template <class T>
struct WgmmaLoop {
  static constexpr int kThreads = 384, kConsumerThreads = 256;
  static constexpr int kConsumers = 2, kEpilogueThreads = kConsumerThreads / kConsumers;
  static constexpr int kRows = 2, kColumns = 32;
  static constexpr int kRowMask = 3, kColumnMask = 28;
  static constexpr int kSlice = 64, kStages = 6;
  static constexpr int kStep = 16;  // elements along k of one product
  static constexpr int kConsumerWarps = kConsumerThreads / 32;
  static constexpr uint32_t kStageBytes = 2 * kTile * kSlice * sizeof(T);
  static constexpr int kFirstRegisters = 168;  // a thread, when a block of 384 has all of the 65,536
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  static_assert(kConsumerThreads * kConsumerRegisters + (kThreads - kConsumerThreads) * kProducerRegisters <=
                    kThreads * kFirstRegisters,
                "the consumers would wait for registers for ever");

  struct Shared {
    alignas(1024) T a[kStages][kTile * kSlice];
    alignas(1024) T b[kStages][kTile * kSlice];
    uint64_t full[kStages], empty[kStages];
    Tile tile[kStages];  // the one whose first slice is here
  };

  // The stage in turn and the parity of its use.
  struct Ring {
    uint32_t stage = 0, parity = 0;
    __device__ void advance() {
      if (++stage == kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
  };

  // Of the tile; `thread` counts within the consumer.
  __device__ static int consumer() { return threadIdx.x / kEpilogueThreads; }
  __device__ static int row(int thread, int r) {
    return consumer() * (kTile / kConsumers) + thread / 32 * 16 + r * 8 + thread % 32 / 4;
  }
  __device__ static int column(int thread, int c) { return c / 2 * 8 + thread % 4 * 2 + c % 2; }
  __device__ static void sync() { named_barrier_sync(1 + consumer(), kEpilogueThreads); }

  // By one thread, before any other uses the ring. A stage may be filled again after so many releases.
  __device__ static void prepare(Shared& shared, uint32_t releases = kConsumerWarps) {
    for (int stage = 0; stage < kStages; ++stage) {
      mbarrier_init(&shared.full[stage], 1);
      mbarrier_init(&shared.empty[stage], releases);
    }
    fence_mbarrier_init();
    fence_proxy_async();
  }

  // Slices of a tile, over all segments.
  __device__ static int32_t slices(const Operand& rows) {
    return static_cast<int32_t>(ceil_div(rows.dim, kSlice)) * rows.segments;
  }

  // By one thread of the producer: both operands of a tile.
  __device__ static void bring(const CUtensorMap& rows_map, const CUtensorMap& columns_map, const Operand& rows,
                               const Operand& columns, const Tile& tile, Shared& shared, Ring& ring) {
    const int32_t i = static_cast<int32_t>(tile.row_base + tile.i0);
    const int32_t j = static_cast<int32_t>(tile.column_base + tile.j0);
    for (int segment = 0; segment < rows.segments; ++segment)
      for (int32_t k0 = 0; k0 < rows.dim; k0 += kSlice) {
        uint64_t* full = &shared.full[ring.stage];
        wait(&shared.empty[ring.stage], ring.parity ^ 1);
        if (segment == 0 && k0 == 0) shared.tile[ring.stage] = tile;  // seen by all who see the arrival
        mbarrier_arrive_expect_tx(full, kStageBytes);
        tma_load_2d(shared.a[ring.stage], &rows_map, full, row_offset(rows, segment) + k0, i);
        tma_load_2d(shared.b[ring.stage], &columns_map, full, column_offset(columns, segment) + k0, j);
        ring.advance();
      }
  }

  // By the consumers: the tile whose first slice comes next.
  __device__ static Tile next_tile(Shared& shared, const Ring& ring) {
    wait(&shared.full[ring.stage], ring.parity);
    return shared.tile[ring.stage];
  }

  // By the consumers: s = the raw products of the next tile. give_back(shared, first, next) is called by whole
  // warps when they have done with the stages from `first` to before `next`.
  template <class GiveBack>
  __device__ static void product(const Operand& rows, Shared& shared, Ring& ring, float (&s)[kRows][kColumns],
                                 const GiveBack& give_back) {
    constexpr int kSlices = kChunk / kSlice;
    constexpr uint32_t kHalf = kTile / kConsumers * kSlice * sizeof(T);
    const uint32_t half = __shfl_sync(kWholeWarp, consumer(), 0);  // the same for the warp, and known to be
    const uint64_t a = swizzled_operand(shared_address(shared.a) + half * kHalf);
    const uint64_t b = swizzled_operand(shared_address(shared.b));
    float partial[2 * kColumns];
#pragma unroll
    for (int e = 0; e < 2 * kColumns; ++e) partial[e] = s[e / kColumns][e % kColumns] = 0.0f;

    for (int32_t left = slices(rows); left > 0; left -= kSlices) {
      const Ring first = ring;
#pragma unroll
      for (int n = 0; n < kSlices; ++n)
        if (n == 0 || n < left) {
          wait(&shared.full[ring.stage], ring.parity);
          multiply(a, b, ring.stage, partial, n > 0);
          ring.advance();
        }
      wgmma_wait(partial);
      give_back(shared, first, ring);
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int c = 0; c < kColumns; ++c) s[r][c] += partial[c / 2 * 4 + r * 2 + c % 2];
    }
  }

  // For a block that shares its stages with no other.
  __device__ static void give_back(Shared& shared, Ring first, const Ring& next) {
    __syncwarp();
    if (threadIdx.x % 32 == 0)
      for (; first.stage != next.stage; first.advance()) mbarrier_arrive(&shared.empty[first.stage]);
  }

 private:
  __device__ static void wait(uint64_t* barrier, uint32_t parity) {
    while (!mbarrier_try_wait(barrier, parity)) {
    }
  }

  // All of a slice. Descriptors count in units of 16 bytes.
  __device__ static void multiply(uint64_t a, uint64_t b, uint32_t stage, float (&partial)[2 * kColumns],
                                  bool accumulate) {
    const uint32_t start = stage * (kStageBytes / 2 / 16);
    wgmma_fence(partial);
#pragma unroll
    for (int k = 0; k < kSlice / kStep; ++k) {
      const uint32_t step = start + k * (kStep * sizeof(T) / 16);
      wgmma_64x128x16(T{}, partial, a + step, b + step, accumulate || k > 0);
    }
    wgmma_commit();
  }
};

template <class Loop, class Epilogue>
struct WgmmaShared {
  typename Loop::Shared loop;
  typename Epilogue::Shared epilogue[Loop::kConsumers];
};

template <class T, class Epilogue>
__global__ void __launch_bounds__(WgmmaLoop<T>::kThreads, 1)
    wgmma_kernel(Work work, const __grid_constant__ CUtensorMap rows_map,
                 const __grid_constant__ CUtensorMap columns_map, Operand rows, Operand columns,
                 typename Epilogue::Params params) {
#if PROTO_ENGINE_HOPPER
  using Loop = WgmmaLoop<T>;
  PROTO_ENGINE_DYNAMIC_SHARED(memory);
  auto& shared = *reinterpret_cast<WgmmaShared<Loop, Epilogue>*>(memory);
  if (threadIdx.x == 0) Loop::prepare(shared.loop);
  __syncthreads();

  typename Loop::Ring ring;
  if (threadIdx.x >= Loop::kConsumerThreads) {
    set_registers_down<Loop::kProducerRegisters>();
    int32_t c = 0;
    if (threadIdx.x < Loop::kConsumerThreads + 32 && elect_one())
      for (int64_t t = work.first + blockIdx.x; t < work.last; t += gridDim.x) {
        const Tile tile = tile_at(work, t, c);
        c = tile.c;
        Loop::bring(rows_map, columns_map, rows, columns, tile, shared.loop, ring);
      }
  } else {
    set_registers_up<Loop::kConsumerRegisters>();
    const int thread = threadIdx.x % Loop::kEpilogueThreads;
    auto& own = shared.epilogue[Loop::consumer()];
    Epilogue::begin(params, own, thread);
    for (int64_t t = work.first + blockIdx.x; t < work.last; t += gridDim.x) {
      float s[Loop::kRows][Loop::kColumns];
      const Tile tile = Loop::next_tile(shared.loop, ring);
      Loop::product(rows, shared.loop, ring, s, Loop::give_back);
      scale_tile<Loop>(rows, columns, tile, s, thread);
      Epilogue::tile(params, own, tile, s, thread);
    }
    Epilogue::end(params, own, thread);
  }
#else
  asm volatile("trap;");  // compiled for a GPU without these instructions; never launched there
#endif
}

}  // namespace proto_engine
