//! A client's books in sheets: how an invoice is proven of which the leaves are too many for one file.
//!
//! Each record stands on one sheet: spend in the log's order, and what concerns customers by customer, so that every
//! sheet comes to its figures by itself. The figures of all sheets add up to the books, from which the document is
//! drawn up, and to the totals that the log's closings say; the document names the sheets' digest, and its own stands
//! in the log. Whether the sheets say what the leaves say is seen on a sample ([`super::sample`]), opened leaf by leaf.
//!
//! That an opened sheet shows all of its leaves rests on the totals: what is left out of one is missing in their numbers and
//! sums, and can only be put in on another, which then says more than its leaves do and is drawn the likelier. So no sheet
//! may say anything that would not weigh: each is held to what its kind of records can come to.

use std::collections::{BTreeMap, HashMap};

use kiki::ids::CustomerKey;
use kiki::money::NANOS_PER_MICRO;

use super::{Findings, Place};
use crate::domain::accounting::Period;
use crate::domain::books::{Books, Leaves, Sums};
use crate::domain::record::{Entry, Record};

/// What a client's records in one currency come to in number and money.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Charges and corrections of them.
    pub settled_nanos: i128,
    /// Impressions.
    pub settlements: u64,
    /// Customers acquired.
    pub conversions: u64,
    /// What customers spent.
    pub outcome_micros: i128,
    /// How often.
    pub outcomes: u64,
}

impl Totals {
    fn take(&mut self, record: &Record) {
        match &record.entry {
            Entry::Spend { nanos, impressions, .. } => {
                self.settled_nanos += i128::from(*nanos);
                self.settlements += u64::from(*impressions);
            }
            Entry::Acquired { .. } => self.conversions += 1,
            Entry::Value { micros, .. } => {
                self.outcome_micros += i128::from(*micros);
                self.outcomes += 1;
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.settled_nanos += other.settled_nanos;
        self.settlements += other.settlements;
        self.conversions += other.conversions;
        self.outcome_micros += other.outcome_micros;
        self.outcomes += other.outcomes;
    }

    fn less(&self, other: &Self) -> Self {
        Self {
            settled_nanos: self.settled_nanos - other.settled_nanos,
            settlements: self.settlements - other.settlements,
            conversions: self.conversions - other.conversions,
            outcome_micros: self.outcome_micros - other.outcome_micros,
            outcomes: self.outcomes - other.outcomes,
        }
    }
}

/// Whose records a sheet holds; both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Spend by `client_seq`.
    Spend {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// Acquisitions and outcomes of customers.
    Customers {
        /// The first.
        first: CustomerKey,
        /// The last.
        last: CustomerKey,
    },
}

impl Holds {
    /// Of records that are all of one of the two, in order; nothing where there are none.
    fn of(records: &[Record]) -> Option<Self> {
        let (first, last) = (records.first()?, records.last()?);
        Some(match (customer(first), customer(last)) {
            (Some(first), Some(last)) => Self::Customers { first, last },
            _ => Self::Spend { first: first.client_seq, last: last.client_seq },
        })
    }

    fn is_behind(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Spend { last, .. }, Self::Spend { first, .. }) => last < first,
            (Self::Customers { last, .. }, Self::Customers { first, .. }) => last < first,
            (Self::Spend { .. }, Self::Customers { .. }) => true,
            (Self::Customers { .. }, Self::Spend { .. }) => false,
        }
    }

    fn is_before(&self, record: &Record) -> bool {
        match (self, customer(record)) {
            (Self::Spend { last, .. }, None) => *last < record.client_seq,
            (Self::Customers { last, .. }, Some(customer)) => *last < customer,
            (Self::Spend { .. }, Some(_)) => true,
            (Self::Customers { .. }, None) => false,
        }
    }

    fn holds(&self, record: &Record) -> bool {
        match (self, customer(record)) {
            (Self::Spend { first, last }, None) => (first..=last).contains(&&record.client_seq),
            (Self::Customers { first, last }, Some(customer)) => (*first..=*last).contains(&customer),
            _ => false,
        }
    }
}

/// Whom a record concerns; nobody of spend.
fn customer(record: &Record) -> Option<CustomerKey> {
    match record.entry {
        Entry::Spend { .. } => None,
        Entry::Acquired { customer, .. } | Entry::Value { customer, .. } => Some(customer),
    }
}

