// Python face of proto_engine.h: arrays become pointers and sizes, nothing is computed here.
// Arguments were checked in Python (ops.py, backends/cpu.py); what is checked here again guards memory.
#include <pthread.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>

#include "cpu/parallel.h"
#include "proto_engine.h"
#include "without_gil.h"

namespace py = pybind11;
using proto_engine::DType;
using proto_engine::Execution;
using proto_engine::Rows;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

// float16 and bfloat16 arrive as uint16 with the name of what they are.
Rows rows_of(const py::array& x, const std::string& dtype) {
  require(x.ndim() == 2, "x must have 2 dimensions");
  DType type;
  if (dtype == "float16")
    type = DType::kFloat16;
  else if (dtype == "bfloat16")
    type = DType::kBFloat16;
  else if (dtype == "float32")
    type = DType::kFloat32;
  else if (dtype == "float64")
    type = DType::kFloat64;
  else
    throw py::type_error("unknown element type " + dtype);
  const py::ssize_t size = type == DType::kFloat64 ? 8 : type == DType::kFloat32 ? 4 : 2;
  require(x.itemsize() == size, "x has another element size than its type");
  require(x.shape(0) < std::numeric_limits<int32_t>::max(), "x has too many rows");
  require(x.shape(1) > 0, "x has no columns");
  require(x.shape(1) <= 1 || x.strides(1) == size, "the elements of a row must be consecutive");
  require(x.shape(0) <= 1 || (x.strides(0) >= size * x.shape(1) && x.strides(0) % size == 0),
          "rows must not overlap");
  const int64_t stride = x.shape(0) > 1 ? x.strides(0) / size : x.shape(1);
  return {x.data(), x.shape(0), x.shape(1), stride, type};
}

// Runs native work without the GIL; Ctrl-C reaches it through the poll.
template <class Work>
void run_native(int num_threads, const Work& work) {
  Execution run;
  run.num_threads = std::max(1, num_threads);
  try {
    proto_engine::WithoutGil without;
    run.poll = [&without] { return without.has_signal(); };
    work(run);
  } catch (const proto_engine::Interrupted&) {
    throw py::error_already_set();
  }
}

template <class T>
void require_length(const Array<T>& a, int64_t n, const char* what) {
  require(a.size() == n, what);
}

Array<double> squared_norms(const py::array& x, const std::string& dtype, int num_threads) {
  const Rows rows = rows_of(x, dtype);
  Array<double> out(rows.count);
  double* data = out.mutable_data();
  run_native(num_threads, [&](const Execution& run) { proto_engine::squared_norms(rows, data, run); });
  return out;
}

Array<float> normalize(const py::array& x, const std::string& dtype, const Array<double>& squares, int num_threads) {
  const Rows rows = rows_of(x, dtype);
  require_length(squares, rows.count, "squares must have one entry a row");
  Array<float> out({rows.count, rows.dim});
  float* data = out.mutable_data();
  const double* q = squares.data();
  run_native(num_threads, [&](const Execution& run) { proto_engine::normalize(rows, q, data, run); });
  return out;
}

void require_indices(const Array<int64_t>& index, int64_t count) {
  const int64_t* data = index.data();
  for (py::ssize_t t = 0; t < index.size(); ++t) require(data[t] >= 0 && data[t] < count, "row index out of range");
}

Array<double> pair_similarity(const py::array& x, const std::string& dtype, const Array<double>& squares,
                              const Array<int64_t>& first, const Array<int64_t>& second, int num_threads) {
  const Rows rows = rows_of(x, dtype);
  require_length(squares, rows.count, "squares must have one entry a row");
  require_length(second, first.size(), "first and second must have one length");
  require_indices(first, rows.count);
  require_indices(second, rows.count);
  Array<double> out(first.size());
  double* data = out.mutable_data();
  const double* q = squares.data();
  const int64_t *i = first.data(), *j = second.data(), n = first.size();
  run_native(num_threads, [&](const Execution& run) { proto_engine::pair_similarity(rows, q, i, j, n, data, run); });
  return out;
}

Array<float> similarity(const Array<float>& unit, int64_t tile, int num_threads) {
  const int64_t m = unit.shape(0), d = unit.shape(1);
  Array<float> out({m, m});
  float* data = out.mutable_data();
  const float* u = unit.data();
  run_native(num_threads, [&](const Execution& run) { proto_engine::similarity(u, m, d, tile, data, run); });
  return out;
}

