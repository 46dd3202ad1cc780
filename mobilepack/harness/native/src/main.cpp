// mobilepack_runner PACKAGE PLAN RESULT [MANIFEST]: carries out a run plan and writes its result.
//
// The manifest says how a program of the static form is called; without one it is the package's
// manifest.json if that is there.
// Says on stdout how far it is, one JSON document per line (mobilepack/harness/talk.py); the runtime
// prints to stderr. The result appears whole or not at all.
#include <executorch/runtime/platform/runtime.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>

#include "items.h"
#include "machine.h"
#include "plan.h"
#include "program.h"
#include "result.h"

// The wheel exports the pool and ships no header for it (executorch 1.5.1).
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace mobilepack {
namespace {

using Json = nlohmann::json;

void say_line(const std::string& line) {
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

void say(const Json& event) {
  say_line(event.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  if (!file) throw std::runtime_error("cannot read " + path + ": " + std::strerror(errno));
  return bytes.str();
}

void write_whole(const std::string& path, const std::string& bytes) {
  const std::string aside = path + ".part";
  std::ofstream file(aside, std::ios::binary | std::ios::trunc);
  file << bytes;
  file.close();
  if (!file || std::rename(aside.c_str(), path.c_str()) != 0) {
    const std::string why = std::strerror(errno);
    std::remove(aside.c_str());
    throw std::runtime_error("cannot write " + path + ": " + why);
  }
}

int64_t set_threads(const Plan& plan) {
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool == nullptr) return 1;
  const int64_t wanted = plan.threads > 0 ? plan.threads : performance_cores();
  pool->_unsafe_reset_threadpool(static_cast<uint32_t>(wanted));
  return static_cast<int64_t>(pool->get_thread_count());
}

struct Paths {
  std::string package;
  std::string plan;
  std::string result;
  std::string manifest;  // empty: the package's own, if it has one
};

std::string read_manifest(const Paths& paths) {
  if (!paths.manifest.empty()) return read(paths.manifest);
  const std::string own = paths.package + "/manifest.json";
  return access(own.c_str(), F_OK) == 0 ? read(own) : "";
}

void run(const Paths& paths) {
  const Plan plan = parse_plan(read(paths.plan));
  const std::string manifest = read_manifest(paths);
  Facts facts;
  facts.conditions = conditions("_before");
  facts.threads = set_threads(plan);
  const bool fresh = reset_peak();
  facts.conditions["peak_memory"] = fresh ? "since before the load" : "since process start";
  facts.before_load_bytes = resident_bytes();
  const int64_t start = now_ns();
  const auto program = open_program(paths.package + "/" + plan.program, manifest, plan);
  facts.load_ns = now_ns() - start;
  facts.after_load_bytes = resident_bytes();
  say({{"event", "loaded"}, {"load_ns", facts.load_ns}, {"threads", facts.threads}});
  const auto tell = [&plan](const std::string& item, size_t done) {
    say({{"event", "item"}, {"item", item}, {"done", done}, {"total", plan.items.size()}});
  };
  const auto finished = [](const std::string& item, const Outcome& one) {
    say_line(finished_json(item, one, peak_resident_bytes()));
  };
  const Outcome outcome = run_items(plan, *program, tell, finished);
  facts.peak_bytes = peak_resident_bytes();
  facts.conditions.merge(conditions("_after"));
  facts.conditions["frequencies_khz_during"] = outcome.frequencies.said();
  facts.conditions["temperatures_c_during"] = outcome.temperatures.said();
  write_whole(paths.result, result_json(plan, outcome, facts));
}

}  // namespace
}  // namespace mobilepack

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    std::fprintf(stderr, "usage: %s PACKAGE PLAN RESULT [MANIFEST]\n", argv[0]);
    return 2;
  }
  executorch::runtime::runtime_init();
  try {
    mobilepack::run({argv[1], argv[2], argv[3], argc == 5 ? argv[4] : ""});
  } catch (const std::exception& error) {
    mobilepack::say({{"event", "failed"}, {"why", error.what()}});
    return 1;
  }
  return 0;
}
