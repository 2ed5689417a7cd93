// Launches of kernels for Hopper, and in clusters of blocks.
#pragma once

#include "launch.cuh"

namespace proto_engine {

// Whether the current device can run the kernel. For other targets it is compiled as an empty one that traps;
// the real one is known by its registers, which are so many at least.
template <class Kernel>
cudaError_t check_hopper(Kernel kernel, int device, int registers) {
#if defined(PROTO_ENGINE_CUDA_HOST)
  (void)kernel, (void)device, (void)registers;
#else
  int major = 0, minor = 0;
  cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (error != cudaSuccess) return error;
  if (major != 9 || minor != 0) return cudaErrorNoKernelImageForDevice;
  cudaFuncAttributes attributes;
  error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return error;
  if (attributes.numRegs < registers) return cudaErrorNoKernelImageForDevice;
#endif
  return cudaSuccess;
}

// One launch in clusters of `size` blocks, as many clusters as run at the same time but no more than `most`.
// cudaErrorInvalidConfiguration where not one can run.
template <class... Parameters, class... Arguments>
cudaError_t start_clusters(void (*kernel)(Parameters...), unsigned size, int64_t most, unsigned threads,
                           size_t shared, cudaStream_t stream, const Arguments&... arguments) {
#if defined(PROTO_ENGINE_CUDA_HOST)
  const int64_t clusters = most < cuda_host::kClusters ? most : cuda_host::kClusters;
  cuda_host::launch_clusters(static_cast<unsigned>(clusters) * size, threads, size, shared, stream,
                             [&] { kernel(arguments...); });
  return cudaSuccess;
#else
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = size;
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(size);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  int clusters = 0;
  const cudaError_t error = cudaOccupancyMaxActiveClusters(&clusters, kernel, &config);
  if (error != cudaSuccess) return error;
  if (clusters == 0) return cudaErrorInvalidConfiguration;
  config.gridDim = dim3(static_cast<unsigned>(most < clusters ? most : clusters) * size);
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
#endif
}

}  // namespace proto_engine
