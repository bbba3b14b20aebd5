"""A policy pack that speaks the engine's protocol, because Pulumi's policy SDK is no part of this project.

The engine runs it as ``pulumi-analyzer-policy-standin`` for a pack whose runtime is ``standin``. It forbids buckets
without a label ``owner`` and advises against those in the United States.
"""

from __future__ import annotations

import os
import signal
import sys
from concurrent import futures
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf import empty_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc, plugin_pb2

from tests.engine.provider import read

ROOT: Final = Path(__file__).resolve().parents[2]
PACK: Final = "house"
_LEVELS: Final = {"owned-buckets": analyzer_pb2.MANDATORY, "buckets-in-europe": analyzer_pb2.ADVISORY}


class Pack(analyzer_pb2_grpc.AnalyzerServicer):
    """The protocol's server."""

    def Handshake(self, request: Any, context: Any) -> analyzer_pb2.AnalyzerHandshakeResponse:  # noqa: N802
        return analyzer_pb2.AnalyzerHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> plugin_pb2.PluginInfo:  # noqa: N802
        return plugin_pb2.PluginInfo(version="1.0.0")

    def GetAnalyzerInfo(self, request: Any, context: Any) -> analyzer_pb2.AnalyzerInfo:  # noqa: N802
        policies = [analyzer_pb2.PolicyInfo(name=name, enforcementLevel=level) for name, level in _LEVELS.items()]
        return analyzer_pb2.AnalyzerInfo(name=PACK, displayName=PACK, version="1.0.0", policies=policies)

    def Configure(self, request: Any, context: Any) -> empty_pb2.Empty:  # noqa: N802
        return empty_pb2.Empty()

    def Analyze(self, request: analyzer_pb2.AnalyzeRequest, context: Any) -> analyzer_pb2.AnalyzeResponse:  # noqa: N802
        found = []
        if request.type.endswith(":Bucket"):
            inputs = read(request.properties)
            if "owner" not in inputs.get("labels", {}):
                found.append(self._violation(request.urn, "owned-buckets", f"@all: nobody owns {inputs['name']}"))
            if inputs.get("location") == "US":
                found.append(self._violation(request.urn, "buckets-in-europe", "`US` is far </details>"))
        return analyzer_pb2.AnalyzeResponse(diagnostics=found)

    def Remediate(self, request: Any, context: Any) -> analyzer_pb2.RemediateResponse:  # noqa: N802
        return analyzer_pb2.RemediateResponse()

    def AnalyzeStack(self, request: Any, context: Any) -> analyzer_pb2.AnalyzeResponse:  # noqa: N802
        return analyzer_pb2.AnalyzeResponse()

    def Cancel(self, request: Any, context: Any) -> empty_pb2.Empty:  # noqa: N802
        return empty_pb2.Empty()

    def _violation(self, urn: str, name: str, message: str) -> analyzer_pb2.AnalyzeDiagnostic:
        return analyzer_pb2.AnalyzeDiagnostic(
            policyName=name,
            policyPackName=PACK,
            policyPackVersion="1.0.0",
            message=message,
            enforcementLevel=_LEVELS[name],
            urn=urn,
        )


def install(home: Path, folder: Path) -> Path:
    """Puts the program where the engine looks for it; returns the folder of a pack that it serves."""
    program = home / "bin" / "pulumi-analyzer-policy-standin"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.engine.policy_standin\n')
    program.chmod(0o755)
    folder.mkdir()
    (folder / "PulumiPolicy.yaml").write_text(f"runtime: standin\nname: {PACK}\nversion: 1.0.0\n")
    return folder


if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    analyzer_pb2_grpc.add_AnalyzerServicer_to_server(Pack(), server)
    chosen = server.add_insecure_port("127.0.0.1:0")
    server.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    print(chosen, flush=True)
    server.wait_for_termination()
