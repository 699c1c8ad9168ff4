//! The gRPC face: decode, one call of [`Billing`], encode.

mod convert;
mod reconcile;

use std::collections::BTreeSet;

use bytes::Bytes;
use kiki::caller::Caller;
use kiki::ids;
use kiki::leaf::{self, AccessKind, invoice_event::Event};
use kiki::pb::billing::v1 as pb;
use kiki::pb::billing::v1::billing_service_server::BillingService;
use kiki::status;
use tonic::{Request, Response, Status};

use crate::billing::{Billing, Shown};
use crate::domain::bundle::sample::CHALLENGE_MAX;
use crate::error::Error;
use crate::store::{InvoiceRow, Page};
use convert::summary;

/// Bytes of a chunk of a file.
const CHUNK: usize = 1 << 20;
/// Invoices of a page where none is asked for.
const PAGE_DEFAULT: u32 = 100;
/// Most invoices of a page: a summary is under 300 bytes.
const PAGE_MAX: u32 = 1_000;
/// Longest id: `credit-`, a client of 63, and a number of 20 digits.
const ID_MAX: usize = 91;

type Answer<T> = Result<Response<T>, Status>;
type Chunks<T> = tokio_stream::Iter<std::vec::IntoIter<Result<T, Status>>>;

/// A file as a stream.
fn chunks<T>(file: Vec<u8>, message: impl Fn(Bytes) -> T) -> Response<Chunks<T>> {
    let file = Bytes::from(file);
    let chunk = |at| Ok(message(file.slice(at..file.len().min(at + CHUNK))));
    Response::new(tokio_stream::iter((0..file.len()).step_by(CHUNK).map(chunk).collect::<Vec<_>>()))
}

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

fn challenge_of(value: Bytes) -> Result<Vec<u8>, Status> {
    let fits = value.len() <= CHALLENGE_MAX;
    fits.then(|| value.to_vec())
        .ok_or_else(|| status::field("challenge", format!("is {} bytes; at most {CHALLENGE_MAX} are taken", value.len())))
}

fn month_of(value: &str) -> Result<crate::domain::period::Month, Status> {
    value.parse().map_err(|e| status::field("month", e))
}

fn page_size(asked: u32) -> Result<u32, Status> {
    match asked {
        0 => Ok(PAGE_DEFAULT),
        size if size <= PAGE_MAX => Ok(size),
        size => Err(status::field("page_size", format!("{size} is above the limit of {PAGE_MAX}"))),
    }
}

/// The client and currency behind whom a page of drafts begins.
fn behind(page_token: &str) -> Result<(&str, &str), Status> {
    match page_token {
        "" => Ok(("", "")),
        token => token.split_once(' ').ok_or_else(|| status::field("page_token", "is not what an answer gave")),
    }
}

impl Billing {
    /// Notes that a document is given out; before it is.
    async fn note(&self, caller: &Caller, kind: AccessKind, row: &InvoiceRow) -> Result<(), Error> {
        let subject = row.number.as_ref().unwrap_or(&row.draft_id);
        self.note_of(caller, kind, &row.client, subject).await
    }

    /// Notes a list, for each client that is on it.
    async fn note_list(&self, caller: &Caller, month: &str, listed: &[Shown]) -> Result<(), Error> {
        let clients: BTreeSet<&str> = listed.iter().map(|shown| shown.row.client.as_str()).collect();
        for client in clients {
            let subject = if month.is_empty() { "all months" } else { month };
            self.note_of(caller, AccessKind::List, client, subject).await?;
        }
        Ok(())
    }

    async fn note_of(&self, caller: &Caller, kind: AccessKind, client: &str, subject: &str) -> Result<(), Error> {
        let ((role, tenant), at) = (caller.on_record(), Some(self.clock.now().into()));
        let (role, kind, subject) = (role.into(), kind.into(), subject.to_owned());
        Ok(self.accesses.note(client, leaf::Access { role, tenant, kind, subject, at, ..Default::default() }).await?)
    }

    /// What happened to an invoice, by whoever may act for all.
    async fn event(&self, caller: &Caller, id: &str, key: String, actor: String, event: Event) -> Result<pb::InvoiceSummary, Status> {
        caller.act_for_all()?;
        let row = self.invoice(id_of(id)?).await?;
        let event = leaf::InvoiceEvent { key, actor, event: Some(event), ..Default::default() };
        Ok(summary(&self.happen(row, event).await?)?)
    }
}

#[tonic::async_trait]
impl BillingService for Billing {
    type GetProofBundleStream = Chunks<pb::GetProofBundleResponse>;
    type ExportInvoiceStream = Chunks<pb::ExportInvoiceResponse>;

