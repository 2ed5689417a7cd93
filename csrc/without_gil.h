// The interpreter's lock, given up while native work runs.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

namespace proto_engine {

// As pybind11's gil_scoped_release, but for threads that are still at work when Python ends: where one asks for the
// lock back, it waits here for the end of the process. Python does so itself from 3.14 on; before, it unwinds the
// thread's stack, and a destructor on the way aborts the process.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { take(); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

  // Takes the lock for a look at Ctrl-C; true when Python has an error to raise.
  bool has_signal() {
    take();
    const bool found = PyErr_CheckSignals() != 0;
    state_ = PyEval_SaveThread();
    return found;
  }

 private:
  void take() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {  // the unwinding, which no handler may end
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }

  PyThreadState* state_;
};

}  // namespace proto_engine
