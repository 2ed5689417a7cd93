// A block whose threads all run on one thread of the host, as fibers that change over only where they wait.
//
// With a seed, the threads that are ready come in a random order, and give way at atomics and after barriers:
// what depends on an order that CUDA does not promise then comes out differently. Threads that wait for what
// cannot happen any more end the launch with an error that says who waits where.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fiber.h"
#include "static_shared.h"

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline dim3 threadIdx(0, 0, 0), blockIdx(0, 0, 0), blockDim, gridDim;

namespace cuda_host {

constexpr int kWarpSize = 32;
constexpr int kPoison = 0xff;  // every byte of memory that nobody has written: a NaN of any width
constexpr std::size_t kMaxSharedBytes = 227 << 10;  // what a block may have on sm_90

struct Copy {  // one cp.async
  void* to;
  const void* from;
  int bytes;
  int group;
};

struct Thread {
  Fiber fiber;
  unsigned index = 0;
  bool started = false, left = false;
  const char* waits_for = nullptr;  // null: ready or running
  std::vector<Copy> copies;         // not carried out yet
  int groups = 0;                   // of copies, closed so far
};

// What the lanes of a warp gather for, see warp.h.
struct Warp {
  const char* meets_at = nullptr;
  int size = 0, arrived = 0;
  void* slots[kWarpSize];
};

class Block {
 public:
  // kernel() is run by every thread.
  Block(dim3 block, std::size_t shared_bytes, std::function<void()> kernel, uint64_t seed)
      : kernel_(std::move(kernel)),
        shared_bytes_(shared_bytes),
        threads_(block.x),
        warps_((block.x + 31) / 32),
        seeded_(seed != 0),
        random_(seed) {
    if (block.x == 0 || block.x > 1024 || block.y != 1 || block.z != 1)
      throw std::runtime_error("a block must have 1 to 1024 threads along x");
    if (shared_bytes > kMaxSharedBytes) throw std::runtime_error("more shared memory than a block can have");
  }

  static Block*& current() {
    static Block* block = nullptr;
    return block;
  }

  Thread& thread() { return *running_; }
  int lane() const { return static_cast<int>(running_->index) % kWarpSize; }
  Warp& warp() { return warps_[static_cast<int>(running_->index) / kWarpSize]; }
  unsigned char* shared() const { return shared_; }
  bool seeded() const { return seeded_; }
  uint64_t draw(uint64_t n) { return random_() % n; }

  // Whether `bytes` at `pointer` are dynamic shared memory of this block.
  bool is_shared(const void* pointer, std::size_t bytes) const {
    const auto* p = static_cast<const unsigned char*>(pointer);
    return p >= shared_ && p + bytes <= shared_ + shared_bytes_;
  }

