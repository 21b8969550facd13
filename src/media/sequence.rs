//! Sequences: pictures that are a clip's frames, in the order of their numbers.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::image::{FORMATS, is_picture};
use crate::error::{Error, Result};

/// A sequence does not say how many frames it has a second; seconds and timecodes count so many.
pub const RATE: f64 = 24.0;
/// Gaps and files that are named; of more, only the number.
const NAMED: usize = 3;

/// The pictures of a clip.
#[derive(Debug)]
pub struct Sequence {
    /// In the order of their numbers.
    pub files: Vec<PathBuf>,
    /// Seconds from the first picture: where numbers are missing, time goes on.
    pub times: Vec<f64>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A file name as texts and numbers in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    path: PathBuf,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// Digits without leading zeros, and as they stand.
    Number(String, String),
}

/// Pictures whose names differ in one number, which counts them.
struct Group {
    names: Vec<Name>,
    /// Which part of the names counts; none where names are not numbered alike.
    counter: Option<usize>,
}

impl Sequence {
    /// The sequence that a path names: a folder, a pattern such as `frames/shot_*.png`, `shot_%04d.png` or
    /// `shot_####.png`, or one of its pictures. None where the path names a file that is no picture.
    ///
    /// # Errors
    /// When there are no such pictures, or those of several sequences.
    pub fn find(path: &Path) -> Result<Option<Self>> {
        if path.is_dir() {
            return Self::in_folder(path).map(Some);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.exists() {
            return if is_picture(path) { Self::around(path).map(Some) } else { Ok(None) };
        }
        if name.contains(['*', '?', '#', '%']) {
            return Self::matching(path, &name).map(Some);
        }
        Ok(None)
    }

    fn in_folder(folder: &Path) -> Result<Self> {
        let pictures = pictures(folder)?;
        if pictures.is_empty() {
            return Err(Error::input(format!("the folder holds no images; {FORMATS} are read")).with_path(folder));
        }
        let (mut sequences, others): (Vec<Group>, Vec<Group>) =
            groups(pictures).into_iter().partition(|group| group.names.len() > 1);
        if sequences.len() > 1 {
            let listed: Vec<String> = sequences
                .iter()
                .take(NAMED + 1)
                .map(|group| format!("{} ({} pictures)", group.pattern(), group.names.len()))
                .collect();
            let example = folder.join(sequences[0].pattern());
            return Err(Error::input(format!(
                "the folder holds {} sequences: {}; name one, such as {}",
                sequences.len(),
                listed.join(", "),
                example.display()
            ))
            .with_path(folder));
        }
        let mut others: Vec<Name> = others.into_iter().flat_map(|group| group.names).collect();
        others.sort_by(Name::order);
        match sequences.pop() {
            Some(group) => {
                let mut sequence = group.into_sequence(folder);
                if !others.is_empty() {
                    let names: Vec<String> = others.iter().take(NAMED).map(Name::shown).collect();
                    let more = others.len().saturating_sub(NAMED);
                    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                    sequence.warnings.push(format!(
                        "{}: not of the sequence and passed over: {}{more}",
                        folder.display(),
                        names.join(", ")
                    ));
                }
                Ok(sequence)
            }
            // Pictures without numbers are in the order of their names.
            None => Ok(Group { names: others, counter: None }.into_sequence(folder)),
        }
    }

    /// The sequence that a picture belongs to.
    fn around(path: &Path) -> Result<Self> {
        let folder = folder_of(path);
        let groups = groups(pictures(folder)?);
        let own =
            groups.into_iter().find(|group| group.names.iter().any(|name| name.path.file_name() == path.file_name()));
        let alone = || Group { names: vec![Name::new(path.into())], counter: None };
        Ok(own.unwrap_or_else(alone).into_sequence(folder))
    }

    fn matching(path: &Path, pattern: &str) -> Result<Self> {
        let folder = folder_of(path);
        let pattern = parse(pattern);
        let mut names = pictures(folder)?;
        names.retain(|name| matches(&pattern, &name.shown()));
        if names.is_empty() {
            return Err(Error::input("no pictures have such a name").with_path(path));
        }
        let mut groups = groups(names);
        let group = match groups.len() {
            1 => groups.remove(0),
            // The user put them together.
            _ => {
                let mut names: Vec<Name> = groups.into_iter().flat_map(|group| group.names).collect();
                names.sort_by(Name::order);
                Group { names, counter: None }
            }
        };
        Ok(group.into_sequence(path))
    }
}

impl Group {
    fn into_sequence(self, named: &Path) -> Sequence {
        let numbers: Option<Vec<u64>> =
            self.counter.and_then(|at| self.names.iter().map(|name| name.number(at)?.parse().ok()).collect());
        let mut warnings = Vec::new();
        let mut times: Vec<f64> = (0..self.names.len()).map(|index| index as f64 / RATE).collect();
        if let Some(numbers) = numbers.filter(|numbers| numbers.windows(2).all(|pair| pair[1] > pair[0])) {
            let step = usual_step(&numbers);
            let gaps: Vec<(u64, u64)> = numbers
                .windows(2)
                .filter(|pair| pair[1] - pair[0] > step)
                .map(|pair| (pair[0] + step, pair[1] - step))
                .collect();
            if !gaps.is_empty() {
                let missing: u64 = gaps.iter().map(|(first, last)| (last - first) / step + 1).sum();
                let listed: Vec<String> = gaps
                    .iter()
                    .take(NAMED)
                    .map(|(first, last)| if first == last { first.to_string() } else { format!("{first} to {last}") })
                    .collect();
                let more = if gaps.len() > NAMED { ", …" } else { "" };
                warnings.push(format!(
                    "{}: pictures are missing in {}, {missing} of them: {}{more}; the one before a gap is shown until the next",
                    named.display(),
                    self.pattern(),
                    listed.join(", ")
                ));
            }
            times = numbers.iter().map(|number| (number - numbers[0]) as f64 / step as f64 / RATE).collect();
        }
        Sequence { files: self.names.into_iter().map(|name| name.path).collect(), times, warnings }
    }

