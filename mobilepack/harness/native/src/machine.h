// What a Linux or Android system says about itself and about this process.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

namespace mobilepack {

int64_t resident_bytes();       // VmRSS
int64_t peak_resident_bytes();  // VmHWM
bool reset_peak();              // false where the kernel refuses
int64_t performance_cores();    // strong ones of the allowed cores, all where nothing is known
std::string cpu_name();

// Conditions that change, by name with a suffix such as "_before". A facility that a system lacks
// is "unknown".
std::map<std::string, std::string> conditions(const std::string& suffix);

// Lowest and highest temperature of the kernel's thermal zones, looked at between timed rounds.
class Temperatures {
 public:
  explicit Temperatures(std::string folder = "/sys/class/thermal") : folder_(std::move(folder)) {}
  void sample();
  std::string said() const;  // `cpu-1-3=41.2..55` in °C, the hottest zones first, or "unknown"

 private:
  std::string folder_;
  std::map<std::string, std::pair<int64_t, int64_t>> range_;  // millidegrees, by the zone's type
};

// Lowest and highest frequency of each core, looked at between timed rounds.
class Frequencies {
 public:
  void sample();
  std::string said() const;  // `cpu0=300000..1804800` in kHz, or "unknown"

 private:
  std::map<size_t, std::pair<int64_t, int64_t>> range_;
};

}  // namespace mobilepack
