//! What happens to drafts and invoices: approved, sent, paid, disputed, credited, void, written off; and how they stand.
//!
//! Amounts are given and shown in units of the currency ("574.44"). A command that is repeated has no second effect: its
//! key is the digest of what it says, unless it is given one.

use billing::domain::amount::{Amount, minor_places};
use kiki::leaf::{self, invoice_event::Event};
use kiki::pb::billing::v1 as pb;
use kiki::pb::billing::v1::billing_service_client::BillingServiceClient;
use kiki::runtime::Channel;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::error::{Doing as _, Failure, rpc};
use crate::out;

/// Invoices asked for at a time.
const PAGE: u32 = 1_000;
/// Bytes of a key that is made here, before they are printed in hexadecimal.
const KEY_BYTES: usize = 16;

/// Where Billing is.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct At {
    /// Billing's address.
    #[arg(long, env = "KIKI_BILLING", default_value = "http://127.0.0.1:50054")]
    addr: String,
}

/// Something that happens to an invoice.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct To {
    /// The invoice's number.
    number: String,
    /// Who does it, or reports it; it stands in the log.
    #[arg(long)]
    actor: String,
    /// One key has one effect for each client. Default: the digest of what is said, so that two equal payments need keys.
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    at: At,
}

/// Why.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Because {
    /// In words; it stands in the log.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    to: To,
}

/// What happens.
#[derive(Debug, Clone, clap::Subcommand)]
pub(super) enum Command {
    /// How drafts and invoices stand.
    List {
        /// Only this month's.
        #[arg(long, default_value = "")]
        month: String,
        /// Only this advertiser's.
        #[arg(long, default_value = "")]
        client: String,
        #[command(flatten)]
        at: At,
    },
    /// Approves a draft.
    Approve {
        /// The draft's id.
        draft: String,
        /// Who approves.
        #[arg(long)]
        actor: String,
        #[command(flatten)]
        at: At,
    },
    /// It was sent.
    Sent {
        /// Where to.
        #[arg(long = "to")]
        address: String,
        #[command(flatten)]
        to: To,
    },
    /// A payment came: all of what is open, or a part.
    Pay {
        /// In units of the invoice's currency.
        #[arg(long)]
        amount: String,
        /// The day that it came, "2026-02-18".
        #[arg(long)]
        received_on: String,
        /// As the bank has it.
        #[arg(long, default_value = "")]
        reference: String,
        #[command(flatten)]
        to: To,
    },
    /// The client disputes it.
    Dispute {
        /// A leaf of the client's that it is about. Any number.
        #[arg(long = "leaf")]
        leaves: Vec<u64>,
        #[command(flatten)]
        because: Because,
    },
    /// A dispute is settled and the invoice stands.
    Resolve(Because),
    /// Nothing was owed. Only where nothing is paid.
    Void(Because),
    /// What is open will not be paid.
    WriteOff(Because),
    /// A part of it is given back by agreement: issues the credit note.
    Credit {
        /// Before tax, in units of the invoice's currency.
        #[arg(long)]
        amount: String,
        /// A leaf of the client's that it is about. Any number.
        #[arg(long = "leaf")]
        leaves: Vec<u64>,
        /// It settles the dispute that was raised last.
        #[arg(long)]
        settles_dispute: bool,
        #[command(flatten)]
        because: Because,
    },
}

type Billing = BillingServiceClient<Channel>;

/// Runs the command.
///
/// # Errors
/// What Billing refused.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List { month, client, at } => {
            let invoices = list(&mut connect(&at)?, &month, &client).await?;
            out::say(table(&invoices)?);
            Ok(())
        }
        Command::Approve { draft, actor, at } => {
            let request = pb::ApproveInvoiceRequest { invoice_id: draft, actor };
            say(connect(&at)?.approve_invoice(request).await.map(|answer| answer.into_inner().invoice))
        }
        Command::Sent { address, to } => sent(to, address).await,
        Command::Pay { amount, received_on, reference, to } => pay(to, &amount, received_on, reference).await,
        Command::Dispute { leaves, because } => dispute(because, sorted(leaves)).await,
        Command::Credit { amount, leaves, settles_dispute, because } => credit(because, &amount, sorted(leaves), settles_dispute).await,
        Command::Resolve(Because { reason, to }) => {
            let (key, mut billing) = prepared(&to, Event::DisputeResolved(leaf::InvoiceDisputeResolved { reason: reason.clone() }))?;
            let request = pb::ResolveDisputeRequest { key, invoice_id: to.number, actor: to.actor, reason };
            say(billing.resolve_dispute(request).await.map(|answer| answer.into_inner().invoice))
        }
        Command::Void(Because { reason, to }) => {
            let (key, mut billing) = prepared(&to, Event::Voided(leaf::InvoiceVoided { reason: reason.clone() }))?;
            let request = pb::VoidInvoiceRequest { key, invoice_id: to.number, actor: to.actor, reason };
            say(billing.void_invoice(request).await.map(|answer| answer.into_inner().invoice))
        }
        Command::WriteOff(Because { reason, to }) => {
            let (key, mut billing) = prepared(&to, Event::WrittenOff(leaf::InvoiceWrittenOff { reason: reason.clone() }))?;
            let request = pb::WriteOffInvoiceRequest { key, invoice_id: to.number, actor: to.actor, reason };
            say(billing.write_off_invoice(request).await.map(|answer| answer.into_inner().invoice))
        }
    }
}

