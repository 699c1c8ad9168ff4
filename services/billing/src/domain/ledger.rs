//! The double-entry ledger: what each leaf moves between accounts.
//!
//! Debits are above 0 and credits below, so that the entries of one leaf sum to 0 and so does the trial balance, per
//! currency, in the currency's minor unit. Accounts are the seller's: what clients owe is an asset.
//!
//! Deliberately not here: a chart of accounts for a whole business, and exchange rates: each currency is its own book.

use super::lifecycle::{Event, Stage, Standing};

/// An account of the seller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// What clients owe.
    Receivable,
    /// What was earned.
    Revenue,
    /// What is owed to the tax office.
    TaxPayable,
    /// What clients paid.
    Cash,
    /// What clients will not pay.
    BadDebt,
    /// What is owed to clients.
    ClientCredit,
}

impl Account {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Receivable, Self::Revenue, Self::TaxPayable, Self::Cash, Self::BadDebt, Self::ClientCredit];

    /// Its name in tables and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receivable => "receivable",
            Self::Revenue => "revenue",
            Self::TaxPayable => "tax_payable",
            Self::Cash => "cash",
            Self::BadDebt => "bad_debt",
            Self::ClientCredit => "client_credit",
        }
    }

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|account| account.name() == name)
    }
}

/// A change of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub account: Account,
    /// By how much, in the currency's minor unit: above 0 a debit, below 0 a credit; never 0.
    pub amount_minor: i64,
}

/// The books do not add up: a fault of ours, or of what is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unbalanced {
    /// Entries, or accounts, of a currency that do not sum to 0.
    #[error("the ledger's {what} sum to {sum_minor} and not to 0")]
    Sum {
        /// Which.
        what: String,
        /// To what.
        sum_minor: i128,
    },
    /// A sum of more than 64 bits.
    #[error("the ledger's account {account} would be at {sum_minor}, which is more than 64 bits")]
    Overflow {
        /// Which account.
        account: &'static str,
        /// At what.
        sum_minor: i128,
    },
}

/// What an invoice's issue moves: its fee and the tax on it.
///
/// # Errors
/// A total of more than 64 bits.
pub fn issued(fee_minor: i64, tax_minor: i64) -> Result<Vec<Entry>, Unbalanced> {
    invoiced(fee_minor.into(), tax_minor.into(), 1)
}

/// What a credit note moves: `applied_minor` of it comes off an invoice that stood as `before`, the rest is owed to the client.
///
/// # Errors
/// A fee of more than 64 bits.
pub fn credited(before: Option<&Standing>, applied_minor: i64, fee_minor: i64, tax_minor: i64) -> Result<Vec<Entry>, Unbalanced> {
    let (fee, tax, applied) = (i128::from(fee_minor), i128::from(tax_minor), i128::from(applied_minor));
    // What was written off is no longer receivable.
    let written_off = before.is_some_and(|before| before.stage == Stage::WrittenOff);
    let owed = if written_off { Account::BadDebt } else { Account::Receivable };
    entries([(Account::Revenue, fee), (Account::TaxPayable, tax), (owed, -applied), (Account::ClientCredit, applied - fee - tax)])
}

/// What an event moves, on an invoice that stood as `before` and that it applies to.
///
/// # Errors
/// A fee of more than 64 bits.
pub fn moved(before: &Standing, tax_minor: i64, event: Event) -> Result<Vec<Entry>, Unbalanced> {
    match event {
        Event::Sent | Event::Disputed | Event::Resolved => Ok(Vec::new()),
        Event::Paid(amount) => entries([(Account::Cash, amount.into()), (Account::Receivable, -i128::from(amount))]),
        Event::Credited { net_minor, tax_minor, .. } => {
            credited(Some(before), before.credited(net_minor, tax_minor).1, net_minor, tax_minor)
        }
        Event::Voided => invoiced(i128::from(before.total_minor) - i128::from(tax_minor), tax_minor.into(), -1),
        Event::WrittenOff => {
            let open = i128::from(before.open_minor());
            entries([(Account::BadDebt, open), (Account::Receivable, -open)])
        }
    }
}

/// An invoice's entries, or with a sign of -1 their reversal.
fn invoiced(fee: i128, tax: i128, sign: i128) -> Result<Vec<Entry>, Unbalanced> {
    entries([(Account::Receivable, sign * (fee + tax)), (Account::Revenue, -sign * fee), (Account::TaxPayable, -sign * tax)])
}

/// Without those of 0.
fn entries<const N: usize>(of: [(Account, i128); N]) -> Result<Vec<Entry>, Unbalanced> {
    let moving = of.into_iter().filter(|(_, amount)| *amount != 0);
    moving.map(|(account, amount)| Ok(Entry { account, amount_minor: fits(account, amount)? })).collect()
}

fn fits(account: Account, sum_minor: i128) -> Result<i64, Unbalanced> {
    i64::try_from(sum_minor).map_err(|_| Unbalanced::Overflow { account: account.name(), sum_minor })
}

/// Whether amounts sum to 0.
///
/// # Errors
/// To what they sum.
pub fn balanced(what: &str, amounts: impl IntoIterator<Item = i64>) -> Result<(), Unbalanced> {
    match amounts.into_iter().map(i128::from).sum() {
        0 => Ok(()),
        sum_minor => Err(Unbalanced::Sum { what: what.to_owned(), sum_minor }),
    }
}

/// An account's balance after an entry.
///
/// # Errors
/// A balance of more than 64 bits.
pub fn added(balance_minor: i64, entry: Entry) -> Result<i64, Unbalanced> {
    fits(entry.account, i128::from(balance_minor) + i128::from(entry.amount_minor))
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
