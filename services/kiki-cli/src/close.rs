//! Closing a month of a running platform: drafts, numbers, and the files that a client receives.

use std::path::Path;

use billing::domain::invoice::Invoice;
use billing::domain::summary::{Summary, summarise};
use indicatif::ProgressBar;
use kiki::pb::billing::v1::billing_service_client::BillingServiceClient;
use kiki::pb::billing::v1::{
    DraftInvoicesRequest, FinalizeInvoiceRequest, GetInvoiceRequest, GetProofBundleRequest, ListInvoicesRequest, Postponed,
};
use kiki::runtime::Channel;

use crate::error::{Doing as _, Failure, rpc};

/// The largest bundle that is fetched, as Billing bounds it.
const MAX_BUNDLE: usize = 1 << 30;
/// Invoices asked for at a time.
const PAGE: u32 = 100;

/// Billing, as its caller.
#[derive(Debug, Clone)]
pub struct Biller(BillingServiceClient<Channel>);

/// What closing a month came to.
#[derive(Debug, Default)]
pub struct Closed {
    /// Numbers of the month's invoices, ascending.
    pub numbers: Vec<String>,
    /// Clients that cannot be invoiced yet.
    pub postponed: Vec<Postponed>,
}

impl Biller {
    /// A caller over this channel.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self(BillingServiceClient::new(channel).max_decoding_message_size(kiki::runtime::MAX_MESSAGE))
    }

    /// Drafts the month and finalises every draft, page by page. Asked again, after an interruption say, it goes through
    /// the same invoices.
    ///
    /// # Errors
    /// What Billing refused.
    pub async fn close(&mut self, month: &str, progress: &ProgressBar) -> Result<Closed, Failure> {
        let mut postponed = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = DraftInvoicesRequest { month: month.to_owned(), page_token, page_size: PAGE, ..Default::default() };
            let page = self.0.draft_invoices(request).await.map_err(|s| rpc("drafting invoices", &s))?.into_inner();
            progress.set_length(progress.position() + page.invoices.len() as u64 + page.remaining);
            // One after the other: in which order they are numbered is no accident.
            for draft in page.invoices {
                let invoice_id = if draft.number.is_empty() { draft.invoice_id } else { draft.number };
                let doing = format!("finalising {invoice_id}");
                self.0.finalize_invoice(FinalizeInvoiceRequest { invoice_id }).await.map_err(|s| rpc(doing, &s))?;
                progress.inc(1);
            }
            postponed.extend(page.postponed);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(Closed { numbers: self.numbers(month).await?, postponed });
            }
        }
    }

    /// The month's invoices by number, drafts left out.
    async fn numbers(&mut self, month: &str) -> Result<Vec<String>, Failure> {
        let mut numbers = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListInvoicesRequest { month: month.to_owned(), page_size: PAGE, page_token, ..Default::default() };
            let page = self.0.list_invoices(request).await.map_err(|s| rpc("listing invoices", &s))?.into_inner();
            numbers.extend(page.invoices.into_iter().map(|invoice| invoice.number).filter(|number| !number.is_empty()));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                numbers.sort();
                return Ok(numbers);
            }
        }
    }

    /// Writes `<number>.json`, `.csv` and `.bundle` into `folder` and gives the invoice.
    ///
    /// # Errors
    /// What Billing refused, or a file that cannot be written.
    pub async fn save(&mut self, folder: &Path, number: &str) -> Result<Invoice, Failure> {
        if !number.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(Failure::new(format!("{number:?} is no invoice number")));
        }
        let request = GetInvoiceRequest { invoice_id: number.to_owned() };
        let answer = self.0.get_invoice(request).await.map_err(|s| rpc(format_args!("fetching {number}"), &s))?.into_inner();
        let bundle = self.bundle(number, Vec::new()).await?;
        for (ending, bytes) in [("json", &answer.json[..]), ("csv", &answer.csv[..]), ("bundle", &bundle[..])] {
            write(&folder.join(format!("{number}.{ending}")), bytes)?;
        }
        Invoice::from_json(&answer.json).doing(format_args!("reading {number}"))
    }

    /// The bundle of an invoice; where it is a sample, drawn with a challenge.
    pub(crate) async fn bundle(&mut self, number: &str, challenge: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let doing = format!("fetching the bundle of {number}");
        let request = GetProofBundleRequest { invoice_id: number.to_owned(), challenge: challenge.into() };
        let mut chunks = self.0.get_proof_bundle(request).await.map_err(|s| rpc(&doing, &s))?.into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = chunks.message().await.map_err(|s| rpc(&doing, &s))? {
            bytes.extend_from_slice(&message.chunk);
            if bytes.len() > MAX_BUNDLE {
                return Err(Failure::new(format!("{doing}: more than {MAX_BUNDLE} bytes")));
            }
        }
        Ok(bytes)
    }
}

/// Writes `summary-<month>.json` and `.csv` into `folder` and gives the summary.
///
/// # Errors
/// Sums that do not fit, or a file that cannot be written.
pub fn summarise_month(folder: &Path, month: &str, invoices: &[Invoice]) -> Result<Summary, Failure> {
    let summary = summarise(month, invoices).doing("summing up the month")?;
    write(&folder.join(format!("summary-{month}.json")), &summary.to_json())?;
    write(&folder.join(format!("summary-{month}.csv")), &csv(&summary)?)?;
    Ok(summary)
}

fn csv(summary: &Summary) -> Result<Vec<u8>, Failure> {
    let (header, rows) = summary.table();
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header).doing("writing the summary")?;
    rows.iter().try_for_each(|row| writer.write_record(row)).doing("writing the summary")?;
    writer.into_inner().doing("writing the summary")
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).doing(format_args!("writing {}", path.display()))
}