/// What a sheet's records come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many there are.
    pub records: u64,
    /// What the closings sum.
    pub totals: Totals,
    /// What the books sum, ascending by period, part and campaign.
    pub lines: Vec<SheetLine>,
}

/// What a sheet adds to a line of the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SheetLine {
    /// Of the client's periods in the currency, from 0.
    pub period: u32,
    /// Of the period, from 0.
    pub part: u32,
    /// Which of [`Sheets::campaigns`].
    pub campaign: u32,
    /// Settled spend.
    pub spend_nanos: i128,
    /// Predictions of the customers acquired.
    pub predicted_nanos: i128,
    /// What the customers acquired spent within the horizon.
    pub realised_nanos: i128,
    /// Leaves of spend and acquisitions.
    pub counted: u64,
    /// Leaves of what customers spent.
    pub valued: u64,
}

impl SheetLine {
    fn sums(&self) -> Sums {
        Sums {
            spend_nanos: self.spend_nanos,
            predicted_nanos: self.predicted_nanos,
            realised_nanos: self.realised_nanos,
            counted: Leaves::counted(self.counted),
            valued: Leaves::counted(self.valued),
        }
    }

    /// Whether it adds anything.
    pub fn is_empty(&self) -> bool {
        let Self { spend_nanos, predicted_nanos, realised_nanos, counted, valued, .. } = self;
        (spend_nanos, predicted_nanos, realised_nanos) == (&0, &0, &0) && (counted, valued) == (&0, &0)
    }
}

/// A sheet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    /// Whose records it holds.
    pub holds: Holds,
    /// What they came to at the closing before the last.
    pub before: Figures,
    /// What the last closing added.
    pub added: Figures,
}

/// All sheets, and the names of their campaigns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sheets {
    /// In order of their first appearance.
    pub campaigns: Vec<String>,
    /// Spend before customers, each in order.
    pub sheets: Vec<Sheet>,
}

/// Draws sheets up.
#[derive(Debug)]
pub struct Writer<'a> {
    periods: &'a [Period],
    numbers: HashMap<String, u32>,
    sheets: Sheets,
}

impl<'a> Writer<'a> {
    /// Of the records up to the closing of the last of `periods`, which are all of a client and currency up to that one.
    pub fn new(periods: &'a [Period]) -> Self {
        Self { periods, numbers: HashMap::new(), sheets: Sheets::default() }
    }

    /// Adds the next sheet: spend in the log's order, or all records of some customers, by customer and for each in the log's order.
    pub fn add(&mut self, records: &[Record]) {
        let Some(holds) = Holds::of(records) else { return };
        let (numbers, campaigns) = (&mut self.numbers, &mut self.sheets.campaigns);
        let (before, added) = figures(self.periods, records, |name| match numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = campaigns.len() as u32;
                numbers.insert(name.to_owned(), number);
                campaigns.push(name.to_owned());
                number
            }
        });
        self.sheets.sheets.push(Sheet { holds, before, added });
    }

    /// The sheets.
    pub fn finish(self) -> Sheets {
        self.sheets
    }
}

impl Sheets {
    /// How many records there are.
    pub fn records(&self) -> u64 {
        self.sheets.iter().map(Sheet::records).sum()
    }

    /// How many lines the sheets have.
    pub(super) fn lines(&self) -> u64 {
        self.figures().map(|figures| figures.lines.len() as u64).sum()
    }

    fn figures(&self) -> impl Iterator<Item = &Figures> {
        self.sheets.iter().flat_map(|sheet| [&sheet.before, &sheet.added])
    }

    /// Which sheet holds a record.
    pub fn of(&self, record: &Record) -> Option<usize> {
        let at = self.sheets.partition_point(|sheet| sheet.holds.is_before(record));
        self.sheets.get(at).filter(|sheet| sheet.holds.holds(record)).map(|_| at)
    }

    /// The books at the last closing and at the one before, as the sheets add up to them.
    ///
    /// # Errors
    /// A line of a part or a campaign that is not there.
    pub(super) fn books(&self, periods: &[Period]) -> Result<(Books, Books), String> {
        let mut before = Books::new(periods);
        self.sheets.iter().try_for_each(|sheet| self.merge(&sheet.before, &mut before))?;
        let mut now = before.clone();
        self.sheets.iter().try_for_each(|sheet| self.merge(&sheet.added, &mut now))?;
        Ok((now, before))
    }