    async fn draft_invoices(&self, request: Request<pb::DraftInvoicesRequest>) -> Answer<pb::DraftInvoicesResponse> {
        let caller = Caller::of(&request);
        caller.act_for_all()?;
        let request = request.into_inner();
        let (month, client) = (month_of(&request.month)?, client_of(&request.client)?);
        let drafted = self.draft(month, client, behind(&request.page_token)?, page_size(request.page_size)?).await?;
        let mut invoices = Vec::with_capacity(drafted.invoices.len());
        for row in drafted.invoices {
            self.note(&caller, AccessKind::Draft, &row).await?;
            invoices.push(summary(&self.shown(row).await?)?);
        }
        let (next_page_token, remaining) = match drafted.rest {
            Some((client, currency, remaining)) => (format!("{client} {currency}"), remaining),
            None => (String::new(), 0),
        };
        let postponed = drafted.postponed.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::DraftInvoicesResponse { invoices, postponed, next_page_token, remaining }))
    }

    async fn finalize_invoice(&self, request: Request<pb::FinalizeInvoiceRequest>) -> Answer<pb::FinalizeInvoiceResponse> {
        let caller = Caller::of(&request);
        caller.act_for_all()?;
        let row = self.finalize(id_of(&request.get_ref().invoice_id)?).await?;
        self.note(&caller, AccessKind::Finalize, &row).await?;
        Ok(Response::new(pb::FinalizeInvoiceResponse { invoice: Some(summary(&self.shown(row).await?)?) }))
    }

    async fn get_invoice(&self, request: Request<pb::GetInvoiceRequest>) -> Answer<pb::GetInvoiceResponse> {
        let row = self.invoice(id_of(&request.get_ref().invoice_id)?).await?;
        let caller = Caller::of(&request);
        caller.act_for(&row.client)?;
        self.note(&caller, AccessKind::GetInvoice, &row).await?;
        let seen = self.seen_by(&caller);
        let shown = seen.shown(row).await?;
        let history = seen.history(&shown).await?;
        Ok(Response::new(pb::GetInvoiceResponse {
            invoice: Some(summary(&shown)?),
            csv: shown.invoice.to_csv().into(),
            json: shown.row.document.into(),
            history: history.into_iter().map(|event| convert::history(self.key.name(), event)).collect(),
        }))
    }

    async fn list_invoices(&self, request: Request<pb::ListInvoicesRequest>) -> Answer<pb::ListInvoicesResponse> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        match client_of(&request.client)? {
            "" => caller.act_for_all()?,
            client => caller.act_for(client)?,
        }
        let month = request.month;
        if !month.is_empty() {
            month_of(&month)?;
        }
        let limit = page_size(request.page_size)?;
        let rows =
            self.seen_by(&caller).list(&Page { client: request.client, month: month.clone(), after: request.page_token, limit }).await?;
        self.note_list(&caller, &month, &rows).await?;
        let last = rows.last().filter(|_| rows.len() == limit as usize);
        let next_page_token = last.map(|shown| shown.row.draft_id.clone()).unwrap_or_default();
        let invoices = rows.iter().map(summary).collect::<Result<_, _>>()?;
        Ok(Response::new(pb::ListInvoicesResponse { invoices, next_page_token }))
    }

    async fn get_proof_bundle(&self, request: Request<pb::GetProofBundleRequest>) -> Answer<Self::GetProofBundleStream> {
        let row = self.invoice(id_of(&request.get_ref().invoice_id)?).await?;
        let caller = Caller::of(&request);
        caller.act_for(&row.client)?;
        self.note(&caller, AccessKind::Bundle, &row).await?;
        let challenge = challenge_of(request.into_inner().challenge)?;
        Ok(chunks(self.seen_by(&caller).bundle(row, challenge).await?, |chunk| pb::GetProofBundleResponse { chunk }))
    }

    async fn export_invoice(&self, request: Request<pb::ExportInvoiceRequest>) -> Answer<Self::ExportInvoiceStream> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let row = self.invoice(id_of(&request.invoice_id)?).await?;
        caller.act_for(&row.client)?;
        let (format, books) = (convert::format(request.format())?, convert::books(request)?);
        self.note(&caller, AccessKind::Export, &row).await?;
        Ok(chunks(self.seen_by(&caller).export(row, format, books).await?, |chunk| pb::ExportInvoiceResponse { chunk }))
    }

    async fn approve_invoice(&self, request: Request<pb::ApproveInvoiceRequest>) -> Answer<pb::ApproveInvoiceResponse> {
        Caller::of(&request).act_for_all()?;
        let request = request.into_inner();
        let shown = self.approve(id_of(&request.invoice_id)?, request.actor).await?;
        Ok(Response::new(pb::ApproveInvoiceResponse { invoice: Some(summary(&shown)?) }))
    }

    async fn mark_sent(&self, request: Request<pb::MarkSentRequest>) -> Answer<pb::MarkSentResponse> {
        let caller = Caller::of(&request);
        let pb::MarkSentRequest { key, invoice_id, actor, to } = request.into_inner();
        let sent = Event::Sent(leaf::InvoiceSent { to });
        let invoice = Some(self.event(&caller, &invoice_id, key, actor, sent).await?);
        Ok(Response::new(pb::MarkSentResponse { invoice }))
    }

    async fn record_payment(&self, request: Request<pb::RecordPaymentRequest>) -> Answer<pb::RecordPaymentResponse> {
        let caller = Caller::of(&request);
        let pb::RecordPaymentRequest { key, invoice_id, actor, amount_minor, currency, received_on, reference } = request.into_inner();
        let payment = Event::Payment(leaf::InvoicePayment { amount_minor, currency, received_on, reference });
        let invoice = Some(self.event(&caller, &invoice_id, key, actor, payment).await?);
        Ok(Response::new(pb::RecordPaymentResponse { invoice }))
    }

    async fn dispute_invoice(&self, request: Request<pb::DisputeInvoiceRequest>) -> Answer<pb::DisputeInvoiceResponse> {
        let caller = Caller::of(&request);
        let pb::DisputeInvoiceRequest { key, invoice_id, actor, leaves, reason } = request.into_inner();
        let row = self.invoice(id_of(&invoice_id)?).await?;
        caller.act_for(&row.client)?; // the client itself may
        let event = Some(Event::Disputed(leaf::InvoiceDisputed { leaves, reason }));
        let shown = self.happen(row, leaf::InvoiceEvent { key, actor, event, ..Default::default() }).await?;
        Ok(Response::new(pb::DisputeInvoiceResponse { invoice: Some(summary(&shown)?) }))
    }

    async fn resolve_dispute(&self, request: Request<pb::ResolveDisputeRequest>) -> Answer<pb::ResolveDisputeResponse> {
        let caller = Caller::of(&request);
        let pb::ResolveDisputeRequest { key, invoice_id, actor, reason } = request.into_inner();
        let resolved = Event::DisputeResolved(leaf::InvoiceDisputeResolved { reason });
        let invoice = Some(self.event(&caller, &invoice_id, key, actor, resolved).await?);
        Ok(Response::new(pb::ResolveDisputeResponse { invoice }))
    }

    async fn void_invoice(&self, request: Request<pb::VoidInvoiceRequest>) -> Answer<pb::VoidInvoiceResponse> {
        let caller = Caller::of(&request);
        let pb::VoidInvoiceRequest { key, invoice_id, actor, reason } = request.into_inner();
        let voided = Event::Voided(leaf::InvoiceVoided { reason });
        let invoice = Some(self.event(&caller, &invoice_id, key, actor, voided).await?);
        Ok(Response::new(pb::VoidInvoiceResponse { invoice }))
    }

    async fn write_off_invoice(&self, request: Request<pb::WriteOffInvoiceRequest>) -> Answer<pb::WriteOffInvoiceResponse> {
        let caller = Caller::of(&request);
        let pb::WriteOffInvoiceRequest { key, invoice_id, actor, reason } = request.into_inner();
        let written_off = Event::WrittenOff(leaf::InvoiceWrittenOff { reason });
        let invoice = Some(self.event(&caller, &invoice_id, key, actor, written_off).await?);
        Ok(Response::new(pb::WriteOffInvoiceResponse { invoice }))
    }

    async fn credit_invoice(&self, request: Request<pb::CreditInvoiceRequest>) -> Answer<pb::CreditInvoiceResponse> {
        let caller = Caller::of(&request);
        caller.act_for_all()?;
        let pb::CreditInvoiceRequest { key, invoice_id, actor, amount_minor, currency, reason, leaves, dispute_key } = request.into_inner();
        let row = self.invoice(id_of(&invoice_id)?).await?;
        let credited = leaf::InvoiceCredited { amount_minor, currency, reason, leaves, dispute_key, ..Default::default() };
        let (invoice, note) = self.credit(row, key, actor, credited).await?;
        self.note(&caller, AccessKind::Finalize, &note).await?;
        let (invoice, credit_note) = (Some(summary(&invoice)?), Some(summary(&self.shown(note).await?)?));
        Ok(Response::new(pb::CreditInvoiceResponse { invoice, credit_note }))
    }

    type ReconcileStream = tokio_stream::Iter<std::vec::IntoIter<Result<pb::ReconcileResponse, Status>>>;

    async fn reconcile(&self, request: Request<pb::ReconcileRequest>) -> Answer<Self::ReconcileStream> {
        let caller = Caller::of(&request);
        let question = reconcile::question(request.into_inner())?;
        caller.act_for(&question.client)?;
        let (client, subject) = (question.client.clone(), question.subject());
        let reconciled = self.seen_by(&caller).reconciled(question).await?;
        self.note_of(&caller, AccessKind::Reconcile, &client, &subject).await?;
        Ok(Response::new(tokio_stream::iter(reconcile::answer(self.key.name(), reconciled))))
    }

    async fn trial_balance(&self, request: Request<pb::TrialBalanceRequest>) -> Answer<pb::TrialBalanceResponse> {
        Caller::of(&request).act_for_all()?;
        let balances = self.balances().await?.into_iter().map(convert::balance).collect();
        Ok(Response::new(pb::TrialBalanceResponse { balances }))
    }
}
