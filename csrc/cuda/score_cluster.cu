// Launch function of the scores in clusters: when they can do the work, and what they need.
#include "hopper_launch.cuh"
#include "score.h"
#include "score_cluster.cuh"
#include "score_launch.cuh"

namespace proto_engine {
namespace {

// Rows must come 16 bytes at a time, tiles be counted in 32 bits, and blocks have another one in their cluster:
// st.async is undefined without.
bool is_for_clusters(const Rows& rows, const ScoreParams& params) {
  return rows.count > 0 && rows.count <= INT32_MAX - kScoreRows && rows.stride <= INT32_MAX &&
         on_tensor_cores(rows.dtype, rows.dim) && rows.dim > kBlockColumns &&
         rows.dim <= kMostParts * kBlockColumns && params.num_classes >= 1 && params.num_classes <= kPartClasses &&
         params.aligned;
}

template <class T>
cudaError_t launch(const Rows& rows, const ScoreParams& params, cudaStream_t stream) {
  constexpr int kBytes = sizeof(PartShared<T>), kLeastRegisters = 64;
  static_assert(kBytes <= 227 * 1024, "what a block may have at compute capability 9.0");
  const auto kernel = score_cluster_kernel<T>;
  int device = 0;
  CUtensorMap map;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = check_hopper(kernel, device, kLeastRegisters);
  if (error == cudaSuccess) error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error == cudaSuccess) error = make_tensor_map(rows.data, rows.count, rows.dim, rows.stride, kScoreRows, &map);
  if (error != cudaSuccess) return error;
  return start_clusters(kernel, static_cast<unsigned>(parts_of(rows.dim)), ceil_div(rows.count, kScoreRows),
                        kPartThreads, kBytes, stream, params, map);
}

}  // namespace

cudaError_t launch_score_top2_cluster(const Rows& rows, const void* workspace, int64_t num_classes, int64_t* label,
                                      double* best, double* second, cudaStream_t stream) {
  ScoreParams params = score_params(rows, workspace, num_classes);
  if (!is_for_clusters(rows, params))
    return launch_score_top2(rows, workspace, num_classes, label, best, second, stream);
  params.label = label;
  params.best = best;
  params.second = second;
  const cudaError_t error =
      is_bfloat16(rows.dtype) ? launch<BFloat16>(rows, params, stream) : launch<Float16>(rows, params, stream);
  if (error != cudaErrorInvalidConfiguration) return error;
  return launch_score_top2(rows, workspace, num_classes, label, best, second, stream);  // a GPU that is shared out
}

}  // namespace proto_engine
