"""Removes secrets from everything that a pipeline prints, posts or keeps.

Pulumi only hides values marked as secret, not the base64 of one or a value quoted in a provider's error. So all of its
output goes through a Redactor, which knows the values themselves. It cannot know a secret that is not yet in the
configuration, the state or the environment, such as a new literal that a program marks as secret.
"""

import base64
import html
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote

MARK: Final = "[secret]"
"""Replaces a secret, as in Pulumi's own output."""
SHORTEST: Final = 3
"""Characters; hiding shorter values would make texts unreadable. Pulumi has the same limit."""
SHORTEST_LINE: Final = 6
"""Minimum of letters and digits in a line of a longer secret: a brace or ``---`` reveals nothing."""
_SHORTEST_INNER_BASE64: Final = 8
_NAMES: Final = re.compile(
    r"(^|_)(TOKEN|PASSWORD|PASSPHRASE|KEY|SECRET|JWT)$|^(GOOGLE_CREDENTIALS|CI_JOB_JWT_V[12]|DOCKER_AUTH_CONFIG)$",
    re.IGNORECASE,
)
SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
"""Key of Pulumi's special values, such as secrets: pulumi/pulumi sdk/go/common/resource/sig.go."""
_LABEL_COPIES: Final = ("effectiveLabels", "pulumiLabels")
"""Google's provider always marks these outputs as secret, which would hide ordinary words such as "model-serving"
everywhere. A label that is secret is also marked under ``labels``."""
_SAFE_IN_ADDRESSES: Final = ("", "/", "$&+,;=", "$&+:=@", "$&+,/:;=@", "!'()*")
"""Characters that are left as they are in addresses: by Python, by Go in an account, in a part of a path and in a path
(shouldEscape of its net/url), and by JavaScript."""
_PASSWORD: Final = re.compile(r"://[^/?#\s:@]*:([^/?#\s@]{6,})@")
"""In an address, such as that of a proxy; a shorter one is a word such as dev, which would be hidden everywhere."""
_SAYS_NOTHING: Final = frozenset({"true", "false", "null", "none", "local"})
"""Not hidden. The last is the passphrase of the stack local, which the Makefile tells, and a part of localhost."""
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
"""Fields of a service account key that stay visible; otherwise the project's id would be hidden in every note."""


class Redactor:
    """Replaces secrets, also in encoded or quoted form.

    Of JSON, or base64 of it, every value inside is hidden as well; of several lines, each line.
    """

    def __init__(self, values: Iterable[str]) -> None:
        found = {each.strip() for value in values for each in _inside(value)}
        meaningful = {each for each in found if len(each) >= SHORTEST and each.lower() not in _SAYS_NOTHING}
        self._forms = tuple(sorted({form for each in meaningful for form in _forms(each) if len(form) >= SHORTEST}))

    def text(self, text: str) -> str:
        """The text without secrets. A secret that is cut at the start or end of the text is not found."""
        # A lookahead also finds overlapping places of the same form.
        spans = sorted(
            (place.start(), place.start() + len(form))
            for form in self._forms
            if form in text
            for place in re.finditer(f"(?={re.escape(form)})", text)
        )
        shown, end = [], 0
        # Overlapping places count as one, or the rest of the second secret would stay.
        for start, stop in spans:
            if start >= end:
                shown += [text[end:start], MARK]
            end = max(end, stop)
        return "".join([*shown, text[end:]])


def for_environment(environ: Mapping[str, str] = os.environ) -> Redactor:
    """Hides only the tokens in the environment of a job; needs no stack and no backend."""
    return Redactor(_environment_values(environ))


def for_stack(configuration: Mapping[str, Any], state: Any, environ: Mapping[str, str]) -> Redactor:
    """Hides the secrets of a stack and of the environment; configuration and state are Pulumi's, with the secrets."""
    values = [entry["value"] for entry in configuration.values() if entry.get("secret") and "value" in entry]
    # The state has more secrets than the outputs: those of providers and of every resource.
    values += _plaintexts(state)
    return Redactor([*values, *_environment_values(environ)])


def _environment_values(environ: Mapping[str, str]) -> list[str]:
    named = [value for name, value in environ.items() if _NAMES.search(name)]
    passwords = [password for value in environ.values() for password in _PASSWORD.findall(value)]
    return [*named, *passwords, *map(unquote, passwords)]


def _plaintexts(node: Any) -> Iterator[str]:
    """The secrets of a state exported with ``--show-secrets``: each is JSON inside a marked object."""
    if isinstance(node, dict):
        if SIGNATURE in node and "plaintext" in node:
            yield from _leaves(json.loads(node["plaintext"]))
        else:
            for key, value in node.items():
                if key not in _LABEL_COPIES:
                    yield from _plaintexts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _plaintexts(value)


def _inside(value: str) -> Iterator[str]:
    """A value, the values inside, and its lines."""
    yield value
    document = _document(value)
    if document is not None:
        yield from _leaves(document)
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line for line in lines if sum(map(str.isalnum, line)) >= SHORTEST_LINE)


def _document(value: str) -> Any:
    """The object or list in a text of JSON, or base64 of it as in Google's keys; else None."""
    text = value.strip()
    try:
        if not text.startswith(("{", "[")):
            text = base64.b64decode(text, validate=True).decode().strip()
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
    """The encoded and quoted forms of a value."""
    for text in {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}:
        yield text
        yield _as_go_writes_json(text)
        yield json.dumps(text)[1:-1]  # JSON in a string of JSON
        yield json.dumps(_as_go_writes_json(text))[1:-1]
    yield repr(value)[1:-1]
    yield shlex.quote(value)
    yield value.replace("'", "'\\''")
    yield re.sub(r"([^\w@%+=:,./-])", r"\\\1", value)
    # Of quotes, each language has its own reference: Python &#x27;, Go &#39; and &#34;, XML &apos;.
    yield html.escape(value)
    yield html.escape(value).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    yield html.escape(value).replace("&#x27;", "&apos;")
    yield html.escape(value).replace("&#x27;", "&#39;")
    for quoted in (quote_plus(value), *(quote(value, safe=safe) for safe in _SAFE_IN_ADDRESSES)):
        yield quoted
        yield re.sub("%..", lambda found: found[0].lower(), quoted)
    yield from _base64_forms(value.encode())


def _as_go_writes_json(text: str) -> str:
    """Go's encoder also escapes characters that are special in HTML."""
    return text.translate({ord(each): f"\\u{ord(each):04x}" for each in "<>&"})


def _base64_forms(value: bytes) -> Iterator[str]:
    whole = base64.b64encode(value).decode()
    forms = {whole, whole.rstrip("=")}
    # Wrapped base64 has lines of 76 characters, PEM of 64.
    forms |= {whole[at : at + width] for width in (64, 76) for at in range(0, len(whole), width)}
    # Inside a longer text, such as `user:password`, it starts at any of three offsets; the characters at its edges also
    # encode its neighbours, those between only itself.
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value).decode()
        forms.add(encoded[-(-before * 8 // 6) : (before + len(value)) * 8 // 6])
    for form in forms:
        if form in (whole, whole.rstrip("=")) or len(form) >= _SHORTEST_INNER_BASE64:
            yield form
            yield form.replace("+", "-").replace("/", "_")
