"""A stand-in for Apple's `xcrun`: its argument grammar, devices with a state, real containers.

`StandInXcode` (mobilepack.testing.apple.install) makes one. What it prints and how it exits is
taken from Apple's tools as far as public sources tell (grammar/*.toml name them); `launch` really
runs the bundle's executable with `HOME` set to its container.
"""
