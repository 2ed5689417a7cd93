// Launch function of the scores in clusters: when they can do the work, and what they need.
#include "cluster_launch.cuh"
#include "score.h"
#include "score_cluster.cuh"
#include "score_launch.cuh"

namespace proto_engine {
namespace {

// A part of the columns must fit a block, rows must come 16 bytes at a time; below a part much would be zeros.
bool is_for_clusters(const Rows& rows, const ScoreParams& params) {
  return rows.count > 0 && on_tensor_cores(rows.dtype, rows.dim) && rows.dim >= kBlockColumns &&
         parts_of(rows.dim) <= kMostParts && params.num_classes >= 1 && params.num_classes <= kPartClasses &&
         params.aligned;
}

template <class T>
cudaError_t launch(const ScoreParams& params, cudaStream_t stream) {
  constexpr int kBytes = sizeof(PartShared<T>);
  static_assert(kBytes <= 227 * 1024, "what a block may have at compute capability 9.0");
  const cudaError_t error =
      cudaFuncSetAttribute(score_cluster_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  return start_clusters(score_cluster_kernel<T>, static_cast<unsigned>(parts_of(params.dim)),
                        ceil_div(params.n, kScoreRows), kPartThreads, kBytes, stream, params);
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
  return is_bfloat16(rows.dtype) ? launch<BFloat16>(params, stream) : launch<Float16>(params, stream);
}

}  // namespace proto_engine
