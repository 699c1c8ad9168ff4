//! The gRPC face: decode, one call of [`Billing`], encode.

use bytes::Bytes;
use kiki::caller::Caller;
use kiki::ids;
use kiki::pb::billing::v1 as pb;
use kiki::pb::billing::v1::billing_service_server::BillingService;
use kiki::status;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use crate::billing::Billing;
use crate::error::{Error, Postponed};
use crate::store::{InvoiceRow, Page};

/// Bytes of a chunk of a bundle.
const CHUNK: usize = 1 << 20;
/// Invoices of a page where none is asked for.
const PAGE_DEFAULT: u32 = 100;
/// Most invoices of a page: a summary is under 300 bytes.
const PAGE_MAX: u32 = 1_000;
/// Longest id: `draft-`, a client of 63, a currency of 3 and two months of 7.
const ID_MAX: usize = 90;

type Answer<T> = Result<Response<T>, Status>;

fn client_of(value: &str) -> Result<&str, Status> {
    if !value.is_empty() {
        ids::check("client", value).map_err(|e| status::field("client", e))?;
    }
    Ok(value)
}

fn id_of(value: &str) -> Result<&str, Status> {
    let good = (1..=ID_MAX).contains(&value.len()) && value.is_ascii();
    if good { Ok(value) } else { Err(status::field("invoice_id", format!("must be 1 to {ID_MAX} ASCII characters"))) }
}

fn month_of(value: &str) -> Result<crate::domain::period::Month, Status> {
    value.parse().map_err(|e| status::field("month", e))
}

fn summary(row: &InvoiceRow) -> Result<pb::InvoiceSummary, Error> {
    let invoice = row.invoice()?;
    let final_ = row.number.is_some();
    let status = if final_ { pb::InvoiceStatus::Finalized } else { pb::InvoiceStatus::Draft };
    let minor = |units: i128| i64::try_from(units).map_err(|_| Error::Answer("no total of 64 bits"));
    Ok(pb::InvoiceSummary {
        invoice_id: row.number.clone().unwrap_or_else(|| row.draft_id.clone()),
        number: row.number.clone().unwrap_or_default(),
        status: status.into(),
        client: row.client.clone(),
        currency: row.currency.clone(),
        month: row.month.clone(),
        total_minor: minor(invoice.total_invoice_amount.units())?,
        document_sha256: Sha256::digest(&row.document).to_vec().into(),
        kind: invoice.kind.to_leaf().into(),
        tax_minor: minor(invoice.tax.as_ref().map_or(0, |tax| tax.amount.units()))?,
        corrects: invoice.corrects.and_then(|corrects| corrects.invoice_id).unwrap_or_default(),
    })
}

impl From<Postponed> for pb::Postponed {
    fn from(postponed: Postponed) -> Self {
        let Postponed { client, currency, reason, until } = postponed;
        Self { client, currency, reason, until: until.map(Into::into) }
    }
}

#[tonic::async_trait]
impl BillingService for Billing {
    type GetProofBundleStream = tokio_stream::Iter<std::vec::IntoIter<Result<pb::GetProofBundleResponse, Status>>>;

    async fn draft_invoices(&self, request: Request<pb::DraftInvoicesRequest>) -> Answer<pb::DraftInvoicesResponse> {
        Caller::of(&request).act_for_all()?;
        let request = request.into_inner();
        let drafted = self.draft(month_of(&request.month)?, client_of(&request.client)?).await?;
        Ok(Response::new(pb::DraftInvoicesResponse {
            invoices: drafted.invoices.iter().map(summary).collect::<Result<_, _>>()?,
            postponed: drafted.postponed.into_iter().map(Into::into).collect(),
        }))
    }

    async fn finalize_invoice(&self, request: Request<pb::FinalizeInvoiceRequest>) -> Answer<pb::FinalizeInvoiceResponse> {
        Caller::of(&request).act_for_all()?;
        let row = self.finalize(id_of(&request.get_ref().invoice_id)?).await?;
        Ok(Response::new(pb::FinalizeInvoiceResponse { invoice: Some(summary(&row)?) }))
    }

    async fn get_invoice(&self, request: Request<pb::GetInvoiceRequest>) -> Answer<pb::GetInvoiceResponse> {
        let row = self.invoice(id_of(&request.get_ref().invoice_id)?).await?;
        Caller::of(&request).act_for(&row.client)?;
        Ok(Response::new(pb::GetInvoiceResponse {
            invoice: Some(summary(&row)?),
            csv: row.invoice().map_err(Error::from)?.to_csv().into(),
            json: row.document.into(),
        }))
    }

    async fn list_invoices(&self, request: Request<pb::ListInvoicesRequest>) -> Answer<pb::ListInvoicesResponse> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        match client_of(&request.client)? {
            "" => caller.act_for_all()?,
            client => caller.act_for(client)?,
        }
        if !request.month.is_empty() {
            month_of(&request.month)?;
        }
        let limit = match request.page_size {
            0 => PAGE_DEFAULT,
            size if size <= PAGE_MAX => size,
            size => return Err(status::field("page_size", format!("{size} is above the limit of {PAGE_MAX}"))),
        };
        let rows = self.list(&Page { client: request.client, month: request.month, after: request.page_token, limit }).await?;
        let last = rows.last().filter(|_| rows.len() == limit as usize);
        let next_page_token = last.map(|row| row.draft_id.clone()).unwrap_or_default();
        let invoices = rows.iter().map(summary).collect::<Result<_, _>>()?;
        Ok(Response::new(pb::ListInvoicesResponse { invoices, next_page_token }))
    }

    async fn get_proof_bundle(&self, request: Request<pb::GetProofBundleRequest>) -> Answer<Self::GetProofBundleStream> {
        let row = self.invoice(id_of(&request.get_ref().invoice_id)?).await?;
        Caller::of(&request).act_for(&row.client)?;
        let file = Bytes::from(self.bundle(row).await?);
        let chunk = |at| file.slice(at..file.len().min(at + CHUNK));
        let chunks = (0..file.len()).step_by(CHUNK).map(|at| Ok(pb::GetProofBundleResponse { chunk: chunk(at) }));
        Ok(Response::new(tokio_stream::iter(chunks.collect::<Vec<_>>())))
    }
}
