// Python face of a GPU's memory, streams and events, so that no other library is needed to use one.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "cuda_bindings.h"
#include "without_gil.h"

namespace py = pybind11;
using namespace proto_engine;

namespace {

// Makes a device the current one and the other one again.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    check(cudaGetDevice(&before_), "current device");
    if (device != before_) check(cudaSetDevice(device), "choosing the device");
  }
  ~OnDevice() { cudaSetDevice(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
};

// The pool that a device's memory comes from. It keeps what is given back, up to a limit: otherwise every
// wait for the device would return all of it to the driver, and the next call would wait to have it again.
constexpr uint64_t kKeptBytes = uint64_t{1} << 29;

cudaMemPool_t pool_of(int device) {
  static std::map<int, cudaMemPool_t> pools;  // under the interpreter's lock
  const auto found = pools.find(device);
  if (found != pools.end()) return found->second;
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  check(cudaMemPoolCreate(&pool, &properties), "memory pool");
  uint64_t kept = kKeptBytes;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept), "memory pool");
  return pools[device] = pool;
}

// The most that was in use since the last reset, and what is in use now, in bytes.
py::tuple pool_usage(int device, bool reset) {
  OnDevice on(device);
  const cudaMemPool_t pool = pool_of(device);
  uint64_t most = 0, now = 0, zero = 0;
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &most), "memory pool");
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &now), "memory pool");
  if (reset) check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &zero), "memory pool");
  return py::make_tuple(most, now);
}

// Memory of a device, in the order of a stream. It is given back there too, so that the stream must still be:
// `owner` keeps it, where there is one.
class DeviceMemory {
 public:
  DeviceMemory(int64_t bytes, int device, Address stream, py::object owner)
      : device_(device), stream_(at<CUstream_st>(stream)), owner_(std::move(owner)) {
    OnDevice on(device);
    check(cudaMallocFromPoolAsync(&pointer_, static_cast<size_t>(bytes > 0 ? bytes : 1), pool_of(device), stream_),
          "device memory");
  }
  ~DeviceMemory() {
    int before = 0;
    if (pointer_ == nullptr || cudaGetDevice(&before) != cudaSuccess) return;  // the process is ending
    cudaSetDevice(device_);
    cudaFreeAsync(pointer_, stream_);
    cudaSetDevice(before);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  Address pointer() const { return reinterpret_cast<Address>(pointer_); }

 private:
  int device_;
  cudaStream_t stream_;
  py::object owner_;
  void* pointer_ = nullptr;
};

// Page-locked memory of the host, which copies run from and to in the background.
class PinnedMemory {
 public:
  explicit PinnedMemory(int64_t bytes) : bytes_(bytes) {
    check(cudaHostAlloc(&pointer_, static_cast<size_t>(bytes > 0 ? bytes : 1), cudaHostAllocDefault),
          "page-locked memory");
  }
  ~PinnedMemory() {
    if (pointer_ != nullptr) cudaFreeHost(pointer_);
  }
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  py::buffer_info buffer() const {
    return py::buffer_info(static_cast<uint8_t*>(pointer_), static_cast<py::ssize_t>(bytes_));
  }

 private:
  void* pointer_ = nullptr;
  int64_t bytes_;
};

class Stream {
 public:
  explicit Stream(int device) {
    OnDevice on(device);
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
  }
  ~Stream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  Address pointer() const { return reinterpret_cast<Address>(stream_); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  explicit Event(int device) {
    OnDevice on(device);
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "event");
  }
  ~Event() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(Address stream) { check(cudaEventRecord(event_, at<CUstream_st>(stream)), "event"); }
  void wait(Address stream) { check(cudaStreamWaitEvent(at<CUstream_st>(stream), event_, 0), "event"); }
  void synchronize() {
    cudaError_t error;
    {
      WithoutGil without;
      error = cudaEventSynchronize(event_);
    }
    check(error, "event");
  }