    fn merge(&self, figures: &Figures, books: &mut Books) -> Result<(), String> {
        for line in &figures.lines {
            let (SheetLine { period, part, campaign, .. }, sums) = (line, line.sums());
            let name = self.campaigns.get(*campaign as usize).ok_or_else(|| format!("have no campaign {campaign}"))?;
            let campaigns = books.part_mut(*period as usize, *part as usize);
            let campaigns = campaigns.ok_or_else(|| format!("have a line of part {part} of period {period}, which is not there"))?;
            match campaigns.get_mut(name) {
                Some(line) => line.merge(&sums),
                None => drop(campaigns.insert(name.clone(), sums)),
            }
        }
        Ok(())
    }

    /// The sheets follow each other, each says what its records can come to, and their totals are those that the closing before
    /// the last says, and the last.
    pub(super) fn check(&self, said: (&Totals, &Totals), findings: &mut Findings) {
        for (i, pair) in self.sheets.windows(2).enumerate() {
            if !pair[1].holds.is_behind(&pair[0].holds) {
                findings.add(Place::Sheet(i + 1), "does not follow on the one before it");
            }
        }
        for (i, sheet) in self.sheets.iter().enumerate() {
            if let Some(problem) = sheet.contradiction() {
                findings.add(Place::Sheet(i), problem);
            }
        }
        let mut sum = Totals::default();
        let mut compare = |sum: &Totals, said: &Totals| {
            if sum != said {
                findings.add(Place::Sheets, format!("give {sum:?} but the closing says {said:?}"));
            }
        };
        self.sheets.iter().for_each(|sheet| sum.merge(&sheet.before.totals));
        compare(&sum, said.0);
        self.sheets.iter().for_each(|sheet| sum.merge(&sheet.added.totals));
        compare(&sum, said.1);
    }

    /// Sheets say what their records say: all that are of each, in the log's order.
    pub(super) fn open(&self, opened: &BTreeMap<usize, Vec<Record>>, periods: &[Period], findings: &mut Findings) {
        let numbers: HashMap<&str, u32> = self.campaigns.iter().map(String::as_str).zip(0..).collect();
        opened.iter().for_each(|(at, records)| self.open_one(*at, &numbers, periods, records, findings));
    }

    fn open_one(&self, at: usize, numbers: &HashMap<&str, u32>, periods: &[Period], records: &[Record], findings: &mut Findings) {
        let sheet = &self.sheets[at];
        let (before, added) = figures(periods, records, |name| numbers.get(name).copied().unwrap_or(u32::MAX));
        for (when, said, given) in [("before", &sheet.before, &before), ("added", &sheet.added, &added)] {
            if (said.records, &said.totals) != (given.records, &given.totals) {
                let problem = format!(
                    "{when}: says {} records, {:?}, but its leaves give {}, {:?}",
                    said.records, said.totals, given.records, given.totals
                );
                findings.add(Place::Sheet(at), problem);
            } else if said.lines != given.lines {
                let differs = said.lines.iter().zip(&given.lines).find(|(said, given)| said != given);
                let problem = match differs {
                    Some((said, given)) => format!("{when}: says {said:?} but its leaves give {given:?}"),
                    None => format!("{when}: says {} lines but its leaves give {}", said.lines.len(), given.lines.len()),
                };
                findings.add(Place::Sheet(at), problem);
            }
        }
    }
}

/// What records came to at the closing before the last of `periods`, and what the last one added.
fn figures(periods: &[Period], records: &[Record], mut number: impl FnMut(&str) -> u32) -> (Figures, Figures) {
    let closed = |back: usize| periods.len().checked_sub(back).map_or(0, |at| periods[at].closing.last_seq);
    let (was, is) = (as_of(periods, records, closed(2)), as_of(periods, records, closed(1)));
    let none = Sums::default();
    let mut line = |(period, part, campaign, of, before): (usize, usize, &str, &Sums, &Sums)| {
        let line = SheetLine {
            period: period as u32,
            part: part as u32,
            campaign: 0,
            spend_nanos: of.spend_nanos - before.spend_nanos,
            predicted_nanos: of.predicted_nanos - before.predicted_nanos,
            realised_nanos: of.realised_nanos - before.realised_nanos,
            // Records are never taken back; where a bundle's are not in the log's order, what is off is found elsewhere.
            counted: of.counted.count.saturating_sub(before.counted.count),
            valued: of.valued.count.saturating_sub(before.valued.count),
        };
        (!line.is_empty()).then(|| SheetLine { campaign: number(campaign), ..line })
    };
    let before = was.2.lines().map(|(period, part, campaign, sums)| (period, part, campaign, sums, &none));
    let before = before.filter_map(&mut line).collect();
    let added = is.2.lines().map(|(period, part, campaign, sums)| {
        let before = was.2.part(period, part).and_then(|campaigns| campaigns.get(campaign));
        (period, part, campaign, sums, before.unwrap_or(&none))
    });
    let added = added.filter_map(&mut line).collect();
    let before = Figures { records: was.0, totals: was.1, lines: before };
    (before, Figures { records: is.0 - was.0, totals: is.1.less(&was.1), lines: added })
}

