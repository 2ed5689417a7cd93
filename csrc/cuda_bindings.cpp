// Python face of cuda/proto_engine_cuda.h: addresses and sizes in, launches out.
#include "cuda_bindings.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>

#include "cuda/proto_engine_cuda.h"
#include "cuda/score.h"

namespace py = pybind11;
using namespace proto_engine;

namespace {

// (data, count, dim, stride, dtype, squares)
using RowsTuple = std::tuple<Address, int64_t, int64_t, int64_t, int32_t, Address>;
// (data, count, dim, stride, dtype, segments, scale, uniform)
using TileRowsTuple = std::tuple<Address, int64_t, int32_t, int64_t, int32_t, int32_t, Address, float>;
// (offsets, tile_start, first, last, rounds, columns, shape)
using WorkTuple = std::tuple<Address, Address, int64_t, int64_t, int64_t, int64_t, int32_t>;
// (loop, work, rows, columns)
using PassTuple = std::tuple<int32_t, WorkTuple, TileRowsTuple, TileRowsTuple>;
// (limit, smallest, best)
using ExtremesTuple = std::tuple<Address, Address, Address>;

Rows rows_of(const RowsTuple& x) {
  const auto& [data, count, dim, stride, dtype, squares] = x;
  (void)squares;
  return {at<void>(data), count, dim, stride, static_cast<DType>(dtype)};
}
DeviceRows device_rows(const RowsTuple& x) { return {rows_of(x), at<double>(std::get<5>(x))}; }

TileRows tile_rows(const TileRowsTuple& x) {
  const auto& [data, count, dim, stride, dtype, segments, scale, uniform] = x;
  return {{at<void>(data), stride, at<float>(scale), uniform, dim, segments}, count, static_cast<DType>(dtype)};
}
TilePass tile_pass(const PassTuple& x) {
  const auto& [loop, work, rows, columns] = x;
  const auto& [offsets, tile_start, first, last, rounds, num_columns, shape] = work;
  return {static_cast<TileLoop>(loop),
          {at<int64_t>(offsets), at<int64_t>(tile_start), first, last, rounds, num_columns, shape},
          tile_rows(rows),
          tile_rows(columns)};
}
Extremes extremes_of(const ExtremesTuple& x) {
  const auto& [limit, smallest, best] = x;
  return {at<int64_t>(limit), at<uint8_t>(smallest), at<uint32_t>(best)};
}

void bind_launches(py::module_& cuda) {
  using A = Address;
  cuda.def("gather",
           [](A from, int64_t from_stride, A index, int64_t n, int64_t bytes, A to, int64_t to_stride, A s) {
             check(launch_gather(at<void>(from), from_stride, at<int64_t>(index), n, bytes, at<void>(to), to_stride,
                                 at<CUstream_st>(s)),
                   "gather");
           });
  cuda.def("squares", [](const RowsTuple& x, A squares, A s) {
    check(launch_squares(rows_of(x), at<double>(squares), at<CUstream_st>(s)), "squares");
  });
  cuda.def("inverse", [](A squares, int64_t n, A inverse, A s) {
    check(launch_inverse(at<double>(squares), n, at<float>(inverse), at<CUstream_st>(s)), "inverse");
  });
  cuda.def("unit", [](const RowsTuple& x, A unit, A s) {
    check(launch_unit(device_rows(x), at<float>(unit), at<CUstream_st>(s)), "unit");
  });
  cuda.def("split", [](const RowsTuple& x, A split, int64_t padded, A s) {
    check(launch_split(device_rows(x), at<void>(split), padded, at<CUstream_st>(s)), "split");
  });
  cuda.def("pairs", [](const RowsTuple& x, A first, A second, int64_t n, A out, A s) {
    check(
        launch_pairs(device_rows(x), at<int64_t>(first), at<int64_t>(second), n, at<double>(out), at<CUstream_st>(s)),
        "pairs");
  });
  cuda.def("histogram", [](const PassTuple& pass, A states, A histogram, A s) {
    check(launch_histogram(tile_pass(pass), at<ClassState>(states), at<Counter>(histogram), at<CUstream_st>(s)),
          "histogram");
  });
  cuda.def("count", [](const PassTuple& pass, A states, A above, A entries, A histogram, A s) {
    check(launch_count(tile_pass(pass), at<ClassState>(states), at<uint32_t>(above), at<Entry>(entries),
                       at<Counter>(histogram), at<CUstream_st>(s)),
          "count");
  });
  cuda.def("count_classes", [](const PassTuple& pass, A class_of, int64_t num_classes, float lo, float hi, A above,
                               A list, A length, int64_t capacity, A s) {
    check(launch_count_classes(tile_pass(pass), at<int32_t>(class_of), num_classes, lo, hi, at<uint32_t>(above),
                               at<Entry>(list), at<Counter>(length), capacity, at<CUstream_st>(s)),
          "count_classes");
  });
  cuda.def("similarity", [](const PassTuple& pass, A out, A s) {
    check(launch_similarity(tile_pass(pass), at<float>(out), at<CUstream_st>(s)), "similarity");
  });
  cuda.def("best", [](const PassTuple& pass, const ExtremesTuple& extremes, A s) {
    check(launch_best(tile_pass(pass), extremes_of(extremes), at<CUstream_st>(s)), "best");
  });
  cuda.def("near", [](const PassTuple& pass, const ExtremesTuple& extremes, float reach, A list, A length,
                      int64_t capacity, A s) {
    check(launch_near(tile_pass(pass), extremes_of(extremes), reach, at<Entry>(list), at<Counter>(length), capacity,
                      at<CUstream_st>(s)),
          "near");
  });
  cuda.def("narrow", [](int64_t classes, A states, A histogram, double sigmas, double margin, A s) {
    check(launch_narrow(classes, at<ClassState>(states), at<Counter>(histogram), sigmas, margin, at<CUstream_st>(s)),
          "narrow");
  });
  cuda.def("settle", [](int64_t classes, A states, A histogram, double bound, A s) {
    check(launch_settle(classes, at<ClassState>(states), at<Counter>(histogram), bound, at<CUstream_st>(s)),
          "settle");
  });
  cuda.def("decide",
           [](const RowsTuple& x, int64_t classes, A offsets, A states, A entries, A above, A histogram, A s) {
             check(launch_decide(device_rows(x), classes, at<int64_t>(offsets), at<ClassState>(states),
                                 at<Entry>(entries), at<uint32_t>(above), at<Counter>(histogram), at<CUstream_st>(s)),
                   "decide");
           });
  cuda.def("cutoff", [](int64_t classes, A states, A histogram, A entries, A candidates, A s) {
    check(launch_cutoff(classes, at<ClassState>(states), at<Counter>(histogram), at<Entry>(entries),
                        at<double>(candidates), at<CUstream_st>(s)),
          "cutoff");
  });
  cuda.def("rho", [](int64_t classes, A offsets, A states, A entries, A above, A equal, A rho, A s) {
    check(launch_rho(classes, at<int64_t>(offsets), at<ClassState>(states), at<Entry>(entries), at<uint32_t>(above),
                     at<uint32_t>(equal), at<int32_t>(rho), at<CUstream_st>(s)),
          "rho");
  });
  cuda.def("top", [](int64_t classes, A offsets, A states, A rho, A top, A s) {
    check(launch_top(classes, at<int64_t>(offsets), at<ClassState>(states), at<int32_t>(rho), at<int32_t>(top),
                     at<CUstream_st>(s)),
          "top");
  });
  cuda.def("pick", [](const RowsTuple& x, int64_t classes, A offsets, A states, A rho, A top, A smallest, A may_pick,
                      int32_t p, double eta_max, A picked, A row, A density, A eta, A s) {
    check(launch_pick(device_rows(x), classes, at<int64_t>(offsets), at<ClassState>(states), at<int32_t>(rho),
                      at<int32_t>(top), at<Counter>(smallest), at<uint8_t>(may_pick), p, eta_max, at<Picked>(picked),
                      at<int32_t>(row), at<int32_t>(density), at<double>(eta), at<CUstream_st>(s)),
          "pick");
  });
  cuda.def("list_bins", [](const RowsTuple& x, A list, int64_t n, double lo, double hi, int32_t bins, A count,
                           A least, A most, A above, A s) {
    check(launch_list_bins(device_rows(x), at<Entry>(list), n, lo, hi, bins, at<Counter>(count), at<Counter>(least),
                           at<Counter>(most), at<Counter>(above), at<CUstream_st>(s)),
          "list_bins");
  });
  cuda.def("list_threshold", [](const RowsTuple& x, A list, int64_t n, double cutoff, A above, A equal, A s) {
    check(launch_list_threshold(device_rows(x), at<Entry>(list), n, cutoff, at<uint32_t>(above), at<uint32_t>(equal),
                                at<CUstream_st>(s)),
          "list_threshold");
  });
  cuda.def("list_classes",
           [](const RowsTuple& x, A list, int64_t n, double cutoff, A class_of, int64_t num_classes, A above, A s) {
             check(launch_list_classes(device_rows(x), at<Entry>(list), n, cutoff, at<int32_t>(class_of), num_classes,
                                       at<uint32_t>(above), at<CUstream_st>(s)),
                   "list_classes");
           });
  cuda.def("list_extremes", [](const RowsTuple& x, A list, int64_t n, A rows, A order, A smallest, A eta, A s) {
    check(launch_list_extremes(device_rows(x), at<Entry>(list), n, at<int64_t>(rows), at<int64_t>(order),
                               at<uint8_t>(smallest), at<Counter>(eta), at<CUstream_st>(s)),
          "list_extremes");
  });
}

void bind_scores(py::module_& cuda) {
  using A = Address;
  cuda.def("prepare_folded", [](A folded, int64_t num_classes, int64_t dim, int32_t dtype, A workspace, A s) {
    check(launch_prepare_folded(at<double>(folded), num_classes, dim, static_cast<DType>(dtype), at<void>(workspace),
                                at<CUstream_st>(s)),
          "prepare_folded");
  });
  cuda.def("score_top2", [](const RowsTuple& x, A workspace, int64_t num_classes, A label, A best, A second, A s) {
    check(launch_score_top2(rows_of(x), at<void>(workspace), num_classes, at<int64_t>(label), at<double>(best),
                            at<double>(second), at<CUstream_st>(s)),
          "score_top2");
  });
  cuda.def("score_top2_cluster",
           [](const RowsTuple& x, A workspace, int64_t num_classes, A label, A best, A second, A s) {
             check(launch_score_top2_cluster(rows_of(x), at<void>(workspace), num_classes, at<int64_t>(label),
                                             at<double>(best), at<double>(second), at<CUstream_st>(s)),
                   "score_top2_cluster");
           });
  cuda.def("score", [](const RowsTuple& x, A workspace, int64_t num_classes, A sigma, A s) {
    check(launch_score(rows_of(x), at<void>(workspace), num_classes, at<float>(sigma), at<CUstream_st>(s)), "score");
  });
}

}  // namespace

void bind_cuda(py::module_& core) {
  py::module_ cuda = core.def_submodule("cuda", "Launches on an NVIDIA GPU; see csrc/cuda/proto_engine_cuda.h.");
  bind_cuda_memory(cuda);
  bind_launches(cuda);
  bind_scores(cuda);
}
