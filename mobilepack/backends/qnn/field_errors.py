"""What Qualcomm's error codes mean: from a log to one cause and one remedy.

A code alone says little (1002 is a failed mapping on the phone and a graph that does not fit at
compile time), so each rule is a line that logs hold, the most telling first. Sources are recorded
outputs of this project or published issues; `tests/data/qnn` holds the lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of failure.

    Attributes:
        name: Stable kebab-case identifier; `qnn-` is put before it in an error's code.
        pattern: What a line of the log holds.
        codes: Qualcomm's numbers that come with it.
        source: Where the line was seen.
    """

    name: str
    pattern: str
    codes: tuple[int, ...]
    cause: str
    remedy: str
    source: str


@dataclass(frozen=True, slots=True)
class Cause:
    """What a log says.

    Attributes:
        quote: The line it was recognised by.
    """

    name: str
    codes: tuple[int, ...]
    cause: str
    remedy: str
    quote: str


_ET = "pytorch/executorch#"
RULES: tuple[Rule, ...] = (
    Rule(
        "abi",
        r"unknown custom config socModel",
        (14001,),
        "this release of Qualcomm's libraries reads the device configuration in another layout"
        " than ExecuTorch 1.5.1 writes",
        "use the libraries of onnxruntime-qnn 2.5.0 (QNN 2.49.40): pip install 'mobilepack[qnn]',"
        " and leave --qnn-sdk and QNN_SDK_ROOT out",
        "recorded here with onnxruntime-qnn 2.4.0",
    ),
    Rule(
        "shared-weights-on-host",
        r"Shared weights buffer isn't supported on this platform",
        (1000,),
        "the program's methods share their weights, which the HTP emulator cannot load",
        "run it on the phone; the emulator runs the program that the build made for it",
        "recorded here with QNN 2.49.40",
    ),
    Rule(
        "no-libraries",
        r"Cannot Open QNN library",
        (),
        "libQnnHtp.so was not found where the loader looks",
        "on a phone, push Qualcomm's libraries and export LD_LIBRARY_PATH=<their folder>; on this"
        " machine, run mobilepack doctor",
        "recorded here",
    ),
    Rule(
        "library-mismatch",
        r"(Stub|Skel) lib id mismatch",
        (1008,),
        "the stub or skel on the phone is of another release than libQnnHtp.so; some phones bring"
        " their own in a system folder that is found first",
        "push libQnnHtp.so, stub and skel of one release into one folder and begin LD_LIBRARY_PATH"
        " and ADSP_LIBRARY_PATH with it (mobilepack device-files checks a folder)",
        f"{_ET}8762",
    ),
    Rule(
        "weights-not-mapped",
        r"Failed to map weights buffer|fastrpc memory map for fd|Could not allocate persistent"
        r" weights buffer",
        (1002, 5005),
        "the weights of one context are too large to be mapped into the DSP's memory in one piece",
        "build with smaller weights (16a4w) or more shards, and close other apps on the phone",
        f"{_ET}18862 (467 MB), {_ET}4517 (817 MB)",
    ),
    Rule(
        "graph-too-large",
        r"requires 0x[0-9a-f]+ bytes of TCM|Requires 0x[0-9a-f]+ bytes of TCM",
        (1002,),
        "one step of the graph needs more of the SoC's fast memory (VTCM) than there is",
        "build for shorter calls (--prefill-chunk), or for a SoC with more VTCM",
        f"{_ET}1430",
    ),
    Rule(
        "skel-not-found",
        r"Failed to load skel|Unable to load Skel Library|Failed to retrieve skel build id"
        r"|Unable to load Remote symbols|qnn_open failed|Failed to create transport for device",
        (1008, 4000, 14001),
        "the DSP could not open the library of its Hexagon version (libQnnHtpV…Skel.so): it is not"
        " in ADSP_LIBRARY_PATH, or the app may not use libcdsprpc.so",
        "push the skel of the package's Hexagon version, export ADSP_LIBRARY_PATH=<its folder>"
        " (folders are separated by ';', not ':'), and in an app add <uses-native-library"
        ' android:name="libcdsprpc.so" android:required="false"/>',
        f"{_ET}2788, meta-pytorch/executorch-examples#81, qualcomm/fastrpc#379",
    ),
    Rule(
        "binary-info-version",
        r"Unknown QNN BinaryInfo version",
        (),
        "the app's ExecuTorch is older than the libraries that compiled the program, and cannot"
        " read its description",
        "use org.pytorch:executorch-android-qnn of the version that the manifest names",
        f"{_ET}9311",
    ),
    Rule(
        "vtcm",
        r"Request feature vtcm size with value \d+ unsupported|Request feature arch with value \d+",
        (5005,),
        "the program was compiled for another SoC: this one lacks its Hexagon version or memory",
        "build for this phone: mobilepack build --target qnn --soc-model <ro.soc.model>",
        f"{_ET}9084, {_ET}15387",
    ),
    Rule(
        "not-this-backend",
        r"Backend QnnBackend is not (available|registered)",
        (),
        "the app's ExecuTorch was built without the QNN backend",
        "use org.pytorch:executorch-android-qnn in the app, or libqnn_executorch_backend.so beside"
        " the runner",
        "recorded here",
    ),
    Rule(
        "context-not-read",
        r"Failed to interpret QNN [Cc]ontext binary\. Error code 30010",
        (30010,),
        "the program's QNN part could not be read: the app was built for another backend, or with"
        " other libraries than the program",
        "use org.pytorch:executorch-android-qnn and com.qualcomm.qti:qnn-runtime of the versions"
        " that mobilepack device-files names",
        f"{_ET}6820, {_ET}6188",
    ),
    Rule(
        "runtime-older",
        r"[Cc]reate context from binary.*(err|Error|error)\W*(0x1388|5000)\b",
        (5000,),
        "the libraries on the phone are older than those that compiled the program, or it was"
        " compiled for another SoC",
        "push libraries at least as new as the manifest's qnn.version (mobilepack device-files"
        " checks them)",
        "qualcomm/ai-hub-apps#148",
    ),
    Rule(
        "device",
        r"Failed to create device_handle|Failed to parse platform config|QnnDevice_create",
        (14001,),
        "Qualcomm's libraries could not open a device",
        "on a phone, check skel and ADSP_LIBRARY_PATH; on this machine, run mobilepack doctor",
        "qualcomm/ai-hub-apps#158",
    ),
)


def cause_of(log: str) -> Cause | None:
    """Return what a log's most telling line means, None if no rule knows it."""
    for rule in RULES:
        found = re.search(f".*(?:{rule.pattern}).*", log)
        if found:
            return Cause(rule.name, rule.codes, rule.cause, rule.remedy, found[0].strip())
    return None


def explained(code: int) -> tuple[Rule, ...]:
    """Return every rule that a bare code may stand for."""
    return tuple(rule for rule in RULES if code in rule.codes)
