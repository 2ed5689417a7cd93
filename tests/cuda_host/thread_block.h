// Blocks, and clusters of them: their threads, shared memory and barriers. Threads that wait for what cannot happen
// any more end the launch with an error that says who waits where.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>

#include "scheduler.h"
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
constexpr unsigned kMostBlocksOfCluster = 8;

// What the lanes of a warp gather for, see warp.h.
struct Warp {
  const char* meets_at = nullptr;
  int size = 0, arrived = 0;
  void* slots[kWarpSize];
};

class Cluster;

class Block {
 public:
  Block(Cluster& cluster, Scheduler& scheduler, unsigned rank, unsigned num_threads, std::size_t shared_bytes)
      : cluster_(cluster),
        scheduler_(scheduler),
        rank_(rank),
        shared_bytes_(shared_bytes),
        threads_(num_threads),
        warps_((num_threads + 31) / 32) {}

  // That of the running thread.
  static Block*& current() {
    static Block* block = nullptr;
    return block;
  }

  Cluster& cluster() { return cluster_; }
  unsigned rank() const { return rank_; }
  uint64_t serial() const { return serial_; }  // no two runs of blocks have the same, nor 0
  std::vector<Thread>& threads() { return threads_; }
  Thread& thread() { return scheduler_.thread(); }
  int lane() { return static_cast<int>(thread().index) % kWarpSize; }
  Warp& warp() { return warps_[static_cast<int>(thread().index) / kWarpSize]; }
  unsigned char* shared() const { return shared_; }
  bool seeded() const { return scheduler_.seeded(); }
  uint64_t draw(uint64_t n) { return scheduler_.draw(n); }
  bool has_left() const {
    return std::all_of(threads_.begin(), threads_.end(), [](const Thread& thread) { return thread.left; });
  }

  // Whether `bytes` at `pointer` are dynamic shared memory of this block.
  bool is_shared(const void* pointer, std::size_t bytes) const {
    const auto* p = static_cast<const unsigned char*>(pointer);
    return p >= shared_ && p + bytes <= shared_ + shared_bytes_;
  }

  // Its dynamic shared memory is a piece of the heap of exactly the size asked for: AddressSanitizer sees what lies
  // beyond it.
  void begin(dim3 index) {
    static uint64_t runs = 0;
    serial_ = ++runs;
    index_ = index;
    void* memory = nullptr;
    if (posix_memalign(&memory, 1024, shared_bytes_ ? shared_bytes_ : 1) != 0) throw std::bad_alloc();
    memory_.reset(memory);
    shared_ = static_cast<unsigned char*>(memory);
    std::memset(shared_, kPoison, shared_bytes_);
    statics_.assign(static_shared().bytes, kPoison);
    num_at_barrier_ = 0;
    int without_warp = static_cast<int>(threads_.size());
    for (Warp& warp : warps_) {
      warp.arrived = 0;
      warp.size = std::min(kWarpSize, without_warp);
      without_warp -= warp.size;
    }
    for (unsigned t = 0; t < threads_.size(); ++t) {
      threads_[t].block = this;
      threads_[t].index = t;
      scheduler_.add(threads_[t]);
    }
  }
  void end() { memory_.reset(); }

  // A thread of this block goes on.
  void take_over() {
    if (current() == this) return;
    if (current()) save_static_shared(current()->statics_.data());
    current() = this;
    load_static_shared(statics_.data());
    blockIdx = index_;
  }

  void wait(const char* what) { scheduler_.wait(what); }
  void make_ready(unsigned thread) { scheduler_.make_ready(threads_[thread]); }
  void give_way() { scheduler_.give_way(); }
  [[noreturn]] void fail(const std::string& what) {
    scheduler_.fail(name() + ": thread " + std::to_string(thread().index) + ": " + what);
  }

  // __syncthreads. All threads of the block must come: those that have left are missed.
  void barrier() {
    if (++num_at_barrier_ < threads_.size()) return wait("__syncthreads");
    num_at_barrier_ = 0;
    for (const Thread& other : threads_)
      if (&other != &thread()) make_ready(other.index);
    if (seeded()) give_way();
  }

