#include "machine.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

namespace mobilepack {
namespace {

constexpr const char* kUnknown = "unknown";

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Returns the number after a name in a file of "Name:  123 kB" lines, in bytes, 0 if it is absent.
int64_t bytes_of(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind(name + ":", 0) == 0) {
      std::istringstream rest(line.substr(name.size() + 1));
      int64_t kilobytes = 0;
      rest >> kilobytes;
      return kilobytes * 1024;
    }
  }
  return 0;
}

std::string field(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(':');
    if (line.rfind(name, 0) == 0 && colon != std::string::npos) {
      const size_t begin = line.find_first_not_of(" \t", colon + 1);
      return begin == std::string::npos ? "" : line.substr(begin);
    }
  }
  return "";
}

std::string frequency(size_t core, const char* which) {
  return first_line("/sys/devices/system/cpu/cpu" + std::to_string(core) + "/cpufreq/" + which);
}

std::string known(const std::string& text) { return text.empty() ? kUnknown : text; }

}  // namespace

int64_t resident_bytes() { return bytes_of("/proc/self/status", "VmRSS"); }

int64_t peak_resident_bytes() { return bytes_of("/proc/self/status", "VmHWM"); }

bool reset_peak() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5";
  return static_cast<bool>(file.flush());
}

int64_t performance_cores() {
  const size_t count = std::max(1U, std::thread::hardware_concurrency());
  std::vector<int64_t> highest;
  for (size_t core = 0; core < count; ++core) {
    const std::string text = frequency(core, "cpuinfo_max_freq");
    highest.push_back(text.empty() ? 0 : std::atoll(text.c_str()));
  }
  const int64_t most = *std::max_element(highest.begin(), highest.end());
  // Phones have two or three kinds of cores; the slow ones would hold the others up, the middle
  // ones (within a third of the fastest) do not.
  return std::count_if(highest.begin(), highest.end(),
                       [most](int64_t one) { return one * 3 >= most * 2; });
}

std::string cpu_name() {
  for (const char* name : {"Hardware", "model name", "CPU part"}) {
    const std::string found = field("/proc/cpuinfo", name);
    if (!found.empty()) return found;
  }
  return kUnknown;
}

std::map<std::string, std::string> conditions(const std::string& suffix) {
  std::map<std::string, std::string> found;
  found["load_average" + suffix] = known(first_line("/proc/loadavg"));
  found["frequency_khz" + suffix] = known(frequency(0, "scaling_cur_freq"));
  const int64_t available = bytes_of("/proc/meminfo", "MemAvailable");
  found["memory_available_bytes" + suffix] = available > 0 ? std::to_string(available) : kUnknown;
  if (suffix == "_before") found["governor"] = known(frequency(0, "scaling_governor"));
  return found;
}

}  // namespace mobilepack
