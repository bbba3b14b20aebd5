"""The image that holds a pod's namespaces open: a program of a few instructions, made here to avoid a download."""

import io
import struct
import tarfile
import tempfile
from pathlib import Path

from local.cluster import oci
from local.cluster.layout import REGISTRY

PAUSE_IMAGE = f"{REGISTRY}/base/pause:2"

# As the first process of its namespace it ignores every signal that it neither handles nor blocks, so it blocks SIGTERM
# and SIGINT and waits for one of them: otherwise a shutdown of the machine would wait for it in vain.
_INSTRUCTIONS = bytes.fromhex(
    "41ba08000000"  # mov r10d, 8, the size of a set of signals
    "488d3d2d000000"  # lea rdi, [signals]
    "4889fe"  # mov rsi, rdi
    "31ff 31d2 b80e000000 0f05"  # rt_sigprocmask(SIG_BLOCK, signals, no old ones)
    # again:
    "488d3d18000000"  # lea rdi, [signals]
    "31f6 31d2 b880000000 0f05"  # rt_sigtimedwait(signals, no details, no timeout)
    "85c0 78ea"  # test eax, eax; js again, because another signal interrupted it
    "31ff b83c000000 0f05"  # exit(0)
    "0240000000000000"  # signals: SIGINT, 2, and SIGTERM, 15
)


def ensure_pushed() -> None:
    if oci.is_pushed(PAUSE_IMAGE):
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "layer.tar.gz"
        layer = oci.compress(io.BytesIO(_archive()), file)
        oci.push(PAUSE_IMAGE, layer, file, {"Entrypoint": ["/pause"], "User": "65535:65535"})


def _archive() -> bytes:
    program = _program()
    entry = tarfile.TarInfo("pause")
    entry.size, entry.mode = len(program), 0o755
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(program))
    return output.getvalue()


def _program() -> bytes:
    """A static executable for Linux on x86-64: its header, one loaded segment, the instructions."""
    base, page, header_bytes, segment_bytes = 0x400000, 0x1000, 64, 56
    executable, x86_64, version, loaded, readable_and_executable = 2, 62, 1, 1, 5
    start = header_bytes + segment_bytes
    size = start + len(_INSTRUCTIONS)
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    sizes = (header_bytes, segment_bytes, 1, 0, 0, 0)
    entry = (executable, x86_64, version, base + start, header_bytes, 0, 0, *sizes)
    header = struct.pack("<16sHHIQQQIHHHHHH", identity, *entry)
    segment = struct.pack("<IIQQQQQQ", loaded, readable_and_executable, 0, base, base, size, size, page)
    return header + segment + _INSTRUCTIONS
