"""Takes secrets out of whatever a pipeline prints, posts or keeps.

Pulumi hides what it knows to be secret, and no more: the base64 of a secret, or a value that a provider's error message
echoes, passes. So every text of Pulumi's goes through a Redactor first, which knows the values themselves. It cannot
know a secret that is in no configuration, no state and no variable yet, as a literal that a program calls secret.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

from model_serving.problems import Failure

MARK: Final = "[secret]"
"""What stands in a secret's place, as in Pulumi's own output."""
SHORTEST: Final = 3
"""Characters; shorter values are left alone, or nothing could be read any more. Pulumi draws the same line."""
SHORTEST_LINE: Final = 6
"""Letters and digits that a line of a longer secret must have: a brace or ``---`` alone says nothing."""
_SHORTEST_INNER_BASE64: Final = 8
_NAMES: Final = re.compile(r"(^|_)(TOKEN|PASSWORD|PASSPHRASE|KEY|SECRET|JWT)$", re.IGNORECASE)
_FURTHER_NAMES: Final = ("GOOGLE_CREDENTIALS", "CI_JOB_JWT_V1", "CI_JOB_JWT_V2", "DOCKER_AUTH_CONFIG")
_PLAINTEXT: Final = "plaintext"
_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
"""The key by which a state marks a secret, see pulumi/pulumi sdk/go/common/resource/sig.go."""
_LABEL_COPIES: Final = ("effectiveLabels", "pulumiLabels")
"""Google's provider marks these outputs secret whatever is in them, "model-serving" for one, which then would be hidden
everywhere. A label that is secret is marked under ``labels``, too."""
_SAYS_NOTHING: Final = frozenset({"true", "false", "null", "none"})
_PUBLIC_IN_SERVICE_ACCOUNT: Final = frozenset(
    {
        "type",
        "project_id",
        "client_email",
        "client_id",
        "auth_uri",
        "token_uri",
        "auth_provider_x509_cert_url",
        "client_x509_cert_url",
        "universe_domain",
    }
)
"""Without this, a stack that keeps such a key would have its project's id taken out of every note."""


class SecretsUnreadable(Failure):
    """The values to hide could not be had; the message has three parts and no secret."""


class Redactor:
    """Replaces values, and what encoding and quoting make of them."""

    def __init__(self, values: Iterable[str]) -> None:
        """Takes the secrets.

        Args:
            values: texts of any form; those that are JSON, or base64 of it, count with every value inside, and those of
                several lines with each line. Values under 3 characters are left.
        """
        found = {each.strip() for value in values for each in _inside(value)}
        meaningful = {each for each in found if len(each) >= SHORTEST and each.lower() not in _SAYS_NOTHING}
        self._forms = tuple(sorted({form for each in meaningful for form in _forms(each) if len(form) >= SHORTEST}))

    def text(self, text: str) -> str:
        """The text without secrets.

        Give it whole lines or more: a secret that is cut in two is not found.
        """
        spans = sorted(span for form in self._forms if form in text for span in _places(form, text))
        shown, end = [], 0
        # Overlapping places are one: what is left of the second secret would be told otherwise.
        for start, stop in spans:
            if start >= end:
                shown += [text[end:start], MARK]
            end = max(end, stop)
        return "".join([*shown, text[end:]])


def for_environment(environ: Mapping[str, str] = os.environ) -> Redactor:
    """Hides the tokens that a job has in its environment, and nothing else; needs no stack and no backend."""
    return Redactor(_environment_values(environ))


def for_stack(stack: str, environ: Mapping[str, str] = os.environ) -> Redactor:
    """Hides the secrets of a stack's configuration and state, its outputs among them, and those of the environment.

    Runs Pulumi in the current folder.

    Raises:
        SecretsUnreadable: if Pulumi cannot tell the secrets.
    """
    # Both at once: each takes half a second, most of it the secrets provider's.
    asked = [
        _start("config", "--show-secrets", "--json", stack=stack, environ=environ),
        _start("stack", "export", "--show-secrets", stack=stack, environ=environ),
    ]
    said = [process.communicate() for process in asked]
    configuration, state = (
        _answer(process, out, err, environ) for process, (out, err) in zip(asked, said, strict=True)
    )
    values = [entry["value"] for entry in configuration.values() if entry.get("secret") and "value" in entry]
    # The state has more secrets than the outputs: those of providers and of every resource.
    values += _plaintexts(state)
    return Redactor([*values, *_environment_values(environ)])


