// Threads of a GPU that all run on one thread of the host, as fibers that change over only where they wait.
//
// With a seed, the threads that are ready come in a random order, and give way at atomics and after barriers:
// what depends on an order that CUDA does not promise then comes out differently. Of several blocks one at a time
// hardly gets on while the others can.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "fiber.h"

namespace cuda_host {

struct Copy {  // one cp.async
  void* to;
  const void* from;
  int bytes;
  int group;
};

class Block;

struct Thread {
  Fiber fiber;
  Block* block = nullptr;
  unsigned index = 0;  // in its block
  bool started = false, left = false;
  const char* waits_for = nullptr;  // null: ready or running
  std::vector<Copy> copies;         // not carried out yet
  int groups = 0;                   // of copies, closed so far
};

class Scheduler {
 public:
  // kernel() is run by every thread; chosen(thread) before it goes on.
  Scheduler(std::function<void()> kernel, std::function<void(Thread&)> chosen, uint64_t seed)
      : kernel_(std::move(kernel)), chosen_(std::move(chosen)), seeded_(seed != 0), random_(seed) {}

  static Scheduler*& current() {
    static Scheduler* scheduler = nullptr;
    return scheduler;
  }

  Thread& thread() { return *running_; }
  bool seeded() const { return seeded_; }
  uint64_t draw(uint64_t n) { return random_() % n; }

  void add(Thread& thread) {
    thread.started = thread.left = false;
    thread.waits_for = nullptr;
    thread.copies.clear();
    thread.groups = 0;
    ready_.push_back(&thread);
  }

  // Run the threads that were added until none is ready any more. Returns what is wrong, if anything.
  std::string run(const std::vector<Thread*>& threads) {
    error_.clear();
    all_ = &threads;
    slow_ = nullptr;
    current() = this;
    go_on(host_);
    current() = nullptr;
    ready_.clear();
    next_ready_ = 0;
    for (Thread* thread : threads)
      if (thread->started && !thread->left) pool().give_back(thread->fiber.stack);
    return error_;
  }

  // The running thread waits until another makes it ready.
  void wait(const char* what) {
    running_->waits_for = what;
    go_on(running_->fiber);
  }
  void make_ready(Thread& thread) {
    thread.waits_for = nullptr;
    ready_.push_back(&thread);
  }
  // The running thread lets others go first.
  void give_way() {
    ready_.push_back(running_);
    go_on(running_->fiber);
  }

  // End the launch with an error; the threads stay where they are.
  [[noreturn]] void fail(const std::string& what) {
    error_ = what;
    change_over(running_->fiber, host_, host_);
    std::abort();  // nobody comes back here
  }

 private:
  static StackPool& pool() {
    static StackPool kept;
    return kept;
  }

  // The thread that comes next; null when none is ready.
  Thread* choose() {
    if (next_ready_ == ready_.size()) return nullptr;
    if (seeded_) draw_next();
    Thread* next = ready_[next_ready_++];
    if (next_ready_ == ready_.size()) {
      ready_.clear();
      next_ready_ = 0;
    }
    chosen_(*next);
    return next;
  }

  void draw_next() {
    constexpr int kTries = 8, kTurn = 2000;
    if (all_->front()->block != all_->back()->block && (!slow_ || draw(kTurn) == 0))
      slow_ = (*all_)[draw(all_->size())]->block;
    for (int t = 0; t < kTries; ++t) {
      std::swap(ready_[next_ready_], ready_[next_ready_ + draw(ready_.size() - next_ready_)]);
      if (ready_[next_ready_]->block != slow_) return;
    }
  }

  // Leave `from` for the thread that comes next, or for the host when there is none.
  void go_on(Fiber& from) {
    running_ = choose();
    if (running_ && !running_->started) {
      running_->started = true;
      prepare(running_->fiber, pool().take(), &Scheduler::enter);
    }
    Fiber& to = running_ ? running_->fiber : host_;
    if (&to != &from) change_over(from, to, host_);
  }

  // Where a stack begins.
  static void enter() {
    Scheduler& scheduler = *current();
    arrive(scheduler.running_->fiber, scheduler.host_);
    scheduler.run_threads();
  }

  // A thread that leaves hands its stack to the next one, where that has none yet.
  void run_threads() {
    for (;;) {
      kernel_();
      Thread& done = *running_;
      done.left = true;
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

  std::function<void()> kernel_;
  std::function<void(Thread&)> chosen_;
  bool seeded_;
  std::mt19937_64 random_;
  const std::vector<Thread*>* all_ = nullptr;
  const Block* slow_ = nullptr;
  std::vector<Thread*> ready_;
  std::size_t next_ready_ = 0;
  Thread* running_ = nullptr;
  Fiber host_;
  std::string error_;
};

}  // namespace cuda_host
