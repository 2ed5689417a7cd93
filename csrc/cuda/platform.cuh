// What the kernels may assume of their compiler. Three compile them: nvcc (the package), NVRTC (at run
// time, where there is no toolkit), and a plain C++ compiler in the tests, which supplies threads,
// shared memory and shuffles of its own.
#pragma once

#if defined(PROTO_ENGINE_CUDA_HOST) || defined(__CUDACC__)
#define PROTO_ENGINE_DEVICE_CODE  // the bindings see types and host functions only
#endif

#if defined(PROTO_ENGINE_CUDA_HOST)
#include "cuda_host.h"
#elif defined(__CUDACC_RTC__)
namespace proto_engine {
using int32_t = int;
using int64_t = long long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
}  // namespace proto_engine
#define INFINITY __int_as_float(0x7f800000)  // NVRTC has no <cmath>
#define PROTO_ENGINE_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#else
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#define PROTO_ENGINE_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#endif

namespace proto_engine {

using Counter = unsigned long long;  // what atomicAdd adds 64 bits to

constexpr unsigned kWholeWarp = 0xffffffffu;

__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

#if defined(PROTO_ENGINE_DEVICE_CODE)
__device__ inline float not_a_number() {
#if defined(PROTO_ENGINE_CUDA_HOST)
  return std::nanf("");
#else
  return __int_as_float(0x7fffffff);
#endif
}
#endif

}  // namespace proto_engine
