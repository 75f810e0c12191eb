use std::time::Duration;

use crate::errors::FieldViolation;

const TRY_AGAIN: &str = "try again";

/// The message, and what it leaves out of the details: violations and the time to wait. The rule is that of the clients of all
/// languages, tests/conformance/sentences.json.
pub(crate) fn sentence(message: &str, violations: &[FieldViolation], retry_delay: Option<Duration>) -> String {
    let mut untold = untold(message, violations);
    let mut said = message.to_owned();
    let told = said.to_ascii_lowercase().contains("try again in");
    if let Some(delay) = retry_delay.filter(|delay| !delay.is_zero() && !told) {
        let when = format!(" in {} s", delay.as_secs() + u64::from(delay.subsec_nanos() > 0));
        match later(message) {
            Some((begin, end)) => said.replace_range(begin..end, &when),
            None => untold.push(format!("{TRY_AGAIN}{when}")),
        }
    }
    untold.into_iter().fold(said, |said, each| format!("{}; {each}", said.trim_end_matches('.')))
}

/// Where a message that says "try again", or "try again later", lacks the time.
fn later(message: &str) -> Option<(usize, usize)> {
    let lower = message.to_ascii_lowercase();
    lower.match_indices(TRY_AGAIN).find_map(|(at, _)| {
        let begin = at + TRY_AGAIN.len();
        let rest = &lower[begin..];
        let end = match rest.strip_prefix(" later") {
            Some(after) if !begins_with_word(after) => begin + " later".len(),
            _ if rest.is_empty() || rest.starts_with(['.', ';', ',']) => begin,
            _ => return None,
        };
        (!ends_with_word(&lower[..at])).then_some((begin, end))
    })
}

/// The violations that the message leaves out. What it says of one isn't said of the next.
fn untold(message: &str, violations: &[FieldViolation]) -> Vec<String> {
    let mut rest = message.to_owned();
    let mut untold = Vec::new();
    for FieldViolation { field, description } in violations {
        let named = name(&rest, field);
        cut(&mut rest, named, field);
        let short = description.trim_end_matches('.');
        let described = rest.find(short).filter(|_| !short.is_empty());
        cut(&mut rest, described, short);
        if named.is_none() && described.is_none() {
            untold.push(if field.is_empty() { description.clone() } else { format!("{field}: {description}") });
        }
    }
    untold
}

/// Puts a blank in the place of a part of a text.
fn cut(text: &mut String, at: Option<usize>, part: &str) {
    if let Some(at) = at {
        text.replace_range(at..at + part.len(), " ");
    }
}

/// Where the whole name is: "arguments.text" isn't in `arguments.text_format`, and not in `arguments.text[3]` either.
fn name(text: &str, name: &str) -> Option<usize> {
    if name.is_empty() {
        return None;
    }
    text.match_indices(name).map(|(at, _)| at).find(|at| {
        let (before, after) = (&text[..*at], &text[at + name.len()..]);
        let goes_on =
            begins_with_word(after) || after.starts_with('[') || after.strip_prefix('.').is_some_and(begins_with_word);
        !ends_with_word(before) && !before.ends_with('.') && !goes_on
    })
}

fn begins_with_word(text: &str) -> bool {
    text.chars().next().is_some_and(is_word)
}

fn ends_with_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}
