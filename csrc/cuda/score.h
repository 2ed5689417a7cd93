// Scores on the GPU: launch functions. Device pointers and a stream; no allocation, no synchronization; the
// error of the launch is returned. A block needs up to 160 KB of shared memory (compute capability 8.0 or
// 9.0 and their like); on a GPU with less the error is cudaErrorInvalidValue.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "proto_engine.h"

namespace proto_engine {

// Bytes of the workspace that holds the folded vectors of C classes; 256-byte aligned, as cudaMalloc gives it.
int64_t score_workspace_bytes(int64_t num_classes, int64_t dim);

// The folded vectors, made ready for rows of a type; to be done once for any number of rows.
// folded: [C, D] float64, norms at most 1 (but for rounding), workspace: score_workspace_bytes(C, D)
cudaError_t launch_prepare_folded(const double* folded, int64_t num_classes, int64_t dim, DType dtype,
                                  void* workspace, cudaStream_t stream);

// The best class of each row (ties to the lower index), its score and the best of the others (-infinity when
// C = 1), in the pinned float64 arithmetic; -1 and NaN for rows whose q is zero or not finite.
// rows.data: [n, D] on the device, workspace: as prepared for rows.dtype and rows.dim
// label: [n] int64, best: [n] float64, second: [n] float64
cudaError_t launch_score_top2(const Rows& rows, const void* workspace, int64_t num_classes, int64_t* label,
                              double* best, double* second, cudaStream_t stream);

// The same for compute capability 9.0: 16-bit rows, 16-byte aligned, of 257 to 2,048 elements, with at most 16
// classes are scored by clusters of blocks, everything else by `launch_score_top2`.
cudaError_t launch_score_top2_cluster(const Rows& rows, const void* workspace, int64_t num_classes, int64_t* label,
                                      double* best, double* second, cudaStream_t stream);

// sigma[i, c], within the bound of D + 8 roundings; NaN for rows whose q is zero or not finite.
// rows, workspace: as above, sigma: [n, C] float32
cudaError_t launch_score(const Rows& rows, const void* workspace, int64_t num_classes, float* sigma,
                         cudaStream_t stream);

}  // namespace proto_engine
