from __future__ import annotations

import base64
import html
import json
import os
import shlex
import stat
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from model_serving.pipelines import redact
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.redact import MARK, Redactor
from model_serving.problems import Failure

SECRET = "pä'ss \"w<o>rd&/+1?"  # noqa: S105 - it is planted
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nEFAASCBKcwggSjAgEA\n-----END PRIVATE KEY-----\n"
MARKED = {redact.SIGNATURE: "1b47061264138c4ac30d75fd1eb44270"}


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        json.dumps(json.dumps(SECRET)),
        json.dumps(SECRET).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
        repr(SECRET),
        shlex.quote(SECRET),
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        quote(SECRET, safe="").lower(),
        html.escape(SECRET),
        html.escape(SECRET).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),  # as Go writes it
        html.escape(SECRET).replace("&#x27;", "&apos;"),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(SECRET.encode()).decode().rstrip("="),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        # As Go writes it in an account, in a part of a path and in a path, and as JavaScript does.
        *(quote(SECRET, safe=safe) for safe in ("$&+,;=", "$&+:=@", "$&+,/:;=@", "!'()*")),
    ],
)
def test_a_secret_is_hidden_however_it_is_written(written: str) -> None:
    shown = Redactor([SECRET]).text(f"before {written} after")
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert MARK in shown
    assert written not in shown
    assert "rd" not in shown.removeprefix("before ").removesuffix(" after").replace(MARK, "")


@pytest.mark.parametrize("user", ["a", "ab", "abc"])
def test_a_password_is_hidden_in_the_base64_of_something_longer(user: str) -> None:
    encoded = base64.b64encode(f"{user}:correct-horse-battery:end".encode()).decode()
    shown = Redactor(["correct-horse-battery"]).text(encoded)
    assert MARK in shown
    for at in range(4):  # whichever way what is left is decoded
        left = shown.partition(MARK)[2][at:]
        assert b"batt" not in base64.b64decode(left[: len(left) // 4 * 4])


def test_each_line_of_a_secret_is_hidden_and_no_brace_or_rule() -> None:
    redactor = Redactor([PEM + "---\n{\n"])
    assert redactor.text("line 2: MIIEvQIBADANBgkqhkiG9w0BAQ") == f"line 2: {MARK}"
    assert "EFAASCBKcwggSjAgEA" not in redactor.text(json.dumps(PEM))
    assert redactor.text("| --- | { |") == "| --- | { |"


def test_long_base64_is_hidden_where_a_program_broke_it_into_lines() -> None:
    secret = "0123456789 abcdefghij " * 8
    shown = Redactor([secret]).text(base64.encodebytes(secret.strip().encode()).decode())
    assert set(shown.split("\n")) <= {MARK, ""}


def test_values_inside_secret_objects_are_hidden() -> None:
    value = json.dumps({"user": "somebody", "ports": [54321], "deep": [{"key": json.dumps({"inner": "innermost"})}]})
    shown = Redactor([value]).text("somebody 54321 innermost user")
    assert shown == f"{MARK} {MARK} {MARK} user"


def test_a_service_accounts_key_is_hidden_and_its_projects_name_is_not() -> None:
    key = {"type": "service_account", "project_id": "my-models", "private_key": PEM, "private_key_id": "0a1b2c3d"}
    redactor = Redactor([base64.b64encode(json.dumps(key).encode()).decode()])
    shown = redactor.text("my-models 0a1b2c3d MIIEvQIBADANBgkqhkiG9w0BAQ service_account")
    assert shown == f"my-models {MARK} {MARK} service_account"


def test_overlapping_secrets_leave_nothing_between_them() -> None:
    assert Redactor(["abcdef", "defghi", "xyz"]).text("_abcdefghi_") == f"_{MARK}_"


@pytest.mark.parametrize("value", ["", "ab", "  ", "true", "False", "null", "local"])
def test_values_that_hide_nothing_are_left(value: str) -> None:
    assert Redactor([value]).text("ab true False null localhost") == "ab true False null localhost"


def test_text_without_secrets_is_left_as_it_is() -> None:
    assert Redactor([SECRET]).text("nothing here\n") == "nothing here\n"
    assert Redactor([]).text("nothing here\n") == "nothing here\n"


def test_tokens_of_the_environment_are_hidden() -> None:
    environ = {
        "CI_JOB_TOKEN": "glcbt-1",
        "GITLAB_API_TOKEN": "glpat-2",
        "PULUMI_CONFIG_PASSPHRASE": "phrase-3",
        "CI_REGISTRY_PASSWORD": "password-4",
        "DEPLOY_KEY": "key-5",
        "APP_SECRET": "secret-6",
        "TOKEN": "bare-7",
        "HOME": "/home/somebody",
        "TOKENIZER": "words",
    }
    shown = redact.for_environment(environ).text(" ".join(environ.values()))
    assert shown == " ".join([MARK] * 7 + ["/home/somebody", "words"])


def test_a_password_in_an_address_is_hidden_and_the_address_is_not() -> None:
    environ = {"HTTPS_PROXY": "http://somebody:p%40ss-1@proxy.example:3128", "CI_API_V4_URL": "https://host:443/api/v4"}
    environ["DATABASE_URL"] = "postgres://dev:dev@localhost/dev"
    redactor = redact.for_environment(environ)
    assert redactor.text(environ["DATABASE_URL"]) == environ["DATABASE_URL"]
    assert redactor.text(environ["HTTPS_PROXY"]) == f"http://somebody:{MARK}@proxy.example:3128"
    assert redactor.text("denied for p@ss-1") == f"denied for {MARK}"
    assert redactor.text(environ["CI_API_V4_URL"]) == environ["CI_API_V4_URL"]


def test_a_stacks_secrets_come_from_its_configuration_and_its_state(tmp_path: Path) -> None:
    configuration = {
        "small:plain": {"value": "plain-value", "secret": False},
        "small:secret": {"value": "config-secret", "secret": True},
    }
    state = {
        "deployment": {
            "resources": [
                {"inputs": {"password": {**MARKED, "plaintext": json.dumps("provider-secret")}, "name": "bucket"}},
                {"outputs": {"key": {**MARKED, "plaintext": json.dumps({"deep": ["output-secret"]})}}},
            ]
        }
    }
    environ = _pulumi(
        tmp_path,
        f"case $1 in config) echo {shlex.quote(json.dumps(configuration))};; "
        f"*) echo {shlex.quote(json.dumps(state))};; esac",
    )
    redactor = Backend(stack="test", environ={**environ, "API_TOKEN": "a-token"}).redactor()
    shown = redactor.text("plain-value config-secret provider-secret bucket output-secret a-token")
    assert shown == f"plain-value {MARK} {MARK} bucket {MARK} {MARK}"


def test_an_unreadable_stack_is_refused_and_the_refusal_shows_no_token(tmp_path: Path) -> None:
    environ = _pulumi(tmp_path, "echo 'denied for glpat-12345' >&2; exit 255")
    with pytest.raises(Failure, match="you may read its state and decrypt") as refusal:
        Backend(stack="test", environ={**environ, "GITLAB_TOKEN": "glpat-12345"}).redactor()
    assert "denied for [secret]" in str(refusal.value)
    assert "glpat" not in str(refusal.value)


def _pulumi(folder: Path, script: str) -> dict[str, str]:
    """A pulumi on PATH that does as a test says."""
    program = folder / "pulumi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
