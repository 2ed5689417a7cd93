// A small kernel for a cluster, with the kinds of fault that the stand-in for CUDA is there to find.
#include "cuda_runtime.h"
#include "hopper.cuh"
#include "tensor_map.h"

using namespace proto_engine;

namespace {

enum Fault : int64_t {
  kNone,
  kWrongMask,
  kNoRemoteArrival,
  kEarlyExit,
  kNoBarrierAtFirst,
  kOneBlockMissesTheBarrier,
  kWrongByteCount,
  kNoSuchBlock,
};

constexpr uint32_t kBlocks = 2, kRows = 8, kUses = 3;
constexpr uint32_t kHalf = kRows * kBoxColumns;  // elements that each block brings

// Each block brings one of two halves of a stage to both of them, kUses times; thread 32 of either adds up.
void share(Fault fault, const CUtensorMap& map, uint64_t* sums) {
  PROTO_ENGINE_DYNAMIC_SHARED(memory);
  uint16_t* stage = reinterpret_cast<uint16_t*>(memory);
  uint64_t* full = reinterpret_cast<uint64_t*>(memory + kBlocks * kHalf * 2);
  uint64_t* empty = full + 1;
  const uint32_t rank = cluster_rank(), thread = threadIdx.x;
  __shared__ uint32_t own;  // not the other block's
  if (thread == 0) {
    own = rank;
    mbarrier_init(full, 1);
    mbarrier_init(empty, kBlocks);
    fence_mbarrier_init();
  }
  if (fault != kNoBarrierAtFirst && !(fault == kOneBlockMissesTheBarrier && rank == 1)) cluster_sync();
  for (uint32_t use = 0; use < kUses; ++use) {
    if (thread == 0) {
      while (!mbarrier_try_wait(empty, use % 2 ^ 1)) {
      }
      mbarrier_arrive_expect_tx(full, kBlocks * kHalf * 2 - (fault == kWrongByteCount ? 16 : 0));
      const uint16_t both = fault == kNoSuchBlock ? 7 : fault == kWrongMask ? static_cast<uint16_t>(1u << rank) : 3;
      tma_load_2d_multicast(stage + rank * kHalf, &map, full, 0, static_cast<int32_t>((use * kBlocks + rank) * kRows),
                            both);
    } else if (thread == 32) {
      while (!mbarrier_try_wait(full, use % 2)) {
      }
      uint64_t sum = 0;
      for (uint32_t e = 0; e < kBlocks * kHalf; ++e) sum += stage[e];
      sums[own * kUses + use] = sum;
      for (uint32_t other = 0; other < kBlocks; ++other)
        if (fault != kNoRemoteArrival || other == rank) mbarrier_arrive_at(empty, other);
    }
  }
  if (fault != kEarlyExit) cluster_sync();
}

}  // namespace

// x [kUses * kBlocks * kRows, 64] 16-bit numbers; sums [kBlocks, kUses]: what each block finds in its stage.
extern "C" const char* host_share(uint64_t seed, int64_t fault, const void* x, uint64_t* sums) {
  static std::string message;
  try {
    CUtensorMap map;
    const cudaError_t error = make_tensor_map(x, kUses * kBlocks * kRows, kBoxColumns, kBoxColumns, kRows, &map);
    if (error != cudaSuccess) return cudaGetErrorString(error);
    cuda_host::launch_seed = seed;
    cuda_host::launch_clusters(kBlocks, 64, kBlocks, kBlocks * kHalf * 2 + 16, nullptr,
                               [&] { share(static_cast<Fault>(fault), map, sums); });
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}
