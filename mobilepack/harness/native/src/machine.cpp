#include "machine.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

namespace mobilepack {
namespace {

constexpr const char* kUnknown = "unknown";
constexpr int64_t kColdest = 1000, kHottest = 150000;  // millidegrees Celsius
constexpr size_t kZones = 8;                           // a Snapdragon has about a hundred

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

std::string said_of(size_t core, const std::string& which) {
  return first_line("/sys/devices/system/cpu/cpu" + std::to_string(core) + "/" + which);
}

// Cores that this process may run on, which whoever started it can have chosen.
std::vector<size_t> allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<size_t> cores;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (size_t core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &set)) cores.push_back(core);
    }
  }
  if (cores.empty()) cores.push_back(0);
  return cores;
}

// One number of each core, 0 where it is not told.
std::vector<int64_t> numbers(const std::vector<size_t>& cores, const std::string& which) {
  std::vector<int64_t> found;
  for (size_t core : cores) found.push_back(std::atoll(said_of(core, which).c_str()));
  return found;
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
  const std::vector<size_t> cores = allowed_cores();
  std::vector<int64_t> highest = numbers(cores, "cpu_capacity");
  if (std::count(highest.begin(), highest.end(), 0) > 0) {
    highest = numbers(cores, "cpufreq/cpuinfo_max_freq");
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
  found["frequency_khz" + suffix] = known(said_of(0, "cpufreq/scaling_cur_freq"));
  const int64_t available = bytes_of("/proc/meminfo", "MemAvailable");
  found["memory_available_bytes" + suffix] = available > 0 ? std::to_string(available) : kUnknown;
  if (suffix == "_before") found["governor"] = known(said_of(0, "cpufreq/scaling_governor"));
  return found;
}

void Temperatures::sample() {
  std::error_code error;
  std::filesystem::directory_iterator entry(folder_, error);
  for (; !error && entry != std::filesystem::end(entry); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.rfind("thermal_zone", 0) != 0) continue;
    const std::string told = first_line((entry->path() / "temp").string());
    const int64_t millidegrees = std::atoll(told.c_str());
    // Zones that are off say 0, -40 °C or nothing, and some hold volts or percent.
    if (millidegrees < kColdest || millidegrees > kHottest) continue;
    const std::string type = first_line((entry->path() / "type").string());
    const std::string& key = type.empty() ? name : type;
    auto& [least, most] = range_.try_emplace(key, millidegrees, millidegrees).first->second;
    least = std::min(least, millidegrees);
    most = std::max(most, millidegrees);
  }
}

std::string Temperatures::said() const {
  std::vector<std::pair<std::string, std::pair<int64_t, int64_t>>> zones(range_.begin(),
                                                                         range_.end());
  std::stable_sort(zones.begin(), zones.end(), [](const auto& a, const auto& b) {
    return a.second.second > b.second.second;
  });
  if (zones.size() > kZones) zones.resize(kZones);
  std::ostringstream text;
  for (const auto& [name, range] : zones) {
    text << (text.tellp() > 0 ? "; " : "") << name << "=" << static_cast<double>(range.first) / 1000
         << ".." << static_cast<double>(range.second) / 1000;
  }
  return known(text.str());
}

void Frequencies::sample() {
  for (size_t core : allowed_cores()) {
    const int64_t khz = numbers({core}, "cpufreq/scaling_cur_freq")[0];
    if (khz <= 0) continue;
    auto& [least, most] = range_.try_emplace(core, khz, khz).first->second;
    least = std::min(least, khz);
    most = std::max(most, khz);
  }
}

std::string Frequencies::said() const {
  std::string text;
  for (const auto& [core, range] : range_) {
    text += (text.empty() ? "cpu" : " cpu") + std::to_string(core) + "=" +
            std::to_string(range.first) + ".." + std::to_string(range.second);
  }
  return known(text);
}

}  // namespace mobilepack
