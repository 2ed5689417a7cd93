// Threads of a block as fibers: all of a block's threads run on one thread of the host, each on a stack of its
// own, and change over only where they wait for one another.
//
// Blocks run one after another. With a seed, blocks and the threads that are ready come in a random order,
// and threads also give way at atomics: what depends on an order that CUDA does not promise then comes out
// differently. A thread that waits for one that has left, or threads that wait for different things, end the
// launch with an error that says who waits where.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

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

#include "static_shared.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline dim3 threadIdx(0, 0, 0), blockIdx(0, 0, 0), blockDim, gridDim;

namespace cuda_host {

constexpr int kWarpSize = 32;
constexpr int kPoison = 0xff;  // every byte of memory that nobody has written: a NaN of any width
constexpr std::size_t kStackBytes = std::size_t{256} << 10;
constexpr std::size_t kMaxSharedBytes = 227 << 10;  // what a block may have on sm_90

// A stack, with a page below it that nobody may touch.
class Stack {
 public:
  Stack() : guard_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    base_ = mmap(nullptr, guard_ + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED || mprotect(base_, guard_, PROT_NONE) != 0) throw std::bad_alloc();
  }
  ~Stack() { munmap(base_, guard_ + kStackBytes); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  void* bottom() const { return static_cast<char*>(base_) + guard_; }

 private:
  std::size_t guard_;
  void* base_;
};

struct Copy {  // one cp.async
  void* to;
  const void* from;
  int bytes;
  int group;
};

struct Fiber {
  ucontext_t context;
  unsigned thread = 0;
  const char* waits_for = nullptr;  // null: ready, running or left
  bool left = false;
  void* fake_stack = nullptr;  // AddressSanitizer's
  std::vector<Copy> copies;    // not carried out yet
  int groups = 0;              // of copies, closed so far
};

struct Warp {
  const char* meets_at = nullptr;  // what its lanes gather for
  int size = 0, arrived = 0;
  void* slots[kWarpSize];
};

// Blocks of one launch. There is one at a time; `current` finds it.
class Block {
 public:
  Block(dim3 block, std::size_t shared_bytes, std::function<void()> kernel, uint64_t seed)
      : kernel_(std::move(kernel)),
        size_(block.x),
        shared_bytes_(shared_bytes),
        fibers_(size_),
        warps_((size_ + kWarpSize - 1) / kWarpSize),
        seed_(seed),
        random_(seed) {
    if (block.x == 0 || block.x > 1024 || block.y != 1 || block.z != 1)
      throw std::runtime_error("a block must have 1 to 1024 threads along x");
    if (shared_bytes > kMaxSharedBytes) throw std::runtime_error("more shared memory than a block can have");
    while (stacks().size() < size_) stacks().push_back(std::make_unique<Stack>());
  }

  static Block*& current() {
    static Block* block = nullptr;
    return block;
  }

  Fiber& fiber() { return *running_; }
  Warp& warp() { return warps_[running_->thread / kWarpSize]; }
  unsigned lane() const { return running_->thread % kWarpSize; }
  unsigned char* shared() const { return shared_; }
  bool seeded() const { return seed_ != 0; }
  uint64_t draw(uint64_t n) { return random_() % n; }

  // Whether `bytes` at `pointer` are this block's dynamic shared memory.
  bool is_shared(const void* pointer, std::size_t bytes) const {
    const auto* p = static_cast<const unsigned char*>(pointer);
    return p >= shared_ && p + bytes <= shared_ + shared_bytes_;
  }

  // One block, with shared memory that nobody has written. A separate piece of the heap of exactly the size
  // asked for: AddressSanitizer sees what lies beyond it.
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
    error_.clear();
    num_left_ = at_barrier_ = 0;
    resume(next());
    current() = nullptr;
    if (error_.empty() && num_left_ < size_) error_ = "the block is stuck: " + who_waits();
    if (!error_.empty()) throw std::runtime_error("block " + std::to_string(index.x) + ": " + error_);
  }

  // The running thread waits until someone makes it ready.
  void wait(const char* what) {
    running_->waits_for = what;
    change_over(next());
  }
  void make_ready(unsigned thread) {
    fibers_[thread].waits_for = nullptr;
    ready_.push_back(thread);
  }
  // The running thread lets others go first.
  void give_way() {
    ready_.push_back(running_->thread);
    change_over(next());
  }

  void barrier() {
    if (++at_barrier_ < size_) {
      wait("__syncthreads");
      return;
    }
    at_barrier_ = 0;
    for (unsigned t = 0; t < size_; ++t)
      if (t != running_->thread) make_ready(t);
    if (seeded()) give_way();
  }

  // End the launch with an error; the threads stay where they are.
  [[noreturn]] void fail(const std::string& what) {
    error_ = "thread " + std::to_string(running_->thread) + ": " + what;
    change_over(nullptr);
    std::abort();  // nobody comes back here
  }

 private:
  static std::vector<std::unique_ptr<Stack>>& stacks() {
    static std::vector<std::unique_ptr<Stack>> kept;
    return kept;
  }

