// Looks at the thermal zones of a folder once per line of stdin, and says what it has seen.
#include <iostream>
#include <string>

#include "machine.h"

int main(int, char** argv) {
  mobilepack::Temperatures seen(argv[1]);
  for (std::string line; std::getline(std::cin, line);) {
    seen.sample();
    std::cout << seen.said() << std::endl;
  }
}