    /// The names with `*` where they count.
    fn pattern(&self) -> String {
        let Some(name) = self.names.first() else { return "*".into() };
        let parts = name.parts.iter().enumerate().map(|(index, part)| match part {
            _ if Some(index) == self.counter => "*",
            Part::Text(text) | Part::Number(_, text) => text,
        });
        parts.collect()
    }
}

impl Name {
    fn new(path: PathBuf) -> Self {
        let text = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut parts: Vec<Part> = Vec::new();
        for c in text.chars() {
            match (parts.last_mut(), c.is_ascii_digit()) {
                (Some(Part::Number(_, digits)), true) => digits.push(c),
                (Some(Part::Text(text)), false) => text.push(c),
                (_, true) => parts.push(Part::Number(String::new(), c.into())),
                (_, false) => parts.push(Part::Text(c.into())),
            }
        }
        for part in &mut parts {
            if let Part::Number(value, digits) = part {
                let stripped = digits.trim_start_matches('0');
                *value = if stripped.is_empty() { "0" } else { stripped }.into();
            }
        }
        Self { path, parts }
    }

    fn shown(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn number(&self, part: usize) -> Option<&str> {
        match self.parts.get(part) {
            Some(Part::Number(value, _)) => Some(value),
            _ => None,
        }
    }

    /// Numbers as numbers, texts as texts.
    fn order(&self, other: &Self) -> Ordering {
        let parts = self.parts.iter().zip(&other.parts).map(|parts| match parts {
            (Part::Number(a, _), Part::Number(b, _)) => (a.len(), a).cmp(&(b.len(), b)),
            (Part::Text(a), Part::Text(b)) => a.cmp(b),
            (Part::Number(..), Part::Text(_)) => Ordering::Less,
            (Part::Text(_), Part::Number(..)) => Ordering::Greater,
        });
        parts
            .fold(Ordering::Equal, Ordering::then)
            .then(self.parts.len().cmp(&other.parts.len()))
            .then_with(|| self.path.cmp(&other.path))
    }

    /// The name without its numbers, case of the extension aside.
    fn skeleton(&self) -> Vec<String> {
        let last = self.parts.len().saturating_sub(1);
        let text = |index: usize, text: &str| if index == last { text.to_lowercase() } else { text.into() };
        let parts = self.parts.iter().enumerate();
        parts.map(|(index, part)| if let Part::Text(t) = part { text(index, t) } else { "\0".into() }).collect()
    }
}

/// The pictures of a folder, hidden files left out, in no order.
fn pictures(folder: &Path) -> Result<Vec<Name>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && is_picture(&path) && !path.is_dir() {
            found.push(Name::new(path));
        }
    }
    Ok(found)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Pictures that count together, each group in order.
fn groups(names: Vec<Name>) -> Vec<Group> {
    let mut alike: BTreeMap<Vec<String>, Vec<Name>> = BTreeMap::new();
    for name in names {
        alike.entry(name.skeleton()).or_default().push(name);
    }
    alike.into_values().flat_map(counted).collect()
}

/// Groups among names that differ in their numbers alone: the last number that differs counts, the others tell
/// sequences apart.
fn counted(mut names: Vec<Name>) -> Vec<Group> {
    names.sort_by(Name::order);
    let parts = names[0].parts.len();
    let differs = |at: &usize| names.iter().any(|name| name.number(*at) != names[0].number(*at));
    let differing: Vec<usize> = (0..parts).filter(differs).collect();
    let Some((counter, others)) = differing.split_last() else {
        // One name, or the same number in several spellings.
        return vec![Group { names, counter: None }];
    };
    let mut split: BTreeMap<Vec<String>, Vec<Name>> = BTreeMap::new();
    for name in &names {
        let key = others.iter().map(|at| name.number(*at).unwrap_or_default().to_string()).collect();
        split.entry(key).or_default().push(name.clone());
    }
    if split.len() == names.len() && names.len() > 1 {
        // Such as a date and a time: together they count.
        return vec![Group { names, counter: None }];
    }
    split.into_values().map(|names| Group { counter: (names.len() > 1).then_some(*counter), names }).collect()
}

/// The distance of most neighbours.
fn usual_step(numbers: &[u64]) -> u64 {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for pair in numbers.windows(2) {
        *counts.entry(pair[1] - pair[0]).or_default() += 1;
    }
    // Of equally frequent ones, the smallest.
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map_or(1, |(step, _)| step)
}

/// A part of a pattern.
#[derive(Debug, PartialEq)]
enum Glob {
    /// `*`.
    Any,
    /// `?`.
    One,
    /// `%d`, `%04d` or `####`: at least so many digits.
    Digits(usize),
    Exactly(char),
}

fn parse(pattern: &str) -> Vec<Glob> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        parts.push(match c {
            '*' => Glob::Any,
            '?' => Glob::One,
            '#' => {
                let more = rest.len() - rest.trim_start_matches('#').len();
                rest = &rest[more..];
                Glob::Digits(more + 1)
            }
            '%' => match rest.split_once('d').and_then(|(width, after)| {
                let digits = width.is_empty().then_some(1).or_else(|| width.parse().ok())?;
                (digits <= 20).then_some((digits, after))
            }) {
                Some((digits, after)) => {
                    rest = after;
                    Glob::Digits(digits)
                }
                None => Glob::Exactly('%'),
            },
            _ => Glob::Exactly(c),
        });
    }
    parts
}

