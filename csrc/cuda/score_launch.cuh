// Shared by the launch functions of the scores: where what lies in the workspace, and the kernels' parameters.
#pragma once

#include "launch.cuh"
#include "score_row.cuh"

namespace proto_engine {

inline bool is_half(DType dtype) { return dtype == DType::kFloat16 || dtype == DType::kBFloat16; }
inline bool is_bfloat16(DType dtype) { return dtype == DType::kBFloat16; }
inline bool on_tensor_cores(DType dtype, int64_t dim) {
  return use_tensor_cores(is_half(dtype), is_bfloat16(dtype), dim);
}

// The workspace: float64 vectors [C, padded], then two 16-bit terms or one of float32 [padded classes, padded].
inline int64_t exact_bytes(int64_t num_classes, int64_t dim) { return num_classes * padded_dim(dim) * 8; }

// All but where the results go.
inline ScoreParams score_params(const Rows& rows, const void* workspace, int64_t num_classes) {
  const int64_t bytes = rows.dtype == DType::kFloat64 ? 8 : rows.dtype == DType::kFloat32 ? 4 : 2;
  ScoreParams params = {};
  params.rows = rows.data;
  params.n = rows.count;
  params.stride = rows.stride;
  params.dim = rows.dim;
  params.aligned = reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 && rows.stride * bytes % 16 == 0;
  params.num_classes = num_classes;
  params.exact = static_cast<const double*>(workspace);
  params.folded = static_cast<const unsigned char*>(workspace) + exact_bytes(num_classes, rows.dim);
  params.padded = padded_dim(rows.dim);
  params.reach = score_reach(is_half(rows.dtype), is_bfloat16(rows.dtype), rows.dim);
  return params;
}

}  // namespace proto_engine
