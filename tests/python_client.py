"""Calls the platform as a stranger would: grpcio and server reflection, no generated code.

    python_client.py VALUE FLOW SHIELD BILLING        (four host:port addresses of `kiki up`)

It sets up a client, asks Predict, Bid, Check and ListInvoices, checks the answers, prints them, and exits 1 with the
first that is wrong. Needs tests/requirements.txt.
"""

import sys
import time

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.text_format import MessageToString
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

CLIENT, CAMPAIGN, CURRENCY, CUSTOMER = "initech", "initech-spring", "USD", "customer-1"
CALL_SECONDS = 10
# SyncFlow learns of a new campaign from SyncShield's stream: normally in milliseconds.
READY_SECONDS = 30


class Service:
    """One gRPC service, known by its reflection alone."""

    def __init__(self, address, name):
        self.name = name
        self.channel = grpc.insecure_channel(address)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        assert name in self.database.get_services(), f"{address} serves {self.database.get_services()}, not {name}"
        self.descriptor = DescriptorPool(self.database).FindServiceByName(name)

    def call(self, method, stream=False, **fields):
        """The answer to a call; for a client stream of one message, the first answer."""
        kind = self.descriptor.methods_by_name[method]
        request = GetMessageClass(kind.input_type)(**fields)
        path, send, receive = f"/{self.name}/{method}", request.SerializeToString, GetMessageClass(kind.output_type).FromString
        if stream:
            answers = self.channel.stream_stream(path, lambda m: m.SerializeToString(), receive)(iter([request]), timeout=CALL_SECONDS)
            return next(answers)
        return self.channel.unary_unary(path, lambda _: send(), receive)(request, timeout=CALL_SECONDS)


def show(title, message):
    text = MessageToString(message, as_one_line=True)
    print(f"{title}: {text if len(text) <= 300 else text[:300] + '...'}")


def set_up(shield):
    """A policy, terms and a campaign that pays, for an impression, 0.00002 x the customer's value / 3.0."""
    shield.call("PutPolicy", policy={"bid_caps": [{"currency": CURRENCY, "cap_nanos": 20_000_000}], "blocked_countries": ["PRK"]})
    shield.call(
        "PutTerms",
        client=CLIENT,
        terms={
            "currency": CURRENCY, "client_name": "Initech", "baseline_ppm": 3_000_000, "share_ppm": 100_000, "basis": "BASIS_PREDICTED",
            "netting": "NETTING_CLIENT", "zone": "Europe/Berlin", "payment_days": 30, "horizon_days": 90,
            "attribution": "ATTRIBUTION_RULE_LAST_BILLED_V1", "lookback_seconds": 2_592_000,
        },
    )
    shield.call(
        "PutCampaign",
        client=CLIENT,
        campaign={
            "campaign": CAMPAIGN, "name": "Spring", "currency": CURRENCY, "limit_total_micros": 1_000_000_000, "target_roas_ppm": 3_000_000,
            "prior_p_conversion_ppb": 20_000, "prior_ltv_micros": 150_000_000, "zone": "Europe/Berlin",
            "creatives": [{
                "creative": "banner", "crid": "b-1", "adomain": ["initech.example"], "format": "CREATIVE_FORMAT_BANNER",
                "width": 300, "height": 250, "markup": "<a href='${KIKI_CLICK}'>Initech</a>", "click_url": "https://initech.example/",
            }],
        },
    )