/// How many records there were up to a sequence, their totals, and their books.
fn as_of(periods: &[Period], records: &[Record], last_seq: u64) -> (u64, Totals, Books) {
    let (mut count, mut totals) = (0, Totals::default());
    for record in records.iter().filter(|record| record.client_seq <= last_seq) {
        count += 1;
        totals.take(record);
    }
    (count, totals, Books::of(periods, last_seq, records.iter()))
}

impl Sheet {
    /// What its records cannot come to, whatever they are.
    fn contradiction(&self) -> Option<&'static str> {
        let (before, added) = (&self.before, &self.added);
        let records = before.records + added.records;
        let sum = |of: fn(&SheetLine) -> u64| before.lines.iter().chain(&added.lines).map(of).sum::<u64>();
        let (counted, valued) = (sum(|line| line.counted), sum(|line| line.valued));
        if records == 0 {
            return Some("has no records");
        }
        if [before, added].iter().any(|figures| figures.records == 0 && **figures != Figures::default()) {
            return Some("says something of no records");
        }
        match self.holds {
            Holds::Spend { first, last } => {
                let alien = |figures: &&Figures| {
                    let Totals { conversions, outcome_micros, outcomes, .. } = figures.totals;
                    let of_customers = |line: &SheetLine| (line.predicted_nanos, line.realised_nanos, line.valued) != (0, 0, 0);
                    (conversions, outcome_micros, outcomes) != (0, 0, 0) || figures.lines.iter().any(of_customers)
                };
                let many = records > (last - first).saturating_add(1) || counted > records;
                [before, added]
                    .iter()
                    .any(alien)
                    .then_some("of spend says something of customers")
                    .or(many.then_some("has more records than there are"))
            }
            Holds::Customers { .. } => {
                let alien = |figures: &&Figures| {
                    let Totals { settled_nanos, settlements, conversions, outcomes, .. } = figures.totals;
                    let of_spend = |line: &SheetLine| line.spend_nanos != 0;
                    let all = conversions + outcomes == figures.records;
                    (settled_nanos, settlements) != (0, 0) || !all || figures.lines.iter().any(of_spend)
                };
                let (conversions, outcomes) =
                    (before.totals.conversions + added.totals.conversions, before.totals.outcomes + added.totals.outcomes);
                let many = counted > conversions || valued > outcomes;
                [before, added]
                    .iter()
                    .any(alien)
                    .then_some("of customers says something of spend")
                    .or(many.then_some("counts more leaves than there are"))
            }
        }
    }

    /// All of its records.
    pub(super) fn records(&self) -> u64 {
        self.before.records + self.added.records
    }

    /// How much money it says, as [`Figures::money_nanos`].
    pub(super) fn money_nanos(&self) -> u128 {
        self.before.money_nanos() + self.added.money_nanos()
    }
}

impl Figures {
    /// How much money it says, for a sample by money: spend, outcomes and LTV, whatever their sign. What is wrong in a figure is
    /// so the likelier found the more it is.
    fn money_nanos(&self) -> u128 {
        let totals = self.totals.settled_nanos.unsigned_abs() + self.totals.outcome_micros.unsigned_abs() * NANOS_PER_MICRO as u128;
        let line = |line: &SheetLine| {
            let SheetLine { spend_nanos, predicted_nanos, realised_nanos, .. } = line;
            [spend_nanos, predicted_nanos, realised_nanos].map(|nanos| nanos.unsigned_abs()).iter().sum::<u128>()
        };
        totals + self.lines.iter().map(line).sum::<u128>()
    }
}
