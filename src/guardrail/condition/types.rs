//! The types of a condition's parts, found out once, so that asking it can fail on numbers alone.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue, operators as op};

use crate::country;
use crate::guardrail::vet;

use super::eval::{Arithmetic, Bool, Compare, How, Int, Text, Texts};

/// What a bid says of itself.
const NAMES: &str = "client, campaign, platform, currency, country, categories, places, signals, cpm_micros, predicted_ltv_micros";
/// Names of `leaf::Signal` as documents write them, by their values.
const SIGNALS: [(&str, u32); 9] = [
    ("coppa", 1),
    ("gdpr", 2),
    ("tcf_missing", 3),
    ("tcf_refused", 4),
    ("us_opt_out", 5),
    ("gpp", 6),
    ("dsa_required", 7),
    ("supply_chain_missing", 8),
    ("supply_chain_incomplete", 9),
];

/// What is wrong, and with which node.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) node: u64,
    pub(super) problem: String,
}

/// A part of any type.
enum Any {
    Bool(Bool),
    Int(Int),
    Text(Text),
    Texts(Texts),
    Ints(Vec<Int>),
    Signals,
}

impl Any {
    const fn name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Text(_) => "string",
            Self::Texts(_) | Self::Signals => "list of strings",
            Self::Ints(_) => "list of ints",
        }
    }
}

type Checked<T> = Result<T, Fault>;

pub(super) struct Checker {
    left: usize,
    most: usize,
    /// The first comparison with a value that no request has.
    pub(super) moot: Option<Fault>,
}

fn fault<T>(node: &IdedExpr, problem: impl Into<String>) -> Checked<T> {
    Err(Fault { node: node.id, problem: problem.into() })
}

fn two<T>(one: T, other: T) -> Box<(T, T)> {
    Box::new((one, other))
}

impl Checker {
    pub(super) const fn new(parts: usize) -> Self {
        Self { left: parts, most: parts, moot: None }
    }

    pub(super) fn bool(&mut self, node: &IdedExpr) -> Checked<Bool> {
        match self.any(node)? {
            Any::Bool(of) => Ok(of),
            other => fault(node, format!("is a {}, and a bool is called for", other.name())),
        }
    }

    fn int(&mut self, node: &IdedExpr) -> Checked<Int> {
        match self.any(node)? {
            Any::Int(of) => Ok(of),
            other => fault(node, format!("is a {}, and an int is called for", other.name())),
        }
    }

    fn text(&mut self, node: &IdedExpr) -> Checked<Text> {
        match self.any(node)? {
            Any::Text(of) => Ok(of),
            other => fault(node, format!("is a {}, and a string is called for", other.name())),
        }
    }

    fn any(&mut self, node: &IdedExpr) -> Checked<Any> {
        let Some(left) = self.left.checked_sub(1) else {
            return fault(node, format!("is one part more than the {} that are taken", self.most));
        };
        self.left = left;
        match &node.expr {
            Expr::Literal(LiteralValue::Boolean(value)) => Ok(Any::Bool(Bool::Is(*value.inner()))),
            Expr::Literal(LiteralValue::Int(value)) => Ok(Any::Int(Int::Is(*value.inner()))),
            Expr::Literal(LiteralValue::String(value)) => Ok(Any::Text(Text::Is(value.inner().to_owned()))),
            Expr::Literal(_) => fault(node, "numbers are whole and without a suffix; there are strings and true and false besides"),
            Expr::Ident(name) => named(name).map_or_else(|| fault(node, format!("{name:?} is none of {NAMES}")), Ok),
            Expr::List(list) if list.optional_indices.is_empty() => self.list(node, &list.elements),
            Expr::Call(call) => self.call(node, call),
            Expr::Comprehension(_) => fault(node, "exists, all, map and filter are not taken: their cost has no bound"),
            _ => fault(node, "maps, fields, messages and has() are not taken"),
        }
    }

