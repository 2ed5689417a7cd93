// proto_engine on the GPU: every launch function, in one page.
//
// Device pointers and a stream; 64-bit sizes; workspace passed in; no allocation, no synchronization; the
// error of the launch is returned. All can be captured into a CUDA graph.
// Letters: C classes, M rows of all classes together (offsets says where each begins), D = dim.
//
// The order of a selection, all classes in each launch:
//   squares, (unit | split)    rows made ready
//   histogram, narrow          a sample of the tiles brackets the cutoffs; twice for large classes
//   count                      the pass over all tiles: counts above the brackets, pairs inside them
//   settle, decide, locate, collect, cutoff, patch, rho
//   top, smallest, pick        prototypes
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "operand.cuh"
#include "proto_engine.h"
#include "schedule.cuh"
#include "state.cuh"

namespace proto_engine {

enum class TileLoop : int32_t { kSimt = 0, kMma = 1, kWgmma = 2, kWgmmaCluster = 3 };

// Rows for a tile loop. kSimt multiplies float32, the others float16 or bfloat16, 16-byte aligned rows.
struct TileRows {
  Operand operand;
  int64_t count;  // M
  DType dtype;
};
struct TilePass {
  TileLoop loop;
  Work work;
  TileRows rows, columns;  // the same for classes; two sets for a rectangle
};

// Rows as stored, any element type and stride.   data [count, dim], squares [count] float64
struct DeviceRows {
  Rows rows;
  const double* squares;
};

// ---- rows ---------------------------------------------------------------------------------------------
// to[r] = from[index[r]]; strides in bytes.
cudaError_t launch_gather(const void* from, int64_t from_stride, const int64_t* index, int64_t n, int64_t bytes,
                          void* to, int64_t to_stride, cudaStream_t stream);
// squares [count] float64.
cudaError_t launch_squares(const Rows& x, double* squares, cudaStream_t stream);
// inverse [n] float32 = 1 / sqrt(squares).
cudaError_t launch_inverse(const double* squares, int64_t n, float* inverse, cudaStream_t stream);
// unit [count, dim] float32.
cudaError_t launch_unit(const DeviceRows& x, float* unit, cudaStream_t stream);
// split [count, 2 * padded] float16, see Operand; padded >= dim, a multiple of 64.
cudaError_t launch_split(const DeviceRows& x, void* split, int64_t padded, cudaStream_t stream);
// out[t] = S(first[t], second[t]).   [n] float64
cudaError_t launch_pairs(const DeviceRows& x, const int64_t* first, const int64_t* second, int64_t n, double* out,
                         cudaStream_t stream);

// ---- passes over the tiles ------------------------------------------------------------------------------
// histogram [C, kBins]; adds to what is there.
cudaError_t launch_histogram(const TilePass& pass, const ClassState* states, Counter* histogram, cudaStream_t stream);
// above [M] uint32, histogram [C, kBins]; adds to what is there.
cudaError_t launch_count(const TilePass& pass, ClassState* states, uint32_t* above, Entry* entries,
                         Counter* histogram, cudaStream_t stream);
// One class of m rows, themselves of C classes in a row: above [m, C] uint32, for each row how many of every class
// have s32 > hi; pairs with lo <= s32 <= hi are listed, *length says how many. Adds to what is there.   class_of [m]
// int32
cudaError_t launch_count_classes(const TilePass& pass, const int32_t* class_of, int64_t num_classes, float lo,
                                 float hi, uint32_t* above, Entry* list, Counter* length, int64_t capacity,
                                 cudaStream_t stream);
// out [m, m] float32.
cudaError_t launch_similarity(const TilePass& pass, float* out, cudaStream_t stream);
// best [n] uint32, started from zero: the greatest +-s32 of each listed row.
cudaError_t launch_best(const TilePass& pass, const Extremes& extremes, cudaStream_t stream);
// Pairs within `reach` of the best; *length says how many there are, up to `capacity` are in the list.
cudaError_t launch_near(const TilePass& pass, const Extremes& extremes, float reach, Entry* list, Counter* length,
                        int64_t capacity, cudaStream_t stream);

// ---- from brackets to densities, a class a block --------------------------------------------------------
cudaError_t launch_narrow(int64_t num_classes, ClassState* states, Counter* histogram, double sigmas, double margin,
                          cudaStream_t stream);
cudaError_t launch_settle(int64_t num_classes, ClassState* states, Counter* histogram, double bound,
                          cudaStream_t stream);
cudaError_t launch_decide(const DeviceRows& x, int64_t num_classes, const int64_t* offsets, ClassState* states,
                          Entry* entries, uint32_t* above, Counter* histogram, cudaStream_t stream);
// candidates [C, kMaxCandidates] float64; locate, collect and cutoff in a row.
cudaError_t launch_cutoff(int64_t num_classes, ClassState* states, Counter* histogram, const Entry* entries,
                          double* candidates, cudaStream_t stream);
// equal [M] uint32, started from zero; rho [M] int32.
cudaError_t launch_rho(int64_t num_classes, const int64_t* offsets, const ClassState* states, const Entry* entries,
                       uint32_t* above, uint32_t* equal, int32_t* rho, cudaStream_t stream);

// ---- picks ------------------------------------------------------------------------------------------------
// top [C, kTop] int32.
cudaError_t launch_top(int64_t num_classes, const int64_t* offsets, const ClassState* states, const int32_t* rho,
                       int32_t* top, cudaStream_t stream);
// smallest [C, kDensest], started from all ones; may_pick [M] or null; row, density [C, p], eta [C, p].
cudaError_t launch_pick(const DeviceRows& x, int64_t num_classes, const int64_t* offsets, const ClassState* states,
                        const int32_t* rho, const int32_t* top, Counter* smallest, const uint8_t* may_pick, int32_t p,
                        double eta_max, Picked* picked, int32_t* row, int32_t* density, double* eta,
                        cudaStream_t stream);

// ---- lists of pairs of one class, looked up in float64 ----------------------------------------------------
cudaError_t launch_list_bins(const DeviceRows& x, const Entry* list, int64_t n, double lo, double hi, int32_t bins,
                             Counter* count, Counter* least, Counter* most, Counter* above, cudaStream_t stream);
cudaError_t launch_list_threshold(const DeviceRows& x, const Entry* list, int64_t n, double cutoff, uint32_t* above,
                                  uint32_t* equal, cudaStream_t stream);
cudaError_t launch_list_classes(const DeviceRows& x, const Entry* list, int64_t n, double cutoff,
                                const int32_t* class_of, int64_t num_classes, uint32_t* above, cudaStream_t stream);
cudaError_t launch_list_extremes(const DeviceRows& x, const Entry* list, int64_t n, const int64_t* rows,
                                 const int64_t* order, const uint8_t* smallest, Counter* eta, cudaStream_t stream);

}  // namespace proto_engine
