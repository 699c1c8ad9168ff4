//! Settings from the command line and the environment: what is wrong is said by the name of the variable, what is secret is never
//! repeated, and `--print-config` says what holds. A variable that is empty is one that is not set: that is how Compose and Helm hand on
//! what nobody gave, and a list of nothing is no list with an empty name in it.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Write as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Parser};

const PRINT: &str = "print-config";

/// What a program was told; it ends here where that cannot be, and where it is only asked what it was told.
#[must_use]
pub fn settings<A: Parser>() -> A {
    let end = |code, mut to: Box<dyn std::io::Write>, text: &str| {
        drop(to.write_all(text.as_bytes()).and_then(|()| to.flush())); // whoever reads it may be gone
        std::process::exit(code)
    };
    match read(std::env::args_os()) {
        Ok((settings, None)) => settings,
        Ok((_, Some(text))) => end(0, Box::new(std::io::stdout()), &text),
        Err(error) if error.use_stderr() => end(2, Box::new(std::io::stderr()), &explained(&A::command(), &error)),
        Err(help) => end(0, Box::new(std::io::stdout()), &help.render().to_string()),
    }
}

/// The settings, and what `--print-config` answers if it was given.
fn read<A: Parser>(line: impl IntoIterator<Item = OsString>) -> Result<(A, Option<String>), clap::Error> {
    let flag = Arg::new(PRINT).long(PRINT).action(ArgAction::SetTrue).help("Print what holds, secrets hidden, and end");
    let command = reading(A::command().arg(flag));
    let matches = command.clone().try_get_matches_from(line)?;
    let settings = A::from_arg_matches(&matches)?;
    Ok((settings, matches.get_flag(PRINT).then(|| printed(&command, &matches))))
}

/// The command, with no word of variables that are empty.
#[must_use]
pub fn reading(command: Command) -> Command {
    without(command, |name| std::env::var_os(name).is_some_and(|value| value.is_empty()))
}

fn without(command: Command, empty: fn(&OsStr) -> bool) -> Command {
    let command = command.mut_args(|arg| if arg.get_env().is_some_and(empty) { arg.env(None::<&str>) } else { arg });
    command.mut_subcommands(|command| without(command, empty))
}

/// A line a setting: its variable, its value, and where that is from if not from here.
fn printed(command: &Command, matches: &ArgMatches) -> String {
    let mut text = String::new();
    for arg in command.get_arguments() {
        let Some(name) = variable(arg) else { continue };
        let values = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
        let value = values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(",");
        let value = if arg.is_hide_env_values_set() && !value.is_empty() { "(hidden)".to_owned() } else { value };
        let from = match matches.value_source(arg.get_id().as_str()) {
            Some(ValueSource::EnvVariable) => "environment",
            Some(ValueSource::CommandLine) => "command line",
            _ => "default",
        };
        let _ = writeln!(text, "{name}={value}  # {from}"); // a string takes all
    }
    text
}

/// A setting's environment variable.
fn variable(arg: &Arg) -> Option<String> {
    arg.get_env().map(|name| name.to_string_lossy().into_owned())
}

/// What is wrong, with the variables of the settings that it is about; what may be a secret is not repeated.
fn explained(command: &Command, error: &clap::Error) -> String {
    let named: Vec<&str> = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(name)) => vec![name],
        Some(ContextValue::Strings(names)) => names.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    let of = |shown: &&str| {
        command.get_arguments().find(|arg| arg.get_long().is_some_and(|long| shown.split(' ').next() == Some(&format!("--{long}"))))
    };
    let about: Vec<&Arg> = named.iter().filter_map(of).collect();
    let mut text = match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue if about.iter().any(|arg| arg.is_hide_env_values_set()) => {
            let why = std::error::Error::source(error).map_or(String::new(), |why| format!(": {why}"));
            format!("error: {}: not what it has to be{why}; it is not repeated here, as it may be a secret\n", named.join(", "))
        }
        _ => error.render().to_string(),
    };
    for (arg, name) in about.iter().filter_map(|arg| Some((arg, variable(arg)?))) {
        let set = if std::env::var_os(&name).is_some_and(|value| !value.is_empty()) { "is set" } else { "is not set" };
        let _ = writeln!(text, "  --{} is also the variable {name}, which {set}", arg.get_long().unwrap_or_default());
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;
    use crate::ids::Key;

    #[derive(Debug, Parser)]
    struct Line {
        /// A number.
        #[arg(long, env = "KIKI_TEST_NUMBER", default_value_t = 7)]
        number: u32,
        /// A secret.
        #[arg(long, env = "KIKI_TEST_SECRET", value_parser = Key::given, hide_env_values = true)]
        secret: Key,
    }

    fn given(line: &[&str]) -> Result<(Line, Option<String>), clap::Error> {
        read(["program"].iter().chain(line).map(OsString::from))
    }

    #[test]
    fn what_holds_is_printed_without_secrets_and_with_where_it_is_from() {
        let secret = "5".repeat(64);
        let (line, printed) = given(&["--secret", &secret, "--print-config"]).unwrap();
        assert_eq!(line.number, 7);
        assert_eq!(printed.unwrap(), "KIKI_TEST_NUMBER=7  # default\nKIKI_TEST_SECRET=(hidden)  # command line\n");
        assert!(given(&["--secret", &secret]).unwrap().1.is_none());
    }

    #[test]
    fn what_is_wrong_names_the_variable_and_repeats_no_secret() {
        let explained = |line: &[&str]| explained(&Line::command(), &given(line).unwrap_err());
        let number = explained(&["--number", "many"]);
        assert!(number.contains("'many'") && number.contains("KIKI_TEST_NUMBER"), "{number}");
        let secret = explained(&["--secret", "hunter2"]);
        assert!(secret.contains("KIKI_TEST_SECRET") && secret.contains("64 hexadecimal digits") && !secret.contains("hunter2"), "{secret}");
        let missing = explained(&[]);
        assert!(missing.contains("KIKI_TEST_SECRET, which is not set"), "{missing}");
    }

    /// PATH stands for any list: a test cannot set a variable of its own process.
    #[derive(Debug, Parser)]
    struct Listed {
        #[arg(long, env = "PATH", value_delimiter = ':')]
        list: Vec<String>,
        #[command(subcommand)]
        command: Option<Below>,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Below {
        Deep {
            #[arg(long, env = "PATH", default_value = "own")]
            text: String,
        },
    }

    fn listed(args: &[&str], empty: fn(&OsStr) -> bool) -> Listed {
        let matches = without(Listed::command(), empty).try_get_matches_from([&["program"], args].concat()).unwrap();
        Listed::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn a_variable_that_is_empty_is_not_set() {
        assert!(!listed(&[], |_| false).list.is_empty(), "there is a PATH");
        assert!(listed(&[], |name| name == "PATH").list.is_empty());
        assert_eq!(listed(&["--list", "a:b"], |name| name == "PATH").list, ["a", "b"], "arguments are read as ever");
        let Some(Below::Deep { text }) = listed(&["deep"], |name| name == "PATH").command else { panic!() };
        assert_eq!(text, "own", "nor is it to a command below");
    }
}
