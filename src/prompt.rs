//! Prompts as other programs write them: weights in brackets, and what is more than words.
//!
//! Brackets are read as AUTOMATIC1111's web UI reads them, whose syntax contains ComfyUI's: `(cat)` counts 1.1 times,
//! `[cat]` 1.1 times less, `(cat:1.3)` 1.3 times; brackets in brackets multiply, and a backslash keeps a bracket as it is.
//! A weight does what it does in ComfyUI: it multiplies an embedding's distance from that of the empty prompt at its
//! place. (The web UI multiplies the embeddings themselves and then restores their mean, which may be near zero.)
//!
//! A prompt without any of this stays as it is.

use ndarray::{ArrayD, Axis, Zip};

use crate::settings::Settings;

/// What a pair of brackets without a number multiplies or divides by.
const BRACKET: f64 = 1.1;
/// Larger weights are taken as this one.
const MAX_WEIGHT: f64 = 100.0;
/// A word before an embedding's name in ComfyUI.
const EMBEDDING: &str = "embedding:";
/// What begins another chunk of tokens elsewhere.
const BREAK: &str = "BREAK";

/// A part of a prompt that has one weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its words.
    pub text: String,
    /// How much it counts, 1 for words without brackets.
    pub weight: f64,
}

/// A prompt as the model takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Its parts in order; at least one.
    pub parts: Vec<Part>,
    /// What was left out or is taken as words, in sentences for people.
    pub warnings: Vec<String>,
}

impl Prompt {
    /// Reads a prompt.
    pub fn read(text: &str) -> Self {
        let mut warnings = Vec::new();
        let words = leave_out(text, &mut warnings);
        let parts = weigh_parts(&words, &mut warnings);
        taken_as_words(&words, &mut warnings);
        Self { parts, warnings }
    }

    /// The words that a model with a list of known ones does not know, each once, in order.
    pub fn unknown_words(&self, vocabulary: &[String]) -> Vec<String> {
        let mut unknown: Vec<String> = Vec::new();
        let text = self.parts.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join(" ").to_lowercase();
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            if !vocabulary.iter().any(|known| known == word) && !unknown.iter().any(|known| known == word) {
                unknown.push(word.into());
            }
        }
        unknown
    }
}

/// What a user should know of the prompts of a clone, in sentences: what is left out or taken as words, and which words a
/// model that knows few does not know.
pub fn warnings(settings: &Settings, vocabulary: &[String]) -> Vec<String> {
    let prompt = Prompt::read(&settings.prompt);
    let unknown = prompt.unknown_words(vocabulary);
    let mut warnings = prompt.warnings;
    warnings.extend(Prompt::read(&settings.negative_prompt).warnings);
    if !vocabulary.is_empty() && !unknown.is_empty() {
        warnings.push(format!(
            "the model does not know these words of the prompt: {}; it knows {}",
            unknown.join(", "),
            vocabulary.join(", ")
        ));
    }
    warnings
}