 private:
  cudaEvent_t event_ = nullptr;
};

bool is_pinned(Address address) {
  cudaPointerAttributes found;
  if (cudaPointerGetAttributes(&found, at<void>(address)) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  return found.type == cudaMemoryTypeHost;
}

void upload(Address to, const py::array& from, Address stream) {
  if (!(from.flags() & py::array::c_style)) throw std::invalid_argument("upload: wanted a contiguous array");
  check(cudaMemcpyAsync(at<void>(to), from.data(), static_cast<size_t>(from.nbytes()), cudaMemcpyHostToDevice,
                        at<CUstream_st>(stream)),
        "copy to the device");
}

void download(py::array to, Address from, Address stream) {
  if (!(to.flags() & py::array::c_style)) throw std::invalid_argument("download: wanted a contiguous array");
  void* data = to.mutable_data();
  const size_t bytes = static_cast<size_t>(to.nbytes());
  cudaError_t error;
  {
    WithoutGil without;
    error = cudaMemcpyAsync(data, at<void>(from), bytes, cudaMemcpyDeviceToHost, at<CUstream_st>(stream));
    if (error == cudaSuccess) error = cudaStreamSynchronize(at<CUstream_st>(stream));
  }
  check(error, "copy from the device");
}

void download_async(py::array to, Address from, Address stream) {
  if (!(to.flags() & py::array::c_style)) throw std::invalid_argument("download: wanted a contiguous array");
  check(cudaMemcpyAsync(to.mutable_data(), at<void>(from), static_cast<size_t>(to.nbytes()), cudaMemcpyDeviceToHost,
                        at<CUstream_st>(stream)),
        "copy from the device");
}

// Asked for at every call and never another answer, but the runtime takes up to milliseconds to gather them.
const cudaDeviceProp& properties_of(int device) {
  static std::map<int, cudaDeviceProp> known;  // under the interpreter's lock
  const auto place = known.find(device);
  if (place != known.end()) return place->second;
  cudaDeviceProp found;
  check(cudaGetDeviceProperties(&found, device), "device properties");
  return known[device] = found;
}

py::dict device_properties(int device) {
  const cudaDeviceProp& found = properties_of(device);
  int driver = 0;
  check(cudaDriverGetVersion(&driver), "driver version");
  py::dict out;
  out["name"] = std::string(found.name);
  out["compute_capability"] = py::make_tuple(found.major, found.minor);
  out["processors"] = found.multiProcessorCount;
  out["memory"] = static_cast<int64_t>(found.totalGlobalMem);
  out["l2"] = found.l2CacheSize;
  out["driver"] = driver;
  out["runtime"] = CUDART_VERSION;
  return out;
}

}  // namespace

void bind_cuda_memory(py::module_& cuda) {
  py::class_<DeviceMemory>(cuda, "DeviceMemory")
      .def(py::init<int64_t, int, Address, py::object>(), py::arg("bytes"), py::arg("device"), py::arg("stream"),
           py::arg("owner") = py::none())
      .def_property_readonly("pointer", &DeviceMemory::pointer);
  py::class_<PinnedMemory>(cuda, "PinnedMemory", py::buffer_protocol())
      .def(py::init<int64_t>())
      .def_buffer([](PinnedMemory& memory) { return memory.buffer(); });
  py::class_<Stream>(cuda, "Stream").def(py::init<int>()).def_property_readonly("pointer", &Stream::pointer);
  py::class_<Event>(cuda, "Event")
      .def(py::init<int>())
      .def("record", &Event::record)
      .def("wait", &Event::wait)
      .def("synchronize", &Event::synchronize);
  cuda.def("is_pinned", &is_pinned);
  cuda.def("pool_usage", &pool_usage);
  cuda.def("upload", &upload);
  cuda.def("download_async", &download_async);
  cuda.def("download", &download);
  cuda.def("fill", [](Address to, int value, int64_t bytes, Address stream) {
    check(cudaMemsetAsync(at<void>(to), value, static_cast<size_t>(bytes), at<CUstream_st>(stream)), "fill");
  });
  cuda.def("copy", [](Address to, Address from, int64_t bytes, Address stream) {
    check(cudaMemcpyAsync(at<void>(to), at<void>(from), static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice,
                          at<CUstream_st>(stream)),
          "copy on the device");
  });
  cuda.def("synchronize", [](Address stream) {
    cudaError_t error;
    {
      WithoutGil without;
      error = cudaStreamSynchronize(at<CUstream_st>(stream));
    }
    check(error, "synchronize");
  });
  cuda.def("device_count", [] {
    int count = 0;
    check(cudaGetDeviceCount(&count), "counting devices");
    return count;
  });
  cuda.def("device_properties", &device_properties);
  cuda.def("current_device", [] {
    int device = 0;
    check(cudaGetDevice(&device), "current device");
    return device;
  });
  cuda.def("set_device", [](int device) { check(cudaSetDevice(device), "choosing the device"); });
  cuda.def("memory_info", [](int device) {
    OnDevice on(device);
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "memory");
    return py::make_tuple(static_cast<int64_t>(free), static_cast<int64_t>(total));
  });
}
