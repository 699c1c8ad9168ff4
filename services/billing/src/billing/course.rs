//! What becomes of drafts and invoices: approvals, and what happens to an invoice once it is final.
//!
//! An event is held against the fold, goes into the log, and is answered when the fold has it: what the fold made of it
//! counts. Two payments that race from two processes are both recorded, and the later one is refused where it is folded.

use kiki::leaf::{self, invoice_event, leaf::Body};

use super::Billing;
use crate::domain::invoice::{Invoice, InvoiceError};
use crate::domain::lifecycle::{Event, Stage, Standing, settles};
use crate::domain::period::issue_date;
use crate::error::Error;
use crate::store::{Approval, Balance, Course, EventRow, InvoiceRow, Page};

/// The longest name of an actor, bytes: as the log takes it.
const ACTOR_MAX: usize = 100;

/// A draft or an invoice with what became of it.
#[derive(Debug, Clone)]
pub struct Shown {
    /// What is stored of it.
    pub row: InvoiceRow,
    /// Its document, read.
    pub invoice: Invoice,
    /// Who approved it.
    pub approval: Option<Approval>,
    /// Where it stands; of a draft, nowhere.
    pub standing: Option<Standing>,
    /// Whether something is open after the due date.
    pub overdue: bool,
}

impl Billing {
    /// A draft or an invoice, with what became of it.
    pub async fn shown(&self, row: InvoiceRow) -> Result<Shown, Error> {
        let course = self.store.course(&row.draft_id).await?;
        self.show(row, course)
    }

    /// A page of them.
    pub async fn list(&self, page: &Page) -> Result<Vec<Shown>, Error> {
        let rows = self.store.list(page).await?;
        let Some(last) = rows.last() else { return Ok(Vec::new()) };
        let mut courses = self.store.courses(page, &last.draft_id).await?;
        let show = |row: InvoiceRow| {
            let course = courses.remove(&row.draft_id).unwrap_or_default();
            self.show(row, course)
        };
        rows.into_iter().map(show).collect()
    }

    fn show(&self, row: InvoiceRow, course: Course) -> Result<Shown, Error> {
        let invoice = row.invoice()?;
        let gross = i64::try_from(invoice.amount_due.units()).map_err(|_| Error::Answer("no total of 64 bits"))?;
        let total = Standing::total_of(invoice.kind.to_leaf(), gross);
        // A number whose leaf is not folded yet: nothing can have happened to it.
        let tax = gross - i64::try_from(invoice.total_invoice_amount.units()).unwrap_or(gross);
        let standing = row.number.as_ref().map(|_| course.standing.unwrap_or(Standing::issued(total, tax)));
        let zone = &invoice.terms().ok_or(InvoiceError::NoPart)?.zone;
        let today = issue_date(self.clock.now(), zone)?;
        let overdue = standing.is_some_and(|standing| standing.overdue(&invoice.due_date, &today));
        Ok(Shown { row, invoice, approval: course.approval, standing, overdue })
    }

    /// Approves a draft. A repeat, also by another, changes nothing.
    pub async fn approve(&self, id: &str, actor: String) -> Result<Shown, Error> {
        if !(1..=ACTOR_MAX).contains(&actor.len()) {
            return Err(Error::Field { field: "actor", problem: format!("{} bytes; 1 to {ACTOR_MAX} are taken", actor.len()) });
        }
        let row = self.invoice(id).await?;
        let shown = self.shown(row).await?;
        if shown.approval.is_some() {
            return Ok(shown);
        }
        if let Some(number) = shown.row.number {
            return Err(Error::Final { number });
        }
        self.store.approve(&shown.row.draft_id, &Approval { actor, at: self.clock.now() }).await?;
        self.shown(shown.row).await
    }

    /// Whether a draft may become final, by whether it was approved.
    pub(super) async fn approved(&self, row: &InvoiceRow) -> Result<(), Error> {
        if !self.approval_required || row.number.is_some() || self.store.course(&row.draft_id).await?.approval.is_some() {
            return Ok(());
        }
        Err(Error::NotApproved { id: row.draft_id.clone() })
    }

