// Threads that help with a loop if they are there: whoever calls works too, and never waits for a helper that the
// system has not let run. Where other processes want the same processors, a team in which all have to arrive (OpenMP's)
// stands still for a scheduler's whole slice at every loop.
#pragma once
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

// The numbers of a loop, taken one at a time by whoever works on it.
class Jobs {
 public:
  explicit Jobs(int64_t count) : count(count) {}
  bool take(int64_t& job) { return (job = next.fetch_add(1, std::memory_order_relaxed)) < count; }

  // Somebody lacked memory for a number: the others leave the rest.
  void give_up() { lacks_memory = true, next = count; }
  bool are_given_up() const { return lacks_memory; }

 private:
  const int64_t count;
  std::atomic<int64_t> next{0};
  std::atomic<bool> lacks_memory{false};
};

class Pool {
 public:
  static Pool& shared() {
    static Pool* pool = new Pool;  // never destroyed: its threads may outlive main
    return *pool;
  }

  // Call work(jobs) here, and in up to threads - 1 helpers at the same time; all that entered it have left when this
  // returns. One loop at a time has helpers; another one, of another thread, goes on alone. Where memory ends for any of
  // them, std::bad_alloc is thrown here, and some jobs are not done.
  template <class Work> void run(int64_t count, int threads, const Work& work) {
    Jobs jobs(count);
    if (count < 2 || threads < 2 || !owner.try_lock()) return work(jobs);
    hire(threads - 1);
    const Call call = [](void* context, Jobs& jobs) noexcept {
      try {
        (*static_cast<const Work*>(context))(jobs);
      } catch (const std::bad_alloc&) {
        jobs.give_up();
      }
    };
    open(call, const_cast<Work*>(&work), jobs, threads - 1);
    call(const_cast<Work*>(&work), jobs);
    close();
    owner.unlock();
    if (jobs.are_given_up()) throw std::bad_alloc();
  }

 private:
  typedef void (*Call)(void* context, Jobs& jobs);
  static constexpr uint32_t OPEN = 1u << 31;
  static constexpr int SPINS = 300, YIELDS = 200;  // some microseconds each: what lies between two layers

  // As many as the system gives.
  void hire(int wanted) noexcept {
    if (process != getpid()) process = getpid(), num_helpers = 0;  // after a fork nobody is left
    try {
      for (; num_helpers < wanted; num_helpers++) std::thread([this, number = num_helpers] { help(number); }).detach();
    } catch (const std::exception&) {
    }
  }

  void open(Call call, void* context, Jobs& jobs, int num_wanted) {
    this->call = call, this->context = context, this->jobs = &jobs, this->num_wanted = num_wanted;
    inside.store(OPEN);
    opened.fetch_add(1);
    if (num_asleep.load() > 0) {
      { const std::lock_guard<std::mutex> lock(mutex); }
      wake.notify_all();
    }
  }

  void close() {
    inside.fetch_and(~OPEN);
    for (int i = 0; inside.load(std::memory_order_acquire) > 0; i++) i < SPINS ? pause() : (void)sched_yield();
  }

  void help(int number) {
    for (uint32_t seen = 0;; seen = wait(seen)) {
      uint32_t now = inside.load();
      while ((now & OPEN) && !inside.compare_exchange_weak(now, now + 1)) {}
      if (!(now & OPEN)) continue;
      if (number < num_wanted) call(context, *jobs);
      inside.fetch_sub(1, std::memory_order_release);
    }
  }

  // Until another loop was opened than the one that was seen.
  uint32_t wait(uint32_t seen) {
    for (int i = 0; i < SPINS + YIELDS; i++) {
      if (opened.load() != seen) return opened.load();
      i < SPINS ? pause() : (void)sched_yield();
    }
    std::unique_lock<std::mutex> lock(mutex);
    num_asleep.fetch_add(1);
    wake.wait(lock, [&] { return opened.load() != seen; });
    num_asleep.fetch_sub(1);
    return opened.load();
  }

  static void pause() {
#if defined(__x86_64__)
    _mm_pause();
#endif
  }

  std::mutex owner, mutex;
  std::condition_variable wake;
  std::atomic<uint32_t> inside{0}, opened{0};  // helpers at work, and whether more may join
  std::atomic<int> num_asleep{0};
  pid_t process = 0;
  int num_helpers = 0;
  // Read by those inside alone, and written while nobody is.
  Call call = nullptr;
  void* context = nullptr;
  Jobs* jobs = nullptr;
  int num_wanted = 0;
};

// work(jobs) for `count` jobs on several threads.
template <class Work> void share(int64_t count, int threads, const Work& work) {
  Pool::shared().run(count, threads, work);
}
