#!/usr/bin/env python3
"""Recomputes a replay's invoices without any of KIKI's code.

Reads what the exchange charged (exchange.jsonl), the purchases (the event file, and purchases.jsonl for which of them
brought a receipt) and the terms (terms.json); attributes, sums, nets and rounds; compares with invoices/*.json to the
cent. Exits with 1 where anything differs. Python's standard library only.

    python3 tests/replay_recompute.py DIR
"""

import base64
import csv
import datetime
import decimal
import glob
import hashlib
import json
import os
import sys

DAY = 86_400_000_000
NANOS = 10**9
PPM = 10**6


def read_jsonl(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def scaled(text, places):
    """An exact decimal as an integer of 10^-places."""
    value = decimal.Decimal(text).scaleb(places)
    if value != value.to_integral_value():
        raise SystemExit(f"{text} has more than {places} decimals")
    return int(value)


def rounded(value, unit):
    """value / unit, half away from zero."""
    whole, rest = divmod(abs(value), unit)
    whole += rest * 2 >= unit
    return whole if value >= 0 else -whole


def decode_receipt(layout, text):
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    def number(name):
        field = layout[name]
        piece = data[field["at"] : field["at"] + field["bytes"]]
        return int.from_bytes(piece, "big", signed=field.get("signed", False))

    return {name: number(name) for name in ("lease_id", "sequence", "predicted_ltv_micros", "has_customer")}


def read_purchases(directory, terms):
    path = os.path.join(directory, terms["events"])
    with open(path, "rb") as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != terms["events_sha256"]:
        raise SystemExit(f"{path} is not the file that was replayed")
    purchases = []
    for row, record in enumerate(csv.DictReader(content.decode("utf-8").splitlines()), start=1):
        date = datetime.date.fromisoformat(record["date"])
        at = (date - datetime.date(1970, 1, 1)).days * DAY + DAY // 2
        if terms["purchases"]["reported_from_micros"] <= at < terms["purchases"]["reported_until_micros"]:
            purchases.append((at, row, record["cust"], scaled(record["spend"], 6)))
    purchases.sort()
    return purchases


def acquisitions(client, charges, purchases, clicks):
    """Which campaign acquired which customer, when, and at what predicted value."""
    by_customer, by_receipt, acquired = {}, {}, {}
    for charge in charges:
        by_receipt[charge["receipt"]] = charge
        if charge["has_customer"]:
            by_customer.setdefault(charge["customer"], []).append(charge)
    for at, row, customer, value in purchases:
        if customer in acquired or value <= 0:
            continue

        def counts(charge):
            return charge["notified_at"] <= at and at - client["lookback_micros"] <= charge["bid_at"] <= at

        charge = by_receipt.get(clicks.get(f"order-{row}"))
        if charge is None or not counts(charge):
            shown = [charge for charge in by_customer.get(customer, []) if counts(charge)]
            charge = max(shown, key=lambda c: (c["bid_at"], c["lease_id"], c["sequence"]), default=None)
        if charge is not None:
            acquired[customer] = (at, charge["campaign"], charge["predicted_ltv_micros"])
    return acquired


def fees(lines, client, minor_unit):
    """Fee in the minor unit by campaign; lines: campaign -> (spend nanos, LTV nanos)."""
    # Margins in 10^-15 of the currency, fees before rounding in 10^-21: nothing is rounded before its end.
    margins = {c: ltv * PPM - client["baseline_ppm"] * spend for c, (spend, ltv) in lines.items() if spend > 0}
    unit = 10 ** (21 - minor_unit)
    winners = {c: margin for c, margin in margins.items() if margin > 0}
    fee = {campaign: 0 for campaign in lines}
    if len(winners) == len(margins) or all(margin >= 0 for margin in margins.values()):
        for campaign, margin in winners.items():
            fee[campaign] = rounded(client["share_ppm"] * margin, unit)
        return fee
    total = rounded(client["share_ppm"] * max(0, sum(margins.values())), unit)
    whole = sum(winners.values())
    shares = {c: divmod(total * margin, whole) for c, margin in winners.items()}
    fee.update({c: quotient for c, (quotient, _) in shares.items()})
    left = total - sum(fee.values())
    for campaign in sorted(shares, key=lambda c: (-shares[c][1], c))[:left]:
        fee[campaign] += 1
    return fee


def invoice_of(client, terms, all_charges, all_purchases, clicks):
    charges = [c for c in all_charges if c["client"] == client["client"]]
    mine = lambda customer: hashlib.sha256(customer.encode()).digest()[0] % 2 == client["customers_sha256_first_byte_mod_2"]
    purchases = [p for p in all_purchases if mine(p[2])]
    end = client["period_end_micros"]
    lines = {}

    def add(campaign, spend, ltv):
        before = lines.get(campaign, (0, 0))
        lines[campaign] = (before[0] + spend, before[1] + ltv)

    for charge in charges:
        if charge["bid_at"] < end:
            add(charge["campaign"], charge["price_nanos"], 0)
    acquired = acquisitions(client, charges, purchases, clicks)
    acquired = {customer: what for customer, what in acquired.items() if what[0] < end}
    if client["basis"] == "predicted":
        for _, campaign, predicted in acquired.values():
            add(campaign, 0, predicted * 1_000)
    else:
        horizon = client["horizon_days"] * DAY
        for at, _, customer, value in purchases:
            since, campaign, _ = acquired.get(customer, (None, None, None))
            if since is not None and since <= at < since + horizon:
                add(campaign, 0, value * 1_000)
    return lines, fees(lines, client, terms["minor_unit"]), len(acquired)


def compare(client, terms, lines, fee, invoice):
    """Every difference as a line of text."""
    places = terms["minor_unit"]
    differences = []

    def same(what, printed, own):
        if printed != own:
            differences.append(f"{invoice['invoice_id']} {what}: invoice {printed}, recomputed {own}")

    same("period", invoice["period"], terms["month"])
    same("currency", invoice["currency"], terms["currency"])
    same("client_name", invoice["client_name"], client["client_name"])
    printed = {line["campaign_id"]: line for line in invoice["line_items"]}
    same("campaigns", sorted(printed), sorted(lines))
    for campaign, (spend, ltv) in lines.items():
        line = printed.get(campaign)
        if line is None:
            continue
        unit = 10 ** (9 - places)
        same(f"{campaign} client_spend", scaled(line["client_spend"], places), rounded(spend, unit))
        same(f"{campaign} client_spend_exact", scaled(line["client_spend_exact"], 9), spend)
        same(f"{campaign} ltv", scaled(line["ltv"], places), rounded(ltv, unit))
        same(f"{campaign} ltv_exact", scaled(line["ltv_exact"], 9), ltv)
        same(f"{campaign} kiki_invoice_amount", scaled(line["kiki_invoice_amount"], places), fee[campaign])
        margin = rounded(ltv * PPM - client["baseline_ppm"] * spend, 10 ** (15 - places))
        same(f"{campaign} margin_recovered", scaled(line["margin_recovered"], places), margin)
        if spend > 0:
            same(f"{campaign} kiki_roas", scaled(line["kiki_roas"], 4), rounded(ltv * 10**4, spend))
    same("total_invoice_amount", scaled(invoice["total_invoice_amount"], places), sum(fee.values()))
    return differences


def main(directory):
    with open(os.path.join(directory, "terms.json"), encoding="utf-8") as file:
        terms = json.load(file)
    ledger = read_jsonl(os.path.join(directory, "exchange.jsonl"))
    charges, seen = [], set()
    for entry in ledger:
        if entry["type"] == "charge":
            key = (entry["round"], entry["line"], entry["imp"])
            if key in seen:
                raise SystemExit(f"the exchange charged {key} twice")
            seen.add(key)
            charges.append({**entry, **decode_receipt(terms["receipt"], entry["receipt"])})
    clicks = {click["event_id"]: click["receipt"] for click in read_jsonl(os.path.join(directory, "purchases.jsonl"))}
    purchases = read_purchases(directory, terms)
    invoices = {}
    for path in glob.glob(os.path.join(directory, "invoices", "K*.json")):
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        if document["client"] in invoices:
            raise SystemExit(f"{document['client']} has two invoices")
        invoices[document["client"]] = document
    differences = []
    for client in terms["clients"]:
        lines, fee, acquired = invoice_of(client, terms, charges, purchases, clicks)
        invoice = invoices.pop(client["client"], None)
        if invoice is None:
            if lines:
                differences.append(f"{client['client']}: {len(lines)} lines recomputed, and no invoice")
            continue
        found = compare(client, terms, lines, fee, invoice)
        differences += found
        spend = sum(spend for spend, _ in lines.values())
        print(
            f"{invoice['invoice_id']} {client['client']}: {len(lines)} lines, spend {spend / NANOS:.2f}, {acquired} customers,"
            f" total {invoice['total_invoice_amount']} {terms['currency']}: {'differs' if found else 'equal'}"
        )
    differences += [f"{client}: an invoice that nothing gives" for client in invoices]
    for difference in differences:
        print(difference)
    return 1 if differences else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    sys.exit(main(sys.argv[1]))