fn matches(pattern: &[Glob], text: &str) -> bool {
    let next = text.chars().next();
    let after = next.map_or("", |c| &text[c.len_utf8()..]);
    match pattern {
        [] => text.is_empty(),
        [Glob::Any, rest @ ..] => matches(rest, text) || (next.is_some() && matches(pattern, after)),
        [Glob::One, rest @ ..] => next.is_some() && matches(rest, after),
        [Glob::Exactly(c), rest @ ..] => next == Some(*c) && matches(rest, after),
        [Glob::Digits(least), rest @ ..] => {
            let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            digits >= (*least).max(1) && matches(rest, &text[digits..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(files: &[&str], named: &str) -> Result<(Vec<String>, Sequence)> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for file in files {
            std::fs::write(folder.path().join(file), "").expect("a file");
        }
        let sequence = Sequence::find(&folder.path().join(named))?.expect("a sequence");
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((sequence.files.iter().map(name).collect(), sequence))
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        let (files, sequence) = find(&["f_10.png", "f_9.png", "f_1.PNG", "f_2.png"], "").unwrap();
        assert_eq!(files, ["f_1.PNG", "f_2.png", "f_9.png", "f_10.png"]);
        assert!(sequence.warnings[0].contains("6 of them: 3 to 8"), "{:?}", sequence.warnings);
        assert_eq!(sequence.times.iter().map(|t| (t * RATE).round() as usize).collect::<Vec<_>>(), [0, 1, 8, 9]);
        let (files, sequence) = find(&["2.exr", "10.exr", "18.exr"], "").unwrap();
        assert_eq!((files.len(), sequence.warnings.len()), (3, 0), "every eighth frame is no gap");
    }

    #[test]
    fn hidden_files_and_others_are_passed_over() {
        let files = ["._f_0.png", ".DS_Store", "f_0.png", "f_1.png", "notes.txt", "thumbnail.png", "f_2.png"];
        let (found, sequence) = find(&files, "").unwrap();
        assert_eq!(found, ["f_0.png", "f_1.png", "f_2.png"]);
        assert_eq!(sequence.warnings.len(), 1);
        assert!(sequence.warnings[0].contains("passed over: thumbnail.png"), "{:?}", sequence.warnings);
    }

    #[test]
    fn two_sequences_are_told_apart() {
        let files = ["beauty_0.png", "beauty_1.png", "matte_0.png", "matte_1.png", "matte_2.png"];
        let error = find(&files, "").unwrap_err();
        let text = error.to_string();
        assert!(error.is_input() && text.contains("2 sequences: beauty_*.png (2 pictures), matte_*.png (3"), "{text}");
        assert!(text.contains("name one, such as ") && text.ends_with("beauty_*.png"), "{text}");
        for pattern in ["matte_*.png", "matte_%d.png", "matte_#.png", "matte_?.png", "m*_%01d.png", "matte_1.png"] {
            assert_eq!(find(&files, pattern).unwrap().0, ["matte_0.png", "matte_1.png", "matte_2.png"], "{pattern}");
        }
        assert!(find(&files, "matte_%04d.png").unwrap_err().to_string().contains("no pictures have such a name"));
        let text = find(&["v1_01.png", "v1_02.png", "v2_01.png", "v2_02.png"], "").unwrap_err().to_string();
        assert!(text.contains("v1_*.png (2 pictures), v2_*.png"), "{text}");
        assert!(find(&["a_1.png", "a_2.png", "a_1.jpg", "a_2.jpg"], "").is_err());
    }

    #[test]
    fn other_names_keep_their_order() {
        assert_eq!(find(&["b.png", "a.png", "c.jpg"], "").unwrap().0, ["a.png", "b.png", "c.jpg"]);
        let dated = ["2024-05-02_09.png", "2024-05-01_10.png", "2024-06-01_08.png"];
        assert_eq!(find(&dated, "").unwrap().0, ["2024-05-01_10.png", "2024-05-02_09.png", "2024-06-01_08.png"]);
        let (files, _) = find(&["shot_001_v2.png", "shot_002_v2.png"], "").unwrap();
        assert_eq!(files, ["shot_001_v2.png", "shot_002_v2.png"]);
        let huge = ["f_99999999999999999999999.png", "f_100000000000000000000000.png"];
        assert_eq!(find(&huge, "").unwrap().0, huge);
    }

    #[test]
    fn what_is_read_is_said() {
        let text = find(&["a.txt"], "").unwrap_err().to_string();
        assert!(text.contains("the folder holds no images; PNG, JPEG"), "{text}");
        assert!(Sequence::find(Path::new("nowhere.mp4")).unwrap().is_none());
    }
}