def _environment_values(environ: Mapping[str, str]) -> list[str]:
    return [value for name, value in environ.items() if _NAMES.search(name) or name in _FURTHER_NAMES]


def _start(*arguments: str, stack: str, environ: Mapping[str, str]) -> subprocess.Popen[str]:
    command = ["pulumi", *arguments, "--stack", stack, "--non-interactive"]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(environ),
        )
    except FileNotFoundError:
        raise SecretsUnreadable(
            "pulumi is not on PATH.\n"
            "  Nothing can be asked of the stack.\n"
            '  Run `make tools`, then `eval "$(make env)"`.'
        ) from None


def _answer(process: subprocess.Popen[str], out: str, err: str, environ: Mapping[str, str]) -> dict[str, Any]:
    if process.returncode:
        command = shlex.join([str(each) for each in process.args])  # type: ignore[union-attr]
        raise SecretsUnreadable(
            f"`{command}` failed: {for_environment(environ).text(err.strip())}\n"
            "  What is secret is not known, so nothing that Pulumi says could be shown.\n"
            "  Check that the stack exists, and that you may read its state and decrypt with its key."
        )
    answer: dict[str, Any] = json.loads(out or "{}")
    return answer


def _plaintexts(node: Any) -> Iterator[str]:
    """The secrets of a state that was exported with ``--show-secrets``: each is JSON inside a marked object."""
    if isinstance(node, dict):
        if _SIGNATURE in node and _PLAINTEXT in node:
            yield from _leaves(json.loads(node[_PLAINTEXT]))
        else:
            for key, value in node.items():
                if key not in _LABEL_COPIES:
                    yield from _plaintexts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _plaintexts(value)


def _inside(value: str) -> Iterator[str]:
    """A value, what it contains, and its lines."""
    yield value
    document = _document(value)
    if document is not None:
        yield from _leaves(document)
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line for line in lines if sum(map(str.isalnum, line)) >= SHORTEST_LINE)


def _document(value: str) -> Any:
    """The object or list that a text is in JSON or in base64 of JSON, as Google's keys are; else None."""
    text = value.strip()
    if not text.startswith(("{", "[")):
        try:
            text = base64.b64decode(text, validate=True).decode().strip()
        except (binascii.Error, ValueError):
            return None
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict | list) else None


def _leaves(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        public = _PUBLIC_IN_SERVICE_ACCOUNT if "private_key" in node else frozenset()
        for key, value in node.items():
            if key not in public:
                yield from _leaves(value)
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value)
    elif isinstance(node, str):
        yield from _inside(node)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield json.dumps(node)


def _forms(value: str) -> Iterator[str]:
    """What a value looks like in the texts that programs make of it."""
    for text in {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}:
        yield text
        yield _as_go_writes_json(text)
        yield json.dumps(text)[1:-1]  # JSON in a string of JSON
        yield json.dumps(_as_go_writes_json(text))[1:-1]
    yield repr(value)[1:-1]
    yield shlex.quote(value)
    yield value.replace("'", "'\\''")
    yield re.sub(r"([^\w@%+=:,./-])", r"\\\1", value)
    yield html.escape(value)
    for quoted in (quote(value), quote(value, safe=""), quote_plus(value)):
        yield quoted
        yield re.sub("%..", lambda found: found[0].lower(), quoted)
    yield from _base64_forms(value.encode())


def _as_go_writes_json(text: str) -> str:
    """Go's encoder escapes what could end a script in HTML, too."""
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _base64_forms(value: bytes) -> Iterator[str]:
    whole = base64.b64encode(value).decode()
    forms = {whole, whole.rstrip("=")}
    # Programs that break base64 do it at 76 characters, and PEM at 64.
    forms |= {whole[at : at + width] for width in (64, 76) for at in range(0, len(whole), width)}
    # Inside something longer, as the password of `user:password`, it starts at any bit: the characters at its edges are
    # its neighbours' as well, those between are its own.
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value).decode()
        inner = encoded[-(-before * 8 // 6) : (before + len(value)) * 8 // 6]
        forms.add(inner)
    for form in forms:
        if form in (whole, whole.rstrip("=")) or len(form) >= _SHORTEST_INNER_BASE64:
            yield form
            yield form.replace("+", "-").replace("/", "_")


def _places(form: str, text: str) -> Iterator[tuple[int, int]]:
    start = text.find(form)
    while start >= 0:
        yield start, start + len(form)
        start = text.find(form, start + 1)
