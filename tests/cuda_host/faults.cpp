#include "faults.h"

#include "cuda_runtime.h"
#include "instructions.cuh"

using namespace proto_engine;

namespace faults {
namespace {

constexpr unsigned kThreads = 64;

template <class Kernel>
void run(std::size_t shared_bytes, Kernel&& kernel, unsigned blocks = 1, unsigned threads = kThreads) {
  cuda_host::launch(blocks, threads, shared_bytes, nullptr, kernel);
}

}  // namespace

int neighbors(bool with_barrier) {
  int wrong = 0;
  run(kThreads * sizeof(int), [&] {
    PROTO_ENGINE_DYNAMIC_SHARED(memory);
    int* numbers = reinterpret_cast<int*>(memory);
    const int thread = static_cast<int>(threadIdx.x);
    numbers[thread] = thread;
    if (with_barrier) __syncthreads();
    const int other = (thread + 1) % static_cast<int>(kThreads);
    atomicAdd(&wrong, numbers[other] != other);
  });
  return wrong;
}

int sum_of_ones(bool written_first) {
  int found = 0;
  const auto kernel = [&] {
    __shared__ int value;
    if (threadIdx.x == 0 && written_first) value = 0;
    __syncthreads();
    atomicAdd(&value, 1);
    __syncthreads();
    if (threadIdx.x == 0) found = value;
  };
  run(0, kernel, 2);  // the second block must not find what the first one left
  return found;
}

void left_before_barrier() {
  run(0, [] {
    if (threadIdx.x >= 40) return;
    __syncthreads();
  });
}
void half_a_warp_shuffles() {
  run(0, [] {
    if (threadIdx.x % 32 < 16) __shfl_xor_sync(kWholeWarp, 1, 1);
  });
}
void a_shuffle_against_a_vote() {
  run(0, [] {
    if (threadIdx.x % 2)
      __shfl_xor_sync(kWholeWarp, 1, 1);
    else
      __any_sync(kWholeWarp, 1);
  });
}

int copies(bool with_wait) {
  alignas(16) static int from[kThreads * 4];
  for (int k = 0; k < static_cast<int>(kThreads) * 4; ++k) from[k] = k;
  int wrong = 0;
  run(sizeof from, [&] {
    PROTO_ENGINE_DYNAMIC_SHARED(memory);
    int* to = reinterpret_cast<int*>(memory);
    cp_async_16(to + threadIdx.x * 4, from + threadIdx.x * 4, threadIdx.x == 0 ? 8 : 16);
    cp_async_commit();
    cp_async_commit();  // empty
    if (with_wait)
      cp_async_wait<1>();
    else
      cp_async_wait<2>();
    __syncthreads();
    for (int e = 0; e < 4; ++e) {
      const int k = static_cast<int>(threadIdx.x) * 4 + e;
      atomicAdd(&wrong, to[k] != (k == 2 || k == 3 ? 0 : k));
    }
  });
  return wrong;
}
void unaligned_copy() {
  alignas(16) static int from[8];
  run(64, [] {
    PROTO_ENGINE_DYNAMIC_SHARED(memory);
    cp_async_16(memory, from + 1, 16);
  });
}

void overrun() {
  run(kThreads * sizeof(int), [] {
    PROTO_ENGINE_DYNAMIC_SHARED(memory);
    reinterpret_cast<int*>(memory)[threadIdx.x + 1] = 1;
  });
}

namespace {
template <class T>
void product(const uint16_t* a, const uint16_t* b, float* c) {
  const auto kernel = [=] {
    PROTO_ENGINE_DYNAMIC_SHARED(memory);
    uint16_t* rows = reinterpret_cast<uint16_t*>(memory);
    const int lane = static_cast<int>(threadIdx.x);
    for (int k = lane; k < 16 * 16; k += 32) rows[k] = a[k];
    for (int k = lane; k < 8 * 16; k += 32) rows[16 * 16 + k] = b[k];
    __syncwarp();
    uint32_t x[4], y[4];
    ldmatrix_x4(x, rows + lane % 16 * 16 + lane / 16 * 8);
    ldmatrix_x4(y, rows + (16 + lane % 8) * 16 + lane / 8 % 2 * 8);
    float* place[4];
    float sum[4];
    for (int i = 0; i < 4; ++i) {
      place[i] = c + (lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2;
      sum[i] = *place[i];
    }
    mma_16x8x16(T{}, sum, x, y[0], y[1]);
    for (int i = 0; i < 4; ++i) *place[i] = sum[i];
  };
  run(24 * 16 * sizeof(uint16_t), kernel, 1, 32);
}
}  // namespace

void product(bool bfloat16, const uint16_t* a, const uint16_t* b, float* c) {
  bfloat16 ? product<BFloat16>(a, b, c) : product<Float16>(a, b, c);
}

}  // namespace faults
