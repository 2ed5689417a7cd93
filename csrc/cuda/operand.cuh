// The rows that a tile loop multiplies.
#pragma once

#include "elements.cuh"
#include "schedule.cuh"

namespace proto_engine {

// Rows as stored, with their inverse norms; or unit rows; or unit rows split in two.
//
// Split rows: unit rows times kSplitScale, each element the sum of a float16 `high` and a float16 `low`, in
// one row [high (dim) | low (dim)]. Three products make one of float32 quality: high high + high low + low high.
struct Operand {
  const void* data;
  int64_t stride;      // elements from one row to the next
  const float* scale;  // [M] inverse norms; null where `uniform` serves all rows
  float uniform;
  int32_t dim;
  int32_t segments;  // products: 1, or 3 of split rows
};

constexpr float kSplitScale = 1024.0f;

// Where segment `segment` of the sum finds its elements in a split row.
__host__ __device__ inline int32_t row_offset(const Operand& x, int segment) { return segment == 2 ? x.dim : 0; }
__host__ __device__ inline int32_t column_offset(const Operand& x, int segment) { return segment == 1 ? x.dim : 0; }

#if defined(PROTO_ENGINE_DEVICE_CODE)
// From raw products to s32: times both inverse norms; NaN for what is no pair.
template <class Loop>
__device__ inline void scale_tile(const Operand& rows, const Operand& columns, const Tile& tile,
                                  float (&s)[Loop::kRows][Loop::kColumns], int thread) {
  const bool inner = is_inner(tile);
  float by_column[Loop::kColumns];
#pragma unroll
  for (int c = 0; c < Loop::kColumns; ++c) {
    const int32_t j = tile.j0 + Loop::column(thread, c);
    by_column[c] = columns.scale == nullptr ? columns.uniform
                   : j < tile.columns       ? columns.scale[tile.column_base + j]
                                            : 0.0f;
  }
#pragma unroll
  for (int r = 0; r < Loop::kRows; ++r) {
    const int32_t i = tile.i0 + Loop::row(thread, r);
    const float by_row = rows.scale == nullptr ? rows.uniform : i < tile.rows ? rows.scale[tile.row_base + i] : 0.0f;
#pragma unroll
    for (int c = 0; c < Loop::kColumns; ++c) {
      s[r][c] = s[r][c] * by_row * by_column[c];
      if (!inner && !is_pair(tile, i, tile.j0 + Loop::column(thread, c))) s[r][c] = not_a_number();
    }
  }
}
#endif

}  // namespace proto_engine
