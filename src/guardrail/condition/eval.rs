//! A condition as it is asked: a tree of which every part has its type, over what a bid says of itself.

use std::cmp::Ordering;

use crate::guardrail::Bid;

/// It cannot be worked out: an overflow, or a division by 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unknown;

#[derive(Debug, Clone)]
pub(super) enum Bool {
    Is(bool),
    Not(Box<Bool>),
    And(Box<Bool>, Box<Bool>),
    Or(Box<Bool>, Box<Bool>),
    If(Box<(Bool, Bool, Bool)>),
    Same(Box<Bool>, Box<Bool>),
    Compare(Compare, Box<(Int, Int)>),
    SameText(Text, Text),
    Text(How, Text, Text),
    IntIn(Box<Int>, Vec<Int>),
    TextIn(Text, Texts),
    /// The request has the signal of that bit.
    Signal(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Less,
    LessOrSame,
    Same,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Starts,
    Ends,
    Contains,
}

#[derive(Debug, Clone)]
pub(super) enum Int {
    Is(i64),
    Cpm,
    Ltv,
    Size(Texts),
    Negative(Box<Int>),
    Of(Arithmetic, Box<(Int, Int)>),
    If(Box<(Bool, Int, Int)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone)]
pub(super) enum Text {
    Is(String),
    Client,
    Campaign,
    Platform,
    Currency,
    Country,
}

#[derive(Debug, Clone)]
pub(super) enum Texts {
    Are(Vec<Text>),
    Categories,
    Places,
}

impl Bool {
    pub(super) fn of(&self, bid: &Bid<'_>) -> Result<bool, Unknown> {
        match self {
            Self::Is(value) => Ok(*value),
            Self::Not(one) => one.of(bid).map(|one| !one),
            // Where one side decides, the other may be unknown, as CEL has it.
            Self::And(one, other) => decided(one, other, bid, false),
            Self::Or(one, other) => decided(one, other, bid, true),
            Self::If(parts) => if parts.0.of(bid)? { &parts.1 } else { &parts.2 }.of(bid),
            Self::Same(one, other) => Ok(one.of(bid)? == other.of(bid)?),
            Self::Compare(how, sides) => {
                let order = sides.0.of(bid)?.cmp(&sides.1.of(bid)?);
                Ok(match how {
                    Compare::Less => order == Ordering::Less,
                    Compare::LessOrSame => order != Ordering::Greater,
                    Compare::Same => order == Ordering::Equal,
                })
            }
            Self::SameText(one, other) => Ok(one.of(bid) == other.of(bid)),
            Self::Text(how, text, part) => {
                let (text, part) = (text.of(bid), part.of(bid));
                Ok(match how {
                    How::Starts => text.starts_with(part),
                    How::Ends => text.ends_with(part),
                    How::Contains => text.contains(part),
                })
            }
            Self::IntIn(one, list) => {
                let one = one.of(bid)?;
                // All of them are worked out, so that the order of a list does not matter.
                list.iter().try_fold(false, |found, item| Ok(item.of(bid)? == one || found))
            }
            Self::TextIn(text, list) => Ok(list.has(text.of(bid), bid)),
            Self::Signal(bit) => Ok(bid.signals & 1 << bit != 0),
        }
    }
}

fn decided(one: &Bool, other: &Bool, bid: &Bid<'_>, deciding: bool) -> Result<bool, Unknown> {
    let one = one.of(bid);
    if one == Ok(deciding) {
        return one;
    }
    let other = other.of(bid);
    if other == Ok(deciding) { other } else { one.and(other) }
}

impl Int {
    fn of(&self, bid: &Bid<'_>) -> Result<i64, Unknown> {
        match self {
            Self::Is(value) => Ok(*value),
            Self::Cpm => Ok(bid.price.get()), // nanos of an impression are micros of a thousand
            Self::Ltv => Ok(bid.predicted_ltv.get()),
            Self::Size(list) => i64::try_from(list.len(bid)).map_err(|_| Unknown),
            Self::Negative(one) => one.of(bid)?.checked_neg().ok_or(Unknown),
            Self::Of(how, sides) => {
                let (one, other) = (sides.0.of(bid)?, sides.1.of(bid)?);
                let result = match how {
                    Arithmetic::Add => one.checked_add(other),
                    Arithmetic::Subtract => one.checked_sub(other),
                    Arithmetic::Multiply => one.checked_mul(other),
                    Arithmetic::Divide => one.checked_div(other),
                    Arithmetic::Remainder => one.checked_rem(other),
                };
                result.ok_or(Unknown)
            }
            Self::If(parts) => if parts.0.of(bid)? { &parts.1 } else { &parts.2 }.of(bid),
        }
    }
}

impl Text {
    fn of<'a>(&'a self, bid: &'a Bid<'_>) -> &'a str {
        match self {
            Self::Is(text) => text,
            Self::Client => bid.client,
            Self::Campaign => bid.campaign,
            Self::Platform => bid.platform,
            Self::Currency => bid.currency.code(),
            Self::Country => bid.country,
        }
    }
}

impl Texts {
    fn has(&self, text: &str, bid: &Bid<'_>) -> bool {
        match self {
            Self::Are(list) => list.iter().any(|item| item.of(bid) == text),
            Self::Categories => bid.categories.iter().any(|item| item == text),
            Self::Places => bid.places.iter().any(|item| item == text),
        }
    }

    fn len(&self, bid: &Bid<'_>) -> usize {
        match self {
            Self::Are(list) => list.len(),
            Self::Categories => bid.categories.count(),
            Self::Places => bid.places.count(),
        }
    }
}