    fn list(&mut self, node: &IdedExpr, elements: &[IdedExpr]) -> Checked<Any> {
        let Some((first, rest)) = elements.split_first() else { return fault(node, "the list is empty") };
        match self.any(first)? {
            Any::Text(first) => {
                let rest = rest.iter().map(|item| self.text(item));
                Ok(Any::Texts(Texts::Are(std::iter::once(Ok(first)).chain(rest).collect::<Checked<_>>()?)))
            }
            Any::Int(first) => {
                let rest = rest.iter().map(|item| self.int(item));
                Ok(Any::Ints(std::iter::once(Ok(first)).chain(rest).collect::<Checked<_>>()?))
            }
            other => fault(first, format!("is a {}; a list has strings or ints", other.name())),
        }
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr) -> Checked<Any> {
        match (call.func_name.as_str(), &call.target, call.args.as_slice()) {
            (op::ADD, None, [one, other]) => self.arithmetic(Arithmetic::Add, one, other),
            (op::SUBSTRACT, None, [one, other]) => self.arithmetic(Arithmetic::Subtract, one, other),
            (op::MULTIPLY, None, [one, other]) => self.arithmetic(Arithmetic::Multiply, one, other),
            (op::DIVIDE, None, [one, other]) => self.arithmetic(Arithmetic::Divide, one, other),
            (op::MODULO, None, [one, other]) => self.arithmetic(Arithmetic::Remainder, one, other),
            (op::NEGATE, None, [one]) => Ok(Any::Int(Int::Negative(Box::new(self.int(one)?)))),
            (op::LOGICAL_NOT, None, [one]) => Ok(Any::Bool(Bool::Not(Box::new(self.bool(one)?)))),
            (op::LOGICAL_AND, None, [first, rest @ ..]) if !rest.is_empty() => self.chain(first, rest, Bool::And),
            (op::LOGICAL_OR, None, [first, rest @ ..]) if !rest.is_empty() => self.chain(first, rest, Bool::Or),
            (op::CONDITIONAL, None, [condition, one, other]) => self.conditional(condition, one, other),
            (op::EQUALS, None, [one, other]) => self.same(node, one, other).map(Any::Bool),
            (op::NOT_EQUALS, None, [one, other]) => Ok(Any::Bool(Bool::Not(Box::new(self.same(node, one, other)?)))),
            (op::LESS, None, [one, other]) => self.compare(Compare::Less, one, other),
            (op::GREATER, None, [one, other]) => self.compare(Compare::Less, other, one),
            (op::LESS_EQUALS, None, [one, other]) => self.compare(Compare::LessOrSame, one, other),
            (op::GREATER_EQUALS, None, [one, other]) => self.compare(Compare::LessOrSame, other, one),
            (op::IN, None, [item, list]) => self.is_in(node, item, list).map(Any::Bool),
            ("size", None, [list]) => self.size(list),
            ("size", Some(list), []) => self.size(list),
            ("startsWith", Some(text), [part]) => self.part(How::Starts, text, part),
            ("endsWith", Some(text), [part]) => self.part(How::Ends, text, part),
            ("contains", Some(text), [part]) => self.part(How::Contains, text, part),
            (name, ..) => fault(node, format!("{:?} is not taken", name.trim_matches(['_', '@']))),
        }
    }

    fn arithmetic(&mut self, how: Arithmetic, one: &IdedExpr, other: &IdedExpr) -> Checked<Any> {
        Ok(Any::Int(Int::Of(how, two(self.int(one)?, self.int(other)?))))
    }

    fn chain(&mut self, first: &IdedExpr, rest: &[IdedExpr], join: fn(Box<Bool>, Box<Bool>) -> Bool) -> Checked<Any> {
        let first = self.bool(first)?;
        rest.iter().try_fold(first, |all, one| Ok(join(Box::new(all), Box::new(self.bool(one)?)))).map(Any::Bool)
    }

    fn conditional(&mut self, condition: &IdedExpr, one: &IdedExpr, other: &IdedExpr) -> Checked<Any> {
        let condition = self.bool(condition)?;
        match self.any(one)? {
            Any::Bool(one) => Ok(Any::Bool(Bool::If(Box::new((condition, one, self.bool(other)?))))),
            Any::Int(one) => Ok(Any::Int(Int::If(Box::new((condition, one, self.int(other)?))))),
            wrong => fault(one, format!("is a {}; a conditional has bools or ints", wrong.name())),
        }
    }

