//! Conditions: what the table cannot say, in CEL. The crate `cel` reads the text; what it reads is checked for its types and
//! compiled to a small tree of ours, which costs tens of nanoseconds, where `cel`'s own evaluation costs microseconds.
//! A test holds the one against the other.
//!
//! Invariants: a condition that compiles can be asked of every bid; the cost is bounded by [`MAX_PARTS`], because there are
//! no loops, macros or functions of others; what cannot be worked out refuses.
//!
//! What CEL has and this has not: `double`, `uint`, maps, `null`, time, string arithmetic and order, macros (`exists`, `all`,
//! `map`, `has`), and functions other than `size` of a list, `startsWith`, `endsWith` and `contains`.

mod eval;
mod types;

use cel::Program;

use super::Bid;

/// Bytes of a condition: a page of an editor.
const MAX_BYTES: usize = 1_024;
/// Operators, names and literals of a condition, and brackets in brackets: at a few nanoseconds each, and tens for a list.
const MAX_PARTS: usize = 64;
/// Brackets, and conditionals, in each other: the parser is recursive.
const MAX_DEPTH: usize = 16;

/// A condition, compiled.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    holds: eval::Bool,
    /// A comparison with a value that no request has, and where. It is for who writes it: what is in the log is taken as it is.
    pub(super) moot: Option<String>,
}

impl Condition {
    /// Compiles the text.
    ///
    /// # Errors
    /// What is wrong, and at which line and column.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("has {} bytes; at most {MAX_BYTES} are taken", text.len()));
        }
        check_depth(text)?;
        let program = Program::compile(text).map_err(|errors| {
            let first = errors.errors.first().map(|error| (error.pos, error.msg.trim().to_owned()));
            first.map_or_else(|| "cannot be read".to_owned(), |((line, column), what)| format!("line {line}, column {column}: {what}"))
        })?;
        let mut checker = types::Checker::new(MAX_PARTS);
        let root = program.expression();
        let placed = |fault: types::Fault| {
            let at = program.source_info().offset_for(fault.node).or_else(|| program.source_info().offset_for(root.id));
            let (line, column) = at.map_or((1, 1), |(offset, _)| place(text, offset as usize));
            format!("line {line}, column {column}: {}", fault.problem)
        };
        let holds = checker.bool(root).map_err(placed)?;
        Ok(Self { holds, moot: checker.moot.map(placed) })
    }

    /// Whether the bid is refused: it holds, or cannot be worked out.
    pub(super) fn refuses(&self, bid: &Bid<'_>) -> bool {
        self.holds.of(bid).unwrap_or(true)
    }
}

/// Brackets outside of strings, and the conditionals that nest without any.
fn check_depth(text: &str) -> Result<(), String> {
    let (mut depth, mut deepest, mut conditionals, mut quote, mut escaped) = (0_usize, 0, 0, None, false);
    for c in text.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(end) if c == end => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' => quote = Some(c),
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                '?' => conditionals += 1,
                _ => {}
            },
        }
        deepest = deepest.max(depth + conditionals);
    }
    if deepest > MAX_DEPTH { Err(format!("is {deepest} brackets and conditionals deep; at most {MAX_DEPTH} are taken")) } else { Ok(()) }
}

/// Line and column, from 1, of an offset in characters.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before: Vec<char> = text.chars().take(offset).collect();
    let line = before.iter().filter(|c| **c == '\n').count() + 1;
    (line, before.iter().rev().take_while(|c| **c != '\n').count() + 1)
}

#[cfg(test)]
mod tests;
