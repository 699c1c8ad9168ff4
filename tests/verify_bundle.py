#!/usr/bin/env python3
"""Verifies invoices from their proof bundles without any of the code that wrote them: Python's standard library and `cryptography`.

    verify_bundle.py --key KEY BUNDLE ...

KEY is the log's public key (the text of log.pub, or a file that holds it); get it from elsewhere than the bundle. It checks

* the checkpoint's Ed25519 signature, also across changes of the log's key (with verify_log.py, beside this),
* that the leaves are what their hashes say, and lead to the checkpoint's root with the proof (RFC 6962, 2.1),
* that none of the client's leaves is left out (client_seq is gapless) and that time does not run back,
* that the conversions are those that attribution gives, and the closings' totals those of the leaves,
* every figure of the invoice or note: its terms, parts, lines, fees, tax and totals are worked out again from the leaves,
* of a credit note by agreement, that the agreement is in the log, and counts where it stands among payments, voids and other notes,
* of a bundle with a sample, that the books' sheets add up to all that and to the closings' totals, and that those that the document and
  the challenge draw say what their leaves say. Attribution is not seen in a sample, which proves something only to who chose the challenge.

Prints what holds of each bundle, or every difference with its line or field and both figures. Exits 1 where anything differs.
"""

import argparse
import bisect
import datetime
import hashlib
import itertools
import json
import pathlib
import sys
import zoneinfo

import verify_log
from verify_log import Key, Wrong, check, leaf_hash, node_hash, split