    /// Has something happen to an invoice. A repeat of its key gives what it gave before.
    pub async fn happen(&self, row: InvoiceRow, event: leaf::InvoiceEvent) -> Result<Shown, Error> {
        self.sound()?;
        let Some(number) = row.number.clone() else { return Err(Error::Unissued { id: row.draft_id }) };
        let event = leaf::InvoiceEvent { number, ..event };
        if let Some(known) = self.store.event_by_key(&row.client, &event.key).await? {
            return self.answer(row, &event, known).await;
        }
        let row = self.record(row).await?;
        let issued = row.leaf.ok_or(Error::Answer("an invoice without a leaf"))?;
        self.reach(issued + 1).await?;
        let standing = self.store.course(&row.draft_id).await?.standing.ok_or(Error::Answer("an invoice that is not in the log"))?;
        let happened = Event::of(&event).ok_or(Error::Answer("an event of no kind"))?;
        standing.apply_in(&row.currency, &event, happened).map_err(|why| self.refused(&row, why.to_string()))?;
        match &event.event {
            Some(invoice_event::Event::Disputed(disputed)) => self.cited(&row, issued, &disputed.leaves).await?,
            Some(invoice_event::Event::Credited(credited)) => {
                let last = self.progress.borrow().folded.saturating_sub(1);
                self.cited(&row, last, &credited.leaves).await?;
                let dispute = self.store.event_by_key(&row.client, &credited.dispute_key).await?.filter(|named| named.refused.is_none());
                settles(&event, dispute.map(|named| named.event).as_ref()).map_err(|why| self.refused(&row, why.to_string()))?;
            }
            _ => {}
        }
        let index = self.shield.record_event(&row.client, event.clone()).await?;
        self.reach(index + 1).await?;
        let known = self.store.event_by_key(&row.client, &event.key).await?;
        self.answer(row, &event, known.ok_or(Error::Answer("an event that is not in the log"))?).await
    }

    /// What the fold made of an event.
    async fn answer(&self, row: InvoiceRow, event: &leaf::InvoiceEvent, known: EventRow) -> Result<Shown, Error> {
        if known.event != *event {
            return Err(Error::KeyReused { key: event.key.clone(), leaf: known.leaf });
        }
        match known.refused {
            Some(why) => Err(self.refused(&row, why)),
            None => self.shown(row).await,
        }
    }

    fn refused(&self, row: &InvoiceRow, why: String) -> Error {
        Error::Refused { number: row.number.clone().unwrap_or_default(), why }
    }

    /// Leaves that are cited are the client's own: of a dispute up to the invoice's, on which it may rest.
    async fn cited(&self, row: &InvoiceRow, last: u64, leaves: &[u64]) -> Result<(), Error> {
        let refused = |problem: String| Error::Field { field: "leaves", problem };
        if let Some(index) = leaves.iter().find(|index| **index > last) {
            return Err(refused(format!("leaf {index} came after {last}, the last one that can be cited")));
        }
        for index in leaves {
            let leaf = self.shield.leaf(*index).await?;
            let (header, _) = leaf::decode(&leaf.leaf).map_err(|e| refused(format!("leaf {index}: {e}")))?;
            if header.client != row.client {
                return Err(refused(format!("leaf {index} is not the client's")));
            }
        }
        Ok(())
    }

    /// What happened to an invoice, in the log's order.
    pub async fn history(&self, shown: &Shown) -> Result<Vec<EventRow>, Error> {
        let Some(number) = &shown.row.number else { return Ok(Vec::new()) };
        Ok(self.store.events(&shown.row.client, number).await?)
    }

    /// The trial balance.
    pub async fn balances(&self) -> Result<Vec<Balance>, Error> {
        Ok(self.store.balances().await?)
    }

    /// Shows what the accounts are at, and how many events changed nothing.
    pub async fn count_course(&self) -> Result<(), Error> {
        self.metrics.balances(&self.store.balances().await?);
        self.metrics.refused_events.set(self.store.refused_events().await?);
        Ok(())
    }

    /// Waits until so many leaves are signed and folded.
    async fn reach(&self, size: u64) -> Result<(), Error> {
        self.shield.checkpoint(size).await?;
        self.folded(size).await
    }
}

/// Whether a leaf changes what [`Billing::count_course`] shows.
pub(crate) fn counts(body: Option<&Body>) -> bool {
    matches!(body, Some(Body::Invoice(_) | Body::InvoiceEvent(_)))
}

/// Whether a leaf calls for a credit note.
pub(crate) fn credits(body: &Body) -> bool {
    matches!(body, Body::InvoiceEvent(leaf::InvoiceEvent { event: Some(invoice_event::Event::Credited(_)), .. }))
}

impl Shown {
    /// Where it stands, in a word of the contract's.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.standing.map(|standing| standing.stage)
    }
}