def predict(value):
    """Thirty customers bought in the last year; one of them is asked about, and one whom nobody knows."""
    now = int(time.time())
    bought = [(f"customer-{n}", days, n % 3 + 1) for n in range(30) for days in range(n + 1, 365, 20 + 10 * n)]
    events = [
        {
            "client": CLIENT, "customer": customer, "currency": CURRENCY,
            "event": {"event_id": f"{customer}-{days}", "occurred_at": {"seconds": now - days * 86_400}, "value_micros": 20_000_000, "items": items},
        }
        for customer, days, items in sorted(bought, key=lambda b: -b[1])
    ]
    observed = value.call("Observe", stream=True, events=events)
    assert observed.applied + observed.duplicates == len(events), observed
    answer = value.call("Predict", client=CLIENT, customer=CUSTOMER, currency=CURRENCY, horizon_days=90)
    show("Predict", answer)
    prediction = answer.prediction
    assert 0 <= prediction.q05_micros <= prediction.mean_micros <= prediction.q95_micros, prediction
    assert prediction.mean_micros > 0 and prediction.model and prediction.horizon_days == 90, prediction
    stranger = value.call("Predict", client=CLIENT, customer="nobody", currency=CURRENCY).prediction
    reasons = stranger.DESCRIPTOR.fields_by_name["fallback_reason"].enum_type.values_by_number
    assert reasons[stranger.fallback_reason].name == "FALLBACK_REASON_UNKNOWN_CUSTOMER", stranger


def bid(flow):
    """An impression that fits; no bid may be the answer until the campaign has reached SyncFlow."""
    opportunity = {
        "imp_id": "1", "exchange": "exchange-a", "customer": CUSTOMER, "country": "DEU", "domain": "news.example",
        "format": "CREATIVE_FORMAT_BANNER", "width": 300, "height": 250, "floor_nanos": 1_000, "currency": CURRENCY,
    }
    end = time.monotonic() + READY_SECONDS
    attempt = 0
    while True:
        attempt += 1  # a request id answers the same for ever
        request_id = f"python-{time.time_ns()}-{attempt}"
        answer = flow.call("Bid", opportunity=dict(opportunity, request_id=request_id), await_durable=True)
        if answer.WhichOneof("result") == "bid" or time.monotonic() > end:
            break
        time.sleep(0.1)
    show("Bid", answer)
    assert answer.WhichOneof("result") == "bid", f"no bid after {READY_SECONDS} s: {answer}"
    assert answer.bid.client == CLIENT and answer.bid.campaign == CAMPAIGN, answer
    assert 1_000 <= answer.bid.price_nanos <= 20_000_000 and answer.bid.receipt, answer


def check(shield):
    """Allowed below the cap, refused above it and in a blocked country, each with its reason."""
    ask = {"client": CLIENT, "campaign": CAMPAIGN, "platform": "exchange-a", "currency": CURRENCY, "price_nanos": 1_000_000, "country": "DEU"}
    answer = shield.call("Check", **ask)
    show("Check", answer)
    assert answer.allowed and not answer.reasons and len(answer.policy_digest) == 32, answer
    names = shield.descriptor.methods_by_name["Check"].output_type.fields_by_name["reasons"].enum_type.values_by_number
    for change, reason in [({"price_nanos": 20_000_001}, "REFUSAL_BID_CAP"), ({"country": "PRK"}, "REFUSAL_GEO")]:
        answer = shield.call("Check", **{**ask, **change})
        show(f"Check {change}", answer)
        assert not answer.allowed and [names[n].name for n in answer.reasons] == [reason], answer


def list_invoices(billing):
    """Nothing was invoiced yet, and a page of no sense is refused with a reason."""
    answer = billing.call("ListInvoices", client=CLIENT)
    show("ListInvoices", answer)
    assert not answer.invoices and not answer.next_page_token, answer
    try:
        billing.call("ListInvoices", page_size=1_001)
    except grpc.RpcError as error:
        print(f"ListInvoices of 1,001: {error.code().name}: {error.details()}")
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "page_size" in error.details(), error
    else:
        raise AssertionError("a page of 1,001 invoices was accepted")


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    names = ["syncvalue.v1.SyncValueService", "syncflow.v1.SyncFlowService", "syncshield.v1.SyncShieldService", "billing.v1.BillingService"]
    value, flow, shield, billing = (Service(address, f"kiki.{name}") for address, name in zip(sys.argv[1:], names))
    set_up(shield)
    predict(value)
    bid(flow)
    check(shield)
    list_invoices(billing)
    print("python client: all answers as they should be")


if __name__ == "__main__":
    main()
