// How processes end whose helper threads are alive, and on what stacks those run. What is tried is an
// argument; returns 0 if it is right. A program of its own: a test framework catches what pthread_exit throws
// through its frames.
#include <hypertape/hypertape.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <string_view>
#include <thread>

namespace ht = hypertape;

namespace {

[[noreturn]] void wrong(const char* what) {
  std::cerr << "ends: " << what << std::endl;
  _exit(1);
}

// Calls `here` on this thread and `there` on a helper, both at work in one parallel call until `here` has
// returned.
void with_helper(
    const std::function<void()>& here, const std::function<void()>& there = [] {}) {
  const pid_t caller = gettid();
  std::atomic<bool> at_work{false}, over{false};
  ht::parallel_chunks(2, [&](std::int64_t) {
    if (gettid() == caller) {
      while (!at_work) sched_yield();
      here();
      over = true;
    } else {
      there();
      at_work = true;
      while (!over) sched_yield();
    }
  });
}

// The wait status of a child that does this. One that hangs is killed: an alarm may find no thread that takes
// it.
int status_of_child(void (*body)()) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(2);
  }
  int status = -1;
  for (int i = 0; waitpid(child, &status, WNOHANG) == 0; ++i) {
    if (i == 2000) kill(child, SIGKILL);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return status;
}

std::atomic<pid_t> handled_by{0};
std::atomic<bool> computed{false};

// A program that takes its signals at a place of its choice: none may be handled on a thread that is not its
// own.
void terminated_with_handler() {
  with_helper([] {});
  struct sigaction action = {};
  action.sa_handler = [](int) { handled_by = gettid(); };
  sigaction(SIGTERM, &action, nullptr);
  sigset_t signals, pending;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  with_helper([&] {
    kill(getpid(), SIGTERM);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (handled_by != 0) wrong("a helper has handled SIGTERM");
    sigpending(&pending);
    if (sigismember(&pending, SIGTERM) != 1) wrong("SIGTERM is not pending");
    pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
    if (handled_by != gettid()) wrong("the caller has not handled SIGTERM");
  });
  _exit(0);
}

void terminated() {
  with_helper([] {
    kill(getpid(), SIGTERM);
    std::this_thread::sleep_for(std::chrono::seconds(20));
  });
}

// Main ends; another thread computes on, after the helpers have ended for want of work; then the last thread
// of all, which is a helper, ends the process and computes at exit.
void main_thread_exits() {
  std::atexit([] {
    if (ht::sum(ht::Tensor::ones({600, 600})).item() != 360000.0) _exit(3);
    _exit(computed ? 0 : 4);
  });
  with_helper([] {});
  std::thread([] {
    std::this_thread::sleep_for(std::chrono::milliseconds(1200));
    with_helper([] {});
    computed = ht::sum(ht::Tensor::ones({600, 600})).item() == 360000.0;
  }).detach();
  pthread_exit(nullptr);
}

void expect_helper_stack() {
  std::size_t size = 0;
  with_helper([] {},
              [&size] {
                pthread_attr_t attributes;
                if (pthread_getattr_np(pthread_self(), &attributes) != 0) wrong("no attributes");
                pthread_attr_getstacksize(&attributes, &size);
                pthread_attr_destroy(&attributes);
              });
  constexpr std::size_t wanted = std::size_t{1} << 20, guard = std::size_t{1} << 16;
  if (size > wanted || size < wanted - guard) {
    std::cerr << "a helper's stack has " << size << " bytes\n";
    wrong("a helper's stack follows the limit of the main thread's");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc == 2 ? argv[1] : "";
  if (ht::available_cpus() < 2) {
    std::cout << "this process has one CPU: there are no helpers\n";
    return 0;
  }
  ht::set_thread_count(2);
  if (what == "handler") {
    if (status_of_child(terminated_with_handler) != 0) wrong("SIGTERM with a handler");
  } else if (what == "terminated") {
    const int status = status_of_child(terminated);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGTERM) wrong("SIGTERM has not ended the process");
  } else if (what == "pthread_exit") {
    const int status = status_of_child(main_thread_exits);
    if (status != 0) {
      std::cerr << "status " << status << '\n';
      wrong("pthread_exit from main");
    }
  } else if (what == "stack") {
    expect_helper_stack();
  } else {
    wrong("handler, terminated, pthread_exit or stack?");
  }
  return 0;
}