// Counts, how many pairs were inside, and the pairs where they were kept; the lists are emptied.
template <class T>
py::tuple bracket_result(const Array<T>& above, int64_t num_inside, int64_t capacity,
                         proto_engine::PairLists& inside) {
  const int64_t n = num_inside > capacity ? 0 : num_inside;
  Array<int32_t> row(n), column(n);
  Array<float> s(n);
  int32_t *i = row.mutable_data(), *j = column.mutable_data();
  float* value = s.mutable_data();
  if (n > 0)
    for (auto& list : inside)
      for (; !list.empty(); list.pop_front()) {
        *i++ = list.front().row;
        *j++ = list.front().column;
        *value++ = list.front().s32;
      }
  return py::make_tuple(above, num_inside, row, column, s);
}

py::tuple count_bracket(const Array<float>& unit, float lo, float hi, int64_t capacity, int64_t tile,
                        int num_threads) {
  const int64_t m = unit.shape(0), d = unit.shape(1);
  Array<int64_t> above(m);
  int64_t* out = above.mutable_data();
  const float* u = unit.data();
  proto_engine::PairLists inside;
  int64_t num_inside = 0;
  run_native(num_threads, [&](const Execution& run) {
    num_inside = proto_engine::count_bracket(u, m, d, lo, hi, capacity, tile, out, &inside, run);
  });
  return bracket_result(above, num_inside, capacity, inside);
}

// The classes of rows that lie one class after another.
void require_offsets(const Array<int64_t>& offsets, int64_t m) {
  const int64_t* data = offsets.data();
  require(offsets.size() > 1 && data[0] == 0 && data[offsets.size() - 1] == m, "offsets must go from 0 to m");
  for (py::ssize_t c = 1; c < offsets.size(); ++c) require(data[c - 1] <= data[c], "offsets must ascend");
}

py::tuple count_bracket_by_class(const Array<float>& unit, const Array<int64_t>& offsets, float lo, float hi,
                                 int64_t capacity, int64_t tile, int num_threads) {
  const int64_t m = unit.shape(0), d = unit.shape(1), num_classes = offsets.size() - 1;
  require_offsets(offsets, m);
  Array<int32_t> above({m, num_classes});
  int32_t* out = above.mutable_data();
  const float* u = unit.data();
  const int64_t* o = offsets.data();
  proto_engine::PairLists inside;
  int64_t num_inside = 0;
  run_native(num_threads, [&](const Execution& run) {
    num_inside =
        proto_engine::count_bracket_by_class(u, m, d, o, num_classes, lo, hi, capacity, tile, out, &inside, run);
  });
  return bracket_result(above, num_inside, capacity, inside);
}

py::tuple histogram(const py::array& x, const std::string& dtype, const Array<double>& squares,
                    const Array<float>& unit, double lo, double hi, double bound, int64_t bins, int64_t tile,
                    int num_threads) {
  const Rows rows = rows_of(x, dtype);
  require_length(squares, rows.count, "squares must have one entry a row");
  require_length(unit, rows.count * rows.dim, "unit must have the shape of x");
  Array<int64_t> count(bins);
  Array<double> least(bins), most(bins);
  int64_t below = 0, *counts = count.mutable_data();
  double *low = least.mutable_data(), *high = most.mutable_data();
  const double* q = squares.data();
  const float* u = unit.data();
  run_native(num_threads, [&](const Execution& run) {
    below = proto_engine::histogram(rows, q, u, lo, hi, bound, bins, tile, counts, low, high, run);
  });
  return py::make_tuple(below, count, least, most);
}

py::tuple count_threshold(const py::array& x, const std::string& dtype, const Array<double>& squares,
                          const Array<float>& unit, double cutoff, double bound, int64_t tile, int num_threads) {
  const Rows rows = rows_of(x, dtype);
  require_length(squares, rows.count, "squares must have one entry a row");
  require_length(unit, rows.count * rows.dim, "unit must have the shape of x");
  Array<int64_t> above(rows.count), below(rows.count);
  int64_t *more = above.mutable_data(), *less = below.mutable_data();
  const double* q = squares.data();
  const float* u = unit.data();
  run_native(num_threads, [&](const Execution& run) {
    proto_engine::count_threshold(rows, q, u, cutoff, bound, tile, more, less, run);
  });
  return py::make_tuple(above, below);
}

Array<int32_t> count_threshold_by_class(const py::array& x, const std::string& dtype, const Array<double>& squares,
                                        const Array<float>& unit, const Array<int64_t>& offsets, double cutoff,
                                        double bound, int64_t tile, int num_threads) {
  const Rows rows = rows_of(x, dtype);
  require_length(squares, rows.count, "squares must have one entry a row");
  require_length(unit, rows.count * rows.dim, "unit must have the shape of x");
  require_offsets(offsets, rows.count);
  const int64_t num_classes = offsets.size() - 1;
  Array<int32_t> above({rows.count, num_classes});
  int32_t* out = above.mutable_data();
  const double* q = squares.data();
  const float* u = unit.data();
  const int64_t* o = offsets.data();
  run_native(num_threads, [&](const Execution& run) {
    proto_engine::count_threshold_by_class(rows, q, u, o, num_classes, cutoff, bound, tile, out, run);
  });
  return above;
}

