import pytest

from agenta_ai_server.standin.faults import Fault


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", Fault()),
        ("status=503 retry-after=2 delay=0.5", Fault(status=503, retry_after="2", delay=0.5)),
        (" stall=body\n", Fault(stall="body")),
        ("retry-after='Wed, 21 Oct 2026 07:28:00 GMT'", Fault(retry_after="Wed, 21 Oct 2026 07:28:00 GMT")),
        ("garbage", Fault(garbage=True)),
        ("length=0", Fault(length=0)),
        ('delay=1 text={"a": "it\'s text="} status=1', Fault(delay=1, text='{"a": "it\'s text="} status=1')),
        ("text=", Fault(text="")),
    ],
)
def test_parse(spec: str, expected: Fault) -> None:
    assert Fault.parse(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("stall=body sleep=3", "'sleep' is not a known fault; known are: status, cause, retry-after, .* huge"),
        ("nonsense", "'nonsense' is not a known fault"),
        ("status=often", "'status=often' has no valid value"),
        ("status", "'status' has no valid value"),
        ("stall", "'stall' has no valid value"),
        ("garbage=no", "'garbage=no' has no valid value"),
        ("status=200", "status=200 is not one of 300 to 599"),
        ("stall=tail", "stall=tail is not one of headers, body"),
        ("body=big", "body=big is not one of broken, "),
        ("answer=42", "answer=42 is not one of empty, "),
        ("delay=-1", "delay=-1.0 is not a number from 0 up"),
        ("delay=nan", "delay=nan is not a number"),
        ("delay=inf", "delay=inf is not a number"),
        ("stall=body reset=body", "stall and reset exclude each other"),
        ("length=0 garbage", "length and garbage exclude each other"),
        ("answer=null text=x", "answer and text exclude each other"),
        ("retry-after='2", "[Nn]o closing quotation"),
    ],
)
def test_parse_refuses(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fault.parse(spec)