  // Run the block to its end. Its dynamic shared memory is a piece of the heap of exactly the size asked for:
  // AddressSanitizer sees what lies beyond it.
  void run(dim3 index) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 1024, shared_bytes_ ? shared_bytes_ : 1) != 0) throw std::bad_alloc();
    const std::unique_ptr<void, void (*)(void*)> freed_at_the_end(memory, std::free);
    shared_ = static_cast<unsigned char*>(memory);
    std::memset(shared_, kPoison, shared_bytes_);
    poison_static_shared(kPoison);
    blockIdx = index;
    begin();
    current() = this;
    go_on(host_);
    current() = nullptr;
    if (error_.empty() && num_left_ < threads_.size()) error_ = "the block is stuck: " + who_waits();
    for (Thread& thread : threads_)
      if (thread.started && !thread.left) pool().give_back(thread.fiber.stack);
    if (!error_.empty()) throw std::runtime_error("block " + std::to_string(index.x) + ": " + error_);
  }

  // The running thread waits until another makes it ready.
  void wait(const char* what) {
    running_->waits_for = what;
    go_on(running_->fiber);
  }
  void make_ready(unsigned thread) {
    threads_[thread].waits_for = nullptr;
    ready_.push_back(thread);
  }
  // The running thread lets others go first.
  void give_way() {
    ready_.push_back(running_->index);
    go_on(running_->fiber);
  }

  // __syncthreads. All threads of the block must come: those that have left are missed.
  void barrier() {
    if (++num_at_barrier_ < threads_.size()) return wait("__syncthreads");
    num_at_barrier_ = 0;
    for (const Thread& thread : threads_)
      if (&thread != running_) make_ready(thread.index);
    if (seeded_) give_way();
  }

  // End the launch with an error; the threads stay where they are.
  [[noreturn]] void fail(const std::string& what) {
    error_ = "thread " + std::to_string(running_->index) + ": " + what;
    change_over(running_->fiber, host_, host_);
    std::abort();  // nobody comes back here
  }

 private:
  static StackPool& pool() {
    static StackPool kept;
    return kept;
  }

  void begin() {
    ready_.clear();
    next_ready_ = 0;
    error_.clear();
    num_left_ = num_at_barrier_ = 0;
    int without_warp = static_cast<int>(threads_.size());
    for (Warp& warp : warps_) {
      warp.arrived = 0;
      warp.size = std::min(kWarpSize, without_warp);
      without_warp -= warp.size;
    }
    for (unsigned t = 0; t < threads_.size(); ++t) {
      Thread& thread = threads_[t];
      thread.index = t;
      thread.started = thread.left = false;
      thread.waits_for = nullptr;
      thread.copies.clear();
      thread.groups = 0;
      ready_.push_back(t);
    }
  }

  // The thread that comes next; null when none is ready.
  Thread* choose() {
    if (next_ready_ == ready_.size()) return nullptr;
    if (seeded_) std::swap(ready_[next_ready_], ready_[next_ready_ + draw(ready_.size() - next_ready_)]);
    Thread* chosen = &threads_[ready_[next_ready_++]];
    if (next_ready_ == ready_.size()) {
      ready_.clear();
      next_ready_ = 0;
    }
    threadIdx = dim3(chosen->index, 0, 0);
    return chosen;
  }

  // Leave `from` for the thread that comes next, or for the host when there is none.
  void go_on(Fiber& from) {
    running_ = choose();
    if (running_ && !running_->started) {
      running_->started = true;
      prepare(running_->fiber, pool().take(), &Block::enter);
    }
    Fiber& to = running_ ? running_->fiber : host_;
    if (&to != &from) change_over(from, to, host_);
  }

  // Where a stack begins.
  static void enter() {
    Block& block = *current();
    arrive(block.running_->fiber, block.host_);
    block.run_threads();
  }

  // A thread that leaves hands its stack to the next one, where that has none yet.
  void run_threads() {
    for (;;) {
      kernel_();
      Thread& done = *running_;
      done.left = true;
      ++num_left_;
      running_ = choose();
      if (running_ && !running_->started) {
        running_->started = true;
        running_->fiber.stack = done.fiber.stack;
        running_->fiber.bottom = done.fiber.bottom;
        running_->fiber.bytes = done.fiber.bytes;
        running_->fiber.fake_stack = nullptr;
        continue;
      }
      pool().give_back(done.fiber.stack);
      change_over(done.fiber, running_ ? running_->fiber : host_, host_, true);
    }
  }

  std::string who_waits() const {
    std::map<std::string, std::pair<unsigned, unsigned>> places;  // how many, and the first of them
    for (const Thread& thread : threads_) {
      const std::string place = thread.left ? "left" : std::string("wait at ") + thread.waits_for;
      ++places.try_emplace(place, 0u, thread.index).first->second.first;
    }
    std::string text;
    for (const auto& [place, who] : places)
      text += (text.empty() ? "" : "; ") + std::to_string(who.first) + " threads " + place + " (thread " +
              std::to_string(who.second) + " first)";
    return text;
  }

  std::function<void()> kernel_;
  std::size_t shared_bytes_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  bool seeded_;
  std::mt19937_64 random_;
  std::vector<unsigned> ready_;
  std::size_t next_ready_ = 0;
  std::size_t num_left_ = 0, num_at_barrier_ = 0;
  unsigned char* shared_ = nullptr;
  Thread* running_ = nullptr;
  Fiber host_;
  std::string error_;
};

// kernel() in grid.x * grid.y blocks of block.x threads, one block after another; in random order with a seed.
template <class Kernel>
void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, uint64_t seed, Kernel&& kernel) {
  if (grid.x == 0 || grid.y == 0 || grid.y > 65535) throw std::runtime_error("a grid that no GPU would take");
  gridDim = grid;
  blockDim = block;
  Block runner(block, shared_bytes, std::forward<Kernel>(kernel), seed);
  std::vector<dim3> order;
  for (unsigned y = 0; y < grid.y; ++y)
    for (unsigned x = 0; x < grid.x; ++x) order.emplace_back(x, y, 0);
  if (seed)
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[runner.draw(i)]);
  for (const dim3& index : order) runner.run(index);
}

}  // namespace cuda_host