Array<double> extreme_similarity(const py::array& x, const std::string& dtype, const Array<double>& squares,
                                 const Array<float>& unit, const Array<int64_t>& order, const Array<int64_t>& rows,
                                 const Array<int64_t>& limit, const Array<uint8_t>& smallest, double bound,
                                 int num_threads) {
  const Rows matrix = rows_of(x, dtype);
  require_length(squares, matrix.count, "squares must have one entry a row");
  require_length(unit, matrix.count * matrix.dim, "unit must have the shape of x");
  require_length(limit, rows.size(), "limit must have one entry a listed row");
  require_length(smallest, rows.size(), "smallest must have one entry a listed row");
  require_length(order, matrix.count, "order must have one entry a row");
  require_indices(order, matrix.count);
  require_indices(rows, matrix.count);
  for (py::ssize_t t = 0; t < limit.size(); ++t)
    require(limit.data()[t] >= 0 && limit.data()[t] <= matrix.count, "limit out of range");
  Array<double> eta(rows.size());
  double* out = eta.mutable_data();
  const double* q = squares.data();
  const float* u = unit.data();
  const int64_t *o = order.data(), *r = rows.data(), *l = limit.data(), n = rows.size();
  const uint8_t* small = smallest.data();
  run_native(num_threads, [&](const Execution& run) {
    proto_engine::extreme_similarity(matrix, q, u, o, r, l, small, n, bound, out, run);
  });
  return eta;
}

Array<float> score(const py::array& x, const std::string& dtype, const Array<double>& folded, int num_threads) {
  const Rows rows = rows_of(x, dtype);
  require(folded.ndim() == 2 && folded.shape(1) == rows.dim, "folded must be [C, d]");
  const int64_t num_classes = folded.shape(0);
  Array<float> sigma({rows.count, num_classes});
  float* out = sigma.mutable_data();
  const double* f = folded.data();
  run_native(num_threads, [&](const Execution& run) { proto_engine::score(rows, f, num_classes, out, run); });
  return sigma;
}

py::tuple score_top2(const py::array& x, const std::string& dtype, const Array<double>& folded, double bound,
                     int num_threads) {
  const Rows rows = rows_of(x, dtype);
  require(folded.ndim() == 2 && folded.shape(1) == rows.dim && folded.shape(0) > 0, "folded must be [C, d]");
  const int64_t num_classes = folded.shape(0);
  Array<int64_t> label(rows.count);
  Array<double> best(rows.count), second(rows.count);
  int64_t* out = label.mutable_data();
  double *first = best.mutable_data(), *next = second.mutable_data();
  const double* f = folded.data();
  run_native(num_threads, [&](const Execution& run) {
    proto_engine::score_top2(rows, f, num_classes, bound, out, first, next, run);
  });
  return py::make_tuple(label, best, second);
}

}  // namespace

#if defined(PROTO_ENGINE_WITH_CUDA)
void bind_cuda(py::module_& core);  // cuda_bindings.cpp
#endif

PYBIND11_MODULE(_core, module) {
  module.doc() = "Native core of proto_engine; see csrc/proto_engine.h for the contract.";
  std::atexit(&proto_engine::stop_at_exit);
  pthread_atfork(nullptr, nullptr, [] { proto_engine::at_work = 0; });  // a child has none of the other threads
  module.def("set_blas", [](const py::capsule& sgemm, const py::capsule& ssyrk) {
    // SciPy publishes its BLAS as capsules named with the C signature.
    proto_engine::set_blas(reinterpret_cast<proto_engine::SgemmFunction>(sgemm.get_pointer()),
                           reinterpret_cast<proto_engine::SsyrkFunction>(ssyrk.get_pointer()));
  });
  module.def("instruction_set", &proto_engine::instruction_set);
  module.def("use_instruction_set", &proto_engine::use_instruction_set);
  module.def("squared_norms", &squared_norms);
  module.def("normalize", &normalize);
  module.def("pair_similarity", &pair_similarity);
  module.def("similarity", &similarity);
  module.def("count_bracket", &count_bracket);
  module.def("count_bracket_by_class", &count_bracket_by_class);
  module.def("histogram", &histogram);
  module.def("count_threshold", &count_threshold);
  module.def("count_threshold_by_class", &count_threshold_by_class);
  module.def("extreme_similarity", &extreme_similarity);
  module.def("score", &score);
  module.def("score_top2", &score_top2);
#if defined(PROTO_ENGINE_WITH_CUDA)
  bind_cuda(module);
  module.attr("cuda_architectures") = PROTO_ENGINE_CUDA_ARCHS_TEXT;
#else
  module.attr("cuda_architectures") = py::none();
#endif
}
