from __future__ import annotations

import pytest

from infra import bootstrap

PIP = ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_CERT")
UV = ("UV_FIND_LINKS", "UV_DEFAULT_INDEX", "SSL_CERT_FILE")


def test_a_machine_set_up_for_pip_is_set_up_for_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(PIP, ("/a /b", "https://index.example/simple", "/my certs/ca.pem"), strict=True):
        monkeypatch.setenv(name, value)
    for name in UV:
        monkeypatch.delenv(name, raising=False)

    assert bootstrap.pip_settings_for_uv() == {
        "UV_FIND_LINKS": "/a,/b",
        "UV_DEFAULT_INDEX": "https://index.example/simple",
        "SSL_CERT_FILE": "/my certs/ca.pem",
    }


def test_what_is_set_for_uv_itself_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PIP, *UV):
        monkeypatch.setenv(name, "x")

    assert bootstrap.pip_settings_for_uv() == {}


def test_every_profile_has_its_lock_and_a_change_of_profile_reinstalls() -> None:
    assert len({bootstrap.fingerprint(profile) for profile in bootstrap.PROFILES}) == len(bootstrap.PROFILES)


def test_a_profile_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap.main(["nonsense"]) == 2
    assert "unknown profile 'nonsense'" in capsys.readouterr().err
