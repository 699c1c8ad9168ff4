//! As much of Rust's syntax as the rules need: text without comments and literals, paths, test modules, functions.

/// The text with comments, strings and characters blanked out, line for line as it was.
pub(super) fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that starts at `at` ends; `at` itself where none does.
fn literal_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let until =
        |from: usize, wanted: &dyn Fn(&[char]) -> bool| (at + from..chars.len()).find(|&i| wanted(&chars[i..])).unwrap_or(chars.len());
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest {
        ['/', '/', ..] => until(2, &|s| s[0] == '\n'),
        ['/', '*', ..] => (until(2, &|s| s.starts_with(&['*', '/'])) + 2).min(chars.len()),
        ['r', '"' | '#', ..] if !in_word => raw_string_end(chars, at),
        ['b', 'r', '"' | '#', ..] if !in_word => raw_string_end(chars, at + 1).max(at),
        ['"', ..] => quoted_end(chars, at + 1, '"'),
        ['\'', '\\', ..] => quoted_end(chars, at + 1, '\''),
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

fn quoted_end(chars: &[char], mut at: usize, quote: char) -> usize {
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// `r"..."` or `r#"..."#`; a raw identifier such as `r#type` is none.
fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return at;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = at + 2 + hashes;
    (body..chars.len()).find(|&i| chars[i..].starts_with(&close)).map_or(chars.len(), |i| i + close.len())
}

/// [`code`] with its `#[cfg(test)]` modules blanked out too.
pub(super) fn shipped(text: &str) -> String {
    let code = code(text);
    let mut out = Vec::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        out.push(line);
        if line.trim() != "#[cfg(test)]" {
            continue;
        }
        let mut depth = 0_i64;
        for line in lines.by_ref() {
            out.push("");
            depth += balance(line);
            if depth == 0 && (line.contains('}') || line.trim_end().ends_with(';')) {
                break;
            }
        }
    }
    out.join("\n")
}

fn balance(line: &str) -> i64 {
    line.chars().map(|c| i64::from(c == '{') - i64::from(c == '}')).sum()
}

/// Every path in the code with its line: of a `use`, each leaf of its tree in full; elsewhere, what is joined by `::`.
pub(super) fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (line, word) = tokens[at];
        if word == "use" && tokens[at + 1..].iter().take_while(|t| t.1 != ";").count() < tokens.len() {
            at += 1;
            use_tree(&tokens, &mut at, &mut Vec::new(), &mut found);
        } else if is_word(word) {
            let mut path = vec![word.to_owned()];
            while tokens.get(at + 1).is_some_and(|t| t.1 == "::") && tokens.get(at + 2).is_some_and(|t| is_word(t.1)) {
                at += 2;
                path.push(tokens[at].1.to_owned());
            }
            found.push((line, path));
            at += 1;
        } else {
            at += 1;
        }
    }
    found
}

