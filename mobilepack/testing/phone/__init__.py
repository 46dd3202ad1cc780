"""A phone that the real adb talks to, with faults on demand: adb's device side, in this process."""

from mobilepack.testing.phone.fake_phone import FakePhone
from mobilepack.testing.phone.faults import Fault, Link

__all__ = ["FakePhone", "Fault", "Link"]