  void begin() {
    ready_.clear();
    for (unsigned w = 0; w < warps_.size(); ++w) {
      warps_[w] = Warp{};
      warps_[w].size = static_cast<int>(size_ - w * kWarpSize < kWarpSize ? size_ - w * kWarpSize : kWarpSize);
    }
    for (unsigned t = 0; t < size_; ++t) {
      fibers_[t] = Fiber{};
      fibers_[t].thread = t;
      ready_.push_back(t);
#if defined(__SANITIZE_ADDRESS__)
      __asan_unpoison_memory_region(stacks()[t]->bottom(), kStackBytes);
#endif
      getcontext(&fibers_[t].context);
      fibers_[t].context.uc_stack.ss_sp = stacks()[t]->bottom();
      fibers_[t].context.uc_stack.ss_size = kStackBytes;
      fibers_[t].context.uc_link = nullptr;
      makecontext(&fibers_[t].context, &Block::enter, 0);
    }
    first_ = 0;
  }

  // The thread to go on with; null when none is ready.
  Fiber* next() {
    if (first_ == ready_.size()) return nullptr;
    if (seeded()) std::swap(ready_[first_], ready_[first_ + draw(ready_.size() - first_)]);
    Fiber* chosen = &fibers_[ready_[first_++]];
    if (first_ == ready_.size()) {
      ready_.clear();
      first_ = 0;
    }
    return chosen;
  }

  static void enter() {
    Block& block = *current();
    block.arrived(nullptr);
    block.kernel_();
    block.running_->left = true;
    ++block.num_left_;
    block.change_over(block.next());
  }

  // From the host's own stack to the first thread, and back when none is ready.
  void resume(Fiber* to) { switch_stack(main_, main_fake_, to, false); }

  // From the running thread to another, or, when there is none, back to the host's stack.
  void change_over(Fiber* to) {
    if (to == running_) {
      threadIdx = dim3(running_->thread, 0, 0);
      return;
    }
    switch_stack(running_->context, running_->fake_stack, to, running_->left);
  }

  void switch_stack(ucontext_t& from, void*& fake, Fiber* to, bool for_good) {
    running_ = to;
    if (to) threadIdx = dim3(to->thread, 0, 0);
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom = to ? to->context.uc_stack.ss_sp : main_bottom_;
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, bottom, to ? kStackBytes : main_bytes_);
#else
    (void)for_good;
#endif
    swapcontext(&from, to ? &to->context : &main_);
    arrived(fake);
  }

  // First thing on a stack that has been changed over to. AddressSanitizer then tells which one was left:
  // the first time, that is the host's.
  void arrived(void* fake) {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom = nullptr;
    std::size_t bytes = 0;
    __sanitizer_finish_switch_fiber(fake, &bottom, &bytes);
    if (!main_bottom_) {
      main_bottom_ = bottom;
      main_bytes_ = bytes;
    }
#else
    (void)fake;
#endif
  }

  std::string who_waits() const {
    std::map<std::string, std::pair<unsigned, unsigned>> places;  // how many, and the first of them
    for (const Fiber& fiber : fibers_) {
      const char* place = fiber.left ? "have left" : fiber.waits_for ? fiber.waits_for : "are ready";
      auto& [count, first] = places.try_emplace(place, 0u, fiber.thread).first->second;
      (void)first;
      ++count;
    }
    std::string text;
    for (const auto& [place, who] : places)
      text += (text.empty() ? "" : "; ") + std::to_string(who.first) + " threads " +
              (place == "have left" || place == "are ready" ? "" : "wait at ") + place + " (the first: thread " +
              std::to_string(who.second) + ")";
    return text;
  }

  std::function<void()> kernel_;
  unsigned size_;
  std::size_t shared_bytes_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  uint64_t seed_;
  std::mt19937_64 random_;
  std::vector<unsigned> ready_;
  std::size_t first_ = 0;  // of the ready ones that have not had their turn
  unsigned num_left_ = 0, at_barrier_ = 0;
  unsigned char* shared_ = nullptr;
  Fiber* running_ = nullptr;
  ucontext_t main_;
  void* main_fake_ = nullptr;
  const void* main_bottom_ = nullptr;
  std::size_t main_bytes_ = 0;
  std::string error_;
};

// Run kernel() in grid.x blocks of block.x threads. A seed other than 0 shuffles blocks and threads.
template <class Kernel>
void launch(dim3 grid, dim3 block, std::size_t shared_bytes, uint64_t seed, Kernel&& kernel) {
  if (grid.x == 0) throw std::runtime_error("a grid must have a block");
  gridDim = grid;
  blockDim = block;
  Block runner(block, shared_bytes, std::forward<Kernel>(kernel), seed);
  std::vector<unsigned> order;
  for (unsigned y = 0; y < grid.y; ++y)
    for (unsigned x = 0; x < grid.x; ++x) order.push_back(y * grid.x + x);
  if (seed)
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[runner.draw(i)]);
  for (const unsigned index : order) runner.run(dim3(index % grid.x, index / grid.x, 0));
}

}  // namespace cuda_host