/// One tree of a `use`, up to its `,`, `}` or `;`.
fn use_tree(tokens: &[(usize, &str)], at: &mut usize, prefix: &mut Vec<String>, found: &mut Vec<(usize, Vec<String>)>) {
    let depth = prefix.len();
    let mut leaf = true;
    while let Some(&(line, token)) = tokens.get(*at) {
        match token {
            "," | "}" | ";" => {
                if leaf {
                    found.push((line, prefix.clone()));
                }
                break;
            }
            "{" => {
                leaf = false;
                while tokens.get(*at).is_some_and(|t| t.1 != "}" && t.1 != ";") {
                    *at += 1;
                    use_tree(tokens, at, prefix, found);
                }
                *at += 1;
            }
            "as" => *at += 2,
            "::" => *at += 1,
            word => {
                prefix.push(word.to_owned());
                *at += 1;
            }
        }
    }
    prefix.truncate(depth);
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::` and single characters, each with its line from 1. A number is a word of its own and starts with a digit.
pub(super) fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut out = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if first.is_alphanumeric() || first == '_' {
                word_length(rest, first)
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (token, after) = rest.split_at(length);
            out.push((number + 1, token));
            rest = after.trim_start();
        }
    }
    out
}

/// A number takes its fraction with it: `1.5`, but not the range `1..5` or the call `1.max(2)`.
fn word_length(rest: &str, first: char) -> usize {
    let word = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let whole = word(rest);
    let fraction = rest[whole..].strip_prefix('.').filter(|f| first.is_ascii_digit() && f.starts_with(|c: char| c.is_ascii_digit()));
    fraction.map_or(whole, |fraction| whole + 1 + word(fraction))
}

/// A function: its line, name, head up to the body, and how many lines it has from there to its closing brace.
pub(super) struct Function {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) head: String,
    pub(super) lines: usize,
}

/// The functions of formatted code: one ends where a `}` stands at its own indentation.
pub(super) fn functions(code: &str) -> Vec<Function> {
    let lines: Vec<&str> = code.lines().collect();
    let mut out = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(key) = words.iter().position(|&word| word == "fn") else { continue };
        let starts = words[..key].iter().all(|word| matches!(*word, "pub" | "async" | "const" | "extern") || word.starts_with("pub("));
        let indent = line.len() - line.trim_start().len();
        let close = format!("{}}}", " ".repeat(indent));
        let end = (at..lines.len()).find(|&i| lines[i].trim_end() == close || (i == at && balance(line) == 0 && line.contains('}')));
        // A declaration without a body ends at its `;`.
        let body = lines[at..].iter().position(|l| l.contains(['{', ';'])).map_or(at, |lines| at + lines);
        if let (true, true, Some(end)) = (starts, lines[body].contains('{'), end) {
            let name = words.get(key + 1).map_or("", |word| word.split(['(', '<']).next().unwrap_or_default());
            out.push(Function { line: at + 1, name: name.to_owned(), head: lines[at..=body].concat(), lines: end - at + 1 });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(code: &str) -> Vec<String> {
        paths(code).into_iter().map(|(_, path)| path.join("::")).collect()
    }

    #[test]
    fn comments_and_literals_are_blank_and_lines_stay() {
        let text = "let a = \"tonic // \\\" x\"; // tokio\nlet b = r#\"un\"safe\"#; /* f64\n f32 */ let c: &'a str = 'x';\nlet q = '\\''; let d = 1;";
        let code = code(text);
        assert_eq!(code.lines().count(), text.lines().count());
        assert!(!["tonic", "tokio", "safe", "f64", "f32", "'x'"].iter().any(|word| code.contains(word)), "{code}");
        assert!(code.contains("let c: &'a str") && code.contains("let d = 1;"), "{code}");
    }

    #[test]
    fn test_modules_are_not_shipped() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn f64() {\n    }\n}\n#[cfg(test)]\nmod more;\nfn b() {}";
        let shipped = shipped(text);
        assert!(!shipped.contains("f64") && !shipped.contains("more") && shipped.contains("fn b"), "{shipped}");
        assert_eq!(shipped.lines().count(), text.lines().count());
    }

    #[test]
    fn paths_are_spelled_out() {
        assert_eq!(joined("use kiki::{pb, clock::{self, Clock as C}};"), ["kiki::pb", "kiki::clock::self", "kiki::clock::Clock"]);
        assert_eq!(joined("use a::b;\nlet x = kiki::pb::log::v1;"), ["a::b", "let", "x", "kiki::pb::log::v1"]);
        assert_eq!(paths("use a::{\n    b,\n    c,\n};").iter().map(|p| p.0).collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn numbers_keep_their_fraction() {
        let words: Vec<&str> = tokens("1.5 1..5 1.max(2) 1e9 x.0").into_iter().map(|t| t.1).collect();
        assert_eq!(words, ["1.5", "1", ".", ".", "5", "1", ".", "max", "(", "2", ")", "1e9", "x", ".", "0"]);
    }

    #[test]
    fn functions_are_measured_from_head_to_brace() {
        let code = "impl A {\n    pub async fn long(\n        a: u8,\n    ) {\n        if a {\n        }\n    }\n    fn one() {}\n    fn declared();\n}";
        let found: Vec<_> = functions(code).into_iter().map(|f| (f.line, f.name, f.head.contains("async"), f.lines)).collect();
        assert_eq!(found, [(2, "long".to_owned(), true, 6), (8, "one".to_owned(), false, 1)]);
    }
}
