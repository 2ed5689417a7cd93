// Elements as they are stored, and their values. float16 and bfloat16 are kept as their bits, so that no
// header of a toolkit is needed.
#pragma once

#include "platform.cuh"

namespace proto_engine {

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

#if defined(PROTO_ENGINE_DEVICE_CODE)

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(double x) { return static_cast<float>(x); }
__device__ inline float to_float(BFloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
__device__ inline float to_float(Float16 x) {
#if defined(PROTO_ENGINE_CUDA_HOST)
  return cuda_host::half_to_float(x.bits);
#else
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
#endif
}

// Rounded to the nearest, ties to even.
__device__ inline Float16 to_float16(float x) {
#if defined(PROTO_ENGINE_CUDA_HOST)
  return {cuda_host::float_to_half(x)};
#else
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return {bits};
#endif
}

template <class T>
__device__ inline double to_double(T x) {
  return static_cast<double>(to_float(x));
}
__device__ inline double to_double(double x) { return x; }
#if !defined(PROTO_ENGINE_CUDA_HOST)
__device__ inline double to_double(Float16 x) {  // in one instruction
  double value;
  asm("cvt.f64.f16 %0, %1;" : "=d"(value) : "h"(x.bits));
  return value;
}
#endif

// sum + a * b as the pinned sum adds it. A product of two narrow elements is exact in float64, so that one
// fused instruction gives the bits of two; for float64 they must stay two.
template <class T>
__device__ inline double add_product(double sum, T a, T b) {
  return __fma_rn(to_double(a), to_double(b), sum);
}
__device__ inline double add_product(double sum, double a, double b) { return __dadd_rn(sum, __dmul_rn(a, b)); }

#endif

}  // namespace proto_engine