    fn same(&mut self, node: &IdedExpr, one: &IdedExpr, other: &IdedExpr) -> Checked<Bool> {
        match (self.any(one)?, self.any(other)?) {
            (Any::Bool(one), Any::Bool(other)) => Ok(Bool::Same(Box::new(one), Box::new(other))),
            (Any::Int(one), Any::Int(other)) => Ok(Bool::Compare(Compare::Same, two(one, other))),
            (Any::Text(text), Any::Text(with)) => {
                self.country(if matches!(text, Text::Country) { other } else { one }, &text, &with);
                Ok(Bool::SameText(text, with))
            }
            (one, other) => fault(node, format!("a {} is not compared with a {}", one.name(), other.name())),
        }
    }

    fn compare(&mut self, how: Compare, one: &IdedExpr, other: &IdedExpr) -> Checked<Any> {
        Ok(Any::Bool(Bool::Compare(how, two(self.int(one)?, self.int(other)?))))
    }

    fn is_in(&mut self, node: &IdedExpr, item: &IdedExpr, list: &IdedExpr) -> Checked<Bool> {
        match (self.any(item)?, self.any(list)?) {
            (Any::Text(text), Any::Texts(texts)) => {
                match (&text, &texts) {
                    (text, Texts::Are(each)) => each.iter().for_each(|with| self.country(list, text, with)),
                    (Text::Is(category), Texts::Categories) => self.meets(item, vet::exact_category(category)),
                    _ => {}
                }
                Ok(Bool::TextIn(text, texts))
            }
            (Any::Int(int), Any::Ints(list)) => Ok(Bool::IntIn(Box::new(int), list)),
            (Any::Text(Text::Is(name)), Any::Signals) => match SIGNALS.iter().find(|(known, _)| *known == name) {
                Some((_, bit)) => Ok(Bool::Signal(*bit)),
                None => fault(item, format!("{name:?} is none of {}", SIGNALS.map(|(name, _)| name).join(", "))),
            },
            (_, Any::Signals) => fault(item, "a signal is named by a string"),
            (item, list) => fault(node, format!("a {} is not looked for in a {}", item.name(), list.name())),
        }
    }

    /// The country is compared with what is one, or with nothing, as where it is unknown.
    fn country(&mut self, node: &IdedExpr, one: &Text, other: &Text) {
        if let (Text::Country, Text::Is(code)) | (Text::Is(code), Text::Country) = (one, other)
            && !code.is_empty()
        {
            self.meets(node, country::check(code));
        }
    }

    fn meets(&mut self, node: &IdedExpr, checked: Result<(), String>) {
        if let Err(problem) = checked {
            self.moot.get_or_insert(Fault { node: node.id, problem });
        }
    }

    fn size(&mut self, list: &IdedExpr) -> Checked<Any> {
        match self.any(list)? {
            Any::Texts(of) => Ok(Any::Int(Int::Size(of))),
            other => fault(list, format!("is a {}; size is that of categories or places", other.name())),
        }
    }

    fn part(&mut self, how: How, text: &IdedExpr, part: &IdedExpr) -> Checked<Any> {
        Ok(Any::Bool(Bool::Text(how, self.text(text)?, self.text(part)?)))
    }
}

fn named(name: &str) -> Option<Any> {
    Some(match name {
        "client" => Any::Text(Text::Client),
        "campaign" => Any::Text(Text::Campaign),
        "platform" => Any::Text(Text::Platform),
        "currency" => Any::Text(Text::Currency),
        "country" => Any::Text(Text::Country),
        "categories" => Any::Texts(Texts::Categories),
        "places" => Any::Texts(Texts::Places),
        "signals" => Any::Signals,
        "cpm_micros" => Any::Int(Int::Cpm),
        "predicted_ltv_micros" => Any::Int(Int::Ltv),
        _ => return None,
    })
}
