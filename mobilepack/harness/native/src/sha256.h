// SHA-256 (FIPS 180-4), which names the plan that was obeyed.
#pragma once

#include <string>

namespace mobilepack {

std::string sha256_hex(const std::string& bytes);

}  // namespace mobilepack
