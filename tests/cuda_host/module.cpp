// The Python module of the tests: the package's own bindings of the CUDA launches, compiled for the host, and
// what only tests call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>
#include <vector>

#include "cuda_runtime.h"
#include "faults.h"
#include "schedule.cuh"
#include "state.cuh"

namespace py = pybind11;
using namespace proto_engine;

void bind_cuda(py::module_& core);  // cuda_bindings.cpp

PYBIND11_MODULE(cuda_host_core, module) {
  bind_cuda(module);

  module.def("neighbors", &faults::neighbors);
  module.def("sum_of_ones", &faults::sum_of_ones);
  module.def("copies", &faults::copies);
  module.def("left_before_barrier", &faults::left_before_barrier);
  module.def("half_a_warp_shuffles", &faults::half_a_warp_shuffles);
  module.def("a_shuffle_against_a_vote", &faults::a_shuffle_against_a_vote);
  module.def("unaligned_copy", &faults::unaligned_copy);
  module.def("overrun", &faults::overrun);
  module.def("product",
             [](bool bfloat16, const py::array_t<uint16_t>& a, const py::array_t<uint16_t>& b, py::array_t<float> c) {
               faults::product(bfloat16, a.data(), b.data(), c.mutable_data());
             });

  module.def("set_seed", [](uint64_t seed) { cuda_host::launch_seed = seed; });
  module.def("live_allocations", [] { return cuda_host::live_allocations; });

  module.def("triangle_tile", [](int64_t t, int64_t side) {
    const TilePosition at = triangle_tile(t, side);
    return py::make_tuple(at.row, at.column);
  });
  module.def("triangle_number", &triangle_number);
  // Every square of the work: (c, row, column, counts) of the tile of each block.
  module.def("squares",
             [](const std::vector<int64_t>& offsets, const std::vector<int64_t>& tile_start, int64_t last) {
               const Work work = {offsets.data(), tile_start.data(), 0, last, 1, 0, kTriangle};
               std::vector<std::vector<std::tuple<int32_t, int32_t, int32_t, bool>>> squares;
               for (int64_t q = 0;; ++q) {
                 squares.emplace_back();
                 for (int rank = 0; rank < kSquareBlocks; ++rank) {
                   SquarePosition at = {0, q};
                   const Tile tile = square_tile_at(work, at, rank);
                   if (tile.c < 0) return squares.pop_back(), squares;
                   squares.back().emplace_back(tile.c, tile.i0 / kTile, tile.j0 / kTile, tile.rows > 0);
                 }
               }
             });
  module.def("sample_tiles", &sample_tiles);
  module.def("sample_tile", [](int64_t t, int64_t side, int64_t rounds) {
    const TilePosition at = sample_tile(t, side, rounds);
    return py::make_tuple(at.row, at.column);
  });
  module.def("bin_of", &bin_of);
  module.def("bin_of32",
             py::vectorize([](float s, float lo, float hi) { return bin_of32(s, lo, bin_scale(lo, hi)); }));
  module.def("edges_of", [](int first, int last, double lo, double hi) {
    const Interval edges = edges_of(first, last, lo, hi);
    return py::make_tuple(edges.lo, edges.hi);
  });
  module.def("half_to_float", py::vectorize(&cuda_host::half_to_float));
  module.def("float_to_half", py::vectorize(&cuda_host::float_to_half));
}
