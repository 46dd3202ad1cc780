// step_server PROGRAM PLAN: one call of a program per question, for the Linux build of HarnessCore.
//
// int32 and float32 in the machine's byte order. Says [0] when the program is loaded; asked
// [count, position, ids ...] it answers [size, logits ...]; when it fails, [-1, length, why].
#include <executorch/runtime/platform/runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "plan.h"
#include "program.h"

// The wheel exports the pool and ships no header for it (executorch 1.5.1).
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

void put(const void* data, size_t bytes) {
  if (std::fwrite(data, 1, bytes, stdout) != bytes) throw std::runtime_error("nobody listens");
}

void put(int32_t number) { put(&number, sizeof number); }

bool get(void* data, size_t bytes) { return std::fread(data, 1, bytes, stdin) == bytes; }

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  if (!file) throw std::runtime_error("cannot read " + path);
  return bytes.str();
}

void serve(const std::string& path, const std::string& plan_path) {
  const mobilepack::Plan plan = mobilepack::parse_plan(read(plan_path));
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool != nullptr) pool->_unsafe_reset_threadpool(plan.threads > 0 ? plan.threads : 1);
  const auto program = mobilepack::open_program(path, "", plan);  // what Swift calls is dynamic
  put(0);
  std::fflush(stdout);
  int32_t head[2];
  while (get(head, sizeof head)) {
    if (head[0] < 1 || head[0] > plan.prefill_chunk) throw std::runtime_error("a call of no size");
    std::vector<int32_t> ids(head[0]);
    if (!get(ids.data(), ids.size() * sizeof(int32_t))) return;
    const std::vector<int64_t> tokens(ids.begin(), ids.end());
    const mobilepack::Logits logits = program->step(tokens.data(), tokens.size(), head[1]);
    put(static_cast<int32_t>(logits.size));
    put(logits.data, logits.size * sizeof(float));
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  executorch::runtime::runtime_init();
  try {
    serve(argv[1], argv[2]);
  } catch (const std::exception& error) {
    const std::string why = error.what();
    put(-1);
    put(static_cast<int32_t>(why.size()));
    put(why.data(), why.size());
    std::fflush(stdout);
    return 1;
  }
  return 0;
}
