//! What becomes of invoices: their standing, the events behind it and the accounts, all a fold of the log; and the
//! approvals of drafts, which alone are the ledger's own.

use std::collections::BTreeMap;

use kiki::clock::UnixMicros;
use kiki::leaf::{self, DocumentKind, invoice_event};
use prost::Message as _;

use super::engine::{On, Row, Tx, sql};
use super::fold::{taken, unreadable};
use super::{Page, Store, StoreError, corrupt, to_i64, to_u64};
use crate::domain::ledger::{self, Account, Entry};
use crate::domain::lifecycle::{self, Event, Stage, Standing};

/// Most events of an invoice that are shown: 1,000 of some 200 bytes. The log and the accounts have them all.
const EVENTS_SHOWN: i64 = 1_000;

/// Who approved a draft, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Who.
    pub actor: String,
    /// When.
    pub at: UnixMicros,
}

/// What became of a draft or an invoice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Course {
    /// Who approved it.
    pub approval: Option<Approval>,
    /// Where it stands, once its leaf is folded.
    pub standing: Option<Standing>,
}

/// An event of an invoice.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// Index of its leaf.
    pub leaf: u64,
    /// Its place among the client's leaves.
    pub client_seq: u64,
    /// When the log took it.
    pub at: UnixMicros,
    /// What it says.
    pub event: leaf::InvoiceEvent,
    /// Why it changed nothing, where it came too late to count.
    pub refused: Option<String>,
    /// Of a credit that counts: what was billed before tax and no credit note had given back before it; 0 of all else.
    pub creditable_minor: i64,
}

/// What an account is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// ISO 4217 code.
    pub currency: String,
    /// Which.
    pub account: Account,
    /// In the currency's minor unit; debits are above 0.
    pub balance_minor: i64,
}

impl Store {
    /// What became of the drafts and invoices of a page, by draft id, up to and with the id `last`.
    pub async fn courses(&self, page: &Page, last: &str) -> Result<BTreeMap<String, Course>, StoreError> {
        let rows = sql(
            "SELECT i.draft_id, a.actor, a.at_micros, s.total_minor, s.paid_minor, s.credited_minor, s.creditable_minor, s.stage, s.disputed FROM invoice AS i
             LEFT JOIN approval AS a ON a.draft_id = i.draft_id
             LEFT JOIN standing AS s ON s.client = i.client AND s.number = i.number
             WHERE (i.client = $1 OR $1 = '') AND (i.month = $2 OR $2 = '') AND i.draft_id > $3 AND i.draft_id <= $4",
        )
        .bind(&page.client)
        .bind(&page.month)
        .bind(&page.after)
        .bind(last)
        .rows(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((row.get("draft_id")?, course_of(row)?))).collect()
    }

    /// What became of one draft or invoice.
    pub async fn course(&self, draft_id: &str) -> Result<Course, StoreError> {
        let row = sql("SELECT a.actor, a.at_micros, s.total_minor, s.paid_minor, s.credited_minor, s.creditable_minor, s.stage, s.disputed FROM invoice AS i
             LEFT JOIN approval AS a ON a.draft_id = i.draft_id
             LEFT JOIN standing AS s ON s.client = i.client AND s.number = i.number WHERE i.draft_id = $1");
        row.bind(draft_id).row(&self.pool).await?.map_or(Ok(Course::default()), |row| course_of(&row))
    }

    /// Approves a draft; where it was approved before, that stays.
    pub async fn approve(&self, draft_id: &str, approval: &Approval) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sql("INSERT INTO approval (draft_id, actor, at_micros) VALUES ($1, $2, $3) ON CONFLICT (draft_id) DO NOTHING")
            .bind(draft_id)
            .bind(&approval.actor)
            .bind(approval.at.0)
            .execute(&mut tx)
            .await?;
        tx.commit().await
    }

    /// The event that a client's key had its effect with.
    pub async fn event_by_key(&self, client: &str, key: &str) -> Result<Option<EventRow>, StoreError> {
        by_key(&self.pool, client, key).await
    }