async fn sent(to: To, address: String) -> Result<(), Failure> {
    let (key, mut billing) = prepared(&to, Event::Sent(leaf::InvoiceSent { to: address.clone() }))?;
    let request = pb::MarkSentRequest { key, invoice_id: to.number, actor: to.actor, to: address };
    say(billing.mark_sent(request).await.map(|answer| answer.into_inner().invoice))
}

async fn pay(to: To, amount: &str, received_on: String, reference: String) -> Result<(), Failure> {
    let currency = looked_up(&to).await?.invoice.unwrap_or_default().currency;
    let amount_minor = minor(amount, &currency)?;
    let payment = leaf::InvoicePayment { amount_minor, currency, received_on, reference };
    let (key, mut billing) = prepared(&to, Event::Payment(payment.clone()))?;
    let leaf::InvoicePayment { amount_minor, currency, received_on, reference } = payment;
    let request = pb::RecordPaymentRequest { key, invoice_id: to.number, actor: to.actor, amount_minor, currency, received_on, reference };
    say(billing.record_payment(request).await.map(|answer| answer.into_inner().invoice))
}

/// The invoice that a command is about.
async fn looked_up(to: &To) -> Result<pb::GetInvoiceResponse, Failure> {
    let request = pb::GetInvoiceRequest { invoice_id: to.number.clone() };
    let answer = connect(&to.at)?.get_invoice(request).await;
    Ok(answer.map_err(|s| rpc(format_args!("looking up {}", to.number), &s))?.into_inner())
}

async fn credit(because: Because, amount: &str, leaves: Vec<u64>, settles_dispute: bool) -> Result<(), Failure> {
    let Because { reason, to } = because;
    let found = looked_up(&to).await?;
    let currency = found.invoice.unwrap_or_default().currency;
    let amount_minor = minor(amount, &currency)?;
    let dispute_key = if settles_dispute { last_dispute(&found.history)? } else { String::new() };
    let credited = leaf::InvoiceCredited { amount_minor, currency, reason, leaves, dispute_key, ..Default::default() };
    let (key, mut billing) = prepared(&to, Event::Credited(credited.clone()))?;
    let leaf::InvoiceCredited { amount_minor, currency, reason, leaves, dispute_key, .. } = credited;
    let (invoice_id, actor) = (to.number, to.actor);
    let request = pb::CreditInvoiceRequest { key, invoice_id, actor, amount_minor, currency, reason, leaves, dispute_key };
    let answer = billing.credit_invoice(request).await.map_err(|status| rpc("the credit", &status))?.into_inner();
    out::say(table(&[answer.invoice.unwrap_or_default(), answer.credit_note.unwrap_or_default()])?);
    Ok(())
}

/// Key of the dispute that counted and was raised last.
fn last_dispute(history: &[pb::InvoiceHistory]) -> Result<String, Failure> {
    let events = history.iter().rev().filter(|happened| happened.refused.is_empty()).filter_map(|happened| happened.event.as_ref());
    let mut disputes = events.filter(|event| matches!(event.event, Some(Event::Disputed(_))));
    disputes.next().map(|event| event.key.clone()).ok_or_else(|| Failure::new("--settles-dispute: the invoice was never disputed"))
}

/// Ascending and each once, as the log takes leaves.
fn sorted(mut leaves: Vec<u64>) -> Vec<u64> {
    leaves.sort_unstable();
    leaves.dedup();
    leaves
}

async fn dispute(because: Because, leaves: Vec<u64>) -> Result<(), Failure> {
    let Because { reason, to } = because;
    let disputed = leaf::InvoiceDisputed { leaves, reason };
    let (key, mut billing) = prepared(&to, Event::Disputed(disputed.clone()))?;
    let leaf::InvoiceDisputed { leaves, reason } = disputed;
    let request = pb::DisputeInvoiceRequest { key, invoice_id: to.number, actor: to.actor, leaves, reason };
    say(billing.dispute_invoice(request).await.map(|answer| answer.into_inner().invoice))
}

fn connect(at: &At) -> Result<Billing, Failure> {
    let channel = kiki::runtime::channel(&at.addr).doing(&at.addr)?;
    Ok(BillingServiceClient::new(channel).max_decoding_message_size(kiki::runtime::MAX_MESSAGE))
}

/// The key under which an event is recorded, and whom to ask.
fn prepared(to: &To, event: Event) -> Result<(String, Billing), Failure> {
    let said = leaf::InvoiceEvent { key: String::new(), number: to.number.clone(), actor: to.actor.clone(), event: Some(event) };
    let digest = || hex::encode(&Sha256::digest(said.encode_to_vec())[..KEY_BYTES]);
    Ok((to.key.clone().unwrap_or_else(digest), connect(&to.at)?))
}

