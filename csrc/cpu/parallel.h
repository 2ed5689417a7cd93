// Work shared between threads: a counter hands out items, the calling thread waits and polls.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "proto_engine.h"

namespace proto_engine {

// When the process exits, daemon threads of Python may still have work here, and the libraries are taken down under
// it: BLAS frees its buffers. So the exit stops the work at the next item and waits until no thread is in one.
inline std::atomic<bool> exiting{false};
inline std::atomic<int> at_work{0};

struct AtWork {
  AtWork() { ++at_work; }
  ~AtWork() { --at_work; }
};

inline void stop_at_exit() {
  exiting = true;
  while (at_work > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

// For the calling thread of work that was stopped: its results must not be seen.
inline void wait_for_exit() {
  while (exiting) std::this_thread::sleep_for(std::chrono::hours(1));
}

// Calls work(worker, item) for every item in [0, num_items), each on one of run.num_threads threads.
// The calling thread only waits, so that run.poll (a look for Ctrl-C) is never behind a long tile; a single item
// it works on itself, because starting a thread takes longer than all there is to do for a class of a few rows; it
// polls after one that took its time, for there may be many such calls in a row.
// Where the system gives fewer threads, these do all of it; where it gives none, the calling thread does.
// An exception in a worker stops the others and is rethrown here.
template <class Work>
void parallel_for(int64_t num_items, const Execution& run, const Work& work) {
  if (num_items <= 1) {
    const auto began = std::chrono::steady_clock::now();
    if (num_items == 1) {
      const AtWork here;
      if (!exiting) work(0, 0);
    }
    wait_for_exit();
    const bool is_long = std::chrono::steady_clock::now() - began > std::chrono::milliseconds(5);
    if (is_long && run.poll && run.poll()) throw Interrupted{};
    return;
  }
  const int num_workers = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(run.num_threads, num_items)));
  std::atomic<int64_t> next{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable finished;
  size_t ended = 0;
  std::exception_ptr failure;

  std::vector<std::thread> threads;
  const auto body = [&](int worker) {
    try {
      const AtWork here;
      for (int64_t item; !stop.load(std::memory_order_relaxed) && !exiting && (item = next.fetch_add(1)) < num_items;)
        work(worker, item);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!failure) failure = std::current_exception();
      stop = true;
    }
    const std::lock_guard<std::mutex> lock(mutex);
    ++ended;
    finished.notify_one();
  };
  threads.reserve(num_workers);
  try {
    for (int worker = 0; worker < num_workers; ++worker) threads.emplace_back(body, worker);
  } catch (const std::exception&) {  // no more to be had: those that there are do all of it
    if (threads.empty()) body(0);
  }
  bool interrupted = false;
  {
    std::unique_lock<std::mutex> lock(mutex);
    while (!finished.wait_for(lock, std::chrono::milliseconds(50), [&] { return ended >= threads.size(); })) {
      lock.unlock();
      if (!interrupted && run.poll && run.poll()) stop = interrupted = true;
      lock.lock();
    }
  }
  for (std::thread& thread : threads) thread.join();
  wait_for_exit();
  if (failure) std::rethrow_exception(failure);
  if (interrupted) throw Interrupted{};
}

}  // namespace proto_engine