/// The prompt without what names files that are not there, and without breaks.
fn leave_out(text: &str, warnings: &mut Vec<String>) -> String {
    let mut words = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let begins = !words.chars().next_back().is_some_and(char::is_alphanumeric);
        if let Some(tag) = network(rest) {
            warnings.push(format!(
                "{tag} is left out: this program does not load networks from a prompt; merge a LoRA into the bundle with \
                 `motionclone import --lora`"
            ));
            rest = &rest[tag.len()..];
        } else if let Some(name) = rest.strip_prefix(EMBEDDING).filter(|_| begins) {
            let end = name.find(|c: char| c.is_whitespace() || ",:()[]".contains(c)).unwrap_or(name.len());
            warnings.push(format!("{EMBEDDING}{} is left out: embeddings are not read", &name[..end]));
            rest = &name[end..];
        } else if let Some(after) = rest.strip_prefix(BREAK).filter(|after| begins && !continues(after)) {
            warnings.push(format!("{BREAK} is left out: all of the prompt is one chunk here"));
            rest = after;
        } else {
            words.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    words
}

/// Whether a word goes on.
fn continues(text: &str) -> bool {
    text.chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// `<lora:NAME:WEIGHT>` and the like at the beginning.
fn network(text: &str) -> Option<&str> {
    let tag = &text[..=text.strip_prefix('<')?.find('>')? + 1];
    let (kind, _) = tag[1..].split_once(':')?;
    (!kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphanumeric())).then_some(tag)
}

/// The parts that brackets make.
fn weigh_parts(text: &str, warnings: &mut Vec<String>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut run = String::new();
    let (mut round, mut square) = (Vec::new(), Vec::new());
    let flush = |run: &mut String, parts: &mut Vec<Part>| {
        if !run.is_empty() {
            parts.push(Part { text: std::mem::take(run), weight: 1.0 });
        }
    };
    let multiply = |parts: &mut [Part], by: f64| parts.iter_mut().for_each(|part| part.weight *= by);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' if rest.starts_with(['(', ')', '[', ']', '\\']) => {
                run.push_str(&rest[..1]);
                rest = &rest[1..];
            }
            '(' | '[' => {
                flush(&mut run, &mut parts);
                if c == '(' { &mut round } else { &mut square }.push(parts.len());
            }
            ':' if let (Some((weight, length)), Some(start)) = (number(rest), round.last().copied()) => {
                flush(&mut run, &mut parts);
                if weight.abs() > MAX_WEIGHT {
                    warnings.push(format!("the weight {weight} of the prompt is taken as {MAX_WEIGHT}"));
                }
                multiply(&mut parts[start..], weight.clamp(-MAX_WEIGHT, MAX_WEIGHT));
                round.pop();
                rest = &rest[length..];
            }
            ')' | ']' => match if c == ')' { &mut round } else { &mut square }.pop() {
                Some(start) => {
                    flush(&mut run, &mut parts);
                    multiply(&mut parts[start..], if c == ')' { BRACKET } else { 1.0 / BRACKET });
                }
                None => run.push(c),
            },
            c => run.push(c),
        }
    }
    flush(&mut run, &mut parts);
    if !round.is_empty() || !square.is_empty() {
        warnings.push("a bracket of the prompt is not closed; it holds to the end".into());
    }
    round.into_iter().for_each(|start| multiply(&mut parts[start..], BRACKET));
    square.into_iter().for_each(|start| multiply(&mut parts[start..], 1.0 / BRACKET));
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match joined.last_mut().filter(|last| last.weight == part.weight) {
            Some(last) => last.text.push_str(&part.text),
            None => joined.push(part),
        }
    }
    if joined.is_empty() {
        joined.push(Part { text: String::new(), weight: 1.0 });
    }
    joined
}

/// The number before a closing bracket, and the length of both.
fn number(text: &str) -> Option<(f64, usize)> {
    let (number, _) = text.split_once(')')?;
    let plain = number.trim().chars().all(|c| c.is_ascii_digit() || ".+-".contains(c));
    let weight: f64 = number.trim().parse().ok().filter(|_| plain)?;
    Some((weight, number.len() + 1))
}

/// Warns of what other programs understand as more than words, and this one does not.
fn taken_as_words(text: &str, warnings: &mut Vec<String>) {
    let between = |open: char, close: char, has: &dyn Fn(&str) -> bool| {
        let inner =
            text.split(open).skip(1).filter_map(|rest| rest.split(close).next().filter(|_| rest.contains(close)));
        inner.map(|inner| format!("{open}{inner}{close}")).find(|found| has(found))
    };
    // The colon of a weight stands in round brackets.
    let switched = between('[', ']', &|found| {
        let mut depth = 0;
        found.chars().any(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth <= 0 && matches!(c, '|' | ':')
        })
    });
    let chosen = between('{', '}', &|_| true);
    let wildcard = text.split("__").nth(1).filter(|name| !name.is_empty() && !name.contains(char::is_whitespace));
    let emphasis = text.split_whitespace().find(|word| {
        let word = word.trim_end_matches(',');
        word.len() > 2 && (word.ends_with("++") || word.ends_with("--"))
    });
    let both = text.split_whitespace().any(|word| word == "AND").then_some("AND");
    let found = [
        (switched, "switches words between steps"),
        (chosen, "chooses or weighs words"),
        (wildcard.map(|name| format!("__{name}__")), "stands for words of a file"),
        (emphasis.map(String::from), "is a weight"),
        (both.map(String::from), "puts two prompts together"),
    ];
    for (found, meaning) in found {
        if let Some(found) = found {
            warnings.push(format!("{found} {meaning} in other programs; here it is taken as words"));
        }
    }
}

