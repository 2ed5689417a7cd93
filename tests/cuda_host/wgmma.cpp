// What the tests of the tile loop for Hopper call: its launches by plain pointers, for a device that is the host,
// and small kernels with the kinds of fault that the twins of its instructions are there to find.
#include "epilogue.cuh"
#include "wgmma_cluster_launch.cuh"

using namespace proto_engine;

namespace {

constexpr int kBoxRows = 128;

enum EpilogueName { kCount, kHistogram, kStore };

template <class Work>
const char* message_of(const Work& work) {
  static std::string message;
  try {
    const cudaError_t error = work();
    if (error == cudaSuccess) return nullptr;
    message = cudaGetErrorString(error);
  } catch (const std::exception& error) {
    message = error.what();
  }
  return message.c_str();
}

template <class T, template <class> class Epilogue>
cudaError_t launch(const TilePass& pass, const void* params) {
  const auto& typed = *static_cast<const typename Epilogue<WgmmaLoop<T>>::Params*>(params);
  return pass.loop == TileLoop::kWgmmaCluster ? launch_wgmma_clusters<T, Epilogue>(pass, typed, nullptr)
                                              : launch_wgmma<T, Epilogue>(pass, typed, nullptr);
}
template <class T>
cudaError_t launch(int64_t epilogue, const TilePass& pass, const void* params) {
  switch (epilogue) {
    case kCount:
      return launch<T, CountEpilogue>(pass, params);
    case kHistogram:
      return launch<T, HistogramEpilogue>(pass, params);
    default:
      return launch<T, StoreEpilogue>(pass, params);
  }
}

// ---- faults: one warpgroup multiplies one slice by itself, one thing at a time left out ---------------------

enum Fault : int64_t {
  kNone,
  kNoWaitForTheCopy,
  kNoFence,
  kNoCommit,
  kNoWaitForTheProduct,
  kRefilledTooEarly,
  kWrongByteCount,
  kInvisibleBarrier,
  kOneWarpOtherwise,
};

void multiply_slice(Fault fault, const CUtensorMap& map, float* out) {
  PROTO_ENGINE_DYNAMIC_SHARED(memory);
  uint64_t* full = reinterpret_cast<uint64_t*>(memory + kBoxRows * kBoxColumns * 2);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    mbarrier_init(full, 1);
    if (fault != kInvisibleBarrier) fence_mbarrier_init();
    mbarrier_arrive_expect_tx(full, kBoxRows * kBoxColumns * 2 + (fault == kWrongByteCount ? 16 : 0));
    tma_load_2d(memory, &map, full, 0, 0);
  }
  __syncthreads();
  while (fault != kNoWaitForTheCopy && !mbarrier_try_wait(full, 0)) {
  }
  float d[64] = {};
  const uint64_t operand = swizzled_operand(shared_address(memory));
  if (fault != kNoFence) wgmma_fence(d);
  for (int k = 0; k < 4; ++k)
    wgmma_64x128x16(Float16{}, d, operand + (fault == kOneWarpOtherwise && thread >= 96 ? 3 - k : k) * 2,
                    operand + k * 2, k > 0);
  if (fault != kNoCommit) wgmma_commit();
  __syncthreads();
  if (fault == kRefilledTooEarly && thread == 0) tma_load_2d(memory, &map, full, 0, 0);
  __syncthreads();
  if (fault != kNoWaitForTheProduct) wgmma_wait(d);
  for (int i = 0; i < 64; ++i)
    out[(thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8) * 128 + i / 4 * 8 + thread % 4 * 2 + i % 2] = d[i];
}

}  // namespace

extern "C" {

const char* host_wgmma(uint64_t seed, int64_t bfloat16, int64_t epilogue, const TilePass* pass, const void* params) {
  cuda_host::launch_seed = seed;
  return message_of([&] {
    return bfloat16 ? launch<BFloat16>(epilogue, *pass, params) : launch<Float16>(epilogue, *pass, params);
  });
}

int64_t host_unfinished_blocks() { return cuda_host::count_unfinished_blocks(); }

// x [128, 64] float16; out [64, 128] = x[:64] x^T
const char* host_multiply_slice(int64_t fault, const void* x, float* out) {
  cuda_host::launch_seed = 0;
  return message_of([&] {
    CUtensorMap map;
    const cudaError_t error = make_tensor_map(x, kBoxRows, kBoxColumns, kBoxColumns, kBoxRows, &map);
    if (error != cudaSuccess) return error;
    cuda_host::launch(1, 128, kBoxRows * kBoxColumns * 2 + 8, nullptr,
                      [&] { multiply_slice(static_cast<Fault>(fault), map, out); });
    return cudaSuccess;
  });
}
}
