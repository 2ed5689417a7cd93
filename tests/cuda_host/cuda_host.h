// Stands in for CUDA, so that a plain C++ compiler takes the kernels as they are and runs them on the host.
// Part of the tests only.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tensor_cores.h"

using std::max;
using std::min;

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define PROTO_ENGINE_DYNAMIC_SHARED(name) unsigned char* name = cuda_host::Block::current()->shared()

inline float __uint_as_float(unsigned x) { return cuda_host::same_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return cuda_host::same_bits<unsigned>(x); }
inline float __int_as_float(int x) { return cuda_host::same_bits<float>(x); }
inline int __float_as_int(float x) { return cuda_host::same_bits<int>(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline double __longlong_as_double(long long x) { return cuda_host::same_bits<double>(x); }
inline long long __double_as_longlong(double x) { return cuda_host::same_bits<long long>(x); }

// One rounding each: compile with -ffp-contract=off.
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }

template <class T>
T __ldg(const T* pointer) {
  return *pointer;
}