    /// What happened to an invoice, in the log's order: the newest where there are more than are shown.
    pub async fn events(&self, client: &str, number: &str) -> Result<Vec<EventRow>, StoreError> {
        let query = sql("SELECT leaf, client_seq, at_micros, body, refused, creditable_minor FROM invoice_event
             WHERE client = $1 AND number = $2 ORDER BY leaf DESC LIMIT $3");
        let rows = query.bind(client).bind(number).bind(EVENTS_SHOWN).rows(&self.pool).await?;
        rows.iter().rev().map(event_of).collect()
    }

    /// Credits that count and whose notes have no number yet, of all clients, in the log's order: with their clients.
    pub async fn unnoted_credits(&self) -> Result<Vec<(String, EventRow)>, StoreError> {
        let rows = sql("SELECT client, leaf, client_seq, at_micros, body, refused, creditable_minor FROM invoice_event AS e
             WHERE creditable_minor > 0
             AND NOT EXISTS (SELECT 1 FROM invoice AS i WHERE i.client = e.client AND i.corrects_seq = e.client_seq AND i.number IS NOT NULL)
             AND NOT EXISTS (SELECT 1 FROM invoiced AS o WHERE o.client = e.client AND o.corrects_seq = e.client_seq) ORDER BY leaf")
        .rows(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((row.get("client")?, event_of(row)?))).collect()
    }

    /// Number of the invoice of a closing where it is void.
    pub async fn void_invoice(&self, client: &str, period_closed_seq: u64) -> Result<Option<String>, StoreError> {
        let query = sql("SELECT number FROM standing WHERE client = $1 AND period_closed_seq = $2 AND corrects_seq = 0 AND stage = $3");
        let query = query.bind(client).bind(to_i64("period_closed_seq", period_closed_seq)?).bind(number_of(Stage::Void));
        query.row(&self.pool).await?.map(|row| row.get("number")).transpose()
    }

    /// How many events came too late to count.
    pub async fn refused_events(&self) -> Result<i64, StoreError> {
        let row = sql("SELECT COUNT(*) AS refused FROM invoice_event WHERE refused <> ''").row(&self.pool).await?;
        row.map_or(Ok(0), |row| row.get("refused"))
    }

    /// What every account is at: the trial balance.
    pub async fn balances(&self) -> Result<Vec<Balance>, StoreError> {
        let rows = sql("SELECT currency, account, balance_minor FROM account ORDER BY currency, account").rows(&self.pool).await?;
        rows.iter().map(balance_of).collect()
    }
}

/// The leaf of an invoice or a note: it stands as issued, and is owed; what a credit note gives back comes off the invoice
/// that it corrects.
pub(super) async fn issue(tx: &mut Tx<'_>, header: &leaf::Leaf, invoice: &leaf::Invoice) -> Result<(), StoreError> {
    let (fee, tax) = (invoice.total_minor, invoice.tax_minor);
    let gross = fee.checked_add(tax).ok_or_else(|| unreadable(header, "a total of more than 64 bits"))?;
    let entries = match invoice.kind() {
        DocumentKind::CreditNote => match agreed(tx, header, invoice).await? {
            // What was agreed moved when it was.
            true => Vec::new(),
            false => credit(tx, header, invoice).await?,
        },
        _ => ledger::issued(fee, tax)?,
    };
    let standing = Standing::issued(Standing::total_of(invoice.kind(), gross), tax);
    insert_standing(tx, header, invoice, &standing).await.map_err(taken(header))?;
    post(tx, header, &invoice.currency, &entries).await
}

/// Whether a note is of a credit by agreement: then it says what that does.
async fn agreed(tx: &mut Tx<'_>, header: &leaf::Leaf, note: &leaf::Invoice) -> Result<bool, StoreError> {
    let query =
        sql("SELECT leaf, client_seq, at_micros, body, refused, creditable_minor FROM invoice_event WHERE client = $1 AND client_seq = $2");
    let row = query.bind(&header.client).bind(to_i64("corrects_seq", note.corrects_seq)?).row(tx).await?;
    let Some(event) = row.as_ref().map(event_of).transpose()? else { return Ok(false) };
    let Some(invoice_event::Event::Credited(credited)) = event.event.event else {
        return Err(unreadable(header, format!("a note on leaf {}, which credits nothing", event.leaf)));
    };
    let (says, does) = ((note.total_minor, note.tax_minor), (credited.amount_minor, credited.tax_minor));
    if event.refused.is_some() || says != does || note.currency != credited.currency {
        return Err(unreadable(header, format!("a credit note of another amount than leaf {} credits", event.leaf)));
    }
    Ok(true)
}

async fn credit(tx: &mut Tx<'_>, header: &leaf::Leaf, note: &leaf::Invoice) -> Result<Vec<Entry>, StoreError> {
    let row = sql("SELECT number, total_minor, paid_minor, credited_minor, creditable_minor, stage, disputed FROM standing
         WHERE client = $1 AND period_closed_seq = $2 AND corrects_seq = 0")
    .bind(&header.client)
    .bind(to_i64("corrects_seq", note.corrects_seq)?)
    .row(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(ledger::credited(None, 0, note.total_minor, note.tax_minor)?) };
    let (before, number): (_, String) = (standing_of(&row)?, row.get("number")?);
    let (next, applied) = before.credited(note.total_minor, note.tax_minor);
    update_standing(tx, header, &number, &next).await?;
    Ok(ledger::credited(Some(&before), applied, note.total_minor, note.tax_minor)?)
}

async fn insert_standing(tx: &mut Tx<'_>, header: &leaf::Leaf, invoice: &leaf::Invoice, standing: &Standing) -> Result<(), StoreError> {
    sql("INSERT INTO standing (client, number, leaf, currency, total_minor, tax_minor, paid_minor, credited_minor, creditable_minor,
         period_closed_seq, corrects_seq, stage, disputed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)")
    .bind(&header.client)
    .bind(&invoice.number)
    .bind(to_i64("leaf", header.index)?)
    .bind(&invoice.currency)
    .bind(standing.total_minor)
    .bind(invoice.tax_minor)
    .bind(standing.paid_minor)
    .bind(standing.credited_minor)
    .bind(standing.creditable_minor)
    .bind(to_i64("period_closed_seq", invoice.period_closed_seq)?)
    .bind(to_i64("corrects_seq", invoice.corrects_seq)?)
    .bind(number_of(standing.stage))
    .bind(i64::from(standing.disputed))
    .execute(tx)
    .await
    .map(drop)
}

/// An event's leaf: it counts where it applies to how the invoice stands here, and is kept either way.
pub(super) async fn happen(tx: &mut Tx<'_>, header: &leaf::Leaf, event: &leaf::InvoiceEvent) -> Result<(), StoreError> {
    let happened = Event::of(event).ok_or_else(|| unreadable(header, "an event of an invoice that is not known"))?;
    let query = sql("SELECT currency, total_minor, tax_minor, paid_minor, credited_minor, creditable_minor, stage, disputed FROM standing
         WHERE client = $1 AND number = $2");
    let row = query.bind(&header.client).bind(&event.number).row(&mut *tx).await?;
    let row = row.ok_or_else(|| unreadable(header, format!("an event of invoice {:?}, which the log does not hold", event.number)))?;
    let (standing, currency): (_, String) = (standing_of(&row)?, row.get("currency")?);
    let dispute = match &event.event {
        Some(invoice_event::Event::Credited(credited)) => by_key(&mut *tx, &header.client, &credited.dispute_key).await?,
        _ => None,
    };
    let dispute = dispute.filter(|dispute| dispute.refused.is_none()).map(|dispute| dispute.event);
    let refused = match lifecycle::settles(event, dispute.as_ref()).and_then(|()| standing.apply_in(&currency, event, happened)) {
        Ok(next) => {
            update_standing(tx, header, &event.number, &next).await?;
            post(tx, header, &currency, &ledger::moved(&standing, row.get("tax_minor")?, happened)?).await?;
            String::new()
        }
        Err(refused) => refused.to_string(),
    };
    let credits = refused.is_empty() && matches!(happened, Event::Credited { .. });
    let creditable_minor = if credits { standing.creditable_minor } else { 0 };
    let at = UnixMicros::from_pb(header.recorded_at.as_ref()).unwrap_or_default();
    sql("INSERT INTO invoice_event (leaf, client_seq, client, number, key, at_micros, body, refused, creditable_minor)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
    .bind(to_i64("leaf", header.index)?)
    .bind(to_i64("client_seq", header.client_seq)?)
    .bind(&header.client)
    .bind(&event.number)
    .bind(&event.key)
    .bind(at.0)
    .bind(&event.encode_to_vec())
    .bind(&refused)
    .bind(creditable_minor)
    .execute(tx)
    .await
    .map(drop)
    .map_err(taken(header))
}

async fn by_key<'t, 'c: 't>(on: impl Into<On<'t, 'c>>, client: &str, key: &str) -> Result<Option<EventRow>, StoreError> {
    let query =
        sql("SELECT leaf, client_seq, at_micros, body, refused, creditable_minor FROM invoice_event WHERE client = $1 AND key = $2");
    query.bind(client).bind(key).row(on).await?.as_ref().map(event_of).transpose()
}

async fn update_standing(tx: &mut Tx<'_>, header: &leaf::Leaf, number: &str, next: &Standing) -> Result<(), StoreError> {
    sql("UPDATE standing SET paid_minor = $1, credited_minor = $2, creditable_minor = $3, stage = $4, disputed = $5
         WHERE client = $6 AND number = $7")
    .bind(next.paid_minor)
    .bind(next.credited_minor)
    .bind(next.creditable_minor)
    .bind(number_of(next.stage))
    .bind(i64::from(next.disputed))
    .bind(&header.client)
    .bind(number)
    .execute(tx)
    .await
    .map(drop)
}

/// Enters what a leaf moves, and holds the accounts to their trial balance of 0.
async fn post(tx: &mut Tx<'_>, header: &leaf::Leaf, currency: &str, entries: &[Entry]) -> Result<(), StoreError> {
    ledger::balanced(&format!("entries of leaf {}", header.index), entries.iter().map(|entry| entry.amount_minor))?;
    let query = sql("SELECT currency, account, balance_minor FROM account WHERE currency = $1");
    let rows = query.bind(currency).rows(&mut *tx).await?;
    let mut balances: BTreeMap<Account, i64> = BTreeMap::new();
    for row in &rows {
        let balance = balance_of(row)?;
        balances.insert(balance.account, balance.balance_minor);
    }
    for entry in entries {
        let balance = balances.entry(entry.account).or_insert(0);
        *balance = ledger::added(*balance, *entry)?;
        insert_entry(tx, header, currency, entry, *balance).await?;
    }
    Ok(ledger::balanced(&format!("accounts in {currency}"), balances.into_values())?)
}

async fn insert_entry(tx: &mut Tx<'_>, header: &leaf::Leaf, currency: &str, entry: &Entry, balance: i64) -> Result<(), StoreError> {
    sql("INSERT INTO entry (leaf, account, client, currency, amount_minor) VALUES ($1, $2, $3, $4, $5)")
        .bind(to_i64("leaf", header.index)?)
        .bind(entry.account.name())
        .bind(&header.client)
        .bind(currency)
        .bind(entry.amount_minor)
        .execute(&mut *tx)
        .await?;
    sql("INSERT INTO account (currency, account, balance_minor) VALUES ($1, $2, $3)
         ON CONFLICT (currency, account) DO UPDATE SET balance_minor = excluded.balance_minor")
    .bind(currency)
    .bind(entry.account.name())
    .bind(balance)
    .execute(tx)
    .await
    .map(drop)
}

const STAGES: [(Stage, i64); 6] =
    [(Stage::Finalized, 1), (Stage::Sent, 2), (Stage::PartlyPaid, 3), (Stage::Paid, 4), (Stage::Void, 5), (Stage::WrittenOff, 6)];

fn number_of(stage: Stage) -> i64 {
    STAGES.iter().find(|(of, _)| *of == stage).map_or(0, |(_, number)| *number)
}

fn standing_of(row: &Row) -> Result<Standing, StoreError> {
    let number: i64 = row.get("stage")?;
    let stage = STAGES.iter().find(|(_, of)| *of == number).map(|(stage, _)| *stage);
    Ok(Standing {
        stage: stage.ok_or_else(|| corrupt("standing")(format!("stage {number} is not known")))?,
        disputed: row.get::<i64>("disputed")? != 0,
        total_minor: row.get("total_minor")?,
        paid_minor: row.get("paid_minor")?,
        credited_minor: row.get("credited_minor")?,
        creditable_minor: row.get("creditable_minor")?,
    })
}

fn course_of(row: &Row) -> Result<Course, StoreError> {
    let approval = match row.get::<Option<String>>("actor")? {
        Some(actor) => Some(Approval { actor, at: UnixMicros(row.get("at_micros")?) }),
        None => None,
    };
    let standing = row.get::<Option<i64>>("stage")?.map(|_| standing_of(row)).transpose()?;
    Ok(Course { approval, standing })
}

fn event_of(row: &Row) -> Result<EventRow, StoreError> {
    let event = leaf::InvoiceEvent::decode(row.get::<&[u8]>("body")?).map_err(corrupt("event"))?;
    let refused = Some(row.get::<String>("refused")?).filter(|refused| !refused.is_empty());
    Ok(EventRow {
        leaf: to_u64("leaf", row.get("leaf")?)?,
        client_seq: to_u64("client_seq", row.get("client_seq")?)?,
        at: UnixMicros(row.get("at_micros")?),
        event,
        refused,
        creditable_minor: row.get("creditable_minor")?,
    })
}

fn balance_of(row: &Row) -> Result<Balance, StoreError> {
    let name: String = row.get("account")?;
    let account = Account::named(&name).ok_or_else(|| corrupt("account")(format!("{name:?} is not known")))?;
    Ok(Balance { currency: row.get("currency")?, account, balance_minor: row.get("balance_minor")? })
}