/// An amount in units of a currency, in its minor unit: nothing is rounded.
fn minor(text: &str, currency: &str) -> Result<i64, Failure> {
    let amount = Amount::parse(text).doing("--amount")?;
    let places = minor_places(currency).doing("--amount")?;
    let more = places.checked_sub(amount.places());
    let minor = more.and_then(|more| amount.units().checked_mul(10_i128.checked_pow(more)?)).and_then(|minor| i64::try_from(minor).ok());
    minor.ok_or_else(|| Failure::new(format!("--amount: {text} has more than the {places} decimal places of {currency}, or is too large")))
}

async fn list(billing: &mut Billing, month: &str, client: &str) -> Result<Vec<pb::InvoiceSummary>, Failure> {
    let (mut invoices, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListInvoicesRequest { month: month.to_owned(), client: client.to_owned(), page_size: PAGE, page_token };
        let page = billing.list_invoices(request).await.map_err(|s| rpc("listing invoices", &s))?.into_inner();
        invoices.extend(page.invoices);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(invoices);
        }
    }
}

fn say(answer: Result<Option<pb::InvoiceSummary>, tonic::Status>) -> Result<(), Failure> {
    let invoice = answer.map_err(|status| rpc("the invoice", &status))?.unwrap_or_default();
    out::say(table(&[invoice])?);
    Ok(())
}

/// One line each under a heading, figures to the right.
fn table(invoices: &[pb::InvoiceSummary]) -> Result<String, Failure> {
    let mut rows = vec![["invoice", "client", "month", "cur", "total", "paid", "open", "due", "status"].map(str::to_owned)];
    for invoice in invoices {
        let places = minor_places(&invoice.currency).doing("reading an invoice")?;
        let amount = |minor: i64| kiki::money::decimal(minor.into(), places);
        let mark = if invoice.disputed { ", disputed" } else { "" };
        rows.push([
            invoice.invoice_id.clone(),
            invoice.client.clone(),
            invoice.month.clone(),
            invoice.currency.clone(),
            amount(invoice.total_minor),
            amount(invoice.paid_minor),
            amount(invoice.open_minor),
            invoice.due_date.clone(),
            format!("{}{mark}", invoice.status().as_str_name().trim_start_matches("INVOICE_STATUS_").to_lowercase().replace('_', " ")),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let cell = |(column, text): (usize, &String)| match column {
        4..=6 => format!("{text:>width$}", width = widths[column]),
        _ => format!("{text:<width$}", width = widths[column]),
    };
    let line = |row: &[String; 9]| row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned();
    Ok(rows.iter().map(line).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_amount_is_read_to_the_minor_unit_and_never_rounded() {
        assert_eq!(minor("574.44", "USD").unwrap(), 57_444);
        assert_eq!(minor("574", "USD").unwrap(), 57_400);
        assert_eq!(minor("574", "JPY").unwrap(), 574);
        assert_eq!(minor("1.5", "KWD").unwrap(), 1_500);
        for (text, currency) in [("574.444", "USD"), ("1.0", "JPY"), ("1e3", "USD"), ("99999999999999999999", "USD")] {
            assert!(minor(text, currency).unwrap_err().to_string().contains("--amount"), "{text} {currency}");
        }
    }

    #[test]
    fn a_command_that_says_the_same_has_the_same_key() {
        let to = |key: Option<&str>| To {
            number: "K2026-000001".into(),
            actor: "ada".into(),
            key: key.map(str::to_owned),
            at: At { addr: "http://127.0.0.1:1".into() },
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let payment = |amount_minor| Event::Payment(leaf::InvoicePayment { amount_minor, ..Default::default() });
        let key = |amount| prepared(&to(None), payment(amount)).unwrap().0;
        assert_eq!(key(5), key(5));
        assert_ne!(key(5), key(6));
        assert_eq!(key(5).len(), 2 * KEY_BYTES);
        assert_eq!(prepared(&to(Some("mine")), payment(5)).unwrap().0, "mine");
        // What says the same in another matter is another thing.
        let void = Event::Voided(leaf::InvoiceVoided { reason: "x".into() });
        let write_off = Event::WrittenOff(leaf::InvoiceWrittenOff { reason: "x".into() });
        assert_ne!(prepared(&to(None), void).unwrap().0, prepared(&to(None), write_off).unwrap().0);
    }

    #[test]
    fn a_table_says_how_an_invoice_stands() {
        let invoice = pb::InvoiceSummary {
            invoice_id: "K2026-000001".into(),
            client: "acme".into(),
            currency: "USD".into(),
            month: "2026-01".into(),
            total_minor: 57_444,
            paid_minor: 7_444,
            open_minor: 50_000,
            due_date: "2026-03-20".into(),
            status: pb::InvoiceStatus::PartlyPaid.into(),
            disputed: true,
            ..Default::default()
        };
        let text = table(&[invoice]).unwrap();
        assert_eq!(
            text.lines().nth(1).unwrap(),
            "K2026-000001  acme    2026-01  USD  574.44  74.44  500.00  2026-03-20  partly paid, disputed"
        );
    }
}
