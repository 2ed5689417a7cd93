// One persistent kernel for every pass over the tiles: a tile loop, then an epilogue, tile after tile.
//
// Grid: as many blocks as run at the same time; block b takes tiles first + b, first + b + gridDim.x, ...
// Nothing is allocated and nothing is stored but what the epilogue keeps.
#pragma once

#include "epilogue.cuh"
#include "operand.cuh"

namespace proto_engine {

template <class Loop, class Epilogue>
struct TileShared {
  typename Loop::Shared loop;
  typename Epilogue::Shared epilogue;
};

template <class Loop, class Epilogue>
__global__ void __launch_bounds__(Loop::kThreads, Loop::kBlocks)
    tile_kernel(Work work, Operand rows, Operand columns, typename Epilogue::Params params) {
  PROTO_ENGINE_DYNAMIC_SHARED(memory);
  auto& shared = *reinterpret_cast<TileShared<Loop, Epilogue>*>(memory);
  const int thread = threadIdx.x;
  Epilogue::begin(params, shared.epilogue, thread);
  int32_t c = 0;
  for (int64_t t = work.first + blockIdx.x; t < work.last; t += gridDim.x) {
    const Tile tile = tile_at(work, t, c);
    c = tile.c;
    float s[Loop::kRows][Loop::kColumns];
    Loop::product(rows, columns, tile, shared.loop, s, thread);
    scale_tile<Loop>(rows, columns, tile, s, thread);
    Epilogue::tile(params, shared.epilogue, tile, s, thread);
  }
  Epilogue::end(params, shared.epilogue, thread);
}

}  // namespace proto_engine
