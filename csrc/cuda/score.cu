// Launch functions of the scores: which kernel, how much shared memory, how many blocks.
#include <algorithm>
#include <limits>

#include "score.cuh"
#include "score.h"
#include "score_launch.cuh"

namespace proto_engine {
namespace {

cudaError_t current_multiprocessors(int* count) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  return error != cudaSuccess ? error : cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

template <class T, bool kTensor, int kClasses, bool kSigma>
cudaError_t launch(const ScoreParams& params, cudaStream_t stream) {
  void (*const kernel)(ScoreParams) = score_kernel<T, kTensor, kClasses, kSigma>;
  constexpr int kBytes = sizeof(ScoreShared<T, kTensor, kClasses>);
  static_assert(kBytes <= kSharedBytes, "what a block may have");
  int multiprocessors = 0;
  cudaError_t error = current_multiprocessors(&multiprocessors);
  if (error == cudaSuccess) error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  const int64_t tiles = ceil_div(params.n, kScoreRows);
  const unsigned blocks = static_cast<unsigned>(std::min<int64_t>(tiles, multiprocessors));  // one block each fits
  return start(kernel, blocks, kScoreThreads, kBytes, stream, params);
}

template <class T, bool kTensor>
cudaError_t launch_group(const ScoreParams& params, cudaStream_t stream) {
  if (class_group(params.num_classes) == 16)
    return params.sigma ? launch<T, kTensor, 16, true>(params, stream)
                        : launch<T, kTensor, 16, false>(params, stream);
  return params.sigma ? launch<T, kTensor, 32, true>(params, stream) : launch<T, kTensor, 32, false>(params, stream);
}

cudaError_t launch_any(const Rows& rows, const ScoreParams& params, cudaStream_t stream) {
  if (rows.count == 0) return cudaSuccess;
  const int64_t slices = ceil_div(rows.dim, 32), groups = ceil_div(params.num_classes, 16);
  if (rows.dim < 1 || params.num_classes < 1 || groups >= std::numeric_limits<int32_t>::max() / slices)
    return cudaErrorInvalidValue;  // steps are counted in 32 bits
  const bool tensor = on_tensor_cores(rows.dtype, rows.dim);
  switch (rows.dtype) {
    case DType::kFloat16:
      return tensor ? launch_group<Float16, true>(params, stream) : launch_group<Float16, false>(params, stream);
    case DType::kBFloat16:
      return tensor ? launch_group<BFloat16, true>(params, stream) : launch_group<BFloat16, false>(params, stream);
    case DType::kFloat32:
      return launch_group<float, false>(params, stream);
    case DType::kFloat64:
      return launch_group<double, false>(params, stream);
  }
  return cudaErrorInvalidValue;
}

template <class Element>
cudaError_t fold(const double* folded, int64_t num_classes, int64_t dim, void* workspace, cudaStream_t stream) {
  constexpr int kThreads = 256;
  const int64_t count = padded_classes(num_classes) * padded_dim(dim);
  auto* terms = reinterpret_cast<Element*>(static_cast<unsigned char*>(workspace) + exact_bytes(num_classes, dim));
  return start(fold_kernel<Element>, blocks_for(count, kThreads), kThreads, 0, stream, folded, num_classes, dim,
               static_cast<double*>(workspace), terms);
}

}  // namespace

int64_t score_workspace_bytes(int64_t num_classes, int64_t dim) {
  return exact_bytes(num_classes, dim) + padded_classes(num_classes) * padded_dim(dim) * 4;
}

cudaError_t launch_prepare_folded(const double* folded, int64_t num_classes, int64_t dim, DType dtype,
                                  void* workspace, cudaStream_t stream) {
  if (num_classes < 1 || dim < 1) return cudaErrorInvalidValue;
  if (!on_tensor_cores(dtype, dim)) return fold<float>(folded, num_classes, dim, workspace, stream);
  return is_bfloat16(dtype) ? fold<BFloat16>(folded, num_classes, dim, workspace, stream)
                            : fold<Float16>(folded, num_classes, dim, workspace, stream);
}

cudaError_t launch_score_top2(const Rows& rows, const void* workspace, int64_t num_classes, int64_t* label,
                              double* best, double* second, cudaStream_t stream) {
  ScoreParams params = score_params(rows, workspace, num_classes);
  params.label = label;
  params.best = best;
  params.second = second;
  return launch_any(rows, params, stream);
}

cudaError_t launch_score(const Rows& rows, const void* workspace, int64_t num_classes, float* sigma,
                         cudaStream_t stream) {
  ScoreParams params = score_params(rows, workspace, num_classes);
  params.sigma = sigma;
  return launch_any(rows, params, stream);
}

}  // namespace proto_engine