  std::string name() const { return "block " + std::to_string(index_.x); }
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

 private:
  Cluster& cluster_;
  Scheduler& scheduler_;
  unsigned rank_;
  std::size_t shared_bytes_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  uint64_t serial_ = 0;
  dim3 index_;
  std::unique_ptr<void, void (*)(void*)> memory_{nullptr, std::free};
  unsigned char* shared_ = nullptr;
  std::vector<unsigned char> statics_;  // while other blocks run
  std::size_t num_at_barrier_ = 0;
};

// Blocks that run at the same time; most often one.
class Cluster {
 public:
  Cluster(dim3 block, unsigned num_blocks, std::size_t shared_bytes, std::function<void()> kernel, uint64_t seed)
      : scheduler_(std::move(kernel), &Cluster::choose, seed) {
    if (block.x == 0 || block.x > 1024 || block.y != 1 || block.z != 1)
      throw std::runtime_error("a block must have 1 to 1024 threads along x");
    if (shared_bytes > kMaxSharedBytes) throw std::runtime_error("more shared memory than a block can have");
    if (num_blocks == 0 || num_blocks > kMostBlocksOfCluster)
      throw std::runtime_error("a cluster must have 1 to 8 blocks");
    for (unsigned rank = 0; rank < num_blocks; ++rank)
      blocks_.push_back(std::make_unique<Block>(*this, scheduler_, rank, block.x, shared_bytes));
    for (const auto& each : blocks_)
      for (Thread& thread : each->threads()) threads_.push_back(&thread);
  }

  Block& block(unsigned rank) { return *blocks_[rank]; }
  std::size_t num_blocks() const { return blocks_.size(); }
  uint64_t draw(uint64_t n) { return scheduler_.draw(n); }

  // Run the blocks from `first` on to their end.
  void run(dim3 first) {
    waiting_.clear();
    for (const auto& block : blocks_) block->begin(dim3(first.x + block->rank(), first.y, 0));
    std::string error = scheduler_.run(threads_);
    Block::current() = nullptr;
    const bool done = std::all_of(blocks_.begin(), blocks_.end(), [](const auto& b) { return b->has_left(); });
    if (error.empty() && !done) error = stuck();
    for (const auto& block : blocks_) block->end();
    if (!error.empty()) throw std::runtime_error(error);
  }

  // barrier.cluster: all threads of all blocks.
  void barrier() {
    Thread& thread = scheduler_.thread();
    if (waiting_.size() + 1 < threads_.size()) {
      waiting_.push_back(&thread);
      return scheduler_.wait("barrier.cluster");
    }
    for (Thread* other : waiting_) scheduler_.make_ready(*other);
    waiting_.clear();
    if (scheduler_.seeded()) scheduler_.give_way();
  }

 private:
  static void choose(Thread& thread) {
    thread.block->take_over();
    threadIdx = dim3(thread.index, 0, 0);
  }

  std::string stuck() const {
    std::string text;
    for (const auto& block : blocks_)
      text += (text.empty() ? "" : "; ") + block->name() + ": the block is stuck: " + block->who_waits();
    return text;
  }

  Scheduler scheduler_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<Thread*> threads_;
  std::vector<Thread*> waiting_;  // at the barrier of the cluster
};

// kernel() in grid.x * grid.y blocks of block.x threads, one cluster after another; in random order with a seed.
template <class Kernel>
void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, uint64_t seed, Kernel&& kernel, unsigned cluster = 1) {
  if (grid.x == 0 || grid.y == 0 || grid.y > 65535 || grid.x % cluster)
    throw std::runtime_error("a grid that no GPU would take");
  gridDim = grid;
  blockDim = block;
  Cluster runner(block, cluster, shared_bytes, std::forward<Kernel>(kernel), seed);
  std::vector<dim3> order;
  for (unsigned y = 0; y < grid.y; ++y)
    for (unsigned x = 0; x < grid.x; x += cluster) order.emplace_back(x, y, 0);
  if (seed)
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[runner.draw(i)]);
  for (const dim3& first : order) runner.run(first);
}

}  // namespace cuda_host
