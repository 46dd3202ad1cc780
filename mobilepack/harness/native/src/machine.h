// What a Linux or Android system says about itself and about this process.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace mobilepack {

int64_t resident_bytes();       // VmRSS
int64_t peak_resident_bytes();  // VmHWM
bool reset_peak();              // false where the kernel refuses
int64_t performance_cores();    // cores of the highest maximum frequency, all where none is known
std::string cpu_name();

// Conditions that change, by name with a suffix such as "_before". A facility that a system lacks
// is "unknown".
std::map<std::string, std::string> conditions(const std::string& suffix);

}  // namespace mobilepack
