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
    if (num_items == 1) work(0, 0);
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
      for (int64_t item; !stop.load(std::memory_order_relaxed) && (item = next.fetch_add(1)) < num_items;)
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
  if (failure) std::rethrow_exception(failure);
  if (interrupted) throw Interrupted{};
}

}  // namespace proto_engine
