from __future__ import annotations

import ipaddress

import msgspec
import openai
import pytest

from producer.gateway.webhooks.destination import AddressRefused, check_address, destination_of
from producer.gateway.webhooks.endpoint import EndpointRecord, new_endpoint, rotated, signed_headers, view_of
from producer.gateway.webhooks.schedule import Outcome, Verdict, verdict_of
from schemas.config import load
from schemas.errors import ConfigError, JobMalformed
from schemas.webhooks_config import RETRIES_S

RANDOM = bytes(range(44))
NOW = 1_800_000_000_000
BODY = b'{"id":"evt_1","object":"event","created_at":1,"type":"batch.completed","data":{"id":"batch_1"}}'


def an_endpoint() -> EndpointRecord:
    return new_endpoint("ann", "https://example.com/hook", random=RANDOM, now_unix_ms=NOW)


def headers_of(record: EndpointRecord, now: int = NOW) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in signed_headers(record, "evt_1", BODY, now_unix_ms=now)}


def verify(headers: dict[str, str], secret: str) -> None:
    client = openai.OpenAI(api_key="x", webhook_secret=secret)
    # Its clock is the wall's.
    client.webhooks.verify_signature(BODY.decode(), headers, tolerance=10**9)


def test_what_is_signed_is_what_openais_own_client_verifies() -> None:
    record = an_endpoint()

    verify(headers_of(record), record.secrets[0].value)

    with pytest.raises(openai.InvalidWebhookSignatureError):
        verify({**headers_of(record), "webhook-id": "evt_2"}, record.secrets[0].value)


def test_a_rotated_secret_signs_beside_the_new_one_until_its_time_is_over() -> None:
    record = an_endpoint()
    newer = rotated(record, random=bytes(32), now_unix_ms=NOW, overlap_ms=1000)
    old, new = record.secrets[0].value, newer.secrets[0].value

    for secret in (old, new):
        verify(headers_of(newer, NOW + 999), secret)
    verify(headers_of(newer, NOW + 1000), new)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        verify(headers_of(newer, NOW + 1000), old)


def test_however_often_it_is_rotated_few_secrets_are_kept_and_the_oldest_end_when_they_should() -> None:
    record = an_endpoint()
    for times in range(9):
        record = rotated(record, random=bytes([times]) * 32, now_unix_ms=NOW + times, overlap_ms=1000)

    assert len(record.secrets) == 3
    assert [secret.until_unix_ms for secret in record.secrets] == [0, NOW + 1008, NOW + 1007]
    assert len(rotated(record, random=bytes(32), now_unix_ms=NOW + 5000, overlap_ms=1000).secrets) == 2


def test_a_secret_is_in_no_view_and_no_repr() -> None:
    record = an_endpoint()
    secret = record.secrets[0].value

    assert secret not in repr(record)
    assert secret.encode() not in msgspec.json.encode(view_of(record))
    assert view_of(record, with_secret=True).secret == secret


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.9.9", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200"),
        *("0.0.0.0", "255.255.255.255", "224.0.0.1", "192.0.0.192", "168.63.129.16", "198.18.0.1", "240.0.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%2", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1"),
        *("64:ff9b::a9fe:a9fe", "::7f00:1", "2001:db8::1", "64:ff9b:1::a00:1"),
    ],
)
def test_an_address_that_is_not_the_internets_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="not public"):
        check_address(ipaddress.ip_address(address), [], is_tls=True)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address_is_called_with_tls_only(address: str) -> None:
    check_address(ipaddress.ip_address(address), [], is_tls=True)
    with pytest.raises(AddressRefused, match="https"):
        check_address(ipaddress.ip_address(address), ["10.0.0.0/8"], is_tls=False)


def test_an_allowed_network_opens_itself_and_nothing_else() -> None:
    check_address(ipaddress.ip_address("10.1.2.3"), ["10.1.0.0/16"], is_tls=False)
    for other in ("10.2.0.1", "127.0.0.1", "::1"):
        with pytest.raises(AddressRefused):
            check_address(ipaddress.ip_address(other), ["10.1.0.0/16"], is_tls=True)


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "ftp://example.com", "https://", "https:///x", "//example.com", "https://example.com:99999/"),
        *(
            "https://user:pass@example.com/",
            "https://user@example.com/",
            "https://exa mple.com/",
            "https://ex\r\nample",
        ),
        *("https://example.com/\r\nx: y", "https://example.com/ä", "https://bücher.example/", "https://[::1"),
        *("https://example.com/" + "x" * 3000, "http://example.com/", "https://127.0.0.1/", "https://[::1]:8/"),
        "https://exa%6Dple.com/",
    ],
)
def test_what_cannot_be_called_is_refused_when_it_is_given(url: str) -> None:
    with pytest.raises(JobMalformed) as refused:
        destination_of(url, [])
    assert refused.value.param == "url"


def test_a_url_comes_apart_into_what_a_request_needs() -> None:
    plain = destination_of("https://example.com", [])
    full = destination_of("http://[::1]:8080/a/b?c=d#e", ["::1/128"])

    assert plain == (True, "example.com", 443, "/", "example.com")
    assert full == (False, "::1", 8080, "/a/b?c=d", "[::1]:8080")


def test_an_event_that_is_not_taken_is_tried_ten_times_over_three_days_and_then_given_up() -> None:
    tries = [verdict_of(Outcome(status=500), attempt, RETRIES_S) for attempt in range(1, 11)]

    assert [delay_s for _, delay_s in tries[:4]] == [5.0, 300.0, 1800.0, 7200.0]
    assert [verdict for verdict, _ in tries] == [Verdict.RETRY] * 9 + [Verdict.GIVE_UP]
    assert 3 < sum(delay_s for _, delay_s in tries) / 86400 < 4


def test_only_2xx_is_a_delivery_and_only_410_ends_the_endpoint() -> None:
    def verdicts(*statuses: int) -> set[Verdict]:
        return {verdict_of(Outcome(status=status), 1, RETRIES_S)[0] for status in statuses}

    assert verdicts(200, 201, 204, 299) == {Verdict.DELIVERED}
    assert verdicts(0, 301, 302, 307, 400, 401, 404, 409, 429, 500, 503) == {Verdict.RETRY}
    assert verdicts(410) == {Verdict.DISABLE}


def test_an_endpoint_may_ask_for_a_longer_pause_but_not_for_ever() -> None:
    assert verdict_of(Outcome(status=429, retry_after_s=60), 1, RETRIES_S)[1] == 60
    assert verdict_of(Outcome(status=429, retry_after_s=1), 1, RETRIES_S)[1] == 5
    assert verdict_of(Outcome(status=429, retry_after_s=10**9), 1, RETRIES_S)[1] == 86400


def test_a_network_that_is_none_is_named_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="allowed_networks"):
        load('[gateway.webhooks]\nallowed_networks = ["10.0.0.1/8"]', {}, {})


def test_an_event_that_does_not_exist_cannot_be_asked_for() -> None:
    with pytest.raises(JobMalformed, match=r"batch\.completed"):
        new_endpoint("ann", "https://e.example", random=RANDOM, now_unix_ms=NOW, events=["batch.begun"])
