// Kernels that are wrong on purpose, for compute-sanitizer to find: a check that finds nothing here finds nothing.
//   planted bounds | race | uninitialized
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>

constexpr int kThreads = 128;

// Writes one element beyond the end.
__global__ void out_of_bounds(float* out, int n) {
  const int i = threadIdx.x;
  if (i <= n) out[i] = 1.0f;  // wanted: i < n
}

// Reads what other warps write, without a barrier between.
__global__ void race(float* out) {
  __shared__ float shared[kThreads];
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  out[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];  // wanted: __syncthreads() before
}

// Reads memory that nobody has written.
__global__ void uninitialized(const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x] + 1.0f; }

int main(int count, char** arguments) {
  const char* which = count > 1 ? arguments[1] : "";
  float *in = nullptr, *out = nullptr;
  constexpr int kElements = 64;  // for `bounds`, half of the threads
  if (cudaMalloc(&in, kThreads * sizeof(float)) != cudaSuccess) return 2;
  if (cudaMalloc(&out, (std::strcmp(which, "bounds") == 0 ? kElements : kThreads) * sizeof(float)) != cudaSuccess) {
    return 2;
  }
  if (std::strcmp(which, "bounds") == 0) {
    out_of_bounds<<<1, kThreads>>>(out, kElements);
  } else if (std::strcmp(which, "race") == 0) {
    race<<<1, kThreads>>>(out);
  } else if (std::strcmp(which, "uninitialized") == 0) {
    uninitialized<<<1, kThreads>>>(in, out);
  } else {
    std::fprintf(stderr, "wanted: bounds, race or uninitialized\n");
    return 2;
  }
  cudaDeviceSynchronize();
  cudaFree(in);
  cudaFree(out);
  return 0;
}