/// Multiplies the distance of embeddings `[1, tokens, c]` from those of the empty prompt by each token's weight.
pub fn weigh(embeddings: &mut ArrayD<f32>, empty: &ArrayD<f32>, weights: &[f32]) {
    for ((mut own, none), weight) in embeddings.axis_iter_mut(Axis(1)).zip(empty.axis_iter(Axis(1))).zip(weights) {
        if *weight != 1.0 {
            Zip::from(&mut own).and(&none).for_each(|own, none| *own = (*own - none) * weight + none);
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{IxDyn, arr3};

    use super::*;

    fn parts(text: &str) -> Vec<(String, f64)> {
        let read = Prompt::read(text);
        read.parts.into_iter().map(|part| (part.text, (part.weight * 1e4).round() / 1e4)).collect()
    }

    fn expected(parts: &[(&str, f64)]) -> Vec<(String, f64)> {
        parts.iter().map(|(text, weight)| (text.to_string(), *weight)).collect()
    }

    #[test]
    fn a_prompt_without_brackets_stays_as_it_is() {
        for text in [
            "",
            " a cat,  sitting. 4K!",
            "smile :)",
            "a] b",
            "a: b 1.2)",
            "C:\\x",
            "<|endoftext|>",
            "a < b > c",
            "Breakfast BREAKING",
        ] {
            assert_eq!(
                Prompt::read(text),
                Prompt { parts: vec![Part { text: text.into(), weight: 1.0 }], warnings: vec![] }
            );
        }
    }

    /// The examples of the web UI's `parse_prompt_attention`, and more.
    #[test]
    fn brackets_weigh() {
        assert_eq!(parts("normal text"), expected(&[("normal text", 1.0)]));
        assert_eq!(parts("an (important) word"), expected(&[("an ", 1.0), ("important", 1.1), (" word", 1.0)]));
        assert_eq!(parts("(unbalanced"), expected(&[("unbalanced", 1.1)]));
        assert_eq!(parts("\\(literal\\]"), expected(&[("(literal]", 1.0)]));
        assert_eq!(parts("(unnecessary)(parens)"), expected(&[("unnecessaryparens", 1.1)]));
        assert_eq!(
            parts("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky)))."),
            expected(&[
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ])
        );
        assert_eq!(parts("a (cat:1.0) b"), expected(&[("a cat b", 1.0)]));
        assert_eq!(parts("[cat]"), expected(&[("cat", 0.9091)]));
        assert_eq!(parts("(cat : 1.3 )"), expected(&[("cat ", 1.3)]));
        assert_eq!(parts("(cat:-0.5)"), expected(&[("cat", -0.5)]));
        assert_eq!(parts("(cat:x)"), expected(&[("cat:x", 1.1)]));
        assert_eq!(parts("()"), expected(&[("", 1.0)]));
        assert_eq!(parts("(é😀:1.2)猫"), expected(&[("é😀", 1.2), ("猫", 1.0)]));
        let much = Prompt::read("(cat:1000)");
        assert_eq!((much.parts[0].weight, much.warnings.len()), (100.0, 1));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let said = |text: &str| Prompt::read(text).warnings.join("; ");
        for (text, words, reason) in [
            ("a cat <lora:zoom_out:0.8>", "a cat ", "<lora:zoom_out:0.8> is left out"),
            ("<lyco:x>a", "a", "<lyco:x> is left out"),
            ("a cat, embedding:EasyNegative", "a cat, ", "embedding:EasyNegative is left out"),
            ("(embedding:bad-hands, ugly)", ", ugly", "embedding:bad-hands is left out"),
            ("a cat BREAK a dog", "a cat  a dog", "BREAK is left out"),
            ("[cat:dog:0.5]", "cat:dog:0.5", "[cat:dog:0.5] switches words"),
            ("a [cat|dog]", "a cat|dog", "[cat|dog] switches words"),
            ("a {cat|dog}", "a {cat|dog}", "{cat|dog} chooses or weighs words"),
            ("a __animal__", "a __animal__", "__animal__ stands for words of a file"),
            ("cat++, dog", "cat++, dog", "cat++, is a weight"),
            ("a cat AND a dog", "a cat AND a dog", "AND puts two prompts together"),
            ("a (cat", "a cat", "not closed"),
        ] {
            assert!(said(text).contains(reason), "{text}: {}", said(text));
            let read: String = Prompt::read(text).parts.into_iter().map(|part| part.text).collect();
            assert_eq!(read, words);
        }
        assert_eq!(Prompt::read("a <lora:a:1> b <lora:b:1>").warnings.len(), 2);
        assert_eq!(Prompt::read("[(cat:1.2)] [a dog]").warnings, Vec::<String>::new());
    }

    #[test]
    fn words_that_a_model_does_not_know_are_found() {
        let known: Vec<String> = ["a", "red", "star"].map(String::from).to_vec();
        let unknown = |text: &str| Prompt::read(text).unknown_words(&known);
        assert_eq!(unknown("A Red (star:1.2)."), Vec::<String>::new());
        assert_eq!(unknown("a red tiger, a photo-realistic tiger"), ["tiger", "photo", "realistic"]);
    }

    #[test]
    fn weights_scale_from_the_empty_prompt() {
        let mut embeddings = arr3(&[[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]).into_dyn();
        let empty = ArrayD::from_elem(IxDyn(&[1, 3, 2]), 1.0);
        weigh(&mut embeddings, &empty, &[1.0, 1.5, 0.0]);
        assert_eq!(embeddings, arr3(&[[[1.0, 2.0], [4.0, 5.5], [1.0, 1.0]]]).into_dyn());
    }
}