PPM, NANOS, DAY = 10**6, 10**9, 86_400 * 10**6
BEFORE_ALL = -(1 << 63)
LEAVES_LISTED_MAX, MAX_IMPRESSIONS, MAX_SLOTS = 1_000, 16, 1_000_000
# ISO 4217's minor units other than 2 (list one of 2024-06-25).
MINOR = {code: 0 for code in "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split()}
MINOR |= {code: 3 for code in "BHD IQD JOD KWD LYD OMR TND".split()} | {"CLF": 4, "UYW": 4}


# Protobuf: fields by number as (name, how to read it). The numbers are those of proto/kiki/log/v1/leaf.proto.


def signed(value):
    return value - (1 << 64) if value >> 63 else value


def zigzag(value):
    return value >> 1 ^ -(value & 1)


def text(value):
    return value.decode("utf-8")


def micros(value):
    seconds = nanos = 0
    for number, field in verify_log.wire(value):
        seconds, nanos = (signed(field), nanos) if number == 1 else (seconds, signed(field))
    return seconds * 10**6 + nanos // 1_000


def int128(value):
    high = low = 0
    for number, field in verify_log.wire(value):
        high, low = (zigzag(field), low) if number == 1 else (high, field)
    return (high << 64) + low


def packed(value):
    out, shift, one = [], 0, 0
    for byte in value:
        one |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            out, shift, one = out + [one], 0, 0
    return out


def read(message, fields):
    """A message as a dict; a field whose reader is in a list is a list, a dict is a message's fields. What is not named is not read."""
    out = {name: [] if isinstance(how, list) else None for name, how in fields.values()}
    for number, value in verify_log.wire(message):
        if number not in fields:
            continue
        name, how = fields[number]
        one = how[0] if isinstance(how, list) else how
        value = read(value, one) if isinstance(one, dict) else one(value)
        if isinstance(how, list):
            out[name].append(value)
        else:
            out[name] = value
    zero = {int: 0, signed: 0, zigzag: 0, text: "", bytes: b"", bool: False, packed: []}
    return {name: zero.get(how) if out[name] is None and not isinstance(how, (list, dict)) else out[name] for name, how in fields.values()}


PARTY = "name registration_id registration_scheme vat_id address_lines city postal_code subdivision country contact_name contact_phone contact_email endpoint_id endpoint_scheme"
PARTY = {n: (name, [text] if name == "address_lines" else text) for n, name in enumerate(PARTY.split(), start=1)}
SELLER = {1: ("party", PARTY), 2: ("series", text), 3: ("iban", text), 4: ("bic", text), 5: ("account_name", text)}
TAX = {1: ("category", text), 2: ("rate_ppm", int), 3: ("exemption_reason", text), 4: ("exemption_code", text)}
POSITION = {1: ("log_id", text), 2: ("index", int)}
SETTLEMENT = {1: ("sequence", int), 3: ("price", signed), 4: ("bid_at", micros), 5: ("noticed_at", micros), 8: ("customer", bytes)}
SETTLEMENT |= {9: ("predicted", signed), 10: ("model", text), 11: ("horizon_days", int)}
CONVERSION = {1: ("event_id", text), 2: ("at", micros), 3: ("customer", bytes), 4: ("campaign", text), 5: ("currency", text)}
CONVERSION |= {6: ("predicted", signed), 7: ("model", text), 8: ("horizon_days", int), 9: ("lease_id", int), 10: ("sequence", int)}
CONVERSION |= {12: ("by_receipt", bool)}
TERMS = {1: ("version", int), 2: ("currency", text), 3: ("client_name", text), 4: ("baseline_ppm", signed), 5: ("evidence", POSITION)}
TERMS |= {6: ("share_ppm", signed), 7: ("basis", int), 8: ("netting", int), 9: ("zone", text), 10: ("payment_days", int)}
TERMS |= {11: ("horizon_days", int), 12: ("attribution", int), 13: ("lookback_seconds", int), 14: ("effective_from", micros)}
TERMS |= {15: ("carry_shortfall", bool), 16: ("minimum", signed), 17: ("cap", signed), 18: ("tax", TAX), 19: ("grace_seconds", int)}
TERMS |= {20: ("seller", SELLER), 21: ("buyer", PARTY), 22: ("baseline_measured", bool)}
CLOSED = {1: ("currency", text), 2: ("month", text), 3: ("start", micros), 4: ("end", micros), 5: ("first_seq", int), 6: ("last_seq", int)}
CLOSED |= {7: ("settled", int128), 8: ("settlements", int), 9: ("conversions", int), 10: ("outcome_value", int128), 11: ("outcomes", int)}
CLOSED |= {12: ("terms_version", int)}
INVOICE = {1: ("number", text), 2: ("currency", text), 3: ("month", text), 4: ("sha256", bytes), 5: ("total", signed), 6: ("at", micros)}
INVOICE |= {7: ("closed_seq", int), 8: ("kind", int), 9: ("corrects_seq", int), 10: ("tax", signed)}
OUTCOME = {1: ("event_id", text), 2: ("at", micros), 3: ("customer", bytes), 4: ("currency", text), 5: ("value", signed), 6: ("lease_id", int)}
OUTCOME |= {7: ("sequence", int), 8: ("has_receipt", bool)}
SETTLEMENTS = {1: ("lease_id", int), 2: ("campaign", text), 3: ("currency", text), 4: ("granted_at", micros), 6: ("settlements", [SETTLEMENT])}
ADJUSTMENT = {1: ("key", text), 2: ("campaign", text), 4: ("currency", text), 5: ("amount", zigzag), 9: ("at", micros)}
EVIDENCE = {3: ("currency", text), 6: ("spend", signed), 7: ("value", signed), 8: ("horizon_days", int), 9: ("attribution", int)}
PAYMENT = {1: ("amount", signed), 2: ("currency", text)}
CREDITED = {1: ("amount", signed), 2: ("tax", signed), 3: ("currency", text), 4: ("reason", text), 5: ("leaves", packed), 6: ("dispute_key", text)}
EVENT = {1: ("key", text), 2: ("number", text), 3: ("actor", text), 4: ("send", {}), 5: ("pay", PAYMENT), 6: ("dispute", {}), 7: ("resolve", {})}
EVENT |= {8: ("void", {}), 9: ("write_off", {}), 10: ("credit", CREDITED)}
BODIES = {21: ("settlements", SETTLEMENTS), 24: ("conversion", CONVERSION), 25: ("outcome", OUTCOME), 26: ("terms", TERMS)}
BODIES |= {29: ("closed", CLOSED), 30: ("invoice", INVOICE), 31: ("evidence", EVIDENCE), 32: ("adjustment", ADJUSTMENT), 42: ("event", EVENT)}
HEADER = {1: ("log_id", text), 2: ("index", int), 3: ("client", text), 4: ("client_seq", int), 5: ("recorded_at", micros)}
BUNDLE = {1: ("format", int), 2: ("json", bytes), 3: ("checkpoint", text), 4: ("leaves", [{1: ("index", int), 2: ("leaf", bytes), 3: ("hash", bytes)}])}
BUNDLE |= {5: ("proof", [bytes]), 6: ("software", text), 7: ("rotations", text), 8: ("sheets", bytes), 9: ("challenge", bytes)}
LINE = {1: ("period", int), 2: ("part", int), 3: ("campaign", int), 4: ("spend", int128), 5: ("predicted", int128), 6: ("realised", int128)}
LINE |= {7: ("counted", int), 8: ("valued", int)}
FIGURES = {1: ("records", int), 2: ("settled", int128), 3: ("settlements", int), 4: ("conversions", int), 5: ("outcome_value", int128)}
FIGURES |= {6: ("outcomes", int), 7: ("lines", [LINE])}
SHEET = {1: ("spend", {1: ("first", int), 2: ("last", int)}), 2: ("customers", {1: ("first", bytes), 2: ("last", bytes)})}
SHEET |= {3: ("before", FIGURES), 4: ("added", FIGURES)}
SHEETS = {1: ("campaigns", [text]), 2: ("sheets", [SHEET])}
TOTALS = ("settled", "settlements", "conversions", "outcome_value", "outcomes")
# Samples: see services/billing/src/domain/bundle/sample.rs.
SHEETS_MAX, SHEET_MIN, OPENED_MAX, DRAWS_MAX, CHALLENGE_MAX = 1 << 14, 256, 240_000, 149, 64


class Findings(list):
    """What is off: (place, problem)."""

    def add(self, holds, place, problem):
        if not holds:
            self.append((place, problem))


# Figures.


def rounded(value, unit):
    """value / unit, half away from zero."""
    whole, rest = divmod(abs(value), unit)
    whole += rest * 2 >= unit
    return whole if value >= 0 else -whole


def amount(units, places):
    digits = f"{abs(units):0{places + 1}}"
    number = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{number}" if units < 0 else number


def trimmed(units, places, least):
    whole, fraction = amount(units, places).split(".")
    kept = max(len(fraction.rstrip("0")), least)
    return f"{whole}.{fraction[:kept]}" if kept else whole


def instant(at):
    seconds, rest = divmod(at, 10**6)
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{rest:06}".rstrip("0") if rest else "") + "Z"


def date(at, zone, days=0):
    moment = datetime.datetime.fromtimestamp(at // 10**6, zoneinfo.ZoneInfo(zone))
    return (moment.date() + datetime.timedelta(days=days)).isoformat()


def ranges(leaves):
    if len(leaves) > LEAVES_LISTED_MAX:
        return []
    out = []
    for leaf in sorted(leaves):
        if out and leaf == out[-1][1] + 1:
            out[-1][1] = leaf
        else:
            out.append([leaf, leaf])
    return out


def margin_of(line, terms):
    """LTV less baseline times spend, in 10^-15 of the currency."""
    return line["ltv"] * PPM - line["spend"] * terms["baseline_ppm"]


def fees(lines, terms, carried, places):
    """Each line's status, margin and fee in minor units; the totals; and what is carried on, by campaign (None: the client's)."""
    cents = lambda exact: rounded(exact, 10 ** (15 - places))
    billed = lambda exact: rounded(max(0, exact) * terms["share_ppm"], 10 ** (21 - places))
    margins = {campaign: margin_of(line, terms) for campaign, line in lines.items()}
    held = {campaign for campaign, line in lines.items() if line["spend"] <= 0 and margins[campaign] > 0}
    counted = {campaign: margin for campaign, margin in margins.items() if campaign not in held}
    fee, each = dict.fromkeys(lines, 0), terms["netting"] == 2
    if each:
        set_off = sum(short for campaign, short in carried.items() if campaign is not None)
        nets = {campaign: margin - carried.get(campaign, 0) for campaign, margin in counted.items()}
        fee |= {campaign: billed(net) for campaign, net in nets.items()}
        printed = [cents(counted[campaign]) - cents(carried.get(campaign, 0)) for campaign in counted]
        margin, shortfall = sum(max(0, net) for net in printed), sum(max(0, -net) for net in printed)
        left = {campaign: short for campaign, short in carried.items() if campaign not in nets}
        left |= {campaign: -net for campaign, net in nets.items() if net < 0}
    else:
        set_off = sum(carried.values())
        net = sum(counted.values()) - set_off
        winners = {campaign: margin for campaign, margin in counted.items() if margin > 0}
        if set_off == 0 and len(winners) == sum(margin != 0 for margin in counted.values()):
            fee |= {campaign: billed(margin) for campaign, margin in winners.items()}
        elif (total := billed(net)) > 0:
            shares = {campaign: divmod(total * margin, sum(winners.values())) for campaign, margin in winners.items()}
            fee |= {campaign: whole for campaign, (whole, _) in shares.items()}
            for campaign in sorted(shares, key=lambda c: (-shares[c][1], c.encode()))[: total - sum(fee.values())]:
                fee[campaign] += 1
        printed = sum(cents(margin) for margin in counted.values()) - cents(set_off)
        margin, shortfall = max(0, printed), max(0, -printed)
        left = {None: -net} if net < 0 else {}
    status = lambda c: "held_for_review" if c in held else "above_baseline" if margins[c] > 0 else "below_baseline"
    each_line = {campaign: (status(campaign), cents(margins[campaign]), fee[campaign]) for campaign in lines}
    return {
        "lines": each_line,
        "margin": margin,
        "shortfall": shortfall,
        "fee": sum(fee.values()),
        "set_off": cents(set_off),
        "left": left if terms["carry_shortfall"] else {},
    }


# How documents stand: what may happen in each stage. See services/billing/src/domain/lifecycle.rs.

STAGES = {"finalized": "send pay dispute resolve void write_off credit", "partly_paid": "send pay dispute resolve write_off credit"}
STAGES |= {"sent": STAGES["finalized"], "paid": "dispute resolve credit", "void": "", "written_off": ""}


class Standing:
    def __init__(self, invoice):
        gross = invoice["total"] + invoice["tax"]
        self.invoice, self.stage, self.disputed, self.paid, self.off = invoice, "finalized", False, 0, 0
        self.total = -gross if invoice["kind"] == 2 else gross
        self.creditable = max(0, self.total - invoice["tax"])

    def unpaid(self):
        return max(0, self.total - self.paid - self.off)

    def open(self):
        return 0 if self.stage in ("void", "written_off") else self.unpaid()

    def credited(self, net, tax):
        if self.stage != "void":
            applied = min(net + tax, self.unpaid())
            self.off, self.creditable = self.off + applied, max(0, self.creditable - net)
            if applied > 0 and self.open() == 0 and self.stage != "written_off":
                self.stage = "paid"

    def may(self, kind):
        if kind not in STAGES[self.stage].split() or self.total < 0 and kind != "send":
            return False
        also = {"void": self.off == 0, "dispute": not self.disputed, "resolve": self.disputed, "credit": self.creditable > 0}
        return also.get(kind, kind == "send" or self.open() > 0)

    def happens(self, kind, said):
        """Whether it counts; where it does, it is done."""
        if not self.may(kind) or said.get("currency", self.invoice["currency"]) != self.invoice["currency"]:
            return False
        if kind == "pay":
            if not 0 < said["amount"] <= self.open():
                return False
            self.stage, self.paid = "paid" if said["amount"] == self.open() else "partly_paid", self.paid + said["amount"]
        elif kind == "credit":
            if not 0 < said["amount"] <= self.creditable or said["dispute_key"] and not self.disputed:
                return False
            self.credited(said["amount"], said["tax"])
            self.disputed &= not said["dispute_key"]
        elif kind == "send":
            self.stage = "sent" if self.stage == "finalized" else self.stage
        elif kind in ("dispute", "resolve"):
            self.disputed = kind == "dispute"
        else:
            self.stage, self.disputed = {"void": "void", "write_off": "written_off"}[kind], False
        return True


# The client's leaves.


class History:
    """A client's leaves, replayed."""

    def __init__(self, findings, sheets=None):
        self.sheets, self.opened = sheets, []
        self.findings, self.seq, self.time, self.due = findings, 0, BEFORE_ALL, None
        self.by_customer, self.by_slot, self.acquired, self.events, self.adjusted = {}, {}, {}, set(), set()
        self.totals, self.terms, self.closings, self.invoiced, self.issued = {}, {}, [], {}, None
        self.spend, self.conversions, self.outcomes, self.evidence = [], [], [], {}
        self.standings, self.disputes, self.credits = {}, {}, {}

    def take(self, head, kind, body):
        place = f"leaf {head['index']}"
        follows = head["client_seq"] == self.seq + 1 or self.sheets is not None and head["client_seq"] > self.seq
        self.findings.add(follows, place, f"client_seq {self.seq + 1} was due but this is {head['client_seq']}: leaves are missing")
        self.findings.add(head["recorded_at"] is not None and head["recorded_at"] >= self.time, place, "recorded_at is absent or runs back")
        self.seq, self.time = head["client_seq"], head["recorded_at"] or self.time
        if self.sheets is not None and kind in ("settlements", "adjustment", "conversion", "outcome"):
            self.opened.append((head, kind, body))
            return
        due, self.due = self.due, None
        if kind == "conversion":
            self.findings.add(due is not None and due == body, place, "is not the conversion that attribution gives")
        else:
            self.findings.add(due is None, place, "should be the conversion that the leaf before it calls for")
        self.issued = None
        takes = {
            "settlements": self.settlements,
            "adjustment": self.adjustment,
            "outcome": self.outcome,
            "conversion": self.conversion,
            "terms": self.new_terms,
            "closed": self.closed,
            "invoice": self.invoice,
            "event": self.event,
        }
        if kind in takes:
            takes[kind](head, body, place)

    def of(self, currency):
        return self.totals.setdefault(currency, dict.fromkeys(TOTALS, 0))

    def settlements(self, head, body, place):
        totals = self.of(body["currency"])
        for one in body["settlements"]:
            slot = (body["lease_id"], one["sequence"])
            shown = {**one, "slot": slot, "campaign": body["campaign"], "currency": body["currency"]}
            if len(one["customer"]) == 16:
                kept = self.by_customer.setdefault(one["customer"], [])
                kept.append(shown)
                kept.sort(key=lambda s: (s["bid_at"], s["slot"]))
                del kept[:-MAX_IMPRESSIONS]
            self.by_slot[slot] = shown
            if len(self.by_slot) > MAX_SLOTS:
                del self.by_slot[min(self.by_slot)]
            totals["settled"] += one["price"]
            totals["settlements"] += 1
        self.spend.append((body["currency"], body["granted_at"], head, body["campaign"], sum(one["price"] for one in body["settlements"])))

    def adjustment(self, head, body, place):
        self.findings.add(body["key"] not in self.adjusted, place, f"adjusts {body['key']!r} a second time")
        self.adjusted.add(body["key"])
        self.of(body["currency"])["settled"] += body["amount"]
        self.spend.append((body["currency"], body["at"], head, body["campaign"], body["amount"]))

    def outcome(self, head, body, place):
        self.findings.add(body["event_id"] not in self.events, place, "repeats an outcome")
        newest = max((version for currency, version in self.terms if currency == body["currency"]), default=None)
        if newest is not None:
            self.due = self.attributed(body, self.terms[body["currency"], newest]["lookback_seconds"] * 10**6)
        self.events.add(body["event_id"])
        totals = self.of(body["currency"])
        totals["outcome_value"] += body["value"]
        totals["outcomes"] += 1
        self.outcomes.append((head, body))

    def attributed(self, outcome, lookback):
        """LAST_BILLED_V1 of src/attribution.rs."""
        if outcome["value"] <= 0 or outcome["customer"] in self.acquired:
            return None

        def counts(shown):
            in_time = shown["noticed_at"] <= outcome["at"] and 0 <= outcome["at"] - shown["bid_at"] <= lookback
            return shown["currency"] == outcome["currency"] and in_time

        by_receipt = self.by_slot.get((outcome["lease_id"], outcome["sequence"])) if outcome["has_receipt"] else None
        if by_receipt is not None and not counts(by_receipt):
            by_receipt = None
        shown = by_receipt or next(filter(counts, reversed(self.by_customer.get(outcome["customer"], []))), None)
        if shown is None:
            return None
        same = {key: outcome[key] for key in ("event_id", "at", "customer")}
        bid = {key: shown[key] for key in ("campaign", "currency", "predicted", "model", "horizon_days")}
        return {**same, **bid, "lease_id": shown["slot"][0], "sequence": shown["slot"][1], "by_receipt": by_receipt is not None}

    def conversion(self, head, body, place):
        self.acquired.setdefault(body["customer"], body["at"])
        self.of(body["currency"])["conversions"] += 1
        self.conversions.append((head, body))

    def new_terms(self, head, body, place):
        newest = max((version for currency, version in self.terms if currency == body["currency"]), default=0)
        self.findings.add(body["version"] == newest + 1, place, f"terms of version {body['version']} after {newest}")
        self.terms[body["currency"], body["version"]] = {**body, "leaf": head["index"]}

    def closed(self, head, body, place):
        self.findings.add((body["first_seq"], body["last_seq"] + 1) == (1, head["client_seq"]), place, "does not close all before it")
        counted = self.of(body["currency"])
        says = {key: body[key] or 0 for key in counted}
        self.findings.add(says == counted or self.sheets is not None, place, f"says {says} but its client's leaves give {counted}")
        newest = max((version for currency, version in self.terms if currency == body["currency"]), default=0)
        self.findings.add(body["terms_version"] == newest, place, f"names terms {body['terms_version']} but {newest} were in force")
        self.closings.append({**body, "leaf": head["index"], "seq": head["client_seq"]})

    def invoice(self, head, body, place):
        key = (body["closed_seq"], body["corrects_seq"])
        self.findings.add(key not in self.invoiced, place, "invoices what was invoiced already")
        self.issued = {**body, "leaf": head["index"]}
        self.invoiced.setdefault(key, self.issued)
        corrected = self.invoiced.get((body["corrects_seq"], 0))
        if body["kind"] == 2 and body["corrects_seq"] not in self.credits and corrected is not None:
            self.standings[corrected["number"]].credited(body["total"], body["tax"])
        self.standings.setdefault(body["number"], Standing(body))

    def event(self, head, body, place):
        kind = next((kind for kind in ("send", "pay", "dispute", "resolve", "void", "write_off", "credit") if body[kind] is not None), None)
        standing = self.standings.get(body["number"])
        if kind is None or standing is None:
            return
        settles, before = kind == "credit" and body["credit"]["dispute_key"], standing.creditable
        if settles and self.disputes.get(settles) != body["number"] or not standing.happens(kind, body[kind]):
            return
        if kind == "dispute":
            self.disputes[body["key"]] = body["number"]
        if kind == "credit":
            decision = {**body["credit"], "leaf": head["index"], "seq": head["client_seq"], "actor": body["actor"], "before": before}
            self.credits[head["client_seq"]] = (body["number"], decision)

    # Accounts: see ARCHITECTURE.md, "Which leaves a period covers" and "What comes late".

    def closings_to(self, closing):
        return [c for c in self.closings if c["currency"] == closing["currency"] and c["seq"] <= closing["seq"]]

    def periods(self, closings):
        out, start = [], BEFORE_ALL
        for closing in closings:
            known = [t for (currency, _), t in sorted(self.terms.items(), key=lambda item: item[0][1]) if currency == closing["currency"]]
            known = [t for t in known if t["version"] <= closing["terms_version"]]
            begins = lambda t: BEFORE_ALL if t["effective_from"] is None else t["effective_from"]
            cuts = sorted({start, closing["end"], *(begins(t) for t in known if start <= begins(t) < closing["end"])})
            parts = []
            for begin, until in zip(cuts, cuts[1:]):
                if begin >= closing["end"]:
                    continue
                terms = next((t for t in reversed(known) if begins(t) <= begin), known[0])
                if parts and parts[-1]["terms"]["version"] == terms["version"]:
                    parts[-1]["until"] = until
                else:
                    parts.append({"from": begin, "until": until, "terms": terms})
            out.append({"closing": closing, "parts": parts})
            start = max(start, closing["end"])
        return out

    def sums(self, periods, currency, seq):
        """The lines of each part of each period, by campaign, of the records up to a sequence."""
        slots = [(part["until"], p, i) for p, period in enumerate(periods) for i, part in enumerate(period["parts"])]
        sums = [[{} for _ in period["parts"]] for period in periods]

        def slot(at):
            return next(((p, i) for until, p, i in slots if at < until), None)

        def line(at, campaign):
            found = slot(at)
            return None if found is None else sums[found[0]][found[1]].setdefault(campaign, empty_line())

        for of, at, head, campaign, nanos in self.spend:
            if of == currency and head["client_seq"] <= seq and (sum_ := line(at, campaign)) is not None:
                sum_["spend"] += nanos
                sum_["counted"].append(head["index"])
        acquired = {}
        for head, one in self.conversions:
            if one["currency"] == currency and head["client_seq"] <= seq:
                acquired.setdefault(one["customer"], one)
                if (sum_ := line(one["at"], one["campaign"])) is not None:
                    sum_["predicted"] += one["predicted"] * 1_000
                    sum_["counted"].append(head["index"])
        for head, one in self.outcomes:
            since = acquired.get(one["customer"])
            if one["currency"] != currency or head["client_seq"] > seq or since is None or slot(since["at"]) is None:
                continue
            p, i = slot(since["at"])
            if since["at"] <= one["at"] < since["at"] + periods[p]["parts"][i]["terms"]["horizon_days"] * DAY:
                sum_ = line(since["at"], since["campaign"])
                sum_["realised"] += one["value"] * 1_000
                sum_["valued"].append(head["index"])
        return sums

    def sheets_sums(self, periods, whens):
        """The same as the sheets have it: at the closing before, and with what the last one added."""
        sums = [[{} for _ in period["parts"]] for period in periods]
        for sheet in self.sheets["sheets"]:
            for line in (line for when in whens for line in sheet[when]["lines"] if line["period"] < len(periods)):
                sum_ = sums[line["period"]][line["part"]].setdefault(self.sheets["campaigns"][line["campaign"]], empty_line())
                for key in ("spend", "predicted", "realised"):
                    sum_[key] += line[key] or 0
                for at, key in enumerate(("counted", "valued")):
                    sum_["unlisted"][at] += line[key]
        return sums

    def accounts(self, periods, last, places, whens=("before", "added")):
        """The account of each period as the closing `last` knows it: of a sample, the last one or (of `whens`) the one before it."""
        known_until = max(period["closing"]["end"] for period in periods if period["closing"]["seq"] <= last["seq"])
        sums = self.sums(periods, last["currency"], last["last_seq"]) if self.sheets is None else self.sheets_sums(periods, whens)
        out, carried = [], {}
        for period, of_parts in zip(periods, sums):
            parts = []
            for part, campaigns in zip(period["parts"], of_parts):
                terms = part["terms"]
                realised = terms["basis"] == 2 or part["until"] + terms["horizon_days"] * DAY <= known_until
                ltv = "realised" if realised else "predicted"
                lines = {}
                for campaign, s in sorted(campaigns.items(), key=lambda item: item[0].encode()):
                    leaves = s["counted"] + (s["valued"] if realised else [])
                    unlisted = s["unlisted"][0] + (s["unlisted"][1] if realised else 0)
                    lines[campaign] = {"spend": s["spend"], "ltv": s[ltv], "leaves": leaves, "count": len(leaves) + unlisted}
                fee = fees(lines, terms, carried, places)
                parts.append({**part, "basis": "realised" if realised else "predicted", "lines": lines, "fees": fee, "carried": carried})
                carried = fee["left"]
            earned, bound = sum(part["fees"]["fee"] for part in parts), None
            if parts and earned < parts[-1]["terms"]["minimum"]:
                bound = ("minimum", parts[-1]["terms"]["minimum"] - earned)
            elif parts and 0 < parts[-1]["terms"]["cap"] < earned:
                bound = ("cap", parts[-1]["terms"]["cap"] - earned)
            out.append({"parts": parts, "bound": bound, "fee": earned + (bound[1] if bound else 0)})
        return out


def empty_line():
    return {"spend": 0, "predicted": 0, "realised": 0, "counted": [], "valued": [], "unlisted": [0, 0]}


def reasons(before, after):
    pairs = list(zip(before["parts"], after["parts"]))
    found = []
    spent = lambda part: {campaign: line["spend"] for campaign, line in part["lines"].items()}
    if any(b["basis"] == a["basis"] and b["lines"] != a["lines"] or spent(b) != spent(a) for b, a in pairs):
        found.append("late_records")
    if any(b["basis"] != a["basis"] for b, a in pairs):
        found.append("true_up")
    if any(b["carried"] != a["carried"] for b, a in pairs):
        found.append("carried_shortfall")
    return found


# The document.


def drawn_up(history, client, log_id, stated):
    """The document that the client's last leaf issues, as its JSON; that leaf; and the index of the last leaf that it is computed from."""
    issued = history.issued
    check(issued is not None, "the client's last leaf issues no invoice")
    if issued["corrects_seq"] not in history.credits:
        document = of_closing(history, issued, client, log_id, stated)
        return document, issued, document["completeness"]["period_closed_leaf"]
    number, decision = history.credits[issued["corrects_seq"]]
    of = next(one for one in history.invoiced.values() if one["number"] == number)
    check(of["closed_seq"] == issued["closed_seq"], "the credit note is of another closing than what it credits")
    document = of_closing(history, of, client, log_id, stated)
    terms = history.terms[document["currency"], document["parts"][-1]["terms"]["version"]]
    return by_agreement(document, decision, issued, terms), issued, decision["leaf"]


def by_agreement(of, decision, issued, terms):
    places = MINOR.get(of["currency"], 2)
    minor, units = (lambda units: amount(units, places)), (lambda text: int(text.replace(".", "")))
    net = decision["amount"]
    tax = rounded(net * terms["tax"]["rate_ppm"], PPM) if terms["tax"] else 0
    check(tax == decision["tax"], f"leaf {decision['leaf']} credits a tax of {decision['tax']}, at the rate it is {tax}")
    agreed = {key: decision[key] for key in ("leaf", "actor", "reason", "dispute_key") if decision[key]}
    note = {
        "kind": "credit_note",
        "invoice_id": issued["number"],
        "issue_date": date(issued["at"], terms["zone"]),
        "due_date": date(issued["at"], terms["zone"], terms["payment_days"]),
        "corrects": {
            "invoice_id": of["invoice_id"],
            "issue_date": of["issue_date"],
            "noted_in": of["corrects"]["noted_in"] if "corrects" in of else of["period"],
            "reasons": ["agreed"],
            "amount_before": minor(decision["before"]),
            "amount_after": minor(decision["before"] - net),
            "agreed": {**agreed, "leaves": ranges(decision["leaves"])},
        },
        "total_invoice_amount": minor(net),
        "amount_due": minor(net + tax),
        "client_keeps": minor(units(of["client_keeps"]) + units(of["total_invoice_amount"]) - decision["before"] + net),
        "line_items": [],
        "adjustments": [],
        "completeness": {**of["completeness"], "last_client_seq": decision["seq"]},
    }
    return {**of, **note} | ({"tax": {**of["tax"], "amount": minor(tax)}} if "tax" in of else {})


def of_closing(history, issued, client, log_id, stated):
    """A document that is computed from a closing, as its JSON."""
    at = next((i for i, c in enumerate(history.closings) if c["seq"] == issued["closed_seq"]), None)
    check(at is not None, "the invoice names a closing that is not there")
    closing = history.closings[at]
    check((closing["currency"], closing["month"]) == (issued["currency"], issued["month"]), "the invoice is not of the closing that it names")
    closings = history.closings_to(closing)
    places = MINOR.get(closing["currency"], 2)
    periods = history.periods(closings)
    now = history.accounts(periods, closing, places)
    period, account, before, corrects = periods[-1], now[-1], None, None
    if issued["corrects_seq"]:
        was = history.accounts(periods[:-1], closings[-2], places, ("before",)) if len(closings) > 1 else []
        which = next((i for i, c in enumerate(closings[:-1]) if c["seq"] == issued["corrects_seq"]), None)
        check(which is not None, "the note corrects a period that is not closed before")
        period, account, before = periods[which], now[which], was[which]
        check(before["fee"] != account["fee"], "the note corrects a period whose fee did not change")
        invoice = history.invoiced.get((issued["corrects_seq"], 0))
        corrects = {
            "invoice_id": invoice["number"] if invoice else None,
            **({"issue_date": date(invoice["at"], account["parts"][-1]["terms"]["zone"])} if invoice else {}),
            "noted_in": closing["month"],
            "reasons": reasons(before, account),
            "amount_before": amount(before["fee"], places),
            "amount_after": amount(account["fee"], places),
        }
    return printed(history, client, log_id, stated, issued, closing, period, account, before, corrects, places)


def printed(history, client, log_id, stated, issued, closing, period, account, before, corrects, places):
    minor = lambda units: amount(units, places)
    terms = account["parts"][-1]["terms"]
    change = account["fee"] - (before["fee"] if before else 0)
    kind = "invoice" if before is None else "credit_note" if change < 0 else "debit_note"
    sign = -1 if kind == "credit_note" else 1
    total = sign * change
    tax = rounded(total * terms["tax"]["rate_ppm"], PPM) if terms["tax"] else 0
    of = lambda key: sum(part["fees"][key] for part in account["parts"])
    bounds = {}
    for one, way in ((account, sign), (before, -sign)):
        if one and one["bound"]:
            bounds[one["bound"][0]] = bounds.get(one["bound"][0], 0) + way * one["bound"][1]
    document = {
        "schema": "kiki.invoice/2",
        "kind": kind,
        "invoice_id": issued["number"],
        "client": client,
        "client_name": terms["client_name"],
        "currency": terms["currency"],
        "period": period["closing"]["month"],
        "period_start": instant(period["closing"]["start"]),
        "period_end": instant(period["closing"]["end"]),
        "issue_date": date(issued["at"], terms["zone"]),
        "due_date": date(issued["at"], terms["zone"], terms["payment_days"]),
        "corrects": corrects,
        "total_invoice_amount": minor(total),
        "tax": tax_of(terms["tax"], tax, minor),
        "amount_due": minor(total + tax),
        "total_margin_recovered": minor(of("margin")),
        "shortfall": minor(of("shortfall")),
        "client_keeps": minor(of("margin") - account["fee"]),
        "line_items": lines_of(account, before, sign, places),
        "adjustments": [{"kind": kind, "amount": minor(bounds[kind])} for kind in ("minimum", "cap") if bounds.get(kind)],
        "parts": [part_of(part, period["closing"], minor) for part in account["parts"]],
        "seller": without_empty(terms["seller"]),
        "buyer": without_empty(terms["buyer"]),
        "completeness": {
            "log_id": log_id,
            "first_client_seq": closing["first_seq"],
            "last_client_seq": closing["last_seq"],
            "checkpoint_size": stated["checkpoint_size"],
            "checkpoint_root": stated["checkpoint_root"],
            "period_closed_leaf": closing["leaf"],
            **({"sheets_sha256": history.sheets["sha256"]} if history.sheets is not None else {}),
        },
    }
    return {key: value for key, value in document.items() if value is not None}


def tax_of(tax, charged, minor):
    if not tax:
        return None
    said = {key: tax[key] for key in ("exemption_reason", "exemption_code") if tax[key]}
    return {"category": tax["category"], "rate_percentage": trimmed(tax["rate_ppm"], 4, 0), "amount": minor(charged), **said}


def without_empty(party):
    """A party or a seller as it is printed: a name always, and what is not empty. The series shows in the numbers alone."""
    if party is None:
        return None
    shown = {key: without_empty(value) if isinstance(value, dict) else value for key, value in party.items() if key != "series"}
    return {key: value for key, value in shown.items() if value or key in ("name", "party")}


def part_of(part, closing, minor):
    terms, fee = part["terms"], part["fees"]
    begin = min(closing["start"], part["until"]) if part["from"] == BEFORE_ALL else part["from"]
    return {
        "from": instant(begin),
        "until": instant(part["until"]),
        "basis": part["basis"],
        "carried_shortfall": minor(fee["set_off"]),
        "margin_recovered": minor(fee["margin"]),
        "shortfall": minor(fee["shortfall"]),
        "fee": minor(fee["fee"]),
        "terms": {
            "baseline_roas": trimmed(terms["baseline_ppm"], 6, 1),
            "baseline_measured": terms["baseline_measured"],
            "profit_share_percentage": trimmed(terms["share_ppm"], 4, 0),
            "basis": {1: "predicted", 2: "realised"}[terms["basis"]],
            "netting": {1: "client", 2: "campaign"}[terms["netting"]],
            "carry_shortfall": terms["carry_shortfall"],
            "minimum": minor(terms["minimum"]) if terms["minimum"] else None,
            "cap": minor(terms["cap"]) if terms["cap"] else None,
            "horizon_days": terms["horizon_days"],
            "lookback_seconds": terms["lookback_seconds"],
            "grace_seconds": terms["grace_seconds"],
            "zone": terms["zone"],
            "payment_days": terms["payment_days"],
            "version": terms["version"],
            "leaf": terms["leaf"],
            "evidence_leaf": terms["evidence"]["index"] if terms["evidence"] else None,
        },
    }


def lines_of(account, before, sign, places):
    minor, nanos = (lambda units: amount(units, places)), (lambda units: amount(units, 9))
    out = []
    for number, part in enumerate(account["parts"], start=1):
        terms, was = part["terms"], before["parts"][number - 1] if before else None
        for campaign, line in part["lines"].items():
            status, margin, fee = part["fees"]["lines"][campaign]
            spend, ltv, owed = line["spend"], line["ltv"], line["spend"] * terms["baseline_ppm"]
            shown = {
                "part": number,
                "client_name": terms["client_name"],
                "campaign_id": campaign,
                "client_spend": minor(rounded(spend, 10 ** (9 - places))),
                "client_spend_exact": nanos(spend),
                "ltv": minor(rounded(ltv, 10 ** (9 - places))),
                "ltv_exact": nanos(ltv),
                "baseline_roas": trimmed(terms["baseline_ppm"], 6, 1),
                "kiki_roas": amount(rounded(ltv * 10**4, spend), 4) if spend > 0 else None,
                "margin_improvement_pct": amount(rounded((ltv * PPM - owed) * 10**4, owed), 2) if owed > 0 else None,
                "margin_recovered": minor(margin),
                "kiki_invoice_amount": minor(fee),
                "status": status,
            }
            if was is not None:
                old = was["lines"].get(campaign)
                fee_before = was["fees"]["lines"][campaign][2] if old else 0
                if old and (was["basis"], old["spend"], old["ltv"], fee_before) == (part["basis"], spend, ltv, fee):
                    continue
                shown["kiki_invoice_amount"] = minor(sign * (fee - fee_before))
                if old:
                    shown["before"] = {
                        "basis": was["basis"],
                        "client_spend_exact": nanos(old["spend"]),
                        "ltv_exact": nanos(old["ltv"]),
                        "margin_recovered": minor(was["fees"]["lines"][campaign][1]),
                        "kiki_invoice_amount": minor(fee_before),
                    }
            out.append(shown | {"leaf_count": line["count"], "leaves": ranges(line["leaves"])})
    return out


def differences(found, wanted, place, findings):
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in list(wanted) + [key for key in found if key not in wanted]:
            differences(found.get(key), wanted.get(key), f"{place}.{key}" if place else key, findings)
    else:
        findings.add(found == wanted, place, f"is {json.dumps(found)} but the log gives {json.dumps(wanted)}")


def compare(found, wanted, findings):
    by_line = lambda lines: {(line["part"], line["campaign_id"]): line for line in lines}
    printed_lines, own = by_line(found["line_items"]), by_line(wanted["line_items"])
    for key in own | printed_lines:
        place = f"line {key[1]}" if key[0] == 1 else f"line {key[1]} of part {key[0]}"
        findings.add(key in printed_lines, place, "is missing from the invoice")
        findings.add(key in own, place, "is on the invoice but no leaf gives it")
        if key in own and key in printed_lines:
            differences(printed_lines[key], own[key], place, findings)
    without = lambda document: {key: value for key, value in document.items() if key != "line_items"}
    found_parts, own_parts = found.get("parts", []), wanted["parts"]
    if len(found_parts) == len(own_parts):
        found, wanted = ({**d, "parts": dict(enumerate(d["parts"], start=1))} for d in (found, wanted))
        for document in (found, wanted):
            document["parts"] = {str(number): part for number, part in document["parts"].items()}
    differences(without(found), without(wanted), "", findings)


# The bundle.


def range_root(start, end, leaves, proof):
    """RFC 6962, 2.1: a range without a leaf takes the next hash of the proof, one of a leaf is its hash, any other splits."""
    if not leaves:
        check(proof, "the proof is too short")
        return proof.pop()
    if end - start == 1:
        return leaves[0][1]
    middle = start + split(end - start)
    at = next((i for i, (index, _) in enumerate(leaves) if index >= middle), len(leaves))
    left = range_root(start, middle, leaves[:at], proof)
    return node_hash(left, range_root(middle, end, leaves[at:], proof))


def check_tree(bundle, size, root, findings):
    hashes = []
    for leaf in bundle["leaves"]:
        own = leaf_hash(leaf["leaf"])
        findings.add(own == leaf["hash"], f"leaf {leaf['index']}", f"its bytes hash to {own.hex()} but its hash is given as {leaf['hash'].hex()}")
        hashes.append((leaf["index"], own))
    rising = all(a < b for (a, _), (b, _) in zip(hashes, hashes[1:]))
    check(hashes and rising and hashes[-1][0] < size, "the leaves are not in order within the checkpoint's tree")
    proof = bundle["proof"][::-1]
    got = range_root(0, size, hashes, proof)
    findings.add(not proof and got == root, "proof", f"leaves and proof give root {got.hex()} but {root.hex()} was signed")


def check_evidence(history, document, others, findings):
    wanted = set()
    for part in document["parts"]:
        terms = history.terms[document["currency"], part["terms"]["version"]]
        if terms["evidence"] is None:
            continue
        index = terms["evidence"]["index"]
        wanted.add(index)
        body = history.evidence.get(index) or others.get(index)
        findings.add(body is not None, f"leaf {index}", "is the baseline's evidence and is missing")
        if body is not None and terms["baseline_measured"]:
            same = all(body[key] == terms[key] for key in ("currency", "horizon_days", "attribution"))
            gives = -(-body["value"] * PPM // body["spend"]) if body["spend"] > 0 else None
            findings.add(same and gives == terms["baseline_ppm"], f"leaf {index}", f"gives a baseline of {gives}, the terms say {terms['baseline_ppm']}")
    for index in others:
        findings.add(index in wanted, f"leaf {index}", "is of a client whom this invoice does not concern")


# Samples.


def money(figures):
    """What a sheet weighs in a sample by money."""
    of_lines = sum(abs(line[key] or 0) for line in figures["lines"] for key in ("spend", "predicted", "realised"))
    return abs(figures["settled"] or 0) + abs(figures["outcome_value"] or 0) * 1_000 + of_lines


def drawn_sheets(sheets, bundle):
    both = lambda of: [of(sheet["before"]) + of(sheet["added"]) for sheet in sheets]
    by_records = both(lambda figures: figures["records"])
    by_spend, by_value = ([weight if (sheet["spend"] is not None) == spend else 0 for sheet, weight in zip(sheets, both(money))] for spend in (True, False))
    size = max(SHEET_MIN, -(-sum(by_records) // SHEETS_MAX))
    draws = min(max(OPENED_MAX // (3 * size), 1), DRAWS_MAX)
    digest = lambda content: hashlib.sha256(content).digest()
    seed = digest(b"kiki.sample/1\n" + digest(bundle["json"]) + bundle["challenge"])
    drawn = set()
    for series, weights in enumerate((by_records, by_spend, by_value)):
        sums = list(itertools.accumulate(weights))
        for number in range(draws if sums and sums[-1] else 0):
            point = int.from_bytes(digest(seed + bytes([series]) + number.to_bytes(8, "big"))[:16], "big") % sums[-1]
            drawn.add(bisect.bisect_right(sums, point))
    return drawn


def figures_of(history, opened, periods, currency, seq):
    """What opened records come to up to a sequence, as (how many, totals, lines by period, part and campaign)."""
    part, totals, count = History(history.findings), dict.fromkeys(TOTALS, 0), 0
    for head, kind, body in (record for record in opened if record[0]["client_seq"] <= seq):
        count += 1
        if kind == "settlements":
            nanos = sum(one["price"] for one in body["settlements"])
            totals["settlements"] += len(body["settlements"])
        if kind in ("settlements", "adjustment"):
            nanos, at = (nanos, body["granted_at"]) if kind == "settlements" else (body["amount"], body["at"])
            part.spend.append((currency, at, head, body["campaign"], nanos))
            totals["settled"] += nanos
        elif kind == "conversion":
            part.conversions.append((head, body))
            totals["conversions"] += 1
        else:
            part.outcomes.append((head, body))
            totals["outcome_value"] += body["value"]
            totals["outcomes"] += 1
    sums = part.sums(periods, currency, seq)
    lines = {}
    for p, i, campaign, s in ((p, i, campaign, s) for p, parts in enumerate(sums) for i, part in enumerate(parts) for campaign, s in part.items()):
        lines[p, i, campaign] = [s["spend"], s["predicted"], s["realised"], len(s["counted"]), len(s["valued"])]
    return count, totals, lines


def contradiction(sheet):
    """What a sheet's records cannot come to, whatever they are."""
    both = (sheet["before"], sheet["added"])
    sum_ = lambda key: sum(figures[key] for figures in both)
    counted, valued = (sum(line[key] for figures in both for line in figures["lines"]) for key in ("counted", "valued"))
    if sum_("records") == 0 or any(figures["records"] == 0 and (figures["lines"] or any(figures[key] for key in TOTALS)) for figures in both):
        return "says something of no records"
    lines = [line for figures in both for line in figures["lines"]]
    if sheet["spend"] is not None:
        alien = any(figures[key] for figures in both for key in ("conversions", "outcome_value", "outcomes"))
        alien |= any(line[key] for line in lines for key in ("predicted", "realised", "valued"))
        many = sum_("records") > sheet["spend"]["last"] - sheet["spend"]["first"] + 1 or counted > sum_("records")
    else:
        alien = any(figures[key] for figures in both for key in ("settled", "settlements")) or any(line["spend"] for line in lines)
        alien |= any(figures["conversions"] + figures["outcomes"] != figures["records"] for figures in both)
        many = counted > sum_("conversions") or valued > sum_("outcomes")
    return "says something of others than it holds" if alien else "counts more leaves than there are" if many else None


def check_sample(history, bundle, findings):
    """The sheets follow each other and add up to the closings' totals; those that are drawn say what their leaves say."""
    sheets, campaigns = history.sheets["sheets"], history.sheets["campaigns"]
    check(history.issued is not None, "the client's last leaf issues no invoice")
    closing = next((c for c in history.closings if c["seq"] == history.issued["closed_seq"]), None)
    check(closing is not None, "the invoice names a closing that is not there")
    closings = history.closings_to(closing)
    periods, last_seq = history.periods(closings), closing["last_seq"]
    before_seq = closings[-2]["last_seq"] if len(closings) > 1 else 0
    bounds = lambda sheet: (0, sheet["spend"]) if sheet["spend"] else (1, sheet["customers"])
    ends = [(kind, end) for kind, holds in map(bounds, sheets) for end in (holds["first"], holds["last"])]
    check(all(one <= other for one, other in zip(ends[::2], ends[1::2])), "a sheet ends before it begins")
    for number, (last, first) in enumerate(zip(ends[1::2], ends[2::2]), start=1):
        findings.add(last < first, f"sheet {number}", "does not follow on the one before it")
    check(len(set(campaigns)) == len(campaigns), "the sheets name a campaign twice")
    order = lambda line: (line["period"], line["part"], campaigns[line["campaign"]].encode())
    for number, sheet in enumerate(sheets):
        problem = contradiction(sheet)
        findings.add(problem is None, f"sheet {number}", problem)
        for lines in (sheet["before"]["lines"], sheet["added"]["lines"]):
            check(all(line["period"] < len(periods) and line["part"] < len(periods[line["period"]]["parts"]) for line in lines), "a line of no part")
            check(all(order(a) < order(b) for a, b in zip(lines, lines[1:])), "lines are not in order of period, part and campaign")
    for whens, said in ((("before",), closings[-2] if len(closings) > 1 else {}), (("before", "added"), closing)):
        gives = {key: sum(sheet[when][key] or 0 for sheet in sheets for when in whens) for key in TOTALS}
        says = {key: said.get(key) or 0 for key in TOTALS}
        findings.add(gives == says, "sheets", f"give {gives} but the closing says {says}")
    opened = {number: [] for number in drawn_sheets(sheets, bundle)}
    starts = ends[::2]
    for record in history.opened:
        head, kind, body = record
        key = (1, body["customer"]) if kind in ("conversion", "outcome") else (0, head["client_seq"])
        number = bisect.bisect_right(starts, key) - 1
        held = number in opened and key <= ends[2 * number + 1] and body["currency"] == closing["currency"]
        findings.add(held, f"leaf {head['index']}", "is of no sheet that was drawn")
        if held:
            opened[number].append(record)
    for number, records in opened.items():
        was, is_ = (figures_of(history, records, periods, closing["currency"], seq) for seq in (before_seq, last_seq))
        added = (is_[0] - was[0], {key: is_[1][key] - was[1][key] for key in TOTALS}, {})
        for key, line in is_[2].items():
            added[2][key] = [now - then for now, then in zip(line, was[2].get(key, [0] * 5))]
        for when, given in (("before", was), ("added", added)):
            said = sheets[number][when]
            lines = {}
            for line in said["lines"]:
                values = [line["spend"] or 0, line["predicted"] or 0, line["realised"] or 0, line["counted"], line["valued"]]
                lines[line["period"], line["part"], campaigns[line["campaign"]]] = values
            says = (said["records"], {key: said[key] or 0 for key in TOTALS}, lines)
            gives = (*given[:2], {key: line for key, line in given[2].items() if any(line)})
            findings.add(says == gives and len(lines) == len(said["lines"]), f"sheet {number}", f"{when}: says {says} but its leaves give {gives}")


def verify(content, key, challenge=None):
    """What was found off, the document and how many leaves were checked, of a log of what size, and whether they are a sample."""
    findings = Findings()
    bundle = read(content, BUNDLE)
    check(bundle["format"] in (1, 2) and not bundle["software"], "is not a bundle of format 1 or 2")
    sheets = None
    if bundle["format"] == 2:
        check(len(bundle["challenge"]) <= CHALLENGE_MAX, "the challenge is too long")
        check(challenge in (None, bundle["challenge"]), f"the sample was drawn with the challenge {bundle['challenge'].hex()!r}")
        sheets = {**read(bundle["sheets"], SHEETS), "sha256": hashlib.sha256(bundle["sheets"]).hexdigest()}
    else:
        check(not bundle["sheets"] and not bundle["challenge"], "is of format 1 and has sheets or a challenge")
    keys = verify_log.follow(bundle["rotations"], key) if bundle["rotations"] else [key]
    size, root = verify_log.open_by_any(keys[-1:], bundle["checkpoint"])
    check_tree(bundle, size, root, findings)
    document = json.loads(bundle["json"])
    history, others = History(findings, sheets), {}
    for leaf in bundle["leaves"]:
        head = read(leaf["leaf"], HEADER)
        findings.add((head["index"], head["log_id"]) == (leaf["index"], key.name), f"leaf {leaf['index']}", "says that it is another")
        body = next(((BODIES[n], value) for n, value in verify_log.wire(leaf["leaf"]) if n in BODIES), None)
        (kind, fields), value = body if body else (("", {}), b"")
        body = read(value, fields)
        if head["client"] != document["client"]:
            others[leaf["index"]] = body if kind == "evidence" else None
            continue
        if kind == "evidence":
            history.evidence[leaf["index"]] = body
        history.take(head, kind, body)
    if sheets is not None:
        check_sample(history, bundle, findings)
    own, issued, rests_on = drawn_up(history, document["client"], key.name, document["completeness"])
    if "issue_date" not in document.get("corrects", {"issue_date": None}):
        own["corrects"].pop("issue_date", None)  # a note that was issued before notes had it
    check_evidence(history, own, others, findings)
    compare(document, own, findings)
    stated = document["completeness"]["checkpoint_size"]
    findings.add(rests_on < stated <= issued["leaf"], "completeness.checkpoint_size", f"{stated} does not lie between leaf {rests_on} and the invoice")
    places = MINOR.get(own["currency"], 2)
    said = (max(issued["kind"], 1), amount(issued["total"], places), amount(issued["tax"], places))
    gives = ({"invoice": 1, "credit_note": 2, "debit_note": 3}[own["kind"]], own["total_invoice_amount"], own.get("tax", {}).get("amount", amount(0, places)))
    findings.add(said == gives, f"leaf {issued['leaf']}", f"issues {said} but the log gives {gives}")
    digest = hashlib.sha256(bundle["json"]).digest()
    findings.add(digest == issued["sha256"], "json", f"has SHA-256 {digest.hex()} but leaf {issued['leaf']} of the log says {issued['sha256'].hex()}")
    return findings, own, len(bundle["leaves"]), size, sheets is not None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--key", required=True, help="the log's public key, or a file that holds it; from elsewhere than the bundle")
    parser.add_argument("--challenge", type=bytes.fromhex, help="what samples must have been drawn with, in hex: that which you sent")
    parser.add_argument("bundles", metavar="BUNDLE", nargs="+")
    args = parser.parse_args()
    key, bad = Key(args.key if "+" in args.key else verify_log.read(args.key)), False
    for name in args.bundles:
        try:
            findings, own, leaves, size, sampled = verify(pathlib.Path(name).read_bytes(), key, args.challenge)
        except (Wrong, ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, RecursionError) as error:
            findings = [("bundle", error)]
        bad |= bool(findings)
        for place, problem in findings:
            print(f"{name}: {place}: {problem}")
        if not findings:
            due = f"{own['amount_due']} {own['currency']}"
            seen = "" if not sampled else ", a sample that you drew" if args.challenge is not None else ", a sample that was not drawn by you"
            print(f"{name}: good: {own['invoice_id']} for {own['client_name']}, {due}, from {leaves} leaves of {size}{seen}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    sys.setrecursionlimit(10_000)
    main()
