"""The image that holds a pod's namespaces open: a program of three instructions, made here to avoid a download."""

import io
import struct
import tarfile
import tempfile
from pathlib import Path

from local.cluster import oci
from local.cluster.layout import REGISTRY

PAUSE_IMAGE = f"{REGISTRY}/base/pause:1"

_INSTRUCTIONS = bytes.fromhex("b822000000 0f05 ebf7")  # again: mov eax, 34 (pause); syscall; jmp again


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
