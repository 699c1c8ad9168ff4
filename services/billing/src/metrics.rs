//! What Prometheus sees of Billing. Money is counted when an invoice becomes final, and counted
//! again from the ledger at each start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kiki::runtime;
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::domain::follow::Unreadable;
use crate::domain::invoice::{Invoice, Kind};
use crate::domain::reconcile::{Figure, compare::Comparison};
use crate::error::POSTPONED_FOR;
use crate::store::Balance;

/// The metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Leaves folded.
    pub folded: IntGauge,
    /// 1 while this process is the one that folds.
    pub folding: IntGauge,
    /// 1 once the log contradicted itself.
    pub fault: IntGauge,
    /// Final invoices whose leaf the log does not hold, as far as is known.
    pub unrecorded: IntGauge,
    /// Accesses that the log refused for good.
    pub refused_accesses: IntCounter,
    /// 1 while the last try to follow the log failed.
    pub fold_error: IntGauge,
    /// Events of invoices that the log holds and that changed nothing.
    pub refused_events: IntGauge,
    postponed: IntGaugeVec,
    /// Who is postponed and why, by client and currency: as many as there are of these.
    waiting: Arc<Mutex<BTreeMap<(String, String), &'static str>>>,
    balances: IntGaugeVec,
    unreadable: IntGaugeVec,
    revenue: IntGaugeVec,
    margin: IntGaugeVec,
    generated: IntCounterVec,
    share: GaugeVec,
    reconciliations: IntCounterVec,
    differences: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &runtime::Metrics) -> Self {
        let opts = |name: &str, help: &str| Opts::new(name, help);
        Self {
            folded: registry.add(IntGauge::new("kiki_billing_folded_leaves", "leaves of the log that are folded")),
            folding: registry.add(IntGauge::new("kiki_billing_folding", "1 while this process is the one that folds")),
            fault: registry.add(IntGauge::new("kiki_billing_log_fault", "1 once the log contradicted itself")),
            unrecorded: registry.add(IntGauge::new("kiki_billing_unrecorded_invoices", "final invoices that the log does not hold")),
            refused_accesses: registry
                .add(IntCounter::new("kiki_billing_refused_accesses_total", "accesses of documents that the log refused for good")),
            fold_error: registry.add(IntGauge::new("kiki_billing_fold_error", "1 while the last try to follow the log failed")),
            postponed: registry.add(IntGaugeVec::new(
                opts(
                    "kiki_billing_postponed",
                    "clients by currency that are not invoiced until somebody mends it, as they were drafted last",
                ),
                &["reason"],
            )),
            waiting: Arc::default(),
            refused_events: registry
                .add(IntGauge::new("kiki_billing_refused_invoice_events", "events of invoices in the log that changed nothing")),
            balances: registry.add(IntGaugeVec::new(
                opts(
                    "kiki_billing_account_balance_minor",
                    "balance of an account of the ledger, minor unit of the currency; debits above 0",
                ),
                &["account", "currency"],
            )),
            unreadable: registry.add(IntGaugeVec::new(
                opts("kiki_billing_unreadable_leaf", "index of the leaf that cannot be read and stopped the fold"),
                &["client"],
            )),
            revenue: registry.add(IntGaugeVec::new(
                opts("kiki_ooaS_revenue_total_micros", "fees of final invoices, micros of the currency"),
                &["month", "currency"],
            )),
            margin: registry.add(IntGaugeVec::new(
                opts("kiki_ooaS_margin_recovered_micros", "margin above the baseline on final invoices, micros of the currency"),
                &["campaign_id", "currency"],
            )),
            generated: registry
                .add(IntCounterVec::new(opts("kiki_ooaS_invoices_generated_total", "drafts and final invoices"), &["status"])),
            share: registry.add(GaugeVec::new(
                opts("kiki_ooaS_profit_share_percentage", "profit share on the client's newest invoice, percent"),
                &["client", "currency"],
            )),
            reconciliations: registry.add(IntCounterVec::new(
                opts(
                    "kiki_billing_reconciliations_total",
                    "times that figures were held against the log, by whose and by whether all agreed",
                ),
                &["against", "result"],
            )),
            differences: registry.add(IntCounterVec::new(
                opts("kiki_billing_reconciliation_differences_total", "figures that differed from the log's, by whose and how"),
                &["against", "kind"],
            )),
        }
    }

    /// A client's month was drafted, or is postponed for a fault.
    pub fn drafted_or_postponed(&self, client: &str, currency: &str, fault: Option<&'static str>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (client.to_owned(), currency.to_owned());
        match fault {
            Some(fault) => drop(waiting.insert(key, fault)),
            None => drop(waiting.remove(&key)),
        }
        for reason in POSTPONED_FOR {
            let count = waiting.values().filter(|why| **why == reason).count();
            self.postponed.with_label_values(&[reason]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Another's figures were held against the log.
    pub fn reconciled(&self, figure: &Figure, comparison: &Comparison) {
        let against = match figure {
            Figure::PlatformSpend { .. } => "platform_spend",
            Figure::CountedSpend => "counted_spend",
            Figure::CountedLtv => "counted_predicted_ltv",
        };
        let result = if comparison.differences.is_empty() { "agree" } else { "differ" };
        self.reconciliations.with_label_values(&[against, result]).inc();
        for difference in &comparison.differences {
            self.differences.with_label_values(&[against, difference.kind.name()]).inc();
        }
    }

    /// What the accounts are at.
    pub fn balances(&self, balances: &[Balance]) {
        for balance in balances {
            self.balances.with_label_values(&[balance.account.name(), &balance.currency]).set(balance.balance_minor);
        }
    }

    /// A leaf stopped the fold.
    pub fn unreadable(&self, leaf: &Unreadable) {
        self.unreadable.with_label_values(&[&leaf.client]).set(i64::try_from(leaf.leaf).unwrap_or(i64::MAX));
    }

    /// A draft was kept.
    pub fn drafted(&self) {
        self.generated.with_label_values(&["draft"]).inc();
    }

    /// An invoice became final.
    pub fn finalized(&self, invoice: &Invoice) {
        self.generated.with_label_values(&["finalized"]).inc();
        let currency = invoice.currency.as_str();
        let fee = micros(invoice.total_invoice_amount.units(), invoice.total_invoice_amount.places());
        let revenue = self.revenue.with_label_values(&[&invoice.period, currency]);
        match invoice.kind {
            Kind::Invoice => revenue.add(fee),
            // What a note changes is money alone: its lines say the period's figures once more.
            Kind::DebitNote => return revenue.add(fee),
            Kind::CreditNote => return revenue.sub(fee),
        }
        for line in &invoice.line_items {
            let margin = micros(line.margin_recovered.units().max(0), line.margin_recovered.places());
            self.margin.with_label_values(&[&line.campaign_id, currency]).add(margin);
        }
        let share: Gauge = self.share.with_label_values(&[&invoice.client, currency]);
        let percentage = invoice.terms().and_then(|terms| terms.profit_share_percentage.parse().ok());
        share.set(percentage.unwrap_or(f64::NAN));
    }
}

/// Units of `10^-places` in micros; a metric that would overflow stands at its end.
fn micros(units: i128, places: u32) -> i64 {
    let micros = units.saturating_mul(10_i128.pow(6_u32.saturating_sub(places)));
    i64::try_from(micros).unwrap_or(i64::MAX)
}
